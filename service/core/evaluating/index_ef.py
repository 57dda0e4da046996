"""Another ef of an HNSW index for a while.

Weaviate has one ef for an index, not one for a search: while it is changed, everybody's searches use it. So nobody's is
changed unless the caller allows it, and the former value comes back whatever happens, but for the end of the process.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import structlog

from service.domain import Collection
from service.errors import ServiceError
from service.store.base import Store

DYNAMIC = -1
"""Weaviate's own value: it chooses by the number of hits that a search asks for."""

END_S = 5.0
"""Seconds to wait at shutdown until former values are back."""

log = structlog.get_logger(__name__)


class EfChanges:
    """Changes the ef of indexes for a while. What it has begun ends, however often its caller is cancelled.

    Args:
        store: where the indexes are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: set[asyncio.Task[object]] = set()

    @asynccontextmanager
    async def changed(self, collection: str, vector: str, ef: int | None) -> AsyncIterator[None]:
        """Let the index of a named vector have an ef while the block runs; None leaves it alone.

        Raises:
            CollectionNotFound: the collection has been deleted meanwhile.
            StoreUnavailable: the store failed; the log has the former ef if it could not be set again.
        """
        if ef is None:
            yield
            return
        present = await self._store.get_collection(collection)
        former = _ef_of(present, vector)
        if ef == former:
            yield
            return
        log.info("evaluation_changes_ef", collection=collection, vector=vector, ef=ef, former=former)
        change = self._begin(self._store.update_collection(_with_ef(present, vector, ef)))
        try:
            await asyncio.shield(change)
            yield
        finally:
            # Also when the caller has left, which cancels this.
            await asyncio.shield(self._begin(self._restore(collection, vector, former, change)))

    async def settled(self) -> None:
        """Wait until nothing that was begun is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Wait until former values are back, for a few seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_S)

    def _begin(self, work: Coroutine[Any, Any, object]) -> "asyncio.Task[object]":
        task = asyncio.create_task(work, name="index-ef")
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: "asyncio.Task[object]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Who has left does not hear of it, and asyncio would say so.
            task.exception()

    async def _restore(self, collection: str, vector: str, former: int, change: "asyncio.Task[object]") -> None:
        # Otherwise a change whose caller has left might come last.
        await asyncio.wait([change])
        try:
            present = await self._store.get_collection(collection)
            await self._store.update_collection(_with_ef(present, vector, former))
        except ServiceError as error:
            log.warning("ef_not_restored", collection=collection, vector=vector, former=former, reason=str(error))
            raise


def _ef_of(collection: Collection, vector: str) -> int:
    """Return the ef of a named vector's index; -1 where Weaviate chooses."""
    found = collection.find_vector(vector)
    return DYNAMIC if found is None else int(found.index.parameters.get("ef", DYNAMIC))


def _with_ef(collection: Collection, vector: str, ef: int) -> Collection:
    vectors = tuple(
        replace(each, index=replace(each.index, parameters={**each.index.parameters, "ef": ef}))
        if each.name == vector
        else each
        for each in collection.vectors
    )
    return replace(collection, vectors=vectors)
