"""Duplicates in an import: which objects are found to be some, what becomes of them, and what is refused."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode

from service.domain import (
    Collection,
    DataType,
    NamedVector,
    Property,
    ReturnFields,
    Space,
    StoredObject,
    WeightedField,
)
from service.errors import StoreRejected
from tests.fakes.clients import key_of, let_in
from tests.fakes.embedder import picture
from tests.service.conftest import Wire, failure_of, over_every_wire, start_wire, stop_wire, unpack
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb

RED, BLUE, GREEN = picture((255, 0, 0)), picture((0, 0, 255)), picture((0, 255, 0))
SKIP, REPORT = pb.DUPLICATE_ACTION_SKIP, pb.DUPLICATE_ACTION_REPORT
A, B, C, D = (str(UUID(int=number)) for number in range(1, 5))


@pytest.fixture
async def pictures(wire: Wire) -> Wire:
    """A server with a collection whose vectors are made of pictures alone."""
    await wire.create_pictures(text_fields=[])
    return wire


def obj(
    id_: str = "", *, image: bytes | None = None, angle: float | None = None, **properties: object
) -> pb.DataObject:
    """Return an object with a picture, or with a vector so many degrees away from another one's."""
    made = pb.DataObject(id=id_, properties=properties)
    if image is not None:
        made.images["image"].content = image
    if angle is not None:
        turn = np.radians(angle)
        made.vectors["default"].data = np.array([np.cos(turn), np.sin(turn), *[0] * 6], "<f4").tobytes()
    return made


async def import_(
    wire: Wire, *objects: pb.DataObject, action: pb.DuplicateAction.ValueType = SKIP, **request: object
) -> list[pb.ImportResult]:
    check = {"action": action, "min_cosine": request.pop("min_cosine", 0.0)}
    response = await wire.objects.ImportObjects(
        pb.ImportObjectsRequest(collection="Pictures", objects=objects, duplicates=check, **request)
    )
    return list(response.results)


def of(result: pb.ImportResult) -> str:
    """Return whether an object is stored, and what it duplicates."""
    match result.WhichOneof("outcome"):
        case "stored":
            return f"stored, as {result.stored.duplicate_of.id}" if result.stored.HasField("duplicate_of") else "stored"
        case "skipped":
            return f"skipped for {result.skipped.id}"
        case _:
            return unpack(result.error).reason


@over_every_wire
async def test_an_object_with_the_picture_of_a_stored_one_is_left_out_or_named(pictures: Wire) -> None:
    await import_(pictures, obj(A, image=RED))

    (skipped,) = await import_(pictures, obj(B, image=RED, title="another title"))
    (stored,) = await import_(pictures, obj(C, image=RED), action=REPORT)
    plain = await pictures.objects.ImportObjects(
        pb.ImportObjectsRequest(collection="Pictures", objects=[obj(D, image=RED)])
    )

    assert (skipped.id, of(skipped), skipped.skipped.same_content) == (B, f"skipped for {A}", True)
    assert skipped.skipped.cosine == pytest.approx(1)
    assert (of(stored), stored.stored.duplicate_of.same_content) == (f"stored, as {A}", True)
    assert [each.origin for each in stored.stored.vectors] == [pb.VECTOR_ORIGIN_COMPUTED]
    assert of(plain.results[0]) == "stored", "nobody asked"
    assert await pictures.store.count_objects("Pictures") == 3


async def test_near_duplicates_are_found_in_the_collection_in_the_chunk_and_in_chunks_before(pictures: Wire) -> None:
    await import_(pictures, obj(A, angle=0))

    # In chunks of three.
    results = await import_(
        pictures, *(obj(angle=angle, title=f"{angle}") for angle in (5, 60, 63, 61, 120, 124)), min_cosine=0.99
    )

    second, fifth = results[1].id, results[4].id
    skipped = [f"skipped for {each}" for each in (A, second, second, fifth)]
    assert [of(each) for each in results] == [skipped[0], "stored", skipped[1], skipped[2], "stored", skipped[3]]
    cosines = [each.skipped.cosine for each in results if each.HasField("skipped")]
    assert cosines == pytest.approx([np.cos(np.radians(angle)) for angle in (5, 3, 1, 4)], abs=1e-5)
    assert not any(each.skipped.same_content for each in results), "they have no pictures"
    assert await pictures.store.count_objects("Pictures") == 3


