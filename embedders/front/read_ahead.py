"""Reading ahead: a local model's inputs are read before they join a batch, so that a slow one delays no other call."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from embedders.contract import EmbedOptions, Input, Outcome, Priority
from embedders.errors import EmbedderUnavailable, InputRejected
from embedders.front.queueing import BULK_EVERY, QueuedCall, WaitingQueue

READ_SHARE = 0.25
"""The share of a batch's time for which a free model may wait for inputs that are being read."""


class ReadingModel(Protocol):
    """An embedder that can read pictures and slow texts separately from embedding them."""

    @property
    def readers(self) -> int:
        """Pictures to read at the same time."""
        ...

    @property
    def large_readers(self) -> int:
        """Large pictures to read at the same time, beside the others."""
        ...

    @property
    def slow_text_readers(self) -> int:
        """Slow texts to read at the same time."""
        ...

    def is_slow(self, text: str) -> bool:
        """Return whether reading a text may take long."""
        ...

    async def read(self, each: Input) -> Any:
        """Return an input as the model reads it, or (unraised) the InputRejected that says why it cannot be read.

        Raises:
            EmbedderUnavailable: the embedder is not started or is closed, or reading failed.
        """
        ...

    async def embed_read(self, inputs: Sequence[Any], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs of one kind that have been read; raises the errors of `Embedder.embed`."""
        ...


@dataclass(eq=False, slots=True)
class ReadInput:
    """An input that is being read or has been.

    Attributes:
        call: the call that it belongs to.
        at: its place in the call.
        options: of the call.
        taken_s: when it left the queue, by time.monotonic.
        ready_s: when it had been read.
        content: the input as the model reads it; None until then.
        error: why it could not be read, if so.
    """

    call: QueuedCall
    at: int
    options: EmbedOptions
    taken_s: float
    ready_s: float = 0.0
    content: Any = None
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
    """Takes inputs out of a queue, one for each free reader, and keeps those that are ready until a batch takes them.

    The queue decides which input is next, and no more are taken than readers are free, so that shares are fair and
    inputs of callers that have left are not read. A batch takes ready inputs of one priority; inputs whose callers have
    left never reach the model.
    """

    def __init__(
        self,
        model: ReadingModel,
        queue: WaitingQueue,
        *,
        readers: int,
        most: int,
        on_read: Callable[[ReadInput], None],
    ) -> None:
        """Read from a queue.

        Args:
            model: reads.
            queue: inputs to read.
            readers: inputs to read at once.
            most: inputs of one priority to hold, being read or ready.
            on_read: called after each input that was read, rejected or failed.
        """
        self._model = model
        self._queue = queue
        self._readers = readers
        self.most = most
        self._on_read = on_read
        self._reading: dict[asyncio.Task[Any], ReadInput] = {}
        self._ready: dict[Priority, deque[ReadInput]] = {priority: deque() for priority in Priority}
        self._held: Counter[Priority] = Counter()
        self._urgent_in_a_row = 0

    @property
    def held(self) -> int:
        """Inputs that are being read or ready."""
        return self._held.total()

    @property
    def inputs(self) -> Iterator[ReadInput]:
        """Those that are being read or ready."""
        return chain(self._reading.values(), *self._ready.values())

    def begin(self) -> None:
        """Give each free reader its next input."""
        self._drop_unwanted()
        while len(self._reading) < self._readers and self._held[Priority.INTERACTIVE] < self.most:
            bulk = self._held[Priority.BULK] < self.most
            if not self._queue.has_work(bulk=bulk):
                return
            options, [(call, at)] = self._queue.take(1, bulk=bulk)
            self._held[options.priority] += 1
            task = asyncio.get_running_loop().create_task(self._model.read(call.inputs[at]))
            self._reading[task] = ReadInput(call, at, options, time.monotonic())
            task.add_done_callback(self._end)

    def has_work(self, *, bulk: bool) -> bool:
        """Return whether a batch could take an input: no bulk one unless `bulk`."""
        self._drop_unwanted()
        return bool(self._ready[Priority.INTERACTIVE] or (bulk and self._ready[Priority.BULK]))

    def worth_waiting_until_s(self, size: int, free_s: float, batch_s: float, *, bulk: bool) -> float:
        """Return until when a model that is free since `free_s` should wait for a batch to grow to `size`."""
        priority = self._next_priority(bulk=bulk)
        ready = self._ready[priority]
        coming = any(each.wanted and each.options.priority is priority for each in self._reading.values())
        if len(ready) >= size or not coming:
            return 0.0
        return max(ready[0].ready_s, free_s) + READ_SHARE * batch_s

    def take(self, size: int, *, bulk: bool) -> list[ReadInput]:
        """Take a batch of one priority; `has_work` is true."""
        priority = self._next_priority(bulk=bulk)
        self._urgent_in_a_row = 0 if priority is Priority.BULK else self._urgent_in_a_row + 1
        ready = self._ready[priority]
        taken = [ready.popleft() for _ in range(min(size, len(ready)))]
        self._held[priority] -= len(taken)
        return taken

    async def close(self) -> None:
        """Fail the calls whose inputs are being read or ready."""
        reading = dict(self._reading)
        for each in self.inputs:
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
        read = self._reading.pop(task)
        read.ready_s = time.monotonic()
        priority = read.options.priority
        result = EmbedderUnavailable("the embedder stopped reading") if task.cancelled() else task.exception()
        if result is None:
            result = task.result()
        if isinstance(result, InputRejected):
            read.call.put(read.at, result)
        elif isinstance(result, BaseException):
            read.call.fail(result)
        else:
            read.content = result
        read.error = result if isinstance(result, BaseException) else None
        if read.error is None and read.wanted:
            self._ready[priority].append(read)
        else:
            self._held[priority] -= 1
        self._on_read(read)
