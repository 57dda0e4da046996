"""Import in chunks: bounded by count and bytes, a few in flight, one outcome for each object, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from vecgate.client.errors import VecgateError, error_from_rpc
from vecgate.client.values import ImportOutcome, Object, object_to_pb, outcome_from_pb
from vecgate.v1 import object_service_pb2 as pb

__all__ = ["ChunkBounds", "import_in_chunks"]

# Tag and length before an object in its request.
FRAME_BYTES = 16


class Call(Protocol):
    """A call in flight."""

    def result(self) -> pb.ImportObjectsResponse:
        """Wait for the answer."""
        ...

    def cancel(self) -> object:
        """Give the call up."""
        ...


@dataclass(frozen=True, slots=True)
class ChunkBounds:
    """How large a chunk may grow.

    Attributes:
        max_objects: objects in a chunk.
        target_bytes: a chunk ends before it grows over this, unless a single object does.
        max_bytes: an object over this does not fit in any request.
    """

    max_objects: int
    target_bytes: int
    max_bytes: int


@dataclass(slots=True)
class _Chunk:
    """Objects to send, and outcomes by position in the chunk of those that cannot be sent."""

    objects: list[pb.Object] = field(default_factory=list)
    refused: dict[int, ImportOutcome] = field(default_factory=dict)
    bytes: int = 0

    def __len__(self) -> int:
        return len(self.objects) + len(self.refused)

    def outcomes(self, response: pb.ImportObjectsResponse | None) -> Iterator[ImportOutcome]:
        """Yield one outcome for each object, in order."""
        results = list(response.results) if response is not None else []
        if len(results) != len(self.objects):
            raise VecgateError(
                grpc.StatusCode.INTERNAL, f"the server answered {len(results)} results for {len(self.objects)} objects"
            )
        answered = iter(results)
        for position in range(len(self)):
            yield self.refused.get(position) or outcome_from_pb(next(answered))


def import_in_chunks(
    send: Callable[[list[pb.Object]], Call], objects: Iterable[Object], bounds: ChunkBounds, *, in_flight: int = 2
) -> Iterator[ImportOutcome]:
    """Send objects in chunks and yield their outcomes in order; read no further ahead than the chunks in flight.

    Args:
        send: starts the call for one chunk.
        objects: what to import.
        bounds: how large a chunk may grow.
        in_flight: calls at the same time: one to be embedded while the other travels or is written.

    Raises:
        VecgateError: a whole call failed. Objects of the calls in flight may be stored or not; sending again is safe.
    """
    sent: deque[tuple[_Chunk, Call | None]] = deque()
    try:
        for chunk in _chunks(objects, bounds):
            sent.append((chunk, send(chunk.objects) if chunk.objects else None))
            if len(sent) >= in_flight:
                yield from _collect(sent.popleft())
        while sent:
            yield from _collect(sent.popleft())
    finally:
        for _, call in sent:
            if call is not None:
                call.cancel()


def _collect(sent: tuple[_Chunk, Call | None]) -> Iterator[ImportOutcome]:
    chunk, call = sent
    try:
        response = call.result() if call is not None else None
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error
    return chunk.outcomes(response)


def _chunks(objects: Iterable[Object], bounds: ChunkBounds) -> Iterator[_Chunk]:
    chunk = _Chunk()
    for value in objects:
        message = _sendable(value, bounds)
        size = 0 if isinstance(message, ImportOutcome) else message.ByteSize() + FRAME_BYTES
        if len(chunk) >= bounds.max_objects or (chunk.objects and chunk.bytes + size > bounds.target_bytes):
            yield chunk
            chunk = _Chunk()
        if isinstance(message, ImportOutcome):
            chunk.refused[len(chunk)] = message
        else:
            chunk.objects.append(message)
            chunk.bytes += size
    if len(chunk):
        yield chunk


def _sendable(value: Object, bounds: ChunkBounds) -> pb.Object | ImportOutcome:
    """Return the message of an object, or why it cannot be sent."""
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    try:
        message = object_to_pb(value)
    except ValueError as error:
        return ImportOutcome(value.id, VecgateError(invalid, str(error), reason="INVALID_INPUT"))
    size = message.ByteSize() + FRAME_BYTES
    if size > bounds.max_bytes:
        text = (
            f"the object has {size} bytes, and one request carries at most {bounds.max_bytes}; make its images smaller"
        )
        return ImportOutcome(value.id, VecgateError(invalid, text, reason="INVALID_INPUT"))
    return message
