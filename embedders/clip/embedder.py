"""The embedder that runs a CLIP model in this process."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np

from embedders.base import Lifetime
from embedders.cleaning import is_slow
from embedders.clip.config import ClipConfig
from embedders.clip.loading import LoadedModel, load
from embedders.clip.reading import Picture, Reader, Text
from embedders.clip.replica import Replica
from embedders.clip.sizing import BatchSizer
from embedders.clip.worker import Worker
from embedders.contract import (
    QUERY,
    EmbedderSpec,
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    Outcome,
    Priority,
    TextImageInput,
    TextInput,
    Vector,
    refused,
)
from embedders.errors import EmbedderError, EmbedderUnavailable, InputRejected
from embedders.images.decoders import Decoders
from embedders.telemetry.metrics import MODEL_BYTES
from embedders.telemetry.timing import preprocessing

T = TypeVar("T")

TOKENIZERS = 4
"""Threads for texts, so that large pictures do not delay them."""

LEAST_READERS, MOST_READERS = 4, 16
"""Bounds of pictures read at the same time; each takes a decoder's memory."""

LARGE_PICTURES = 4
"""One reader of large pictures for so many readers."""


class _Device:
    """A replica of the model, the thread that runs it, and its batch sizes."""

    def __init__(self, replica: Replica, worker: Worker, loaded: LoadedModel) -> None:
        spec = loaded.spec
        self.replica = replica
        self.worker = worker
        self.max_pictures = spec.max_images or spec.max_batch
        self._own = loaded.own_text, loaded.own_picture
        self._texts = BatchSizer(spec.max_batch)
        self._pictures = BatchSizer(self.max_pictures)

    def encode_texts(self, texts: Sequence[Text | InputRejected]) -> list[Outcome]:
        """Embed texts that have been read, in the worker's thread."""
        return _outcomes(texts, lambda ready: self._texts.run(self.replica.encode_texts, ready, self._own[0]))

    def encode_pictures(self, pictures: Sequence[Picture | InputRejected]) -> list[Outcome]:
        """Embed pictures that have been read, in the worker's thread."""

        def encode(some: Sequence[Picture]) -> Any:
            return self.replica.encode_pictures(np.stack([each.pixels for each in some]))

        return _outcomes(pictures, lambda ready: self._pictures.run(encode, ready, self._own[1]))


