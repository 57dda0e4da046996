from dataclasses import replace
from uuid import UUID, uuid4

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from embedders.contract import ImageInput, Purpose, TextInput
from service.core.objects import importing
from service.domain import Collection, NamedVector, ReturnFields, WeightedField
from tests.conftest import assert_close
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire, unpack
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1.input_pb2 import Image
from vecgate.v1.vector_pb2 import Vector

RED = picture((255, 0, 0))
NOWHERE = str(uuid4())


def struct(**values: object) -> Struct:
    message = Struct()
    message.update(values)
    return message


def obj(
    id_: str = "", *, image: bytes | None = None, vector: bytes | None = None, **properties: object
) -> pb.DataObject:
    return pb.DataObject(
        id=id_,
        properties=struct(**properties),
        images={} if image is None else {"image": Image(content=image)},
        vectors={} if vector is None else {"default": Vector(data=vector)},
    )


async def import_(wire: Wire, *objects: pb.DataObject, truncate: bool = False) -> pb.ImportObjectsResponse:
    return await wire.objects.ImportObjects(
        pb.ImportObjectsRequest(collection="Pictures", objects=objects, truncate=truncate)
    )


def floats(*values: float) -> bytes:
    return np.asarray(values, "<f4").tobytes()


async def test_an_object_is_stored_with_the_weighted_mean_of_its_fields_and_returned_whole(wire: Wire) -> None:
    await wire.create_pictures(
        image_fields=[{"name": "image", "weight": 3}], text_fields=[{"name": "title", "weight": 1}]
    )

    response = await import_(
        wire, obj(image=RED, title="a red square", tags=["a", "b"], year=2026, taken="2026-01-31T08:00:00Z")
    )

    (result,) = response.results
    assert [(each.name, each.origin, each.embedder) for each in result.stored.vectors] == [
        ("default", pb.VECTOR_ORIGIN_COMPUTED, "fake")
    ]
    assert [each.space for each in response.embedders] == ["fake"]
    got = await wire.objects.GetObject(
        pb.GetObjectRequest(collection="Pictures", id=result.id, output={"images": ["image"], "vectors": ["default"]})
    )
    assert dict(got.object.properties) == {
        "title": "a red square", "tags": ["a", "b"], "year": 2026, "taken": "2026-01-31T08:00:00Z"
    }  # fmt: skip
    assert got.object.images["image"].content == RED
    mean = 0.75 * wire.embedder.vector(RED) + 0.25 * wire.embedder.vector("a red square")
    assert_close(np.frombuffer(got.object.vectors["default"].data, "<f4"), mean / np.linalg.norm(mean))


async def test_an_import_embeds_as_documents_in_one_call_for_each_chunk(wire: Wire) -> None:
    await wire.create_pictures()
    wire.embedder.calls.clear()

    await import_(wire, *(obj(image=RED, title=f"picture {n}") for n in range(4)))

    assert wire.store.puts == [3, 1], "chunks of three, as the server under test is set"
    assert [(len(inputs), options.purpose) for inputs, options in wire.embedder.calls] == [
        (6, Purpose.DOCUMENT), (2, Purpose.DOCUMENT)
    ]  # fmt: skip
    assert wire.embedder.calls[1][0] == [TextInput("picture 3"), ImageInput(RED)]


async def test_a_repeated_import_without_ids_changes_nothing(wire: Wire) -> None:
    await wire.create_pictures()

    first = await import_(wire, obj(image=RED, title="a"), obj(title="b"))
    second = await import_(wire, obj(image=RED, title="a"), obj(title="b"))

    assert [result.id for result in first.results] == [result.id for result in second.results]
    assert {UUID(result.id).version for result in first.results} == {5}
    assert await wire.store.count_objects("Pictures") == 2


