"""Who calls, and whether that client may: before a request is read, and again when it is known what it names."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import grpc
from google.protobuf import empty_pb2
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from service.auth.clients import ANYBODY, Client
from service.auth.gate import Gate, note_client
from service.auth.rules import METHODS, Rule
from service.errors import PermissionDenied, ServiceError
from service.rpc.interceptors import Continuation, Handler, MethodHandler
from service.status import to_status

__all__ = ["AccessInterceptor", "check_scope"]

Context = grpc.aio.ServicerContext[Any, Any]


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls of known clients through to what they may do.

    Args:
        gate: knows clients.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._open = {
            service
            for service, is_open in (
                (health.SERVICE_NAME, gate.settings.open_health),
                (reflection.SERVICE_NAME, gate.settings.open_reflection),
            )
            if is_open
        }

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "MethodHandler | None":
        """Return the handler of a call, or one that refuses it; None if there is no such method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix("/")
        if handler is None or not self._gate.closed or method.partition("/")[0] in self._open:
            return handler
        client = ANYBODY
        try:
            client = self._gate.identify(handler_call_details.invocation_metadata or ())
            rule = _rule_of(method)
            if rule is None:
                raise PermissionDenied(client.name, [])
            client.check_permission(rule.any_of)
        except ServiceError as error:
            return _refusing(handler, client, error)
        if handler.request_streaming or handler.response_streaming:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            _admitting(cast("Handler", handler.unary_unary), client, rule),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def check_scope(client: Client, rule: Rule, request: Any) -> None:
    """Refuse a request that names a collection or a tenant that its client may not use.

    Raises:
        CollectionDenied: it may not use the collection.
        TenantDenied: it may not use a tenant.
    """
    if rule.collection:
        for name in _values(request, rule.collection):
            client.check_collection(name)
    tenants = [name for name in _values(request, rule.tenants) if name] if rule.tenants else []
    for name in tenants:
        client.check_tenant(name)
    if rule.all_tenants and not tenants:
        client.check_all_tenants()


def _rule_of(method: str) -> Rule | None:
    # Any known client may ask for health and reflection.
    service = method.partition("/")[0]
    return Rule() if service in (health.SERVICE_NAME, reflection.SERVICE_NAME) else METHODS.get(method)


def _values(message: Any, path: str) -> Iterator[str]:
    """Yield what stands at a path of fields, of which some may be repeated."""
    name, _, rest = path.partition(".")
    found = getattr(message, name)
    for each in [found] if isinstance(found, str) or hasattr(found, "DESCRIPTOR") else found:
        if rest:
            yield from _values(each, rest)
        else:
            yield each


def _admitting(inner: Handler, client: Client, rule: Rule) -> Handler:
    async def handler(request: Any, context: Context) -> Any:
        note_client(client)
        check_scope(client, rule, request)
        return await inner(request, context)

    return handler


def _refusing(handler: "MethodHandler", client: Client, error: ServiceError) -> "MethodHandler":
    """Return a handler of the same kind that refuses, and reads nothing of what a stranger sent."""

    async def refuse(request: Any, context: Context) -> Any:
        del request, context
        note_client(client)
        raise error

    async def refuse_stream(request: Any, context: Context) -> AsyncIterator[Any]:
        del request
        await context.abort_with_status(rpc_status.to_status(to_status(error, "")))
        yield None

    if not handler.request_streaming and not handler.response_streaming:
        return grpc.unary_unary_rpc_method_handler(
            refuse, request_deserializer=_unread, response_serializer=handler.response_serializer
        )
    make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
    return make(refuse_stream, request_deserializer=_unread, response_serializer=handler.response_serializer)


def _unread(data: bytes) -> empty_pb2.Empty:
    del data
    return empty_pb2.Empty()
