"""An embedder in memory: unit vectors made from a hash of the content, and knobs to fail, block and watch it."""

import asyncio
import hashlib
import io
import time
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from embedders.contract import (
    QUERY,
    SEPARATE,
    Embedder,
    EmbedderSpec,
    Embedding,
    EmbedOptions,
    Health,
    ImageInput,
    Input,
    InputLimits,
    Modality,
    Outcome,
    TextImageInput,
    TextInput,
    Vector,
    WatchedEmbedder,
    modality,
    refused,
)
from embedders.errors import (
    EmbedderError,
    EmbedderOverloaded,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    TextTooLong,
)
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.images import decoding as images
from embedders.texts import check_text


def picture(
    colour: tuple[int, int, int] = (200, 30, 30), *, size: tuple[int, int] = (8, 8), file_format: str = "PNG"
) -> bytes:
    """Return the bytes of a picture file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, file_format)
    return file.getvalue()


def watched(embedder: Embedder) -> WatchedEmbedder:
    """Return an embedder that knows whether it works: itself, or a breaker around it."""
    if isinstance(embedder, BreakerEmbedder | FakeEmbedder):
        return embedder
    return BreakerEmbedder(embedder, BreakerRules())


TEXT_ONLY = frozenset({Modality.TEXT})

Content = str | bytes | tuple[str, bytes]
"""A text, an image file, or both as one input."""


class FakeEmbedder:
    """A deterministic Embedder. A word of a text is a token, and start and end count two more.

    Attributes:
        failure: what `embed` and `check` raise while it is set.
        gate: while set to an Event that is not set, `embed` waits for it after it has recorded the call.
        calls: the inputs and options of every call that reached the backend, in order.
        entered: set each time a call reaches the backend; a test clears it to wait for the next one.
        in_flight: calls inside the backend now.
        health: that of its last call or check, unless it was busy.
        silences: since when calls had had no answer that were given up.
        started: how often `start` was called.
        closed: how often `close` was called.
    """

    def __init__(
        self,
        *,
        name: str = "fake",
        model: str = "fake/model",
        space: str = "fake",
        dimension: int = 8,
        max_batch: int = 32,
        max_images: int | None = None,
        caller_keys: bool = True,
        slots: int = 1,
        max_text_tokens: int | None = None,
        limits: InputLimits | None = None,
        modalities: frozenset[Modality] = SEPARATE,
        known: Mapping[Content, Sequence[float]] | None = None,
    ) -> None:
        """Make one; `known` gives chosen vectors to chosen contents, which are scaled to unit length."""
        self._spec = EmbedderSpec(
            name=name,
            model=model,
            space=space,
            dimension=dimension,
            modalities=modalities,
            limits=limits or InputLimits(),
            max_text_tokens=max_text_tokens,
            max_batch=max_batch,
            max_images=max_images,
            slots=slots,
            caller_keys=caller_keys,
            learnt=dimension > 0,
        )
        self._known = dict(known or {})
        self._end = asyncio.Event()
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.calls: list[tuple[list[Input], EmbedOptions]] = []
        self.entered = asyncio.Event()
        self.in_flight = 0
        self.health = Health()
        self.silences: list[float] = []
        self.started = 0
        self.closed = 0

    @property
    def spec(self) -> EmbedderSpec:
        """Identity and bounds, known from the beginning."""
        return self._spec

    async def start(self) -> None:
        """Count the call."""
        self.started += 1

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed by hash, after `gate`, or raise `failure`."""
        self.calls.append((list(inputs), options))
        self.entered.set()
        self.in_flight += 1
        try:
            await self._pass_gate()
            if self._end.is_set():
                raise EmbedderUnavailable(f"{self._spec.name} is closed")
            if self.failure is not None:
                raise self.failure.with_traceback(None)
            self.health.fault, self.health.last_success_s = None, time.monotonic()
            return [self._outcome(each) for each in inputs]
        except (EmbedderOverloaded, EmbedderRateLimited):
            raise
        except EmbedderError as error:
            self.health.fault = str(error)
            raise
        finally:
            self.in_flight -= 1

    async def check(self) -> None:
        """Embed a short text."""
        await self.embed([TextInput("check")], QUERY)

    def note_silence(self, since_s: float) -> None:
        """Keep since when."""
        self.silences.append(since_s)

    async def close(self) -> None:
        """Fail what waits and all later calls."""
        self.closed += 1
        self._end.set()

    def vector(self, content: Content) -> Vector:
        """Return the vector that a content gets: float32, shape (dimension,), unit length."""
        if content in self._known:
            row = np.asarray(self._known[content], dtype=np.float64)
        else:
            key = self._spec.space.encode() + b"\0" + _key(content)
            seed = int.from_bytes(hashlib.sha256(key).digest())
            row = np.random.default_rng(seed).standard_normal(self._spec.dimension)
        assert row.shape == (self._spec.dimension,)
        return (row / np.linalg.norm(row)).astype(np.float32)

    async def _pass_gate(self) -> None:
        if self.gate is None:
            await asyncio.sleep(0)
            return
        waits = [asyncio.ensure_future(self.gate.wait()), asyncio.ensure_future(self._end.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _outcome(self, each: Input) -> Outcome:
        try:
            if modality(each) not in self._spec.modalities:
                return refused(self._spec, each)
            if isinstance(each, ImageInput | TextImageInput):
                images.decode(each.content, self._spec.limits)
            if isinstance(each, ImageInput):
                return Embedding(self.vector(each.content))
            text, count, truncated = self._read(each)
            content: Content = text if isinstance(each, TextInput) else (text, each.content)
            return Embedding(self.vector(content), count, truncated)
        except InputRejected as error:
            return error

    def _read(self, each: TextInput | TextImageInput) -> tuple[str, int, bool]:
        """Return a text as the model reads it, the number of its tokens, and whether it was cut."""
        checked = check_text(each.text, self._spec.limits, truncate=each.truncate, at_start=each.at_start)
        words, bound = checked.split(), self._spec.max_text_tokens
        count = len(words) + 2
        if bound is None or count <= bound:
            return checked, count, len(checked) < len(each.text)
        if not each.truncate:
            raise TextTooLong(f"the text has {count} tokens; the model reads {bound}; shorten or truncate it")
        kept = words[2 - bound :] if each.at_start else words[: bound - 2]
        return " ".join(kept), bound, True


def _key(content: Content) -> bytes:
    match content:
        case str():
            return b"t" + content.encode()
        case bytes():
            return b"i" + content
        case (text, image):
            return b"b" + hashlib.sha256(text.encode()).digest() + image