async def test_supplied_vectors_are_stored_as_they_are_and_nothing_is_embedded(wire: Wire) -> None:
    await wire.create_pictures()
    wire.embedder.calls.clear()

    response = await import_(wire, obj(image=RED, vector=floats(*range(8))))

    assert [each.origin for each in response.results[0].stored.vectors] == [pb.VECTOR_ORIGIN_SUPPLIED]
    assert wire.embedder.calls == []
    stored = await wire.store.get_object("Pictures", UUID(response.results[0].id), ReturnFields(vectors=["default"]))
    assert_close(stored.vectors["default"], np.arange(8))


@pytest.mark.parametrize(
    ("again_after_s", "vector", "readings"),
    [
        pytest.param(60.0, floats(*[3.0] * 8), 1, id="ready vectors, read a moment ago"),
        pytest.param(0.0, floats(*[3.0] * 8), 2, id="ready vectors, read long ago"),
        pytest.param(60.0, None, 2, id="a vector that was made since"),
    ],
)
async def test_a_collection_is_read_again_before_vectors_that_were_made_meanwhile(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, again_after_s: float, vector: bytes | None, readings: int
) -> None:
    await wire.create_pictures()
    monkeypatch.setattr(importing, "LOOK_AGAIN_S", again_after_s)
    read = []
    get_collection = wire.store.get_collection

    async def reading(name: str, *, fresh: bool = True) -> Collection:
        read.append(fresh)
        return await get_collection(name, fresh=fresh)

    monkeypatch.setattr(wire.store, "get_collection", reading)

    response = await import_(wire, obj(vector=vector, title="a"))

    assert response.results[0].HasField("stored")
    assert read == [True] * readings


async def test_a_place_is_returned_in_the_form_it_was_sent_in(wire: Wire) -> None:
    await wire.create_pictures()
    place = {"latitude": 90, "longitude": -13.405}

    response = await import_(wire, obj(title="pole", place=place))

    request = pb.GetObjectRequest(collection="Pictures", id=response.results[0].id)
    got = (await wire.objects.GetObject(request)).object
    assert dict(got.properties["place"]) == place


async def test_an_object_without_any_field_of_a_vector_is_stored_without_it_and_the_answer_says_so(wire: Wire) -> None:
    await wire.create_pictures()

    response = await import_(wire, obj(year=2026), obj(title="  "))

    for result in response.results:
        assert [each.origin for each in result.stored.vectors] == [pb.VECTOR_ORIGIN_MISSING]


async def test_the_items_of_a_text_array_share_its_weight(wire: Wire) -> None:
    await wire.create_pictures(text_fields=[{"name": "tags"}, {"name": "title"}], image_fields=[])

    response = await import_(wire, obj(tags=["x", "y", " "], title="t"))

    stored = await wire.store.get_object("Pictures", UUID(response.results[0].id), ReturnFields(vectors=["default"]))
    vector = wire.embedder.vector
    mean = 0.25 * vector("x") + 0.25 * vector("y") + 0.5 * vector("t")
    assert_close(stored.vectors["default"], mean / np.linalg.norm(mean))


YEAR, TITLE, TAGS, TAKEN, PLACE = (
    f'objects[1].properties["{name}"]' for name in ("year", "title", "tags", "taken", "place")
)
BLOB, IMAGE = 'objects[1].properties["image"]', 'objects[1].images["image"].content'
DEFAULT = 'objects[1].vectors["default"]'
RED_IMAGE, BROKEN = Image(content=RED), picture(size=(64, 64))[:-30]

