"""Who may use health and reflection, and how many may reflect at the same time; our own calls have their rules."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from grpc_health.v1 import health
from grpc_status import rpc_status

from service.access import Authenticator
from service.error_table import to_status
from service.errors import Overloaded, ServiceError
from service.rpc.server.reflection import REFLECTION_NAMES

AUTHORIZATION = "authorization"
OURS = "/vecgate."
HEALTH = (f"/{health.SERVICE_NAME}/",)
MAX_REFLECTION_BYTES = 16 * 1024
REFLECTION = tuple(f"/{name}/" for name in REFLECTION_NAMES)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["MethodHandler | None"]]
Stream = Callable[[Any, Context], AsyncIterator[Any]]


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls of health and reflection pass whose client may make them.

    Args:
        authenticator: knows the clients, and what is open to everybody.
        max_streams: streams of reflection at the same time, which never end by themselves.
    """

    def __init__(self, authenticator: Authenticator, max_streams: int) -> None:
        self._authenticator = authenticator
        switches = ((HEALTH, authenticator.settings.open_health), (REFLECTION, authenticator.settings.open_reflection))
        self._open = (OURS, *(prefix for prefixes, is_open in switches if is_open for prefix in prefixes))
        self._max_streams = max_streams
        self._streams = 0

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "MethodHandler | None":
        """Return the handler of a call, behind the check; None if there is no such method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OURS):
            return handler
        try:
            if not (self._authenticator.open or method.startswith(self._open)):
                self._authenticator.identify(authorization_in(handler_call_details.invocation_metadata))
            if not handler.request_streaming:
                return handler
            if self._streams >= self._max_streams:
                raise Overloaded(f"{self._max_streams} streams are open, and no more may be: try again later")
        except ServiceError as error:
            return _refusing(handler, error)
        return self._counted(handler)

    def _counted(self, handler: "MethodHandler") -> "MethodHandler":
        inner = cast("Stream", handler.stream_stream)
        parse = handler.request_deserializer
        assert parse is not None

        async def parsed(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            async for content in requests:
                if len(content) > MAX_REFLECTION_BYTES:
                    # An answer repeats what was asked.
                    message = f"a request has at most {MAX_REFLECTION_BYTES} bytes here; ask for one name"
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
                yield parse(content)

        async def stream(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            self._streams += 1
            try:
                async for answer in inner(parsed(requests, context), context):
                    yield answer
            finally:
                self._streams -= 1

        return grpc.stream_stream_rpc_method_handler(
            cast("Any", stream), response_serializer=handler.response_serializer
        )


def authorization_in(metadata: Any) -> str | None:
    """Return the metadata of that name, or None where it is not there once."""
    found = [value for key, value in metadata or () if key == AUTHORIZATION]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None


def _refusing(handler: "MethodHandler", error: ServiceError) -> "MethodHandler":
    """Return what refuses a call without reading what it sends."""
    status = rpc_status.to_status(to_status(error, ""))

    async def refuse(requests: Any, context: Context) -> NoReturn:
        del requests
        await context.abort_with_status(status)
        raise AssertionError("abort_with_status raises")

    make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    return make(cast("Any", refuse))
