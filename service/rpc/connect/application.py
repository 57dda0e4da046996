"""The methods as an ASGI application that speaks Connect and gRPC-Web, by connectrpc."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import Headers, RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health

from service.error_table import to_status
from service.errors import InvalidRequest, Violation
from service.rpc.connect.call import HttpCall, Request
from service.rpc.connect.errors import connect_error, error_body, protocol_fault, refusal
from service.rpc.connect.json_messages import JsonMessage, JsonMessages
from service.rpc.server.calls import UNBOUNDED_METHODS
from service.rpc.server.methods import Methods
from service.rpc.server.standard_services import (
    HEALTH_METHODS,
    OURS,
    REFLECTION_METHODS,
    REFLECTION_V1,
    REFLECTION_V1ALPHA,
    SERVICES,
)
from service.rpc.shared.bounds import RequestLimits, max_fields

Scope = dict[str, Any]
Event = Mapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Context = RequestContext[Any, Any]

REQUEST_ID = b"x-request-id"
UNKNOWN = "/(unknown)"
"""The path of the endpoint that answers for all methods that do not exist."""

GRPC = "application/grpc"
GRPC_WEB = "application/grpc-web"
START, BODY = "http.response.start", "http.response.body"

NO_METHOD = "this server has no such method"
BARE: dict[int, tuple[Code, str]] = {
    HTTPStatus.METHOD_NOT_ALLOWED: (Code.UNIMPLEMENTED, "use the HTTP method that the header allow names"),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (Code.INVALID_ARGUMENT, ""),
}
"""Statuses that the library sends without a body, with what they mean."""

CONNECT_HEADERS = {
    b"connect-protocol-version": (re.compile(rb"1"), "has to be 1"),
    b"connect-timeout-ms": (re.compile(rb"\d{0,10}"), "has to be a number of milliseconds with at most 10 digits"),
}
GRPC_WEB_HEADERS = {
    b"grpc-timeout": (re.compile(rb"\d{1,8}[HMSmun]"), "has to be at most 8 digits and a unit: H, M, S, m, u or n"),
}
"""What the library reads before a call begins, with what it has to be: the library's own refusals have no details."""

STREAMS = {
    (False, False): StreamType.UNARY,
    (False, True): StreamType.SERVER_STREAM,
    (True, False): StreamType.CLIENT_STREAM,
    (True, True): StreamType.BIDI_STREAM,
}

_current: ContextVar["_Exchange"] = ContextVar("exchange")
"""The request that is being answered: the library's functions are given its own context only."""


class _Binary:
    """protobuf's encoding, which the methods take and return as bytes."""

    def name(self) -> str:
        """Return what content types call it."""
        return "proto"

    def encode(self, message: bytes) -> bytes:
        """Return a response as it is."""
        return message

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> bytes:
        """Return a request as it is."""
        del message_class
        return bytes(data)


class _Json:
    """JSON, which is read when the method asks for it, and written before the library asks, beside the event loop."""

    def name(self) -> str:
        """Return what content types call it."""
        return "json"

    def encode(self, message: bytes) -> bytes:
        """Return a response as it is: in JSON already."""
        return message

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> JsonMessage:
        """Return a request that is read later."""
        return JsonMessage(bytes(data), message_class)


class _Library(ConnectASGIApplication[None]):
    """The library's application. Its own compressions work on the event loop, so it has none."""

    @property
    def path(self) -> str:
        """The prefix of all paths."""
        return ""


