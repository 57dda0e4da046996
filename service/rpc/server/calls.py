"""What every call passes: request id, access log, authentication, bounds, deadline, and the table of errors.

A call with one request is served as a call with a stream of requests, and only the first request is read. The reason:
gRPC's own handlers receive the whole request before the server can check whether the caller may send it. On the wire,
both kinds of call are the same. The bytes of a call count until gRPC reports the call as done, after it has sent the
response.

Methods of vecgate.v1 that respond with a stream write to their context and return nothing. Streams of health and
reflection pass unchanged.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from grpc_status import rpc_status
from opentelemetry.trace import Span, SpanKind

from embedders.telemetry import tracing
from embedders.telemetry.timing import CallTimes, begin_times, note_deadline
from service.access import Authenticator, authorize, authorize_method, calling_account, follow_alias
from service.error_table import log_failure, to_status
from service.errors import MessageTooLarge, Overloaded
from service.process.deadlines import Deadlines
from service.process.holding import hold
from service.process.log import log_call, new_request_id
from service.process.metrics import IN_FLIGHT, note_call
from service.process.server_timing import SERVER_TIMING, server_timing
from service.rpc.server.standard_services import OURS, Context, Continuation, MethodHandler, authorization_in
from service.rpc.server.wire import WireCheck, unreadable
from service.rpc.shared.bounds import RequestLimits
from service.settings import ServerSettings

REQUEST_ID_KEY = "x-request-id"
MAX_REQUEST_ID_LENGTH = 128
RULED = "/vecgate.v1."
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Twice the largest request by default: what was stored with a few calls is read with as many."""
MAX_CALLS_BYTES = 512 * 1024 * 1024
"""Bytes that the requests, the fetched images and the responses of all calls may hold before more calls and images are
refused: eight of the largest responses. Requests that are still arriving do not count."""
REQUEST_TIMEOUT_S = 60.0
"""Seconds in which a call's request must arrive."""
READ_IN_THREAD_BYTES = 64 * 1024
READ_IN_THREAD_FIELDS = 4000
"""Requests with more bytes and more fields are checked and parsed in a thread, so that other calls do not wait.
Requests with images and vectors have many bytes but few fields, and do not need the thread."""

FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes with which a server's span counts as failed, by OpenTelemetry's conventions."""

QUIET_METHODS = frozenset({"/grpc.health.v1.Health/Check"})
UNBOUNDED_METHODS = QUIET_METHODS | {"/vecgate.v1.AdminService/GetServerStatus"}
"""Methods that show what is wrong with a server that has too many calls."""

Handler = Callable[[Any, Context], Awaitable[Any]]
Parse = Callable[[bytes], Any]
Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True)
class _Held:
    """How much memory a call uses: the bytes of its request, of what is fetched for it, and of its response."""

    request_bytes: int = 0
    fetched_bytes: int = 0
    response_bytes: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Reader:
    """Checks the bytes of a method's requests and parses them."""

    check: WireCheck
    parse: Parse

    def checked(self, content: bytes) -> bool:
        """Check a request; return False for one whose reading would delay other calls, and which is not checked whole.

        Raises:
            InvalidRequest: it is over a bound, or cannot be parsed.
        """
        if len(content) > READ_IN_THREAD_BYTES:
            return self.check.check_within(content, READ_IN_THREAD_FIELDS)
        self.check.check(content)
        return True

    def read(self, content: bytes) -> Any:
        """Check a request, and return it as a message.

        Raises:
            InvalidRequest: it is over a bound, or cannot be parsed.
        """
        self.check.check(content)
        return self.message(content)

    def message(self, content: bytes) -> Any:
        """Return a checked request as a message.

        Raises:
            InvalidRequest: it cannot be parsed.
        """
        try:
            return self.parse(content)
        except DecodeError:
            raise unreadable() from None


