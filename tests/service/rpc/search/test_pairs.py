"""Searches by a text and an image as one input."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import StatusCode

from embedders.contract import QUERY, InputLimits, Modality, TextImageInput, TextInput
from tests.conftest import assert_close
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from tests.service.rpc.objects.test_import import import_, obj
from tests.service.rpc.search.test_search import search
from vecgate.v1 import collection_service_pb2 as collection_pb

RED, BLUE = picture((255, 0, 0)), picture((0, 0, 255))
JOINT = collection_pb.COMBINATION_JOINT_INPUT


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server with objects whose title and image are one input."""
    limits = InputLimits(max_image_bytes=100_000)
    running = await start_wire(FakeEmbedder(limits=limits, modalities=frozenset(Modality), max_text_tokens=8))
    await running.create_pictures(combination=JOINT)
    await import_(running, obj(image=RED, title="a red square"), obj(image=BLUE, title="a blue square"))
    running.embedder.calls.clear()
    yield running
    await stop_wire(running)


def pair(text: str, image: bytes = RED) -> dict[str, Any]:
    return {"text_image": {"text": text, "image": {"content": image}}}


async def test_it_is_one_input_of_the_query_and_finds_the_object_of_the_same_pair(wire: Wire) -> None:
    response = await wire.search.SearchObjects(search(near_inputs={"inputs": [pair("a red square")]}))

    assert wire.embedder.calls == [([TextImageInput("a red square", RED)], QUERY)]
    assert response.embedder.name == "fake"
    assert response.hits[0].object.properties["title"] == "a red square"
    assert_close(response.hits[0].distance, 0)


async def test_it_counts_by_its_weight_beside_other_inputs_and_in_a_hybrid_search(wire: Wire) -> None:
    inputs = [{**pair("a red square"), "weight": 3}, {"text": "night", "weight": 1}]
    near = {"inputs": inputs, "truncate": True}

    alone = await wire.search.SearchObjects(search(near_inputs=near, output={"vectors": ["default"]}))
    hybrid = await wire.search.SearchObjects(search(hybrid={"near_inputs": near, "bm25": {"query": "blue"}}))

    mean = 3 * wire.embedder.vector(("a red square", RED)) + wire.embedder.vector("night")
    expected = 1 - float(mean @ wire.embedder.vector(("a red square", RED)) / (mean @ mean) ** 0.5)
    assert_close(alone.hits[0].distance, expected)
    assert len(hybrid.hits) == 2
    inputs_asked = [inputs for inputs, _ in wire.embedder.calls]
    assert inputs_asked == [[TextImageInput("a red square", RED, True), TextInput("night", True)]] * 2


@pytest.mark.parametrize(
    ("given", "reason", "field"),
    [
        (pair("one two three four five six seven"), "TEXT_TOO_LONG", "text_image.text"),
        (pair("a", RED[:40]), "IMAGE_UNDECODABLE", "text_image.image.content"),
        (pair("a", RED + bytes(100_000)), "IMAGE_TOO_LARGE", "text_image.image.content"),
        (pair(" "), "INVALID_INPUT", "text_image"),
        ({"text_image": {"text": "a"}}, "INVALID_INPUT", "text_image.image"),
    ],
)
async def test_what_is_wrong_with_a_part_is_refused_with_its_path(
    wire: Wire, given: dict[str, Any], reason: str, field: str
) -> None:
    failure = await failure_of(wire.search.SearchObjects(search(near_inputs={"inputs": [given]})))

    assert (failure.code, failure.reasons) == (StatusCode.INVALID_ARGUMENT, [reason])
    assert failure.fields == [f"near_inputs.inputs[0].{field}"]


async def test_a_model_that_does_not_read_pairs_refuses_it_by_name() -> None:
    wire = await start_wire()
    await wire.create_pictures()
    wire.embedder.calls.clear()

    failure = await failure_of(wire.search.SearchObjects(search(near_inputs={"inputs": [pair("a")]})))
    await stop_wire(wire)

    assert failure.fields == ["near_inputs.inputs[0].text_image"]
    assert (
        "the model fake/model of embedder fake reads texts and pictures, each as an input of its own" in failure.message
    )
