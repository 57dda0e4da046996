"""A backend's slots: what waits for them, the batches in them, and how long both take."""

import asyncio
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from embedders.contract import EmbedOptions, Outcome, Priority
from embedders.front.queueing import QueuedCall, WaitingQueue
from embedders.front.read_ahead import ReadAhead, ReadingModel, ReadInput
from embedders.telemetry.timing import CallTimes, Rest
from embedders.telemetry.tracing import SharedSpan

GATHER_SHARE = 0.1
"""The part of a batch's time that may be spent on waiting for its callers to come back."""

ONE_IN = 8
"""Of so many slots bulk work leaves one free, so that a search need not wait until a batch of it has ended."""

RESTING = 4
"""The batches for each slot of which all but one may rest; what more there are keeps its slot."""

TIME_MEMORY = 0.5
"""The weight of what was known before in how long inputs are in the backend's hands, which tells who cannot be answered
in time, and when to come back."""


class Kind(Enum):
    """Inputs that may share a batch, and wait in one queue."""

    ANY = auto()
    TEXT = auto()
    PICTURE = auto()
    LARGE_PICTURE = auto()
    SLOW_TEXT = auto()


PICTURES = frozenset({Kind.PICTURE, Kind.LARGE_PICTURE})
READ_AHEAD = PICTURES | {Kind.SLOW_TEXT}
"""What is read before it joins a batch, where the backend can do that."""


@dataclass(eq=False, slots=True)
class Batch:
    """Inputs that the backend has.

    Attributes:
        places: whose, and at which place of the call.
        read: the same, if they were read ahead.
        options: how to embed them.
        begun_s: when the batch began, by time.monotonic.
        taken_s: when its inputs left the queue.
        times: of the batch itself.
        calls: those that still wait for it.
        span: of the batch, if some call is traced.
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
    """What waits for the backend's slots of one kind, and the batches in them.

    Attributes:
        queue: what waits.
        ahead: inputs between the queue and a batch, where they are read ahead.
        running: the batches.
        turn_s: how long inputs are in the backend's hands, as the last batches show; 0 before the first one.
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
        """Let inputs be read before they join a batch of `size`."""
        readers = {Kind.LARGE_PICTURE: model.large_readers, Kind.SLOW_TEXT: model.slow_text_readers}.get(
            kind, model.readers
        )
        self.ahead = ReadAhead(model, self.queue, readers=readers, most=size + readers, on_read=on_read)

    def has_room(self, slots: int) -> bool:
        """Return whether another batch may begin, with so many slots."""
        return len(self._busy()) < slots and len(self.running) < RESTING * slots

    def may_be_bulk(self, slots: int) -> bool:
        """Return whether the next batch may be one of bulk work, with so many slots."""
        return sum(batch.options.priority is Priority.BULK for batch in self._busy()) < slots - slots // ONE_IN

    def rests(self) -> dict[str | None, Rest]:
        """Return the rests of keys that have had too many calls, so that further ones wait; of several the longest."""
        batches = [(each.options.api_key, each.times.rest) for each in self.running.values()]
        resting = [(key, rest) for key, rest in batches if rest is not None]
        return dict(sorted(resting, key=lambda each: each[1].until_s))

    def has_work(self, *, bulk: bool) -> bool:
        """Return whether a batch could begin; one of bulk work only if it may, and none with a key that rests."""
        return (
            self.queue.has_work(bulk=bulk, but=self.rests()) if self.ahead is None else self.ahead.has_work(bulk=bulk)
        )

    def worth_waiting_until_s(self, size: int, *, bulk: bool) -> float:
        """Return until when it is better to let a batch grow to `size` than to begin it."""
        # The callers that were just answered are about to come back: one batch of all is better than two.
        until_s = self._gather_until_s if self._coming < min(self._expected, size) else 0.0
        if self.ahead is None:
            return until_s
        return max(until_s, self.ahead.worth_waiting_until_s(size, self._free_s, self._batch_s, bulk=bulk))

    def take(self, size: int, now_s: float, times: CallTimes, *, bulk: bool) -> Batch:
        """Take a batch of what `has_work` found."""
        if self.ahead is None:
            options, places = self.queue.take(size, bulk=bulk, but=self.rests())
            return Batch(places, [], options, now_s, now_s, times)
        read = self.ahead.take(size, bulk=bulk)
        taken_s = statistics.median(each.taken_s for each in read)
        return Batch([(each.call, each.at) for each in read], read, read[0].options, now_s, taken_s, times)

    def note_end(self, batch: Batch, now_s: float, max_gather_s: float) -> float:
        """Learn from a batch that ended, and return how long it took."""
        worked_s = now_s - batch.times.rested_s
        took_s, turn_s = (max(worked_s - since_s, 1e-6) for since_s in (batch.begun_s, batch.taken_s))
        self.turn_s = TIME_MEMORY * self.turn_s + (1 - TIME_MEMORY) * turn_s if self.turn_s else turn_s
        self._free_s, self._batch_s = now_s, took_s
        self._gather_until_s = now_s + min(max_gather_s, GATHER_SHARE * took_s)
        self._expected = self._coming + len(batch.places)
        return took_s

    def _busy(self) -> list[Batch]:
        return [batch for batch in self.running.values() if batch.times.rest is None]

    @property
    def _coming(self) -> int:
        """Inputs that are in no batch yet."""
        return self.queue.inputs + (self.ahead.held if self.ahead else 0)