class ConnectApplication:
    """Answers calls over HTTP.

    Args:
        methods: of the server.
        max_request_bytes: of one message.
        limits: bounds on requests.
    """

    def __init__(self, methods: Methods, max_request_bytes: int, limits: RequestLimits) -> None:
        self._methods = methods
        self._max_request_bytes = max_request_bytes
        self._json = JsonMessages(max_fields(limits))
        names = (*SERVICES, health.SERVICE_NAME, REFLECTION_V1, REFLECTION_V1ALPHA)
        pool = descriptor_pool.Default()
        found = [method for name in names for method in pool.FindServiceByName(name).methods]
        self._methods_by_path = {f"/{each.containing_service.full_name}/{each.name}": each for each in found}
        endpoints = {path: self._endpoint(each) for path, each in self._methods_by_path.items()}
        endpoints[UNKNOWN] = endpoints[next(iter(self._methods_by_path))]
        self._library = _Library(
            service=None,
            endpoints=lambda _: endpoints,
            interceptors=(_Ending(), _Beginning(self.begin)),
            read_max_bytes=max_request_bytes,
            compressions=(),
            codecs=(_Binary(), _Json()),
        )

    def close(self) -> None:
        """Free what the application holds; no call is in flight."""
        self._json.close()

    def takes(self, path: str) -> bool:
        """Return whether a path is that of a call."""
        return path.startswith((OURS, *HEALTH_METHODS, *REFLECTION_METHODS))

    def name(self, path: str) -> str | None:
        """Return the name of a path in metrics; None for methods that do not exist."""
        return path if path in self._methods_by_path else None

    def is_bounded(self, path: str) -> bool:
        """Return whether calls of a method may be refused because there are too many requests."""
        return path not in UNBOUNDED_METHODS and not self.is_endless(path)

    def is_endless(self, path: str) -> bool:
        """Return whether calls of a method never end on their own."""
        return path.startswith((*HEALTH_METHODS, *REFLECTION_METHODS)) and path not in UNBOUNDED_METHODS

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        refused: Exception | None = None,
        on_call: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer a request.

        Args:
            scope: the request, by ASGI.
            receive: returns the next part of its body.
            send: takes the parts of the response.
            refused: what is wrong with the request before it is looked at, in the table of errors.
            on_call: called when the request becomes a call, which is logged and counted as such.
        """
        exchange = _Exchange(scope, receive, send, self._explain(scope))
        exchange.refused, exchange.on_call = refused, on_call
        if scope["path"] not in self._methods_by_path:
            exchange.is_unknown = True
            exchange.refused = refused or connect_error(protocol_fault(Code.UNIMPLEMENTED, NO_METHOD))
            scope = {**scope, "path": UNKNOWN}
        if faults := _wrong_headers(scope):
            exchange.refused = exchange.refused or InvalidRequest([Violation(*each) for each in faults.items()])
            scope = {**scope, "headers": [each for each in scope["headers"] if each[0].decode() not in faults]}
        token = _current.set(exchange)
        try:
            with self._methods.in_use():
                if _is_grpc(scope):
                    await exchange.send({"type": START, "status": HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "headers": []})
                    await exchange.send({"type": BODY, "body": b""})
                else:
                    await self._library(scope, exchange.receive, exchange.send)
        finally:
            _current.reset(token)
            if exchange.call is not None:
                await exchange.call.close()

    def _explain(self, scope: Scope) -> str:
        """Return what to send instead of a content type that is not taken."""
        if _is_grpc(scope):
            return (
                "gRPC needs HTTP/2, which the port of VECGATE_SERVER__PORT has; here are Connect (application/json, "
                "application/proto) and gRPC-Web (application/grpc-web)"
            )
        method = self._methods_by_path.get(scope["path"])
        if method is not None and (method.server_streaming or method.client_streaming):
            return (
                f"{method.name} is a stream; send application/connect+json, application/connect+proto or "
                "application/grpc-web, with each message in an envelope"
            )
        return "send content-type application/json, application/proto or application/grpc-web"

    def _endpoint(self, method: MethodDescriptor) -> Any:
        answer = GetMessageClass(method.output_type)
        info = _info(method)
        if method.client_streaming:
            return Endpoint.bidi_stream(info, partial(_bidi, answer, self._json))
        if method.server_streaming:
            return Endpoint.server_stream(info, partial(_stream, answer, self._json))
        return Endpoint.unary(info, partial(_unary, answer, self._json))

    async def begin(self, context: Context) -> None:
        """Begin a call, before its request is read.

        Raises:
            ConnectError: it has failed already.
        """
        exchange = _current.get()
        if exchange.refused is not None:
            raise exchange.refused if isinstance(exchange.refused, ConnectError) else refusal(exchange.refused)
        timeout_ms = context.timeout_ms
        path, headers = exchange.scope["path"], tuple(context.request_headers.allitems())
        call = exchange.call = HttpCall(
            path,
            headers,
            context.client_address or "",
            json=self._json,
            max_request_bytes=self._max_request_bytes,
            rpc_system="grpc" if exchange.content_type.startswith(GRPC_WEB) else "connectrpc",
            timeout_s=None if timeout_ms is None else timeout_ms / 1000,
        )
        exchange.on_call()
        handler = await self._methods.find(path, headers)
        assert handler is not None
        await call.start(handler)
        call.on_end(exchange.interrupt)
        _tell(call, context.response_headers)
        call.raise_failure()


class _Exchange:
    """A request and its response, between the server and the library.

    Args:
        scope: the request.
        receive: returns the next part of its body.
        send: takes the parts of the response.
        explanation: what to send instead of a content type that is not taken.

    Attributes:
        call: None until the request has become a call.
        is_unknown: whether the server has no such method.
        in_json: whether the messages of its stream are in JSON.
        refused: what is wrong with the request.
        on_call: called when it becomes a call.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, explanation: str) -> None:
        self.scope = scope
        self.refused: Exception | None = None
        self.on_call: Callable[[], None] = lambda: None
        self.call: HttpCall | None = None
        self.is_unknown = False
        self.content_type = _content_type(scope)
        self.in_json = self.content_type.partition(";")[0].rstrip().endswith("json")
        self._receive = receive
        self._send = send
        self._explanation = explanation
        self._body: bytes | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._interrupted = False

    async def receive(self) -> Event:
        """Return the next part of the body.

        Raises:
            ConnectError: the call has ended meanwhile, as at its deadline.
        """
        if self.call is None or not self.call.asks:
            return await self._receive()
        self._reader = reader = asyncio.current_task()
        assert reader is not None
        cancelling = reader.cancelling()
        try:
            return await self._receive()
        except asyncio.CancelledError:
            # As in asyncio.timeout: somebody else may have cancelled the task, too.
            if self._interrupted and reader.uncancel() <= cancelling:
                self.call.raise_failure()
            raise
        finally:
            self._reader = None

    def interrupt(self) -> None:
        """Stop waiting for a body that nobody needs."""
        if self._reader is not None:
            self._interrupted = True
            self._reader.cancel()

    async def send(self, event: Event) -> None:
        """Pass on a part of the response; give bare errors of the library a body that says what is wrong."""
        if event["type"] == START and (fault := BARE.get(event["status"])):
            code, message = fault
            status, headers = event["status"], event["headers"]
            if self.is_unknown:
                # Whatever it is, there is nothing that it could be sent to.
                status, headers, code, message = HTTPStatus.NOT_FOUND, [], Code.UNIMPLEMENTED, NO_METHOD
            self._body = error_body(code, message or self._explanation)
            event = {**event, "status": status, "headers": [*headers, (b"content-type", b"application/json")]}
        elif event["type"] == BODY and self._body is not None:
            event = {**event, "body": self._body}
        await self._send(event)


