"""Failover: when one of several equal backends fails, or exceeds its share of the time, the next one is asked."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from embedders.contract import EmbedOptions, Input, Outcome, Priority, WatchedEmbedder
from embedders.errors import CredentialRejected, EmbedderError, EmbedderUnavailable, InputRejected
from embedders.front.breaker import Watched
from embedders.telemetry.metrics import FAILOVERS
from embedders.telemetry.timing import call_times, sooner

Backend = TypeVar("Backend", bound=Watched)
T = TypeVar("T")
Embed = Callable[[WatchedEmbedder, Sequence[Input], EmbedOptions], Awaitable[list[Outcome]]]


async def embed_with_first(
    embedders: Sequence[WatchedEmbedder], inputs: Sequence[Input], options: EmbedOptions, *, embed: Embed
) -> tuple[WatchedEmbedder, list[Outcome]]:
    """Embed inputs with the first embedder that works, and return it with the outcomes; see ask_first.

    Args:
        embedders: of one space, in order of preference; at least one.
        inputs: what to embed.
        options: how to.
        embed: calls one embedder.

    Raises:
        EmbedderError: all failed; this is the first error.
    """
    return await ask_first(
        embedders,
        lambda embedder: embed(embedder, inputs, options),
        own_key=options.api_key is not None,
        shared=options.priority is not Priority.BULK,
    )


async def ask_first(
    backends: Sequence[Backend],
    ask: Callable[[Backend], Awaitable[T]],
    *,
    own_key: bool,
    shared: bool = True,
    tell_last: bool = False,
) -> tuple[Backend, T]:
    """Ask the first backend that works, and return it with its answer.

    Working backends share the rest of an interactive call's time equally, so that one that hangs leaves time for the
    next. Bulk calls wait for as long as their deadline allows.

    If a backend rejects the caller's own key or input, no other one is asked: the caller must hear of it.

    Args:
        backends: that can stand in for each other, in order of preference; at least one.
        ask: calls one of them.
        own_key: whether the caller's own key is sent.
        shared: whether they share the time.
        tell_last: whether the last one, too, is told of a call that is given up. A caller that can do without an answer
            gives up early, and a backend that never answers in time must not cost each caller that time.

    Raises:
        EmbedderError: all failed; this is the first error.
    """
    if len(backends) == 1 and not tell_last:
        return backends[0], await ask(backends[0])
    first: EmbedderError | None = None
    for at, backend in enumerate(backends):
        others = backends[at + 1 :]
        working = sum(other.health.fault is None for other in others)
        try:
            if not working and not tell_last:
                return backend, await ask(backend)
            share_s = _share_s(working) if shared and working else math.inf
            return backend, await _ask_within(share_s, backend, ask(backend), own_key=own_key)
        except EmbedderError as error:
            if isinstance(error, InputRejected) or (isinstance(error, CredentialRejected) and own_key):
                raise
            # Its traceback would keep this frame, and so the inputs, alive until the garbage collector runs.
            first = first or error.with_traceback(None)
            if others:
                FAILOVERS.labels(backend.spec.name, others[0].spec.name).inc()
    assert first is not None
    raise first


def _share_s(others: int) -> float:
    """Return how many seconds a backend may take while `others` working ones are left."""
    times = call_times()
    return math.inf if times is None else (times.deadline_s - time.monotonic()) / (others + 1)


async def _ask_within(share_s: float, backend: Watched, answer: Awaitable[T], *, own_key: bool) -> T:
    """Await an answer for so long; tell the backend if it is given up, then or earlier by the caller."""
    began_s = time.monotonic()
    try:
        with sooner(began_s + share_s):
            async with asyncio.timeout(None if share_s == math.inf else share_s):
                return await answer
    except (TimeoutError, asyncio.CancelledError) as error:
        if not own_key:
            backend.note_silence(began_s)
        if isinstance(error, asyncio.CancelledError):
            raise
        fault = f"{backend.spec.name} did not answer within {share_s:.1f} s, its share of the call's time"
        raise EmbedderUnavailable(fault) from error
