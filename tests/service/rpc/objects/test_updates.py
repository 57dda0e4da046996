"""Objects that are changed in parts or imported again: which of their vectors are computed anew."""

import time
from uuid import UUID

import numpy as np
import pytest
from google.protobuf import json_format
from grpc import StatusCode

from embedders.contract import ImageInput, Priority, Purpose, TextInput
from embedders.errors import EmbedderUnavailable
from service.domain import ReturnFields
from service.errors import StoreUnavailable
from tests.conftest import assert_close
from tests.fakes.embedder import picture
from tests.service.conftest import Wire, failure_of, unpack
from tests.service.rpc.objects.test_import import floats, import_, obj
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1.input_pb2 import Image

ID = str(UUID(int=7))
RED, BLUE = picture((255, 0, 0)), picture((0, 0, 255))
COMPUTED, SUPPLIED, MISSING, KEPT = (
    pb.VECTOR_ORIGIN_COMPUTED, pb.VECTOR_ORIGIN_SUPPLIED, pb.VECTOR_ORIGIN_MISSING, pb.VECTOR_ORIGIN_KEPT
)  # fmt: skip


@pytest.fixture
async def stored(wire: Wire) -> Wire:
    """Return a server with the collection Both: a vector of the title and one of image and tags, with one object."""
    blob, text, texts = (property_pb.DATA_TYPE_BLOB, property_pb.DATA_TYPE_TEXT, property_pb.DATA_TYPE_TEXT_ARRAY)
    kinds = {"image": blob, "title": text, "tags": texts, "year": property_pb.DATA_TYPE_INT}
    made = collection_pb.Collection(
        name="Pictures",
        properties=[property_pb.Property(name=name, data_type=kind) for name, kind in kinds.items()],
        vectors=[
            collection_pb.VectorConfig(name="own"),
            collection_pb.VectorConfig(name="title", text_fields=[{"name": "title"}]),
            collection_pb.VectorConfig(name="look", image_fields=[{"name": "image"}], text_fields=[{"name": "tags"}]),
        ],
    )
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=made))
    await import_(wire, full(title="a red square", tags=["x"], year=1))
    wire.embedder.calls.clear()
    return wire


def full(image: bytes = RED, **properties: object) -> pb.DataObject:
    message = obj(ID, image=image, **properties)
    message.vectors["own"].data = floats(*range(1, 9))
    return message


async def update(wire: Wire, change: pb.DataObject, *mask: str, truncate: bool = False) -> dict[str, int]:
    request = pb.UpdateObjectRequest(
        collection="Pictures", object=change, update_mask={"paths": mask}, truncate=truncate
    )
    response = await wire.objects.UpdateObject(request)
    return {each.name: each.origin for each in response.stored.vectors}


async def read(wire: Wire) -> pb.DataObject:
    names = ["own", "title", "look"]
    request = pb.GetObjectRequest(collection="Pictures", id=ID, output={"images": ["image"], "vectors": names})
    return (await wire.objects.GetObject(request)).object


async def test_a_change_beside_the_vectors_embeds_nothing(stored: Wire) -> None:
    before = await read(stored)

    origins = await update(stored, obj(ID, year=2))

    assert origins == {"own": KEPT, "title": KEPT, "look": KEPT}
    assert stored.embedder.calls == []
    after = await read(stored)
    assert dict(after.properties) == {"title": "a red square", "tags": ["x"], "year": 2}
    assert after.images == before.images
    assert after.vectors == before.vectors


async def test_a_change_computes_the_vectors_that_it_touches_for_a_caller_who_waits(stored: Wire) -> None:
    before = await read(stored)

    origins = await update(stored, obj(ID, title="a blue square"))

    assert origins == {"own": KEPT, "title": COMPUTED, "look": KEPT}
    ((inputs, options),) = stored.embedder.calls
    assert (inputs, options.purpose, options.priority) == (
        [TextInput("a blue square")], Purpose.DOCUMENT, Priority.INTERACTIVE
    )  # fmt: skip
    after = await read(stored)
    assert_close(np.frombuffer(after.vectors["title"].data, "<f4"), stored.embedder.vector("a blue square"))
    assert after.vectors["look"] == before.vectors["look"]


async def test_a_vector_is_computed_of_what_changed_and_what_stayed(stored: Wire) -> None:
    assert await update(stored, obj(ID, image=BLUE)) == {"own": KEPT, "title": KEPT, "look": COMPUTED}

    assert [inputs for inputs, _ in stored.embedder.calls] == [[TextInput("x"), ImageInput(BLUE)]]
    after = await read(stored)
    mean = stored.embedder.vector(BLUE) + stored.embedder.vector("x")
    assert_close(np.frombuffer(after.vectors["look"].data, "<f4"), mean / np.linalg.norm(mean))


