"""Health and reflection, which gRPC defines: what they answer, and who may call them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_status import rpc_status

from service.access import Authenticator
from service.core.embedder_pool import EmbedderPool
from service.error_table import to_status
from service.errors import Overloaded, ServiceError
from service.store.base import Store

ADMIN = "vecgate.v1.AdminService"
EMBEDDING = "vecgate.v1.EmbeddingService"
COLLECTION = "vecgate.v1.CollectionService"
OBJECT = "vecgate.v1.ObjectService"
SEARCH = "vecgate.v1.SearchService"
EVALUATION = "vecgate.v1.EvaluationService"
SERVICES = (ADMIN, EMBEDDING, COLLECTION, OBJECT, SEARCH, EVALUATION)
LIVENESS = "liveness"
"""The process answers, whatever state Weaviate and the embedders are in, because a restart would repair neither."""

MAX_NAME_LENGTH = 1024
"""Of a service that a caller watches: the server keeps the name as long as the watch lasts."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

REFLECTION_V1ALPHA = reflection.SERVICE_NAME
REFLECTION_V1 = REFLECTION_V1ALPHA.replace("v1alpha", "v1")
REFLECTION_METHOD = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods[0].name
MAX_REFLECTION_BYTES = 16 * 1024
POOL = descriptor_pool.Default()

AUTHORIZATION = "authorization"
OURS = "/vecgate."
HEALTH_METHODS = (f"/{health.SERVICE_NAME}/",)
REFLECTION_METHODS = (f"/{REFLECTION_V1}/", f"/{REFLECTION_V1ALPHA}/")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# Generic in the stubs only, not in grpc itself.
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["MethodHandler | None"]]
Stream = Callable[[Any, Context], AsyncIterator[Any]]


class _HealthServicer(health_aio.HealthServicer):  # type: ignore[misc]  # untyped
    """Limits the watches, which never end on their own.

    Args:
        max_watches: the most at the same time.
    """

    def __init__(self, max_watches: int) -> None:
        super().__init__()
        self._max_watches = max_watches
        self._watches = 0

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Send the health now and whenever it changes."""
        if len(request.service) > MAX_NAME_LENGTH:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service has so long a name")
        if self._watches >= self._max_watches:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._max_watches} callers watch the health, which is the most; call Check instead, or raise "
                "VECGATE_SERVER__MAX_CALLS",
            )
        self._watches += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches -= 1


class HealthReporter:
    """Publishes the health: of each of our services by its name, of all of them together by "", and of the process.

    An embedder has a name, too: that of EmbeddingService, a slash, and its own. The name of a NIM with several
    addresses serves while any of them does.

    Args:
        store: CollectionService, ObjectService and SearchService need it.
        embedders: EmbeddingService, ObjectService and SearchService need at least one of them.
        max_watches: the most callers that may watch at the same time.
        interval_s: seconds between updates.
    """

    def __init__(self, store: Store, embedders: EmbedderPool, *, max_watches: int, interval_s: float = 0.25) -> None:
        self.servicer = _HealthServicer(max_watches)
        self._store = store
        self._embedders = embedders
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Publish now, and go on in the background."""
        await self.servicer.set(LIVENESS, SERVING)
        await self._publish()
        self._task = asyncio.create_task(self._publish_forever(), name="health-reports")

    async def drain(self) -> None:
        """Report NOT_SERVING for everything but the process itself from now on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        # The servicer's own graceful shutdown would report the process as dead while it finishes its calls.
        for name in (*SERVICES, "", *self._embedder_names()):
            await self.servicer.set(name, NOT_SERVING)

    async def _publish_forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._publish()

    async def _publish(self) -> None:
        store, embedder = self._store.available, self._embedders.working
        serving = {ADMIN: True, EMBEDDING: embedder, COLLECTION: store}
        for name in (*SERVICES, ""):
            works = serving.get(name, store and embedder)
            await self.servicer.set(name, SERVING if works else NOT_SERVING)
        for name, works in self._embedder_names().items():
            await self.servicer.set(name, SERVING if works else NOT_SERVING)

    def _embedder_names(self) -> dict[str, bool]:
        """Return whether each embedder works, by the name that its health has."""
        names = [each.spec.name for each in self._embedders.all]
        return {f"{EMBEDDING}/{name}": self._embedders.works(name) for name in names}


def add_reflection(names: tuple[str, ...], server: grpc.aio.Server) -> None:
    """Add gRPC reflection, v1 and v1alpha, which differ in their names only.

    Args:
        names: the services to list, beside reflection itself.
        server: a server that has not started.
    """
    _register_v1()
    servicer = reflection.aio.ReflectionServicer((*names, REFLECTION_V1, REFLECTION_V1ALPHA), pool=_Pool())
    # The package ships v1alpha only. A message of v1 has the same bytes.
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (REFLECTION_V1, REFLECTION_V1ALPHA):
        handlers = grpc.method_handlers_generic_handler(name, {REFLECTION_METHOD: handler})
        server.add_generic_rpc_handlers((handlers,))


class _Pool:
    """protobuf's own pool, which finds files by methods, too: the protocol asks for `<package>.<service>.<method>`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(POOL, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        try:
            return POOL.FindFileContainingSymbol(symbol)
        except KeyError:
            return POOL.FindMethodByName(symbol).containing_service.file


def _register_v1() -> None:
    """Make the description of v1 from that of v1alpha, unless the pool has it."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    try:
        POOL.FindFileByName(file.name)
    except KeyError:
        POOL.AddSerializedFile(file.SerializeToString())


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Checks who calls health and reflection, and how many use reflection at the same time.

    Calls of vecgate.v1 pass: CallInterceptor checks them.

    Args:
        authenticator: knows the clients, and which services are open to everybody.
        max_streams: the most streams of reflection at the same time, which never end on their own.
    """

    def __init__(self, authenticator: Authenticator, max_streams: int) -> None:
        self._authenticator = authenticator
        auth = authenticator.settings
        self._open = (
            OURS,
            *(HEALTH_METHODS if auth.open_health else ()),
            *(REFLECTION_METHODS if auth.open_reflection else ()),
        )
        self._max_streams = max_streams
        self._streams = 0

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "MethodHandler | None":
        """Return the handler of a call, after the check; None if there is no such method."""
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
                raise Overloaded(f"{self._max_streams} streams are open, which is the most: try again later")
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
                    # A response repeats its request.
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
    """Return the authorization that a call carries, or None unless it carries exactly one."""
    found = [value for key, value in metadata or () if key == AUTHORIZATION]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None


def _refusing(handler: "MethodHandler", error: ServiceError) -> "MethodHandler":
    """Return a handler that refuses a call without reading its request."""
    status = rpc_status.to_status(to_status(error, ""))

    async def refuse(requests: Any, context: Context) -> NoReturn:
        del requests
        await context.abort_with_status(status)
        raise AssertionError("abort_with_status raises")

    make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    return make(cast("Any", refuse))
