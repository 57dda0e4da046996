"""What comes from a caller: a body, bounded in bytes and time, and the news that it has gone."""

import asyncio
from http import HTTPStatus
from types import TracebackType
from typing import Self

from starlette.requests import Request
from starlette.types import Receive

from service.web.refusals import CallerGone, Refused

__all__ = ["WhileConnected", "read_body"]


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """Return a request's body.

    Raises:
        Refused: it is too long or compressed, or is not there in time.
        CallerGone: the caller left before its end.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "BODY_COMPRESSED", "the body is compressed; send it as it is")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_long(max_bytes)
    parts: list[bytes] = []
    size = 0
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise CallerGone("the caller left in the middle of its request")
                part = message.get("body", b"")
                size += len(part)
                if size > max_bytes:
                    raise _too_long(max_bytes)
                parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise Refused(
            HTTPStatus.REQUEST_TIMEOUT, "BODY_TIMEOUT", f"the body was not there after {timeout_s:g} s; send it faster"
        ) from None


class WhileConnected:
    """Runs its block for as long as the caller is there, and ends it with CallerGone when the caller leaves.

    The body must have been read before.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._block: asyncio.Task[object] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._block = asyncio.current_task()
        self._watch = asyncio.create_task(self._wait_until_gone())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._block is not None
        assert self._watch is not None
        self._watch.cancel()
        # Whoever else cancelled the block at the same time still gets it cancelled.
        if self._gone and self._block.uncancel() == 0 and kind is asyncio.CancelledError:
            raise CallerGone("the caller left before its answer") from error

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        assert self._block is not None
        self._gone = True
        self._block.cancel()


def _too_long(max_bytes: int) -> Refused:
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "BODY_TOO_LARGE",
        f"the body has more than {max_bytes} bytes; send fewer or smaller inputs",
    )
