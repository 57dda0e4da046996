"""Vectors that a killed Weaviate has lost, found and entered again."""

import os
import signal
from pathlib import Path
from uuid import UUID

import numpy as np

from service.core.backfilling import Backfiller, BackfillWishes
from service.core.embed import EmbedderPool
from service.domain import Collection, DataType, NamedVector, Property, ReturnFields, Space, StoredObject
from service.searches import TargetVectors
from service.settings import WeaviateSettings
from service.store.embedded import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore
from tests.fakes.embedder import FakeEmbedder

COUNT = 300
NAME = "Things"
VECTORS = np.random.default_rng(1).standard_normal((COUNT, 64)).astype(np.float32)


async def not_found(store: WeaviateStore) -> set[int]:
    """Return which objects a search by their own vector does not find first."""
    lost = set()
    for number in range(COUNT):
        hits = await store.search(
            NAME, TargetVectors({"main": VECTORS[number]}), limit=1, offset=0, fields=ReturnFields()
        )
        if not hits or hits[0].object.id != UUID(int=number):
            lost.add(number)
    return lost


async def test_index_entries_that_a_killed_weaviate_has_lost_are_entered_again(
    weaviate_binary: None, tmp_path: Path
) -> None:
    settings = WeaviateSettings(embedded=True, data_dir=tmp_path, http_port=0, grpc_port=0, check_interval_s=0.1)
    server = EmbeddedWeaviate(settings, supervised=False)
    await server.start()
    try:
        store = WeaviateStore(server.client_settings)
        await store.start()
        vector = NamedVector("main", Space("fake", 64, "fake/model"))
        await store.create_collection(Collection(NAME, (Property("n", DataType.INT),), (vector,)))
        objects = [StoredObject(UUID(int=n), {"n": n}, {}, {"main": VECTORS[n]}) for n in range(COUNT)]
        for start in range(0, COUNT, 50):
            assert await store.put_objects(NAME, objects[start : start + 50]) == [None] * 50
        assert await not_found(store) == set()
        await store.close()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.stop()
        await server.start()
        store = WeaviateStore(server.client_settings)
        await store.start()
        backfiller = Backfiller(store, EmbedderPool([FakeEmbedder(dimension=64)], check_interval_s=60), page_size=100)

        lost = await not_found(store)
        assert await store.count_objects(NAME) == COUNT
        await store.put_objects(NAME, [objects[n] for n in sorted(lost)])
        assert await not_found(store) == lost, "writing the same again would do, and verify were not needed"
        found = [each async for each in backfiller.run(NAME, BackfillWishes(verify=True))]

        assert lost, "Weaviate loses nothing any more: verify is not needed for this version"
        assert sum(each.repaired for each in found) == len(lost)
        assert not any(each.failures or each.filled for each in found)
        assert await not_found(store) == set()
        again = [each async for each in backfiller.run(NAME, BackfillWishes(verify=True))]
        assert sum(each.repaired for each in again) == 0
        hits = await store.list_objects(NAME, limit=COUNT, offset=0, fields=ReturnFields(["n"], vectors=["main"]))
        assert [hit.object.properties["n"] for hit in hits] == list(range(COUNT))
        assert all(hit.object.vectors["main"].tobytes() == VECTORS[n].tobytes() for n, hit in enumerate(hits)), (
            "the same bits"
        )
        await store.close()
    finally:
        await server.stop()
