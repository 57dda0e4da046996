"""Where a call's time goes.

The servicer that answers a call begins its times; everything that works for the call, in any task, adds to them.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple


class Rest(NamedTuple):
    """A pause in which work does not use its slot.

    Attributes:
        until_s: when work continues, by time.monotonic.
        why: the error for callers that cannot wait so long.
    """

    until_s: float
    why: Exception


@dataclass(slots=True)
class CallTimes:
    """Seconds of one call by stage; parallel work is added up.

    Attributes:
        queue_s: until the first batch with inputs of it began.
        preprocess_s: reading the inputs of its batches.
        backend_s: its batches in the model or at the NIM.
        store_s: in calls to the store.
        rested_s: resting.
        deadline_s: when the caller stops waiting, by time.monotonic; of a batch, its last caller.
        rest: the current rest, if any.
        on_rest: called when `rest` changes.
    """

    queue_s: float = 0.0
    preprocess_s: float = 0.0
    backend_s: float = 0.0
    store_s: float = 0.0
    rested_s: float = 0.0
    deadline_s: float = math.inf
    rest: Rest | None = None
    on_rest: Callable[[], None] = lambda: None

    def add(self, part: "CallTimes") -> None:
        """Add the times of a part of the call."""
        self.queue_s += part.queue_s
        self.preprocess_s += part.preprocess_s
        self.backend_s += part.backend_s
        self.store_s += part.store_s


_current: ContextVar[CallTimes | None] = ContextVar("call_times", default=None)


def begin_times() -> CallTimes:
    """Return new times, to which this task and the tasks that it starts add from now on."""
    times = CallTimes()
    _current.set(times)
    return times


def call_times() -> CallTimes | None:
    """Return the times of the current call; None outside of calls."""
    return _current.get()


def note_deadline(left_s: float) -> None:
    """Set how many seconds are left for the current call."""
    if (times := _current.get()) is not None:
        times.deadline_s = time.monotonic() + left_s


@contextmanager
def sooner(deadline_s: float) -> Iterator[None]:
    """Give the block an earlier deadline, by time.monotonic."""
    if (whole := _current.get()) is None:
        yield
        return
    part = CallTimes(deadline_s=min(whole.deadline_s, deadline_s))
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)
        whole.add(part)


@contextmanager
def preprocessing() -> Iterator[None]:
    """Count the block's time as the reading of inputs."""
    began_s = time.perf_counter()
    try:
        yield
    finally:
        if (times := _current.get()) is not None:
            times.preprocess_s += time.perf_counter() - began_s


@contextmanager
def resting(until_s: float, why: Exception) -> Iterator[None]:
    """Mark the current work as resting until then."""
    times = _current.get()
    if times is None:
        yield
        return
    began_s = time.monotonic()
    times.rest = Rest(until_s, why)
    times.on_rest()
    try:
        yield
    finally:
        times.rest = None
        times.rested_s += time.monotonic() - began_s
        times.on_rest()
