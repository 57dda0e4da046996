"""The cache: vectors by content, in memory, and a single flight for equal inputs that are embedded at the same time."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cachetools

from embedders.base import WatchedWrapper
from embedders.contract import (
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    Outcome,
    Purpose,
    TextImageInput,
    WatchedEmbedder,
)
from embedders.errors import EmbedderOverloaded, EmbedderRateLimited
from embedders.front.queueing import input_bytes
from embedders.telemetry.metrics import CACHE_BYTES, CACHE_LOOKUPS

ENTRY_OVERHEAD_BYTES = 500
"""Bytes of an entry beside its vector: the key, the objects and the table (measured with tracemalloc)."""

HASH_IN_THREAD_BYTES = 1024 * 1024
"""Inputs of more bytes are hashed in a thread."""

Key = tuple[str, Purpose, bytes]
"""Space, purpose, and the digest of the content. The purpose counts even if the model ignores it."""


class VectorCache:
    """Embeddings by space, purpose and content; the least recently used are dropped. Embedders may share one."""

    def __init__(self, max_bytes: int) -> None:
        """Make one that holds about `max_bytes`; 0 holds nothing."""
        self._entries: cachetools.LRUCache[Key, Embedding] = cachetools.LRUCache(max_bytes, getsizeof=_entry_bytes)

    def get(self, key: Key) -> Embedding | None:
        """Return an embedding, or None."""
        return self._entries.get(key)

    def put(self, key: Key, embedding: Embedding) -> None:
        """Store an embedding, unless it is larger than the whole cache."""
        if _entry_bytes(embedding) <= self._entries.maxsize:
            # A row would keep its whole batch in memory; and no caller may change what others get.
            vector = embedding.vector.copy()
            vector.flags.writeable = False
            self._entries[key] = replace(embedding, vector=vector)
            CACHE_BYTES.set(self._entries.currsize)


@dataclass(eq=False, slots=True)
class _Call:
    """A call to the inner embedder, shared by all who wait for one of its inputs: each has a future for its end."""

    task: asyncio.Task[dict[Key, Outcome]]
    inputs: set[tuple[EmbedOptions, Key]]
    waiters: set[asyncio.Future[None]] = field(default_factory=set)

    def join(self) -> asyncio.Future[None]:
        """Wait for it from now on, until the future is given to CachingEmbedder._leave."""
        waiter: asyncio.Future[None] = self.task.get_loop().create_future()
        self.waiters.add(waiter)
        return waiter


class CachingEmbedder(WatchedWrapper):
    """Looks inputs up before it embeds them, and waits for equal inputs that are in flight already.

    Calls with a caller's own key pass by: what one key paid for is not for others. So do calls that ask for fresh
    vectors.
    """

    def __init__(self, inner: WatchedEmbedder, cache: VectorCache) -> None:
        """Wrap `inner`, whose life this embedder takes over."""
        super().__init__(inner)
        self._cache = cache
        self._in_flight: dict[tuple[EmbedOptions, Key], _Call] = {}

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed the inputs that are neither cached nor in flight.

        Raises:
            EmbedderError: as the inner embedder.
        """
        spec = self.specified_by.spec
        # Until the model is learnt, the space may be unknown, by which vectors are stored.
        if options.api_key is not None or options.fresh or not inputs or not spec.learnt:
            return await self._inner.embed(inputs, options)
        keys = await _keys(spec.space, inputs, options.purpose)
        outcomes: dict[Key, Outcome] = {}
        missing: dict[Key, Input] = {}
        joined: dict[_Call, asyncio.Future[None]] = {}
        for key, each in zip(keys, inputs, strict=True):
            if key in outcomes or key in missing:
                continue
            if (known := self._cache.get(key)) is not None:
                outcomes[key] = known
            elif (call := self._in_flight.get((options, key))) is not None:
                # At once: its first caller may leave while this one's own inputs are embedded.
                joined[call] = joined.get(call) or call.join()
            else:
                missing[key] = each
        _count(spec.name, len(outcomes), len(missing), len(keys))
        try:
            if missing:
                outcomes |= await self._embed(missing, options)
            for call, end in joined.items():
                try:
                    await end
                    outcomes |= call.task.result()
                except (EmbedderOverloaded, EmbedderRateLimited):
                    # The other caller had no room or no time to wait; this one may have.
                    own = {key: each for key, each in zip(keys, inputs, strict=True) if (options, key) in call.inputs}
                    outcomes |= await self._embed(own, options)
        finally:
            for call, end in joined.items():
                self._leave(call, end)
        return [outcomes[key] for key in keys]

    async def _embed(self, missing: dict[Key, Input], options: EmbedOptions) -> dict[Key, Outcome]:
        """Embed inputs by a call that others may join."""
        call = self._start_call(missing, options)
        end = call.join()
        try:
            await end
            return call.task.result()
        finally:
            self._leave(call, end)

    def _start_call(self, missing: dict[Key, Input], options: EmbedOptions) -> _Call:
        async def embed() -> dict[Key, Outcome]:
            found = dict(zip(missing, await self._inner.embed(list(missing.values()), options), strict=True))
            for key, outcome in found.items():
                if isinstance(outcome, Embedding):
                    self._cache.put(key, outcome)
                    outcome.vector.flags.writeable = False  # several callers may get it
            return found

        call = _Call(asyncio.create_task(embed()), {(options, key) for key in missing})
        call.task.add_done_callback(lambda _: self._end(call))
        self._in_flight |= dict.fromkeys(call.inputs, call)
        return call

    def _forget(self, call: _Call) -> None:
        """Let no further caller join a call."""
        for each in call.inputs:
            if self._in_flight.get(each) is call:
                del self._in_flight[each]

    def _end(self, call: _Call) -> None:
        """Wake all who wait for a call."""
        self._forget(call)
        for waiter in call.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _leave(self, call: _Call, waiter: asyncio.Future[None]) -> None:
        """Stop waiting for a call; it is cancelled once no caller is left."""
        call.waiters.discard(waiter)
        if not call.waiters and not call.task.done():
            self._forget(call)
            call.task.cancel()


async def _keys(space: str, inputs: Sequence[Input], purpose: Purpose) -> list[Key]:
    def keys() -> list[Key]:
        return [(space, purpose, _digest(each)) for each in inputs]

    size = sum(map(input_bytes, inputs))
    return await asyncio.to_thread(keys) if size > HASH_IN_THREAD_BYTES else keys()


def _count(embedder: str, hits: int, misses: int, looked_up: int) -> None:
    for result, number in (("hit", hits), ("miss", misses), ("joined", looked_up - hits - misses)):
        if number:
            CACHE_LOOKUPS.labels(embedder, result).inc(number)


def _digest(each: Input) -> bytes:
    if isinstance(each, ImageInput):
        return hashlib.sha256(b"image:" + each.content).digest()
    kind = (b"cut at start:" if each.at_start else b"cut:") if each.truncate else b"text:"
    digest = hashlib.sha256(kind + each.text.encode("utf-8", "surrogatepass"))
    if isinstance(each, TextImageInput):
        digest = hashlib.sha256(b"both:" + digest.digest() + each.content)
    return digest.digest()


def _entry_bytes(embedding: Embedding) -> int:
    return embedding.vector.nbytes + ENTRY_OVERHEAD_BYTES
