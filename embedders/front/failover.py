"""Failover: the next embedder of the same space is asked when one fails, or exceeds its share of the caller's time."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence

from embedders.contract import EmbedOptions, Input, Outcome, Priority, WatchedEmbedder
from embedders.errors import CredentialRejected, EmbedderError, EmbedderUnavailable
from embedders.telemetry.metrics import FAILOVERS
from embedders.telemetry.timing import call_times, sooner

Embed = Callable[[WatchedEmbedder, Sequence[Input], EmbedOptions], Awaitable[list[Outcome]]]


async def embed_with_first(
    embedders: Sequence[WatchedEmbedder], inputs: Sequence[Input], options: EmbedOptions, *, embed: Embed
) -> tuple[WatchedEmbedder, list[Outcome]]:
    """Embed inputs with the first embedder that works, and return it with the outcomes.

    Working embedders share the rest of an interactive call's time equally, so that one that hangs leaves time for the
    next. Bulk calls wait for as long as their deadline allows.

    If the backend rejects the caller's own key, no other embedder is asked: the caller must hear of it.

    Args:
        embedders: of one space, in order of preference; at least one.
        inputs: what to embed.
        options: how to.
        embed: calls one embedder.

    Raises:
        EmbedderError: all failed; this is the first error.
    """
    first: EmbedderError | None = None
    for at, embedder in enumerate(embedders):
        others = embedders[at + 1 :]
        working = sum(other.health.fault is None for other in others)
        try:
            if not working:
                return embedder, await embed(embedder, inputs, options)
            share_s = _share_s(working, options)
            return embedder, await _embed_within(share_s, embedder, options, embed(embedder, inputs, options))
        except EmbedderError as error:
            if isinstance(error, CredentialRejected) and options.api_key is not None:
                raise
            # Its traceback would keep this frame, and so the inputs, alive until the garbage collector runs.
            first = first or error.with_traceback(None)
            if others:
                FAILOVERS.labels(embedder.spec.name, others[0].spec.name).inc()
    assert first is not None
    raise first


def _share_s(others: int, options: EmbedOptions) -> float:
    """Return how many seconds an embedder may take while `others` working ones are left."""
    times = call_times()
    if times is None or options.priority is Priority.BULK:
        return math.inf
    return (times.deadline_s - time.monotonic()) / (others + 1)


async def _embed_within(
    share_s: float, embedder: WatchedEmbedder, options: EmbedOptions, outcomes: Awaitable[list[Outcome]]
) -> list[Outcome]:
    """Await outcomes for so long; tell the embedder if they are given up, then or earlier by the caller."""
    began_s = time.monotonic()
    try:
        with sooner(began_s + share_s):
            async with asyncio.timeout(None if share_s == math.inf else share_s):
                return await outcomes
    except (TimeoutError, asyncio.CancelledError) as error:
        if options.api_key is None:
            embedder.note_silence(began_s)
        if isinstance(error, asyncio.CancelledError):
            raise
        name = embedder.spec.name
        fault = f"{name} did not answer within {share_s:.1f} s, its share of the call's time"
        raise EmbedderUnavailable(fault) from error
