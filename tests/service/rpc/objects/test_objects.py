"""Listing and deleting objects over the wire."""

from uuid import UUID

import numpy as np
import pytest
from google.protobuf import json_format
from grpc import StatusCode

from service.core.objects import objects
from service.errors import CollectionNotFound, ServiceError, VectorRemoved
from service.rpc.objects import servicer
from tests.service.conftest import Wire, failure_of, unpack
from vecgate.client import where
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1.vector_pb2 import Vector

COUNT = 10


@pytest.fixture
async def pictures(wire: Wire) -> Wire:
    """Return a server with ten objects of the years 0 to 9, each with a picture of 1000 bytes and a ready vector."""
    await wire.create_pictures()
    for number in range(COUNT):
        vector = Vector(data=np.full(8, number + 1, "<f4").tobytes())
        made = pb.DataObject(
            id=str(UUID(int=number)), images={"image": {"content": b"x" * 1000}}, vectors={"default": vector}
        )
        made.properties.update({"year": number, "title": f"picture {number}"})
        answer = await wire.objects.ImportObjects(pb.ImportObjectsRequest(collection="Pictures", objects=[made]))
        assert answer.results[0].HasField("stored")
    return wire


async def pages(wire: Wire, **fields: object) -> list[list[pb.DataObject]]:
    found: list[list[pb.DataObject]] = []
    token = ""
    while True:
        request = pb.ListObjectsRequest(collection="Pictures", page_token=token, **fields)
        response = await wire.objects.ListObjects(request)
        found.append(list(response.objects))
        token = response.next_page_token
        if not token:
            return found


def numbers(objects: list[pb.DataObject]) -> list[int]:
    return [UUID(each.id).int for each in objects]


@pytest.mark.parametrize("size", [0, 1, 3, 5, 10, 11])
async def test_pages_give_every_object_once_by_id(pictures: Wire, size: int) -> None:
    found = await pages(pictures, page_size=size)

    assert [number for page in found for number in numbers(page)] == list(range(COUNT))
    assert all(len(page) == (size or COUNT) for page in found[:-1])


@pytest.mark.parametrize("error", [CollectionNotFound("Pictures"), VectorRemoved("default")])
async def test_a_page_whose_collection_has_changed_is_read_by_the_new_schema(
    pictures: Wire, error: ServiceError
) -> None:
    pictures.store.fail_next_of("search", error)

    (page,) = await pages(pictures)

    assert numbers(page) == list(range(COUNT))
    assert pictures.store.calls.count("search") == 2


async def test_a_page_has_what_is_asked_for(pictures: Wire) -> None:
    ((first, *_),) = await pages(pictures)
    assert (dict(first.properties), dict(first.images), dict(first.vectors)) == (
        {"year": 0, "title": "picture 0"}, {}, {}
    )  # fmt: skip
    output = {"properties": ["year"], "images": ["image"], "vectors": ["default"]}
    ((_, second, *_),) = await pages(pictures, output=output)
    assert dict(second.properties) == {"year": 1}
    assert second.images["image"].content == b"x" * 1000
    assert second.vectors["default"].data == np.full(8, 2, "<f4").tobytes()


async def test_a_page_ends_before_an_answer_grows_too_large(pictures: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer, "FRAME_BYTES", servicer.FRAME_BYTES + (64 << 20) // 4)

    found = await pages(pictures, output={"images": ["image"]})

    assert [len(page) for page in found] == [1] * COUNT or [len(page) for page in found][:-1] == [2] * (COUNT // 2)
    assert [number for page in found for number in numbers(page)] == list(range(COUNT))


@pytest.mark.parametrize("size", [1, 3, 4, 8, 9])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"filters": where("year") >= 2}, [2, 3, 4, 5, 6, 7, 8, 9]),
        ({"sort": [{"property": "year", "descending": True}]}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ({"filters": where("year") < 3, "sort": [{"property": "title", "descending": True}]}, [2, 1, 0]),
    ],
    ids=["filters", "sort", "both"],
)
async def test_pages_with_filters_or_sort_give_every_object_once(
    pictures: Wire, fields: dict[str, object], expected: list[int], size: int
) -> None:
    found = await pages(pictures, page_size=size, **fields)

    assert [number for page in found for number in numbers(page)] == expected
    assert all(len(page) == size for page in found[:-1])


