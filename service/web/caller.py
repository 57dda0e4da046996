"""What comes from a caller: a body, bounded in bytes and time, and the news that it has gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Self

from starlette.requests import Request
from starlette.types import Receive

from service.errors import Overloaded
from service.settings import WebSettings
from service.web.bounds import WebBounds
from service.web.refusals import CallerGone, Refused


class BodyReader:
    """Reads requests' bodies, bounded in bytes, each and all together, and in time.

    Args:
        settings: the bound on one body.
        bounds: on all bodies, and on their time.
    """

    def __init__(self, settings: WebSettings, bounds: WebBounds) -> None:
        self._settings = settings
        self._bounds = bounds
        # One body of the largest size can always be read.
        self._max_held = max(bounds.max_bodies_bytes, settings.max_body_bytes)
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Give a request's body, whose bytes count with the others' as long as the block runs.

        Raises:
            Refused: it is too long or compressed, or is not there in time.
            Overloaded: all bodies together are too long.
            CallerGone: the caller left before its end.
        """
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "BODY_COMPRESSED", "the body is compressed; send it as it is"
            )
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._settings.max_body_bytes:
            raise self._too_long()
        parts: list[bytes] = []
        try:
            await self._receive(request, parts)
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            self._held -= sum(map(len, parts))

    async def _receive(self, request: Request, parts: list[bytes]) -> None:
        size, timeout_s = 0, self._bounds.body_timeout_s
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise CallerGone("the caller left in the middle of its request")
                    part = message.get("body", b"")
                    size += len(part)
                    self._held += len(part)
                    parts.append(part)
                    if size > self._settings.max_body_bytes:
                        raise self._too_long()
                    if self._held > self._max_held:
                        raise Overloaded(
                            f"the bodies of all requests have more than {self._max_held} bytes, and "
                            "no more may be read: try again later"
                        )
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            if not deadline.expired():
                raise
            raise Refused(
                HTTPStatus.REQUEST_TIMEOUT,
                "BODY_TIMEOUT",
                f"the body was not there after {timeout_s:g} s; send it faster",
            ) from None

    def _too_long(self) -> Refused:
        return Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "BODY_TOO_LARGE",
            f"the body has more than {self._settings.max_body_bytes} bytes; send fewer or smaller inputs",
        )


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
