"""The options of a channel to Vecgate: message sizes, retries, load balancing, keepalive; and what every call sends."""

import json
import re
from collections.abc import Sequence

MIB = 1024 * 1024
ChannelOption = tuple[str, int | str]

_RETRIED_SERVICES = (
    "vecgate.v1.AdminService",
    "vecgate.v1.CollectionService",
    "vecgate.v1.EmbeddingService",
    "vecgate.v1.EvaluationService",
    "vecgate.v1.ObjectService",
    "vecgate.v1.SearchService",
    "grpc.health.v1.Health",
)

SERVICE_CONFIG = json.dumps(
    {
        # Otherwise one connection carries all calls, and one of several replicas does all the work.
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{"service": service} for service in _RETRIED_SERVICES],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    # CANCELLED is what gRPC's core answers to calls that reach a server during its shutdown, because
                    # no handler takes them any more. Vecgate itself never answers it.
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            },
            # The only method that is not idempotent: a retry could fail because the first attempt succeeded.
            {"name": [{"service": "vecgate.v1.CollectionService", "method": "CreateCollection"}]},
        ],
    }
)
"""The gRPC service config of the client, for programs that make their own channel."""


def channel_options(
    *, max_message_bytes: int = 64 * MIB, extra: Sequence[ChannelOption] = ()
) -> list[tuple[str, int | str]]:
    """Return the options for a channel to Vecgate.

    Args:
        max_message_bytes: the limit for requests and responses; gRPC's default is 4 MiB for responses.
        extra: more options, which override these.

    Example:
        grpc.aio.insecure_channel("vecgate:50070", options=channel_options())
    """
    options: dict[str, int | str] = {
        "grpc.max_send_message_length": max_message_bytes,
        "grpc.max_receive_message_length": max_message_bytes,
        "grpc.service_config": SERVICE_CONFIG,
        "grpc.enable_retries": 1,
        # A call whose messages do not fit in here is not retried; the default, 256 KiB, is less than an image.
        "grpc.per_rpc_retry_buffer_size": max_message_bytes + MIB,
        # Servers close connections of clients that ping more often than every 5 minutes. The timeout also becomes
        # TCP_USER_TIMEOUT, which detects a dead peer during a call.
        "grpc.keepalive_time_ms": 300_000,
        "grpc.keepalive_timeout_ms": 20_000,
        # With the default, 1 s growing to 120 s, reconnecting to a restarted server can take minutes.
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 5_000,
        # Proxy variables are meant for the internet; gRPC would use them even for 127.0.0.1.
        "grpc.enable_http_proxy": 0,
    }
    options.update(extra)
    return list(options.items())


_NAME = re.compile(r"[0-9a-z_.-]+")


def call_metadata(metadata: Sequence[tuple[str, str | bytes]], api_key: str) -> tuple[tuple[str, str | bytes], ...]:
    """Return what is sent with every call, with the names in lower case, as HTTP/2 has them.

    Raises:
        TypeError: a value is neither a str nor bytes, or is a str although its name ends in "-bin".
        ValueError: gRPC sends no such name or value; the message does not repeat the value, which may be a secret.
    """
    key = (("authorization", f"Bearer {api_key}"),) if api_key else ()
    checked = tuple((name.lower(), value) for name, value in (*metadata, *key))
    for name, value in checked:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"metadata cannot be called {name!r}; a name has letters, digits, hyphens and dots of ASCII"
            )
        binary = name.endswith("-bin")
        if not isinstance(value, bytes if binary else str | bytes):
            raise TypeError(f"the value of {name} is {'bytes' if binary else 'a str'}, not {type(value).__name__}")
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not binary and not (text.isascii() and text.isprintable()):
            raise ValueError(
                f"the value of {name} has a character that is not printable ASCII, such as a line end; remove it"
            )
    return checked