async def test_without_a_least_cosine_only_the_same_content_is_a_duplicate(pictures: Wire) -> None:
    results = await import_(pictures, obj(A, image=RED, angle=0), obj(B, image=BLUE, angle=0), obj(C, angle=0))
    near = await import_(pictures, obj(D, image=GREEN, angle=0), min_cosine=0.999)

    assert [of(each) for each in results] == ["stored"] * 3
    assert of(near[0]).startswith("skipped for")


async def test_the_same_content_is_named_before_what_is_as_near(pictures: Wire) -> None:
    await import_(pictures, *(obj(id_, image=image, angle=0) for id_, image in ((A, BLUE), (B, RED), (C, GREEN))))

    (result,) = await import_(pictures, obj(D, image=RED, angle=0), min_cosine=0.9)

    assert (of(result), result.skipped.same_content) == (f"skipped for {B}", True)


@pytest.mark.parametrize("action", [SKIP, REPORT])
async def test_a_repeated_import_says_the_same_again(pictures: Wire, action: pb.DuplicateAction.ValueType) -> None:
    objects = [obj(A, image=RED), obj(B, image=RED, title="b"), obj(C, image=BLUE)]

    first = await import_(pictures, *objects, action=action)
    second = await import_(pictures, *objects, action=action)

    assert [of(each) for each in first] == [of(each) for each in second]
    assert [of(each) for each in first] == [
        "stored",
        f"skipped for {A}" if action == SKIP else f"stored, as {A}",
        "stored",
    ]


async def test_stored_objects_that_cannot_be_read_at_once_are_replaced_all_the_same(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_(pictures, obj(A, image=RED), obj(B, image=RED), action=REPORT)
    read = pictures.store.get_objects

    async def some(collection: str, ids: Sequence[UUID], fields: ReturnFields, *rest: Any) -> dict[UUID, StoredObject]:
        if len(ids) > 1 and fields.images:
            raise StoreRejected("the answer is too large")
        return await read(collection, ids, fields, *rest)

    monkeypatch.setattr(pictures.store, "get_objects", some)

    results = await import_(pictures, obj(A, image=RED), obj(B, image=RED, title="changed"))

    assert [of(each) for each in results] == ["stored", f"stored, as {A}"]
    stored = await pictures.objects.GetObject(pb.GetObjectRequest(collection="Pictures", id=B))
    assert stored.object.properties["title"] == "changed"


async def test_a_stored_object_is_replaced_even_if_it_duplicates_another(pictures: Wire) -> None:
    await import_(pictures, obj(A, image=RED), obj(B, image=RED), action=REPORT)

    (result,) = await import_(pictures, obj(B, image=RED, title="changed"))

    assert of(result) == f"stored, as {A}"
    stored = await pictures.objects.GetObject(pb.GetObjectRequest(collection="Pictures", id=B))
    assert stored.object.properties["title"] == "changed"


async def test_of_two_calls_at_the_same_time_one_finds_the_other_ones_object(pictures: Wire) -> None:
    results = await asyncio.gather(*(import_(pictures, obj(id_, image=RED)) for id_ in (A, B, C)))

    assert sorted(each.WhichOneof("outcome") for (each,) in results) == ["skipped", "skipped", "stored"]
    assert await pictures.store.count_objects("Pictures") == 1


async def test_a_duplicate_of_what_cannot_be_stored_fails_with_it(pictures: Wire) -> None:
    pictures.store.rejected[UUID(A)] = "disk is full"

    skipped = await import_(pictures, obj(A, image=RED), obj(B, image=RED))
    reported = await import_(pictures, obj(A, image=RED), obj(B, image=RED), action=REPORT)

    assert [of(each) for each in skipped] == ["STORE_REJECTED"] * 2
    assert [of(each) for each in reported] == ["STORE_REJECTED", "stored"]


async def test_an_object_without_the_vector_is_stored_without_being_looked_up(pictures: Wire) -> None:
    results = await import_(pictures, obj(A, year=1), obj(B, year=1))

    assert [of(each) for each in results] == ["stored", "stored"]


async def test_pictures_of_which_only_the_hash_is_stored_are_compared_by_it(wire: Wire) -> None:
    await wire.create_pictures(text_fields=[])
    collection = await wire.store.get_collection("Pictures")
    hashed = tuple(
        replace(each, data_type=DataType.BLOB_HASH) if each.name == "image" else each for each in collection.properties
    )
    wire.store._collections["Pictures"] = replace(collection, properties=hashed)

    await import_(wire, obj(A, image=RED))
    results = await import_(wire, obj(B, image=RED), obj(C, image=BLUE))

    assert [of(each) for each in results] == [f"skipped for {A}", "stored"]


async def test_objects_of_another_tenant_are_no_duplicates(wire: Wire) -> None:
    collection = collection_pb.Collection(
        name="Pictures",
        properties=[{"name": "image", "data_type": "DATA_TYPE_BLOB"}],
        vectors=[{"name": "default", "image_fields": [{"name": "image"}]}],
        multi_tenancy={"enabled": True, "auto_tenant_creation": True},
    )
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))

    results = [
        (await import_(wire, obj(id_, image=RED), scope={"tenant": tenant}))[0]
        for id_, tenant in ((A, "one"), (B, "two"), (C, "one"))
    ]

    assert [of(each) for each in results] == ["stored", "stored", f"skipped for {A}"]


