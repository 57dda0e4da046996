"""Searches whose hits a reranker of Weaviate's orders anew, beside the same ones through weaviate-client."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from weaviate.classes.config import Configure, DataType, Property
from weaviate.classes.query import MetadataQuery, Rerank

from service.settings import WeaviateSettings
from service.store import embedded
from service.store.embedded import EmbeddedWeaviate
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub
from vecgate.v1.vector_pb2 import Vector


async def rank(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as NVIDIA's reranker does: the more letters a passage shares with the query, the better."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    asked = json.loads(await reader.readexactly(length))
    scores = [len(set(each["text"]) & set(asked["query"]["text"])) for each in asked["passages"]]
    body = json.dumps({"rankings": [{"index": index, "logit": score} for index, score in enumerate(scores)]}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


@pytest.fixture
async def reranker() -> AsyncIterator[str]:
    """The address of a reranker on loopback."""
    async with await asyncio.start_server(rank, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def weaviate_with_key(
    weaviate_binary: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WeaviateSettings]:
    """A Weaviate that has a key for NVIDIA's models, as its operator gives it one."""
    monkeypatch.setenv("NVIDIA_APIKEY", "any")
    monkeypatch.setattr(embedded, "PASSED_ON", (*embedded.PASSED_ON, "NVIDIA_APIKEY"))
    server = EmbeddedWeaviate(
        WeaviateSettings(embedded=True, data_dir=tmp_path, http_port=0, grpc_port=0), supervised=False
    )
    await server.start()
    yield server.client_settings
    await server.stop()


async def test_reranked_hits_are_those_of_weaviates_own_client(
    weaviate_with_key: WeaviateSettings, reranker: str
) -> None:
    titles = ["abc", "xyz", "abx", "xya", "axc"]
    async with beside(weaviate_with_key, FakeEmbedder()) as (channel, direct):
        collection = await direct.collections.create(
            "Reranked",
            properties=[Property(name="title", data_type=DataType.TEXT)],
            vector_config=[Configure.Vectors.self_provided(name="v")],
            reranker_config=Configure.Reranker.nvidia(base_url=reranker, model="nvidia/reranker"),
        )
        for number, title in enumerate(titles, start=1):
            await collection.data.insert({"title": title}, uuid=UUID(int=number), vector={"v": [1.0, number]})
        near = pb.NearVector(vector=Vector(data=b"\0\0\x80\x3f\0\0\0\0"))
        response = await SearchServiceStub(channel).SearchObjects(
            pb.SearchObjectsRequest(
                collection="Reranked", near_vector=near, rerank={"property": "title", "query": "xyz"}
            )
        )
        expected = await collection.query.near_vector(
            [1.0, 0.0], rerank=Rerank(prop="title", query="xyz"), return_metadata=MetadataQuery(distance=True)
        )

    assert [(hit.object.id, hit.distance, hit.rerank_score) for hit in response.hits] == [
        (str(each.uuid), each.metadata.distance, each.metadata.rerank_score) for each in expected.objects
    ]
    assert [hit.rerank_score for hit in response.hits] == [3, 2, 1, 1, 0]
