"""Writes of objects, and the promise that what is acknowledged is found.

Weaviate writes an object first and its index entries afterwards. When the second step fails, because memory is short,
the call is cut off or Weaviate is killed, the object is stored but no search by vector finds it: the index has no entry
for it, or no other entry links to its entry. Writing the same object again changes nothing and adds no entry. So:

- `Writes` runs each write to its end, even if the caller leaves, runs writes of one object one after the other, and
  remembers which objects other calls wrote, and which objects a failed write may have written.
- `find_moved` looks again, right before a write, whether vectors still belong where they are about to be written.
- `overwrite` replaces objects, and keeps what this version does not handle.
- `IndexEntries` searches an object by its own vectors, and adds an index entry where the search does not find it.
- `Writer` does so before it acknowledges an object that was stored before with the same vector, or whose last write
  failed.
- `Settler` does the same in the background for objects of failed writes that nobody sends again.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from uuid import UUID

import numpy as np
import structlog

from embedders.contract import Vector
from service.core.embedder_pool import EmbedderPool
from service.domain import (
    BLOBS,
    Collection,
    Condition,
    Distance,
    Hit,
    NamedVector,
    ObjectChange,
    Operator,
    ReturnFields,
    Scope,
    SearchOptions,
    SearchSpec,
    StoredObject,
    Target,
    TargetVectors,
)
from service.errors import ObjectNotFound, ServiceError, StoreRejected, StoreUnavailable, TenantNotFound
from service.store.base import Store, WriteFailure

log = structlog.get_logger(__name__)

MAX_WRITES = 16
"""Writes at the same time; others wait. This bounds the memory that writes hold after their callers have left."""

MAX_REMEMBERED = 50_000
"""Objects whose last write is remembered, about 12 MB; the oldest are forgotten first."""

END_S = 5.0
"""Seconds to wait for running writes at shutdown."""

LATE_S = 5.0
"""Seconds for which the store may continue a write that was cut off, and overwrite a later one."""

ALWAYS = -1
"""A mark after which every object counts as written."""

PARALLEL = 8
"""Objects that are searched, changed or entered at the same time."""

NEAREST = (10, 1000)
"""Hits in which to look for an object; the second number is used when all of the first are as near as the object."""

PAUSES_S = (0.0, 0.1, 0.4, 1.5)
"""Seconds before each check that an index has taken an entry; an index that works in the background needs a moment."""

FLAT = "flat"
"""The index without links. Each search compares all vectors, so one search for each object would take too long."""

TOLERANCE = 1e-4
"""By how much a measured distance may differ from the expected one, in relation to the vector's squared length."""

PAUSE_S = 2.0
"""Seconds between checks for failed writes. Most callers retry sooner, and then nothing is left to settle."""

PAGE = 100
"""Objects that are settled at a time."""

Key = tuple[str, str, UUID]
"""An object: its collection, its tenant and its id."""

Result = TypeVar("Result")


def keys_of(collection: str, scope: Scope, ids: Iterable[UUID]) -> list[Key]:
    """Return the keys of some objects of a collection."""
    return [(collection, scope.tenant, id_) for id_ in ids]


