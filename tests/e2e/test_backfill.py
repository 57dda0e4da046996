"""Vectors that a killed Weaviate has lost, found and entered again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from service.core.backfilling import Backfiller, BackfillWishes
from service.core.conformance import DraftObject
from service.core.embed import EmbedderPool
from service.core.importing import Importer
from service.core.indexing import IndexEntries
from service.domain import Collection, DataType, NamedVector, Property, ReturnFields, Space, StoredObject
from service.searches import TargetVectors
from service.settings import WeaviateSettings
from service.store.base import NO_TENANT
from service.store.embedded import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore
from tests.fakes.embedder import FakeEmbedder

COUNT = 300
KILLS = 5
NAME = "Things"
VECTORS = np.random.default_rng(1).standard_normal((COUNT, 64)).astype(np.float32)

OBJECTS = [StoredObject(UUID(int=n), {"n": n}, {}, {"main": VECTORS[n]}) for n in range(COUNT)]


async def not_found(store: WeaviateStore) -> set[int]:
    """Return which objects a search by their own vector does not find first."""

    async def finds(number: int) -> bool:
        target = TargetVectors({"main": VECTORS[number]})
        hits = await store.search(NAME, target, limit=1, offset=0, fields=ReturnFields())
        return bool(hits) and hits[0].object.id == UUID(int=number)

    found = await asyncio.gather(*map(finds, range(COUNT)))
    return {number for number in range(COUNT) if not found[number]}


@pytest.fixture
async def killed(weaviate_binary: None, tmp_path: Path) -> AsyncIterator[WeaviateStore]:
    """Return a store over a Weaviate that was killed after all objects were written and found, and started again.

    What it loses is what it has not written to its disk by then, which may be nothing: then it is killed again.
    """
    settings = WeaviateSettings(embedded=True, data_dir=tmp_path, http_port=0, grpc_port=0, check_interval_s=0.1)
    server = EmbeddedWeaviate(settings, supervised=False)
    await server.start()
    try:
        store = WeaviateStore(server.client_settings)
        await store.start()
        vector = NamedVector("main", Space("fake", 64, "fake/model"))
        for _ in range(KILLS):
            await store.create_collection(Collection(NAME, (Property("n", DataType.INT),), (vector,)))
            for start in range(0, COUNT, 50):
                assert await store.put_objects(NAME, OBJECTS[start : start + 50]) == [None] * 50
            assert await not_found(store) == set()
            await store.close()
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await server.stop()
            await server.start()
            store = WeaviateStore(server.client_settings)
            await store.start()
            if await not_found(store):
                break
            await store.delete_collection(NAME)
        else:
            pytest.fail("Weaviate loses nothing any more: verify is not needed for this version")
        yield store
        await store.close()
    finally:
        await server.stop()


def pool() -> EmbedderPool:
    return EmbedderPool([FakeEmbedder(dimension=64)], check_interval_s=60)


async def test_index_entries_that_a_killed_weaviate_has_lost_are_entered_again(killed: WeaviateStore) -> None:
    backfiller = Backfiller(killed, pool(), page_size=100)

    lost = await not_found(killed)
    assert await killed.count_objects(NAME) == COUNT
    await killed.put_objects(NAME, [OBJECTS[n] for n in sorted(lost)])
    assert await not_found(killed) == lost, "writing the same again would do, and verify were not needed"
    found = [each async for each in backfiller.run(NAME, BackfillWishes(verify=True))]

    assert sum(each.repaired for each in found) == len(lost)
    assert not any(each.failures or each.filled for each in found)
    assert await not_found(killed) == set()
    again = [each async for each in backfiller.run(NAME, BackfillWishes(verify=True))]
    assert sum(each.repaired for each in again) == 0
    hits = await killed.list_objects(NAME, limit=COUNT, offset=0, fields=ReturnFields(["n"], vectors=["main"]))
    assert [hit.object.properties["n"] for hit in hits] == list(range(COUNT))
    assert all(hit.object.vectors["main"].tobytes() == VECTORS[n].tobytes() for n, hit in enumerate(hits)), (
        "the same bits"
    )


async def test_an_import_again_enters_what_a_killed_weaviate_has_lost(killed: WeaviateStore) -> None:
    importer = Importer(killed, pool(), max_chunk_objects=100, max_chunk_bytes=10**6)
    drafts = [DraftObject(str(UUID(int=n)), {"n": float(n)}, {}, {"main": VECTORS[n].tobytes()}) for n in range(COUNT)]
    having = {each.id: each.vectors["main"] for each in OBJECTS}
    lost = await IndexEntries(killed).find_lost(NAME, "main", having, NO_TENANT)

    report = await importer.import_objects(NAME, drafts, truncate=False)

    assert lost
    assert [outcome.error for outcome in report.outcomes] == [None] * COUNT
    assert await IndexEntries(killed).find_lost(NAME, "main", having, NO_TENANT) == []