BAD = {
    "id that is not a UUID": (obj("42"), "INVALID_ID", ["objects[1].id"]),
    "unknown property": (obj(colour="red"), "UNKNOWN_PROPERTY", ['objects[1].properties["colour"]']),
    "string for int": (obj(year="2026"), "INVALID_PROPERTY", [YEAR]),
    "fraction for int": (obj(year=20.5), "INVALID_PROPERTY", [YEAR]),
    "huge int": (obj(year=1e300), "INVALID_PROPERTY", [YEAR]),
    "NaN for int": (obj(year=float("nan")), "INVALID_PROPERTY", [YEAR]),
    "number for text": (obj(title=1), "INVALID_PROPERTY", [TITLE]),
    "bool for text": (obj(title=True), "INVALID_PROPERTY", [TITLE]),
    "object for text": (obj(title={"a": "b"}), "INVALID_PROPERTY", [TITLE]),
    "text for array": (obj(tags="a"), "INVALID_PROPERTY", [TAGS]),
    "number in array": (obj(tags=["a", 1]), "INVALID_PROPERTY", [f"{TAGS}[1]"]),
    "several in array": (obj(tags=[1, "a", None]), "INVALID_PROPERTY", [f"{TAGS}[0]", f"{TAGS}[2]"]),
    "text for place": (obj(place="Berlin"), "INVALID_PROPERTY", [PLACE]),
    "place without longitude": (obj(place={"latitude": 1}), "INVALID_PROPERTY", [f"{PLACE}.longitude"]),
    "place off the map": (
        obj(place={"latitude": 90.1, "longitude": -180.1}),
        "INVALID_PROPERTY",
        [f"{PLACE}.latitude", f"{PLACE}.longitude"],
    ),
    "place with NaN": (
        obj(place={"latitude": float("nan"), "longitude": 0}), "INVALID_PROPERTY", [f"{PLACE}.latitude"]
    ),
    "place with height": (
        obj(place={"latitude": 0, "longitude": 0, "height": 1}), "INVALID_PROPERTY", [f'{PLACE}["height"]']
    ),
    "no date": (obj(taken="yesterday"), "INVALID_PROPERTY", [TAKEN]),
    "date that is none": (obj(taken="2026-02-31T08:00:00Z"), "INVALID_PROPERTY", [TAKEN]),
    "blob in properties": (pb.DataObject(properties=struct(image="aGk=")), "INVALID_PROPERTY", [BLOB]),
    "image for text": (pb.DataObject(images={"title": RED_IMAGE}), "INVALID_PROPERTY", ['objects[1].images["title"]']),
    "image unknown": (pb.DataObject(images={"x": RED_IMAGE}), "UNKNOWN_PROPERTY", ['objects[1].images["x"]']),
    "broken image": (obj(image=BROKEN), "IMAGE_UNDECODABLE", [IMAGE]),
    "empty image": (obj(image=b""), "IMAGE_EMPTY", [IMAGE]),
    "long text": (obj(title="a b c d e f g h i"), "TEXT_TOO_LONG", [TITLE]),
    "vector of a wrong length": (obj(vector=floats(1, 2)), "INVALID_VECTOR", [DEFAULT]),
    "vector of half a float": (obj(vector=b"abc"), "INVALID_VECTOR", [DEFAULT]),
    "vector with NaN": (obj(vector=floats(*[float("nan")] * 8)), "INVALID_VECTOR", [DEFAULT]),
    "vector with infinity": (obj(vector=floats(*[float("inf")] * 8)), "INVALID_VECTOR", [DEFAULT]),
    "vector too long for float32": (obj(vector=floats(*[3e38] * 8)), "INVALID_VECTOR", [DEFAULT]),
    "vector too short for float32": (obj(vector=floats(*[1e-30] * 8)), "INVALID_VECTOR", [DEFAULT]),
    "zero vector": (obj(vector=floats(*[0] * 8)), "INVALID_VECTOR", [DEFAULT]),
    "unknown vector": (
        pb.DataObject(vectors={"other": Vector(data=floats(1))}), "UNKNOWN_VECTOR", ['objects[1].vectors["other"]']
    ),
    "several faults": (
        obj("42", year="x", title="t"), "INVALID_INPUT", [YEAR, "objects[1].id"]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "reason", "paths"), BAD.values(), ids=BAD.keys())
