"""Around every request: an id, a line in the access log, keys, bounds on time and number, and answers to failures."""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from http import HTTPStatus

import structlog
from opentelemetry.trace import Span, SpanKind
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedders.front.queueing import calling_client
from embedders.telemetry import tracing
from embedders.telemetry.timing import begin_times, note_deadline
from service.access import NOBODY, Authenticator, authorize_route, calling_account
from service.error_table import log_failure
from service.process.log import milliseconds, new_request_id
from service.process.metrics import HTTP_IN_FLIGHT, note_request
from service.settings import WebSettings
from service.web.bounds import WebBounds
from service.web.refusals import CallerGone, Refused, answer_for, note_refusal

log = structlog.get_logger(__name__)

REQUEST_ID = "x-request-id"
MAX_REQUEST_ID_LENGTH = 128
HEALTH = frozenset({"/v1/health/live", "/v1/health/ready"})
"""Paths that need no key, are never too many, and leave no line in the log."""

METRICS = "/metrics"
UNBOUNDED = HEALTH | {METRICS}
"""What is asked to see what is wrong with a server that has too many requests."""

OTHER = "(other)"
"""The log's word for paths that are no route's."""

METHODS = frozenset({"GET", "HEAD", "POST"})

GONE = 499
"""The access log's word for a caller that left, after nginx."""

_SLASHES = re.compile(r"/{2,}")


class _Exchange:
    """A request and its answer as they pass by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = self.headers.get(REQUEST_ID, "")
        usable = 0 < len(given) <= MAX_REQUEST_ID_LENGTH and given.isascii() and given.isprintable()
        self.request_id = given if usable else new_request_id()
        self.status: int | None = None
        self.request_bytes = 0
        self.response_bytes = 0
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b""))
        self.request_bytes += size
        # As they come, so that callers cannot send more while the first answers are made.
        calling_account.get().receive(size)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            MutableHeaders(scope=message)[REQUEST_ID] = self.request_id
        else:
            self.response_bytes += len(message.get("body", b""))
        await self._send(message)


class Calls:
    """An ASGI application around another one.

    Attributes:
        in_flight: requests that are being answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        name_path: Callable[[str], str],
        settings: WebSettings,
        bounds: WebBounds,
        authenticator: Authenticator,
    ) -> None:
        """Wrap an application.

        Args:
            app: answers what passes.
            name_path: returns what the log calls a path, without what a caller put into it.
            settings: the path's prefix.
            bounds: on requests.
            authenticator: who may call.
        """
        self.in_flight = 0
        self._app = app
        self._name_path = name_path
        self._settings = settings
        self._bounds = bounds
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        exchange = _Exchange(scope, receive, send)
        path = scope["path"] = self._own_path(scope["path"])
        scope["app"] = self  # where it is set, Starlette's router raises what it does not find
        method = f"{scope['method']} {self._name_path(path)}"
        times = begin_times()
        # A request that was sent along with another one begins in the context of that one's end.
        calling_account.set(NOBODY)
        calling_client.set("")
        structlog.contextvars.clear_contextvars()
        started = time.perf_counter()
        self.in_flight += 1
        HTTP_IN_FLIGHT.inc()
        with (
            self._span(scope["method"], path, exchange) as span,
            structlog.contextvars.bound_contextvars(request_id=exchange.request_id, **tracing.trace_names(span)),
        ):
            try:
                await self._answer(scope, exchange, path, method)
            finally:
                self.in_flight -= 1
                HTTP_IN_FLIGHT.dec()
                took_s = time.perf_counter() - started
                code = GONE if exchange.status is None else exchange.status
                note_request(self._route(scope["method"], path), code, took_s)
                span.set_attribute("http.response.status_code", code)
                if code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    tracing.fail(span, str(code))
                if path not in HEALTH:
                    log.info(
                        "call",
                        method=method,
                        code=code,
                        **milliseconds(took_s, times),
                        request_bytes=exchange.request_bytes,
                        response_bytes=exchange.response_bytes,
                        peer=":".join(map(str, scope.get("client") or ())),
                    )

    def _span(self, method: str, path: str, exchange: _Exchange) -> AbstractContextManager[Span]:
        """Return what makes a span of a request, within the trace that its caller named; health is not traced."""
        if not tracing.active() or path in HEALTH:
            return tracing.NOTHING
        route = self._name_path(path)
        attributes = {"http.request.method": method if method in METHODS else "_OTHER", "http.route": route}
        parent = tracing.incoming(exchange.headers)
        return tracing.span(self._route(method, path), attributes, kind=SpanKind.SERVER, parent=parent)

    def _route(self, method: str, path: str) -> str:
        """Return what the metrics call a request: one name for all that no route is for."""
        name = self._name_path(path)
        return f"{method} {name}" if method in METHODS and name != OTHER else OTHER

    def _own_path(self, path: str) -> str:
        """Return a path without the prefix and without the doubled slash that Weaviate's module sends."""
        path = _SLASHES.sub("/", path)
        prefix = self._settings.path_prefix
        # A prefix such as /v1 must not hide what is there without it.
        if prefix and path.startswith(f"{prefix}/") and self._name_path(path) == OTHER:
            return path.removeprefix(prefix)
        return path

    async def _answer(self, scope: Scope, exchange: _Exchange, path: str, method: str) -> None:
        try:
            self._admit(exchange, path, method)
            note_deadline(self._bounds.timeout_s)
            async with asyncio.timeout(self._bounds.timeout_s):
                await self._app(scope, exchange.receive, exchange.send)
        except CallerGone:
            pass
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets an answer
            if isinstance(error, HTTPException | Refused):
                note_refusal(error)
            else:
                log_failure(error, method)
            if exchange.status is None:
                await answer_for(error, exchange.request_id)(scope, exchange.receive, exchange.send)

    def _admit(self, exchange: _Exchange, path: str, method: str) -> None:
        switches = self._authenticator.settings
        if not (switches.open_health if path in HEALTH else path == METRICS and switches.open_metrics):
            account = self._authenticator.admit(exchange.headers.get("authorization"))
            if (route := self._name_path(path)) != OTHER:
                authorize_route(account.client, route, method)
        if path not in UNBOUNDED and self.in_flight > self._bounds.max_requests:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "OVERLOADED",
                f"{self._bounds.max_requests} requests are being answered, and no more may be: try again later",
                headers={"retry-after": "1"},
            )
        if self._name_path(path) == OTHER:
            # The router must not find what no rule is for: to its patterns "/v1/embeddings\n" is a route.
            raise HTTPException(HTTPStatus.NOT_FOUND)
