"""Batching: inputs of calls that wait at the same time go to the backend together.

This module decides when the next batch begins; embedders.front.queueing decides whose inputs it takes.
"""

import asyncio
import contextvars
import statistics
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from itertools import chain
from typing import Any

from embedders.base import EmbedderWrapper
from embedders.contract import (
    Embedder,
    Embedding,
    EmbedOptions,
    Input,
    Outcome,
    Priority,
    TextInput,
    modality,
    refused,
)
from embedders.errors import AnswerInvalid, EmbedderOverloaded, EmbedderUnavailable, InputRejected
from embedders.front.queueing import QueueBounds, QueuedCall, WaitingQueue
from embedders.front.read_ahead import ReadAhead, ReadingModel, ReadInput
from embedders.images.structure import is_large
from embedders.telemetry import metrics
from embedders.telemetry.timing import CallTimes, Rest, begin_times
from embedders.telemetry.tracing import SharedSpan

BEGUN_AND_OWN = 2
"""Batches that a call waits for in addition to those queued before it: the running one, and its own."""

LOOKED_AT_ONCE = 32
"""Inputs that are classified before the event loop gets a turn: one text takes up to 0.5 ms."""

TICK_S = 0.001
"""The resolution of the event loop's clock; with a shorter wait the loop would spin."""

GATHER_SHARE = 0.1
"""The share of a batch's time for which the next one waits for its callers to call again."""

ONE_IN = 8
"""Bulk work leaves one of so many slots free, so that a search need not wait for a bulk batch to end."""

RESTING = 4
"""Batches per slot, of which all but one may be resting; further resting batches keep their slots."""

TIME_MEMORY = 0.5
"""The weight of older batches in the moving average of a turn's time, by which calls are refused and retries timed."""


class Kind(Enum):
    """Inputs that may share a batch, and wait in one queue. A text and a picture as one input wait as a picture."""

    ANY = auto()
    TEXT = auto()
    PICTURE = auto()
    LARGE_PICTURE = auto()
    SLOW_TEXT = auto()

    __hash__ = object.__hash__


PICTURES = frozenset({Kind.PICTURE, Kind.LARGE_PICTURE})
READ_AHEAD = PICTURES | {Kind.SLOW_TEXT}
"""Kinds that are read before they join a batch, if the backend supports it."""


@dataclass(eq=False, slots=True)
class Batch:
    """Inputs that the backend is working on.

    Attributes:
        places: the inputs: each one's call, and its place in the call.
        read: the inputs, if they were read ahead.
        options: how to embed them.
        begun_s: when the batch began, by time.monotonic.
        taken_s: when its inputs left the queue.
        times: of the batch.
        calls: those that still wait for it.
        span: of the batch, if one of its calls is traced.
    """

    places: list[tuple[QueuedCall, int]]
    read: list[ReadInput]
    options: EmbedOptions
    begun_s: float
    taken_s: float
    times: CallTimes
    calls: set[QueuedCall] = field(init=False)
    span: SharedSpan | None = None

    def __post_init__(self) -> None:
        self.calls = {call for call, _ in self.places}


