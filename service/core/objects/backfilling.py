"""Backfilling: objects get the named vectors that they lack, and lost index entries are entered again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import structlog

from embedders.contract import EmbedOptions
from embedders.errors import EmbedderError
from service.access import calling_account
from service.core.embedder_pool import EmbedderPool
from service.core.objects.vectorizing import (
    BULK_DOCUMENTS,
    Candidate,
    Vectorizer,
    VectorOrigin,
    check_bound,
    vector_fields,
)
from service.core.objects.writing import PARALLEL, IndexEntries, Mending, Writes, all_of, find_moved, keys_of
from service.core.pictures import NO_PICTURES, Pictures
from service.domain import (
    Collection,
    NamedVector,
    ObjectChange,
    ReturnFields,
    Scope,
    SearchOptions,
    SearchSpec,
    StoredObject,
    unknown_vector,
)
from service.errors import InvalidRequest, ObjectNotFound, ServiceError, StoreRejected, StoreUnavailable
from service.store.base import NO_TENANT, Store

log = structlog.get_logger(__name__)

ATTEMPTS = 3
"""How often vectors are made for an object that changes meanwhile."""

Failures = dict[UUID, ServiceError | EmbedderError]


@dataclass(frozen=True, slots=True)
class BackfillWishes:
    """What to fill.

    Attributes:
        vectors: named vectors; empty means all that are bound to a space.
        after: the object after which to begin; None to begin with the first.
        verify: whether to look for vectors that the index has lost.
        truncate: whether texts may be cut to what the model reads.
    """

    vectors: tuple[str, ...] = ()
    after: UUID | None = None
    verify: bool = False
    truncate: bool = False


@dataclass(slots=True)
class BackfillProgress:
    """The result of a page of objects.

    Attributes:
        last: the last of them, after which the next page begins.
        seen: how many they are.
        filled: how many got a vector.
        repaired: how many got an index entry.
        failures: why others did not, by id.
    """

    last: UUID
    seen: int
    filled: int = 0
    repaired: int = 0
    failures: Failures = field(default_factory=dict)


class Backfiller:
    """Fills in vectors that are missing, and changes nothing else.

    Args:
        store: where the objects are.
        embedders: what makes their vectors.
        writes: runs the writes of this process.
        page_size: objects that are read at a time.
        pictures: fetches images of which only the URI is stored.
    """

    def __init__(
        self,
        store: Store,
        embedders: EmbedderPool,
        writes: Writes,
        *,
        page_size: int,
        pictures: Pictures = NO_PICTURES,
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._vectorizer = Vectorizer(embedders, pictures)
        self._page_size = page_size
        self._entries = IndexEntries(store)
        self._writes = writes
        self._room = asyncio.Semaphore(PARALLEL)

    async def run(
        self, name: str, wishes: BackfillWishes, scope: Scope = NO_TENANT, api_key: str | None = None
    ) -> AsyncIterator[BackfillProgress]:
        """Go through a collection by id, and yield the result of each page of objects.

        Args:
            name: the collection.
            wishes: what to fill.
            scope: whose objects, and how many replicas must answer.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            InvalidRequest: a missing or superfluous tenant, an unknown named vector.
            CollectionNotBound: a named vector is bound to no space.
            SpaceMismatch: all named vectors to compute are bound to spaces that no embedder has.
            EmbedderError: the embedders of all spaces failed.
            StoreUnavailable: the store failed.
        """
        collection, computed = await self._look(name, wishes)
        name = collection.name
        options = replace(BULK_DOCUMENTS, api_key=api_key)
        last = wishes.after
        while True:
            # Waits until the quota has recovered, so that other calls of the client have to wait for one page at most.
            await asyncio.sleep(calling_account.get().retry_after_s())
            fields = ReturnFields(vectors=[each.name for each in collection.vectors])
            spec = SearchSpec(limit=self._page_size, fields=fields, options=SearchOptions(after=last), scope=scope)
            hits = await self._store.search(name, spec)
            if not hits:
                return
            page = [hit.object for hit in hits]
            last = page[-1].id
            progress = BackfillProgress(last, len(page))
            lacking = [each.id for each in page if any(vector.name not in each.vectors for vector in computed)]
            filling = replace(collection, vectors=computed)
            await self._fill(filling, lacking, options, progress, scope, truncate=wishes.truncate)
            if wishes.verify:
                for vector in collection.vectors:
                    await self._repair(name, vector, page, progress, scope)
            yield progress
            # A page takes long, and the reader may take longer; the collection may be another one by now.
            collection, computed = await self._look(name, wishes)

    async def _look(self, name: str, wishes: BackfillWishes) -> tuple[Collection, tuple[NamedVector, ...]]:
        """Return a collection with the named vectors of the wishes, and those of them to compute; see run."""
        found = self._embedders.resolve(await self._store.get_collection(name))
        collection = _targets(found, wishes.vectors)
        check_bound(collection)
        return collection, self._computable(collection, named=bool(wishes.vectors))

    def _computable(self, collection: Collection, *, named: bool) -> tuple[NamedVector, ...]:
        """Return the named vectors that have fields, and unless they are named only those of this server's spaces.

        A collection that was moved to another model keeps the named vector of the old one.
        """
        computed = tuple(each for each in collection.vectors if each.image_fields or each.text_fields)
        served = tuple(each for each in computed if each.space and self._embedders.of_space(each.space.id))
        return computed if named else served or computed

    async def _fill(
        self,
        collection: Collection,
        ids: Sequence[UUID],
        options: EmbedOptions,
        progress: BackfillProgress,
        scope: Scope,
        *,
        truncate: bool,
    ) -> None:
        """Give objects the vectors that they lack, and try again where an object has changed meanwhile."""
        for _ in range(ATTEMPTS):
            candidates = await read_candidates(self._store, collection.name, ids, vector_fields(collection), scope)
            if not candidates:
                return
            read = {each.object.id: each.object for each in candidates}
            await self._vectorizer.fill(collection, candidates, options, truncate=truncate, stored={}, used={})
            written = await all_of(
                self._write(collection, read[each.object.id], each, progress, scope) for each in candidates
            )
            ids = [each.object.id for each, current in zip(candidates, written, strict=True) if not current]
        busy = StoreUnavailable("the object changed while its vectors were made; try again later")
        progress.failures.update(dict.fromkeys(ids, busy))

    async def _write(
        self,
        collection: Collection,
        read: StoredObject,
        candidate: Candidate,
        progress: BackfillProgress,
        scope: Scope,
    ) -> bool:
        """Write the vectors that were made of an object; return False if it has changed since it was read."""
        id_ = read.id
        progress.failures.pop(id_, None)
        errors = [report.error for report in candidate.reports if report.error is not None]
        if candidate.error is not None or errors:
            progress.failures[id_] = candidate.error or errors[0]
        made = {each.name for each in candidate.reports if each.origin is VectorOrigin.COMPUTED}
        vectors = {each: vector for each, vector in candidate.object.vectors.items() if each in made}
        if not vectors or candidate.error is not None:
            return True

        async def write() -> bool | StoreUnavailable:
            _, moved = await find_moved(self._store, self._embedders, collection, vectors)
            if moved:
                # Returned, because a write that raises counts as one that may have stored something.
                return next(iter(moved.values()))
            # Weaviate has no conditional writes; reading right before the write leaves the least time for a change.
            now = await self._store.get_object(collection.name, id_, vector_fields(collection), scope)
            if _differs(now, read):
                return False
            await self._store.update_object(collection.name, ObjectChange(id_, vectors=vectors), scope)
            return True

        try:
            async with self._room:
                current = await self._writes.run(keys_of(collection.name, scope, [id_]), write)
        except ObjectNotFound:
            log.debug("backfill_object_gone", collection=collection.name)
        except StoreRejected as error:
            progress.failures[id_] = error
        else:
            if isinstance(current, bool):
                progress.filled += current
                return current
            progress.failures[id_] = current
        return True

    async def _repair(
        self, name: str, vector: NamedVector, page: Sequence[StoredObject], progress: BackfillProgress, scope: Scope
    ) -> None:
        """Enter the vectors of a page that the index has lost."""
        having = {each.id: each.vectors[vector.name] for each in page if vector.name in each.vectors}

        async def mend() -> Mending:
            mending = await self._entries.mend(name, vector, having, scope)
            for error in mending.failures.values():
                if isinstance(error, StoreUnavailable):
                    raise error
            return mending

        mending = await self._writes.run(keys_of(name, scope, having), mend)
        refusal = StoreRejected(f"the index of named vector {vector.name!r} does not accept it")
        progress.failures |= mending.failures | dict.fromkeys(mending.unseen, refusal)
        progress.repaired += len(mending.found)


async def read_candidates(
    store: Store, collection: str, ids: Sequence[UUID], fields: ReturnFields, scope: Scope
) -> list[Candidate]:
    """Return those of some objects that are still there, with what their vectors are made of.

    Args:
        store: where they are.
        collection: the collection's own name.
        ids: theirs.
        fields: what to read of them; see vector_fields.
        scope: whose they are, and how many replicas must answer.

    Raises:
        StoreRejected: an object is too large to be read.
        StoreUnavailable: the store failed.
    """
    if not ids:
        return []
    try:
        found = await store.get_objects(collection, ids, fields, scope)
    except StoreRejected:
        # Such as images that are too large to be read in one call.
        if len(ids) == 1:
            raise
        middle = len(ids) // 2
        halves = (ids[:middle], ids[middle:])
        return [each for half in halves for each in await read_candidates(store, collection, half, fields, scope)]
    return [Candidate(f"objects[{id_}]", found[id_]) for id_ in ids if id_ in found]


def _differs(now: StoredObject, before: StoredObject) -> bool:
    """Return whether the fields of an object's vectors have changed, or which vectors it has."""
    made_of = (now.properties, now.images, now.hashes, now.vectors.keys())
    return made_of != (before.properties, before.images, before.hashes, before.vectors.keys())


def _targets(collection: Collection, names: Sequence[str]) -> Collection:
    """Return a collection with only some of its named vectors; without names those that are bound to a space."""
    unknown = [
        unknown_vector(collection, f"vectors[{index}]")
        for index, name in enumerate(names)
        if collection.find_vector(name) is None
    ]
    if unknown:
        raise InvalidRequest(unknown)
    bound = [each.name for each in collection.vectors if each.space is not None]
    # If none is bound, all are kept, so that the caller gets an error that says so.
    wanted = names or bound or [each.name for each in collection.vectors]
    return replace(collection, vectors=tuple(each for each in collection.vectors if each.name in wanted))