class Writes:
    """Runs the writes of one process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(MAX_WRITES)
        self._turns: dict[Key, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._ended = 0
        self._last: OrderedDict[Key, int] = OrderedDict()
        self._failed: dict[Key, float] = {}
        self._doubts: set[Key] = set()

    @property
    def ended(self) -> int:
        """How many writes have ended so far: a mark for `since`."""
        return self._ended

    def since(self, mark: int, keys: Iterable[Key]) -> set[UUID]:
        """Return which objects were written after a mark, or by a write that failed and may have stored them or not."""
        return {key[2] for key in keys if key in self._failed or self._last.get(key, 0) > mark}

    async def outwait(self, keys: Iterable[Key]) -> bool:
        """Wait until no write of these objects that was cut off can still run, and return whether there was one."""
        times = [self._failed[key] for key in keys if key in self._failed]
        if times:
            await asyncio.sleep(max(0.0, max(times) + LATE_S - time.monotonic()))
        return bool(times)

    def doubt(self, keys: Iterable[Key]) -> None:
        """Count a running write as failed for some of its objects."""
        self._doubts.update(keys)

    def doubted(self) -> list[Key]:
        """Return the objects that have a failed write and no running one."""
        return [key for key in self._failed if key not in self._turns]

    def settled(self, keys: Iterable[Key]) -> None:
        """Forget the failed writes of objects that were checked, unless a write that was cut off may still run."""
        late = time.monotonic() - LATE_S
        for key in keys:
            if self._failed.get(key, late) <= late:
                self._failed.pop(key, None)

    async def run(self, keys: Sequence[Key], write: Callable[[], Awaitable[Result]]) -> Result:
        """Write objects when no other write of them runs, and return what the write returns.

        If the caller is cancelled while it waits, nothing is written. If it is cancelled later, the write continues.

        Args:
            keys: the objects.
            write: writes them, and ends within the store's time limit for a call.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = {earlier for key in keys if (earlier := self._turns.get(key)) is not None}
        self._turns.update(dict.fromkeys(keys, turn))
        try:
            if before:
                await asyncio.wait(before)
            # After the turns of others: callers that wait for one would otherwise block all others.
            await self._room.acquire()
        except asyncio.CancelledError:
            self._pass(keys, turn, before)
            raise
        task = asyncio.create_task(self._run(keys, write, turn))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        # Awaiting the task itself would cancel it together with the caller.
        await asyncio.wait((task,))
        return task.result()

    async def close(self) -> None:
        """Wait until all writes have ended, for a few seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_S)

    async def _run(
        self, keys: Sequence[Key], write: Callable[[], Awaitable[Result]], turn: asyncio.Future[None]
    ) -> Result:
        failed = True
        try:
            result = await write()
            failed = False
        finally:
            self._ended += 1
            self._remember(keys, failed=failed)
            self._room.release()
            self._pass(keys, turn)
        return result

    def _pass(
        self, keys: Iterable[Key], turn: asyncio.Future[None], before: Iterable[asyncio.Future[None]] = ()
    ) -> None:
        """End a turn once those before it have ended: a caller that waits for it must not overtake them."""
        if (earlier := next((each for each in before if not each.done()), None)) is not None:
            earlier.add_done_callback(lambda _: self._pass(keys, turn, before))
            return
        for key in keys:
            if self._turns.get(key) is turn:
                del self._turns[key]
        turn.set_result(None)

    def _end(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Retrieved, because asyncio logs exceptions that nobody retrieves, and the caller may have left.
            task.exception()

    def _remember(self, keys: Iterable[Key], *, failed: bool) -> None:
        for key in keys:
            self._last[key] = self._ended
            self._last.move_to_end(key)
            if failed or key in self._doubts:
                self._failed[key] = time.monotonic()
        self._doubts.difference_update(keys)
        while len(self._last) > MAX_REMEMBERED:
            forgotten, _ = self._last.popitem(last=False)
            self._failed.pop(forgotten, None)


async def find_moved(
    store: Store, embedders: EmbedderPool, collection: Collection, names: Iterable[str]
) -> tuple[Collection, dict[str, StoreUnavailable]]:
    """Look at a collection again, right before vectors are written into it.

    Making the vectors takes time, in which another call may remove a named vector and add one of the same name for
    another space, replace its binding, or delete the collection and create another one.

    Args:
        store: has the collection.
        embedders: the embedders of this server; see EmbedderPool.resolve.
        collection: the collection for which the vectors were made.
        names: the named vectors to be written.

    Returns:
        The collection as it is now, and why vectors must not be written, by name: those that are gone, or bound to
        another space.

    Raises:
        CollectionNotFound: it was deleted.
        StoreUnavailable: the store failed.
    """
    now = embedders.resolve(await store.get_collection(collection.name))
    message = "of collection {!r} was bound to another space or removed meanwhile; send it again"
    moved = [name for name in names if _space_of(now, name) != _space_of(collection, name)]
    return now, {name: StoreUnavailable(f"named vector {name!r} {message.format(now.name)}") for name in moved}


def _space_of(collection: Collection, name: str) -> str | None:
    vector = collection.find_vector(name)
    return None if vector is None or vector.space is None else vector.space.id


async def overwrite(
    store: Store,
    collection: Collection,
    objects: Sequence[StoredObject],
    stored: Mapping[UUID, StoredObject],
    scope: Scope,
) -> list[WriteFailure | None]:
    """Write objects, each on its own; see Store.put_objects.

    The store replaces objects as a whole. In a collection with something that this version does not handle, such as
    references, phone numbers and vectors of no known space, a stored object is changed in all its other parts instead,
    so that these stay.

    Args:
        store: writes the objects.
        collection: the collection of the objects.
        objects: the objects.
        stored: those of them that are stored already, with their vectors.
        scope: the tenant, and how many replicas must answer.
    """
    if not collection.preserving:
        return await store.put_objects(collection.name, objects, scope)
    slots = asyncio.Semaphore(PARALLEL)

    async def change(object_: StoredObject) -> WriteFailure | None:
        try:
            async with slots:
                await store.update_object(collection.name, _change(collection, object_, stored[object_.id]), scope)
        except ObjectNotFound:
            return (await store.put_objects(collection.name, [object_], scope))[0]
        except (StoreRejected, StoreUnavailable) as error:
            return error
        return None

    new = [each for each in objects if each.id not in stored]
    put = await store.put_objects(collection.name, new, scope) if new else []
    failures = dict(zip((each.id for each in new), put, strict=True))
    there = [each for each in objects if each.id in stored]
    # All end before one of them raises an error that concerns all objects, such as a deleted tenant.
    for each, outcome in zip(there, await asyncio.gather(*map(change, there), return_exceptions=True), strict=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, StoreRejected | StoreUnavailable):
            raise outcome
        failures[each.id] = outcome
    return [failures[each.id] for each in objects]


def _change(collection: Collection, object_: StoredObject, before: StoredObject) -> ObjectChange:
    """Return what turns a stored object into another one, except for what this version does not handle."""
    handled = [each for each in collection.properties if each.name not in collection.unhandled]
    blobs = [each.name for each in handled if each.data_type in BLOBS]
    names = {each.name for each in handled if each.data_type not in BLOBS} | object_.properties.keys()
    return ObjectChange(
        object_.id,
        {name: object_.properties.get(name) for name in names},
        {name: object_.images.get(name) for name in blobs},
        object_.vectors,
        [
            each.name
            for each in collection.bound_part.vectors
            if each.name in before.vectors.keys() - object_.vectors.keys()
        ],
    )


@dataclass(slots=True)
class Mending:
    """The result of objects without an index entry.

    Attributes:
        found: those that a search finds now.
        failures: why others could not be entered, by id.
        unseen: those that were entered and are still not found.
        gone: those that the store does not have, or not yet: it may still be starting.
    """

    found: list[UUID] = field(default_factory=list)
    failures: dict[UUID, ServiceError] = field(default_factory=dict)
    unseen: list[UUID] = field(default_factory=list)
    gone: list[UUID] = field(default_factory=list)


def unchanged(object_: StoredObject, before: StoredObject) -> dict[str, Vector]:
    """Return the vectors of an object that are equal, bit by bit, to those it had before."""
    return {
        name: vector
        for name, vector in object_.vectors.items()
        if name in before.vectors and vector.tobytes() == before.vectors[name].tobytes()
    }


async def all_of(steps: Iterable[Awaitable[Result]]) -> list[Result]:
    """Run steps at the same time. An error is raised when all of them have ended."""
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    results: list[Result] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


class IndexEntries:
    """Finds objects without an index entry, and enters them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._room = asyncio.Semaphore(PARALLEL)

    async def find_lost(
        self, name: str, vector: NamedVector, having: Mapping[UUID, Vector], scope: Scope
    ) -> list[UUID]:
        """Return which objects are not found by a search with their own vector.

        Args:
            name: the collection.
            vector: the named vector.
            having: the vectors of the objects, by id.
            scope: the tenant, and how many replicas must answer.

        Raises:
            StoreRejected: the store refuses such a search.
            StoreUnavailable: the store failed.
        """
        if vector.index.type == FLAT:
            unknown = await self._find_unknown(name, vector, having, scope)
            return [id_ for id_ in having if id_ in unknown]

        async def look(id_: UUID, own: Vector) -> bool | None:
            async with self._room:
                return await self._finds(name, vector, id_, own, scope)

        looks = await all_of(look(id_, own) for id_, own in having.items())
        found = dict(zip(having, looks, strict=True))
        crowded = {id_: having[id_] for id_, each in found.items() if each is None}
        unknown = await self._find_unknown(name, vector, crowded, scope)
        return [id_ for id_, each in found.items() if each is False or id_ in unknown]

    async def mend(self, name: str, vector: NamedVector, having: Mapping[UUID, Vector], scope: Scope) -> Mending:
        """Enter those of some objects that the index of a named vector lacks, and check that they are found then.

        Raises:
            StoreRejected: the store refuses to search for them.
            StoreUnavailable: the store failed.
        """
        lost = unseen = entering = await self.find_lost(name, vector, having, scope)
        failures: dict[UUID, ServiceError] = {}
        refused: dict[UUID, ServiceError] = {}
        for pause_s in PAUSES_S:
            if not unseen:
                break
            refused = await self._enter(name, vector.name, having, entering, scope)
            # Weaviate may enter an object, and refuse it for another of its indexes, which takes it the next time.
            failures |= {id_: each for id_, each in refused.items() if not isinstance(each, StoreRejected)}
            await asyncio.sleep(pause_s)
            looked = {id_: having[id_] for id_ in unseen if id_ not in failures}
            unseen = await self.find_lost(name, vector, looked, scope)
            entering = [id_ for id_ in unseen if id_ in refused]
        failures |= {id_: refused[id_] for id_ in entering}
        gone = [id_ for id_, each in failures.items() if isinstance(each, ObjectNotFound)]
        others = {id_: each for id_, each in failures.items() if id_ not in gone}
        found = [id_ for id_ in lost if id_ not in unseen and id_ not in failures]
        mending = Mending(found, others, [id_ for id_ in unseen if id_ not in failures], gone)
        if lost:
            log.info(
                "index_entries_mended", collection=name, vector=vector.name, lost=len(lost), found=len(mending.found)
            )
        return mending

    async def ensure(
        self, name: str, vector: NamedVector, having: Mapping[UUID, Vector], scope: Scope
    ) -> dict[UUID, ServiceError]:
        """Enter objects that are not found by their own vector, and return why some still are not, by id.

        Raises:
            StoreUnavailable: the store failed.
        """
        try:
            mending = await self.mend(name, vector, having, scope)
        except StoreRejected as error:
            log.info("index_unread", collection=name, error=type(error).__qualname__)
            return {}
        message = f"is stored, but a search of named vector {vector.name!r} does not find it yet; send it again"
        # One that is gone was written a moment ago: nothing shows that a search will find it.
        return mending.failures | dict.fromkeys([*mending.unseen, *mending.gone], StoreUnavailable(message))

    async def _finds(self, name: str, vector: NamedVector, id_: UUID, own: Vector, scope: Scope) -> bool | None:
        """Return whether a search by an object's own vector finds it; None if too many others are as near."""
        length = float(own.astype(np.float64) @ own.astype(np.float64))
        # The distance of the object to its own vector. Only by dot product can another object be nearer.
        expected = -length if vector.distance is Distance.DOT else 0.0
        for limit in NEAREST:
            # Without a filter, because Weaviate compares the objects of a small filter one by one, without the links.
            hits = await self._search(name, {vector.name: own}, limit, SearchOptions(), scope)
            if any(hit.object.id == id_ for hit in hits):
                return True
            farthest = hits[-1].distance if hits else None
            if len(hits) < limit or farthest is None or farthest > expected + TOLERANCE * max(1.0, length):
                return False
        return None

    async def _find_unknown(
        self, name: str, vector: NamedVector, having: Mapping[UUID, Vector], scope: Scope
    ) -> set[UUID]:
        """Return the objects for which the index has no entry at all."""
        if not having:
            return set()
        # Weaviate compares so few objects one by one, and returns each that has an entry, at any distance.
        among = SearchOptions(Condition(Target.ID, Operator.CONTAINS_ANY, [str(id_) for id_ in having]))
        anything = next(iter(having.values()))
        hits = await self._search(name, {vector.name: anything}, len(having), among, scope)
        return having.keys() - {hit.object.id for hit in hits}

    async def _search(
        self, name: str, near: Mapping[str, Vector], limit: int, options: SearchOptions, scope: Scope
    ) -> Sequence[Hit]:
        spec = SearchSpec(TargetVectors(near), limit, options=options, scope=scope)
        return await self._store.search(name, spec)

    async def _enter(
        self, name: str, vector_name: str, having: Mapping[UUID, Vector], ids: Iterable[UUID], scope: Scope
    ) -> dict[UUID, ServiceError]:
        """Enter objects into the index of a named vector, and return why that failed, by id."""
        failures: dict[UUID, ServiceError] = {}

        async def enter(id_: UUID) -> None:
            try:
                async with self._room:
                    await self._store.reindex_vector(name, id_, vector_name, having[id_], scope)
            except (ObjectNotFound, StoreRejected, StoreUnavailable) as error:
                failures[id_] = error

        await all_of(map(enter, ids))
        return failures


