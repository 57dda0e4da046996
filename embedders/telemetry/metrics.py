"""Prometheus metrics of embedders."""

from prometheus_client import Counter, Gauge, Histogram

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
