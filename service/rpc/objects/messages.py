"""ObjectService: objects, and what became of their vectors."""

from typing import Any

from google.protobuf import struct_pb2
from google.rpc import status_pb2

from service.core.objects.checks import DraftObject
from service.core.objects.vectorizing import VectorOrigin, VectorReport
from service.domain import StoredObject
from service.errors import Violation
from service.rpc.embedding import vector_to_pb
from service.rpc.shared.bounds import MAX_OBJECT_IMAGES, MAX_OBJECT_VALUES, MAX_OBJECT_VECTORS, MAX_PROPERTIES_BYTES
from vecgate.v1 import object_service_pb2 as object_pb

ORIGINS = {origin: object_pb.VectorOrigin.Value(f"VECTOR_ORIGIN_{origin.name}") for origin in VectorOrigin}


class _TooMany(Exception):
    """An object has more values than it may have."""


def draft_from_pb(message: object_pb.DataObject) -> DraftObject:
    """Return an object as sent; what it has too much of is left out, and named in its faults."""
    size, properties, images, vectors = message.properties.ByteSize(), {}, {}, {}
    values, faults = _Values(), []
    if size > MAX_PROPERTIES_BYTES:
        fault = f"have {size} bytes; those of an object have at most {MAX_PROPERTIES_BYTES}: send long texts apart"
        faults.append(Violation("properties", fault, "INVALID_PROPERTY"))
    else:
        try:
            properties = values.of_struct(message.properties)
        except _TooMany:
            fault = f"have more than {MAX_OBJECT_VALUES} values, those in lists and objects, too; use several objects"
            faults.append(Violation("properties", fault, "INVALID_PROPERTY"))
    if (count := len(message.images)) > MAX_OBJECT_IMAGES:
        fault = f"has {count} pictures; an object has at most {MAX_OBJECT_IMAGES}"
        faults.append(Violation("images", fault, "INVALID_PROPERTY"))
    else:
        images = {name: image.content for name, image in message.images.items()}
    if (count := len(message.vectors)) > MAX_OBJECT_VECTORS:
        fault = f"has {count} vectors; an object has at most {MAX_OBJECT_VECTORS}"
        faults.append(Violation("vectors", fault, "INVALID_VECTOR"))
    else:
        vectors = {name: vector.data for name, vector in message.vectors.items()}
    return DraftObject(message.id, properties, images, vectors, values.count, faults)


class _Values:
    """Takes the values of an object as JSON has them.

    json_format refuses NaN, which is for the check of properties to name.

    Attributes:
        count: those taken.
    """

    def __init__(self) -> None:
        self.count = 0

    def of_struct(self, struct: struct_pb2.Struct) -> dict[str, Any]:
        """Return an object.

        Raises:
            _TooMany: there are more values than an object may have.
        """
        self._take(len(struct.fields))
        return {name: self._of_value(each) for name, each in struct.fields.items()}

    def _of_value(self, value: struct_pb2.Value) -> Any:
        match value.WhichOneof("kind"):
            case "struct_value":
                return self.of_struct(value.struct_value)
            case "list_value":
                self._take(len(value.list_value.values))
                return [self._of_value(each) for each in value.list_value.values]
            case None | "null_value":
                return None
            case kind:
                return getattr(value, kind)

    def _take(self, count: int) -> None:
        self.count += count
        if self.count > MAX_OBJECT_VALUES:
            raise _TooMany


def object_to_pb(each: StoredObject) -> object_pb.DataObject:
    """Return an object."""
    message = object_pb.DataObject(id=str(each.id))
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
