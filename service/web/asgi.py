"""The way of requests to an ASGI application, and of its responses back: streams, slow callers, callers that leave."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiohttp import web
from multidict import CIMultiDict

from embedders.telemetry.timing import CallTimes
from service.errors import InvalidRequest, Violation
from service.process.deadlines import Deadlines
from service.process.server_timing import SERVER_TIMING, server_timing
from service.web.exchange import REQUEST_ID, BodyReader, Exchange

PIECE = 1024 * 1024
"""Bytes of a response that are written at a time: copying tens of megabytes at once would delay other calls."""

Event = Mapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


class CallApplication(Protocol):
    """Answers the calls among the requests."""

    def takes(self, path: str) -> bool:
        """Return whether a path is that of a call."""
        ...

    def name(self, path: str) -> str | None:
        """Return the name of a path in metrics; None for methods that do not exist."""
        ...

    def is_bounded(self, path: str) -> bool:
        """Return whether calls of a method may be refused because there are too many requests."""
        ...

    def is_endless(self, path: str) -> bool:
        """Return whether calls of a method never end on their own."""
        ...

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Receive,
        send: Send,
        *,
        refused: Exception | None,
        on_call: Callable[[], None],
    ) -> None:
        """Answer a request by ASGI; say when it becomes a call, which is logged and counted as such."""
        ...


class Bridge:
    """One request on its way through an application.

    Attributes:
        response: None until it begins.
        is_call: whether the application logs and counts it.

    Args:
        exchange: the request.
        headers: of every response.
        bodies: bounds the bytes of all bodies together.
        idle_timeout_s: seconds that a caller may take to read a part of the response.
        body_timeout_s: seconds in which the request's body must arrive.
        deadlines: of the event loop.
    """

    def __init__(
        self,
        exchange: Exchange,
        headers: Mapping[str, str],
        *,
        bodies: BodyReader,
        idle_timeout_s: float,
        body_timeout_s: float,
        deadlines: Deadlines,
    ) -> None:
        self.response: web.StreamResponse | None = None
        self.is_call = False
        self._exchange = exchange
        self._headers = headers
        self._bodies = bodies
        self._idle_timeout_s = idle_timeout_s
        self._body_timeout_s = body_timeout_s
        self._deadlines = deadlines
        self._start: Event = {}
        self._is_read = False
        self._started = time.perf_counter()

    def scope(self) -> dict[str, Any]:
        """Return the request as ASGI describes it, without what HTTP/2 and gRPC would not carry in headers."""
        request = self._exchange.request
        peer = None if request.transport is None else request.transport.get_extra_info("peername")
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": f"{request.version.major}.{request.version.minor}",
            "method": request.method,
            "scheme": request.scheme,
            "path": self._exchange.path,
            "root_path": "",
            "query_string": request.rel_url.raw_query_string.encode("ascii", "replace"),
            "headers": [*_printable(request.raw_headers), (REQUEST_ID.encode(), self._exchange.request_id.encode())],
            "client": (str(peer[0]), peer[1]) if isinstance(peer, tuple) else None,
            "extensions": {},
        }

    async def receive(self) -> Event:
        """Return the next part of the body; once all are read, never return: a caller that leaves cancels the request.

        Raises:
            InvalidRequest: the body does not match its headers.
            Overloaded: all bodies together are too long.
            TimeoutError: the body has not arrived in time.
        """
        if self._is_read:
            await asyncio.get_running_loop().create_future()
        content = self._exchange.request.content
        try:
            if not self._exchange.request_bytes:
                await self._bodies.invite(self._exchange)
            with self._deadlines.after(max(0.0, self._started + self._body_timeout_s - time.perf_counter())):
                part = await content.readany()
        except web.RequestPayloadError:
            raise InvalidRequest([Violation("", "the body does not match its headers")]) from None
        self._exchange.request_bytes += len(part)
        self._bodies.hold(self._exchange, len(part))
        self._is_read = not part or content.at_eof()
        return {"type": "http.request", "body": part, "more_body": not self._is_read}

    async def send(self, event: Event) -> None:
        """Send a part of the response; wait until the caller has read enough of those before.

        Raises:
            ConnectionError: the caller has left, or does not read.
        """
        if event["type"] == "http.response.start":
            self._start = event
            return
        body, more = event.get("body", b""), event.get("more_body", False)
        try:
            with self._deadlines.after(self._idle_timeout_s):
                response = self.response or await self._begin(None if more else len(body))
                if self._exchange.request.method != "HEAD":
                    for at in range(0, len(body), PIECE):
                        await response.write(body[at : at + PIECE])
                if not more:
                    await response.write_eof()
        except TimeoutError:
            self.cut()
            raise ConnectionAbortedError("the caller does not read the response") from None
        self._exchange.response_bytes += len(body)

    def note_call(self) -> None:
        """Remember that the application logs and counts the request."""
        self.is_call = True

    def cut(self) -> None:
        """End the connection."""
        if self._exchange.request.transport is not None:
            self._exchange.request.transport.abort()

    async def _begin(self, length: int | None) -> web.StreamResponse:
        headers = CIMultiDict((name.decode(), value.decode()) for name, value in self._start["headers"])
        headers.update(self._headers)
        headers.pop("content-encoding", None)  # always identity
        headers.setdefault(SERVER_TIMING, server_timing(CallTimes(), time.perf_counter() - self._started))
        self.response = response = web.StreamResponse(status=self._start["status"], headers=headers)
        response.content_length = length
        self._exchange.status = response.status
        await response.prepare(self._exchange.request)
        return response


def _printable(headers: tuple[tuple[bytes, bytes], ...]) -> list[tuple[bytes, bytes]]:
    """Return headers by lower-case name, without those that gRPC's metadata cannot have."""
    lower = [(name.lower(), value) for name, value in headers]
    # The id of the request is added: the caller's or a new one.
    others = {REQUEST_ID.encode()}
    others |= {name for name, value in lower if not (value.isascii() and value.decode("latin-1").isprintable())}
    return [each for each in lower if each[0] not in others]
