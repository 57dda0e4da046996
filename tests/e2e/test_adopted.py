"""Collections as Weaviate's own client makes them, with all it offers: Vecgate takes nothing from them."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode
from weaviate.classes.config import DataType, Property, ReferenceProperty

from service.settings import WeaviateSettings
from tests.conftest import assert_close
from tests.e2e.adopting import (
    BLOB,
    EVERYTHING,
    MODULES,
    OWN,
    UNHANDLED,
    VECTOR,
    Beside,
    Make,
    adopting,
    id_of,
    insert,
    unhandled,
    vector_of,
)
from tests.fakes.embedder import picture
from tests.service.conftest import failure_of
from vecgate.client.values import Object
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

# Deprecated by its client, and used all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Dep024:DeprecationWarning")


@pytest.fixture
async def make(weaviate_settings: WeaviateSettings) -> AsyncIterator[Make]:
    async with adopting(weaviate_settings) as made:
        yield made


@pytest.mark.parametrize("divided", ["no tenants", "tenants"])
@pytest.mark.parametrize("kind", MODULES)
async def test_every_write_keeps_what_vecgate_does_not_handle(make: Make, kind: str, divided: str) -> None:
    tenants = divided == "tenants"
    made = await make(tenants=tenants, **MODULES[kind])
    await insert(made, 1, [1.0] * 8)
    before = await made.stored(1)
    kept = unhandled(before)
    assert len(kept) == (4 if tenants else 5)
    writes: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "an import of other texts": lambda: made.write(Object({"title": "a dog", "words": ["z"]}, id=id_of(1))),
        "the same import": lambda: made.write(Object({"title": "a dog", "words": ["z"]}, id=id_of(1))),
        "an import of a picture": lambda: made.write(Object({}, {"photo": picture((1, 2, 3))}, id=id_of(1))),
        "an import of a vector": lambda: made.write(
            Object({"title": "a"}, vectors={"default": np.arange(1, 9)}, id=id_of(1))
        ),
        "an update": lambda: made.update(
            Object({"title": "a bird"}, id=id_of(1)), "properties.title", "properties.place"
        ),
        "an update of a vector": lambda: made.update(Object({}, vectors={"default": np.arange(2, 10)}, id=id_of(1))),
        "a backfill": lambda: made.backfill(verify=True),
    }

    for what, write in writes.items():
        answer = await write()
        stored = await made.stored(1)

        if isinstance(answer, list) and isinstance(answer[0], pb.ImportResult):
            assert [each.WhichOneof("outcome") for each in answer] == ["stored"], (what, answer)
        assert unhandled(stored) == kept, what
        assert vector_of(stored) is not None, what
        assert stored["creationTimeUnix"] == before["creationTimeUnix"], what
    assert (await made.stored(1))["properties"].keys() == {*kept, "title"}


@pytest.mark.parametrize("kind", MODULES)
async def test_an_import_over_another_clients_object_replaces_all_that_vecgate_handles(make: Make, kind: str) -> None:
    made = await make(**MODULES[kind])
    await insert(made, 1, [1.0] * 8)

    over, new = await made.write(Object({"title": "a dog"}, id=id_of(1)), Object({"title": "a fish"}, id=id_of(2)))

    stored = await made.stored(1)
    assert [each.origin for each in (*over.stored.vectors, *new.stored.vectors)] == [pb.VECTOR_ORIGIN_COMPUTED] * 2
    assert stored["properties"].keys() == {"title", *UNHANDLED}
    assert_close(vector_of(stored), VECTOR("a dog"))
    assert_close(vector_of(await made.stored(2)), VECTOR("a fish"))
    found = await made.theirs.query.near_vector(VECTOR("a dog").tolist(), limit=2, return_properties=["title"])
    assert [each.properties["title"] for each in found.objects] == ["a dog", "a fish"]


async def _schema(made: Beside) -> dict[str, Any]:
    schema: dict[str, Any] = (await made.rest.get(f"/v1/schema/{made.name}")).json()
    # Weaviate gives properties in any order.
    return schema | {"properties": {each["name"]: each for each in schema["properties"]}}


async def _own(made: Beside) -> None:
    """Make the collection anew, by Vecgate, and let Weaviate's own client add to it."""
    await made.direct.collections.delete(made.name)
    vectors = [
        collection_pb.VectorConfig(name="default", text_fields=[{"name": "title"}]),
        collection_pb.VectorConfig(name="words", text_fields=[{"name": "words"}]),
    ]
    properties = [
        property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
        property_pb.Property(name="words", data_type=property_pb.DATA_TYPE_TEXT_ARRAY),
    ]
    wanted = collection_pb.Collection(name=made.name, properties=properties, vectors=vectors)
    await made.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))
    await made.theirs.config.add_property(Property(name="phone", data_type=DataType.PHONE_NUMBER))
    await made.theirs.config.add_reference(ReferenceProperty(name="by", target_collection=f"{made.name}Other"))


