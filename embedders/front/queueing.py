"""The queue in front of an embedder: which calls wait, and whose turn it is."""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Container, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain

from embedders.contract import EmbedOptions, ImageInput, Input, Outcome, Priority, TextImageInput, TextInput
from embedders.errors import EmbedderError
from embedders.telemetry import tracing
from embedders.telemetry.timing import call_times

BULK_EVERY = 4
"""While both kinds wait, one of so many batches is a bulk one, so that bulk work always progresses."""

MAX_QUEUED_BYTES = 512 * 1024 * 1024
"""Bytes of texts and images that may wait for an embedder of a server: as many as all its calls together may hold."""

calling_client: ContextVar[str] = ContextVar("calling_client", default="")
"""The client of the current call; clients share the embedders' time equally. Empty if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBounds:
    """Bounds of the queue. Bulk work gets three quarters, so that it leaves room for searches.

    Attributes:
        max_inputs: inputs.
        max_bytes: bytes of texts and image files.
    """

    max_inputs: int
    max_bytes: int

    def bulk(self) -> "QueueBounds":
        """Return the bounds for bulk work."""
        return QueueBounds(max_inputs=max(1, self.max_inputs * 3 // 4), max_bytes=max(1, self.max_bytes * 3 // 4))

    def pieces(self, inputs: Sequence[Input]) -> Iterator[Sequence[Input]]:
        """Cut a call into pieces that fit into the queue; a single input always fits."""
        start, size = 0, 0
        for at, each in enumerate(inputs):
            if at > start and (at - start == self.max_inputs or size + input_bytes(each) > self.max_bytes):
                yield inputs[start:at]
                start, size = at, 0
            size += input_bytes(each)
        yield inputs[start:]


class QueuedCall:
    """One caller's inputs: those that wait, and the outcomes of the others.

    Attributes:
        inputs: all inputs of the caller.
        waiting: the places of the inputs that wait.
        bytes: the bytes of those.
        done: all outcomes, in the order of their places.
        client: the client's name; empty if unknown.
        added_s: when the call came, by time.monotonic.
        read_s: the longest time that reading an input took, if inputs are read before they join a batch.
        begun: whether a batch with one of the inputs has begun.
        times: of the caller's call, if it is timed.
        deadline_s: when the caller stops waiting, by time.monotonic.
        span: of the caller's call, if it is traced.
        line: the line in which it waits.
    """

    def __init__(self, inputs: Sequence[Input], at: Iterable[int], done: asyncio.Future[list[Outcome]]) -> None:
        self.inputs = inputs
        self.done = done
        self.waiting = deque(at)
        self.bytes = sum(input_bytes(inputs[each]) for each in self.waiting)
        self.client = calling_client.get()
        self.added_s = time.monotonic()
        self.read_s = 0.0
        self.begun = False
        self.times = call_times()
        self.deadline_s = math.inf if self.times is None else self.times.deadline_s
        self.span = tracing.here()
        self.line: _Line | None = None
        self._outcomes: dict[int, Outcome] = {}
        self._count = len(self.waiting)

    def take(self, count: int) -> list[int]:
        """Take up to `count` inputs out of the queue, by their places."""
        if count >= len(self.waiting):
            taken, self.bytes = list(self.waiting), 0
            self.waiting.clear()
            return taken
        taken = [self.waiting.popleft() for _ in range(count)]
        self.bytes -= sum(input_bytes(self.inputs[each]) for each in taken)
        return taken

    def put(self, at: int, outcome: Outcome) -> None:
        """Set the outcome of the input at a place."""
        if self._count == 1:
            if not self.done.done():
                self.done.set_result([outcome])
            return
        self._outcomes[at] = outcome
        if len(self._outcomes) == self._count and not self.done.done():
            self.done.set_result([self._outcomes[each] for each in sorted(self._outcomes)])

    def fail(self, error: BaseException) -> None:
        """End the call with an error."""
        if self.done.done():
            return
        self.done.set_exception(error.for_caller() if isinstance(error, EmbedderError) else error)


class _ClientsCalls:
    """The calls of one client in a line.

    The call with the fewest inputs left goes first, so that a small call never waits for a large one, and large ones
    end one after the other instead of all at the end. Of n calls, every nth input is one of the oldest call's, so that
    no call waits for ever.
    """

    def __init__(self) -> None:
        self._by_age: OrderedDict[QueuedCall, None] = OrderedDict()
        self._by_left: dict[int, OrderedDict[QueuedCall, None]] = {}
        self._since_oldest = 0

    def __len__(self) -> int:
        return len(self._by_age)

    def __iter__(self) -> Iterator[QueuedCall]:
        return iter(self._by_age)

    def add(self, call: QueuedCall) -> None:
        """Add a call."""
        self._by_age[call] = None
        self._file(call)

    def remove(self, call: QueuedCall) -> None:
        """Remove a call."""
        del self._by_age[call]
        self._unfile(call)

    def turns(self, count: int) -> int:
        """Return about how many inputs are taken until a new call of `count` inputs has none left."""
        first = count + sum(left * len(calls) for left, calls in self._by_left.items() if left <= count)
        # The oldest call has its share meanwhile, whatever its size.
        return first + first // len(self._by_age) if any(left > count for left in self._by_left) else first

    def take(self, most: int) -> list[tuple[QueuedCall, int]]:
        """Take up to `most` inputs, by their calls and their places in these."""
        places: list[tuple[QueuedCall, int]] = []
        while self._by_age and len(places) < most:
            oldest, first = next(iter(self._by_age)), next(iter(self._by_left[min(self._by_left)]))
            until_oldest = len(self._by_age) - 1 - self._since_oldest
            count = most - len(places)
            if first is not oldest:
                first, count = (oldest, 1) if until_oldest <= 0 else (first, min(count, until_oldest))
            self._unfile(first)
            taken = first.take(count)
            self._since_oldest = 0 if first is oldest else self._since_oldest + len(taken)
            places += [(first, at) for at in taken]
            if first.waiting:
                self._file(first)
            else:
                del self._by_age[first]
        return places

    def _file(self, call: QueuedCall) -> None:
        self._by_left.setdefault(len(call.waiting), OrderedDict())[call] = None

    def _unfile(self, call: QueuedCall) -> None:
        calls = self._by_left[len(call.waiting)]
        del calls[call]
        if not calls:
            del self._by_left[len(call.waiting)]


@dataclass(eq=False, slots=True)
class _Line:
    """Calls that may share batches, by client. Clients are ordered by when they were last served."""

    options: EmbedOptions
    clients: OrderedDict[str, _ClientsCalls] = field(default_factory=OrderedDict)

    @property
    def calls(self) -> Iterator[QueuedCall]:
        """All calls."""
        return chain.from_iterable(self.clients.values())

    def add(self, call: QueuedCall) -> None:
        """Add a call."""
        if (calls := self.clients.get(call.client)) is None:
            calls = self.clients[call.client] = _ClientsCalls()
        calls.add(call)
        call.line = self

    def remove(self, call: QueuedCall) -> None:
        """Remove a call."""
        calls = self.clients[call.client]
        calls.remove(call)
        if not calls:
            del self.clients[call.client]

    def take(self, most: int) -> list[tuple[QueuedCall, int]]:
        """Take a batch: equal parts of each client."""
        places: list[tuple[QueuedCall, int]] = []
        while self.clients and len(places) < most:
            for left in range(len(self.clients), 0, -1):
                if len(places) == most:
                    break
                client, calls = self.clients.popitem(last=False)
                places += calls.take(max(1, (most - len(places)) // left))
                if calls:
                    self.clients[client] = calls
        return places


class WaitingQueue:
    """The calls that wait.

    Attributes:
        inputs: how many of their inputs wait.
        bytes: the bytes of those.
    """

    def __init__(self) -> None:
        self.inputs = 0
        self.bytes = 0
        self._lines: dict[EmbedOptions, _Line] = {}
        self._urgent_in_a_row = 0

    @property
    def calls(self) -> int:
        """How many calls wait."""
        return sum(len(each) for line in self._lines.values() for each in line.clients.values())

    def add(self, options: EmbedOptions, call: QueuedCall) -> None:
        """Add a call."""
        if (line := self._lines.get(options)) is None:
            line = self._lines[options] = _Line(options)
        line.add(call)
        self.inputs += len(call.waiting)
        self.bytes += call.bytes

    def ahead(self, options: EmbedOptions, client: str, count: int) -> int:
        """Return about how many inputs go before the last of `count` inputs of an interactive call that comes now.

        Lines and clients take turns, and smaller calls go first, so that these are fewer than all that wait.
        """
        line = self._lines.get(options, _Line(options))
        urgent = {each for each in self._lines if each.priority is Priority.INTERACTIVE}
        own = line.clients.get(client)
        turns = count if own is None else own.turns(count)
        turns *= len({*line.clients, client}) * len({*urgent, options})
        if len(urgent) < len(self._lines):
            turns = turns * BULK_EVERY // (BULK_EVERY - 1)
        return min(self.inputs, turns)

    def calls_of(self, key: str | None) -> list[QueuedCall]:
        """Return the calls with a key."""
        return [call for options, line in self._lines.items() if options.api_key == key for call in line.calls]

    def oldest_s(self) -> float | None:
        """Return when the oldest waiting call came; None if no call waits."""
        return min((call.added_s for line in self._lines.values() for call in line.calls), default=None)

    def remove(self, call: QueuedCall) -> None:
        """Drop the inputs of a call that still wait."""
        line = call.line
        if line is None or not call.waiting:
            return
        line.remove(call)
        self.inputs -= len(call.waiting)
        self.bytes -= call.bytes
        call.waiting.clear()
        if not line.clients:
            del self._lines[line.options]

    def clear(self) -> Iterator[QueuedCall]:
        """Drop everything, and yield the calls that waited."""
        lines, self._lines = self._lines, {}
        self.inputs = self.bytes = 0
        for line in lines.values():
            for call in line.calls:
                call.waiting.clear()
                yield call

    def has_work(self, *, bulk: bool, but: Container[str | None] = ()) -> bool:
        """Return whether a call may go: no bulk call unless `bulk`, and no call with a key in `but`."""
        return any(
            (bulk or options.priority is not Priority.BULK) and options.api_key not in but for options in self._lines
        )

    def _next_line(self, *, may_be_bulk: bool, but: Container[str | None]) -> _Line:
        """Return the line whose turn it is: mostly interactive ones first; of equals the least recently served."""
        lines = [line for line in self._lines.values() if line.options.api_key not in but]
        urgent = [line for line in lines if line.options.priority is Priority.INTERACTIVE]
        bulk = [line for line in lines if may_be_bulk and line.options.priority is Priority.BULK]
        if bulk and (not urgent or self._urgent_in_a_row >= BULK_EVERY - 1):
            self._urgent_in_a_row = 0
            return bulk[0]
        self._urgent_in_a_row += 1
        return urgent[0]

    def take(
        self, most: int, *, bulk: bool = True, but: Container[str | None] = ()
    ) -> tuple[EmbedOptions, list[tuple[QueuedCall, int]]]:
        """Take a batch: its options, and its inputs, each as a call and a place in the call."""
        line = self._next_line(may_be_bulk=bulk, but=but)
        places = line.take(most)
        self.inputs -= len(places)
        self.bytes -= sum(input_bytes(call.inputs[at]) for call, at in places)
        del self._lines[line.options]
        if line.clients:
            self._lines[line.options] = line  # to the end
        return line.options, places


def input_bytes(each: Input) -> int:
    """Return roughly how many bytes an input holds."""
    match each:
        case TextInput():
            return len(each.text)
        case ImageInput():
            return len(each.content)
        case TextImageInput():
            return len(each.text) + len(each.content)
