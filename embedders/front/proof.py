"""Proof of a space: the same few inputs, embedded by two embedders, must have nearly the same vectors.

There is one input of each kind that a model reads: a text, an image, and both as one input.
"""

import asyncio
import io
import json
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedders.base import WatchedWrapper
from embedders.contract import (
    NOT_CHECKED,
    Embedder,
    EmbedderSpec,
    Embedding,
    EmbedOptions,
    Health,
    ImageInput,
    Input,
    Modality,
    Outcome,
    TextImageInput,
    TextInput,
    Vector,
    WatchedEmbedder,
)
from embedders.errors import AnswerInvalid, EmbedderError, EmbedderUnavailable, ModelUnusable, SpaceDisproved

PROBE_TEXT = "a photograph of a red bicycle leaning against a white wall"
PROBE_SIDE = 224
FRESH = EmbedOptions(fresh=True)

_WORDS = {Modality.TEXT: "text", Modality.IMAGE: "image", Modality.TEXT_IMAGE: "text and image as one input"}


@dataclass(frozen=True, slots=True)
class ProbeVectors:
    """The vectors of the probe in one space.

    Attributes:
        space: the space.
        vectors: float32, shape (dimension,), by the kind of the input; see probe_inputs.
    """

    space: str
    vectors: Mapping[Modality, Vector]


Reference = Callable[[], Awaitable[ProbeVectors]]


