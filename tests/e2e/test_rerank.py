"""Searches whose hits a reranker of Weaviate's orders anew, beside the same ones through weaviate-client."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from grpc.aio import AioRpcError
from weaviate.classes.query import GroupBy, MetadataQuery, Rerank

from service.settings import WeaviateSettings
from service.store.embedded import server as embedded
from service.store.embedded.server import EmbeddedWeaviate
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.weaviate import at_ports
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub


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
    server = EmbeddedWeaviate(WeaviateSettings(embedded=True, data_dir=tmp_path, **at_ports(0, 0)), supervised=False)
    await server.start()
    yield server.client_settings
    await server.stop()


QUERY = {"property": "title", "query": "xyz"}
RERANK = Rerank(prop="title", query="xyz")
NEAR = {"vector": {"data": b"\0\0\x80\x3f\0\0\0\0"}}
TITLES = ("abc w", "xyz w", "abx w", "xya w", "axc w")


@pytest.fixture
async def sides(
    weaviate_with_key: WeaviateSettings, reranker: str
) -> AsyncIterator[tuple[SearchServiceStub, CollectionServiceStub, Any]]:
    """A collection that Vecgate gave a reranker, and five objects."""
    async with beside(weaviate_with_key, FakeEmbedder(dimension=2)) as (channel, direct):
        collections = CollectionServiceStub(channel)
        wanted = collection_pb.Collection(
            name="Reranked",
            properties=[{"name": "title", "data_type": "DATA_TYPE_TEXT"}],
            vectors=[{"name": "v"}],
            reranker={"module": "reranker-nvidia", "options": {"baseURL": reranker, "model": "nvidia/reranker"}},
        )
        made = await collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))
        assert made.collection.reranker == wanted.reranker
        collection = direct.collections.use("Reranked")
        for number, title in enumerate(TITLES, start=1):
            await collection.data.insert({"title": title}, uuid=UUID(int=number), vector={"v": [1.0, number]})
        yield SearchServiceStub(channel), collections, collection


async def test_reranked_hits_are_those_of_weaviates_own_client(
    sides: tuple[SearchServiceStub, CollectionServiceStub, Any],
) -> None:
    search, _, direct = sides

    async def find(**query: Any) -> pb.SearchObjectsResponse:
        return await search.SearchObjects(pb.SearchObjectsRequest(collection="Reranked", rerank=QUERY, **query))

    query, shared = direct.query, {"rerank": RERANK, "return_metadata": MetadataQuery(distance=True)}
    groups = {"number_of_groups": 3, "objects_per_group": 2}
    pairs = [
        (await find(near_vector=NEAR), await query.near_vector([1.0, 0.0], **shared)),
        (await find(near_vector=NEAR, limit=2), await query.near_vector([1.0, 0.0], limit=2, **shared)),
        (await find(bm25={"query": "w"}), await query.bm25("w", rerank=RERANK)),
        (
            await find(hybrid={"bm25": {"query": "w"}, "near_vector": NEAR}),
            await query.hybrid("w", vector=[1.0, 0.0], rerank=RERANK),
        ),
        (await find(near_object={"id": str(UUID(int=1))}), await query.near_object(UUID(int=1), **shared)),
    ]
    grouped = await find(near_vector=NEAR, group_by={"property": "title", **groups})
    expected = await query.near_vector([1.0, 0.0], rerank=RERANK, group_by=GroupBy(prop="title", **groups))

    for ours, theirs in pairs:
        assert [(hit.object.id, hit.rerank_score) for hit in ours.hits] == [
            (str(each.uuid), each.metadata.rerank_score) for each in theirs.objects
        ]
    assert [hit.rerank_score for hit in pairs[0][0].hits] == [3, 2, 1, 1, 0]
    assert [(each.name, each.rerank_score) for each in grouped.groups] == [
        (each.name, each.rerank_score) for each in expected.groups.values()
    ]


async def test_a_reranker_is_exchanged_for_one_that_weaviate_has(
    sides: tuple[SearchServiceStub, CollectionServiceStub, Any],
) -> None:
    _, collections, _ = sides

    async def update(module: str, **options: str) -> collection_pb.Collection:
        wanted = collection_pb.Collection(name="Reranked", reranker={"module": module, "options": options})
        request = collection_pb.UpdateCollectionRequest(collection=wanted)
        return (await collections.UpdateCollection(request)).collection

    exchanged = await update("reranker-cohere", model="rerank-v3.5")
    with pytest.raises(AioRpcError, match="reranker-nope"):
        await update("reranker-nope")
    request = collection_pb.GetCollectionRequest(name="Reranked")
    kept = (await collections.GetCollection(request)).collection

    assert kept.reranker == exchanged.reranker
    assert (kept.reranker.module, dict(kept.reranker.options)) == ("reranker-cohere", {"model": "rerank-v3.5"})
