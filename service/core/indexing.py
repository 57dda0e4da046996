"""Entries of vectors in their index: which objects it lacks though they have the vector, and entering these again.

Weaviate writes an object first and its index entries afterwards. Where the second fails, for want of memory or because
it is killed, the object is there and no search by vector sees it; writing the same again enters nothing.
"""

import asyncio
from collections.abc import Iterable, Mapping
from uuid import UUID

import structlog

from embedders.inputs import Vector
from service.domain import ReturnFields, Scope, StoredObject
from service.errors import ObjectNotFound, ServiceError, StoreRejected, StoreUnavailable
from service.filters import Condition, Operator, Target
from service.searches import SearchOptions, TargetVectors
from service.store.base import Store

__all__ = ["WRITES", "IndexEntries", "unchanged"]

log = structlog.get_logger(__name__)

WRITES = 8
"""Objects that are written at the same time."""


def unchanged(object_: StoredObject, before: StoredObject) -> dict[str, Vector]:
    """Return those vectors of an object that it had before, bit by bit."""
    return {
        name: vector
        for name, vector in object_.vectors.items()
        if name in before.vectors and vector.tobytes() == before.vectors[name].tobytes()
    }


class IndexEntries:
    """Finds and mends what indexes lack."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writes = asyncio.Semaphore(WRITES)

    async def find_lost(self, name: str, vector_name: str, having: Mapping[UUID, Vector], scope: Scope) -> list[UUID]:
        """Return which objects of a collection a search of a named vector does not see though they have it."""
        if not having:
            return []
        # So few are compared one by one, and each that the index knows is found whatever its distance.
        among = Condition(Target.ID, Operator.CONTAINS_ANY, [str(id_) for id_ in having])
        hits = await self._store.search(
            name,
            TargetVectors({vector_name: next(iter(having.values()))}),
            limit=len(having),
            offset=0,
            fields=ReturnFields(),
            options=SearchOptions(among),
            scope=scope,
        )
        seen = {hit.object.id for hit in hits}
        return [id_ for id_ in having if id_ not in seen]

    async def enter(
        self, name: str, vector_name: str, having: Mapping[UUID, Vector], ids: Iterable[UUID], scope: Scope
    ) -> dict[UUID, ServiceError]:
        """Enter the vectors of some objects into their index, and return why that failed, by id."""
        failures: dict[UUID, ServiceError] = {}

        async def enter(id_: UUID) -> None:
            try:
                async with self._writes:
                    await self._store.reindex_vector(name, id_, vector_name, having[id_], scope)
            except (ObjectNotFound, StoreRejected, StoreUnavailable) as error:
                failures[id_] = error

        async with asyncio.TaskGroup() as group:
            for id_ in ids:
                group.create_task(enter(id_))
        return failures

    async def mend(
        self, name: str, vector_name: str, having: Mapping[UUID, Vector], scope: Scope
    ) -> dict[UUID, ServiceError]:
        """Enter what the index of a named vector lacks of some objects, and return why that failed, by id.

        Raises:
            StoreUnavailable: the store failed.
        """
        try:
            lost = await self.find_lost(name, vector_name, having, scope)
        except StoreRejected as error:
            log.info("index_unread", collection=name, error=type(error).__qualname__)
            return {}
        failures = await self.enter(name, vector_name, having, lost, scope)
        return {id_: error for id_, error in failures.items() if not isinstance(error, ObjectNotFound)}
