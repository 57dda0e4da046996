"""Who calls, and whether they may, before a call reaches its servicer."""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.protobuf import empty_pb2
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from service.access import Authenticator, authorize
from service.errors import ServiceError
from service.status import to_status

__all__ = ["AccessInterceptor"]

AUTHORIZATION = "authorization"
OURS = "/vecgate."
RULED = "/vecgate.v1."
HEALTH = f"/{health.SERVICE_NAME}/"
REFLECTION = f"/{reflection.SERVICE_NAME}/"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handler = Callable[[Any, Context], Awaitable[Any]]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["MethodHandler | None"]]


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls pass whose client may make them.

    Our own calls are checked where their errors become statuses, with their requests; those of health and reflection
    by the key alone.

    Args:
        authenticator: knows the clients, and what is open to everybody.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        switches = ((HEALTH, authenticator.settings.open_health), (REFLECTION, authenticator.settings.open_reflection))
        self._open = tuple(prefix for prefix, is_open in switches if is_open)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "MethodHandler | None":
        """Return the handler of a call, behind the check; None if there is no such method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or self._authenticator.open or method.startswith(self._open):
            return handler
        if method.startswith(OURS):
            # A method of another version has no rule yet, and is refused.
            return self._guarded(handler, method.removeprefix(RULED), handler_call_details.invocation_metadata)
        try:
            self._authenticator.identify(_authorization(handler_call_details.invocation_metadata))
        except ServiceError as error:
            return _refusing(handler, error)
        return handler

    def _guarded(self, handler: "MethodHandler", method: str, metadata: Any) -> "MethodHandler":
        # Our streamed calls write to their context and return nothing, so both kinds are awaited.
        inner = cast("Handler", handler.unary_stream if handler.response_streaming else handler.unary_unary)
        make = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
        # Before the request is read: what a stranger sends is not worth the parsing.
        try:
            account = self._authenticator.admit(_authorization(metadata))
        except ServiceError as error:
            return make(_raising(error), _unread, handler.response_serializer)

        async def admitted(request: Any, context: Context) -> Any:
            # What is refused has come in, too.
            account.receive(request.ByteSize())
            authorize(account.client, method, request)
            return await inner(request, context)

        return make(admitted, handler.request_deserializer, handler.response_serializer)


def _authorization(metadata: Any) -> str | None:
    """Return the metadata of that name, or None where it is not there once."""
    found = [value for key, value in metadata or () if key == AUTHORIZATION]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None


def _refusing(handler: "MethodHandler", error: ServiceError) -> "MethodHandler":
    status = rpc_status.to_status(to_status(error, ""))

    async def refuse(request: Any, context: Context) -> NoReturn:
        del request
        await context.abort_with_status(status)
        raise AssertionError("abort_with_status raises")

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[bool(handler.request_streaming), bool(handler.response_streaming)]
    return make(refuse, _unread, handler.response_serializer)


def _raising(error: ServiceError) -> Handler:
    async def refuse(request: Any, context: Context) -> NoReturn:
        del request, context
        raise error

    return refuse


def _unread(data: bytes) -> empty_pb2.Empty:
    del data
    return empty_pb2.Empty()
