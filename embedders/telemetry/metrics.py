"""Prometheus metrics of embedders, and what keeps those of one embedder."""

import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter, Gauge, Histogram

from embedders.contract import Embedding, Outcome, Priority
from embedders.errors import InputRejected
from embedders.front.queueing import QueuedCall
from embedders.front.read_ahead import ReadInput
from embedders.telemetry.timing import CallTimes

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds of the buckets of every time that is measured, here and in the service."""

SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

QUEUED_INPUTS = Gauge("vecgate_embedder_queued_inputs", "Inputs that wait for an embedder.", ["embedder"])
QUEUED_BYTES = Gauge("vecgate_embedder_queued_bytes", "Bytes of the inputs that wait for an embedder.", ["embedder"])
QUEUE_AGE_SECONDS = Gauge(
    "vecgate_embedder_queue_age_seconds", "How long the call that waits longest has waited.", ["embedder"]
)
RUNNING_BATCHES = Gauge("vecgate_embedder_running_batches", "Batches that an embedder works on.", ["embedder"])
QUEUE_SECONDS = Histogram(
    "vecgate_embedder_queue_seconds",
    "What calls waited until the first batch with inputs of theirs began.",
    ["embedder", "priority"],
    buckets=SECONDS,
)
PREPROCESS_SECONDS = Histogram(
    "vecgate_embedder_preprocess_seconds",
    "What decoding, scaling and encoding the inputs of a batch took, or one picture for a local model.",
    ["embedder"],
    buckets=SECONDS,
)
BACKEND_SECONDS = Histogram(
    "vecgate_embedder_backend_seconds",
    "What a batch took in the model or at the NIM, retries included.",
    ["embedder"],
    buckets=SECONDS,
)
BATCH_FILL = Histogram(
    "vecgate_embedder_batch_fill_ratio",
    "Inputs of a batch as a share of the most that it could hold.",
    ["embedder"],
    buckets=SHARES,
)
INPUTS = Counter(
    "vecgate_embedder_inputs_total",
    "Inputs that came back from the backend: embedded, rejected (the input's own fault), or failed with their batch.",
    ["embedder", "outcome"],
)
REFUSED_CALLS = Counter(
    "vecgate_embedder_refused_calls_total",
    "Calls that found no room in an embedder's queue, or would not have had their turn before their deadline.",
    ["embedder"],
)
FAILOVERS = Counter(
    "vecgate_embedder_failovers_total",
    "Calls that one embedder failed and another one of the same space, or of another named vector, was asked for.",
    ["failed", "asked"],
)
BREAKER_OPEN = Gauge(
    "vecgate_embedder_breaker_open", "1 while an embedder is not asked because it failed, else 0.", ["embedder"]
)
BREAKER_OPENED = Counter(
    "vecgate_embedder_breaker_opened_total", "How often an embedder came to be not asked any more.", ["embedder"]
)
CACHE_LOOKUPS = Counter(
    "vecgate_embedder_cache_lookups_total",
    "Inputs looked up in the cache: hit, joined (the same input was being embedded), or miss.",
    ["embedder", "result"],
)
CACHE_BYTES = Gauge("vecgate_embedder_cache_bytes", "Bytes of the vectors in the cache.")
NIM_ANSWERS = Counter(
    "vecgate_nim_answers_total",
    "What became of requests to a NIM: the class of the answer's status, such as 2xx, or none where no answer came.",
    ["embedder", "status"],
)
NIM_RETRIES = Counter(
    "vecgate_nim_retries_total", "Requests to a NIM that repeat one that failed in passing.", ["embedder"]
)
MODEL_BYTES = Gauge(
    "vecgate_model_bytes", "Memory that a local model's weights take on a device.", ["embedder", "device"]
)


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