@dataclass(frozen=True, slots=True)
class _Method:
    """What all calls of a method have in common.

    Attributes:
        path: as gRPC has it.
        ruled: its name in the rules of access; a method of another version has no rule and is refused.
        ours: whether it is of our API, and callers must be known.
        bounded: whether its calls count towards the bounds on calls.
        reader: of its requests.
        inner: answers a request.
        write: makes bytes of an answer; None for methods that write their answers to their context.
    """

    path: str
    ruled: str
    ours: bool
    bounded: bool
    reader: _Reader
    inner: Handler
    write: Callable[[Any], bytes] | None


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of methods that take one request.

    Args:
        settings: bounds on calls.
        authenticator: knows who may call the methods of vecgate.v1.
        limits: bounds on requests.
        real_name: returns the name of the collection that an alias stands for, and any other name unchanged.

    Attributes:
        idle: set while no call is in flight.
    """

    def __init__(
        self,
        settings: ServerSettings,
        authenticator: Authenticator,
        limits: RequestLimits,
        real_name: Callable[[str], Awaitable[str]],
    ) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._settings = settings
        self._authenticator = authenticator
        self._limits = limits
        # One thread: Python runs one thread at a time, and each busy thread delays the event loop more.
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="requests")
        self._real_name = real_name
        self._deadlines = Deadlines()
        self._in_flight = 0
        self._bounded = 0
        self._bytes = 0
        self._ours: dict[str, MethodHandler] = {}

    def close(self) -> None:
        """Stop the thread that reads requests; no call is in flight."""
        self._reading.shutdown(wait=False, cancel_futures=True)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "MethodHandler | None":
        """Return the handler of a call, wrapped if it is ours; None if there is no such method."""
        method = handler_call_details.method
        if (known := self._ours.get(method)) is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        if method.startswith(OURS):
            # Handlers of other services depend on the caller: see AccessInterceptor.
            handler = self._ours[method] = self._around(handler, method)
        elif not handler.response_streaming:
            handler = self._around(handler, method)
        return handler

    def _around(self, handler: "MethodHandler", method: str) -> "MethodHandler":
        """Return a handler that receives the one request of a call as a stream, and calls the handler of its method."""
        call = cast("Any", self._wrap(self._method(handler, method)))
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(call, response_serializer=handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(call)

    def _method(self, handler: "MethodHandler", path: str) -> _Method:
        name = path.removeprefix("/").replace("/", ".")
        kind = descriptor_pool.Default().FindMethodByName(name).input_type
        assert handler.request_deserializer is not None
        return _Method(
            path,
            path.removeprefix(RULED),
            ours=path.startswith(OURS),
            bounded=path not in UNBOUNDED_METHODS,
            reader=_Reader(WireCheck(kind, self._limits), handler.request_deserializer),
            inner=cast("Handler", handler.unary_stream if handler.response_streaming else handler.unary_unary),
            write=None if handler.response_streaming else handler.response_serializer,
        )

    def _wrap(self, method: _Method) -> Handler:
        """Return a handler that takes and returns bytes."""

        async def call(requests: AsyncIterator[bytes], context: Context) -> bytes | None:
            del requests  # see _answer
            metadata = context.invocation_metadata() or ()
            request_id = _request_id(metadata)
            times = begin_times()
            context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
            started = time.perf_counter()
            held, answered = _Held(), False
            self._begin(method, held, context)
            with _span(method.path, metadata, getattr(context, "rpc_system", "grpc")) as span:
                # Not unbound later: gRPC runs each call in a task, and so in a context, of its own.
                structlog.contextvars.bind_contextvars(request_id=request_id, **tracing.trace_names(span))
                try:
                    answer = await self._answer(method, context, metadata, held)
                    _tell(context, request_id, times, started)
                    answered = True
                except grpc.aio.AbortError:
                    raise
                except Exception as error:  # noqa: BLE001  # every error becomes a status
                    _tell(context, request_id, times, started)
                    await _abort(error, method.path, context)
                else:
                    return answer
                finally:
                    code = _code_name(context, answered=answered)
                    took_s = time.perf_counter() - started
                    note_call(method.path, code, took_s)
                    _note_span(span, code)
                    if method.path not in QUIET_METHODS:
                        log_call(
                            method.path,
                            code,
                            took_s,
                            times,
                            request_bytes=held.request_bytes,
                            response_bytes=held.response_bytes,
                            peer=context.peer(),
                        )

        return call

    def _begin(self, method: _Method, held: _Held, context: Context) -> None:
        self._in_flight += 1
        self._bounded += method.bounded
        IN_FLIGHT.inc()
        self.idle.clear()

        def end(_: Context) -> None:
            held.ended = True
            self._in_flight -= 1
            self._bounded -= method.bounded
            self._bytes -= held.request_bytes + held.fetched_bytes + held.response_bytes
            IN_FLIGHT.dec()
            if not self._in_flight:
                self.idle.set()

        context.add_done_callback(cast("Any", end))

        def hold_more(size: int) -> None:
            if held.ended:
                # All that it held is given back already.
                return
            if size > 0:
                self._check_bytes()
                calling_account.get().receive(size)
            held.fetched_bytes += size
            self._bytes += size

        hold.set(hold_more)

    async def _answer(self, method: _Method, context: Context, metadata: Metadata, held: _Held) -> bytes | None:
        """Return the response to a call as bytes; None if the method has written it.

        Raises:
            Exception: anything of the table of errors.
        """
        if method.bounded:
            self._check_bounds()
        account = self._authenticator.admit(authorization_in(metadata)) if method.ours else None
        left_s = self._time_left(context)
        note_deadline(left_s)
        with self._deadlines.after(min(left_s, REQUEST_TIMEOUT_S)) as deadline:
            # gRPC's iterator over requests would keep the last request until the garbage collector runs.
            content = await context.read()
            if content is grpc.aio.EOF:
                # gRPC has already refused it with the same code; no client library sends a call without a message.
                raise MessageTooLarge("the request has more bytes than a message may have")
            if left_s > REQUEST_TIMEOUT_S:
                deadline.extend(left_s - REQUEST_TIMEOUT_S)
            if method.bounded:
                # Other calls may have arrived meanwhile.
                self._check_bounds()
            held.request_bytes = len(content)
            self._bytes += held.request_bytes
            if account is not None:
                # Refused requests count, too: the server has received them.
                account.receive(held.request_bytes)
                authorize_method(account.client, method.ruled)
            if method.reader.checked(content):
                request = method.reader.message(content)
            else:
                reading = asyncio.get_running_loop().run_in_executor(self._reading, method.reader.read, content)
                request = await reading
            del content  # the message holds a copy
            if account is not None:
                await follow_alias(account.client, method.ruled, request, self._real_name)
                authorize(account.client, method.ruled, request)
            response = await method.inner(request, context)
        if method.write is None:
            return None
        answer = method.write(response)
        if len(answer) > MAX_RESPONSE_BYTES:
            raise MessageTooLarge(
                f"the response has {len(answer)} bytes, and a message at most {MAX_RESPONSE_BYTES}; ask for fewer "
                "inputs, objects, images or vectors"
            )
        held.response_bytes = len(answer)
        self._bytes += held.response_bytes
        return answer

    def _check_bounds(self) -> None:
        most = self._settings.max_calls
        if self._bounded > most:
            raise Overloaded(f"the server is handling {most} calls, which is the most: try again later")
        self._check_bytes()

    def _check_bytes(self) -> None:
        if self._bytes >= MAX_CALLS_BYTES:
            raise Overloaded(
                f"the calls in progress use {self._bytes} bytes, and the server takes no more at {MAX_CALLS_BYTES}: "
                "try again later"
            )

    def _time_left(self, context: Context) -> float:
        """Return the seconds that a call has: a little less than its deadline, so that the response arrives in time."""
        remaining = cast("float | None", context.time_remaining())
        if remaining is None:
            return self._settings.max_call_s
        return min(self._settings.max_call_s, remaining - min(0.05, remaining * 0.1))


def _tell(context: Context, request_id: str, times: CallTimes, started: float) -> None:
    timing = server_timing(times, time.perf_counter() - started)
    context.set_trailing_metadata(((REQUEST_ID_KEY, request_id), (SERVER_TIMING, timing)))


async def _abort(error: Exception, method: str, context: Context) -> NoReturn:
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    log_failure(error, method)
    await context.abort_with_status(rpc_status.to_status(to_status(error, request_id)))
    raise AssertionError("abort_with_status raises")


def _note_span(span: Span, code: str) -> None:
    if not span.is_recording():
        return
    span.set_attribute("rpc.response.status_code", code)
    if code in FAULTS:
        tracing.fail(span, code)


def _span(method: str, metadata: Metadata, system: str) -> AbstractContextManager[Span]:
    """Return the span of a call, in its caller's trace; health checks have none."""
    if not tracing.active() or method in QUIET_METHODS:
        return tracing.NOTHING
    name = method.removeprefix("/")
    carrier = {key: value for key, value in metadata if isinstance(value, str)}
    attributes = {"rpc.system.name": system, "rpc.method": name}
    return tracing.span(name, attributes, kind=SpanKind.SERVER, parent=tracing.incoming(carrier))


def _request_id(metadata: Metadata) -> str:
    for key, value in metadata:
        if key == REQUEST_ID_KEY and 0 < len(value) <= MAX_REQUEST_ID_LENGTH:
            return str(value)
    return new_request_id()


def _code_name(context: Context, *, answered: bool) -> str:
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