async def test_what_a_mask_names_and_the_object_does_not_set_is_cleared_with_the_vectors_made_of_it(
    stored: Wire,
) -> None:
    origins = await update(stored, obj(ID, tags=None), "properties.title", "properties.tags", "images.image")

    assert origins == {"own": KEPT, "title": MISSING, "look": MISSING}
    after = await read(stored)
    assert (dict(after.properties), dict(after.images)) == ({"year": 1}, {})
    assert set(after.vectors) == {"own"}


async def test_what_is_set_and_not_named_in_the_mask_stays_as_it_is(stored: Wire) -> None:
    before = await read(stored)
    change = obj(ID, image=BLUE, title="another", year=None)
    change.vectors["own"].data = floats(*[1.0] * 8)

    assert await update(stored, change, "properties.tags", "properties.title") == {
        "own": KEPT, "title": COMPUTED, "look": COMPUTED
    }  # fmt: skip
    after = await read(stored)
    assert dict(after.properties) == {"title": "another", "year": 1}
    assert (after.images, after.vectors["own"]) == (before.images, before.vectors["own"])


async def test_a_cleared_vector_is_computed_anew_or_gone_where_the_object_has_no_fields_for_it(stored: Wire) -> None:
    change = obj(ID)
    change.vectors["title"].data = floats(*[1.0] * 8)
    await update(stored, change)

    assert await update(stored, obj(ID), "vectors.title", "vectors.own") == {
        "own": MISSING, "title": COMPUTED, "look": KEPT
    }  # fmt: skip
    after = await read(stored)
    assert set(after.vectors) == {"title", "look"}
    assert_close(np.frombuffer(after.vectors["title"].data, "<f4"), stored.embedder.vector("a red square"))


@pytest.mark.parametrize(
    ("mask", "reason", "fields"),
    [
        (["properties.title", "title"], "INVALID_INPUT", ["update_mask.paths[1]"]),
        (["properties"], "INVALID_INPUT", ["update_mask.paths[0]"]),
        (["properties."], "INVALID_INPUT", ["update_mask.paths[0]"]),
        (["properties.home.city"], "INVALID_INPUT", ["update_mask.paths[0]"]),
        (["properties.nope"], "UNKNOWN_PROPERTY", ["update_mask.paths[0]"]),
        (["properties.image", "images.title"], "UNKNOWN_PROPERTY", ["update_mask.paths[0]", "update_mask.paths[1]"]),
        (["vectors.title", "vectors.nope"], "UNKNOWN_VECTOR", ["update_mask.paths[1]"]),
        (["properties.nope", "properties.year"], "INVALID_INPUT",
         ["update_mask.paths[0]", 'object.properties["year"]']),
    ],
)  # fmt: skip
async def test_a_mask_that_does_not_fit_is_refused_and_changes_nothing(
    stored: Wire, mask: list[str], reason: str, fields: list[str]
) -> None:
    before = await read(stored)

    failure = await failure_of(update(stored, obj(ID, year="x"), *mask))

    assert (failure.code, failure.reason, failure.fields) == (StatusCode.INVALID_ARGUMENT, reason, fields)
    assert await read(stored) == before


@pytest.mark.parametrize("part", ["properties", "vectors"])
async def test_a_mask_full_of_unknown_names_costs_little_and_lists_the_known_ones_once(wire: Wire, part: str) -> None:
    properties = [{"name": f"a{'A' * 200}{n}", "data_type": property_pb.DATA_TYPE_TEXT} for n in range(900)]
    vectors = [{"name": f"b{'B' * 200}{n}"} for n in range(50)]
    made = collection_pb.Collection(name="Pictures", properties=properties, vectors=vectors)
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=made))
    mask = [f"{part}.nope{n}" for n in range(100)]

    began_s = time.thread_time()
    failure = await failure_of(update(wire, obj(ID), *mask))
    took_s = time.thread_time() - began_s

    assert failure.fields[:2] == ["update_mask.paths[0]", "update_mask.paths[1]"]
    assert failure.message.count("it has: ") == 1
    # One search through all names for each path took 4 s of the event loop's thread; all together take a hundredth.
    assert took_s < 0.5