class Writer:
    """Writes and changes objects, so that those which it acknowledges are found.

    A vector whose name is bound to another space by then is not written, and its object is not either.
    """

    def __init__(self, store: Store, embedders: EmbedderPool, writes: Writes) -> None:
        self._store = store
        self._embedders = embedders
        self._writes = writes
        self._entries = IndexEntries(store)

    async def put(
        self,
        collection: Collection,
        objects: Sequence[StoredObject],
        stored: Mapping[UUID, StoredObject],
        mark: int,
        scope: Scope,
        *,
        again_s: float,
    ) -> dict[UUID, ServiceError]:
        """Write objects, each on its own, and return why some are not stored or not found, by id.

        Args:
            collection: the collection of the objects.
            objects: the objects.
            stored: those of them that were stored already, with their vectors.
            mark: when `stored` was read; see Writes.ended.
            scope: the tenant, and how many replicas must answer.
            again_s: from when on the collection is read again before objects are written, by time.monotonic.

        Raises:
            StoreUnavailable: the store failed as a whole.
        """
        if not objects:
            return {}
        keys = keys_of(collection.name, scope, (each.id for each in objects))

        async def write() -> dict[UUID, ServiceError]:
            doubted = self._writes.since(mark, keys)
            now, moved = collection, dict[str, StoreUnavailable]()
            # Not before its turn, for which it may have waited long.
            if time.monotonic() >= again_s:
                names = {name for each in objects for name in each.vectors}
                now, moved = await find_moved(self._store, self._embedders, collection, names)
            failures: dict[UUID, ServiceError] = {
                each.id: moved[name] for each in objects for name in each.vectors if name in moved
            }
            fitting = [each for each in objects if each.id not in failures]
            return failures | await self._put(now, fitting, stored, doubted, scope)

        return await self._writes.run(keys, write)

    async def change(
        self, collection: Collection, change: ObjectChange, kept: Mapping[str, Vector], mark: int, scope: Scope
    ) -> None:
        """Change an object, and enter vectors that it had before where an index lacks them.

        The store adds no entries for equal vectors, but an earlier attempt of this update may have failed before its
        entries were written.

        Args:
            collection: the collection of the object.
            change: what to change.
            kept: the vectors that the object had before and that depend on the change.
            mark: when the object was read; see Writes.ended.
            scope: the tenant, and how many replicas must answer.

        Raises:
            ServiceError: the object is not changed, or not found by its vectors.
        """
        keys = keys_of(collection.name, scope, [change.id])

        async def write() -> StoreUnavailable | None:
            _, moved = await find_moved(self._store, self._embedders, collection, change.vectors)
            if moved:
                # Returned, because a write that raises counts as one that may have stored something.
                return next(iter(moved.values()))
            await self._store.update_object(collection.name, change, scope)
            vectors = kept
            if self._writes.since(mark, keys):
                every = ReturnFields(vectors=[each.name for each in collection.vectors])
                vectors = (await self._store.get_object(collection.name, change.id, every, scope)).vectors
            for error in (await self._enter_lost(collection, {change.id: vectors}, scope)).values():
                raise error
            return None

        if (error := await self._writes.run(keys, write)) is not None:
            raise error

    async def _put(
        self,
        collection: Collection,
        objects: Sequence[StoredObject],
        stored: Mapping[UUID, StoredObject],
        doubted: set[UUID],
        scope: Scope,
    ) -> dict[UUID, ServiceError]:
        stored = {**stored, **await self._find_new(collection, objects, stored, scope)}
        outcomes = await overwrite(self._store, collection, objects, stored, scope) if objects else []
        failures: dict[UUID, ServiceError] = {
            each.id: outcome for each, outcome in zip(objects, outcomes, strict=True) if outcome is not None
        }
        # Another call, or a write that failed, may have stored the same vectors meanwhile.
        before = {**stored, **{each.id: each for each in objects if each.id in doubted}}
        same = {each.id: unchanged(each, before[each.id]) for each in objects if each.id in before}
        failures |= await self._enter_lost(collection, _without(same, failures), scope)
        if await self._writes.outwait(keys_of(collection.name, scope, doubted)):
            failures |= await self._enter_lost(collection, _without(same, failures), scope)
        unsure = [each.id for each in objects if isinstance(failures.get(each.id), StoreUnavailable)]
        self._writes.doubt(keys_of(collection.name, scope, unsure))
        return failures

    async def _find_new(
        self,
        collection: Collection,
        objects: Sequence[StoredObject],
        stored: Mapping[UUID, StoredObject],
        scope: Scope,
    ) -> Mapping[UUID, StoredObject]:
        """Return which of some objects were stored while their vectors were made, if this matters for them.

        Replacing such an object would delete what this version does not handle.
        """
        new = [each.id for each in objects if each.id not in stored]
        if not collection.preserving or not new:
            return {}
        fields = ReturnFields(vectors=[each.name for each in collection.bound_part.vectors])
        try:
            return await self._store.get_objects(collection.name, new, fields, scope)
        except TenantNotFound:
            # The write creates the tenant, or fails for the same reason.
            return {}

    async def _enter_lost(
        self, collection: Collection, vectors: Mapping[UUID, Mapping[str, Vector]], scope: Scope
    ) -> dict[UUID, ServiceError]:
        """Enter vectors of objects where an index lacks them, and return why some are not found, by id."""
        failures: dict[UUID, ServiceError] = {}
        for named in collection.vectors:
            having = {id_: own[named.name] for id_, own in vectors.items() if named.name in own}
            failures |= await self._entries.ensure(collection.name, named, having, scope)
        return failures


