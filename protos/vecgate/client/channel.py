"""How a channel to Vecgate is set up: message bounds, retries, load balancing, keepalive."""

import json
from collections.abc import Sequence

MIB = 1024 * 1024
ChannelOption = tuple[str, int | str]

_RETRIED_SERVICES = (
    "vecgate.v1.AdminService",
    "vecgate.v1.CollectionService",
    "vecgate.v1.EmbeddingService",
    "vecgate.v1.ObjectService",
    "vecgate.v1.SearchService",
    "grpc.health.v1.Health",
)

SERVICE_CONFIG = json.dumps(
    {
        # Without it one connection carries all calls, and one of several replicas does the work.
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{"service": service} for service in _RETRIED_SERVICES],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    # A server that stops answers CANCELLED to calls that reach it while it tells its clients to go:
                    # gRPC's core has taken them and has nobody left to hand them to. No server of ours means it.
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            },
            # The one method that is not idempotent: a second attempt could fail on what the first one created.
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
        max_message_bytes: bytes of a message either way; gRPC's own default receives only 4 MiB.
        extra: more options, which win over the ones here.

    Example:
        grpc.aio.insecure_channel("vecgate:50070", options=channel_options())
    """
    options: dict[str, int | str] = {
        "grpc.max_send_message_length": max_message_bytes,
        "grpc.max_receive_message_length": max_message_bytes,
        "grpc.service_config": SERVICE_CONFIG,
        "grpc.enable_retries": 1,
        # A call whose messages do not fit in here is never retried; the default, 256 KiB, is less than a picture.
        "grpc.per_rpc_retry_buffer_size": max_message_bytes + MIB,
        # Servers end connections of clients that ping more often than every 5 minutes. The time-out also becomes
        # TCP_USER_TIMEOUT, which notices a dead peer under a call in flight.
        "grpc.keepalive_time_ms": 300_000,
        "grpc.keepalive_timeout_ms": 20_000,
        # The default, 1 s growing to 120 s, leaves a restarted server alone for minutes.
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 5_000,
        # Proxy variables are for the way out of the company; gRPC would use them for 127.0.0.1 as well.
        "grpc.enable_http_proxy": 0,
    }
    options.update(extra)
    return list(options.items())
