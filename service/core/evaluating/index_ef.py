"""Another ef of an HNSW index for a while.

Weaviate has one ef for an index, not one for a search: while it is changed, everybody's searches use it. So nobody's is
changed unless the caller allows it, and the former value comes back whatever happens, but for the end of the process.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog

from service.domain import NamedVector
from service.errors import ServiceError
from service.store.base import Store

DYNAMIC = -1
"""Weaviate's own value: it chooses by the number of hits that a search asks for."""

log = structlog.get_logger(__name__)


def ef_of(vector: NamedVector) -> int:
    """Return the ef of a named vector's index; -1 where Weaviate chooses."""
    return int(vector.index.parameters.get("ef", DYNAMIC))


@asynccontextmanager
async def with_ef(store: Store, collection: str, vector: NamedVector, ef: int | None) -> AsyncIterator[None]:
    """Let the index of a named vector have an ef while the block runs; None leaves it alone.

    Raises:
        StoreUnavailable: the store failed; the log has the former ef if it could not be set again.
    """
    if ef is None or ef == ef_of(vector):
        yield
        return
    log.info("evaluation_changes_ef", collection=collection, vector=vector.name, ef=ef, former=ef_of(vector))
    try:
        await _set(store, collection, vector.name, ef)
        yield
    finally:
        # Also when the caller has left, which cancels this.
        await asyncio.shield(asyncio.ensure_future(_restore(store, collection, vector)))


async def _restore(store: Store, collection: str, vector: NamedVector) -> None:
    try:
        await _set(store, collection, vector.name, ef_of(vector))
    except ServiceError as error:
        former = ef_of(vector)
        log.warning("ef_not_restored", collection=collection, vector=vector.name, former=former, reason=str(error))
        raise


async def _set(store: Store, collection: str, name: str, ef: int) -> None:
    present = await store.get_collection(collection)
    vectors = tuple(
        replace(each, index=replace(each.index, parameters={**each.index.parameters, "ef": ef}))
        if each.name == name
        else each
        for each in present.vectors
    )
    await store.update_collection(replace(present, vectors=vectors))