class Slots:
    """The backend's slots for one kind of input: the queue for them, and the batches in them.

    Attributes:
        queue: calls that wait.
        ahead: inputs between the queue and a batch, if they are read ahead.
        running: the batches.
        turn_s: how long a batch takes from the queue on, a moving average; 0 before the first one.
    """

    def __init__(self) -> None:
        self.queue = WaitingQueue()
        self.ahead: ReadAhead | None = None
        self.running: dict[asyncio.Task[list[Outcome]], Batch] = {}
        self.turn_s = 0.0
        self._expected = 0
        self._free_s = 0.0
        self._batch_s = 0.0
        self._gather_until_s = 0.0

    def read_ahead(self, model: ReadingModel, kind: Kind, *, size: int, on_read: Callable[[ReadInput], None]) -> None:
        """Read inputs before they join a batch of `size`."""
        readers = {Kind.LARGE_PICTURE: model.large_readers, Kind.SLOW_TEXT: model.slow_text_readers}.get(
            kind, model.readers
        )
        self.ahead = ReadAhead(model, self.queue, readers=readers, most=size + readers, on_read=on_read)

    def has_room(self, slots: int) -> bool:
        """Return whether another batch may begin, given the number of slots."""
        return len(self._busy()) < slots and len(self.running) < RESTING * slots

    def may_be_bulk(self, slots: int) -> bool:
        """Return whether the next batch may be a bulk one, given the number of slots."""
        return sum(batch.options.priority is Priority.BULK for batch in self._busy()) < slots - slots // ONE_IN

    def rests(self) -> dict[str | None, Rest]:
        """Return the rest of each rate-limited key, during which further calls wait; of several the longest."""
        resting = [
            (each.options.api_key, rest) for each in self.running.values() if (rest := each.times.rest) is not None
        ]
        return dict(sorted(resting, key=lambda each: each[1].until_s)) if resting else {}

    def has_work(self, *, bulk: bool) -> bool:
        """Return whether a batch could begin: no bulk one unless allowed, and none with a resting key."""
        if self.ahead is not None:
            return self.ahead.has_work(bulk=bulk)
        return bool(self.queue.inputs) and self.queue.has_work(bulk=bulk, but=self.rests())

    def worth_waiting_until_s(self, size: int, *, bulk: bool) -> float:
        """Return until when a batch should wait to grow to `size`."""
        # Callers that were just answered are about to call again: one batch of all is better than two.
        # A caller alone waits for nobody.
        gathers = self.coming < size and self.queue.calls + len(self._read_calls()) < self._expected
        until_s = self._gather_until_s if gathers else 0.0
        if self.ahead is None:
            return until_s
        return max(until_s, self.ahead.worth_waiting_until_s(size, self._free_s, self._batch_s, bulk=bulk))

    def take(self, size: int, now_s: float, times: CallTimes, *, bulk: bool) -> Batch:
        """Take a batch; `has_work` is true."""
        if self.ahead is None:
            options, places = self.queue.take(size, bulk=bulk, but=self.rests())
            return Batch(places, [], options, now_s, now_s, times)
        read = self.ahead.take(size, bulk=bulk)
        taken_s = statistics.median(each.taken_s for each in read)
        return Batch([(each.call, each.at) for each in read], read, read[0].options, now_s, taken_s, times)

    def note_end(self, batch: Batch, now_s: float, max_gather_s: float) -> float:
        """Record the end of a batch, and return how long it took."""
        worked_s = now_s - batch.times.rested_s
        took_s, turn_s = (max(worked_s - since_s, 1e-6) for since_s in (batch.begun_s, batch.taken_s))
        self.turn_s = TIME_MEMORY * self.turn_s + (1 - TIME_MEMORY) * turn_s if self.turn_s else turn_s
        self._free_s, self._batch_s = now_s, took_s
        self._gather_until_s = now_s + min(max_gather_s, GATHER_SHARE * took_s)
        reading = self._read_calls()
        self._expected = self.queue.calls + len(reading.union(each for each in batch.calls if not each.waiting))
        return took_s

    def _busy(self) -> list[Batch]:
        return [batch for batch in self.running.values() if batch.times.rest is None]

    @property
    def coming(self) -> int:
        """Inputs that are not in a batch yet."""
        return self.queue.inputs + (self.ahead.held if self.ahead else 0)

    def _read_calls(self) -> set[QueuedCall]:
        """Return the calls of which no input is in the queue any more, but one between the queue and a batch."""
        return {each.call for each in self.ahead.inputs if not each.call.waiting} if self.ahead else set()


Gauges = tuple[Callable[[], float], Callable[[], float], Callable[[], float], Callable[[], float]]
"""Functions that return the queued inputs, the queued bytes, the longest wait and the running batches."""

