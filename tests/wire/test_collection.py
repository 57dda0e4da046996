import pytest
from grpc import StatusCode

from tests.wire.conftest import Wire, failure_of
from vecgate.v1 import collection_service_pb2 as pb

IMAGE = {"name": "image", "data_type": pb.DATA_TYPE_BLOB}
FIRST = "collection.vectors[0]"
TITLE = {"name": "title", "data_type": pb.DATA_TYPE_TEXT}


def create(**fields: object) -> pb.CreateCollectionRequest:
    base = {"name": "Pictures", "properties": [IMAGE, TITLE], "vectors": [{"name": "default"}]}
    return pb.CreateCollectionRequest(collection=pb.Collection(**{**base, **fields}))


async def test_a_created_collection_is_bound_to_the_embedders_space(wire: Wire) -> None:
    vector = {"name": "default", "image_fields": [{"name": "image", "weight": 0.5}], "text_fields": [{"name": "title"}]}

    response = await wire.collections.CreateCollection(create(description="art", vectors=[vector]))

    (config,) = response.collection.vectors
    assert (config.space, config.dimension, config.model, config.embedder) == ("fake", 8, "fake/model", "fake")
    assert config.distance == pb.DISTANCE_COSINE
    assert (config.image_fields[0].weight, config.text_fields[0].weight) == (0.5, 1.0)
    got = (await wire.collections.GetCollection(pb.GetCollectionRequest(name="Pictures"))).collection
    assert got.object_count == 0
    got.ClearField("object_count")
    assert got == response.collection


async def test_collections_are_listed_in_pages_by_name_and_deleted(wire: Wire) -> None:
    for name in ("C", "A", "B"):
        await wire.collections.CreateCollection(create(name=name))

    first = await wire.collections.ListCollections(pb.ListCollectionsRequest(page_size=2))
    second = await wire.collections.ListCollections(
        pb.ListCollectionsRequest(page_size=2, page_token=first.next_page_token)
    )
    await wire.collections.DeleteCollection(pb.DeleteCollectionRequest(name="B"))
    rest = await wire.collections.ListCollections(pb.ListCollectionsRequest())

    assert [each.name for each in first.collections] == ["A", "B"]
    assert [each.name for each in second.collections] == ["C"]
    assert second.next_page_token == ""
    assert [each.name for each in rest.collections] == ["A", "C"]


@pytest.mark.parametrize("method", ["GetCollection", "DeleteCollection"])
async def test_a_collection_that_is_not_there_is_not_found(wire: Wire, method: str) -> None:
    request = {"GetCollection": pb.GetCollectionRequest, "DeleteCollection": pb.DeleteCollectionRequest}[method]

    failure = await failure_of(getattr(wire.collections, method)(request(name="Nothing")))

    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND")
    assert failure.metadata == {"name": "Nothing"}


async def test_a_second_collection_of_a_name_is_refused(wire: Wire) -> None:
    await wire.collections.CreateCollection(create())

    failure = await failure_of(wire.collections.CreateCollection(create()))

    assert (failure.code, failure.reason) == (StatusCode.ALREADY_EXISTS, "COLLECTION_ALREADY_EXISTS")


async def test_an_unknown_embedder_is_refused_and_nothing_is_created(wire: Wire) -> None:
    vectors = [{"name": "default", "embedder": "other"}]

    failure = await failure_of(wire.collections.CreateCollection(create(vectors=vectors)))

    assert failure.reason == "EMBEDDER_NOT_FOUND"
    assert await wire.store.list_collections() == []


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"name": "pictures"}, ["collection.name"]),
        ({"name": "P" * 256}, ["collection.name"]),
        ({"vectors": []}, ["collection.vectors"]),
        ({"properties": [{"name": "id", "data_type": pb.DATA_TYPE_TEXT}]}, ["collection.properties[0].name"]),
        ({"properties": [{"name": "Title", "data_type": pb.DATA_TYPE_TEXT}]}, ["collection.properties[0].name"]),
        ({"properties": [{"name": "title"}]}, ["collection.properties[0].data_type"]),
        ({"properties": [{"name": "title", "data_type": 99}]}, ["collection.properties[0].data_type"]),
        ({"properties": [TITLE, TITLE]}, ["collection.properties[1].name"]),
        ({"vectors": [{"name": "a"}, {"name": "a"}]}, ["collection.vectors[1].name"]),
        ({"vectors": [{"name": "no dots."}]}, ["collection.vectors[0].name"]),
        ({"vectors": [{"name": "a", "distance": 99}]}, ["collection.vectors[0].distance"]),
        ({"vectors": [{"name": "a", "image_fields": [{"name": "title"}]}]}, [f"{FIRST}.image_fields[0].name"]),
        ({"vectors": [{"name": "a", "text_fields": [{"name": "image"}]}]}, [f"{FIRST}.text_fields[0].name"]),
        ({"vectors": [{"name": "a", "text_fields": [{"name": "other"}]}]}, [f"{FIRST}.text_fields[0].name"]),
        (
            {"vectors": [{"name": "a", "text_fields": [{"name": "title", "weight": float("nan")}]}]},
            ["collection.vectors[0].text_fields[0].weight"],
        ),
        (
            {"vectors": [{"name": "a", "text_fields": [{"name": "title", "weight": 0}, {"name": "title"}]}]},
            ["collection.vectors[0].text_fields[0].weight", "collection.vectors[0].text_fields[1].name"],
        ),
        ({"name": "", "vectors": []}, ["collection.name", "collection.vectors"]),
    ],
)  # fmt: skip
async def test_every_violation_of_a_schema_is_listed_with_its_path(
    wire: Wire, fields: dict[str, object], paths: list[str]
) -> None:
    failure = await failure_of(wire.collections.CreateCollection(create(**fields)))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert failure.fields == paths


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (pb.ListCollectionsRequest(page_size=-1), "page_size"),
        (pb.ListCollectionsRequest(page_size=1001), "page_size"),
        (pb.ListCollectionsRequest(page_token="!"), "page_token"),
        (pb.ListCollectionsRequest(page_token="bm90IGEgbmFtZQ=="), "page_token"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(wire: Wire, request_: pb.ListCollectionsRequest, path: str) -> None:
    failure = await failure_of(wire.collections.ListCollections(request_))

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", [path])
