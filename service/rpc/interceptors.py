"""Around every call of ours: a request id, one line in the access log, the deadline, and the table of errors.

Our calls that answer in a stream write to their context and return nothing. Other streaming calls (health watches,
reflection) pass untouched.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn, TypeAlias, cast
from uuid import uuid4

import grpc
import structlog
from grpc_status import rpc_status
from opentelemetry.trace import Span, SpanKind

from embedders import tracing
from embedders.timing import begin_times, note_deadline
from service.errors import Overloaded
from service.metrics import IN_FLIGHT, calling_client, note_call
from service.observability import milliseconds
from service.status import log_failure, to_status

__all__ = ["REQUEST_ID_KEY", "AccessLogInterceptor", "ErrorInterceptor"]

log = structlog.get_logger(__name__)

REQUEST_ID_KEY = "x-request-id"
MAX_REQUEST_ID_LENGTH = 128
OURS = "/vecgate."
FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that make a server's span one that failed, by OpenTelemetry's conventions."""

QUIET_METHODS = frozenset({"/grpc.health.v1.Health/Check"})

Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]
# Generic in the stubs only, not in grpc itself.
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["MethodHandler | None"]]


class _Interceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of calls with one request."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "MethodHandler | None":
        """Return the handler of a call, wrapped if it is ours; None if there is no such method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or handler.request_streaming:
            return handler
        if handler.response_streaming:
            if not method.startswith(OURS):
                return handler
            return grpc.unary_stream_rpc_method_handler(
                self.wrap(cast("Handler", handler.unary_stream), method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self.wrap(cast("Handler", handler.unary_unary), handler_call_details.method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def wrap(self, inner: Handler, method: str) -> Handler:
        """Return a handler around another one."""
        raise NotImplementedError


class AccessLogInterceptor(_Interceptor):
    """Gives each call a request id, the caller's own if it sent one, and writes one line when the call ends.

    Attributes:
        idle: set while no call is in flight.
    """

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._in_flight = 0

    def wrap(self, inner: Handler, method: str) -> Handler:
        """Return a handler around another one."""

        async def handler(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            request_id = _request_id(context)
            times = begin_times()
            context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
            started = time.perf_counter()
            response = None
            answered = False
            self._in_flight += 1
            IN_FLIGHT.inc()
            self.idle.clear()
            with (
                _span(method, context) as span,
                structlog.contextvars.bound_contextvars(request_id=request_id, **tracing.trace_names(span)),
            ):
                try:
                    response = await inner(request, context)
                    answered = True
                    return response
                finally:
                    self._in_flight -= 1
                    IN_FLIGHT.dec()
                    if not self._in_flight:
                        self.idle.set()
                    took_s = time.perf_counter() - started
                    code = _code_name(context, answered=answered)
                    note_call(method, code, calling_client(), took_s)
                    span.set_attribute("rpc.response.status_code", code)
                    if code in FAULTS:
                        tracing.fail(span, code)
                    if method not in QUIET_METHODS:
                        log.info(
                            "call",
                            method=method,
                            code=code,
                            **milliseconds(took_s, times),
                            request_bytes=request.ByteSize(),
                            response_bytes=0 if response is None else response.ByteSize(),
                            peer=context.peer(),
                        )

        return handler


class ErrorInterceptor(_Interceptor):
    """Ends calls in time, and turns what they raise into statuses.

    Args:
        max_call_s: seconds that a call may take when its caller sets no nearer deadline.
        max_calls: calls at the same time; those of health do not count.
    """

    def __init__(self, max_call_s: float, max_calls: int) -> None:
        self._max_call_s = max_call_s
        self._max_calls = max_calls
        self._calls = 0

    def wrap(self, inner: Handler, method: str) -> Handler:
        """Return a handler around another one."""

        async def handler(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            counts = method not in QUIET_METHODS
            self._calls += counts
            try:
                self._check_number(counted=counts)
                left_s = self._time_left(context)
                note_deadline(left_s)
                async with asyncio.timeout(left_s):
                    return await inner(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets a status
                await self._abort(error, method, context)
            finally:
                self._calls -= counts

        return handler

    def _check_number(self, *, counted: bool) -> None:
        if counted and self._calls > self._max_calls:
            raise Overloaded(f"{self._max_calls} calls are being answered, and no more may be: try again later")

    def _time_left(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        """Return the seconds that a call has, a little less than its caller gives so that the answer can reach it."""
        remaining = cast("float | None", context.time_remaining())
        if remaining is None:
            return self._max_call_s
        return min(self._max_call_s, remaining - min(0.05, remaining * 0.1))

    async def _abort(self, error: Exception, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        log_failure(error, method)
        await context.abort_with_status(rpc_status.to_status(to_status(error, request_id)))
        raise AssertionError("abort_with_status raises")


def _span(method: str, context: grpc.aio.ServicerContext[Any, Any]) -> AbstractContextManager[Span]:
    """Return what makes a span of a call, within the trace that its caller named; health is not traced."""
    if not tracing.active() or method in QUIET_METHODS:
        return tracing.NOTHING
    name = method.removeprefix("/")
    carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
    return tracing.span(name, attributes, kind=SpanKind.SERVER, parent=tracing.incoming(carrier))


def _request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and 0 < len(value) <= MAX_REQUEST_ID_LENGTH:
            return str(value)
    return uuid4().hex


def _code_name(context: grpc.aio.ServicerContext[Any, Any], *, answered: bool) -> str:
    if answered:
        return "OK"
    code: Any = context.code()  # grpc.aio gives back what was set, and 0 before
    if isinstance(code, int):
        code = next((each for each in grpc.StatusCode if each.value[0] == code), grpc.StatusCode.UNKNOWN)
    if code is None or code is grpc.StatusCode.OK:
        # Nothing was answered and nothing raised: the caller went away, or its deadline passed first.
        remaining = cast("float | None", context.time_remaining())
        return "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"
    return str(code.name)