async def test_a_property_is_named_in_a_mask_as_json_writes_it(wire: Wire) -> None:
    names = ("myTitle", "my_year")
    properties = [{"name": each, "data_type": property_pb.DATA_TYPE_TEXT} for each in names]
    made = collection_pb.Collection(name="Pictures", properties=properties, vectors=[{"name": "own"}])
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=made))
    await import_(wire, obj(ID, myTitle="a", my_year="b"))
    request = json_format.ParseDict(
        {"collection": "Pictures", "object": {"id": ID}, "updateMask": "properties.myTitle,properties.myYear"},
        pb.UpdateObjectRequest(),
    )

    await wire.objects.UpdateObject(request)

    found = await wire.objects.GetObject(pb.GetObjectRequest(collection="Pictures", id=ID))
    assert not dict(found.object.properties)


async def test_nulls_and_images_without_content_are_refused_by_name(stored: Wire) -> None:
    before = await read(stored)
    change = obj(ID, title=None)
    change.images["image"].CopyFrom(Image())

    failure = await failure_of(update(stored, change))
    with_mask = await failure_of(update(stored, change, "images.image"))

    assert sorted(failure.fields) == ['object.images["image"].content', 'object.properties["title"]']
    assert "name properties.title in update_mask" in failure.message
    assert (with_mask.reason, with_mask.fields) == ("IMAGE_EMPTY", ['object.images["image"].content'])
    assert await read(stored) == before


async def test_a_supplied_vector_is_stored_as_it_is(stored: Wire) -> None:
    change = obj(ID, title="another")
    change.vectors["title"].data = floats(*[1.0] * 8)

    assert await update(stored, change) == {"own": KEPT, "title": SUPPLIED, "look": KEPT}
    assert stored.embedder.calls == []
    assert (await read(stored)).vectors["title"].data == floats(*[1.0] * 8)


async def test_nothing_changes_when_the_embedder_fails_or_refuses(stored: Wire) -> None:
    before = await read(stored)
    stored.embedder.failure = EmbedderUnavailable("it is down")
    failed = await failure_of(update(stored, obj(ID, title="another", year=5)))
    stored.embedder.failure = None
    refused = await failure_of(update(stored, obj(ID, title="one two three four five six seven eight", year=5)))

    assert (failed.code, failed.reason) == (StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE")
    assert (refused.reason, refused.fields) == ("TEXT_TOO_LONG", ['object.properties["title"]'])
    assert await read(stored) == before
    assert (await update(stored, obj(ID, title="one two three four five six seven eight"), truncate=True))[
        "title"
    ] == COMPUTED


async def test_a_change_that_does_not_fit_is_refused_with_all_violations(stored: Wire) -> None:
    failure = await failure_of(update(stored, obj(ID, year="x", nope=1)))
    assert sorted(failure.fields) == ['object.properties["nope"]', 'object.properties["year"]']
    failure = await failure_of(update(stored, obj("", year=1)))
    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["object.id"])
    failure = await failure_of(update(stored, obj(str(UUID(int=8)), year=1)))
    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND")


async def again(wire: Wire, message: pb.DataObject, *, embed_unchanged: bool = False) -> dict[str, int]:
    request = pb.ImportObjectsRequest(collection="Pictures", objects=[message], embed_unchanged=embed_unchanged)
    (result,) = (await wire.objects.ImportObjects(request)).results
    return {each.name: each.origin for each in result.stored.vectors}


async def test_an_import_again_keeps_the_vectors_of_what_has_not_changed(stored: Wire) -> None:
    before = await read(stored)

    origins = await again(stored, full(title="a red square", tags=["x"], year=2))

    assert origins == {"own": SUPPLIED, "title": KEPT, "look": KEPT}
    assert stored.embedder.calls == []
    after = await read(stored)
    assert after.properties["year"] == 2
    assert after.vectors == before.vectors


async def test_an_import_again_computes_what_has_changed(stored: Wire) -> None:
    assert await again(stored, full(title="a red square", tags=["x", "y"])) == {
        "own": SUPPLIED, "title": KEPT, "look": COMPUTED
    }  # fmt: skip
    assert await again(stored, full(BLUE, title="other", tags=["x", "y"])) == {
        "own": SUPPLIED, "title": COMPUTED, "look": COMPUTED
    }  # fmt: skip


async def test_an_import_that_is_told_to_embeds_what_has_not_changed(stored: Wire) -> None:
    same = full(title="a red square", tags=["x"], year=1)

    assert await again(stored, same, embed_unchanged=True) == {"own": SUPPLIED, "title": COMPUTED, "look": COMPUTED}
    assert len(stored.embedder.calls) == 1


