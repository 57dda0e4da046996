"""uvicorn's HTTP/1.1 with the bounds that it has not: on headers, on slow callers, and on connections."""

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.web.bounds import WebBounds
from service.web.refusals import JSON, Refused, answer_for

LINGER_S = 2.0
"""Seconds that a caller may go on sending the body of a request that is answered already. A caller that has its
connection cut while it sends may never see the answer."""


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration with the bounds that BoundedProtocol reads beside it."""

    def __init__(self, app: ASGIApp, *, bounds: WebBounds, **more: Any) -> None:
        super().__init__(app, http=BoundedProtocol, **more)
        self.bounds = bounds


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    config: BoundedConfig

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._bounds = self.config.bounds
        self._fault: Refused | None = None
        self._in_head = False
        self._in_body = False
        self._offers = False
        self._unanswered = 0
        self._head_bytes = 0
        self._named_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > self._bounds.max_connections:
            transport.abort()
            return
        self._set_timer(self._bounds.header_timeout_s, self._end_slow_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._clear_timer()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        begun = self._in_head
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        if self.transport.is_closing():
            return
        if begun and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._bounds.max_header_bytes:
                self._refuse_head()
                self.send_400_response("")
                return
        # Not even line ends, which begin no request, may hold a connection.
        idle = not self._in_body and not self._unanswered
        if self._timer is None and self.timeout_keep_alive_task is None and (self._in_head or idle):
            self._set_timer(self._bounds.header_timeout_s, self._end_slow_head)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._named_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the path."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. A field behind a chunked body is none, though it comes the same way."""
        self._count(name, value)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._in_head = False
        self._clear_timer()
        self._offers = self.parser.should_upgrade()
        if self._offers:
            return
        self._in_body = True
        super().on_headers_complete()
        self._unanswered += 1

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        if self._offers:
            return
        self._in_body = False
        super().on_message_complete()
        if not self._unanswered:
            # The answer came before the body's end.
            self._clear_timer()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Give a caller that is still sending a moment to end."""
        self._unanswered -= 1
        super().on_response_complete()
        if self._in_body and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._set_timer(LINGER_S, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """End a connection without requests, also one whose caller does not read its answer."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, and end the connection."""
        del msg
        fault = self._fault or Refused(HTTPStatus.BAD_REQUEST, "INVALID_HTTP", "this is no HTTP/1.1 request")
        if not self._unanswered:
            body = bytes(answer_for(fault, "").body)
            head = f"content-type: {JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[fault.status] + head.encode() + body)
        self.transport.close()

    def _parse(self, data: bytes) -> None:
        """Parse what has come; a request that offers to go on in another protocol once more without its offer.

        A server may ignore the offer, but httptools takes the request for its connection's last one in HTTP, without a
        body, and stops behind its head. Java's client offers HTTP/2 that way with the first request of a connection.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                method = self.parser.get_method()
                if method == b"CONNECT":
                    self._fault = Refused(HTTPStatus.BAD_REQUEST, "INVALID_HTTP", "CONNECT is not supported")
                    raise httptools.HttpParserError(str(self._fault)) from offer
                line = b"%s %s HTTP/%s\r\n" % (method, self.url, self.parser.get_http_version().encode())
                kept = [each for each in self.headers if each[0] != b"upgrade"]
                head = b"".join([line, *(b"%s: %s\r\n" % each for each in kept), b"\r\n"])
                data = head + data[offer.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            else:
                return

    def _count(self, *pieces: bytes) -> None:
        self._named_bytes += sum(map(len, pieces))
        if self._named_bytes > self._bounds.max_header_bytes:
            self._refuse_head()
            raise httptools.HttpParserError("the headers are too long")

    def _refuse_head(self) -> None:
        self._fault = Refused(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "HEADERS_TOO_LARGE",
            f"the request's line and headers have more than {self._bounds.max_header_bytes} bytes",
        )

    def _end_slow_head(self) -> None:
        if self._in_head:
            seconds = self._bounds.header_timeout_s
            self._fault = Refused(
                HTTPStatus.REQUEST_TIMEOUT, "HEADER_TIMEOUT", f"the headers were not there after {seconds:g} s"
            )
            self.send_400_response("")
        else:
            self.transport.close()

    def _set_timer(self, seconds: float, end: Any) -> None:
        self._clear_timer()
        self._timer = self.loop.call_later(seconds, end)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
