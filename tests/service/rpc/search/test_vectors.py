"""What becomes the vector of a query."""

from unittest import mock
from uuid import UUID

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from embedders.contract import QUERY, ImageInput, TextInput
from service.core.searching import vectors
from tests.conftest import assert_close
from tests.service.conftest import Wire, failure_of
from tests.service.rpc.search.test_search import RED, fill, search
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1.input_pb2 import Image
from vecgate.v1.vector_pb2 import Vector

GONE = str(UUID(int=7))


async def id_of(wire: Wire, title: str) -> str:
    found = await wire.search.SearchObjects(search(near_text={"concepts": [title]}, limit=1))
    return found.hits[0].object.id


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


async def test_a_vector_that_a_caller_supplies_is_read_once(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(wire, "a cat")
    read = mock.Mock(wraps=vectors.parse_vector)
    monkeypatch.setattr(vectors, "parse_vector", read)

    response = await wire.search.SearchObjects(
        search(near_vector={"vector": Vector(data=wire.embedder.vector("a cat").tobytes())})
    )

    assert response.hits[0].object.properties["title"] == "a cat"
    assert read.call_count == 1


async def test_moves_shift_the_query_by_the_plain_means_of_what_they_name(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    dog = await id_of(wire, "a dog")
    of = wire.embedder.vector
    goal = ((of("a cat") + of("z")) / 2 + of("a dog")) / 2
    query = (of("x") + of("y")) / 2
    query = query * (1 - 0.8 / 2) + goal * 0.8 / 2
    query = unit(query + 1.5 / 2 * (query - of("w")))
    wire.embedder.calls.clear()

    response = await wire.search.SearchObjects(
        search(
            near_text={
                "concepts": ["x", "y"],
                "move_to": {"force": 0.8, "concepts": ["a cat", "z"], "objects": [dog]},
                "move_away": {"force": 1.5, "concepts": ["w"]},
            }
        )
    )

    found = {hit.object.id: hit.distance for hit in response.hits}
    assert_close(found[dog], 1 - query @ of("a dog"))
    assert len(wire.embedder.calls) == 1


async def test_a_move_without_force_changes_nothing_and_embeds_nothing(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    still = {"concepts": ["a cat"], "move_to": {"force": 0, "concepts": ["a dog"]}}

    plain = await wire.search.SearchObjects(search(near_text={"concepts": ["a cat"]}))
    wire.embedder.calls.clear()
    moved = await wire.search.SearchObjects(search(near_text=still))

    assert moved == plain
    assert wire.embedder.calls == [([TextInput("a cat")], QUERY)]


async def test_inputs_of_all_kinds_are_one_query_by_their_weights(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    dog = await id_of(wire, "a dog")
    of = wire.embedder.vector
    query = unit(of("x") + 2 * of(RED) + 3 * of("y") + 0.5 * of("a dog"))
    # A vector of any length counts as much as the others.
    vector = Vector(data=(of("y") * 1e-8).astype("<f4").tobytes())
    wire.embedder.calls.clear()

    response = await wire.search.SearchObjects(
        search(
            near_inputs={
                "inputs": [
                    {"text": "x"},
                    {"image": Image(content=RED), "weight": 2},
                    {"near_vector": {"vector": vector}, "weight": 3},
                    {"near_object": {"id": dog}, "weight": 0.5},
                ]
            }
        )
    )

    found = {hit.object.id: hit.distance for hit in response.hits}
    assert_close(found[dog], 1 - query @ of("a dog"))
    assert wire.embedder.calls == [([TextInput("x"), ImageInput(RED)], QUERY)]
    assert response.embedder.name == "fake"


async def test_inputs_that_need_no_embedder_name_none(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    dog = await id_of(wire, "a dog")
    wire.embedder.calls.clear()

    response = await wire.search.SearchObjects(search(near_inputs={"inputs": [{"near_object": {"id": dog}}]}))

    assert response.hits[0].object.id == dog
    assert not response.HasField("embedder")
    assert wire.embedder.calls == []


async def test_a_hybrid_search_takes_several_inputs_as_its_vector_side(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    inputs = [{"text": "a cat", "weight": 9}, {"text": "a dog"}]

    response = await wire.search.SearchObjects(
        search(hybrid={"bm25": {"query": "dog"}, "alpha": 1.0, "near_inputs": {"inputs": inputs}})
    )

    assert response.hits[0].object.properties["title"] == "a cat"


async def test_inputs_that_cancel_each_other_out_are_refused(wire: Wire) -> None:
    await fill(wire, "a cat")
    opposite = Vector(data=(-wire.embedder.vector("x")).astype("<f4").tobytes())
    inputs = [{"text": "x"}, {"near_vector": {"vector": opposite}}]

    failure = await failure_of(wire.search.SearchObjects(search(near_inputs={"inputs": inputs})))

    assert (failure.reason, failure.fields) == ("INVALID_VECTOR", ["near_inputs.inputs"])


async def test_a_vector_of_another_space_is_no_input(wire: Wire) -> None:
    await fill(wire, "a cat")
    vector = Vector(data=wire.embedder.vector("x").tobytes())
    inputs = [{"text": "x"}, {"near_vector": {"vector": vector, "space": "elsewhere"}}]

    failure = await failure_of(wire.search.SearchObjects(search(near_inputs={"inputs": inputs})))

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "EMBEDDING_SPACE_MISMATCH")


@pytest.mark.parametrize(
    ("query", "path"),
    [
        (
            {"near_text": {"concepts": ["a"], "move_to": {"force": 1, "objects": [GONE]}}},
            "near_text.move_to.objects[0]",
        ),
        ({"near_inputs": {"inputs": [{"near_object": {"id": GONE}}]}}, "near_inputs.inputs[0].near_object.id"),
    ],
)
async def test_an_object_must_be_there_and_have_the_vector(wire: Wire, query: dict[str, object], path: str) -> None:
    await fill(wire, "a cat")

    missing = await failure_of(wire.search.SearchObjects(search(**query)))
    properties = Struct()
    properties.update({"year": 1})
    bare = object_pb.DataObject(id=GONE, properties=properties)
    await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=[bare]))
    without = await failure_of(wire.search.SearchObjects(search(**query)))

    assert (missing.code, missing.reason) == (StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND")
    assert (without.reason, without.fields) == ("UNKNOWN_VECTOR", [path])
