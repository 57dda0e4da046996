"""Settings of the builds before 0.1.0, and what took their place. The release after 0.1.0 deletes this table."""

from collections.abc import Iterator

REMOVED = {
    "SERVER__MAX_RESPONSE_BYTES": "a response may have 64 MiB; remove it",
    "SERVER__MAX_HEADER_BYTES": "a call's metadata may have 16 KiB; remove it",
    "SERVER__MAX_CALLS_BYTES": "all calls together may hold 512 MiB; remove it, or lower VECGATE_SERVER__MAX_CALLS",
    "SERVER__REQUEST_TIMEOUT_S": "a request must arrive within 60 s; remove it, or lower VECGATE_SERVER__MAX_CALL_S",
    "SERVER__MAX_CONNECTIONS": "there may be 8192 connections, and at most three quarters of the files that the "
    "process may open; remove it, or lower that number (ulimit -n)",
    "SERVER__MAX_CONNECTION_IDLE_S": "a connection without calls is closed after 300 s; remove it",
    "SERVER__KEEPALIVE_S": "a silent client is pinged after 60 s; remove it",
    "SERVER__MIN_PING_INTERVAL_S": "a client may ping every 60 s; remove it",
    "EMBEDDER__MAX_QUEUED_BYTES": "512 MiB may wait for an embedder; remove it, or lower "
    "VECGATE_EMBEDDER__MAX_QUEUED_INPUTS",
    "EMBEDDER__CHECK_INTERVAL_S": "embedders are checked every 10 s; remove it",
    "EMBEDDER__CHECK_TIMEOUT_S": "a check may take 30 s; remove it",
    "EMBEDDER__MAX_FAILURES": "the circuit breaker opens after 5 failures in a row; remove it",
    "EMBEDDER__COOL_DOWN_S": "the circuit breaker probes after 1 s, then doubles the wait; remove it",
    "EMBEDDER__MAX_COOL_DOWN_S": "the circuit breaker probes at least every 30 s; remove it",
    "CLIP__JPEG_DRAFT_FACTOR": "large JPEGs are decoded at no less than 4 times the model's resolution; remove it",
    "CLIP__PROBE_MIN_COSINE": "the probe asks for a cosine of 0.98; remove it",
    "NIM__PROBE_MIN_COSINE": "the probe asks for a cosine of 0.98; remove it",
    "NIM__DIMENSION": "the dimension is learnt from the NIM; remove it",
    "NIM__RETRY_ATTEMPTS": "a request is sent at most 3 times; remove it",
    "NIM__RETRY_MAX_S": "retries end after 20 s; remove it",
    "NIM__MAX_CONVERTED_PIXELS": "converted pictures are scaled down to 2,000,000 pixels; remove it",
    "WEAVIATE__HTTP_HOST": "set VECGATE_WEAVIATE__HTTP_URL to http://HOST:PORT",
    "WEAVIATE__HTTP_PORT": "set VECGATE_WEAVIATE__HTTP_URL to http://HOST:PORT",
    "WEAVIATE__HTTP_SECURE": "set VECGATE_WEAVIATE__HTTP_URL to https://HOST:PORT",
    "WEAVIATE__GRPC_HOST": "set VECGATE_WEAVIATE__GRPC_URL to grpc://HOST:PORT",
    "WEAVIATE__GRPC_PORT": "set VECGATE_WEAVIATE__GRPC_URL to grpc://HOST:PORT",
    "WEAVIATE__GRPC_SECURE": "set VECGATE_WEAVIATE__GRPC_URL to grpcs://HOST:PORT",
    "WEAVIATE__CHECK_INTERVAL_S": "Weaviate is checked every 0.5 s; remove it",
    "WEAVIATE__SCHEMA_MAX_AGE_S": "searches use a schema of at most 1 s ago; remove it",
    "WEAVIATE__MAX_BATCH_OBJECTS": "one write has at most 100 objects; remove it",
    "WEAVIATE__MAX_BATCH_BYTES": "one write has at most 16 MiB; remove it",
    "LIMITS__MAX_FILTER_DEPTH": "a filter may be nested 16 deep; remove it",
    "LIMITS__MAX_FILTER_NODES": "a filter may have 1000 conditions, joins and listed values; remove it",
    "LIMITS__MAX_IMAGE_FRAMES": "an image may have 1000 frames; remove it",
    "WEB__TLS_CERT_FILE": "set VECGATE_SERVER__TLS_CERT_FILE, which holds for HTTP too",
    "WEB__TLS_KEY_FILE": "set VECGATE_SERVER__TLS_KEY_FILE, which holds for HTTP too",
    "WEB__ALLOW_PLAINTEXT": "set VECGATE_SERVER__ALLOW_PLAINTEXT, which holds for HTTP too",
    "WEB__TIMEOUT_S": "an HTTP request may take 60 s; remove it",
    "WEB__HEADER_TIMEOUT_S": "an HTTP request's headers must arrive within 10 s; remove it",
    "WEB__BODY_TIMEOUT_S": "an HTTP request's body must arrive within 30 s; remove it",
    "WEB__IDLE_TIMEOUT_S": "an HTTP connection without requests is closed after 120 s; remove it",
    "WEB__MAX_BODIES_BYTES": "all bodies together may have 256 MiB, or one of VECGATE_WEB__MAX_BODY_BYTES; remove it",
    "WEB__MAX_HEADER_BYTES": "an HTTP request's line and headers may have 32 KiB; remove it",
    "WEB__MAX_REQUESTS": "256 HTTP requests may be answered at the same time; remove it",
    "WEB__MAX_CONNECTIONS": "there may be 1024 HTTP connections; remove it",
    "TRACING": "set OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT",
    "TRACING__ENDPOINT": "set OTEL_EXPORTER_OTLP_ENDPOINT to the same address",
    "TRACING__CA_FILE": "set OTEL_EXPORTER_OTLP_CERTIFICATE to the same file",
    "TRACING__SAMPLE_RATIO": "set OTEL_TRACES_SAMPLER to parentbased_traceidratio, and OTEL_TRACES_SAMPLER_ARG to the "
    "same number",
    "TRACING__SERVICE_NAME": "set OTEL_SERVICE_NAME to the same name",
    "AUTH__CHECK_INTERVAL_S": "files are looked at every 5 s; remove it",
    "AUTH__OPEN_HEALTH": "set VECGATE_AUTH__WITHOUT_KEY to those of health, metrics and reflection that need no key",
    "AUTH__OPEN_METRICS": "set VECGATE_AUTH__WITHOUT_KEY to those of health, metrics and reflection that need no key",
    "AUTH__OPEN_REFLECTION": "set VECGATE_AUTH__WITHOUT_KEY to those of health, metrics and reflection that need no "
    "key",
}
"""What to do, by variable without VECGATE_. A name without a field stands for a whole group."""

