"""Objects whose fields are embedded together, as one input of a model that reads a text and an image at once."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode

from embedders.contract import SEPARATE, ImageInput, Input, InputLimits, Modality, Purpose, TextImageInput, TextInput
from tests.conftest import assert_close
from tests.fakes.embedder import TEXT_ONLY, Content, FakeEmbedder, picture
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire, unpack
from tests.service.rpc.objects.test_import import import_, obj
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

RED, BLUE = picture((255, 0, 0)), picture((0, 0, 255))
ID = str(UUID(int=7))
JOINT = collection_pb.COMBINATION_JOINT_INPUT
FIELDS: dict[str, Any] = {
    "image_fields": [{"name": "image"}],
    # Not by the alphabet: the order of the configuration counts.
    "text_fields": [{"name": "title"}, {"name": "tags"}],
    "combination": JOINT,
}


def reader(**options: Any) -> FakeEmbedder:
    """Return a model that reads a text and an image at once."""
    limits = InputLimits(max_image_bytes=100_000)
    return FakeEmbedder(limits=limits, modalities=frozenset(Modality), max_text_tokens=8, **options)


@pytest.fixture
async def joint() -> AsyncIterator[Wire]:
    """A server whose collection Pictures embeds title, tags and image together."""
    wire = await start_wire(reader())
    await wire.create_pictures(**FIELDS)
    wire.embedder.calls.clear()
    yield wire
    await stop_wire(wire)


async def vector_of(wire: Wire, id_: str) -> np.ndarray:
    request = pb.GetObjectRequest(collection="Pictures", id=id_, output={"vectors": ["default"]})
    return np.frombuffer((await wire.objects.GetObject(request)).object.vectors["default"].data, "<f4")


def asked(wire: Wire) -> list[list[Input]]:
    return [inputs for inputs, _ in wire.embedder.calls]


async def test_texts_joined_in_the_order_of_the_fields_and_the_image_are_one_input_of_a_document(joint: Wire) -> None:
    response = await import_(joint, obj(image=RED, title="a red square", tags=["x", " ", "y"]))

    (result,) = response.results
    text = "a red square\nx\ny"
    ((inputs, options),) = joint.embedder.calls
    assert (inputs, options.purpose) == ([TextImageInput(text, RED)], Purpose.DOCUMENT)
    assert_close(await vector_of(joint, result.id), joint.embedder.vector((text, RED)))


@pytest.mark.parametrize(
    ("fields", "input_", "content"),
    [
        ({"title": "a", "tags": ["b", "c"]}, TextInput("a\nb\nc"), "a\nb\nc"),
        ({"tags": ["b"]}, TextInput("b"), "b"),
        ({"image": RED}, ImageInput(RED), RED),
        ({"image": RED, "title": "  ", "tags": []}, ImageInput(RED), RED),
    ],
)
async def test_an_object_with_a_part_of_the_fields_is_embedded_as_that_part_alone(
    joint: Wire, fields: dict[str, Any], input_: Input, content: Content
) -> None:
    response = await import_(joint, obj(**fields))

    assert asked(joint) == [[input_]]
    assert_close(await vector_of(joint, response.results[0].id), joint.embedder.vector(content))


async def test_a_data_url_in_a_text_is_a_part_of_the_text(joint: Wire) -> None:
    text = "see data:image/png;base64,iVBORw0KGgo="

    await import_(joint, obj(image=RED, title=text))

    assert asked(joint) == [[TextImageInput(text, RED)]]


async def test_an_object_without_any_of_the_fields_has_no_vector(joint: Wire) -> None:
    response = await import_(joint, obj(year=2026))

    (vector,) = response.results[0].stored.vectors
    assert vector.origin == pb.VECTOR_ORIGIN_MISSING
    assert not vector.HasField("error")


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"image": RED, "title": "a", "tags": ["b c d", "e f g h"]}, "TEXT_TOO_LONG", 'properties["tags"][1]'),
        ({"title": "a b c d e", "tags": ["f", "g"]}, "TEXT_TOO_LONG", 'properties["title"]'),
        ({"image": RED[:40], "title": "a"}, "IMAGE_UNDECODABLE", 'images["image"].content'),
        ({"image": RED + bytes(100_000), "title": "a"}, "IMAGE_TOO_LARGE", 'images["image"].content'),
    ],
)
async def test_what_is_wrong_with_a_part_fails_the_object_alone_with_the_path_of_that_part(
    joint: Wire, fields: dict[str, Any], reason: str, field: str
) -> None:
    response = await import_(joint, obj(image=BLUE, title="before"), obj(**fields), obj(image=BLUE, title="after"))

    before, bad, after = response.results
    assert (before.WhichOneof("outcome"), after.WhichOneof("outcome")) == ("stored", "stored")
    failure = unpack(bad.error)
    assert (failure.code, failure.reasons) == (StatusCode.INVALID_ARGUMENT, [reason])
    assert failure.fields == [f"objects[1].{field}"]


async def test_a_joined_text_that_is_too_long_is_truncated_if_allowed_and_reported(joint: Wire) -> None:
    response = await import_(joint, obj(image=RED, title="a b c d e", tags=["f", "g"]), truncate=True)

    (vector,) = response.results[0].stored.vectors
    assert vector.truncated
    assert_close(await vector_of(joint, response.results[0].id), joint.embedder.vector(("a b c d e f", RED)))


async def test_an_equal_object_keeps_its_vector_and_a_change_of_any_part_computes_it_anew(joint: Wire) -> None:
    await import_(joint, obj(ID, image=RED, title="a", tags=["b"]))
    joint.embedder.calls.clear()

    again = await import_(joint, obj(ID, image=RED, title="a", tags=["b"], year=2))

    assert again.results[0].stored.vectors[0].origin == pb.VECTOR_ORIGIN_KEPT
    for change, expected in (
        (obj(ID, title="c"), TextImageInput("c\nb", RED)),
        (obj(ID, tags=["d", "e"]), TextImageInput("c\nd\ne", RED)),
        (obj(ID, image=BLUE), TextImageInput("c\nd\ne", BLUE)),
    ):
        joint.embedder.calls.clear()
        request = pb.UpdateObjectRequest(collection="Pictures", object=change)
        stored = (await joint.objects.UpdateObject(request)).stored
        assert stored.vectors[0].origin == pb.VECTOR_ORIGIN_COMPUTED
        assert asked(joint) == [[expected]]
        assert_close(await vector_of(joint, ID), joint.embedder.vector((expected.text, expected.content)))


async def test_a_part_that_is_cleared_leaves_the_vector_of_the_others(joint: Wire) -> None:
    await import_(joint, obj(ID, image=RED, title="a", tags=["b"]))
    request = pb.UpdateObjectRequest(
        collection="Pictures", object=obj(ID), update_mask={"paths": ["images.image", "properties.tags"]}
    )

    await joint.objects.UpdateObject(request)

    assert_close(await vector_of(joint, ID), joint.embedder.vector("a"))


async def test_a_vector_that_is_missing_is_filled_in_with_the_same_input(joint: Wire) -> None:
    await import_(joint, obj(ID, image=RED, title="a", vector=np.ones(8, "<f4").tobytes()))
    late = {"name": "Pictures", "vectors": [{"name": "late", **FIELDS}]}
    await joint.collections.UpdateCollection(collection_pb.UpdateCollectionRequest(collection=late))
    joint.embedder.calls.clear()

    request = pb.BackfillVectorsRequest(collection="Pictures")
    answers = [each async for each in joint.objects.BackfillVectors(request)]

    assert [each.filled for each in answers] == [1]
    assert asked(joint) == [[TextImageInput("a", RED)]]


async def test_a_text_that_two_vectors_embed_alone_is_embedded_once_and_the_joint_input_beside_it() -> None:
    wire = await start_wire(reader())
    await wire.create_pictures(**FIELDS)
    await wire.collections.UpdateCollection(
        collection_pb.UpdateCollectionRequest(
            collection={"name": "Pictures", "vectors": [{"name": "words", "text_fields": [{"name": "title"}]}]}
        )
    )
    wire.embedder.calls.clear()

    await import_(wire, obj(title="a"), obj(title="b", image=RED))
    await stop_wire(wire)

    assert [sorted(map(repr, each)) for each in asked(wire)] == [
        sorted(map(repr, [TextInput("a"), TextImageInput("b", RED), TextInput("b")]))
    ]


@pytest.mark.parametrize("kinds", [TEXT_ONLY, SEPARATE])
async def test_an_embedder_that_turns_out_to_read_less_fails_objects_alone_and_by_name(
    kinds: frozenset[Modality],
) -> None:
    wire = await start_wire(reader())
    await wire.create_pictures(**FIELDS)
    store = wire.store
    await stop_wire(wire)
    wire = await start_wire(FakeEmbedder(modalities=kinds), store=store)

    response = await import_(wire, obj(title="a"), obj(title="a", image=RED))
    await stop_wire(wire)

    good, bad = response.results
    assert good.WhichOneof("outcome") == "stored"
    failure = unpack(bad.error)
    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ['objects[1].vectors["default"]'])
    assert "the model fake/model of embedder fake reads" in failure.message
    assert "not text and picture as one input" in failure.message


async def test_a_change_of_a_text_beside_an_image_of_which_only_the_hash_is_stored_needs_the_image(joint: Wire) -> None:
    properties = {"image": property_pb.DATA_TYPE_BLOB_HASH, "title": property_pb.DATA_TYPE_TEXT}
    made = collection_pb.Collection(
        name="Hashed",
        properties=[property_pb.Property(name=name, data_type=kind) for name, kind in properties.items()],
        vectors=[{"name": "default", **FIELDS, "text_fields": [{"name": "title"}]}],
    )
    await joint.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=made))
    whole = pb.ImportObjectsRequest(collection="Hashed", objects=[obj(ID, image=RED, title="a")])
    await joint.objects.ImportObjects(whole)
    joint.embedder.calls.clear()

    failure = await failure_of(
        joint.objects.UpdateObject(pb.UpdateObjectRequest(collection="Hashed", object=obj(ID, title="b")))
    )
    await joint.objects.UpdateObject(pb.UpdateObjectRequest(collection="Hashed", object=obj(ID, image=RED, title="b")))

    assert failure.reason == "IMAGE_NOT_STORED"
    assert asked(joint) == [[TextImageInput("b", RED)]]
