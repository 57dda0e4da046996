"""Import in chunks: bounded by count and bytes, a few in flight, one outcome for each object, in order.

What fails for a passing reason is sent again, chunks as a whole and objects by themselves.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import grpc

from vecgate.client.errors import Unreachable, VecgateError, error_from_rpc
from vecgate.client.values import ImportOutcome, Object, object_to_pb, outcome_from_pb
from vecgate.v1 import object_service_pb2 as pb

# Tag and length before an object in its request.
FRAME_BYTES = 16
LEAST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0


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
        max_values: the same of the values of properties, those in lists and objects, too.
    """

    max_objects: int
    target_bytes: int
    max_bytes: int
    max_values: int


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on with what fails for a passing reason.

    Attributes:
        seconds: from a chunk's first failure on; 0 for not at all.
        clock: seconds that only grow.
        sleep: waits.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(slots=True)
class _Chunk:
    """Objects to send, and outcomes by position in the chunk of those that cannot be sent."""

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


def import_in_chunks(
    send: Callable[[list[pb.DataObject]], Call],
    objects: Iterable[Object],
    bounds: ChunkBounds,
    *,
    in_flight: int = 2,
    patience: Patience,
) -> Iterator[ImportOutcome]:
    """Send objects in chunks and yield their outcomes in order; read no further ahead than the chunks in flight.

    Args:
        send: starts the call for one chunk.
        objects: what to import.
        bounds: how large a chunk may grow.
        in_flight: calls at the same time: one to be embedded while the other travels or is written.
        patience: how long to send again what fails for a passing reason.

    Raises:
        VecgateError: a whole call failed. Objects of the calls in flight may be stored or not; sending again is safe.
    """
    sent: deque[tuple[_Chunk, Call | None]] = deque()
    try:
        for chunk in _chunks(objects, bounds):
            sent.append((chunk, send(chunk.objects) if chunk.objects else None))
            if len(sent) >= in_flight:
                yield from _collect(sent.popleft(), send, patience)
        while sent:
            yield from _collect(sent.popleft(), send, patience)
    finally:
        for _, call in sent:
            if call is not None:
                call.cancel()


def _collect(
    sent: tuple[_Chunk, Call | None], send: Callable[[list[pb.DataObject]], Call], patience: Patience
) -> Iterator[ImportOutcome]:
    chunk, call = sent
    answers: dict[int, ImportOutcome] = {}
    waiting = list(range(len(chunk.objects)))
    since: float | None = None
    wait_s = LEAST_WAIT_S
    while call is not None:
        failure: VecgateError | None = None
        try:
            results = _results(call, len(waiting))
        except VecgateError as error:
            if not _passes(error):
                raise
            failure = error
        else:
            answers.update(zip(waiting, results, strict=True))
            waiting = [at for at in waiting if (why := answers[at].error) is not None and _passes(why)]
            if not waiting:
                break
        since = patience.clock() if since is None else since
        told_s = (failure or answers[waiting[0]].error or VecgateError(grpc.StatusCode.UNKNOWN, "")).retry_after_s
        pause_s = min(max(told_s or 0, wait_s), LONGEST_WAIT_S)
        if patience.clock() + pause_s - since > patience.seconds:
            if failure is not None:
                raise failure
            break
        patience.sleep(pause_s)
        wait_s *= 2
        call = send([chunk.objects[at] for at in waiting])
    return chunk.outcomes(answers[at] for at in range(len(chunk.objects)))


def _results(call: Call, count: int) -> list[ImportOutcome]:
    """Return the outcomes of a call.

    Raises:
        VecgateError: it failed as a whole.
    """
    try:
        response = call.result()
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error
    if len(response.results) != count:
        raise VecgateError(
            grpc.StatusCode.INTERNAL, f"the server answered {len(response.results)} results for {count} objects"
        )
    return [outcome_from_pb(each) for each in response.results]


def _passes(error: VecgateError) -> bool:
    """Return whether trying again may help: the server says so, or did not answer."""
    return error.retry_after_s is not None or isinstance(error, Unreachable)


def _chunks(objects: Iterable[Object], bounds: ChunkBounds) -> Iterator[_Chunk]:
    chunk = _Chunk()
    seen: set[int] = set()
    for value in objects:
        values = _count(value.properties)
        message = _first_of_its_id(_sendable(value, values, bounds), seen)
        size = 0 if isinstance(message, ImportOutcome) else message.ByteSize() + FRAME_BYTES
        full = chunk.bytes + size > bounds.target_bytes or chunk.values + values > bounds.max_values
        if len(chunk) >= bounds.max_objects or (chunk.objects and full):
            yield chunk
            chunk = _Chunk()
        if isinstance(message, ImportOutcome):
            chunk.refused[len(chunk)] = message
        else:
            chunk.objects.append(message)
            chunk.bytes += size
            chunk.values += values
    if len(chunk):
        yield chunk


def _first_of_its_id(message: pb.DataObject | ImportOutcome, seen: set[int]) -> pb.DataObject | ImportOutcome:
    """Return an object, or why it cannot be sent: its id has been seen. Calls in flight would race for it."""
    if isinstance(message, ImportOutcome) or not message.id:
        return message
    try:
        number = UUID(message.id).int
    except ValueError:
        # For the server to refuse.
        return message
    if number in seen:
        text = "is the id of an earlier object of this import too; give each object of an import its own id"
        return ImportOutcome(
            message.id, VecgateError(grpc.StatusCode.INVALID_ARGUMENT, f"id: {text}", reason="DUPLICATE_ID")
        )
    seen.add(number)
    return message


def _count(value: Any) -> int:
    """Return how many values there are in an object or a list."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return 0
    return len(value) + sum(map(_count, value))


def _sendable(value: Object, values: int, bounds: ChunkBounds) -> pb.DataObject | ImportOutcome:
    """Return the message of an object, or why it cannot be sent."""
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    try:
        message = object_to_pb(value)
    except ValueError as error:
        return ImportOutcome(value.id, VecgateError(invalid, str(error), reason="INVALID_INPUT"))
    size = message.ByteSize() + FRAME_BYTES
    if values > bounds.max_values:
        text = (
            f"the object has {values} values, and one request carries at most {bounds.max_values}; use several objects"
        )
        return ImportOutcome(value.id, VecgateError(invalid, text, reason="INVALID_PROPERTY"))
    if size > bounds.max_bytes:
        text = (
            f"the object has {size} bytes, and one request carries at most {bounds.max_bytes}; make its images smaller"
        )
        return ImportOutcome(value.id, VecgateError(invalid, text, reason="INVALID_INPUT"))
    return message
