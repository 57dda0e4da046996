"""Small and odd collections, of which nothing may be lost when the server is stopped, killed and started again."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from tests.e2e.serving import Serving, serving
from tests.e2e.test_rolling_restart import DIMENSION, nim
from vecgate.client import Client, Object, bm25, where
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import tenant_pb2 as tenant_pb
from vecgate.v1 import vector_index_pb2 as index_pb

PROPERTIES = [
    property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
    property_pb.Property(name="year", data_type=property_pb.DATA_TYPE_INT, index_range_filters=True),
]
HNSW, FLAT, HFRESH = (index_pb.VectorIndex(**{each: {}}) for each in ("hnsw", "flat", "hfresh"))
LONE = {
    "Hnsw": HNSW,
    "Quantized": index_pb.VectorIndex(hnsw={}, quantizer={"rq": {}}),
    "Flat": index_pb.VectorIndex(flat={}, quantizer={"bq": {"cache": True}}),
    "Manhattan": index_pb.VectorIndex(hnsw={}, distance="DISTANCE_MANHATTAN"),
}
"""Collections with one object, by the index of its only vector."""
SEVERAL = "Several"
"""A collection of several named vectors, of which most objects have the first one alone."""
FRESH = "Fresh"
"""A collection whose index a stopped Weaviate 1.39 has some seconds after its start, and a killed one after a write."""
LOADED_S = 60.0
"""Until its index must be there after a clean stop; it takes about 10 s."""
ACTIVE, INACTIVE = tenant_pb.TENANT_ACTIVITY_STATUS_ACTIVE, tenant_pb.TENANT_ACTIVITY_STATUS_INACTIVE

Found = dict[str, Any]


def vector(number: int) -> Any:
    return np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)


def thing(number: int, *names: str) -> Object:
    """Return an object with vectors of these names."""
    vectors = {name: vector(10 * number + each) for each, name in enumerate(names)}
    return Object({"title": f"thing {number}", "year": 2000 + number}, id=str(UUID(int=number)), vectors=vectors)


def create(client: Client, name: str, *vectors: pb.VectorConfig, **fields: Any) -> None:
    client.create_collection(pb.Collection(name=name, properties=PROPERTIES, vectors=vectors, **fields))


def put(client: Client, name: str, *objects: Object, tenant: str = "") -> None:
    assert [each.error for each in client.import_objects(name, objects, tenant=tenant)] == [None] * len(objects)


def fill(client: Client) -> None:
    """Make collections with a single vector, and with what is left after changes."""
    for name, index in LONE.items():
        create(client, name, pb.VectorConfig(name="own", index=index))
        put(client, name, thing(1, "own"))
    create(client, FRESH, pb.VectorConfig(name="own", index=HFRESH))
    put(client, FRESH, *(thing(number, "own") for number in range(3)))

    create(client, SEVERAL, *(pb.VectorConfig(name=name) for name in ("all", "rare", "none")))
    put(client, SEVERAL, *(thing(number, "all") for number in range(5)), thing(5, "all", "rare"))
    client.create_alias("Alias", SEVERAL)

    create(client, "Filled", pb.VectorConfig(name="first", text_fields=[{"name": "title"}]))
    put(client, "Filled", thing(1))
    later = [*client.get_collection("Filled").vectors, pb.VectorConfig(name="later", text_fields=[{"name": "title"}])]
    client.update_collection(pb.Collection(name="Filled", vectors=later), update_mask=["vectors"])
    assert sum(each.filled for each in client.backfill_vectors("Filled")) == 1

    create(client, "Deleted", pb.VectorConfig(name="own"))
    put(client, "Deleted", *(thing(number, "own") for number in range(4)))
    client.delete_object("Deleted", str(UUID(int=0)))
    client.delete_objects("Deleted", where("year") >= 2002)
    create(client, "Emptied", pb.VectorConfig(name="own"))
    put(client, "Emptied", thing(1, "own"))
    client.delete_object("Emptied", str(UUID(int=1)))

    create(client, "Changed", pb.VectorConfig(name="own"))
    put(client, "Changed", thing(1, "own"))
    put(client, "Changed", Object({"title": "again"}, id=str(UUID(int=1)), vectors={"own": vector(77)}))
    client.update_object("Changed", Object({"year": 2020}, id=str(UUID(int=1))))

    create(client, "Shared", pb.VectorConfig(name="own"), multi_tenancy=pb.MultiTenancyConfig(enabled=True))
    client.create_tenants("Shared", ["anna", "ben", "nobody"])
    put(client, "Shared", thing(1, "own"), tenant="anna")
    put(client, "Shared", thing(2, "own"), tenant="ben")
    set_tenant(client, "ben", INACTIVE)


def set_tenant(client: Client, tenant: str, status: tenant_pb.TenantActivityStatus.ValueType) -> None:
    client.update_tenants("Shared", tenant_pb.Tenant(name=tenant, activity_status=status))


def places(client: Client) -> Iterator[tuple[pb.Collection, str]]:
    """Yield each collection with each of its active tenants, or without a tenant."""
    for each in client.list_collections():
        tenants = list(client.list_tenants(each.name)) if each.multi_tenancy.enabled else []
        for name in [one.name for one in tenants if one.activity_status == ACTIVE] if tenants else [""]:
            yield each, name


def everything(client: Client) -> Found:
    """Return all that can be read and found, by the collection's name and the tenant's."""
    found: Found = {"aliases": [(each.name, each.collection) for each in client.list_aliases()]}
    for collection, tenant in places(client):
        name, names = collection.name, [each.name for each in collection.vectors]
        objects = list(client.list_objects(name, return_vectors=names, tenant=tenant))
        place = found[f"{name}/{tenant}"] = {
            "schema": collection.SerializeToString(deterministic=True),
            "count": client.get_collection(name, tenant).object_count,
            "objects": [(each.id, dict(each.properties)) for each in objects],
            "words": [hit.object.id for hit in client.search(name, query=bm25("thing again"), tenant=tenant).hits],
            "years": [each.id for each in client.list_objects(name, filters=where("year") >= 2001, tenant=tenant)],
        }
        for each in objects:
            for of, own in each.vectors.items():
                hits = client.search(name, vector=own, target_vector=of, limit=20, tenant=tenant).hits
                place[f"{of} of {each.id}"] = (np.asarray(own).tobytes(), [hit.object.id for hit in hits])
    return found


def not_found_first(found: Found) -> list[tuple[str, str]]:
    """Return what a search by its own vector does not find first."""
    own = ((place, key) for place, values in found.items() if place != "aliases" for key in values if " of " in key)
    return [(place, key) for place, key in own if found[place][key][1][:1] != [key.rpartition(" ")[2]]]


def wait_for_fresh(client: Client) -> None:
    end_s = time.monotonic() + LOADED_S
    while not client.search(FRESH, vector=vector(0), target_vector="own").hits:
        assert time.monotonic() < end_s, f"{FRESH} is not found"
        time.sleep(0.1)


def kill(running: Serving) -> None:
    """Kill Weaviate and the server that would start it again."""
    weaviate = running.weaviate()
    running.process.kill()
    weaviate.kill()


@pytest.fixture
def settings(weaviate_binary: None) -> Iterator[dict[str, str]]:
    with nim() as address:
        yield {"VECGATE_EMBEDDERS__NIM__KIND": "nim", "VECGATE_EMBEDDERS__NIM__BASE_URL": address}


def test_small_and_odd_collections_are_the_same_after_restarts_and_kills(
    settings: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "daten für später"
    with serving(folder, **settings) as running, running.client() as client:
        fill(client)
        before = everything(client)
        assert not_found_first(before) == []
        assert running.end(signal.SIGTERM) == 0

    # Weaviate tidies the logs of its indexes when it starts: what that loses is gone after the second start.
    with serving(folder, **settings) as running, running.client() as client:
        wait_for_fresh(client)
        after_stop = everything(client)
        kill(running)
    assert after_stop == before

    with serving(folder, **settings) as running, running.client() as client:
        after_kill = everything(client)
        others = before.keys() - {f"{FRESH}/"}
        assert {each: after_kill[each] for each in others} == {each: before[each] for each in others}

        repaired = {
            f"{collection.name}/{tenant}": sum(
                each.repaired for each in client.backfill_vectors(collection.name, tenant=tenant, verify=True)
            )
            for collection, tenant in places(client)
        }
        assert "Shared/anna" in repaired
        assert {place for place, count in repaired.items() if count} <= {f"{FRESH}/"}
        assert everything(client) == before

        set_tenant(client, "ben", ACTIVE)
        now = everything(client)
        assert now["Shared/ben"]["count"] == 1
        assert not_found_first(now) == []