def probe_image() -> bytes:
    """Return the probe's image: a PNG of smooth waves of colour, which scaling hardly changes."""
    across, down = np.meshgrid(np.linspace(0, 1, PROBE_SIDE), np.linspace(0, 1, PROBE_SIDE))
    waves = [np.sin(6 * across + 2 * down), np.cos(5 * down - across), np.sin(9 * across * down)]
    pixels = np.stack([np.round(127.5 * (1 + wave)) for wave in waves], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def probe_inputs(modalities: Collection[Modality]) -> dict[Modality, Input]:
    """Return the probe's inputs of the kinds that a model reads."""
    inputs: dict[Modality, Input] = {
        Modality.TEXT: TextInput(PROBE_TEXT),
        Modality.IMAGE: ImageInput(probe_image()),
        Modality.TEXT_IMAGE: TextImageInput(PROBE_TEXT, probe_image()),
    }
    return {kind: each for kind, each in inputs.items() if kind in modalities}


async def probe_vectors(embedder: Embedder) -> ProbeVectors:
    """Embed the probe, past all caches.

    Raises:
        AnswerInvalid: the embedder rejects the probe.
        EmbedderError: as the embedder.
    """
    inputs = probe_inputs(embedder.spec.modalities)
    outcomes = await embedder.embed(list(inputs.values()), FRESH)
    vectors: dict[Modality, Vector] = {}
    for kind, outcome in zip(inputs, outcomes, strict=True):
        if not isinstance(outcome, Embedding):
            raise AnswerInvalid(f"the embedder {embedder.spec.name} rejects the probe's {_WORDS[kind]}")
        vectors[kind] = outcome.vector
    return ProbeVectors(embedder.spec.space, vectors)


def write_probe(path: Path, probe: ProbeVectors) -> None:
    """Write a probe's vectors to a JSON file."""
    content = {"space": probe.space} | {kind.value: vector.tolist() for kind, vector in probe.vectors.items()}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_probe(path: Path) -> ProbeVectors:
    """Read a file of write_probe.

    Raises:
        ModelUnusable: the file cannot be read, or does not hold a probe.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kinds = [kind for kind in Modality if kind is Modality.TEXT or kind.value in content]
        rows = np.array([content[kind.value] for kind in kinds], np.float32)
        return ProbeVectors(str(content["space"]), dict(zip(kinds, rows, strict=True)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnusable(
            f"the probe file {path} cannot be read ({type(error).__name__}); write one with vecgate probe"
        ) from error


class ProvenEmbedder(WatchedWrapper):
    """An embedder that is declared to have a space, and serves only after a probe has proven it.

    It stands in front of the cache: until the proof no answer comes from the cache, and its vectors are not stored
    under the declared space. The proof is made by checks, and again after the reference or the embedder itself was
    unavailable, because it may have come back with another model. An embedder that has the space by itself, such as a
    NIM whose model's name it is, needs no proof.
    """

    def __init__(
        self,
        inner: WatchedEmbedder,
        *,
        space: str,
        reference: Reference,
        min_cosine: float,
        outages: Callable[[], int] = lambda: 0,
        timeout_s: float = 30.0,
        at_start: bool = False,
    ) -> None:
        """Wrap `inner`, whose life this embedder takes over.

        Args:
            inner: the embedder.
            space: the declared space.
            reference: returns the probe's vectors in that space; raises EmbedderError while it cannot.
            min_cosine: the least cosine between the vectors of the probe.
            outages: how often the reference has been unavailable.
            timeout_s: seconds that a proof may take.
            at_start: whether starting makes the proof, and fails if the space is another; for a local model whose
                reference is at hand, because starting waits for no other machine.
        """
        super().__init__(inner)
        self.specified_by = self
        self._space = space
        self._reference = reference
        self._min_cosine = min_cosine
        self._outages = outages
        self._timeout_s = timeout_s
        self._at_start = at_start
        self._fault: EmbedderError | None = self._unproven(EmbedderUnavailable(NOT_CHECKED))
        self._judged_at: tuple[int, int] | None = None

    @property
    def spec(self) -> EmbedderSpec:
        """The inner embedder's, with the declared space."""
        return replace(self._inner.spec, space=self._space)

    @property
    def own(self) -> WatchedEmbedder:
        """The embedder with the space that it has by itself."""
        return self._inner

    @property
    def health(self) -> Health:
        """The inner embedder's, if the space is proven. When a new proof is due, so is a check."""
        health = self._inner.health
        if self._needs_none:
            return health
        if self._fault is not None:
            return replace(health, fault=str(self._fault), last_success_s=-math.inf)
        if (stale := self._stale()) is not None:
            return replace(health, fault=health.fault or str(stale), last_success_s=-math.inf)
        return health if self._judged_at == self._now() else replace(health, last_success_s=-math.inf)

    async def start(self) -> None:
        """Start the inner embedder, and prove its space if the start is to do that.

        Raises:
            ModelUnusable: a local model cannot be loaded, or is of another space.
        """
        await super().start()
        if self._at_start:
            await self._prove()
            if isinstance(self._fault, SpaceDisproved):
                raise ModelUnusable(str(self._fault)) from self._fault

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs.

        Raises:
            EmbedderUnavailable: the space is not proven yet.
            SpaceDisproved: the space is a different one.
            EmbedderError: as the inner embedder.
        """
        self._require_proof()
        return await self._inner.embed(inputs, options)

    async def check(self) -> None:
        """Check the inner embedder, and prove its space if a proof is due.

        Raises:
            EmbedderError: as `embed`.
        """
        await super().check()
        await self._prove()
        self._require_proof()

    @property
    def _needs_none(self) -> bool:
        """Whether the embedder has the declared space by itself, as far as is known."""
        return self._inner.spec.space == self._space

    def _now(self) -> tuple[int, int]:
        """Return what changes when a new proof is due."""
        return self._outages(), self._inner.health.outages

    def _require_proof(self) -> None:
        if not self._needs_none and (fault := self._fault or self._stale()) is not None:
            raise fault.for_caller()

    def _stale(self) -> EmbedderError | None:
        """Return the fault if the embedder was unavailable since the proof: it may have another model now."""
        if self._judged_at is None or self._judged_at[1] == self._inner.health.outages:
            return None
        return self._unproven(EmbedderUnavailable("it was unavailable"))

    async def _prove(self) -> None:
        """Make the proof if it is due. If it cannot be made, the last result stands."""
        now = self._now()
        if self._needs_none or self._judged_at == now:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                expected, actual = await self._reference(), await probe_vectors(self._inner)
        except (EmbedderError, TimeoutError) as error:
            if self._judged_at is None:
                self._fault = self._unproven(error)
            return
        self._fault = self._disproof(expected, actual)
        self._judged_at = now

    def _unproven(self, error: EmbedderError | TimeoutError) -> EmbedderUnavailable:
        why = "the proof took too long" if isinstance(error, TimeoutError) else error
        unproven = EmbedderUnavailable(f"its space {self._space} is not proven yet: {why}")
        if isinstance(error, EmbedderUnavailable):
            unproven.retry_after_s = error.retry_after_s
        return unproven

    def _disproof(self, expected: ProbeVectors, actual: ProbeVectors) -> SpaceDisproved | None:
        """Return why the embedder's vectors disprove the space; None if they prove it."""
        declared = f"{self.spec.name} is declared to be of the space {self._space}"
        if expected.space != self._space:
            return SpaceDisproved(f"{declared}, but the probe is of {expected.space}")
        for kind, vector in actual.vectors.items():
            what = _WORDS[kind]
            if kind not in expected.vectors:
                return SpaceDisproved(
                    f"{declared} and embeds {what}, but the probe of that space has none: write it again with vecgate "
                    "probe, or declare no space for it"
                )
            near = _cosine(vector, expected.vectors[kind])
            if near < self._min_cosine:
                return SpaceDisproved(
                    f"{declared}, but its vector of the probe's {what} is far from that space's: cosine {near:.3f}, at "
                    f"least {self._min_cosine} is needed; its weights or its preprocessing differ: declare no "
                    "space for it, or use the model of that space"
                )
        return None


def _cosine(one: Vector, other: Vector) -> float:
    if one.shape != other.shape:
        return -1.0
    lengths: NDArray[np.float64] = np.linalg.norm(np.stack([one, other]).astype(np.float64), axis=1)
    return float(np.dot(one, other) / lengths.prod()) if lengths.all() else -1.0
