"""Around every request: an id, a line in the access log, keys, bounds on time and number, and answers to errors.

Calls of the API have all of these from the same interceptor as over gRPC. Here they are only bounded in number.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus

import structlog
from aiohttp import web
from opentelemetry.trace import Span, SpanKind

from embedders.front.queueing import calling_client
from embedders.telemetry import tracing
from embedders.telemetry.timing import CallTimes, begin_times, note_deadline
from service.access import NOBODY, Authenticator, authorize_route, calling_account
from service.error_table import log_failure
from service.errors import MessageTooLarge, Overloaded
from service.process.deadlines import Deadlines
from service.process.log import log_call
from service.process.metrics import HTTP_IN_FLIGHT, note_request
from service.process.server_timing import SERVER_TIMING, server_timing
from service.settings import WebSettings
from service.web.asgi import Bridge, CallApplication
from service.web.bounds import WebBounds
from service.web.endpoint import OTHER, Endpoint
from service.web.exchange import REQUEST_ID, Exchange
from service.web.origins import Origins
from service.web.refusals import Refused, answer_for, head_too_large, invalid_http, note_refusal, path_not_found

HEALTH = frozenset({"/v1/health/live", "/v1/health/ready"})
"""Paths without a key, a bound on requests, or a line in the log."""

METRICS = "/metrics"
UNBOUNDED = HEALTH | {METRICS}
"""Paths that must also answer when the server has too many requests."""

METHODS = frozenset({"GET", "HEAD", "POST"})

GONE = 499
"""The code in the access log for a caller that left before its answer, as in nginx."""

API_HEADERS = {
    "server": "vecgate",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}
"""Of every answer of the API: it is for its caller alone, and nothing but what its type says."""

_SLASHES = re.compile(r"/{2,}")


class Calls:
    """Answers requests by an endpoint's handlers.

    Attributes:
        in_flight: requests that are being answered.
        idle: set while there are none.
    """

    def __init__(
        self, endpoint: Endpoint, settings: WebSettings, bounds: WebBounds, authenticator: Authenticator
    ) -> None:
        """Stand in front of an endpoint.

        Args:
            endpoint: answers what passes.
            settings: the path's prefix.
            bounds: on requests.
            authenticator: who may call.
        """
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._endpoint = endpoint
        self._settings = settings
        self._bounds = bounds
        self._authenticator = authenticator
        self._deadlines = Deadlines()
        self._origins = Origins(settings, is_open=authenticator.open)
        self._api: CallApplication | None = None

    def serve(self, api: CallApplication) -> None:
        """Answer calls of the API, too."""
        self._api = api

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request. Cancelled when the caller leaves."""
        path = self._own_path(request.path)
        # A pipelined request begins in the context in which the one before ended.
        calling_account.set(NOBODY)
        calling_client.set("")
        structlog.contextvars.clear_contextvars()
        api = self._api if self._api is not None and self._api.takes(path) else None
        route = self._endpoint.name_path(path) if api is None else api.name(path) or OTHER
        exchange = Exchange(request, path, route)
        preflight = self._origins.preflight(exchange)
        if api is not None and preflight is None:
            return await self._pass_on(exchange, api)
        times = begin_times()
        started = time.perf_counter()
        with (
            self._counted(),
            exchange.ends,
            self._span(exchange) as span,
            structlog.contextvars.bound_contextvars(request_id=exchange.request_id, **tracing.trace_names(span)),
        ):
            try:
                answer = preflight or await self._make_answer(exchange)
                answer.headers[SERVER_TIMING] = server_timing(times, time.perf_counter() - started)
                return await self._send(exchange, answer)
            finally:
                code = self._note(exchange, started, times)
                span.set_attribute("http.response.status_code", code)
                if code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    tracing.fail(span, str(code))

    @contextmanager
    def _counted(self, *, delays_end: bool = True) -> Iterator[None]:
        """Count a request while it is answered."""
        HTTP_IN_FLIGHT.inc()
        self.in_flight += delays_end
        if delays_end:
            self.idle.clear()
        try:
            yield
        finally:
            self.in_flight -= delays_end
            if not self.in_flight:
                self.idle.set()
            HTTP_IN_FLIGHT.dec()

    def _note(self, exchange: Exchange, started: float, times: CallTimes) -> int:
        """Count, time and log a request that ends; return its status."""
        took_s = time.perf_counter() - started
        code = GONE if exchange.status is None else exchange.status
        note_request(_metric_name(exchange), code, took_s)
        if exchange.path not in HEALTH:
            log_call(
                exchange.method,
                code,
                took_s,
                times,
                request_bytes=exchange.request_bytes,
                response_bytes=exchange.response_bytes,
                peer=exchange.peer,
            )
        return code

    async def _pass_on(self, exchange: Exchange, api: CallApplication) -> web.StreamResponse:
        """Let the API answer a call; one that never ends on its own does not delay a shutdown."""
        bridge = Bridge(
            exchange,
            {REQUEST_ID: exchange.request_id, **API_HEADERS, **self._origins.headers(exchange)},
            bodies=self._endpoint.bodies,
            idle_timeout_s=self._bounds.idle_timeout_s,
            body_timeout_s=self._bounds.body_timeout_s,
            deadlines=self._deadlines,
        )
        started, times = time.perf_counter(), CallTimes()
        with self._counted(delays_end=not api.is_endless(exchange.path)), exchange.ends:
            try:
                refused = self._refusal(exchange, api)
                await api(bridge.scope(), bridge.receive, bridge.send, refused=refused, on_call=bridge.note_call)
            except ConnectionError:
                bridge.cut()
            except Exception as error:  # noqa: BLE001  # one connection ends, the server goes on
                log_failure(error, exchange.method)
                bridge.cut()
            finally:
                if not bridge.is_call:
                    self._note(exchange, started, times)
        return bridge.response or web.Response()

    def _refusal(self, exchange: Exchange, api: CallApplication) -> Exception | None:
        """Return why a call cannot begin; None if it can."""
        if exchange.head_bytes > self._bounds.max_header_bytes:
            return MessageTooLarge(f"the headers have more than {self._bounds.max_header_bytes} bytes; send fewer")
        if api.is_bounded(exchange.path) and self.in_flight > self._bounds.max_requests:
            return Overloaded(self._too_many())
        return self._origins.refusal(exchange)

    async def _make_answer(self, exchange: Exchange) -> web.StreamResponse:
        try:
            self._admit(exchange)
            note_deadline(self._bounds.timeout_s)
            with self._deadlines.after(self._bounds.timeout_s):
                return await self._endpoint.handler(exchange)(exchange)
        except Exception as error:  # noqa: BLE001  # the caller always gets an answer
            if isinstance(error, Refused):
                note_refusal(error)
            else:
                log_failure(error, exchange.method)
            return answer_for(error, exchange.request_id)

    async def _send(self, exchange: Exchange, answer: web.StreamResponse) -> web.StreamResponse:
        """Send an answer; a caller that does not read it loses its connection after the idle time."""
        answer.headers[REQUEST_ID] = exchange.request_id
        answer.headers["server"] = "vecgate"
        answer.headers.update(self._origins.headers(exchange))
        exchange.status = answer.status
        try:
            with self._deadlines.after(self._bounds.idle_timeout_s):
                await answer.prepare(exchange.request)
                await answer.write_eof()
        except TimeoutError:
            if exchange.request.transport is not None:
                exchange.request.transport.abort()
        if exchange.request.method != "HEAD":
            exchange.response_bytes = answer.content_length or 0
        return answer

    def _span(self, exchange: Exchange) -> AbstractContextManager[Span]:
        """Return the span of a request, within the trace that its caller named; health is not traced."""
        if not tracing.active() or exchange.path in HEALTH:
            return tracing.NOTHING
        method = exchange.request.method
        attributes = {"http.request.method": method if method in METHODS else "_OTHER", "http.route": exchange.route}
        parent = tracing.incoming(exchange.headers)
        return tracing.span(_metric_name(exchange), attributes, kind=SpanKind.SERVER, parent=parent)

    def _own_path(self, path: str) -> str:
        """Return a path without the prefix and without the doubled slash that Weaviate's module sends."""
        path = _SLASHES.sub("/", path)
        prefix = self._settings.path_prefix
        # A prefix such as /v1 must not hide paths that exist without it.
        if prefix and path.startswith(f"{prefix}/") and self._endpoint.name_path(path) == OTHER:
            return path.removeprefix(prefix)
        return path

    def _too_many(self) -> str:
        return f"{self._bounds.max_requests} requests are in flight, which is the bound; try again later"

    def _admit(self, exchange: Exchange) -> None:
        if exchange.head_bytes > self._bounds.max_header_bytes:
            raise head_too_large(self._bounds.max_header_bytes)
        if exchange.request.method == "CONNECT":
            raise invalid_http("CONNECT is not supported")
        if exchange.request.method == "POST" and (fault := self._origins.foreign(exchange)) is not None:
            raise fault
        switches = self._authenticator.settings
        path, route = exchange.path, exchange.route
        open_here = path in self._endpoint.open_paths or (
            switches.open_health if path in HEALTH else path == METRICS and switches.open_metrics
        )
        if not open_here:
            account = self._authenticator.admit(exchange.headers.get("authorization"))
            if route != OTHER:
                authorize_route(account.client, route, exchange.method)
        if path not in UNBOUNDED and self.in_flight > self._bounds.max_requests:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "OVERLOADED",
                self._too_many(),
                headers={"retry-after": "1"},
            )
        if route == OTHER:
            raise path_not_found()


def _metric_name(exchange: Exchange) -> str:
    """Return a request's name in the metrics: one name for all requests without a route."""
    known = exchange.request.method in METHODS and exchange.route != OTHER
    return exchange.method if known else OTHER
