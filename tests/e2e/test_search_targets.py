"""Searches of several named vectors through Vecgate beside the same ones through weaviate-client."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.struct_pb2 import Struct
from weaviate.classes.query import MetadataQuery, TargetVectors

from service.settings import WeaviateSettings
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

QUERY = "a red cat"


def embedders() -> list[FakeEmbedder]:
    return [FakeEmbedder(name="one", space="one"), FakeEmbedder(name="two", space="two", dimension=16)]


VECTORS = {name: each.vector(QUERY).tolist() for name, each in zip(("first", "second"), embedders(), strict=True)}
WEIGHTS = {"first": 0.3, "second": 1.7}
NAMES = list(VECTORS)
JOINS: dict[str, tuple[dict[str, Any], Any]] = {
    "none": ({}, NAMES),
    "minimum": ({"target_join": "TARGET_JOIN_MINIMUM"}, TargetVectors.minimum(NAMES)),
    "sum": ({"target_join": "TARGET_JOIN_SUM"}, TargetVectors.sum(NAMES)),
    "average": ({"target_join": "TARGET_JOIN_AVERAGE"}, TargetVectors.average(NAMES)),
    "manual weights": (
        {"target_join": "TARGET_JOIN_MANUAL_WEIGHTS", "target_weights": WEIGHTS.values()},
        TargetVectors.manual_weights(WEIGHTS),
    ),
    "relative score": (
        {"target_join": "TARGET_JOIN_RELATIVE_SCORE", "target_weights": WEIGHTS.values()},
        TargetVectors.relative_score(WEIGHTS),
    ),
}


@pytest.fixture
async def sides(weaviate_settings: WeaviateSettings) -> AsyncIterator[tuple[str, SearchServiceStub, Any]]:
    name = f"Targets{uuid4().hex}"
    async with beside(weaviate_settings, *embedders()) as (channel, direct):
        await CollectionServiceStub(channel).CreateCollection(
            collection_pb.CreateCollectionRequest(
                collection=collection_pb.Collection(
                    name=name,
                    properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
                    vectors=[
                        collection_pb.VectorConfig(name=each, embedder=embedder, text_fields=[{"name": "title"}])
                        for each, embedder in zip(NAMES, ("one", "two"), strict=True)
                    ],
                )
            )
        )
        objects = []
        for number in range(1, 31):
            properties = Struct()
            properties.update({"title": f"thing {number}"})
            objects.append(object_pb.DataObject(id=str(UUID(int=number)), properties=properties))
        await ObjectServiceStub(channel).ImportObjects(object_pb.ImportObjectsRequest(collection=name, objects=objects))
        yield name, SearchServiceStub(channel), direct.collections.use(name)


@pytest.mark.parametrize("case", JOINS)
async def test_joined_distances_and_scores_are_those_of_weaviates_own_client(
    sides: tuple[str, SearchServiceStub, Any], case: str
) -> None:
    name, search, direct = sides
    ours, theirs = JOINS[case]
    shared = {"collection": name, "target_vectors": NAMES, "limit": 20, **ours}

    near = await search.SearchObjects(pb.SearchObjectsRequest(near_text={"concepts": [QUERY]}, **shared))
    expected = await direct.query.near_vector(
        VECTORS, target_vector=theirs, limit=20, return_metadata=MetadataQuery(distance=True)
    )
    hybrid = await search.SearchObjects(pb.SearchObjectsRequest(hybrid={"bm25": {"query": QUERY}}, **shared))
    expected_hybrid = await direct.query.hybrid(
        QUERY, vector=VECTORS, target_vector=theirs, limit=20, return_metadata=MetadataQuery(score=True)
    )
    like = await search.SearchObjects(pb.SearchObjectsRequest(near_object={"id": str(UUID(int=7))}, **shared))
    expected_like = await direct.query.near_object(
        UUID(int=7), target_vector=theirs, limit=20, return_metadata=MetadataQuery(distance=True)
    )

    for response, answer in ((near, expected), (like, expected_like)):
        assert [(hit.object.id, hit.distance) for hit in response.hits] == [
            (str(each.uuid), each.metadata.distance) for each in answer.objects
        ]
    assert [(hit.object.id, hit.score) for hit in hybrid.hits] == [
        (str(each.uuid), each.metadata.score) for each in expected_hybrid.objects
    ]
    assert len(near.hits) == 20
