"""Keys for the NIM that callers bring in a call's metadata."""

from typing import Any

import grpc

from embedders.nim.address import check_key
from service.errors import InvalidRequest, Violation

CALLER_KEY = "x-nvidia-api-key"
"""The metadata that holds a caller's key; also the header of Weaviate's own modules for NVIDIA."""


class CallerKeys:
    """Takes callers' keys, or refuses calls that bring one.

    Args:
        allowed: whether this server takes them.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed

    def of(self, context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
        """Return the key that came with a call, or None.

        Raises:
            InvalidRequest: this server takes no such keys, there are several, or the key is malformed. The message does
                not repeat it.
        """
        found = [value for key, value in context.invocation_metadata() or () if key == CALLER_KEY]
        if not found:
            return None
        if not self._allowed:
            # Ignoring it would bill this server's key for a call that the caller expects on their own key.
            raise _refused(
                "is not taken by this server; leave it out, or set VECGATE_NIM__ALLOW_CALLER_KEYS=true there"
            )
        if len(found) > 1:
            raise _refused("was sent several times; send it once")
        key = found[0] if isinstance(found[0], str) else ""
        try:
            check_key(key)
        except ValueError as error:
            raise _refused("is empty, too long, or has invalid characters; send the key as it is") from error
        return key


def _refused(description: str) -> InvalidRequest:
    return InvalidRequest([Violation(f'metadata["{CALLER_KEY}"]', description)])
