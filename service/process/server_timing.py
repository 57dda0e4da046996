"""How long the parts of an answer took, as browsers show it (W3C Server Timing)."""

from embedders.telemetry.timing import CallTimes

SERVER_TIMING = "server-timing"
"""The header, and the key in gRPC's trailing metadata."""


def server_timing(times: CallTimes, total_s: float) -> str:
    """Return the milliseconds of each stage that a call has passed, and of all of it until now.

    Args:
        times: of the call; stages may be longer than the call, because parallel work is added up.
        total_s: seconds since the call began.
    """
    text = f"total;dur={total_s * 1000:.1f}"
    if times.store_s:
        text = f"store;dur={times.store_s * 1000:.1f}, {text}"
    if times.backend_s:
        text = f"embed;dur={times.backend_s * 1000:.1f}, {text}"
    if times.preprocess_s:
        text = f"preprocess;dur={times.preprocess_s * 1000:.1f}, {text}"
    return f"queue;dur={times.queue_s * 1000:.1f}, {text}" if times.queue_s else text