async def test_a_bad_object_fails_alone_with_the_paths_of_its_faults(
    wire: Wire, bad: pb.DataObject, reason: str, paths: list[str]
) -> None:
    await wire.create_pictures()

    response = await import_(wire, obj(title="before"), bad, obj(title="after"))

    assert [result.WhichOneof("outcome") for result in response.results] == ["stored", "error", "stored"]
    failure = unpack(response.results[1].error)
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, reason)
    assert failure.fields == paths
    assert await wire.store.count_objects("Pictures") == 2


async def test_the_second_object_of_an_id_fails_and_the_first_is_stored(wire: Wire) -> None:
    await wire.create_pictures()
    id_ = str(uuid4())

    response = await import_(wire, obj(id_, title="first"), obj(id_.upper(), title="second"))

    assert response.results[0].WhichOneof("outcome") == "stored"
    failure = unpack(response.results[1].error)
    assert (failure.reason, failure.fields) == ("DUPLICATE_ID", ["objects[1].id"])


async def test_the_same_content_without_ids_is_one_object_wherever_it_stands(wire: Wire) -> None:
    await wire.create_pictures()

    within = (await import_(wire, obj(title="a"), obj(title="b"), obj(title="a"), obj(title="a"))).results
    across = (await import_(wire, obj(title="a"))).results

    assert [each.WhichOneof("outcome") for each in (*within, *across)] == ["stored"] * 5
    assert len({each.id for each in within}) == 2
    assert within[0] == within[2] == within[3]
    assert across[0].id == within[0].id
    assert await wire.store.count_objects("Pictures") == 2
    assert wire.store.puts == [2, 1]


async def test_an_id_that_is_given_is_not_that_of_another_object_given_or_not(wire: Wire) -> None:
    await wire.create_pictures()
    derived = (await import_(wire, obj(title="a"))).results[0].id

    for objects, failing in (
        ((obj(derived, title="b"), obj(title="a"), obj(title="a")), {1, 2}),
        ((obj(title="a"), obj(derived, title="b"), obj(title="a")), {1}),
        ((obj(title="c"), obj(derived, title="a"), obj(derived, title="a")), {2}),
    ):
        results = (await import_(wire, *objects)).results
        failed = {index for index, each in enumerate(results) if each.WhichOneof("outcome") == "error"}
        assert failed == failing
        assert {unpack(results[index].error).reason for index in failed} == {"DUPLICATE_ID"}


async def test_the_same_content_fails_as_the_first_of_it_does(wire: Wire) -> None:
    await wire.create_pictures()
    id_ = (await import_(wire, obj(title="a"))).results[0].id
    wire.store.rejected[UUID(id_)] = "disk is full"

    first, other, second = (await import_(wire, obj(title="a"), obj(title="b"), obj(title="a"))).results

    assert first == second
    assert (first.id, unpack(first.error).reason, other.WhichOneof("outcome")) == (id_, "STORE_REJECTED", "stored")


async def test_an_object_that_weaviate_refuses_fails_alone_and_says_why(wire: Wire) -> None:
    await wire.create_pictures()
    bad = uuid4()
    wire.store.rejected[bad] = "disk is full"

    response = await import_(wire, obj(title="a"), obj(str(bad), title="b"))

    assert response.results[0].WhichOneof("outcome") == "stored"
    failure = unpack(response.results[1].error)
    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "STORE_REJECTED")
    assert "disk is full" in failure.message


@pytest.mark.parametrize(
    ("request_", "reason", "paths"),
    [
        (pb.ImportObjectsRequest(), "INVALID_INPUT", ["collection", "objects"]),
        (pb.ImportObjectsRequest(collection="P", objects=[pb.DataObject()] * 21), "BATCH_TOO_LARGE", ["objects"]),
        (pb.ImportObjectsRequest(collection="Nothing", objects=[pb.DataObject()]), "COLLECTION_NOT_FOUND", []),
    ],
)
async def test_a_call_that_cannot_be_done_fails_as_a_whole(
    wire: Wire, request_: pb.ImportObjectsRequest, reason: str, paths: list[str]
) -> None:
    failure = await failure_of(wire.objects.ImportObjects(request_))

    assert (failure.reason, failure.fields) == (reason, paths)