async def test_a_listing_with_filters_ends_where_weaviate_reads_no_further_and_says_so(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "WINDOW", 6)
    request = pb.ListObjectsRequest(collection="Pictures", page_size=4, filters=where("year") >= 2)

    first = await pictures.objects.ListObjects(request)
    request.page_token = first.next_page_token
    second = await pictures.objects.ListObjects(request)
    request.page_token = second.next_page_token
    failure = await failure_of(pictures.objects.ListObjects(request))
    exact = await pages(pictures, page_size=4, filters=where("year") >= 4)

    assert numbers([*first.objects, *second.objects]) == [2, 3, 4, 5, 6, 7]
    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, ["page_token"])
    assert "first 6 objects" in failure.message
    assert "narrow the filters" in failure.message
    assert [numbers(page) for page in exact] == [[4, 5, 6, 7], [8, 9]]


ALL = pb.ListObjectsRequest(collection="Pictures", page_size=2)
FILTERED = pb.ListObjectsRequest(collection="Pictures", page_size=2, filters=where("year") >= 2)
SORTED = pb.ListObjectsRequest(collection="Pictures", page_size=2, sort=[{"property": "year"}])


@pytest.mark.parametrize(
    ("of", "used"),
    [
        (ALL, FILTERED),
        (FILTERED, ALL),
        (FILTERED, SORTED),
        (FILTERED, pb.ListObjectsRequest(collection="Pictures", filters=where("year") >= 3)),
        (SORTED, pb.ListObjectsRequest(collection="Pictures", sort=[{"property": "year", "descending": True}])),
        (ALL, pb.ListObjectsRequest(collection="Paintings")),
        (ALL, pb.ListObjectsRequest(collection="Pictures", scope={"tenant": "anna"})),
    ],
)
async def test_a_token_of_another_listing_is_refused(
    pictures: Wire, of: pb.ListObjectsRequest, used: pb.ListObjectsRequest
) -> None:
    token = (await pictures.objects.ListObjects(of)).next_page_token
    request = pb.ListObjectsRequest(page_token=token)
    request.MergeFrom(used)

    failure = await failure_of(pictures.objects.ListObjects(request))
    backfill = pb.BackfillVectorsRequest(collection="Pictures", page_token=token)
    refused = await failure_of(anext(aiter(pictures.objects.BackfillVectors(backfill))))

    assert (failure.code, failure.reason, failure.fields) == (
        StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", ["page_token"]
    )  # fmt: skip
    assert "not a token of this request" in failure.message
    assert refused.fields == ["page_token"]


async def test_a_token_holds_for_other_sizes_and_parts_of_the_same_listing(pictures: Wire) -> None:
    for listing in (ALL, FILTERED, SORTED):
        request = pb.ListObjectsRequest(page_token=(await pictures.objects.ListObjects(listing)).next_page_token)
        request.MergeFrom(listing)
        request.page_size = 3
        request.output.properties.append("title")
        assert len((await pictures.objects.ListObjects(request)).objects) == 3


