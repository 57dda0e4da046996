"""What embedders count, for Prometheus."""

from prometheus_client import Counter, Gauge

__all__ = ["BREAKER_OPEN", "CACHE_BYTES", "CACHE_LOOKUPS", "FAILOVERS"]

FAILOVERS = Counter(
    "vecgate_embedder_failovers_total",
    "Calls that one embedder failed and another one of the same space, or of another named vector, was asked for.",
    ["failed", "asked"],
)
BREAKER_OPEN = Gauge(
    "vecgate_embedder_breaker_open", "1 while an embedder is not asked because it failed, else 0.", ["embedder"]
)
CACHE_LOOKUPS = Counter(
    "vecgate_embedder_cache_lookups_total",
    "Inputs looked up in the cache: hit, joined (the same input was being embedded), or miss.",
    ["embedder", "result"],
)
CACHE_BYTES = Gauge("vecgate_embedder_cache_bytes", "Bytes of the vectors in the cache.")
