"""An HTTP request with its answer, and the bounds on its body."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from http import HTTPStatus

from aiohttp import HttpVersion11, web

from service.access import calling_account
from service.errors import Overloaded
from service.process.deadlines import Deadlines
from service.process.log import new_request_id
from service.settings import WebSettings
from service.web.bounds import WebBounds
from service.web.refusals import Refused, invalid_http

REQUEST_ID = "x-request-id"
MAX_REQUEST_ID_LENGTH = 128


class Exchange:
    """A request and what is logged of its answer.

    Attributes:
        path: without the settings' prefix and doubled slashes.
        route: the path's name in logs and metrics.
        method: HTTP's method and the route.
        headers: by lower-case name.
        head_bytes: of its path and headers.
        status: of the answer; None until there is one.
        ends: what to do when the answer has been sent.
    """

    def __init__(self, request: web.BaseRequest, path: str, route: str) -> None:
        self.request = request
        self.path = path
        self.route = route
        self.method = f"{request.method} {route}"
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.raw_headers}
        self.head_bytes = len(request.raw_path) + sum(len(name) + len(value) for name, value in request.raw_headers)
        given = self.headers.get(REQUEST_ID, "")
        usable = 0 < len(given) <= MAX_REQUEST_ID_LENGTH and given.isascii() and given.isprintable()
        self.request_id = given if usable else new_request_id()
        peer = None if request.transport is None else request.transport.get_extra_info("peername")
        self.peer = ":".join(map(str, peer)) if isinstance(peer, tuple) else ""
        self.status: int | None = None
        self.request_bytes = 0
        self.response_bytes = 0
        self.ends = ExitStack()


class LongAnswer(web.StreamResponse):
    """An answer of many pieces, which are sent as fast as the caller reads them.

    Args:
        pieces: the body.
        headers: of the answer, beside its type and length.
        content_type: of the body.
    """

    def __init__(self, pieces: Sequence[bytes], *, headers: Mapping[str, str], content_type: str) -> None:
        super().__init__(headers=headers)
        self.content_type = content_type
        self.content_length = sum(map(len, pieces))
        self._pieces = pieces

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the pieces, and end."""
        # aiohttp calls this again.
        pieces, self._pieces = self._pieces, ()
        for piece in pieces:
            await self.write(piece)
        await super().write_eof(data)


class BodyReader:
    """Reads requests' bodies, bounded in bytes, each and all together with long answers, and in time.

    Args:
        settings: the bound on one body.
        bounds: on all bodies and answers, and on the bodies' time.
    """

    def __init__(self, settings: WebSettings, bounds: WebBounds) -> None:
        self._max_bytes = settings.max_body_bytes
        # One body of the largest size can always be read.
        self._max_held = max(bounds.max_bodies_bytes, settings.max_body_bytes)
        self._timeout_s = bounds.body_timeout_s
        self._held = 0
        self._deadlines = Deadlines()

    @asynccontextmanager
    async def read(self, exchange: Exchange) -> AsyncIterator[bytes]:
        """Read a request's body; its bytes count towards the bound on all bodies while the block runs.

        Raises:
            Refused: it is too long or compressed, breaks HTTP, or was not complete in time.
            Overloaded: all bodies together are too long.
        """
        if exchange.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "BODY_COMPRESSED", "the body is compressed; send it as it is"
            )
        if (exchange.request.content_length or 0) > self._max_bytes:
            raise self._too_long()
        parts: list[bytes] = []
        try:
            await self._receive(exchange, parts)
            # A body may have tens of megabytes, whose copying would keep all other requests waiting.
            yield parts[0] if len(parts) == 1 else await asyncio.to_thread(b"".join, parts)
        finally:
            self._release(sum(map(len, parts)))

    def hold(self, exchange: Exchange, size: int) -> None:
        """Count bytes of a body or an answer towards the bound until the answer has been sent: callers may be slow.

        Raises:
            Overloaded: all bodies and answers together are too long.
        """
        # The longest answer can always be sent.
        if self._held and self._held + size > self._max_held:
            raise self._too_many()
        self._held += size
        exchange.ends.callback(self._release, size)

    def _release(self, size: int) -> None:
        self._held -= size

    async def invite(self, exchange: Exchange) -> None:
        """Tell a caller that waits for it to send the body."""
        request = exchange.request
        if exchange.headers.get("expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0

    async def _receive(self, exchange: Exchange, parts: list[bytes]) -> None:
        request, timeout_s = exchange.request, self._timeout_s
        await self.invite(exchange)
        deadline = self._deadlines.after(timeout_s)
        try:
            with deadline:
                while part := await request.content.readany():
                    exchange.request_bytes += len(part)
                    # At once, so that callers cannot send more before the first requests are answered.
                    calling_account.get().receive(len(part))
                    self._held += len(part)
                    parts.append(part)
                    if exchange.request_bytes > self._max_bytes:
                        raise self._too_long()
                    if self._held > self._max_held:
                        raise self._too_many()
        except web.RequestPayloadError as error:
            raise invalid_http("the body does not match its headers") from error
        except TimeoutError:
            if not deadline.expired:
                raise
            raise Refused(
                HTTPStatus.REQUEST_TIMEOUT,
                "BODY_TIMEOUT",
                f"the body was not complete after {timeout_s:g} s; send it faster",
            ) from None

    def _too_many(self) -> Overloaded:
        return Overloaded(
            f"the bodies of all requests and answers have more than {self._max_held} bytes; try again later"
        )

    def _too_long(self) -> Refused:
        return Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "BODY_TOO_LARGE",
            f"the body has more than {self._max_bytes} bytes; send fewer or smaller inputs",
        )
