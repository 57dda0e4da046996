"""Named vectors that are removed: the last step of a collection's way to another model."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from service.errors import StoreRejected, VectorRemoved
from tests.fakes.embedder import FakeEmbedder
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as pb

TEXT = [{"name": "title"}]
OLD = {"name": "first", "embedder": "old", "text_fields": TEXT}
NEW = {"name": "second", "embedder": "new", "text_fields": TEXT}
NEAR = {"near_text": {"concepts": ["a cat"]}}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server with a collection that has come from one model to another, and a cat in it."""
    running = await start_wire(FakeEmbedder(name="new", space="new"), FakeEmbedder(name="old", space="old"))
    title = property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)
    wanted = collection_pb.Collection(name="Pictures", properties=[title], vectors=[OLD, NEW], default_vector="second")
    await running.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))
    properties = Struct()
    properties.update({"title": "a cat"})
    objects = [object_pb.DataObject(id=str(UUID(int=1)), properties=properties)]
    await running.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=objects))
    yield running
    await stop_wire(running)


def update(wire: Wire, removed: Sequence[str], **fields: Any) -> Any:
    wanted = collection_pb.Collection(name="Pictures", **fields)
    return wire.collections.UpdateCollection(
        collection_pb.UpdateCollectionRequest(collection=wanted, removed_vectors=removed)
    )


def find(wire: Wire, **query: Any) -> Any:
    return wire.search.SearchObjects(pb.SearchObjectsRequest(collection="Pictures", **NEAR, **query))


async def test_a_removed_vector_is_gone_from_the_collection_its_objects_and_searches(wire: Wire) -> None:
    left = (await update(wire, ["first"])).collection

    assert [each.name for each in left.vectors] == ["second"]
    assert left.default_vector == "second"
    found = await find(wire, output={"vectors": ["second"]})
    assert (found.embedder.name, [list(each.object.vectors) for each in found.hits]) == ("new", [["second"]])
    for query in ({"target_vectors": ["first"]}, {"output": {"vectors": ["first"]}}):
        failure = await failure_of(find(wire, **query))
        assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "UNKNOWN_VECTOR")


async def test_the_default_is_switched_and_the_old_one_removed_in_one_call(wire: Wire) -> None:
    left = (await update(wire, ["second"], default_vector="first")).collection
    assert ([each.name for each in left.vectors], left.default_vector) == (["first"], "first")


@pytest.mark.parametrize(
    ("removed", "fields", "field", "words"),
    [
        (["second"], {}, "removed_vectors[0]", "is the default vector"),
        (["first", "second"], {"default_vector": "first"}, "removed_vectors", "which needs one"),
        (["first", "third"], {}, "removed_vectors[1]", "no such named vector; it has: first, second"),
        (["first"], {"vectors": [{"name": "first"}]}, "removed_vectors[0]", "is among collection.vectors, too"),
        (["first"], {"default_vector": "first"}, "collection.default_vector", "it has: second"),
        (["first", "first"], {}, "removed_vectors[1]", "occurs twice"),
        (["x"] * 101, {}, "removed_vectors", "100"),
    ],
    ids=["the default", "all", "unknown", "changed too", "to be the default", "twice", "too many"],
)
async def test_what_cannot_be_removed_is_named_and_nothing_changes(
    wire: Wire, removed: list[str], fields: dict[str, Any], field: str, words: str
) -> None:
    failure = await failure_of(update(wire, removed, description="changed", **fields))

    assert failure.code is StatusCode.INVALID_ARGUMENT
    assert field in failure.fields
    assert words in failure.message
    after = await wire.store.get_collection("Pictures")
    assert ([each.name for each in after.vectors], after.description) == (["first", "second"], "")


async def test_the_only_vector_and_one_without_a_name_stay(wire: Wire) -> None:
    await update(wire, ["first"])
    only = await failure_of(update(wire, ["second"]))
    assert only.fields == ["removed_vectors"]
    assert "default_vector" not in only.message

    found = await wire.store.get_collection("Pictures")
    (vector,) = found.vectors
    await wire.store.update_collection(replace(found, vectors=(replace(vector, nameless=True),)))
    nameless = await failure_of(update(wire, ["second"]))
    assert "Weaviate cannot remove" in nameless.message


async def test_a_repeated_call_succeeds_and_the_name_is_taken_until_the_data_are_gone(wire: Wire) -> None:
    await update(wire, ["first"])
    await update(wire, ["first"])

    failure = await failure_of(update(wire, [], vectors=[OLD]))

    assert failure.fields == ["collection.vectors[0].name"]
    assert "still deleting its data" in failure.message


async def test_a_weaviate_that_cannot_remove_vectors_says_what_it_needs(wire: Wire) -> None:
    wire.store.fail_next_of("remove_vector", StoreRejected("this Weaviate does not remove named vectors"))

    failure = await failure_of(update(wire, ["first"], default_vector="second"))

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "STORE_REJECTED")
    after = await wire.store.get_collection("Pictures")
    assert ([each.name for each in after.vectors], after.default_vector) == (["first", "second"], "second")


async def test_a_search_that_meets_a_removal_looks_again(wire: Wire) -> None:
    wire.store.fail_next_of("search", VectorRemoved("first"))

    answer = await find(wire)

    assert ([each.object.id for each in answer.hits], answer.embedder.name) == ([str(UUID(int=1))], "new")
    assert wire.store.calls.count("search") == 2