class ClipEmbedder:
    """Runs forward passes in one thread per device, and decoding and tokenising in several others."""

    def __init__(self, config: ClipConfig, *, decoders: Decoders | None = None) -> None:
        """Make one; `start` loads the model. Without decoders it has its own."""
        self._config = config
        self._decoders = decoders or Decoders()
        self._own_decoders = None if decoders else self._decoders
        threads = self.readers + self.large_readers + TOKENIZERS
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix=f"{config.name}-input")
        self._life = Lifetime(config.name)
        self._spec: EmbedderSpec | None = None
        self._reader: Reader | None = None
        self._devices: list[_Device] = []

    @property
    def spec(self) -> EmbedderSpec:
        """Identity and bounds.

        Raises:
            EmbedderUnavailable: `start` has not returned yet.
        """
        if self._spec is None:
            raise self._not_started()
        return self._spec

    @property
    def readers(self) -> int:
        """Pictures to read at the same time."""
        return self._config.readers or min(max(LEAST_READERS, os.cpu_count() or 1), MOST_READERS)

    @property
    def large_readers(self) -> int:
        """Large pictures to read at the same time, beside the others."""
        return max(1, self.readers // LARGE_PICTURES)

    async def start(self) -> None:
        """Load the model and run some texts and images through it.

        Raises:
            ModelUnusable: the model is unknown, its files are missing, broken or not the expected ones, its device is
                not available, or its vectors in half precision are too far from those in fp32.
            EmbedderUnavailable: the embedder was closed.
        """
        if self._reader is None:
            loaded = await self._life.run(self._read(load, self._config))
            threads = len(loaded.replicas)
            self._devices = [
                _Device(
                    replica,
                    Worker(f"{self._config.name}-model-{number}", partial(replica.share_cores, threads)),
                    loaded,
                )
                for number, replica in enumerate(loaded.replicas)
            ]
            self._reader, self._spec = loaded.reader, loaded.spec
            for replica in loaded.replicas:
                MODEL_BYTES.labels(self._config.name, replica.device).set(replica.weights_bytes)

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs, max_batch at a time; CLIP has one role for queries and documents.

        Raises:
            EmbedderUnavailable: the embedder is not started or is closed, the forward pass failed, or memory ran out.
            AnswerInvalid: the model returns no usable vectors, not even for a canary.
        """
        return await self._life.run(self._embed(inputs, options.priority))

    @property
    def slow_text_readers(self) -> int:
        """Slow texts to read at the same time."""
        return self._decoders.large_jobs

    def is_slow(self, text: str) -> bool:
        """Return whether reading a text may take long."""
        return is_slow(text)

    async def read(self, each: Input) -> Picture | Text | InputRejected:
        """Decode and scale a picture, or tokenise a slow text, or return why it is invalid.

        Raises:
            EmbedderUnavailable: the embedder is not started or is closed.
        """
        reader = self._started_reader()
        if isinstance(each, TextImageInput):
            return refused(self.spec, each)
        if isinstance(each, ImageInput):
            return await self._life.run(self._read(reader.picture, each))
        return await self._life.run(self._in(self._read_slow(reader, each)))

    async def embed_read(self, inputs: Sequence[Picture | Text], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs of one kind that have been read; raises the errors of `embed`."""
        device = self._freest()
        texts = [each for each in inputs if isinstance(each, Text)]
        if texts:
            return await self._life.run(self._in(device.worker.run(options.priority, device.encode_texts, texts)))
        pictures = [each for each in inputs if isinstance(each, Picture)]
        return await self._life.run(self._embed_pictures(device, pictures, options.priority))

    async def check(self) -> None:
        """Embed a short text on each device; raises the errors of `embed`."""
        await self._life.run(self._check())

    async def close(self) -> None:
        """Fail the calls in flight, wait for the threads and free the model. May be called twice."""
        await self._life.end()
        if self._own_decoders is not None:
            await self._own_decoders.close()
        await asyncio.to_thread(self._readers.shutdown, wait=True, cancel_futures=True)
        for device in self._devices:
            await asyncio.to_thread(device.worker.close)
        for device in self._devices:
            MODEL_BYTES.labels(self._config.name, device.replica.device).set(0)
        self._reader, self._devices = None, []

    def _started_reader(self) -> Reader:
        if self._reader is None:
            raise self._not_started()
        return self._reader

    def _freest(self) -> _Device:
        self._started_reader()
        return min(self._devices, key=lambda each: each.worker.load)

    def _not_started(self) -> EmbedderUnavailable:
        return EmbedderUnavailable(f"the embedder {self._config.name} is not started")

    async def _embed(self, inputs: Sequence[Input], priority: Priority) -> list[Outcome]:
        size = self.spec.max_batch
        batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        return [outcome for batch in batches for outcome in await self._embed_batch(batch, priority)]

    async def _check(self) -> None:
        self._started_reader()
        for device in self._devices:
            await self._embed_texts(device, [TextInput("ready")], QUERY.priority)

    async def _embed_batch(self, inputs: Sequence[Input], priority: Priority) -> list[Outcome]:
        texts = {at: each for at, each in enumerate(inputs) if isinstance(each, TextInput)}
        images = {at: each for at, each in enumerate(inputs) if isinstance(each, ImageInput)}
        both = {at: each for at, each in enumerate(inputs) if isinstance(each, TextImageInput)}
        device = self._freest()
        outcomes: dict[int, Outcome] = {at: refused(self.spec, each) for at, each in both.items()}
        if texts:
            outcomes |= zip(texts, await self._embed_texts(device, list(texts.values()), priority), strict=True)
        if images:
            outcomes |= zip(images, await self._embed_images(device, list(images.values()), priority), strict=True)
        return [outcomes[at] for at in range(len(inputs))]

    async def _embed_texts(self, device: _Device, texts: Sequence[TextInput], priority: Priority) -> list[Outcome]:
        reader = self._started_reader()
        slow = {at: each for at, each in enumerate(texts) if is_slow(each.text)}
        read_apart = await asyncio.gather(*(self._read_slow(reader, each) for each in slow.values()))
        apart = dict(zip(slow, read_apart, strict=True))

        def read() -> list[Text | InputRejected]:
            return [apart[at] if at in apart else reader.text(each) for at, each in enumerate(texts)]

        if device.replica.on_cpu:
            # Tokenising in another thread would compete with the model, and each switch of threads costs time.
            return await self._in(device.worker.run(priority, lambda: device.encode_texts(read())))
        with preprocessing():
            ready = await self._read(read)
        return await self._in(device.worker.run(priority, device.encode_texts, ready))

    async def _read_slow(self, reader: Reader, each: TextInput) -> Text | InputRejected:
        """Read a text that is cleaned in a separate process, within a bound of time."""
        try:
            checked = reader.check(each)
            cleaned = await self._decoders.clean(checked, reader.form)
        except InputRejected as error:
            return error
        return await self._read(reader.tokenize, each, checked, cleaned)

    async def _embed_images(self, device: _Device, images: Sequence[ImageInput], priority: Priority) -> list[Outcome]:
        reader = self._started_reader()
        with preprocessing():
            read = await asyncio.gather(*(self._read(reader.picture, each) for each in images))
        return await self._embed_pictures(device, read, priority)

    async def _embed_pictures(
        self, device: _Device, pictures: Sequence[Picture | InputRejected], priority: Priority
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        # A few at a time, so that interactive work gets in between.
        for start in range(0, len(pictures), device.max_pictures):
            some = pictures[start : start + device.max_pictures]
            outcomes += await self._in(device.worker.run(priority, device.encode_pictures, some))
        return outcomes

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await self._in(loop.run_in_executor(self._readers, function, *arguments))

    async def _in(self, work: "asyncio.Future[T] | Coroutine[Any, Any, T]") -> T:
        try:
            return await work
        except EmbedderError:
            raise
        except Exception as error:
            raise EmbedderUnavailable(f"the model of {self._config.name} failed: {type(error).__name__}") from error


def _outcomes(
    read: Sequence[Text | Picture | InputRejected],
    encode: Callable[[list[Any]], list[Vector | InputRejected]],
) -> list[Outcome]:
    """Encode the valid inputs, and return an outcome for each input."""
    ready = [each for each in read if not isinstance(each, InputRejected)]
    rows = iter(encode(ready) if ready else [])
    return [each if isinstance(each, InputRejected) else _outcome(each, next(rows)) for each in read]


def _outcome(read: Text | Picture, row: Vector | InputRejected) -> Outcome:
    if isinstance(row, InputRejected):
        return row
    return Embedding(row, read.count, read.truncated) if isinstance(read, Text) else Embedding(row)
