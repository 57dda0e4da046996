"""ObjectService: objects, and what became of their vectors."""

from typing import Any

from google.protobuf import struct_pb2
from google.rpc import status_pb2

from service.convert.embedding import vector_to_pb
from service.core.conformance import DraftObject
from service.core.vectorizing import VectorOrigin, VectorReport
from service.domain import StoredObject
from vecgate.v1 import object_service_pb2 as object_pb

__all__ = ["draft_from_pb", "object_to_pb", "report_to_pb"]

ORIGINS = {origin: object_pb.VectorOrigin.Value(f"VECTOR_ORIGIN_{origin.name}") for origin in VectorOrigin}


def draft_from_pb(message: object_pb.Object) -> DraftObject:
    """Return an object as sent."""
    return DraftObject(
        message.id,
        {name: _value_from_pb(value) for name, value in message.properties.fields.items()},
        {name: image.content for name, image in message.images.items()},
        {name: vector.data for name, vector in message.vectors.items()},
    )


def _value_from_pb(value: struct_pb2.Value) -> Any:
    """Return a value as JSON has it; json_format refuses NaN, which is for the check of properties to name."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return {name: _value_from_pb(each) for name, each in value.struct_value.fields.items()}
        case "list_value":
            return [_value_from_pb(each) for each in value.list_value.values]
        case None | "null_value":
            return None
        case kind:
            return getattr(value, kind)


def object_to_pb(each: StoredObject) -> object_pb.Object:
    """Return an object."""
    message = object_pb.Object(id=str(each.id))
    message.properties.update({name: value for name, value in each.properties.items() if value is not None})
    for name, content in each.images.items():
        message.images[name].content = content
    for name, vector in each.vectors.items():
        message.vectors[name].CopyFrom(vector_to_pb(vector))
    return message


def report_to_pb(report: VectorReport, error: status_pb2.Status | None) -> object_pb.StoredVector:
    """Return where a named vector came from; `error` is the report's own as a status."""
    return object_pb.StoredVector(
        name=report.name,
        origin=ORIGINS[report.origin],
        embedder=report.embedder,
        truncated=report.truncated,
        error=error,
    )
