"""The HTTP server: its port, the bounds on its connections, and its end."""

import asyncio
import contextlib
import re
from http import HTTPStatus

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

from service.access import Authenticator
from service.core.embedder_pool import EmbedderPool
from service.process.addresses import BACKLOG, check_address, listen
from service.process.tls import certificates_of
from service.settings import AuthSettings, ServerSettings, WebSettings
from service.web.bounds import WebBounds
from service.web.calls import Calls
from service.web.endpoint import Endpoint
from service.web.refusals import JSON, Refused, answer_for, head_too_large, invalid_http

DEFAULT_BOUNDS = WebBounds()

LINGER_S = 2.0
"""Seconds that a caller may keep sending the body of a request that is answered already. A caller whose connection is
cut while it sends may never see the answer."""

MAX_HEADERS = 256
"""Headers of one request; their bytes are bounded, too."""

UPGRADE = re.compile(rb"\Aupgrade(?=:)", re.IGNORECASE)
"""The name in a line that offers another protocol."""

END = b"\r\n\r\n"
"""The last bytes of every chunked body."""

MAX_PIECES = 256
"""Pieces of a body that are read before others have their turn: a chunk may hold what looks like a body's end."""

LAST_S = 0.1
"""Seconds that a connection may take to end after the time for draining."""


