"""Vectors that a killed Weaviate has lost, found and entered again."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from service.core.embedder_pool import EmbedderPool
from service.core.objects.backfilling import Backfiller, BackfillWishes
from service.core.objects.checks import DraftObject
from service.core.objects.importing import Importer
from service.core.objects.writing import IndexEntries, Writes
from service.domain import (
    Collection,
    DataType,
    NamedVector,
    Property,
    ReturnFields,
    SearchSpec,
    Space,
    StoredObject,
    TargetVectors,
    VectorIndex,
)
from service.errors import ServiceError
from service.settings import WeaviateSettings
from service.store.base import NO_TENANT
from service.store.embedded.server import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.weaviate import at_ports

COUNT = 300
KILLS = 5
NAME = "Things"
VECTORS = np.random.default_rng(1).standard_normal((COUNT, 64)).astype(np.float32)

MAIN = NamedVector("main", Space("fake", 64, "fake/model"))
OBJECTS = [StoredObject(UUID(int=n), {"n": n}, {}, {"main": VECTORS[n]}) for n in range(COUNT)]


async def not_found(store: WeaviateStore) -> set[int]:
    """Return which objects a search by their own vector does not find first."""

    async def finds(number: int) -> bool:
        target = TargetVectors({"main": VECTORS[number]})
        hits = await store.search(NAME, SearchSpec(target, limit=1))
        return bool(hits) and hits[0].object.id == UUID(int=number)

    found = await asyncio.gather(*map(finds, range(COUNT)))
    return {number for number in range(COUNT) if not found[number]}


@asynccontextmanager
async def killed_after_all_was_written(folder: Path) -> AsyncIterator[WeaviateStore]:
    """Give a store over a Weaviate that was killed after all objects were written, and started again."""
    settings = WeaviateSettings(embedded=True, data_dir=folder, **at_ports(0, 0))
    server = EmbeddedWeaviate(settings, supervised=False)
    await server.start()
    try:
        store = WeaviateStore(server.client_settings)
        await store.start()
        await store.create_collection(Collection(NAME, (Property("n", DataType.INT),), (MAIN,)))
        for start in range(0, COUNT, 50):
            assert await store.put_objects(NAME, OBJECTS[start : start + 50]) == [None] * 50
        # Before anything else makes Weaviate write down what it has in its memory.
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await store.close()
        await server.stop()
        await server.start()
        store = WeaviateStore(server.client_settings)
        await store.start()
        yield store
        await store.close()
    finally:
        await server.stop()


@pytest.fixture
async def killed(
    weaviate_binary: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WeaviateStore]:
    """Return a store whose objects were written as other programs do: Weaviate was not made to write them down.

    What it loses is what it has not written to its disk by then, which may be nothing: then it is killed again.
    """

    async def nothing(*_: object) -> dict[UUID, ServiceError]:
        return {}

    monkeypatch.setattr("service.store.weaviate.store.confirm", nothing)
    for number in range(KILLS):
        async with killed_after_all_was_written(tmp_path / str(number)) as store:
            if await not_found(store):
                yield store
                return
    pytest.fail("Weaviate loses nothing any more: verify is not needed for this version")


@pytest.mark.parametrize("index", ["hnsw", "flat"])
async def test_a_weaviate_that_is_killed_has_all_objects_that_it_acknowledged_in_its_index(
    weaviate_binary: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str
) -> None:
    vector = replace(MAIN, index=VectorIndex(index))
    monkeypatch.setattr(sys.modules[__name__], "MAIN", vector)
    async with killed_after_all_was_written(tmp_path) as store:
        assert await store.count_objects(NAME) == COUNT
        assert await not_found(store) == set()


def pool() -> EmbedderPool:
    return EmbedderPool([FakeEmbedder(dimension=64)], check_interval_s=60)


async def test_index_entries_that_a_killed_weaviate_has_lost_are_entered_again(killed: WeaviateStore) -> None:
    backfiller = Backfiller(killed, pool(), Writes(), page_size=100)

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
    hits = await killed.search(NAME, SearchSpec(limit=COUNT, fields=ReturnFields(["n"], vectors=["main"])))
    assert [hit.object.properties["n"] for hit in hits] == list(range(COUNT))
    assert all(hit.object.vectors["main"].tobytes() == VECTORS[n].tobytes() for n, hit in enumerate(hits)), (
        "the same bits"
    )


async def test_an_import_again_enters_what_a_killed_weaviate_has_lost(killed: WeaviateStore) -> None:
    importer = Importer(killed, pool(), Writes(), max_chunk_objects=100, max_chunk_bytes=10**6)
    drafts = [
        DraftObject(f"objects[{n}]", str(UUID(int=n)), {"n": float(n)}, {}, {"main": VECTORS[n].tobytes()})
        for n in range(COUNT)
    ]
    having = {each.id: each.vectors["main"] for each in OBJECTS}
    lost = await IndexEntries(killed).find_lost(NAME, MAIN, having, NO_TENANT)

    report = await importer.import_objects(NAME, drafts, truncate=False)

    assert lost
    assert [outcome.error for outcome in report.outcomes] == [None] * COUNT
    assert await IndexEntries(killed).find_lost(NAME, MAIN, having, NO_TENANT) == []