@pytest.mark.parametrize(
    ("check", "fields", "reason"),
    [
        ({}, ["duplicates.action"], "INVALID_INPUT"),
        ({"action": SKIP, "min_cosine": 1.5}, ["duplicates.min_cosine"], "INVALID_INPUT"),
        ({"action": 7, "min_cosine": float("nan")}, ["duplicates.action", "duplicates.min_cosine"], "INVALID_INPUT"),
        ({"action": SKIP, "target_vector": "nope"}, ["duplicates.target_vector"], "UNKNOWN_VECTOR"),
        ({"action": SKIP}, ["duplicates.target_vector"], "INVALID_INPUT"),
        ({"action": SKIP, "target_vector": "foreign"}, [], "COLLECTION_NOT_BOUND"),
    ],
)
async def test_a_wrong_check_is_refused_before_anything_is_embedded(
    pictures: Wire, check: dict[str, object], fields: list[str], reason: str
) -> None:
    collection = await pictures.store.get_collection("Pictures")
    (default,) = collection.vectors
    late = NamedVector("late", default.space, (), (WeightedField("title"),))
    vectors = (default, late, NamedVector("foreign", None))
    pictures.store._collections["Pictures"] = replace(collection, vectors=vectors)
    pictures.embedder.calls.clear()

    request = pb.ImportObjectsRequest(collection="Pictures", objects=[obj(image=RED)], duplicates=check)
    failure = await failure_of(pictures.objects.ImportObjects(request))

    assert (failure.fields, failure.reason) == (fields, reason)
    assert pictures.embedder.calls == []


async def test_a_named_vector_of_several_is_compared(pictures: Wire) -> None:
    collection = await pictures.store.get_collection("Pictures")
    (default,) = collection.vectors
    late = NamedVector("late", default.space, (), (WeightedField("title"),))
    pictures.store._collections["Pictures"] = replace(collection, vectors=(default, late))
    check = {"action": SKIP, "target_vector": "late"}

    response = await pictures.objects.ImportObjects(
        pb.ImportObjectsRequest(
            collection="Pictures",
            objects=[obj(A, image=RED, title="a"), obj(B, image=BLUE, title="a")],
            duplicates=check,
        )
    )

    assert [of(each) for each in response.results] == ["stored", f"skipped for {A}"]


async def test_a_client_that_may_not_search_learns_of_no_duplicates(tmp_path: Path) -> None:
    auth = let_in(tmp_path / "clients.toml", writer='permissions = ["write"]')
    wire = await start_wire(auth=auth)
    vector = NamedVector("default", Space("fake", 8, "fake/model"), (WeightedField("image"),))
    await wire.store.create_collection(Collection("Pictures", (Property("image", DataType.BLOB),), (vector,)))
    request = pb.ImportObjectsRequest(
        collection="Pictures", objects=[obj(image=RED)], duplicates=pb.DuplicateCheck(action=REPORT)
    )

    failure = await failure_of(
        wire.objects.ImportObjects(request, metadata=(("authorization", f"Bearer {key_of('writer')}"),))
    )
    await stop_wire(wire)

    assert (failure.code, failure.reason) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert "search" in failure.message