async def test_objects_that_go_between_two_pages_are_not_missed_but_gone(pictures: Wire) -> None:
    request = pb.ListObjectsRequest(collection="Pictures", page_size=4)
    first = await pictures.objects.ListObjects(request)
    for gone in (3, 4):
        await pictures.objects.DeleteObject(pb.DeleteObjectRequest(collection="Pictures", id=str(UUID(int=gone))))

    request.page_token = first.next_page_token
    second = await pictures.objects.ListObjects(request)

    assert numbers(list(second.objects)) == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("fields", "reason", "paths"),
    [
        ({"page_size": -1}, "INVALID_INPUT", ["page_size"]),
        ({"page_size": 101}, "INVALID_INPUT", ["page_size"]),
        ({"page_token": "nope"}, "INVALID_INPUT", ["page_token"]),
        ({"page_size": -1, "page_token": "nope"}, "INVALID_INPUT", ["page_size", "page_token"]),
        ({"page_token": "ü" * 22}, "INVALID_INPUT", ["page_token"]),
        ({"output": {"properties": ["no"], "vectors": ["no"]}}, "INVALID_INPUT",
         ["output.properties[0]", "output.vectors[0]"]),
        ({"sort": [{"property": "year"}, {}]}, "INVALID_INPUT", ["sort[1].property"]),
        ({"sort": [{"property": "no"}], "filters": where("nor").equal(1)}, "UNKNOWN_PROPERTY",
         ["sort[0].property", "filters.condition.property"]),
        ({"sort": [{"property": "image"}]}, "INVALID_PROPERTY", ["sort[0].property"]),
        ({"sort": [{"property": "year"}] * 101}, "INVALID_INPUT", ["sort"]),
        ({"filters": where("year").equal("old")}, "INVALID_PROPERTY", ["filters.condition.value"]),
        ({"filters": {"all_of": {}}}, "INVALID_INPUT", ["filters.all_of.filters"]),
        # What needs the collection is checked once the request's form is right.
        ({"filters": {"all_of": {}}, "sort": [{}], "page_size": -1, "page_token": "nope"}, "INVALID_INPUT",
         ["page_size", "filters.all_of.filters", "sort[0].property", "page_token"]),
        ({"output": {"properties": ["no"]}, "sort": [{"property": "no"}], "filters": where("nor").equal(1)},
         "UNKNOWN_PROPERTY", ["output.properties[0]", "sort[0].property", "filters.condition.property"]),
    ],
)  # fmt: skip
async def test_a_listing_that_cannot_be_is_refused(
    pictures: Wire, fields: dict[str, object], reason: str, paths: list[str]
) -> None:
    failure = await failure_of(pictures.objects.ListObjects(pb.ListObjectsRequest(collection="Pictures", **fields)))
    assert (failure.code, failure.reason, failure.fields) == (StatusCode.INVALID_ARGUMENT, reason, paths)


async def test_an_object_is_deleted_once(pictures: Wire) -> None:
    request = pb.DeleteObjectRequest(collection="Pictures", id=str(UUID(int=3)))
    await pictures.objects.DeleteObject(request)

    failure = await failure_of(pictures.objects.DeleteObject(request))

    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND")
    assert failure.metadata == {"name": str(UUID(int=3))}
    assert await pictures.store.count_objects("Pictures") == COUNT - 1


@pytest.mark.parametrize(("id_", "reason"), [("", "INVALID_INPUT"), ("3", "INVALID_ID")])
async def test_an_id_that_is_none_is_refused(pictures: Wire, id_: str, reason: str) -> None:
    failure = await failure_of(pictures.objects.DeleteObject(pb.DeleteObjectRequest(collection="Pictures", id=id_)))
    assert (failure.reason, failure.fields) == (reason, ["id"])


async def delete(wire: Wire, **fields: object) -> pb.DeleteObjectsResponse:
    return await wire.objects.DeleteObjects(pb.DeleteObjectsRequest(collection="Pictures", **fields))


async def test_all_that_fits_is_deleted_though_the_store_takes_a_few_at_a_time(pictures: Wire) -> None:
    pictures.store.calls.clear()

    answer = await delete(pictures, filters=where("year") >= 2)

    assert (answer.matched, answer.deleted, answer.failed) == (8, 8, 0)
    assert [UUID(id_).int for id_ in answer.ids] == list(range(2, 10))
    assert pictures.store.calls.count("delete_objects") == 4, "three at a time, and once more to find nothing"
    assert numbers((await pages(pictures))[0]) == [0, 1]
    assert (await delete(pictures, filters=where("year") >= 2)).matched == 0


async def test_a_dry_run_counts_and_names_and_deletes_nothing(pictures: Wire) -> None:
    answer = await delete(pictures, filters=where("year") >= 2, dry_run=True)

    assert (answer.matched, answer.deleted, answer.failed) == (8, 0, 0)
    assert [UUID(id_).int for id_ in answer.ids] == list(range(2, 10))
    assert "delete_objects" not in pictures.store.calls
    assert await pictures.store.count_objects("Pictures") == COUNT