GAUGES = (metrics.QUEUED_INPUTS, metrics.QUEUED_BYTES, metrics.QUEUE_AGE_SECONDS, metrics.RUNNING_BATCHES)


class Meter:
    """The metrics of one embedder's queue.

    Labels are looked up once, because a look-up costs more than counting.
    """

    def __init__(self, name: str) -> None:
        """Measure for the embedder `name`."""
        self._name = name
        self._waits = {priority: metrics.QUEUE_SECONDS.labels(name, priority.value) for priority in Priority}
        self._preprocess = metrics.PREPROCESS_SECONDS.labels(name)
        self._backend = metrics.BACKEND_SECONDS.labels(name)
        self._fill = metrics.BATCH_FILL.labels(name)
        self._refused = metrics.REFUSED_CALLS.labels(name)
        self._embedded, self._rejected, self._failed = (
            metrics.INPUTS.labels(name, outcome) for outcome in ("embedded", "rejected", "failed")
        )

    def watch(self, gauges: Gauges) -> None:
        """Expose what these functions return."""
        for gauge, read in zip(GAUGES, gauges, strict=True):
            gauge.labels(self._name).set_function(read)

    def forget(self) -> None:
        """Release the functions of `watch`, and so the embedder."""
        self.watch((lambda: 0, lambda: 0, lambda: 0, lambda: 0))

    def note_refusal(self) -> None:
        """Count a call that was refused."""
        self._refused.inc()

    def note_read(self, read: ReadInput) -> None:
        """Time the reading of an input, and count it if it was rejected or failed."""
        self._preprocess.observe(read.read_s)
        read.call.read_s = max(read.call.read_s, read.read_s)
        if read.call.times is not None:
            read.call.times.preprocess_s += read.read_s
        if isinstance(read.error, InputRejected):
            self._rejected.inc()
        elif read.error is not None:
            self._failed.inc()

    def note_begin(self, calls: Iterable[QueuedCall], priority: Priority, fill: float) -> None:
        """Record how full a batch is, and how long calls whose first batch it is have waited."""
        self._fill.observe(fill)
        now_s = time.monotonic()
        for call in calls:
            if call.begun:
                continue
            call.begun = True
            wait_s = max(now_s - call.added_s - call.read_s, 0.0)
            self._waits[priority].observe(wait_s)
            if call.times is not None:
                call.times.queue_s += wait_s

    def note_end(self, calls: Iterable[QueuedCall], times: CallTimes, took_s: float) -> None:
        """Record a batch's time, for the metrics and for the calls that still wait for it."""
        backend_s = max(took_s - times.preprocess_s, 0.0)
        self._backend.observe(backend_s)
        if times.preprocess_s:
            self._preprocess.observe(times.preprocess_s)
        for call in calls:
            if call.times is not None:
                call.times.preprocess_s += times.preprocess_s
                call.times.backend_s += backend_s

    def note_rejected(self, inputs: int) -> None:
        """Count inputs that no batch takes."""
        self._rejected.inc(inputs)

    def note_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Count the outcomes of a batch."""
        embedded = sum(isinstance(outcome, Embedding) for outcome in outcomes)
        self._embedded.inc(embedded)
        if embedded < len(outcomes):
            self._rejected.inc(len(outcomes) - embedded)

    def note_failure(self, inputs: int) -> None:
        """Count the inputs of a batch that failed as a whole."""
        self._failed.inc(inputs)


class BatchingEmbedder(EmbedderWrapper):
    """Puts a bounded queue in front of an embedder, and begins a batch as soon as a slot is free.

    A batch takes equal parts of all clients' waiting calls with equal options, and of a client's those with the fewest
    inputs left, so that a small call never waits for a large one. Interactive calls go before bulk calls, which still
    get every fourth batch and leave some of many slots free. When a caller leaves, its inputs leave the queue at once,
    and a batch without callers is cancelled. An interactive call is refused at once if it cannot be answered before its
    deadline: otherwise, in overload, the backend would work on calls that expire.
    """

    def __init__(
        self,
        inner: Embedder,
        *,
        bounds: QueueBounds,
        apart: bool = False,
        reading: ReadingModel | None = None,
        max_gather_s: float = 0.0,
    ) -> None:
        """Wrap `inner`, whose life this embedder takes over.

        Args:
            inner: the embedder that does the work, spec.slots batches of spec.max_batch inputs, or
                spec.max_images, at the same time.
            bounds: of the queue; running batches do not count.
            apart: whether texts and images go in separate batches, each kind with its own slots.
            reading: `inner` again, if it reads inputs apart from embedding them and `apart` is true: pictures and slow
                texts are read before they join a batch; slow texts and large pictures go in their own batches.
            max_gather_s: how long a batch waits, at most, for the callers of the last batch to call again.
        """
        super().__init__(inner)
        self._bounds = bounds
        self._apart = apart
        self._reading = reading
        self._max_gather_s = max_gather_s
        self._slots: dict[Kind, Slots] = {}
        self._pump_handle: asyncio.Handle | None = None
        self._pumps_at_once = False
        self._closed = False
        self._own_meter: Meter | None = None

    @property
    def waiting(self) -> int:
        """Inputs that wait."""
        return sum(slots.queue.inputs for slots in self._slots.values())

    async def start(self) -> None:
        """Start the inner embedder, and expose the queue's metrics.

        Raises:
            ModelUnusable: a local model cannot be loaded.
        """
        await super().start()
        self._meter.watch(
            (
                lambda: self.waiting,
                lambda: sum(slots.queue.bytes for slots in self._slots.values()),
                self._longest_wait_s,
                lambda: sum(len(slots.running) for slots in self._slots.values()),
            )
        )

    @property
    def _meter(self) -> Meter:
        if self._own_meter is None:
            # A local model's name is known only once it has been loaded.
            self._own_meter = Meter(self._inner.spec.name)
        return self._own_meter

    def _longest_wait_s(self) -> float:
        """Return how long the oldest call has waited."""
        came = [at_s for slots in self._slots.values() if (at_s := slots.queue.oldest_s()) is not None]
        return time.monotonic() - min(came) if came else 0.0

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs in batches shared with other calls.

        Inputs of a kind that the model does not read are refused at once. A bulk call of more inputs than may wait
        passes through the queue in pieces.

        Raises:
            EmbedderOverloaded: the queue is full, or the deadline is too near; no input was taken.
            EmbedderError: as the inner embedder, when a batch with inputs of this call fails.
        """
        unread = {} if self._closed else self._unread(inputs)
        if unread:
            rest = [each for at, each in enumerate(inputs) if at not in unread]
            embedded = iter(await self.embed(rest, options))
            return [unread[at] if at in unread else next(embedded) for at in range(len(inputs))]
        if options.priority is Priority.BULK:
            return await self._embed_pieces(inputs, options)
        return await self._embed(inputs, options, self._bounds)

    def _unread(self, inputs: Sequence[Input]) -> dict[int, InputRejected]:
        """Return the refusals of inputs of a kind that the model does not read, by their places."""
        spec = self._inner.spec
        if not spec.learnt:
            return {}  # what a remote model reads may be unknown, too
        unread = {at: refused(spec, each) for at, each in enumerate(inputs) if modality(each) not in spec.modalities}
        if unread:
            self._meter.note_rejected(len(unread))
        return unread

    async def _embed_pieces(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        bounds = self._bounds.bulk()
        outcomes: list[Outcome] = []
        for piece in bounds.pieces(inputs):
            while True:
                try:
                    outcomes += await self._embed(piece, options, bounds)
                    break
                except EmbedderOverloaded as error:
                    if not outcomes:
                        raise
                    # Otherwise the finished pieces would be lost; the caller's deadline ends the loop at the latest.
                    await asyncio.sleep(error.retry_after_s)
        return outcomes

    async def close(self) -> None:
        """Fail all calls, then close the inner embedder. May be called twice."""
        self._closed = True
        if self._own_meter is not None:
            self._own_meter.forget()
        if self._pump_handle is not None:
            self._pump_handle.cancel()
        self._fail_waiting(EmbedderUnavailable("the embedder was closed"))
        running = {task: batch for slots in self._slots.values() for task, batch in slots.running.items()}
        for task, batch in running.items():
            _fail(batch.calls, EmbedderUnavailable("the embedder was closed"))
            task.cancel()
        if running:
            await asyncio.wait(running)
        for slots in self._slots.values():
            if slots.ahead is not None:
                await slots.ahead.close()
        await super().close()

    async def _embed(self, inputs: Sequence[Input], options: EmbedOptions, bounds: QueueBounds) -> list[Outcome]:
        kinds = {self._kind(inputs[0]): [0]} if len(inputs) == 1 else await self._kinds(inputs)
        if self._closed:
            raise EmbedderUnavailable("the embedder is closed")
        if not inputs:
            return []
        if any(options.api_key in slots.rests() for slots in self._slots.values()):
            bounds = self._bounds.bulk()  # calls of a resting key leave room for others
        loop = asyncio.get_running_loop()
        calls = {kind: QueuedCall(inputs, at, loop.create_future()) for kind, at in kinds.items()}
        self._require_room(calls.values(), bounds)
        if options.priority is Priority.INTERACTIVE:
            self._require_time(calls, options)
        for kind, call in calls.items():
            slots = self._slots_of(kind)
            slots.queue.add(options, call)
            if rest := slots.rests().get(options.api_key):
                _fail_late([call], rest)
        self._pump_soon()
        try:
            if len(calls) == 1:
                return await next(iter(calls.values())).done
            parts = await asyncio.gather(*(call.done for call in calls.values()))
        except BaseException:
            for kind, call in calls.items():
                self._forget(self._slots[kind], call)
            raise
        ordered = dict(zip(chain(*kinds.values()), chain(*parts), strict=True))
        return [ordered[at] for at in range(len(inputs))]

    def _require_room(self, calls: Collection[QueuedCall], bounds: QueueBounds) -> None:
        wanted, size = sum(len(call.waiting) for call in calls), sum(call.bytes for call in calls)
        if wanted > bounds.max_inputs or (size > bounds.max_bytes and wanted > 1):
            self._meter.note_refusal()
            raise EmbedderOverloaded(
                f"the call has {wanted} inputs of {size} bytes; at most {bounds.max_inputs} inputs of "
                f"{bounds.max_bytes} bytes may wait for the embedder: send fewer at a time"
            )
        waiting, held = self.waiting, sum(slots.queue.bytes for slots in self._slots.values())
        if waiting and (waiting + wanted > bounds.max_inputs or held + size > bounds.max_bytes):
            self._meter.note_refusal()
            raise EmbedderOverloaded(
                f"{waiting} inputs of {held} bytes wait already; at most {bounds.max_inputs} inputs of "
                f"{bounds.max_bytes} bytes may: try again later",
                retry_after_s=self._time_to_drain_s(),
            )

    def _require_time(self, calls: Mapping[Kind, QueuedCall], options: EmbedOptions) -> None:
        for kind, call in calls.items():
            # With fewer inputs waiting than the backend takes at once, the call is always worth a try.
            if (slots := self._slots.get(kind)) is None or slots.queue.inputs < (at_once := self._at_once(kind, slots)):
                continue
            left_s = call.deadline_s - time.monotonic()
            rounds = slots.queue.ahead(options, call.client, len(call.waiting)) // at_once
            needed_s = (rounds + BEGUN_AND_OWN) * slots.turn_s
            if rounds and needed_s > left_s:
                self._meter.note_refusal()
                raise EmbedderOverloaded(
                    f"{slots.queue.inputs} inputs wait already; this call would be answered in about {needed_s:.1f} s, "
                    f"and its deadline is in {max(left_s, 0):.1f} s: try again later, or give it more time",
                    retry_after_s=self._time_to_drain_s(),
                )

    def _time_to_drain_s(self) -> float:
        """Return in how many seconds half of the queue will be done, at the pace of the last batches."""
        needed_s = sum(
            slots.queue.inputs / self._at_once(kind, slots) * slots.turn_s for kind, slots in self._slots.items()
        )
        return min(max(needed_s / 2, 0.05), 30.0) if needed_s else 1.0

    async def _kinds(self, inputs: Sequence[Input]) -> dict[Kind, list[int]]:
        kinds: dict[Kind, list[int]] = {}
        for at, each in enumerate(inputs):
            if at % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1:
                await asyncio.sleep(0)
            kinds.setdefault(self._kind(each), []).append(at)
        return kinds

    def _kind(self, each: Input) -> Kind:
        if not self._apart:
            return Kind.ANY
        if isinstance(each, TextInput):
            return Kind.SLOW_TEXT if self._reading is not None and self._reading.is_slow(each.text) else Kind.TEXT
        return Kind.LARGE_PICTURE if self._reading is not None and is_large(each.content) else Kind.PICTURE

    def _slots_of(self, kind: Kind) -> Slots:
        if (slots := self._slots.get(kind)) is None:
            slots = Slots()
            if self._reading is not None and kind in READ_AHEAD:
                slots.read_ahead(self._reading, kind, size=self._size(kind), on_read=self._note_read)
            self._slots[kind] = slots
        return slots

    def _size(self, kind: Kind) -> int:
        """Return how many inputs of a kind go in one batch."""
        spec = self._inner.spec
        return spec.max_images or spec.max_batch if kind in PICTURES else spec.max_batch

    def _at_once(self, kind: Kind, slots: Slots) -> int:
        """Return how many inputs of a kind are taken from the queue at once."""
        return self._size(kind) * self._inner.spec.slots + (slots.ahead.most if slots.ahead else 0)

    def _forget(self, slots: Slots, call: QueuedCall) -> None:
        """Drop the queued inputs of a call that has ended, and batches without other callers."""
        call.done.cancel()
        if call.waiting:
            slots.queue.remove(call)
        for task, batch in slots.running.items():
            if call in batch.calls:
                batch.calls.discard(call)
                if not batch.calls:
                    task.cancel()

    def _pump_soon(self) -> None:
        # Calls that arrive in the same turn of the event loop share a batch.
        if not self._pumps_at_once:
            self._pump_at(0.0)

    def _pump_at(self, when_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._pump_handle is not None:
            self._pump_handle.cancel()
        delay_s = when_s - time.monotonic()
        self._pumps_at_once = now = delay_s <= 0
        self._pump_handle = loop.call_soon(self._pump) if now else loop.call_later(max(delay_s, TICK_S), self._pump)

    def _pump(self) -> None:
        self._pump_handle = None
        self._pumps_at_once = False
        try:
            again_s = [until_s for kind, slots in self._slots.items() if (until_s := self._begin_batches(kind, slots))]
        except Exception as error:  # noqa: BLE001 -- no caller may be left waiting
            self._fail_waiting(error)
        else:
            if again_s:
                self._pump_at(min(again_s))

    def _begin_batches(self, kind: Kind, slots: Slots) -> float | None:
        """Begin batches while possible; if one should wait for more inputs, return until when."""
        size, number, now_s = self._size(kind), self._inner.spec.slots, time.monotonic()
        if slots.ahead is not None:
            slots.ahead.begin()
        while slots.has_room(number) and slots.has_work(bulk=(bulk := slots.may_be_bulk(number))):
            until_s = slots.worth_waiting_until_s(size, bulk=bulk)
            if now_s < until_s:
                return until_s
            self._begin_batch(slots, size, bulk=bulk)
            if slots.ahead is not None:
                slots.ahead.begin()
        return None

    def _note_read(self, read: ReadInput) -> None:
        self._meter.note_read(read)
        if not self._closed:
            self._pump_soon()

    def _begin_batch(self, slots: Slots, size: int, *, bulk: bool) -> None:
        # The batch has times of its own, to which all of its tasks add.
        context = contextvars.copy_context()
        batch = slots.take(size, time.monotonic(), context.run(begin_times), bulk=bulk)
        places = batch.places
        batch.times.deadline_s = max(call.deadline_s for call in batch.calls)
        batch.times.on_rest = partial(self._note_rest, slots, batch)
        self._meter.note_begin(batch.calls, batch.options.priority, len(places) / size)
        if spans := [call.span for call, _ in places if call.span is not None]:
            batch.span = SharedSpan(
                f"batch {self._inner.spec.name}",
                {"vecgate.embedder": self._inner.spec.name, "vecgate.batch.inputs": len(places)},
                spans,
                context,
            )
        try:
            task = asyncio.get_running_loop().create_task(self._work(batch), context=context)
        except Exception as error:  # noqa: BLE001 -- no caller may be left waiting
            if batch.span is not None:
                batch.span.end(error, {})
            _fail(batch.calls, error)
            return
        slots.running[task] = batch
        task.add_done_callback(lambda task: self._end_batch(slots, task))

    def _note_rest(self, slots: Slots, batch: Batch) -> None:
        """Give a resting batch's slot to others, and fail calls of its key whose deadline is too near."""
        if (rest := batch.times.rest) is not None:
            _fail_late([*batch.calls, *slots.queue.calls_of(batch.options.api_key)], rest)
        if not self._closed:
            self._pump_soon()

    def _work(self, batch: Batch) -> Coroutine[Any, Any, list[Outcome]]:
        if self._reading is not None and batch.read:
            return self._reading.embed_read([each.content for each in batch.read], batch.options)
        return self._inner.embed([call.inputs[at] for call, at in batch.places], batch.options)

    def _fail_waiting(self, error: BaseException) -> None:
        for slots in self._slots.values():
            _fail(slots.queue.clear(), error)

    def _end_batch(self, slots: Slots, task: asyncio.Task[list[Outcome]]) -> None:
        batch = slots.running.pop(task)
        batch.times.on_rest = lambda: None  # the old callback would keep the batch, and so its inputs, alive
        took_s = slots.note_end(batch, time.monotonic(), self._max_gather_s)
        self._meter.note_end(batch.calls, batch.times, took_s)
        try:
            self._settle(task, batch)
        finally:
            if not self._closed and any(each.coming for each in self._slots.values()):
                self._pump_soon()

    def _settle(self, task: asyncio.Task[list[Outcome]], batch: Batch) -> None:
        """Pass a batch's outcomes, or its error, to its calls."""
        error = EmbedderUnavailable("the embedder stopped the batch") if task.cancelled() else task.exception()
        if error is None and len(task.result()) != len(batch.places):
            error = AnswerInvalid("the embedder returned a different number of outcomes than inputs")
        if batch.span is not None:
            batch.span.end(error, {"vecgate.batch.preprocess_ms": round(batch.times.preprocess_s * 1000, 1)})
        if error is None:
            for (call, at), outcome in zip(batch.places, task.result(), strict=True):
                call.put(at, outcome)
            self._meter.note_outcomes(task.result())
            return
        _fail(batch.calls, error)
        if not task.cancelled():
            self._meter.note_failure(len(batch.places))


def _fail(calls: Iterable[QueuedCall], error: BaseException) -> None:
    for call in calls:
        call.fail(error)


def _fail_late(calls: Iterable[QueuedCall], rest: Rest) -> None:
    _fail([call for call in calls if call.deadline_s <= rest.until_s], rest.why)