@pytest.mark.parametrize(
    ("request_", "reason", "paths"),
    [
        (pb.GetObjectRequest(), "INVALID_INPUT", ["collection", "id"]),
        (pb.GetObjectRequest(collection="Pictures", id="x"), "INVALID_ID", ["id"]),
        (
            pb.GetObjectRequest(collection="Pictures", id="x", output={"properties": ["q"]}),
            "INVALID_INPUT",
            ["id", "output.properties[0]"],
        ),
        (pb.GetObjectRequest(collection="Nothing", id=str(uuid4())), "COLLECTION_NOT_FOUND", []),
        (pb.GetObjectRequest(collection="Pictures", id=str(uuid4())), "OBJECT_NOT_FOUND", []),
        (
            pb.GetObjectRequest(
                collection="Pictures", id=NOWHERE, output={"properties": ["q"], "images": ["q"], "vectors": ["q"]}
            ),
            "INVALID_INPUT",
            ["output.properties[0]", "output.images[0]", "output.vectors[0]"],
        ),
    ],
)  # fmt: skip
async def test_an_object_that_cannot_be_returned_is_told_why(
    wire: Wire, request_: pb.GetObjectRequest, reason: str, paths: list[str]
) -> None:
    await wire.create_pictures()

    failure = await failure_of(wire.objects.GetObject(request_))

    assert (failure.reason, failure.fields) == (reason, paths)


async def test_an_embedder_of_another_space_cannot_write_into_a_bound_vector() -> None:
    first = await start_wire(FakeEmbedder(space="nvidia/nvclip"))
    second = await start_wire(FakeEmbedder(space="clip:other"))
    try:
        await first.create_pictures()
        second.store._collections = first.store._collections
        second.store._objects = first.store._objects

        failure = await failure_of(second.objects.ImportObjects(
            pb.ImportObjectsRequest(collection="Pictures", objects=[obj(title="a")])
        ))  # fmt: skip
    finally:
        await stop_wire(first)
        await stop_wire(second)

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "EMBEDDING_SPACE_MISMATCH")
    assert (failure.metadata["bound_space"], failure.metadata["given_space"]) == ("nvidia/nvclip", "clip:other")
    assert first.store.puts == []


async def test_a_collection_made_elsewhere_takes_no_objects(wire: Wire) -> None:
    await wire.store.create_collection(Collection("Pictures", (), (NamedVector("default", None),)))

    failure = await failure_of(
        wire.objects.ImportObjects(
            pb.ImportObjectsRequest(collection="Pictures", objects=[obj(vector=floats(1, 2)), obj()])
        )
    )

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "COLLECTION_NOT_BOUND")
    assert wire.store.puts == []


async def test_an_object_whose_fields_all_have_the_weight_0_is_refused_by_that_name(wire: Wire) -> None:
    await wire.create_pictures()
    collection = await wire.store.get_collection("Pictures")
    (default,) = collection.vectors
    fields = (WeightedField("title", 0.0), WeightedField("tags", 1.0))
    adopted = replace(default, image_fields=(), text_fields=fields, native=True)
    await wire.store.update_collection(replace(collection, vectors=(adopted,)))

    bad, good = (await import_(wire, obj(title="a"), obj(title="a", tags=["b"]))).results

    failure = unpack(bad.error)
    assert (failure.reasons, failure.fields) == (["INVALID_VECTOR"], ['objects[0].vectors["default"]'])
    assert "weight 0" in failure.message
    assert good.WhichOneof("outcome") == "stored"
