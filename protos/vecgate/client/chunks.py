"""The chunks of an import: what fits into one call, and what cannot be sent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

import grpc
from google.protobuf import struct_pb2

from vecgate.client.errors import VecgateError
from vecgate.client.values import ImportOutcome, Object, object_to_pb
from vecgate.v1 import object_service_pb2 as pb

# The tag and length of an object in its request.
FRAME_BYTES = 16


@dataclass(frozen=True, slots=True)
class ChunkBounds:
    """How large a chunk may grow.

    Attributes:
        max_objects: objects in a chunk.
        target_bytes: a chunk grows over this only if it has a single object.
        max_bytes: an object over this does not fit in any request.
        max_values: values of properties in a chunk, those in lists and objects included; also the limit of one object.
    """

    max_objects: int
    target_bytes: int
    max_bytes: int
    max_values: int


@dataclass(slots=True)
class Chunk:
    """Objects to send, and the outcomes of those that cannot be sent, by position in the chunk."""

    objects: list[pb.DataObject] = field(default_factory=list)
    refused: dict[int, ImportOutcome] = field(default_factory=dict)
    bytes: int = 0
    values: int = 0

    def __len__(self) -> int:
        return len(self.objects) + len(self.refused)

    def outcomes(self, answers: Iterable[ImportOutcome]) -> Iterator[ImportOutcome]:
        """Yield one outcome for each object, in order."""
        answered = iter(answers)
        for position in range(len(self)):
            yield self.refused.get(position) or next(answered)


class Chunks:
    """Collects objects into chunks."""

    def __init__(self, bounds: ChunkBounds) -> None:
        self._bounds = bounds
        self._seen: set[int] = set()
        self.open = Chunk()

    def add(self, value: Object) -> Chunk | None:
        """Add an object, and return the previous chunk if that is full."""
        message, size, values = _sendable(value, self._bounds, self._seen)
        chunk, full = self.open, None
        over = chunk.bytes + size > self._bounds.target_bytes or chunk.values + values > self._bounds.max_values
        if len(chunk) >= self._bounds.max_objects or (chunk.objects and over):
            full, chunk = chunk, Chunk()
            self.open = chunk
        if isinstance(message, ImportOutcome):
            chunk.refused[len(chunk)] = message
        else:
            chunk.objects.append(message)
            chunk.bytes += size
            chunk.values += values
        return full


def _is_repeated(id_: str, seen: set[int]) -> bool:
    """Return whether an id was seen before; calls in flight would race for its object."""
    try:
        number = UUID(id_).int
    except ValueError:
        # The server gives one or refuses it.
        return False
    repeated = number in seen
    seen.add(number)
    return repeated


def _count(struct: struct_pb2.Struct) -> int:
    """Return the number of values in an object, as the server counts them."""
    return len(struct.fields) + sum(map(_count_within, struct.fields.values()))


def _count_within(value: struct_pb2.Value) -> int:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _count(value.struct_value)
        case "list_value":
            return len(value.list_value.values) + sum(map(_count_within, value.list_value.values))
    return 0


def _sendable(value: Object, bounds: ChunkBounds, seen: set[int]) -> tuple[pb.DataObject | ImportOutcome, int, int]:
    """Return the message of an object, its bytes in a request and its values; or why it cannot be sent, and zeros."""
    try:
        message = object_to_pb(value)
    except (OSError, ValueError) as error:
        return _refused(value, str(error), "INVALID_INPUT")
    size, values = message.ByteSize() + FRAME_BYTES, _count(message.properties)
    if values > bounds.max_values:
        text = (
            f"the object has {values} values, and one request carries at most {bounds.max_values}; use several objects"
        )
        return _refused(value, text, "INVALID_PROPERTY")
    if size > bounds.max_bytes:
        text = (
            f"the object has {size} bytes, and one request carries at most {bounds.max_bytes}; make its images smaller"
        )
        return _refused(value, text, "INVALID_INPUT")
    if _is_repeated(message.id, seen):
        text = "id: is already the id of an earlier object of this import; give each object its own id"
        return _refused(value, text, "DUPLICATE_ID")
    return message, size, values


def _refused(value: Object, text: str, reason: str) -> tuple[ImportOutcome, int, int]:
    return ImportOutcome(value.id, VecgateError(grpc.StatusCode.INVALID_ARGUMENT, text, reason=reason)), 0, 0