async def test_an_import_again_replaces_a_vector_that_nothing_is_in(stored: Wire) -> None:
    assert await again(stored, obj(ID, year=3)) == {"own": MISSING, "title": MISSING, "look": MISSING}
    assert not (await read(stored)).vectors


async def test_stored_objects_are_read_once_for_each_chunk(stored: Wire) -> None:
    stored.store.calls.clear()
    await import_(stored, *(obj(title=f"picture {n}") for n in range(4)))
    assert stored.store.calls.count("get_objects") == 2, "chunks of three, as the server under test is set"


@pytest.mark.parametrize("embed_unchanged", [False, True])
async def test_an_import_again_brings_back_what_an_index_had_no_room_for(
    stored: Wire, *, embed_unchanged: bool
) -> None:
    stored.store.unindexed = {UUID(ID)}
    message = full(title="a blue square", tags=["x"], year=1)
    (first,) = (await import_(stored, message)).results
    failure = unpack(first.error)
    assert (failure.code, failure.reason, failure.retry_s) == (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", 1)
    assert {name for _, name in stored.store.lost} == {"own", "title", "look"}

    origins = await again(stored, message, embed_unchanged=embed_unchanged)

    assert origins["own"] == SUPPLIED
    assert stored.store.lost == set()


async def test_an_object_that_its_index_still_has_no_room_for_is_not_called_stored(stored: Wire) -> None:
    stored.store.lost = {(UUID(ID), "title")}
    stored.store.fail_next_of("reindex_vector", StoreUnavailable("Weaviate has no room: not enough memory"))

    response = await import_(stored, full(title="a red square", tags=["x"], year=1), obj(title="another"))

    assert unpack(response.results[0].error).reason == "STORE_UNAVAILABLE"
    assert response.results[1].WhichOneof("outcome") == "stored"


async def test_a_first_import_looks_for_no_lost_entries(stored: Wire) -> None:
    stored.store.calls.clear()
    await import_(stored, obj(title="new"), obj(title="newer"))
    assert "search" not in stored.store.calls


async def test_an_update_again_enters_the_vectors_that_it_names_and_no_others(stored: Wire) -> None:
    stored.store.lost = {(UUID(ID), "title"), (UUID(ID), "look")}

    await update(stored, obj(ID, year=2))
    untouched = set(stored.store.lost)
    origins = await update(stored, obj(ID, title="a red square"))

    assert len(untouched) == 2
    assert origins["title"] == KEPT
    assert {name for _, name in stored.store.lost} == {"look"}


@pytest.fixture
async def native(wire: Wire) -> Wire:
    """Return a server with the collection Pictures, whose vectors of title and tags are Weaviate's module's."""
    module = {"native": True, "base_url": "http://vecgate:8070"}
    made = collection_pb.Collection(
        name="Pictures",
        properties=[
            property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
            property_pb.Property(name="tags", data_type=property_pb.DATA_TYPE_TEXT_ARRAY),
            property_pb.Property(name="year", data_type=property_pb.DATA_TYPE_INT),
        ],
        vectors=[
            collection_pb.VectorConfig(name="title", text_fields=[{"name": "title"}], **module),
            collection_pb.VectorConfig(name="tags", text_fields=[{"name": "tags"}], **module),
        ],
    )
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=made))
    return wire


async def test_an_object_that_gives_the_module_nothing_is_refused_before_it_is_written(native: Wire) -> None:
    whole = obj(ID, title="a cat", tags=["x"])

    good, bare = (await import_(native, whole, obj(title="  ", year=1))).results
    failure = unpack(bare.error)

    assert good.WhichOneof("outcome") == "stored"
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert failure.fields == ['objects[1].vectors["tags"]', 'objects[1].vectors["title"]']
    assert native.store.puts == [1]


async def test_a_change_that_takes_the_modules_last_field_away_is_refused_and_changes_nothing(native: Wire) -> None:
    await import_(native, obj(ID, title="a cat", tags=["x"], year=1))

    failure = await failure_of(update(native, obj(ID, year=2), "properties.title", "properties.year"))
    kept = await update(native, obj(ID, year=3))

    assert failure.fields == ['object.vectors["title"]']
    assert kept == {"title": KEPT, "tags": KEPT}
    stored = await native.store.get_object("Pictures", UUID(ID), ReturnFields(["title", "year"], vectors=["title"]))
    assert stored.properties == {"title": "a cat", "year": 3}
    assert_close(stored.vectors["title"], native.embedder.vector("a cat"))
