"""gRPC reflection, v1 and v1alpha, which differ by their names alone."""

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1ALPHA = reflection.SERVICE_NAME
V1 = V1ALPHA.replace("v1alpha", "v1")
METHOD = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods[0].name
REFLECTION_NAMES = (V1, V1ALPHA)
"""The full names of both services."""

POOL = descriptor_pool.Default()


def add_reflection(names: tuple[str, ...], server: grpc.aio.Server) -> None:
    """Let callers of a server ask for its services by these names, and for everything that their messages are made of.

    Args:
        names: of the services to list, beside reflection itself.
        server: a server that has not started.
    """
    _know_v1()
    servicer = reflection.aio.ReflectionServicer((*names, *REFLECTION_NAMES), pool=_Pool())
    # The package ships v1alpha only. A message of v1 has the same bytes.
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, {METHOD: handler}) for name in REFLECTION_NAMES)
    )


class _Pool:
    """protobuf's own pool, which finds files by methods, too: the protocol asks for `<package>.<service>.<method>`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(POOL, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        try:
            return POOL.FindFileContainingSymbol(symbol)
        except KeyError:
            return POOL.FindMethodByName(symbol).containing_service.file


def _know_v1() -> None:
    """Make the description of v1 from that of v1alpha, unless the pool has it."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    try:
        POOL.FindFileByName(file.name)
    except KeyError:
        POOL.AddSerializedFile(file.SerializeToString())
