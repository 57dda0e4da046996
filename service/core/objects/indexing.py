"""Entries of vectors in their index: which objects it lacks though they have the vector, and entering these again.

Weaviate writes an object first and its index entries afterwards. Where the second fails, for want of memory or because
the write is cut off or Weaviate killed, the object is there and no search by vector sees it: its index has no entry, or
has one that no other entry leads to. Writing the same again enters nothing.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import numpy as np
import structlog

from embedders.contract import Vector
from service.domain import (
    Condition,
    Distance,
    Hit,
    NamedVector,
    Operator,
    Scope,
    SearchOptions,
    SearchSpec,
    StoredObject,
    Target,
    TargetVectors,
)
from service.errors import ObjectNotFound, ServiceError, StoreRejected, StoreUnavailable
from service.store.base import Store

log = structlog.get_logger(__name__)

PARALLEL = 8
"""Objects that are looked for, or entered, at the same time."""

NEAREST = (10, 1000)
"""Hits among which an object is looked for: more where all of the first are as near to its vector as it is itself."""

PAUSES_S = (0.0, 0.1, 0.4, 1.5)
"""Seconds before each look whether an index has taken an entry; one that works in the background takes a moment."""

FLAT = "flat"
"""The index that has no links: it compares everything in each search, which would be long for each object alone."""

TOLERANCE = 1e-4

Result = TypeVar("Result")


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
