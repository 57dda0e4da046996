"""Which named vector a search that names none goes to, before and after a collection moves to another model."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from embedders.errors import EmbedderUnavailable
from tests.fakes.embedder import FakeEmbedder
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.vector_pb2 import Vector

CAT = str(UUID(int=1))
TEXT = [{"name": "title"}]
OLD = {"name": "first", "embedder": "old", "text_fields": TEXT}
NEW = {"name": "second", "embedder": "new", "text_fields": TEXT}
TWIN = {"name": "also", "embedder": "old", "text_fields": TEXT}
NEAR = {"near_text": {"concepts": ["a cat"]}}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server that prefers the embedder that came later."""
    running = await start_wire(FakeEmbedder(name="new", space="new"), FakeEmbedder(name="old", space="old"))
    yield running
    await stop_wire(running)


async def create(wire: Wire, *vectors: dict[str, Any], **more: Any) -> collection_pb.Collection:
    """Create a collection with these named vectors and a cat."""
    title = property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)
    wanted = collection_pb.Collection(name="Pictures", properties=[title], vectors=vectors, **more)
    made = await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))
    await fill(wire)
    return made.collection


async def fill(wire: Wire) -> None:
    properties = Struct()
    properties.update({"title": "a cat"})
    objects = [object_pb.DataObject(id=CAT, properties=properties)]
    await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=objects))


async def update(wire: Wire, *mask: str, **fields: Any) -> collection_pb.Collection:
    wanted = collection_pb.Collection(name="Pictures", **fields)
    request = collection_pb.UpdateCollectionRequest(collection=wanted, update_mask={"paths": mask})
    return (await wire.collections.UpdateCollection(request)).collection


async def find(wire: Wire, **query: Any) -> pb.SearchObjectsResponse:
    return await wire.search.SearchObjects(pb.SearchObjectsRequest(collection="Pictures", **query))


def own(wire: Wire, number: int, **more: Any) -> dict[str, Any]:
    data = wire.embedders[number].vector("a cat").astype("<f4").tobytes()
    return {"near_vector": {"vector": Vector(data=data), **more}}


@pytest.mark.parametrize("added", [NEW, TWIN], ids=["of another space", "of the same space"])
async def test_a_vector_that_is_added_never_takes_the_searches_that_name_none(
    wire: Wire, added: dict[str, Any]
) -> None:
    await create(wire, OLD)

    updated = await update(wire, vectors=[added])

    assert updated.default_vector == "first"
    for query in (NEAR, {"near_object": {"id": CAT}}, own(wire, 1), {"hybrid": {"bm25": {"query": "a cat"}}}):
        assert len((await find(wire, **query)).hits) == 1
    assert (await find(wire, **NEAR)).embedder.name == "old"


async def test_the_default_vector_can_be_switched_and_left_to_the_server_again(wire: Wire) -> None:
    await create(wire, OLD)
    await update(wire, vectors=[NEW])

    switched = await update(wire, default_vector="second")
    empty = await find(wire, **NEAR)
    await fill(wire)
    filled = await find(wire, **NEAR)
    back = await update(wire, default_vector="first")
    kept = await update(wire, "description", description="other", default_vector="second")
    left = await update(wire, "default_vector")

    assert [each.default_vector for each in (switched, back, kept, left)] == ["second", "first", "first", "second"]
    assert (empty.embedder.name, len(empty.hits)) == ("new", 0)
    assert (filled.embedder.name, len(filled.hits)) == ("new", 1)


async def test_a_vector_can_be_added_and_made_the_default_in_one(wire: Wire) -> None:
    await create(wire, OLD)
    assert (await update(wire, vectors=[NEW], default_vector="second")).default_vector == "second"


async def test_a_collection_is_created_with_a_default_vector_or_says_which_is_in_force(wire: Wire) -> None:
    chosen = await create(wire, OLD, NEW, default_vector="first")
    await wire.collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name="Pictures"))
    by_order = await create(wire, OLD, NEW)
    await wire.collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name="Pictures"))
    none = await create(wire, OLD, TWIN)

    assert [each.default_vector for each in (chosen, by_order, none)] == ["first", "second", ""]
    failure = await failure_of(find(wire, **NEAR))
    assert (failure.reasons, failure.fields) == (["UNKNOWN_VECTOR"], ["target_vectors"])
    assert "also, first" in failure.message


async def test_a_default_vector_that_is_not_there_is_refused(wire: Wire) -> None:
    await create(wire, OLD)

    for call in (update(wire, default_vector="nope"), create(wire, OLD, NEW, default_vector="nope")):
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "UNKNOWN_VECTOR")
        assert failure.fields == ["collection.default_vector"]


async def test_the_other_vector_stands_in_while_the_default_one_s_embedder_is_down(wire: Wire) -> None:
    await create(wire, OLD, NEW, default_vector="first")
    wire.embedders[1].failure = EmbedderUnavailable("it is down", retry_after_s=3)

    response = await find(wire, **NEAR)

    assert (response.embedder.name, len(response.hits)) == ("new", 1)


async def test_a_server_without_the_default_vector_s_embedder_searches_the_one_it_has(wire: Wire) -> None:
    await create(wire, OLD, NEW, default_vector="first")
    later = await start_wire(FakeEmbedder(name="new", space="new"), store=wire.store)

    try:
        response = await find(later, **NEAR)
    finally:
        await stop_wire(later)

    assert (response.embedder.name, len(response.hits)) == ("new", 1)


async def test_an_own_vector_goes_where_its_space_says_and_else_to_a_default_that_was_chosen(wire: Wire) -> None:
    await create(wire, OLD, NEW, default_vector="first")

    assert (await find(wire, **own(wire, 0, space="new"))).hits[0].distance < 1e-5
    assert (await find(wire, **own(wire, 1))).hits[0].distance < 1e-5
    await update(wire, "default_vector")
    failure = await failure_of(find(wire, **own(wire, 1)))
    assert (failure.reasons, failure.fields) == (["UNKNOWN_VECTOR"], ["target_vectors"])