_NAMED = {
    "CLIP": (
        "MODEL",
        "CHECKPOINT",
        "EXPECTED_DIGEST",
        "DEVICE",
        "PRECISION",
        "MAX_BATCH",
        "READERS",
        "SPACE",
        "PROBE_FILE",
    ),
    "NIM": (
        "BASE_URL",
        "MODEL",
        "SPACE",
        "PROBE_FILE",
        "PROFILE",
        "API_KEY",
        "API_KEY_FILE",
        "ALLOW_CALLER_KEYS",
        "CA_FILE",
        "PROXY",
        "PROXY_FILE",
        "TIMEOUT_S",
        "MAX_BATCH",
        "MAX_CONNECTIONS",
        "MAX_REQUEST_BYTES",
    ),
}


def _moved() -> Iterator[tuple[str, str]]:
    """Yield the settings of the two embedders that a server could have before embedders had names."""
    for kind, fields in _NAMED.items():
        named = f"VECGATE_EMBEDDERS__{kind}"
        yield kind, f"embedders have names now; set {named}__KIND to {kind.lower()}, and each field beside it"
        for field in fields:
            yield (
                f"{kind}__{field}",
                f"embedders have names now; set {named}__KIND to {kind.lower()} and {named}__{field} to the same value",
            )


REMOVED |= dict(_moved())
