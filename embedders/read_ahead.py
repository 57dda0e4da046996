"""Pictures on their way to a local model: read before they join a batch, so that a slow one delays nobody else."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from embedders.base import Outcome
from embedders.errors import EmbedderUnavailable, InputRejected
from embedders.inputs import EmbedOptions, Input, Priority
from embedders.queueing import BULK_EVERY, QueuedCall, WaitingQueue

__all__ = ["PictureModel", "ReadAhead", "ReadPicture"]

READ_SHARE = 0.25
"""The part of a batch's time for which a free model may wait for pictures that are being read."""


class PictureModel(Protocol):
    """An embedder that reads pictures apart from embedding them."""

    @property
    def readers(self) -> int:
        """Pictures to read at the same time."""
        ...

    @property
    def large_readers(self) -> int:
        """Large pictures to read at the same time, beside the others."""
        ...

    async def read(self, image: Input) -> Any:
        """Return a picture as the model reads it, or (unraised) the InputRejected that says why it cannot be read.

        Raises:
            EmbedderUnavailable: the embedder is not started or is closed, or reading failed.
        """
        ...

    async def embed_read(self, pictures: Sequence[Any], options: EmbedOptions) -> list[Outcome]:
        """Embed pictures that have been read; raises what `Embedder.embed` raises."""
        ...


@dataclass(eq=False, slots=True)
class ReadPicture:
    """A picture that is being read or has been.

    Attributes:
        call: whose it is.
        at: its place in the call.
        options: of the call.
        taken_s: when it left the queue, by time.monotonic.
        ready_s: when it had been read.
        pixels: the picture as the model reads it; None until then.
        error: why it could not be read.
    """

    call: QueuedCall
    at: int
    options: EmbedOptions
    taken_s: float
    ready_s: float = 0.0
    pixels: Any = None
    error: BaseException | None = None

    @property
    def wanted(self) -> bool:
        """Whether the caller is still there and the call has not failed."""
        return not self.call.done.done()

    @property
    def read_s(self) -> float:
        """How long reading took."""
        return self.ready_s - self.taken_s


class ReadAhead:
    """Takes pictures out of a queue, one for each free reader, and keeps those that are ready until a batch takes them.

    The queue decides whose picture is next, one by one, and only as many are taken as readers are free, so that shares
    are fair and pictures of callers that have gone are not read. A batch takes what is ready of one urgency; what has
    been read for callers that have gone meanwhile never reaches the model.
    """

    def __init__(
        self,
        model: PictureModel,
        queue: WaitingQueue,
        *,
        readers: int,
        most: int,
        on_read: Callable[[ReadPicture], None],
    ) -> None:
        """Read from a queue.

        Args:
            model: reads.
            queue: what waits to be read.
            readers: pictures to read at once.
            most: pictures of one urgency to hold, being read or ready.
            on_read: called after each picture, when its call or what is ready has it.
        """
        self._model = model
        self._queue = queue
        self._readers = readers
        self.most = most
        self._on_read = on_read
        self._reading: dict[asyncio.Task[Any], ReadPicture] = {}
        self._ready: dict[Priority, deque[ReadPicture]] = {priority: deque() for priority in Priority}
        self._held: Counter[Priority] = Counter()
        self._urgent_in_a_row = 0

    @property
    def held(self) -> int:
        """Pictures that are being read or ready."""
        return self._held.total()

    def begin(self) -> None:
        """Give every free reader what is next."""
        self._drop_unwanted()
        while len(self._reading) < self._readers and self._held[Priority.INTERACTIVE] < self.most:
            bulk = self._held[Priority.BULK] < self.most
            if not self._queue.has_work(bulk=bulk):
                return
            options, [(call, at)] = self._queue.take(1, bulk=bulk)
            self._held[options.priority] += 1
            task = asyncio.get_running_loop().create_task(self._model.read(call.inputs[at]))
            self._reading[task] = ReadPicture(call, at, options, time.monotonic())
            task.add_done_callback(self._end)

    def has_work(self, *, bulk: bool) -> bool:
        """Return whether a batch could take anything; bulk work only if it may."""
        self._drop_unwanted()
        return bool(self._ready[Priority.INTERACTIVE] or (bulk and self._ready[Priority.BULK]))

    def worth_waiting_until_s(self, size: int, free_s: float, batch_s: float, *, bulk: bool) -> float:
        """Return until when a model that is free since `free_s` should wait for what it may take to grow to `size`."""
        priority = self._next_priority(bulk=bulk)
        ready = self._ready[priority]
        coming = any(each.wanted and each.options.priority is priority for each in self._reading.values())
        if len(ready) >= size or not coming:
            return 0.0
        return max(ready[0].ready_s, free_s) + READ_SHARE * batch_s

    def take(self, size: int, *, bulk: bool) -> list[ReadPicture]:
        """Take a batch of what `has_work` found, of one urgency."""
        priority = self._next_priority(bulk=bulk)
        self._urgent_in_a_row = 0 if priority is Priority.BULK else self._urgent_in_a_row + 1
        ready = self._ready[priority]
        taken = [ready.popleft() for _ in range(min(size, len(ready)))]
        self._held[priority] -= len(taken)
        return taken

    async def close(self) -> None:
        """Fail the calls whose pictures are being read or ready."""
        reading = dict(self._reading)
        for each in chain(reading.values(), *self._ready.values()):
            each.call.fail(EmbedderUnavailable("the embedder was closed"))
        for task in reading:
            task.cancel()
        if reading:
            await asyncio.wait(reading)
        for ready in self._ready.values():
            ready.clear()

    def _drop_unwanted(self) -> None:
        for priority, ready in self._ready.items():
            for each in [each for each in ready if not each.wanted]:
                ready.remove(each)
                self._held[priority] -= 1

    def _next_priority(self, *, bulk: bool) -> Priority:
        if not self._ready[Priority.INTERACTIVE]:
            return Priority.BULK
        turn = bulk and self._ready[Priority.BULK] and self._urgent_in_a_row >= BULK_EVERY - 1
        return Priority.BULK if turn else Priority.INTERACTIVE

    def _end(self, task: asyncio.Task[Any]) -> None:
        picture = self._reading.pop(task)
        picture.ready_s = time.monotonic()
        priority = picture.options.priority
        result = EmbedderUnavailable("the embedder stopped reading") if task.cancelled() else task.exception()
        if result is None:
            result = task.result()
        if isinstance(result, InputRejected):
            picture.call.put(picture.at, result)
        elif isinstance(result, BaseException):
            picture.call.fail(result)
        else:
            picture.pixels = result
        picture.error = result if isinstance(result, BaseException) else None
        if picture.error is None and picture.wanted:
            self._ready[priority].append(picture)
        else:
            self._held[priority] -= 1
        self._on_read(picture)
