"""Images of which Weaviate keeps only the hash: imported, searched, updated, returned and backfilled."""

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest
from grpc import StatusCode

from embedders.contract import ImageInput, Modality
from embedders.errors import EmbedderUnavailable
from service.domain import StoredObject
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Failure, Wire, failure_of, start_wire, stop_wire, unpack
from vecgate.client import where
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb

RED, BLUE = picture((255, 0, 0)), picture((0, 0, 255))
ID = str(UUID(int=1))
COMPUTED, KEPT, MISSING = pb.VECTOR_ORIGIN_COMPUTED, pb.VECTOR_ORIGIN_KEPT, pb.VECTOR_ORIGIN_MISSING
PROPERTIES = [
    {"name": "photo", "data_type": "DATA_TYPE_BLOB_HASH"},
    {"name": "title", "data_type": "DATA_TYPE_TEXT"},
    {"name": "year", "data_type": "DATA_TYPE_INT"},
]
LOOKS = {"name": "looks", "image_fields": [{"name": "photo"}]}
WORDS = {"name": "words", "text_fields": [{"name": "title"}]}
BOTH = {"name": "both", "image_fields": [{"name": "photo"}], "text_fields": [{"name": "title"}]}


def hash_of(content: bytes) -> str:
    return hashlib.sha256(b64encode(content)).hexdigest()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server with two embedders, and the collection Hashed with the vectors looks, words and both."""
    running = await start_wire(FakeEmbedder(), FakeEmbedder(name="other", space="other"))
    await create(running, LOOKS, WORDS, BOTH)
    yield running
    await stop_wire(running)


async def create(wire: Wire, *vectors: dict[str, object], name: str = "Hashed") -> None:
    collection = collection_pb.Collection(name=name, properties=PROPERTIES, vectors=vectors)
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))


def obj(image: bytes | None = None, **properties: object) -> pb.DataObject:
    images = {} if image is None else {"photo": {"content": image}}
    return pb.DataObject(id=ID, properties=properties, images=images)


async def import_(wire: Wire, *objects: pb.DataObject) -> dict[str, pb.VectorOrigin.ValueType]:
    """Import objects, and return where the vectors of the last one come from."""
    answer = await wire.objects.ImportObjects(pb.ImportObjectsRequest(collection="Hashed", objects=objects))
    assert answer.results[-1].WhichOneof("outcome") == "stored", answer.results[-1].error
    return {each.name: each.origin for each in answer.results[-1].stored.vectors}


async def update(wire: Wire, change: pb.DataObject, *mask: str) -> dict[str, pb.VectorOrigin.ValueType]:
    """Update the object, and return where its vectors come from."""
    request = pb.UpdateObjectRequest(collection="Hashed", object=change, update_mask={"paths": mask})
    answer = await wire.objects.UpdateObject(request)
    return {each.name: each.origin for each in answer.stored.vectors}


async def get(wire: Wire, *names: str) -> pb.DataObject:
    output = {"properties": names, "vectors": ["looks", "words", "both"]}
    return (await wire.objects.GetObject(pb.GetObjectRequest(collection="Hashed", id=ID, output=output))).object


async def backfill(wire: Wire) -> tuple[int, Sequence[Failure]]:
    """Return how many objects got vectors, and why others did not."""
    answers = [each async for each in wire.objects.BackfillVectors(pb.BackfillVectorsRequest(collection="Hashed"))]
    return sum(each.filled for each in answers), [unpack(each.error) for page in answers for each in page.failures]


def embedded(wire: Wire) -> list[bytes]:
    """Return the images that were embedded since the last time."""
    inputs = [each for inputs, _ in wire.embedder.calls for each in inputs]
    wire.embedder.calls.clear()
    return [each.content for each in inputs if isinstance(each, ImageInput)]


async def test_an_image_is_embedded_and_found_and_its_hash_returned_where_it_is_named(wire: Wire) -> None:
    assert await import_(wire, obj(RED, title="a red square", year=2026)) == dict.fromkeys(
        ("looks", "words", "both"), COMPUTED
    )
    assert embedded(wire) == [RED]

    search = search_pb.SearchObjectsRequest(
        collection="Hashed", near_image={"image": {"content": RED}}, target_vectors=["looks"]
    )
    (hit,) = (await wire.search.SearchObjects(search)).hits
    listed = (await wire.objects.ListObjects(pb.ListObjectsRequest(collection="Hashed"))).objects[0]
    named = await get(wire, "photo")

    assert hit.distance == pytest.approx(0, abs=1e-6)
    assert dict(hit.object.properties) == dict(listed.properties) == {"title": "a red square", "year": 2026}
    assert dict(named.properties) == {"photo": hash_of(RED)}
    assert not named.images


async def test_the_same_import_again_embeds_nothing_and_changes_nothing(wire: Wire) -> None:
    await import_(wire, obj(RED, title="a"))
    before = await get(wire, "photo", "title")
    embedded(wire)

    assert await import_(wire, obj(RED, title="a")) == dict.fromkeys(("looks", "words", "both"), KEPT)

    assert embedded(wire) == []
    assert await get(wire, "photo", "title") == before


async def test_an_import_with_another_image_embeds_it(wire: Wire) -> None:
    await import_(wire, obj(RED, title="a"))
    embedded(wire)

    origins = await import_(wire, obj(BLUE, title="a"))

    assert origins == {"looks": COMPUTED, "words": KEPT, "both": COMPUTED}
    assert embedded(wire) == [BLUE]
    assert (await get(wire, "photo")).properties["photo"] == hash_of(BLUE)


async def test_an_import_without_the_image_clears_it(wire: Wire) -> None:
    await import_(wire, obj(RED, title="a"))

    origins = await import_(wire, obj(title="a"))

    assert origins == {"looks": MISSING, "words": KEPT, "both": COMPUTED}
    assert not (await get(wire, "photo")).properties


async def test_an_unchanged_image_keeps_its_vector_while_no_embedder_works(wire: Wire) -> None:
    await import_(wire, obj(RED, title="a"))
    for each in wire.embedders:
        each.failure = EmbedderUnavailable("down")

    assert await import_(wire, obj(RED, title="a")) == dict.fromkeys(("looks", "words", "both"), KEPT)
    assert await update(wire, obj(RED)) == dict.fromkeys(("looks", "words", "both"), KEPT)


async def test_an_update_of_something_else_keeps_the_hash_and_its_vectors(wire: Wire) -> None:
    await import_(wire, obj(RED, title="a"))
    before = await get(wire, "photo")
    embedded(wire)

    assert await update(wire, obj(year=2026)) == dict.fromkeys(("looks", "words", "both"), KEPT)

    assert (embedded(wire), await get(wire, "photo")) == ([], before)


@pytest.mark.parametrize(("image", "origin"), [(RED, KEPT), (BLUE, COMPUTED)])
async def test_an_update_compares_an_image_with_the_hash(
    wire: Wire, image: bytes, origin: pb.VectorOrigin.ValueType
) -> None:
    await import_(wire, obj(RED, title="a"))
    embedded(wire)

    assert await update(wire, obj(image)) == {"looks": origin, "words": KEPT, "both": origin}

    assert embedded(wire) == [] if image is RED else [BLUE]
    assert (await get(wire, "photo")).properties["photo"] == hash_of(image)


async def test_an_update_that_needs_the_image_says_so_and_changes_nothing(wire: Wire) -> None:
    await import_(wire, obj(RED, title="a"))
    before = await get(wire, "photo", "title")

    failure = await failure_of(update(wire, obj(title="b")))

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "IMAGE_NOT_STORED")
    assert failure.metadata == {"vector": "both", "property": "photo"}
    assert "send the image again" in failure.message
    assert await get(wire, "photo", "title") == before
    assert await update(wire, obj(RED, title="b")) == {"looks": KEPT, "words": COMPUTED, "both": COMPUTED}


async def test_one_joint_input_needs_the_image_again_too() -> None:
    reads_both = frozenset({Modality.TEXT, Modality.IMAGE, Modality.TEXT_IMAGE})
    wire = await start_wire(FakeEmbedder(modalities=reads_both))
    await create(wire, {**BOTH, "combination": "COMBINATION_JOINT_INPUT"})
    await import_(wire, obj(RED, title="a"))

    failure = await failure_of(update(wire, obj(title="b")))
    again = await import_(wire, obj(RED, title="a"))

    assert (failure.reason, again) == ("IMAGE_NOT_STORED", {"both": KEPT})
    await stop_wire(wire)


async def test_an_image_is_cleared_with_its_vector(wire: Wire) -> None:
    await import_(wire, obj(RED, title="a"))

    assert await update(wire, obj(), "images.photo") == {"looks": MISSING, "words": KEPT, "both": COMPUTED}

    found = await get(wire, "photo")
    assert (dict(found.properties), sorted(found.vectors)) == ({}, ["both", "words"])


async def test_a_backfill_fills_what_it_can_and_names_the_objects_whose_images_it_needs(wire: Wire) -> None:
    await import_(wire, obj(RED, title="a"))
    vectors = [{**LOOKS, "name": "better_looks", "embedder": "other"}, {**WORDS, "name": "more", "embedder": "other"}]
    change = collection_pb.Collection(name="Hashed", vectors=vectors)
    await wire.collections.UpdateCollection(collection_pb.UpdateCollectionRequest(collection=change))

    filled, (failure,) = await backfill(wire)
    again, (same,) = await backfill(wire)
    origins = await import_(wire, obj(RED, title="a"))

    assert (filled, again) == (1, 0)
    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "IMAGE_NOT_STORED")
    assert failure.metadata == same.metadata == {"vector": "better_looks", "property": "photo"}
    assert origins == {"better_looks": COMPUTED, "both": KEPT, "looks": KEPT, "more": KEPT, "words": KEPT}
    assert await backfill(wire) == (0, [])
    assert (await get(wire, "photo")).properties["photo"] == hash_of(RED)


async def test_an_object_without_any_vector_needs_its_image_again_too(wire: Wire) -> None:
    stored = StoredObject(UUID(int=1), images={"photo": RED})
    assert await wire.store.put_objects("Hashed", [stored]) == [None]

    filled, (failure,) = await backfill(wire)

    assert (filled, failure.reason) == (0, "IMAGE_NOT_STORED")


@pytest.mark.parametrize(
    ("object_", "field"),
    [
        (pb.DataObject(id=ID, properties={"photo": hash_of(RED)}), 'objects[0].properties["photo"]'),
        (pb.DataObject(id=ID, images={"title": {"content": RED}}), 'objects[0].images["title"]'),
    ],
)
async def test_a_hash_is_no_value_to_write_and_an_image_no_text(wire: Wire, object_: pb.DataObject, field: str) -> None:
    answer = await wire.objects.ImportObjects(pb.ImportObjectsRequest(collection="Hashed", objects=[object_]))
    failure = unpack(answer.results[0].error)
    assert (failure.reason, failure.fields) == ("INVALID_PROPERTY", [field])


async def test_what_does_not_go_with_a_hash_is_refused(wire: Wire) -> None:
    await import_(wire, obj(RED, title="a"))
    get_ = pb.GetObjectRequest(collection="Hashed", id=ID, output={"images": ["photo"]})
    by_hash = pb.ListObjectsRequest(collection="Hashed", filters=where("photo") == hash_of(RED))
    sorted_ = pb.ListObjectsRequest(collection="Hashed", sort=[{"property": "photo"}])

    image = await failure_of(wire.objects.GetObject(get_))
    filtered = await failure_of(wire.objects.ListObjects(by_hash))
    ordered = await failure_of(wire.objects.ListObjects(sorted_))

    assert (image.reason, image.fields) == ("INVALID_PROPERTY", ["output.images[0]"])
    assert "name it in output.properties" in image.message
    assert (filtered.reason, filtered.fields) == ("INVALID_PROPERTY", ["filters.condition.property"])
    assert (ordered.reason, ordered.fields) == ("INVALID_PROPERTY", ["sort[0].property"])


async def test_hits_are_grouped_by_the_same_image(wire: Wire) -> None:
    objects = [
        pb.DataObject(
            id=str(UUID(int=number)), properties={"title": f"t{number}"}, images={"photo": {"content": image}}
        )
        for number, image in enumerate((RED, BLUE, RED), start=1)
    ]
    await import_(wire, *objects)
    search = search_pb.SearchObjectsRequest(
        collection="Hashed",
        near_text={"concepts": ["t1"]},
        target_vectors=["words"],
        group_by={"property": "photo", "number_of_groups": 5, "objects_per_group": 5},
    )

    groups = (await wire.search.SearchObjects(search)).groups

    assert {each.name: each.object_count for each in groups} == {hash_of(RED): 2, hash_of(BLUE): 1}


@pytest.mark.parametrize(
    ("collection", "field"),
    [
        (
            {
                "properties": [
                    {"name": "box", "data_type": "DATA_TYPE_OBJECT", "nested_properties": [PROPERTIES[0]]},
                ],
                "vectors": [{"name": "v"}],
            },
            "collection.properties[0].nested_properties[0].data_type",
        ),
        (
            {"properties": PROPERTIES, "vectors": [{**BOTH, "native": True, "base_url": "http://vecgate:8070"}]},
            "collection.vectors[0].image_fields[0].name",
        ),
        (
            {"properties": [{**PROPERTIES[0], "tokenization": "TOKENIZATION_WORD"}], "vectors": [LOOKS]},
            "collection.properties[0].tokenization",
        ),
        (
            {"properties": PROPERTIES, "vectors": [{"name": "v", "text_fields": [{"name": "photo"}]}]},
            "collection.vectors[0].text_fields[0].name",
        ),
    ],
    ids=["in an object", "native beside a text", "tokenized", "as a text"],
)
async def test_a_collection_that_hashes_do_not_fit_is_refused(
    wire: Wire, collection: dict[str, object], field: str
) -> None:
    request = collection_pb.CreateCollectionRequest(collection=collection_pb.Collection(name="Other", **collection))
    failure = await failure_of(wire.collections.CreateCollection(request))
    assert (failure.reason, failure.fields) == ("INVALID_INPUT", [field])


async def test_a_native_vector_of_the_image_alone_works(wire: Wire) -> None:
    await create(wire, {**LOOKS, "native": True, "base_url": "http://vecgate:8070"}, name="Native")
    found = await wire.collections.GetCollection(collection_pb.GetCollectionRequest(name="Native"))
    assert found.collection.properties[0].data_type == 17
