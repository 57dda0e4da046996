"""Imports in chunks: bounded in count and bytes, a few in flight, one outcome for each object, in order.

What fails for a transient reason is retried, whole chunks and single objects. This is also the source of
the blocking import: `make protos` writes importing.py from it.
"""

from asyncio import sleep
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import grpc

from vecgate.client.chunks import Chunk, ChunkBounds, Chunks
from vecgate.client.errors import Unreachable, VecgateError, error_from_rpc
from vecgate.client.values import ImportOutcome, Object, outcome_from_pb
from vecgate.v1 import object_service_pb2 as pb

LEAST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0


class AsyncCall(Awaitable[pb.ImportObjectsResponse], Protocol):
    """A call in flight."""

    def cancel(self) -> object:
        """Cancel the call."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How long to retry what fails for a transient reason.

    Attributes:
        seconds: from a chunk's first failure; 0 turns retries off.
        clock: a monotonic clock, in seconds.
        sleep: waits for some seconds.
    """

    seconds: float
    clock: Callable[[], float] = monotonic
    sleep: Callable[[float], Awaitable[None]] = sleep


async def import_in_chunks(
    send: Callable[[list[pb.DataObject]], AsyncCall],
    objects: AsyncIterable[Object],
    bounds: ChunkBounds,
    *,
    in_flight: int = 4,
    retries: Retries,
) -> AsyncGenerator[ImportOutcome, None]:
    """Send objects in chunks and yield their outcomes in order; read no further ahead than the chunks in flight.

    Args:
        send: starts the call for one chunk.
        objects: what to import.
        bounds: how large a chunk may grow.
        in_flight: calls at the same time, so that the embedder has the next one while others travel or are written.
        retries: how long to retry what fails for a transient reason.

    Raises:
        VecgateError: a whole call failed. Objects of the calls in flight may be stored or not; import them again.
    """
    sent: deque[tuple[Chunk, AsyncCall | None]] = deque()
    try:
        async for chunk in _chunks(objects, bounds):
            sent.append((chunk, send(chunk.objects) if chunk.objects else None))
            if len(sent) >= in_flight:
                for outcome in await _collect(sent.popleft(), send, retries):
                    yield outcome
        while sent:
            for outcome in await _collect(sent.popleft(), send, retries):
                yield outcome
    finally:
        for _, call in sent:
            if call is not None:
                call.cancel()


async def _chunks(objects: AsyncIterable[Object], bounds: ChunkBounds) -> AsyncIterator[Chunk]:
    chunks = Chunks(bounds)
    async for value in objects:
        full = chunks.add(value)
        if full is not None:
            yield full
    if len(chunks.open):
        yield chunks.open


async def _collect(
    sent: tuple[Chunk, AsyncCall | None], send: Callable[[list[pb.DataObject]], AsyncCall], retries: Retries
) -> Iterator[ImportOutcome]:
    chunk, call = sent
    answers: dict[int, ImportOutcome] = {}
    waiting = list(range(len(chunk.objects)))
    since: float | None = None
    wait_s = LEAST_WAIT_S
    while call is not None:
        failure: VecgateError | None = None
        objects = [chunk.objects[at] for at in waiting]
        try:
            results = await _results(call, objects, send)
        except VecgateError as error:
            if not _is_transient(error):
                raise
            failure = error
        else:
            answers.update(zip(waiting, results, strict=True))
            waiting = [at for at in waiting if (why := answers[at].error) is not None and _is_transient(why)]
            if not waiting:
                break
        since = retries.clock() if since is None else since
        asked_s = (failure or answers[waiting[0]].error or VecgateError(grpc.StatusCode.UNKNOWN, "")).retry_after_s
        pause_s = min(max(asked_s or 0, wait_s), LONGEST_WAIT_S)
        if retries.clock() + pause_s - since > retries.seconds:
            # Once the objects have outcomes, those that are left keep theirs, and none is lost.
            if failure is not None and not answers:
                raise failure
            break
        await retries.sleep(pause_s)
        wait_s *= 2
        call = send([chunk.objects[at] for at in waiting])
    return chunk.outcomes(answers[at] for at in range(len(chunk.objects)))


async def _results(
    call: AsyncCall, objects: list[pb.DataObject], send: Callable[[list[pb.DataObject]], AsyncCall]
) -> list[ImportOutcome]:
    """Return the outcomes of a call; where the server refused it for its objects, each is sent alone, and fails alone.

    Raises:
        VecgateError: it failed as a whole, or one of those sent alone failed for a reason that is not transient.
    """
    try:
        return await _answers(call, len(objects))
    except VecgateError as error:
        if not _is_about_objects(error):
            raise
        if len(objects) == 1:
            return [ImportOutcome(objects[0].id, error)]
    outcomes: list[ImportOutcome] = []
    while left := objects[len(outcomes) :]:
        try:
            outcomes += await _results(send(left[:1]), left[:1], send)
        except VecgateError as error:
            if not _is_transient(error):
                raise
            # The objects before it have their outcomes; those after it would only wait, too.
            outcomes += [ImportOutcome(each.id, error) for each in left]
    return outcomes


async def _answers(call: AsyncCall, count: int) -> list[ImportOutcome]:
    """Return what the server answered to a call.

    Raises:
        VecgateError: it failed as a whole.
    """
    try:
        response = await call
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error
    if len(response.results) != count:
        raise VecgateError(
            grpc.StatusCode.INTERNAL, f"the server answered {len(response.results)} results for {count} objects"
        )
    return [outcome_from_pb(each) for each in response.results]


def _is_about_objects(error: VecgateError) -> bool:
    """Return whether the server refused a call for what its objects have, one of them or all together."""
    return bool(error.violations) and all(each.field.startswith("objects") for each in error.violations)


def _is_transient(error: VecgateError) -> bool:
    """Return whether a retry may help: the server says so, or did not answer."""
    return error.retry_after_s is not None or isinstance(error, Unreachable)