def _without(
    vectors: Mapping[UUID, dict[str, Vector]], failures: Mapping[UUID, ServiceError]
) -> dict[UUID, dict[str, Vector]]:
    return {id_: own for id_, own in vectors.items() if id_ not in failures}


class Settler:
    """Checks objects of failed writes in the background. Belongs to one event loop.

    A write that was cut off may have replaced an object that was found by one without an index entry, and its caller
    may never retry.
    """

    def __init__(self, store: Store, writes: Writes) -> None:
        self._store = store
        self._writes = writes
        self._entries = IndexEntries(store)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start."""
        self._task = asyncio.create_task(self._run(), name="settle-writes")

    async def close(self) -> None:
        """Stop. May be called twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            for page in _pages(self._writes.doubted()):
                if not self._store.available:
                    break
                try:
                    await self._writes.run(page, partial(self._settle, page))
                    self._writes.settled(page)
                except StoreUnavailable as error:
                    log.info("writes_unsettled", collection=page[0][0], reason=str(error))
                except Exception:
                    log.exception("writes_unsettled", collection=page[0][0])

    async def _settle(self, keys: list[Key]) -> None:
        """Check objects of one collection and tenant.

        Raises:
            StoreUnavailable: the store failed; they are checked again later.
        """
        name, scope = keys[0][0], Scope(keys[0][1])
        try:
            collection = await self._store.get_collection(name)
            single = [each for each in collection.vectors if not each.multi]
            fields = ReturnFields(vectors=[each.name for each in single])
            found = await self._store.get_objects(name, [key[2] for key in keys], fields, scope)
            for vector in single:
                having = {id_: each.vectors[vector.name] for id_, each in found.items() if vector.name in each.vectors}
                mending = await self._entries.mend(name, vector, having, scope)
                # An object that Weaviate refuses to enter stays as it is; after a cut connection all are tried again.
                for error in mending.failures.values():
                    if isinstance(error, StoreUnavailable):
                        raise error
        except StoreUnavailable:
            raise
        except ServiceError as error:
            # Such as a deleted collection, which has nothing to settle.
            log.debug("nothing_to_settle", collection=name, error=type(error).__qualname__)


def _pages(keys: Iterable[Key]) -> Iterator[list[Key]]:
    """Yield keys in pages, each of one collection and tenant."""
    scopes: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        scopes.setdefault(key[:2], []).append(key)
    for each in scopes.values():
        yield from (each[start : start + PAGE] for start in range(0, len(each), PAGE))