class _Connection(web.RequestHandler):
    """aiohttp's HTTP/1.1 connection, with bounds on the time and the bytes that a request's head may take.

    aiohttp's parser gets the bytes of one request at a time. The bytes behind it wait until it is answered; if they are
    many, the connection is not read meanwhile. An offer of another protocol is hidden from the parser, which would
    stop behind it.
    """

    __slots__ = ("_body", "_bounds", "_head_bytes", "_held", "_is_due", "_left", "_server", "_timer")

    def __init__(self, server: web.Server, bounds: WebBounds) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=bounds.idle_timeout_s,
            lingering_time=0,  # `go_on` does that
            max_line_size=bounds.max_header_bytes,
            max_field_size=bounds.max_header_bytes,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # documented, and what turns it off
        )
        self._server = server
        self._bounds = bounds
        self._held = bytearray()
        self._is_due = False
        self._head_bytes = 0
        self._body: StreamReader | None = None  # of the request that is read or answered
        self._left: int | None = 0  # bytes of the body that the parser needs; None if it is chunked
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request, for a limited time."""
        self._start_timer()
        super().connection_made(transport)
        if len(self._server.connections) > self._bounds.max_connections:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process the next bytes; none means that there is room again for a body that is read."""
        if data:
            self._process(data)
        else:
            # Not at once: the reader of a body of many pieces would read all of them in one round of the event loop.
            self._process_later()

    def _process_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._process_waiting)

    def _process_waiting(self) -> None:
        self._is_due = False
        if self.transport is not None:
            self._process(b"")

    def _process(self, data: bytes) -> None:
        """Process bytes, after those that wait."""
        if self._close or self._force_close:
            return
        self._held += data
        if self._body is None:
            self._read_head()
        if self._body is not None:
            self._read_body(self._body)
        elif self._timer is None and (data or self._held or self._head_bytes):
            self._start_timer()
        if self.transport is not None and len(self._held) > self._bounds.max_header_bytes:
            self.transport.pause_reading()

    async def go_on(self, answered: web.BaseRequest, *, keep_alive: bool) -> None:
        """Read the rest of an answered request's body, for a short time; then the next request, if there may be one."""
        with contextlib.suppress(TimeoutError, web.RequestPayloadError):
            async with asyncio.timeout(LINGER_S):
                while await answered.content.readany():
                    pass
        if keep_alive and answered.content.is_eof() and self.transport is not None:
            self._body = None
            self.transport.resume_reading()
            self._process(b"")

    def _read_head(self) -> None:
        """Pass on whole lines until the parser has a head. Line ends before a request are ignored."""
        if not self._head_bytes:
            del self._held[: len(self._held) - len(self._held.lstrip(b"\r\n"))]
            if self._held and not self._held[:1].isalpha():
                self._refuse(invalid_http())
                return
        while not self._messages and (size := self._held.find(b"\n") + 1):
            self._head_bytes += size
            super().data_received(UPGRADE.sub(b"ignored", self._take(size)))
        if self._messages:
            self._stop_timer()
            self._head_bytes = 0
            message, self._body = self._messages[-1]
            self._left = 0
            if isinstance(message, RawRequestMessage):
                self._left = None if message.chunked else int(message.headers.get("content-length", 0))
        elif self._head_bytes + len(self._held) > self._bounds.max_header_bytes:
            self._refuse(head_too_large(self._bounds.max_header_bytes))

    def _read_body(self, body: StreamReader) -> None:
        """Pass on what belongs to a body, as long as it is read."""
        if not body.is_eof():
            super().data_received(b"")  # what the parser kept when it paused
        for _ in range(MAX_PIECES):
            if body.is_eof() or self._reading_paused or not (size := self._body_bytes()):
                return
            if self._left is not None:
                self._left -= size
            super().data_received(self._take(size))
            if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
                body.set_exception(web.RequestPayloadError("these are not chunks"))
                self._body = EMPTY_PAYLOAD
                return
        self._process_later()

    def _body_bytes(self) -> int:
        """Return how many of the bytes that wait belong to the body for sure."""
        if self._left is not None:
            return min(self._left, len(self._held))
        if (at := self._held.find(END)) >= 0:
            return at + len(END)
        begun = next((size for size in (3, 2, 1) if self._held.endswith(END[:size])), 0)
        return len(self._held) - begun

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to invalid HTTP; it closes the connection."""
        del request, status
        if isinstance(exc, LineTooLong) or "Too many headers" in (message or ""):
            return answer_for(head_too_large(self._bounds.max_header_bytes), "")
        return answer_for(invalid_http(), "")

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._bounds.header_timeout_s, self._end_slow_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_slow_head(self) -> None:
        if self._head_bytes or self._held:
            seconds = self._bounds.header_timeout_s
            message = f"the headers were not complete after {seconds:g} s"
            self._refuse(Refused(HTTPStatus.REQUEST_TIMEOUT, "HEADER_TIMEOUT", message))
        else:
            self.force_close()

    def _refuse(self, fault: Refused) -> None:
        """Answer before a request is complete, and close."""
        body = answer_for(fault, "").body
        if self.transport is not None and isinstance(body, bytes):
            head = f"content-type: {JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            status = f"HTTP/1.1 {fault.status.value} {fault.status.phrase}\r\n"
            self.transport.write((status + head).encode() + body)
        self.force_close()


class WebServer:
    """Serves the endpoint that answers as a NIM does.

    The constructor checks that the port is free, before anything else is started. The server listens from `start` on;
    until then connections are refused, so no client waits.

    Attributes:
        port: that it listens on; known after start if the setting is 0.
        calls: what happens around every request.
    """

    def __init__(
        self,
        settings: WebSettings,
        server: ServerSettings,
        *,
        embedders: EmbedderPool,
        authenticator: Authenticator | None = None,
        bounds: WebBounds = DEFAULT_BOUNDS,
    ) -> None:
        """Create the server.

        Args:
            settings: address and bounds of the server.
            server: its certificate, and how long its shutdown may take.
            embedders: the embedders to use.
            authenticator: who may call; None means everyone.
            bounds: on connections and requests.

        Raises:
            AddressTaken: another program listens on the address, or this machine does not have it.
            InvalidSettings: the certificate or its key cannot be used.
        """
        authenticator = authenticator or Authenticator(AuthSettings())
        self._endpoint = Endpoint(settings, bounds, embedders, authenticator.settings)
        self.calls = Calls(self._endpoint, settings, bounds, authenticator)
        self._shared = server
        self._settings = settings
        self._bounds = bounds
        self._certificates = certificates_of(server, settings.tls_client_ca_file, group="web")
        self.port: int = settings.port
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None
        if server.workers == 1:
            check_address(settings)

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        scheme = "http" if self._shared.tls_cert_file is None else "https"
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"{scheme}://{host}:{self.port}"

    async def start(self) -> None:
        """Listen, and answer requests.

        Raises:
            AddressTaken: another program has taken the address meanwhile.
        """
        listener = listen(self._settings, shared=self._shared.workers > 1)
        self.port = listener.getsockname()[1]
        self._server = server = web.Server(self._answer, handler_cancellation=True)
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _Connection(server, self._bounds),
            sock=listener,
            backlog=BACKLOG,
            ssl=None if self._certificates is None else self._certificates.context,
        )

    async def stop(self) -> None:
        """Report not ready, wait for load balancers to notice, let requests in flight finish, and stop."""
        self._endpoint.draining = True
        if self._listener is None or self._server is None:
            return
        await asyncio.sleep(self._shared.drain_delay_s)
        self._listener.close()
        self._server.pre_shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._shared.drain_grace_s):
                await self.calls.idle.wait()
        await self._server.shutdown(LAST_S)
        await self.calls.idle.wait()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        answer = await self.calls.answer(request)
        await connection.go_on(request, keep_alive=bool(answer.keep_alive))
        return answer