class _Beginning:
    """Begins calls before their requests are read.

    Args:
        begin: begins a call.
    """

    def __init__(self, begin: Callable[[Context], Awaitable[None]]) -> None:
        self._begin = begin

    async def on_start(self, context: Context) -> None:
        """Begin a call."""
        await self._begin(context)

    async def on_end(self, token: None, context: Context, error: Exception | None) -> None:
        """Leave the end to _Ending."""


class _Ending:
    """Ends calls whose requests cannot be read. It stands first: some end while _Beginning begins them."""

    async def on_start(self, context: Context) -> None:
        """Leave the beginning to _Beginning."""

    async def on_end(self, token: None, context: Context, error: Exception | None) -> None:
        """End a call that its protocol, its caller or its deadline has ended."""
        del token
        exchange = _current.get()
        call = exchange.call
        if error is not None and call is not None and not call.done():
            await call.fail(error)
            _tell(call, context.response_headers)
            if not _is_late(error):
                call.raise_failure()
        if _is_late(error):
            # The library has seen the deadline before the call's own bound, which is a little earlier, has answered.
            raise connect_error(to_status(TimeoutError(), dict(exchange.scope["headers"])[REQUEST_ID].decode()))


async def _unary(kind: type[Message], json: JsonMessages, request: Request, context: Context) -> bytes:
    call = _call()
    call.give(_one(request))
    try:
        content = await call.answer()
    finally:
        _tell(call, context.response_headers)
    return await json.write(content, kind) if isinstance(request, JsonMessage) else content


async def _stream(kind: type[Message], json: JsonMessages, request: Request, context: Context) -> AsyncIterator[bytes]:
    async for each in _bidi(kind, json, _one(request), context):
        yield each


async def _bidi(
    kind: type[Message], json: JsonMessages, requests: AsyncIterator[Request], context: Context
) -> AsyncIterator[bytes]:
    call, in_json = _call(), _current.get().in_json
    call.give(requests)
    try:
        async for content in call.answers():
            yield await json.write(content, kind) if in_json else content
    finally:
        # The headers have been sent.
        _tell(call, context.response_trailers)
        await call.close()


async def _one(request: Request) -> AsyncIterator[Request]:
    yield request


def _is_late(error: Exception | None) -> bool:
    """Return whether an error is the library's own of a deadline, which has no details."""
    return isinstance(error, ConnectError) and error.code is Code.DEADLINE_EXCEEDED and not error.details


def _call() -> HttpCall:
    call = _current.get().call
    assert call is not None
    return call


def _tell(call: HttpCall, headers: Headers) -> None:
    for name, value in call.trailing_metadata():
        headers[name] = value


def _info(method: MethodDescriptor) -> MethodInfo[Any, Any]:
    streams = (method.client_streaming, method.server_streaming)
    safe = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    return MethodInfo(
        name=method.name,
        service_name=method.containing_service.full_name,
        input=GetMessageClass(method.input_type),
        output=GetMessageClass(method.output_type),
        idempotency_level=IdempotencyLevel.NO_SIDE_EFFECTS if safe else IdempotencyLevel.UNKNOWN,
        stream_type=STREAMS[streams],
    )


def _content_type(scope: Scope) -> str:
    found = (value for name, value in scope["headers"] if name == b"content-type")
    return cast("bytes", next(found, b"")).decode("latin-1").strip().lower()


def _wrong_headers(scope: Scope) -> dict[str, str]:
    """Return the names of the protocol's headers that are wrong, with what they have to be."""
    read = GRPC_WEB_HEADERS if _content_type(scope).startswith(GRPC_WEB) else CONNECT_HEADERS
    rules = ((name, value, *read[name]) for name, value in scope["headers"] if name in read)
    return {name.decode(): rule for name, value, pattern, rule in rules if not pattern.fullmatch(value)}


def _is_grpc(scope: Scope) -> bool:
    kind = _content_type(scope)
    return kind.startswith(GRPC) and not kind.startswith(GRPC_WEB)