async def test_a_vector_that_goes_takes_nothing_with_it_that_vecgate_does_not_handle(
    make: Make,
) -> None:
    made = await make(vector_config=OWN)
    await _own(made)
    await made.write(Object({"title": "a cat", "words": ["x"]}, id=id_of(1)))
    other = await made.direct.collections.use(f"{made.name}Other").data.insert({}, vector={"v": [1, 0]})
    await made.theirs.data.update(UUID(int=1), {"phone": EVERYTHING["phone"]}, references={"by": other})
    kept = unhandled(await made.stored(1))

    await made.update(Object(id=id_of(1)), "properties.words")
    updated = await made.stored(1)
    await made.write(Object({"words": ["y"]}, id=id_of(1)))
    imported = await made.stored(1)

    assert kept.keys() == {"phone", "by"} == unhandled(updated).keys()
    assert (updated["vectors"].keys(), imported["vectors"].keys()) == ({"default"}, {"words"})
    assert unhandled(updated) == unhandled(imported) == kept


async def test_a_vector_stays_that_could_only_go_with_the_loss_of_a_hash(
    make: Make,
) -> None:
    made = await make(vector_config=OWN)
    await _own(made)
    await made.theirs.config.add_property(Property(name="hash", data_type=DataType.BLOB_HASH))
    await made.write(Object({"title": "a cat", "words": ["x"]}, id=id_of(1)))
    await made.theirs.data.update(UUID(int=1), {"hash": BLOB})
    before = await made.stored(1)

    failure = await failure_of(made.update(Object(id=id_of(1)), "properties.words"))
    refused = await made.stored(1)
    await made.update(Object(images={"hash": picture()}, id=id_of(1)), "properties.words", "images.hash")
    updated = await made.stored(1)
    await made.write(Object({"title": "a dog"}, id=id_of(1)))
    imported = await made.stored(1)

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "STORE_REJECTED")
    assert "'hash'" in failure.message
    assert refused == before
    assert (updated["vectors"].keys(), updated["properties"]["hash"]) == ({"default"}, before["properties"]["hash"])
    assert imported["properties"] == {"title": "a dog"}, "an import replaces what it does not have"


async def test_entering_a_vector_into_its_index_again_changes_nothing_else(
    make: Make,
) -> None:
    made = await make(**MODULES["the module, without a name"])
    await insert(made, 1, [1.0] * 8)
    before = await made.stored(1)

    await made.store.reindex_vector(made.name, UUID(int=1), "default", np.ones(8, np.float32))

    after = await made.stored(1)
    assert {**after, "lastUpdateTimeUnix": 0} == {**before, "lastUpdateTimeUnix": 0}


async def test_a_change_of_the_collection_keeps_the_rest_of_its_schema(
    make: Make,
) -> None:
    made = await make(**MODULES["the module, without a name"])
    before = await _schema(made)
    changed = collection_pb.Collection(
        name=made.name,
        description="changed",
        properties=[property_pb.Property(name="year", data_type=property_pb.DATA_TYPE_INT)],
        vectors=[collection_pb.VectorConfig(name="default", index={"hnsw": {"ef": 77}})],
    )

    await made.collections.UpdateCollection(collection_pb.UpdateCollectionRequest(collection=changed))

    after = await _schema(made)
    assert (after["description"], after["vectorIndexConfig"].pop("ef")) == ("changed", 77)
    assert after["properties"].pop("year")
    before["vectorIndexConfig"].pop("ef")
    assert {**before, "description": "changed"} == after
    assert "generative-openai" in after["moduleConfig"]
