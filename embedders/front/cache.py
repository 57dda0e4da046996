"""Not embedding the same thing twice: vectors by content, in memory, and one pass for inputs that come together."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cachetools

from embedders.contract import (
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    Outcome,
    Purpose,
    WatchedEmbedder,
)
from embedders.errors import EmbedderOverloaded, EmbedderRateLimited
from embedders.front.queueing import input_bytes
from embedders.front.wrapper import WatchedWrapper
from embedders.telemetry.metrics import CACHE_BYTES, CACHE_LOOKUPS

ENTRY_OVERHEAD_BYTES = 500
"""What an entry takes beside its vector: key, objects and the table's own (measured with tracemalloc)."""

HASH_IN_THREAD_BYTES = 1024 * 1024
"""Bytes of inputs above which hashing them leaves the event loop."""

Key = tuple[str, Purpose, bytes]
"""Space, purpose, and the digest of the content. Models of one role ignore the purpose; the cache cannot know."""


class VectorCache:
    """Embeddings by space, purpose and content, the least recently used ones dropped. All embedders may share one."""

    def __init__(self, max_bytes: int) -> None:
        """Make one that holds vectors of about `max_bytes`; 0 holds none."""
        self._entries: cachetools.LRUCache[Key, Embedding] = cachetools.LRUCache(max_bytes, getsizeof=_entry_bytes)

    def get(self, key: Key) -> Embedding | None:
        """Return an embedding, or None."""
        return self._entries.get(key)

    def put(self, key: Key, embedding: Embedding) -> None:
        """Keep an embedding, unless it is larger than the whole cache."""
        if _entry_bytes(embedding) <= self._entries.maxsize:
            # A row of a batch would keep the whole batch in memory; and whoever gets it may not change it for others.
            vector = embedding.vector.copy()
            vector.flags.writeable = False
            self._entries[key] = replace(embedding, vector=vector)
            CACHE_BYTES.set(self._entries.currsize)


@dataclass(eq=False, slots=True)
class _Flight:
    """Inputs that are being embedded, for whoever waits for one of them."""

    task: asyncio.Task[dict[Key, Outcome]]
    inputs: set[tuple[EmbedOptions, Key]]
    waiters: set[asyncio.Task[object] | None] = field(default_factory=set)


class CachingEmbedder(WatchedWrapper):
    """Looks inputs up before it embeds them; what another call is embedding is waited for.

    Calls with a caller's own key pass: what one key paid for is nobody else's. So do those that want fresh vectors.
    """

    def __init__(self, inner: WatchedEmbedder, cache: VectorCache) -> None:
        """Wrap `inner`, whose life this embedder takes over."""
        super().__init__(inner)
        self._cache = cache
        self._flights: dict[tuple[EmbedOptions, Key], _Flight] = {}

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed the inputs that are not known yet.

        Raises:
            EmbedderError: as the inner embedder.
        """
        if options.api_key is not None or options.fresh or not inputs:
            return await self._inner.embed(inputs, options)
        spec = self.spec
        keys = await _keys(spec.space, inputs, options.purpose)
        outcomes: dict[Key, Outcome] = {}
        missing: dict[Key, Input] = {}
        joined: set[_Flight] = set()
        me = asyncio.current_task()
        for key, each in zip(keys, inputs, strict=True):
            if key in outcomes or key in missing:
                continue
            if (known := self._cache.get(key)) is not None:
                outcomes[key] = known
            elif (flight := self._flights.get((options, key))) is not None:
                joined.add(flight)
                flight.waiters.add(me)  # from now on: its first caller may go while this one's own inputs are embedded
            else:
                missing[key] = each
        _count(spec.name, len(outcomes), len(missing), len(keys))
        try:
            if missing:
                outcomes |= await self._wait_for(self._take_off(missing, options))
            for flight in joined:
                try:
                    outcomes |= await self._wait_for(flight)
                except (EmbedderOverloaded, EmbedderRateLimited):
                    # Another call had no room or no time to wait; this one may.
                    own = {key: each for key, each in zip(keys, inputs, strict=True) if (options, key) in flight.inputs}
                    outcomes |= await self._wait_for(self._take_off(own, options))
        finally:
            for flight in joined:
                self._leave(flight, me)
        return [outcomes[key] for key in keys]

    def _take_off(self, missing: dict[Key, Input], options: EmbedOptions) -> _Flight:
        async def fly() -> dict[Key, Outcome]:
            found = dict(zip(missing, await self._inner.embed(list(missing.values()), options), strict=True))
            for key, outcome in found.items():
                if isinstance(outcome, Embedding):
                    self._cache.put(key, outcome)
                    outcome.vector.flags.writeable = False  # several callers may get it
            return found

        flight = _Flight(asyncio.create_task(fly()), {(options, key) for key in missing})
        flight.task.add_done_callback(lambda _: self._land(flight))
        self._flights |= dict.fromkeys(flight.inputs, flight)
        return flight

    def _land(self, flight: _Flight) -> None:
        """Let nobody join a flight any more."""
        for each in flight.inputs:
            if self._flights.get(each) is flight:
                del self._flights[each]

    async def _wait_for(self, flight: _Flight) -> dict[Key, Outcome]:
        """Return a flight's outcomes."""
        me = asyncio.current_task()
        flight.waiters.add(me)
        try:
            return await asyncio.shield(flight.task)
        finally:
            self._leave(flight, me)

    def _leave(self, flight: _Flight, waiter: asyncio.Task[object] | None) -> None:
        """Wait no more; the last one who waits for a flight takes it along when it goes."""
        flight.waiters.discard(waiter)
        if not flight.waiters and not flight.task.done():
            self._land(flight)
            flight.task.cancel()


async def _keys(space: str, inputs: Sequence[Input], purpose: Purpose) -> list[Key]:
    def keys() -> list[Key]:
        return [(space, purpose, _digest(each)) for each in inputs]

    large = sum(map(input_bytes, inputs)) > HASH_IN_THREAD_BYTES
    return await asyncio.to_thread(keys) if large else keys()


def _count(embedder: str, hits: int, misses: int, looked_up: int) -> None:
    for result, number in (("hit", hits), ("miss", misses), ("joined", looked_up - hits - misses)):
        if number:
            CACHE_LOOKUPS.labels(embedder, result).inc(number)


def _digest(each: Input) -> bytes:
    if isinstance(each, ImageInput):
        return hashlib.sha256(b"image:" + each.content).digest()
    kind = b"cut:" if each.truncate else b"text:"
    return hashlib.sha256(kind + each.text.encode("utf-8", "surrogatepass")).digest()


def _entry_bytes(embedding: Embedding) -> int:
    return embedding.vector.nbytes + ENTRY_OVERHEAD_BYTES
