"""Prometheus metrics of embedders."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram, values

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bucket bounds of all time histograms, here and in the service."""

SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

_reads: dict["ReadGauge", Callable[[], float]] = {}


class ReadGauge(Gauge):
    """A gauge that a function is asked for: when it is exposed, or by `read_gauges` where several processes share."""

    def set_function(self, f: Callable[[], float]) -> None:
        """Expose what a function returns."""
        if values.ValueClass is values.MutexValue:
            super().set_function(f)
        else:
            _reads[self] = f


def read_gauges() -> None:
    """Ask the functions of all gauges whose values other processes see."""
    for gauge, function in _reads.items():
        gauge.set(function())


QUEUED_INPUTS = ReadGauge(
    "vecgate_embedder_queued_inputs", "Inputs that wait for an embedder.", ["embedder"], multiprocess_mode="livesum"
)
QUEUED_BYTES = ReadGauge(
    "vecgate_embedder_queued_bytes",
    "Bytes of the inputs that wait for an embedder.",
    ["embedder"],
    multiprocess_mode="livesum",
)
QUEUE_AGE_SECONDS = ReadGauge(
    "vecgate_embedder_queue_age_seconds",
    "How long the oldest waiting call has waited.",
    ["embedder"],
    multiprocess_mode="livemax",
)
RUNNING_BATCHES = ReadGauge(
    "vecgate_embedder_running_batches", "Batches that an embedder works on.", ["embedder"], multiprocess_mode="livesum"
)
QUEUE_SECONDS = Histogram(
    "vecgate_embedder_queue_seconds",
    "How long a call waited until the first batch with its inputs began.",
    ["embedder", "priority"],
    buckets=SECONDS,
)
PREPROCESS_SECONDS = Histogram(
    "vecgate_embedder_preprocess_seconds",
    "Time to decode, scale and encode the inputs of a batch, or one picture for a local model.",
    ["embedder"],
    buckets=SECONDS,
)
BACKEND_SECONDS = Histogram(
    "vecgate_embedder_backend_seconds",
    "Time of a batch in the model or at the NIM, with retries.",
    ["embedder"],
    buckets=SECONDS,
)
BATCH_FILL = Histogram(
    "vecgate_embedder_batch_fill_ratio",
    "Inputs of a batch as a share of the batch size.",
    ["embedder"],
    buckets=SHARES,
)
INPUTS = Counter(
    "vecgate_embedder_inputs_total",
    "Inputs by outcome: embedded, rejected (the input is invalid), or failed with their batch.",
    ["embedder", "outcome"],
)
REFUSED_CALLS = Counter(
    "vecgate_embedder_refused_calls_total",
    "Calls refused because the queue was full or their deadline too near.",
    ["embedder"],
)
FAILOVERS = Counter(
    "vecgate_embedder_failovers_total",
    "Calls that failed at one embedder and went to another one, of the same space or of another named vector.",
    ["failed", "asked"],
)
BREAKER_OPEN = Gauge(
    "vecgate_embedder_breaker_open",
    "1 while the circuit breaker of an embedder is open, else 0.",
    ["embedder"],
    multiprocess_mode="livemax",
)
BREAKER_OPENED = Counter("vecgate_embedder_breaker_opened_total", "Times the circuit breaker opened.", ["embedder"])
CACHE_LOOKUPS = Counter(
    "vecgate_embedder_cache_lookups_total",
    "Inputs looked up in the cache: hit, joined (the same input was in flight), or miss.",
    ["embedder", "result"],
)
CACHE_BYTES = Gauge("vecgate_embedder_cache_bytes", "Bytes of the vectors in the cache.", multiprocess_mode="livesum")
NIM_ANSWERS = Counter(
    "vecgate_nim_answers_total",
    "Requests to a NIM by the class of the answer's status, such as 2xx, or none without an answer.",
    ["embedder", "status"],
)
NIM_RETRIES = Counter("vecgate_nim_retries_total", "Retries of requests to a NIM.", ["embedder"])
RERANKED_PASSAGES = Counter(
    "vecgate_reranker_passages_total",
    "Hits sent to a reranker by outcome: scored, rejected (it cannot read the hit), or failed with their call.",
    ["reranker", "outcome"],
)
RERANKER_SECONDS = Histogram(
    "vecgate_reranker_seconds", "Time of a call at a reranker, with retries.", ["reranker"], buckets=SECONDS
)
RERANKER_WAITING = Gauge(
    "vecgate_reranker_waiting_calls", "Searches that wait for a reranker.", ["reranker"], multiprocess_mode="livesum"
)
RERANKER_RUNNING = Gauge(
    "vecgate_reranker_running_calls",
    "Searches that a reranker is working for.",
    ["reranker"],
    multiprocess_mode="livesum",
)
MODEL_BYTES = Gauge(
    "vecgate_model_bytes",
    "Bytes of a local model's weights, and of its CUDA graphs, on a device.",
    ["embedder", "device"],
    multiprocess_mode="livemax",
)
