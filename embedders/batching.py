"""Coalescing: inputs of calls that wait at the same time go to the backend in batches."""

import asyncio
import copy
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, islice

from embedders.base import Embedder, Outcome
from embedders.errors import AnswerInvalid, EmbedderError, EmbedderOverloaded, EmbedderUnavailable
from embedders.inputs import EmbedOptions, Input
from embedders.spec import EmbedderSpec

__all__ = ["BatchingEmbedder"]


class _Call:
    """One caller's inputs, how many of them still wait, and what has become of the others."""

    def __init__(self, inputs: Sequence[Input], done: asyncio.Future[list[Outcome]]) -> None:
        self.inputs = inputs
        self.done = done
        self.waiting = len(inputs)
        self._outcomes: list[Outcome | None] = [None] * len(inputs)
        self._missing = len(inputs)

    def put(self, at: int, outcome: Outcome) -> None:
        self._outcomes[at] = outcome
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result([each for each in self._outcomes if each is not None])

    def fail(self, error: BaseException) -> None:
        if self.done.done():
            return
        if isinstance(error, EmbedderError):
            # Callers raise it at the same time, and each adds its own traceback.
            own = copy.copy(error)
            own.__cause__ = error
            error = own
        self.done.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Place:
    """One waiting input."""

    turn: int
    call: _Call
    at: int


@dataclass(eq=False, slots=True)
class _Batch:
    """Inputs that the backend has."""

    places: list[_Place]
    calls: set[_Call] = field(default_factory=set)


class BatchingEmbedder:
    """Puts a bounded queue in front of an embedder, and gives it whatever waits as soon as it can take more.

    Inputs are served in order of arrival; those of equal options share batches. Inputs of callers that have gone leave
    the queue at once, and a batch that no caller waits for any more is cancelled.
    """

    def __init__(self, inner: Embedder, *, max_queued_inputs: int, slots: int) -> None:
        """Wrap `inner`, whose life this embedder takes over.

        Args:
            inner: the embedder that does the work.
            max_queued_inputs: inputs that may wait; those that `inner` already has do not count.
            slots: batches that `inner` has at the same time, each of at most its spec.max_batch.
        """
        self._inner = inner
        self._max_queued = max_queued_inputs
        self._max_batch = 1
        self._free = slots
        self._lanes: defaultdict[EmbedOptions, deque[_Place]] = defaultdict(deque)
        self._running: dict[asyncio.Task[list[Outcome]], _Batch] = {}
        self._turns = count()
        self._pump_handle: asyncio.Handle | None = None
        self._closed = False

    @property
    def spec(self) -> EmbedderSpec:
        """The inner embedder's."""
        return self._inner.spec

    async def start(self) -> None:
        """Start the inner embedder.

        Raises:
            ModelUnusable: a local model cannot be loaded.
        """
        await self._inner.start()

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs in batches shared with other calls.

        Raises:
            EmbedderOverloaded: the inputs do not fit into the queue; none of them was taken.
            EmbedderError: as the inner embedder, when a batch with inputs of this call fails.
        """
        if self._closed:
            raise EmbedderUnavailable("the embedder is closed")
        self._max_batch = self.spec.max_batch
        if not inputs:
            return []
        self._require_room(len(inputs))
        call = _Call(inputs, asyncio.get_running_loop().create_future())
        lane = self._lanes[options]
        lane.extend(_Place(next(self._turns), call, at) for at in range(len(inputs)))
        self._pump_soon()
        try:
            return await call.done
        finally:
            self._forget(call)

    async def check(self) -> None:
        """Check the inner embedder, past the queue.

        Raises:
            EmbedderError: as the inner embedder.
        """
        await self._inner.check()

    async def close(self) -> None:
        """Fail all calls, then close the inner embedder. May be called twice."""
        self._closed = True
        self._fail_waiting(EmbedderUnavailable("the embedder was closed"))
        running = dict(self._running)
        for task, batch in running.items():
            for call in batch.calls:
                call.fail(EmbedderUnavailable("the embedder was closed"))
            task.cancel()
        if running:
            await asyncio.wait(running)
        await self._inner.close()

    def _require_room(self, wanted: int) -> None:
        if wanted > self._max_queued:
            raise EmbedderOverloaded(
                f"the call has {wanted} inputs; at most {self._max_queued} may wait: send fewer at a time"
            )
        waiting = sum(map(len, self._lanes.values()))
        if waiting + wanted > self._max_queued:
            raise EmbedderOverloaded(f"{waiting} inputs wait already; at most {self._max_queued} may: try again later")

    def _forget(self, call: _Call) -> None:
        """Drop what still waits for a call that ended, and batches that served nobody else."""
        if call.waiting:
            for options, lane in self._lanes.items():
                self._lanes[options] = deque(place for place in lane if place.call is not call)
        for task, batch in self._running.items():
            if call in batch.calls:
                batch.calls.discard(call)
                if not batch.calls:
                    task.cancel()

    def _pump_soon(self) -> None:
        # Calls that arrive in the same turn of the event loop share a batch this way.
        if self._pump_handle is None:
            self._pump_handle = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_handle = None
        try:
            while self._free and (waiting := [options for options, lane in self._lanes.items() if lane]):
                self._begin_batch(min(waiting, key=lambda options: self._lanes[options][0].turn))
        except Exception as error:  # noqa: BLE001 -- whatever goes wrong here, nobody may be left waiting
            self._fail_waiting(error)

    def _begin_batch(self, options: EmbedOptions) -> None:
        lane = self._lanes[options]
        places = list(islice(lane, self._max_batch))
        work = self._inner.embed([place.call.inputs[place.at] for place in places], options)
        task = asyncio.ensure_future(work)
        for place in places:
            lane.popleft()
            place.call.waiting -= 1
        self._free -= 1
        self._running[task] = _Batch(places, {place.call for place in places})
        task.add_done_callback(self._end_batch)

    def _fail_waiting(self, error: BaseException) -> None:
        for lane in self._lanes.values():
            for place in lane:
                place.call.waiting = 0
                place.call.fail(error)
            lane.clear()

    def _end_batch(self, task: asyncio.Task[list[Outcome]]) -> None:
        batch = self._running.pop(task)
        self._free += 1
        try:
            self._settle(task, batch)
        finally:
            if not self._closed:
                self._pump_soon()

    @staticmethod
    def _settle(task: asyncio.Task[list[Outcome]], batch: _Batch) -> None:
        error = EmbedderUnavailable("the embedder stopped the batch") if task.cancelled() else task.exception()
        if error is None and len(task.result()) != len(batch.places):
            error = AnswerInvalid("the embedder answered another number of outcomes than it got inputs")
        if error is None:
            for place, outcome in zip(batch.places, task.result(), strict=True):
                place.call.put(place.at, outcome)
            return
        for call in batch.calls:
            call.fail(error)
