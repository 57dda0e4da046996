"""Searches of several named vectors, each of a space of its own."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from embedders.errors import EmbedderUnavailable
from tests.conftest import assert_close
from tests.fakes.embedder import FakeEmbedder
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.vector_pb2 import Vector

TITLES = ("a cat", "a dog", "a red car")
BOTH = ["local", "remote"]


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server with embedders of two spaces, and a collection with a named vector for each."""
    running = await start_wire(
        FakeEmbedder(name="nim", space="nvidia/nvclip"), FakeEmbedder(name="clip", space="clip:local", dimension=4)
    )
    await running.collections.CreateCollection(
        collection_pb.CreateCollectionRequest(
            collection=collection_pb.Collection(
                name="Pictures",
                properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
                vectors=[
                    collection_pb.VectorConfig(name="local", embedder="clip", text_fields=[{"name": "title"}]),
                    collection_pb.VectorConfig(name="remote", embedder="nim", text_fields=[{"name": "title"}]),
                ],
            )
        )
    )
    objects = []
    for number, title in enumerate(TITLES, start=1):
        properties = Struct()
        properties.update({"title": title})
        objects.append(object_pb.DataObject(id=str(UUID(int=number)), properties=properties))
    await running.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=objects))
    yield running
    await stop_wire(running)


async def find(wire: Wire, **fields: object) -> pb.SearchObjectsResponse:
    return await wire.search.SearchObjects(pb.SearchObjectsRequest(collection="Pictures", **fields))


def distances(wire: Wire, text: str, title: str) -> tuple[float, float]:
    """Return how far a title is from a text in the local space and in the remote one."""
    remote, local = (float(1 - each.vector(text) @ each.vector(title)) for each in wire.embedders)
    return local, remote


@pytest.mark.parametrize(
    ("join", "weights"),
    [("UNSPECIFIED", []), ("MINIMUM", []), ("SUM", []), ("AVERAGE", []), ("MANUAL_WEIGHTS", [0.25, 2])],
)
async def test_a_text_is_embedded_for_each_vector_and_the_distances_joined(
    wire: Wire, join: str, weights: list[float]
) -> None:
    response = await find(
        wire,
        near_text={"concepts": ["x"]},
        target_vectors=BOTH,
        target_join=f"TARGET_JOIN_{join}",
        target_weights=weights,
    )

    expected = {}
    for title in TITLES:
        local, remote = distances(wire, "x", title)
        expected[title] = {
            "SUM": local + remote,
            "AVERAGE": (local + remote) / 2,
            "MANUAL_WEIGHTS": 0.25 * local + 2 * remote,
        }.get(join, min(local, remote))
    found = {hit.object.properties["title"]: hit.distance for hit in response.hits}
    assert list(found) == sorted(TITLES, key=expected.__getitem__)
    assert_close([found[title] for title in TITLES], [expected[title] for title in TITLES])
    assert [each.name for each in response.embedders] == ["clip", "nim"]
    assert response.embedder == response.embedders[0]


async def test_own_vectors_and_objects_search_several_vectors(wire: Wire) -> None:
    remote, local = (Vector(data=each.vector("a dog").astype("<f4").tobytes()) for each in wire.embedders)
    shared = {"target_vectors": BOTH, "target_join": "TARGET_JOIN_SUM", "limit": 1}

    by_vectors = await find(wire, near_vector={"target_vectors": {"local": local, "remote": remote}}, **shared)
    by_object = await find(wire, near_object={"id": str(UUID(int=2))}, **shared)
    hybrid = await find(wire, hybrid={"near_vector": {"target_vectors": {"local": local, "remote": remote}}}, **shared)

    for response in (by_vectors, by_object, hybrid):
        assert response.hits[0].object.properties["title"] == "a dog"
        assert not response.embedders
    assert_close(by_vectors.hits[0].distance, 0)
    assert_close(by_object.hits[0].distance, 0)


async def test_all_named_vectors_are_needed_once_they_are_named(wire: Wire) -> None:
    wire.embedders[0].failure = EmbedderUnavailable("it is down", retry_after_s=3)

    failure = await failure_of(find(wire, near_text={"concepts": ["x"]}, target_vectors=BOTH))

    assert (failure.code, failure.reason) == (StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE")
