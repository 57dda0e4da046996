"""Writes of objects, and the promise that what is acknowledged is found.

Weaviate writes an object first and its index entries afterwards. Where the second fails, for want of memory or because
the write is cut off or Weaviate killed, the object is there and no search by vector finds it: its index has no entry,
or has one that no other entry leads to. Writing the same again changes nothing and enters nothing. So:

- `Writes`: a write runs to its end whatever becomes of its caller, writes of one object take turns, and objects are
  remembered that were written behind a caller's back, or by a write that failed.
- `overwrite`: an object that replaces another leaves alone what this version does not handle.
- `IndexEntries`: before an object is acknowledged whose vectors may have been there before, it is searched by its own
  vectors, and entered again where it is not found.
- `Settler`: objects of failed writes are checked in the background, even if nobody sends them again.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import numpy as np
import structlog

from embedders.contract import Vector
from service.domain import (
    Collection,
    Condition,
    DataType,
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
from service.errors import ObjectNotFound, ServiceError, StoreRejected, StoreUnavailable
from service.store.base import Store, WriteFailure

log = structlog.get_logger(__name__)

MAX_WRITES = 16
"""Writes at the same time; more wait. Each holds what it writes, so this bounds what is held for callers that left."""

MAX_REMEMBERED = 50_000
"""Objects whose last write is remembered, some 12 MB; the oldest are forgotten first."""

END_S = 5.0

LATE_S = 5.0
"""Seconds for which the store may go on with a write that was cut off, and undo what came after it."""

ALWAYS = -1
"""A mark that every object counts as written after."""

PARALLEL = 8
"""Objects that are looked for, or entered, at the same time."""

NEAREST = (10, 1000)
"""Hits among which an object is looked for: more where all of the first are as near to its vector as it is itself."""

PAUSES_S = (0.0, 0.1, 0.4, 1.5)
"""Seconds before each look whether an index has taken an entry; one that works in the background takes a moment."""

FLAT = "flat"
"""The index that has no links: it compares everything in each search, which would be long for each object alone."""

TOLERANCE = 1e-4

PAUSE_S = 2.0
"""Seconds between looks for failed writes. Whoever wrote sends again sooner, and then there is nothing to settle."""

PAGE = 100

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
        self._turns: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
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
        """Return which objects were written after a mark, or by a write that failed, so that nobody knows its end."""
        return {key[2] for key in keys if key in self._failed or self._last.get(key, 0) > mark}

    async def outwait(self, keys: Iterable[Key]) -> bool:
        """Wait until what was cut off of some objects can come no more, and return whether anything was."""
        times = [self._failed[key] for key in keys if key in self._failed]
        if times:
            await asyncio.sleep(max(0.0, max(times) + LATE_S - time.monotonic()))
        return bool(times)

    def doubt(self, keys: Iterable[Key]) -> None:
        """Let a write that runs count as failed for some of its objects, though not for all."""
        self._doubts.update(keys)

    def doubted(self) -> list[Key]:
        """Return the objects of which a write failed, and none runs."""
        return [key for key in self._failed if key not in self._turns]

    def settled(self, keys: Iterable[Key]) -> None:
        """Trust objects again that were looked for, unless what was cut off may still come late."""
        late = time.monotonic() - LATE_S
        for key in keys:
            if self._failed.get(key, late) <= late:
                self._failed.pop(key, None)

    async def run(self, keys: Sequence[Key], write: Callable[[], Awaitable[Result]]) -> Result:
        """Write objects once no other write of them runs, and return what the write returns.

        A caller that is cancelled while it waits for its turn writes nothing; later the write goes on without it.

        Args:
            keys: the objects.
            write: writes them; it ends by itself, soon.
        """
        async with AsyncExitStack() as turns:
            # In one order for all, so that nobody waits for somebody who waits for them.
            for key in sorted(set(keys)):
                await turns.enter_async_context(self._turns.setdefault(key, asyncio.Lock()))
            # Room comes last: those who wait for one object would keep all others out.
            await self._room.acquire()
            task = asyncio.create_task(self._run(keys, write, turns.pop_all()))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        # Not awaited itself, which would cancel it together with the caller.
        await asyncio.wait((task,))
        return task.result()

    async def close(self) -> None:
        """Wait until all writes have ended, for a few seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_S)

    async def _run(self, keys: Sequence[Key], write: Callable[[], Awaitable[Result]], turns: AsyncExitStack) -> Result:
        failed = True
        try:
            result = await write()
            failed = False
        finally:
            self._ended += 1
            self._remember(keys, failed=failed)
            self._room.release()
            await turns.aclose()
        return result

    def _end(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Its caller may have left; asyncio would complain about a failure that nobody looks at.
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


async def overwrite(
    store: Store,
    collection: Collection,
    objects: Sequence[StoredObject],
    stored: Mapping[UUID, StoredObject],
    scope: Scope,
) -> list[WriteFailure | None]:
    """Write objects, each on its own; see Store.put_objects.

    The store replaces an object as a whole. Where the collection has properties that this version does not handle, one
    that is there is changed in all its other parts instead, so that the references and phone numbers of others stay.

    Args:
        store: where to.
        collection: the objects' collection.
        objects: what to write.
        stored: those of them that are there, with their vectors.
        scope: whose they are.
    """
    if not collection.unhandled:
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
    # All end before one of them raises what is no object's own, such as a tenant that is gone.
    for each, outcome in zip(there, await asyncio.gather(*map(change, there), return_exceptions=True), strict=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, StoreRejected | StoreUnavailable):
            raise outcome
        failures[each.id] = outcome
    return [failures[each.id] for each in objects]


def _change(collection: Collection, object_: StoredObject, before: StoredObject) -> ObjectChange:
    """Return what makes an object that is there into another one, but for what this version does not handle."""
    handled = [each for each in collection.properties if each.name not in collection.unhandled]
    blobs = [each.name for each in handled if each.data_type is DataType.BLOB]
    names = {each.name for each in handled if each.data_type is not DataType.BLOB} | object_.properties.keys()
    return ObjectChange(
        object_.id,
        {name: object_.properties.get(name) for name in names},
        {name: object_.images.get(name) for name in blobs},
        object_.vectors,
        [name for name in before.vectors if name not in object_.vectors],
    )


@dataclass(slots=True)
class Mending:
    """What became of the objects that an index lacked.

    Attributes:
        found: those that a search finds now.
        failures: why others could not be entered, by id.
        unseen: those that were entered and are still not found.
    """

    found: list[UUID] = field(default_factory=list)
    failures: dict[UUID, ServiceError] = field(default_factory=dict)
    unseen: list[UUID] = field(default_factory=list)


def unchanged(object_: StoredObject, before: StoredObject) -> dict[str, Vector]:
    """Return those vectors of an object that it had before, bit by bit."""
    return {
        name: vector
        for name, vector in object_.vectors.items()
        if name in before.vectors and vector.tobytes() == before.vectors[name].tobytes()
    }


async def all_of(steps: Iterable[Awaitable[Result]]) -> list[Result]:
    """Take steps at the same time; when one fails, the others have ended, too."""
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    results: list[Result] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


class IndexEntries:
    """Finds and mends what indexes lack."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._room = asyncio.Semaphore(PARALLEL)

    async def find_lost(
        self, name: str, vector: NamedVector, having: Mapping[UUID, Vector], scope: Scope
    ) -> list[UUID]:
        """Return which objects of a collection a search by their own vector does not find.

        Args:
            name: the collection.
            vector: the named vector.
            having: the objects, and what they have of it.
            scope: whose objects, and how many replicas must answer.

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
        """Enter what the index of a named vector lacks of some objects, and look whether they are found then.

        Raises:
            StoreRejected: the store refuses to search for them.
            StoreUnavailable: the store failed.
        """
        lost = await self.find_lost(name, vector, having, scope)
        failures = await self._enter(name, vector.name, having, lost, scope)
        entered = [id_ for id_ in lost if id_ not in failures]
        mending = Mending(
            failures={id_: each for id_, each in failures.items() if not isinstance(each, ObjectNotFound)}
        )
        mending.unseen = entered
        for pause_s in PAUSES_S:
            if not mending.unseen:
                break
            await asyncio.sleep(pause_s)
            unseen = {id_: having[id_] for id_ in mending.unseen}
            mending.unseen = await self.find_lost(name, vector, unseen, scope)
        mending.found = [id_ for id_ in entered if id_ not in mending.unseen]
        if lost:
            log.info(
                "index_entries_mended", collection=name, vector=vector.name, lost=len(lost), found=len(mending.found)
            )
        return mending

    async def ensure(
        self, name: str, vector: NamedVector, having: Mapping[UUID, Vector], scope: Scope
    ) -> dict[UUID, ServiceError]:
        """See to it that objects are found by their own vector, and return why some are not, by id.

        Raises:
            StoreUnavailable: the store failed.
        """
        try:
            mending = await self.mend(name, vector, having, scope)
        except StoreRejected as error:
            log.info("index_unread", collection=name, error=type(error).__qualname__)
            return {}
        message = f"is stored, but a search of named vector {vector.name!r} does not find it yet; send it again"
        return mending.failures | dict.fromkeys(mending.unseen, StoreUnavailable(message))

    async def _finds(self, name: str, vector: NamedVector, id_: UUID, own: Vector, scope: Scope) -> bool | None:
        """Return whether a search by an object's own vector finds it; None where too many others are as near."""
        length = float(own.astype(np.float64) @ own.astype(np.float64))
        # Of an object to itself; only the dot product of two vectors can be nearer than that.
        expected = -length if vector.distance is Distance.DOT else 0.0
        for limit in NEAREST:
            # No filter: the index would compare what a filter lets through one by one, and not use its links.
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
        """Return of which objects the index has no entry at all."""
        if not having:
            return set()
        # So few are compared one by one, and each that the index knows is found whatever its distance.
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
        """Enter the vectors of some objects into their index, and return why that failed, by id."""
        failures: dict[UUID, ServiceError] = {}

        async def enter(id_: UUID) -> None:
            try:
                async with self._room:
                    await self._store.reindex_vector(name, id_, vector_name, having[id_], scope)
            except (ObjectNotFound, StoreRejected, StoreUnavailable) as error:
                failures[id_] = error

        await all_of(map(enter, ids))
        return failures


class Settler:
    """Settles failed writes in the background.

    A write that was cut off may have replaced an object that was found before by one without an entry in its index; its
    caller need not send it again. Belongs to one event loop.
    """

    def __init__(self, store: Store, writes: Writes) -> None:
        self._store = store
        self._writes = writes
        self._entries = IndexEntries(store)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="settle-writes")

    async def close(self) -> None:
        """End. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

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
        """Look for objects of one collection and tenant.

        Raises:
            StoreUnavailable: the store failed; they are looked for again.
        """
        name, scope = keys[0][0], Scope(keys[0][1])
        try:
            collection = await self._store.get_collection(name)
            fields = ReturnFields(vectors=[each.name for each in collection.vectors])
            found = await self._store.get_objects(name, [key[2] for key in keys], fields, scope)
            for vector in collection.vectors:
                having = {id_: each.vectors[vector.name] for id_, each in found.items() if vector.name in each.vectors}
                mending = await self._entries.mend(name, vector, having, scope)
                # One that cannot be entered is left alone; one whose entering was cut off is tried again.
                for error in mending.failures.values():
                    if isinstance(error, StoreUnavailable):
                        raise error
        except StoreUnavailable:
            raise
        except ServiceError as error:
            # Such as a collection that is gone: nothing of it is there to be found.
            log.debug("nothing_to_settle", collection=name, error=type(error).__qualname__)


def _pages(keys: Iterable[Key]) -> Iterator[list[Key]]:
    """Yield keys in pages, each of one collection and tenant."""
    scopes: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        scopes.setdefault(key[:2], []).append(key)
    for each in scopes.values():
        yield from (each[start : start + PAGE] for start in range(0, len(each), PAGE))
