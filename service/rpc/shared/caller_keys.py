"""Keys for the NIM that callers send in the metadata of a call."""

from typing import Any

import grpc

from embedders.nim.address import check_key
from service.errors import InvalidRequest, Violation

CALLER_KEY = "x-nvidia-api-key"
"""The metadata with a caller's key; Weaviate's own modules for NVIDIA use the same header."""


class CallerKeys:
    """Reads callers' keys, or refuses calls that have one.

    Args:
        allowed: whether this server accepts them.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed

    def of(self, context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
        """Return the key of a call, or None.

        Raises:
            InvalidRequest: this server accepts no keys, there are several, or the key is not valid. The message does
                not contain it.
        """
        found = [value for key, value in context.invocation_metadata() or () if key == CALLER_KEY]
        if not found:
            return None
        if not self._allowed:
            # If the key were ignored, this server's key would pay for a call that the caller means to pay for.
            raise _refused(
                "is not accepted by this server; leave it out, or set VECGATE_NIM__ALLOW_CALLER_KEYS=true on the server"
            )
        if len(found) > 1:
            raise _refused("occurs several times; send it once")
        key = found[0] if isinstance(found[0], str) else ""
        try:
            check_key(key)
        except ValueError as error:
            raise _refused("is empty, too long, or has invalid characters; send the key unchanged") from error
        return key


def _refused(description: str) -> InvalidRequest:
    return InvalidRequest([Violation(f'metadata["{CALLER_KEY}"]', description)])
