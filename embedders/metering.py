"""What the queue in front of an embedder measures, for Prometheus and for the calls themselves."""

import time
from collections.abc import Callable, Iterable, Sequence

from embedders.base import Outcome
from embedders.errors import InputRejected
from embedders.inputs import Embedding, Priority
from embedders.metrics import (
    BACKEND_SECONDS,
    BATCH_FILL,
    INPUTS,
    PREPROCESS_SECONDS,
    QUEUE_AGE_SECONDS,
    QUEUE_SECONDS,
    QUEUED_BYTES,
    QUEUED_INPUTS,
    REFUSED_CALLS,
    RUNNING_BATCHES,
)
from embedders.queueing import QueuedCall
from embedders.read_ahead import ReadInput
from embedders.timing import CallTimes

__all__ = ["Gauges", "Meter"]

Gauges = tuple[Callable[[], float], Callable[[], float], Callable[[], float], Callable[[], float]]
"""Functions that give, when Prometheus asks: inputs and bytes that wait, the longest wait, batches that run."""

GAUGES = (QUEUED_INPUTS, QUEUED_BYTES, QUEUE_AGE_SECONDS, RUNNING_BATCHES)


class Meter:
    """Counts and times what passes through one embedder's queue.

    Label values are looked up once: that costs more than the counting does.
    """

    def __init__(self, name: str) -> None:
        """Measure for the embedder `name`."""
        self._name = name
        self._waits = {priority: QUEUE_SECONDS.labels(name, priority.value) for priority in Priority}
        self._preprocess = PREPROCESS_SECONDS.labels(name)
        self._backend = BACKEND_SECONDS.labels(name)
        self._fill = BATCH_FILL.labels(name)
        self._refused = REFUSED_CALLS.labels(name)
        self._embedded, self._rejected, self._failed = (
            INPUTS.labels(name, outcome) for outcome in ("embedded", "rejected", "failed")
        )

    def watch(self, gauges: Gauges) -> None:
        """Let Prometheus see what these functions return."""
        for gauge, read in zip(GAUGES, gauges, strict=True):
            gauge.labels(self._name).set_function(read)

    def forget(self) -> None:
        """Let go of what `watch` was given, and so of the embedder behind it."""
        self.watch((lambda: 0, lambda: 0, lambda: 0, lambda: 0))

    def note_refusal(self) -> None:
        """Count a call that found no room, or not in time."""
        self._refused.inc()

    def note_read(self, read: ReadInput) -> None:
        """Time the reading of an input, and count it if it goes no further."""
        self._preprocess.observe(read.read_s)
        read.call.read_s = max(read.call.read_s, read.read_s)
        if read.call.times is not None:
            read.call.times.preprocess_s += read.read_s
        if isinstance(read.error, InputRejected):
            self._rejected.inc()
        elif read.error is not None:
            self._failed.inc()

    def note_begin(self, calls: Iterable[QueuedCall], priority: Priority, fill: float) -> None:
        """Time the wait of the calls that have inputs in their first batch, and note how full it is."""
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
        """Time a batch, for Prometheus and for those who still wait for it."""
        backend_s = max(took_s - times.preprocess_s, 0.0)
        self._backend.observe(backend_s)
        if times.preprocess_s:
            self._preprocess.observe(times.preprocess_s)
        for call in calls:
            if call.times is not None:
                call.times.preprocess_s += times.preprocess_s
                call.times.backend_s += backend_s

    def note_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Count the inputs of a batch that came back."""
        embedded = sum(isinstance(outcome, Embedding) for outcome in outcomes)
        self._embedded.inc(embedded)
        self._rejected.inc(len(outcomes) - embedded)

    def note_failure(self, inputs: int) -> None:
        """Count the inputs of a batch that failed as a whole."""
        self._failed.inc(inputs)
