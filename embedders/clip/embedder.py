"""The embedder that runs a CLIP model on this machine."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from embedders.base import Lifetime
from embedders.cleaning import is_slow
from embedders.clip.config import ClipConfig
from embedders.clip.messages import Answer, CleanedText, Content, Facts, Pixels
from embedders.clip.processes import ModelProcesses
from embedders.clip.reading import checked
from embedders.clip.running import Model, ServedModel
from embedders.contract import (
    EmbedderSpec,
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    Outcome,
    Priority,
    TextImageInput,
    TextInput,
    refused,
)
from embedders.errors import EmbedderError, EmbedderUnavailable, InputRejected
from embedders.images.decoders import Decoders
from embedders.images.pixels import PixelMemory, Slot
from embedders.telemetry.metrics import MODEL_BYTES
from embedders.telemetry.timing import preprocessing

T = TypeVar("T")

PICTURES_AT_ONCE = 256
"""Pictures that are read or wait for the model; further ones wait to be read. Only those in use take memory."""

LEAST_PART = 8
"""Texts for each process when a call is divided: a forward pass of fewer takes hardly less time."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in the model's size; its pixels are in a slot of the memory that the processes share."""

    slot: Slot


class ClipEmbedder:
    """Has texts and pictures embedded by the processes that run the model, and pictures read by the decoders."""

    def __init__(self, config: ClipConfig, *, decoders: Decoders | None = None, model: Model | None = None) -> None:
        """Make one; `start` loads the model.

        Args:
            config: which model, and where.
            decoders: read pictures and clean texts; without them it has its own.
            model: runs the model; without it, processes do.
        """
        self._config = config
        self._decoders = decoders or Decoders()
        self._own_decoders = None if decoders else self._decoders
        self._model = model
        self._processes = ModelProcesses(config) if model is None and config.served_by is None else None
        self._life = Lifetime(config.name)
        # Calls that read several pictures each could otherwise wait for each other's slots.
        self._reading = asyncio.Lock()
        self._facts: Facts | None = None
        self._memory: PixelMemory | None = None

    @property
    def spec(self) -> EmbedderSpec:
        """Identity and bounds.

        Raises:
            EmbedderUnavailable: `start` has not returned yet.
        """
        return self._known.spec

    @property
    def readers(self) -> int:
        """Pictures to read at the same time."""
        return self._decoders.processes

    @property
    def large_readers(self) -> int:
        """Large pictures to read at the same time, beside the others."""
        return self._decoders.large_jobs

    @property
    def slow_text_readers(self) -> int:
        """Slow texts to read at the same time."""
        return self._decoders.large_jobs

    async def start(self) -> None:
        """Load the model and run some texts and images through it.

        Raises:
            ModelUnusable: the model is unknown, its files are missing, broken or not the expected ones, its device is
                not available, or its vectors in half precision are too far from those in fp32.
            EmbedderUnavailable: the embedder was closed, or no process can be started.
        """
        if self._facts is not None:
            return
        facts = await self._life.run(self._start())
        height, width = facts.scaling.size
        pictures = max(PICTURES_AT_ONCE, 8 * facts.spec.max_batch)
        self._memory = PixelMemory(height * width * 3, pictures)
        # Each process works on batches of its own.
        self._facts = replace(facts, spec=replace(facts.spec, slots=facts.spec.slots * facts.processes))
        self._note_bytes(facts.held_bytes)

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs, max_batch at a time; CLIP has one role for queries and documents.

        Raises:
            EmbedderUnavailable: the embedder is not started or is closed, the forward pass failed, its process ended,
                or memory ran out.
            AnswerInvalid: the model returns no usable vectors, not even for a canary.
        """
        return await self._life.run(self._embed(inputs, options.priority))

    def is_slow(self, text: str) -> bool:
        """Return whether reading a text may take long."""
        return is_slow(text)

    async def read(self, each: Input) -> Picture | CleanedText | InputRejected:
        """Decode and scale a picture, or clean a slow text, or return why it is invalid.

        Raises:
            EmbedderUnavailable: the embedder is not started or is closed, or nothing can read.
        """
        return await self._life.run(self._read(each))

    async def embed_read(self, inputs: Sequence[Picture | CleanedText], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs of one kind that have been read; raises the errors of `embed`."""
        texts = [each for each in inputs if isinstance(each, CleanedText)]
        if texts:
            return await self._life.run(self._embed_texts(texts, options.priority))
        pictures = [each for each in inputs if isinstance(each, Picture)]
        return await self._life.run(self._embed_pictures(pictures, options.priority))

    async def check(self) -> None:
        """Embed a short text in each process; raises the errors of `embed`."""
        await self._life.run(self._check())

    async def close(self) -> None:
        """Fail the calls in flight, end the processes and free everything. May be called twice."""
        await self._life.end()
        if self._own_decoders is not None:
            await self._own_decoders.close()
        if self._model is not None:
            await self._model.close()
        if self._processes is not None:
            await self._processes.close()
        if self._facts is not None:
            self._note_bytes(0)
        if self._memory is not None:
            self._memory.close()

    @property
    def _known(self) -> Facts:
        if self._facts is None:
            raise EmbedderUnavailable(f"the embedder {self._config.name} is not started")
        return self._facts

    @property
    def _running(self) -> tuple[Model, PixelMemory]:
        if self._model is None or self._memory is None:
            raise EmbedderUnavailable(f"the embedder {self._config.name} is not started")
        return self._model, self._memory

    async def _start(self) -> Facts:
        if self._processes is not None:
            await self._processes.start()
            self._model = ServedModel(self._config.name, self._processes.folder)
        elif self._model is None and self._config.served_by is not None:
            self._model = ServedModel(self._config.name, self._config.served_by)
        assert self._model is not None
        return await self._model.start()

    def _note_bytes(self, held_bytes: int) -> None:
        devices = self._known.devices
        for device in set(devices):
            MODEL_BYTES.labels(self._config.name, device).set(held_bytes)

    async def _check(self) -> None:
        model, _ = self._running
        await self._in(model.check())

    async def _embed(self, inputs: Sequence[Input], priority: Priority) -> list[Outcome]:
        size = self.spec.max_batch
        batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        return [outcome for batch in batches for outcome in await self._embed_batch(batch, priority)]

    async def _embed_batch(self, inputs: Sequence[Input], priority: Priority) -> list[Outcome]:
        if all(isinstance(each, TextInput) and not is_slow(each.text) for each in inputs):
            return await self._embed_texts([each for each in inputs if isinstance(each, TextInput)], priority)
        texts = {at: each for at, each in enumerate(inputs) if isinstance(each, TextInput)}
        images = {at: each for at, each in enumerate(inputs) if isinstance(each, ImageInput)}
        both = {at: each for at, each in enumerate(inputs) if isinstance(each, TextImageInput)}
        outcomes: dict[int, Outcome] = {at: refused(self.spec, each) for at, each in both.items()}
        if texts:
            outcomes |= zip(texts, await self._embed_mixed_texts(list(texts.values()), priority), strict=True)
        if images:
            outcomes |= zip(images, await self._embed_images(list(images.values()), priority), strict=True)
        return [outcomes[at] for at in range(len(inputs))]

    async def _embed_mixed_texts(self, texts: Sequence[TextInput], priority: Priority) -> list[Outcome]:
        """Embed texts after the slow ones have been cleaned."""

        async def ready(each: TextInput) -> TextInput | CleanedText | InputRejected:
            return await self._clean(each) if is_slow(each.text) else each

        read = await asyncio.gather(*(ready(each) for each in texts))
        valid = [each for each in read if not isinstance(each, InputRejected)]
        embedded = iter(await self._embed_texts(valid, priority) if valid else [])
        return [each if isinstance(each, InputRejected) else next(embedded) for each in read]

    async def _embed_texts(self, texts: Sequence[TextInput | CleanedText], priority: Priority) -> list[Outcome]:
        model, _ = self._running
        parts = min(model.idle, len(texts) // LEAST_PART)
        if parts <= 1:
            return await self._run(texts, priority)
        size = -(-len(texts) // parts)
        jobs = (self._run(texts[at : at + size], priority, parts=parts) for at in range(0, len(texts), size))
        return [outcome for outcomes in await asyncio.gather(*jobs) for outcome in outcomes]

    async def _embed_images(self, images: Sequence[ImageInput], priority: Priority) -> list[Outcome]:
        outcomes: list[Outcome] = []
        most = self.spec.max_images or self.spec.max_batch
        for at in range(0, len(images), most):
            with preprocessing():
                async with self._reading:
                    read = await asyncio.gather(*(self._scale(each) for each in images[at : at + most]))
            embedded = iter(await self._embed_pictures([each for each in read if isinstance(each, Picture)], priority))
            outcomes += [each if isinstance(each, InputRejected) else next(embedded) for each in read]
        return outcomes

    async def _embed_pictures(self, pictures: Sequence[Picture], priority: Priority) -> list[Outcome]:
        """Embed pictures, a few at a time, so that interactive work gets in between."""
        _, memory = self._running
        most = self.spec.max_images or self.spec.max_batch
        outcomes: list[Outcome] = []
        for at in range(0, len(pictures), most):
            some = pictures[at : at + most]
            pixels = Pixels(memory.place, tuple(each.slot.index for each in some))
            outcomes += await self._run(pixels, priority, kept=some)
        return outcomes

    async def _read(self, each: Input) -> Picture | CleanedText | InputRejected:
        if isinstance(each, TextImageInput):
            return refused(self.spec, each)
        return await (self._scale(each) if isinstance(each, ImageInput) else self._clean(each))

    async def _scale(self, image: ImageInput) -> Picture | InputRejected:
        _, memory = self._running
        slot = await memory.take()
        try:
            await self._in(self._decoders.scale(image.content, self.spec.limits, self._known.scaling, slot))
        except InputRejected as error:
            return error
        return Picture(slot)

    async def _clean(self, each: TextInput) -> CleanedText | InputRejected:
        try:
            text = checked(each, self.spec.limits)
            cleaned = await self._in(self._decoders.clean(text, self._known.form))
        except InputRejected as error:
            return error
        return CleanedText(cleaned, replace(each, text=""), len(text) < len(each.text))

    async def _run(self, content: Content, priority: Priority, *, kept: Any = None, parts: int = 1) -> list[Outcome]:
        model, _ = self._running
        return _outcomes(await self._in(model.run(content, priority, kept=kept, parts=parts)))

    async def _in(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except EmbedderError:
            raise
        except Exception as error:
            raise EmbedderUnavailable(f"the model of {self._config.name} failed: {type(error).__name__}") from error


def _outcomes(answer: Answer) -> list[Outcome]:
    vectors = iter(() if answer.vectors is None else answer.vectors)
    return [each if isinstance(each, InputRejected) else Embedding(next(vectors), *each) for each in answer.rows]