async def test_what_cannot_be_deleted_is_named_and_stops_nothing(pictures: Wire) -> None:
    stuck = [UUID(int=2), UUID(int=5), UUID(int=6), UUID(int=7)]
    pictures.store.undeletable = dict.fromkeys(stuck, "the shard is away")

    answer = await delete(pictures, filters=where("year") >= 2)

    assert (answer.matched, answer.deleted) == (answer.deleted + answer.failed, 4)
    assert answer.failed == len(answer.failures) >= 3
    for each in answer.failures:
        failure = unpack(each.error)
        assert (failure.reason, failure.message) == ("STORE_REJECTED", "the shard is away")
        assert UUID(each.id) in stuck


@pytest.mark.parametrize(
    ("fields", "reason", "paths"),
    [
        ({}, "INVALID_INPUT", ["filters"]),
        ({"filters": where("nope").equal(1)}, "UNKNOWN_PROPERTY", ["filters.condition.property"]),
        ({"filters": where("year").equal("old")}, "INVALID_PROPERTY", ["filters.condition.value"]),
        ({"filters": {"all_of": {}}}, "INVALID_INPUT", ["filters.all_of.filters"]),
    ],
)
async def test_a_filter_that_does_not_fit_deletes_nothing(
    pictures: Wire, fields: dict[str, object], reason: str, paths: list[str]
) -> None:
    failure = await failure_of(delete(pictures, **fields))

    assert (failure.code, failure.reason, failure.fields) == (StatusCode.INVALID_ARGUMENT, reason, paths)
    assert await pictures.store.count_objects("Pictures") == COUNT


@pytest.fixture
async def people(wire: Wire) -> Wire:
    """Return a server with one object that holds another one in another one."""
    text = {"name": "city", "data_type": property_pb.DATA_TYPE_TEXT}
    home = {"name": "home", "data_type": property_pb.DATA_TYPE_OBJECT, "nested_properties": [text]}
    age = {"name": "age", "data_type": property_pb.DATA_TYPE_INT}
    maker = {"name": "maker", "data_type": property_pb.DATA_TYPE_OBJECT, "nested_properties": [age, home]}
    title = {"name": "title", "data_type": property_pb.DATA_TYPE_TEXT}
    collection = collection_pb.Collection(name="People", properties=[title, maker], vectors=[{"name": "default"}])
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))
    made = pb.DataObject(id=str(UUID(int=1)))
    made.properties.update({"title": "a cat", "maker": {"age": 40, "home": {"city": "Ulm"}}})
    answer = await wire.objects.ImportObjects(pb.ImportObjectsRequest(collection="People", objects=[made]))
    assert answer.results[0].HasField("stored")
    return wire


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["maker.home.city"], {"maker": {"home": {"city": "Ulm"}}}),
        (["maker.age", "title"], {"title": "a cat", "maker": {"age": 40}}),
        (["maker.age", "maker"], {"maker": {"age": 40, "home": {"city": "Ulm"}}}),
        ([], {"title": "a cat", "maker": {"age": 40, "home": {"city": "Ulm"}}}),
    ],
)
async def test_of_an_object_within_an_object_the_parts_come_back_that_are_asked_for(
    people: Wire, paths: list[str], found: dict[str, object]
) -> None:
    request = pb.GetObjectRequest(collection="People", id=str(UUID(int=1)), output={"properties": paths})
    answer = await people.objects.GetObject(request)
    assert json_format.MessageToDict(answer.object.properties) == found


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("maker.home.street", "'maker.home' has no such part; it has: city"),
        ("maker.", "'maker' has no such part; it has: age, home"),
        ("title.length", "'title' has no such part; it has: none"),
        ("home.city", "no such property; it has: title, maker"),
        ("", "no such property; it has: title, maker"),
    ],
)
async def test_a_part_that_an_object_lacks_is_refused_with_what_it_has(people: Wire, path: str, words: str) -> None:
    request = pb.GetObjectRequest(collection="People", id=str(UUID(int=1)), output={"properties": ["title", path]})
    failure = await failure_of(people.objects.GetObject(request))
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "UNKNOWN_PROPERTY")
    assert failure.fields == ["output.properties[1]"]
    assert words in failure.message
