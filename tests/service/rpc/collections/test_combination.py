"""How an object's fields become a vector: stated at creation, kept, returned, and refused by name if it cannot be."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import StatusCode

from embedders.contract import SEPARATE, Modality
from tests.fakes.embedder import TEXT_ONLY, FakeEmbedder
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

MEAN, JOINT = pb.COMBINATION_WEIGHTED_MEAN, pb.COMBINATION_JOINT_INPUT
VECTOR = "collection.vectors[0]"
IMAGE, TITLE, TEXT = {"name": "image"}, {"name": "title"}, {"name": "text"}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server with a model that reads both at once, one that reads each alone, and one that reads texts."""
    kinds = {"both": frozenset(Modality), "clip": SEPARATE, "texts": TEXT_ONLY}
    running = await start_wire(
        *(
            FakeEmbedder(name=name, model=f"{name}/model", space=name, modalities=modalities)
            for name, modalities in kinds.items()
        )
    )
    yield running
    await stop_wire(running)


def collection(*vectors: dict[str, Any]) -> pb.Collection:
    kinds = {"image": property_pb.DATA_TYPE_BLOB, "other": property_pb.DATA_TYPE_BLOB}
    kinds |= dict.fromkeys(("title", "text"), property_pb.DATA_TYPE_TEXT)
    return pb.Collection(
        name="Pictures",
        properties=[property_pb.Property(name=name, data_type=kind) for name, kind in kinds.items()],
        vectors=[pb.VectorConfig(**{"name": "default", **each}) for each in vectors],
    )


async def create(wire: Wire, *vectors: dict[str, Any]) -> pb.Collection:
    request = pb.CreateCollectionRequest(collection=collection(*vectors))
    return (await wire.collections.CreateCollection(request)).collection


async def update(wire: Wire, **vector: Any) -> pb.Collection:
    request = pb.UpdateCollectionRequest(collection={"name": "Pictures", "vectors": [{"name": "default", **vector}]})
    return (await wire.collections.UpdateCollection(request)).collection


async def test_it_is_kept_and_returned_with_the_fields_in_their_order_and_without_weights(wire: Wire) -> None:
    joint = {"image_fields": [IMAGE], "text_fields": [TITLE, TEXT], "combination": JOINT}

    created = await create(wire, joint, {"name": "mean", "text_fields": [TITLE]})

    got = (await wire.collections.GetCollection(pb.GetCollectionRequest(name="Pictures"))).collection
    for each in (created, got):
        vectors = {vector.name: vector for vector in each.vectors}
        assert [vector.combination for vector in vectors.values()] == [JOINT, MEAN]
        fields = [*vectors["default"].image_fields, *vectors["default"].text_fields]
        assert [field.name for field in fields] == ["image", "title", "text"]
        assert not any(field.HasField("weight") for field in fields)


async def test_texts_alone_are_joined_for_a_model_that_reads_texts(wire: Wire) -> None:
    created = await create(wire, {"embedder": "texts", "text_fields": [TEXT, TITLE], "combination": JOINT})

    assert created.vectors[0].combination == JOINT


@pytest.mark.parametrize(
    ("vector", "field", "words"),
    [
        pytest.param(
            {"image_fields": [IMAGE, {"name": "other"}], "text_fields": [TITLE]},
            f"{VECTOR}.image_fields[1]",
            "takes one image field",
            id="several images",
        ),
        pytest.param(
            {"image_fields": [{**IMAGE, "weight": 1}], "text_fields": [TITLE]},
            f"{VECTOR}.image_fields[0].weight",
            "does not go with one joint input",
            id="weight of the image",
        ),
        pytest.param(
            {"image_fields": [IMAGE], "text_fields": [TITLE, {**TEXT, "weight": 2}]},
            f"{VECTOR}.text_fields[1].weight",
            "does not go with one joint input",
            id="weight of a text",
        ),
        pytest.param(
            {"image_fields": [IMAGE], "text_fields": [TITLE], "native": True, "base_url": "http://vecgate:8070"},
            f"{VECTOR}.combination",
            "does not go with native",
            id="native",
        ),
        pytest.param({"image_fields": [IMAGE]}, f"{VECTOR}.combination", "needs text_fields", id="no texts"),
        pytest.param({}, f"{VECTOR}.combination", "needs text_fields", id="no fields"),
        pytest.param(
            {"image_fields": [IMAGE], "text_fields": [TITLE], "embedder": "clip"},
            f"{VECTOR}.combination",
            "the model clip/model of embedder clip reads texts and pictures, each as an input of its own, not text and "
            "picture as one input",
            id="a model that reads each alone",
        ),
    ],
)
async def test_what_does_not_go_together_is_refused_by_name_and_nothing_is_created(
    wire: Wire, vector: dict[str, Any], field: str, words: str
) -> None:
    failure = await failure_of(create(wire, {**vector, "combination": JOINT}))

    assert (failure.code, failure.reason, failure.fields) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", [field])
    assert words in failure.message
    assert "create_collection" not in wire.store.calls


@pytest.mark.parametrize("combination", [pb.COMBINATION_UNSPECIFIED, MEAN, JOINT])
async def test_images_for_a_model_that_reads_texts_only_are_refused_by_name(
    wire: Wire, combination: pb.Combination.ValueType
) -> None:
    vector = {"embedder": "texts", "image_fields": [IMAGE], "text_fields": [TITLE], "combination": combination}

    failure = await failure_of(create(wire, vector))

    assert f"{VECTOR}.image_fields" in failure.fields
    assert "the model texts/model of embedder texts reads texts only, not pictures" in failure.message


async def test_a_vector_that_is_added_follows_the_same_rules(wire: Wire) -> None:
    await create(wire, {"text_fields": [TITLE]})
    joint = {"image_fields": [IMAGE], "text_fields": [TITLE], "combination": JOINT}

    refused = [
        await failure_of(update(wire, name="late", embedder="clip", **joint)),
        await failure_of(update(wire, name="late", image_fields=[IMAGE], combination=JOINT)),
        await failure_of(update(wire, name="late", embedder="texts", image_fields=[IMAGE])),
    ]
    added = await update(wire, name="late", **joint)

    assert [each.fields for each in refused] == [
        [f"{VECTOR}.combination"], [f"{VECTOR}.combination"], [f"{VECTOR}.image_fields"]
    ]  # fmt: skip
    assert [each.combination for each in added.vectors] == [MEAN, JOINT]


async def test_it_cannot_be_changed_later_and_what_is_left_out_or_equal_changes_nothing(wire: Wire) -> None:
    created = await create(wire, {"image_fields": [IMAGE], "text_fields": [TITLE], "combination": JOINT})

    failure = await failure_of(update(wire, combination=MEAN))
    same = [await update(wire), await update(wire, combination=JOINT)]

    assert (failure.fields, "cannot be changed" in failure.message) == ([f"{VECTOR}.combination"], True)
    assert same == [created, created]


async def test_a_number_of_a_later_version_is_refused(wire: Wire) -> None:
    failure = await failure_of(create(wire, {"text_fields": [TITLE], "combination": 9}))

    assert failure.fields == [f"{VECTOR}.combination"]
