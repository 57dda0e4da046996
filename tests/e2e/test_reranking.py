"""Searches whose hits a reranking NIM sorts again, on a real Weaviate, and a whole server with such a NIM."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc.aio import AioRpcError
from typer.testing import CliRunner

from embedders.factory import build_reranker
from embedders.nim.reranking import NimRerankConfig
from service.cli import app
from service.settings import WeaviateSettings
from tests.e2e.beside import beside
from tests.e2e.serving import serving, tiny_model
from tests.e2e.test_snippets import snippet
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.nim_server import Fault
from tests.fakes.rerank_nim import FakeRerankNim
from tests.service.conftest import unpack
from vecgate.client import Client, Object
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.input_pb2 import Image
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub
from vecgate.v1.vector_pb2 import Vector

TITLES = ("abc w", "xyz w", "", "xya w", "axc w")
"""By the letters of xyz the order is 1, 3, 4, 0, and 2 has nothing to read but its picture."""
GREENS = (0, 50, 250, 100, 150)
BY_TITLE = {"reranker": "nim-rerank", "property": "title", "query": "xyz"}


@dataclass(frozen=True)
class Site:
    """Vecgate, Weaviate's own client of the same collection, and the NIM."""

    name: str
    search: SearchServiceStub
    direct: Any
    nim: FakeRerankNim

    async def find(self, rerank: dict[str, Any] | None, seconds: float | None = None, **fields: Any) -> Any:
        query = {"near_vector": {"vector": vector(0)}, **fields}
        request = pb.SearchObjectsRequest(collection=self.name, rerank=rerank, **query)
        return await self.search.SearchObjects(request, timeout=seconds)


def vector(place: int) -> Vector:
    return Vector(data=np.array([1, place / 10], "<f4").tobytes())


def places(response: pb.SearchObjectsResponse) -> list[int]:
    return [UUID(hit.object.id).int - 1 for hit in response.hits]


def drawing(place: int) -> bytes:
    return picture((0, GREENS[place], 0))


@pytest.fixture
async def site(weaviate_settings: WeaviateSettings) -> AsyncIterator[Site]:
    """A collection of five objects with titles, but for one, and pictures."""
    name = f"Reranked{uuid4().hex}"
    async with FakeRerankNim() as nim:
        reranker = build_reranker(NimRerankConfig(base_url=nim.base_url, retry_attempts=1))
        async with beside(weaviate_settings, FakeEmbedder(dimension=2), rerankers=[reranker]) as (channel, direct):
            collection = collection_pb.Collection(
                name=name,
                properties=[
                    {"name": "title", "data_type": "DATA_TYPE_TEXT"},
                    {"name": "year", "data_type": "DATA_TYPE_INT"},
                    {"name": "photo", "data_type": "DATA_TYPE_BLOB"},
                ],
                vectors=[{"name": "v"}],
            )
            created = collection_pb.CreateCollectionRequest(collection=collection)
            await CollectionServiceStub(channel).CreateCollection(created)
            messages = []
            for place, title in enumerate(TITLES):
                properties = Struct()
                properties.update({"year": 2000 + place, **({"title": title} if title else {})})
                messages.append(
                    object_pb.DataObject(
                        id=str(UUID(int=place + 1)),
                        properties=properties,
                        images={"photo": Image(content=drawing(place))},
                        vectors={"v": vector(place)},
                    )
                )
            imported = object_pb.ImportObjectsRequest(collection=name, objects=messages)
            response = await ObjectServiceStub(channel).ImportObjects(imported)
            assert all(each.HasField("stored") for each in response.results)
            yield Site(name, SearchServiceStub(channel), direct.collections.use(name), nim)
            await direct.collections.delete(name)


async def test_hits_come_in_the_rerankers_order_and_with_what_was_asked_for_alone(site: Site) -> None:
    theirs = await site.direct.query.near_vector([1.0, 0.0], target_vector="v")

    plain = await site.find(None)
    by_title = await site.find(BY_TITLE, output={"properties": ["year"]})
    page = await site.find(BY_TITLE, limit=2, offset=1, output={"images": ["photo"], "vectors": ["v"]})

    assert places(plain) == [each.uuid.int - 1 for each in theirs.objects] == [0, 1, 2, 3, 4]
    assert places(by_title) == [1, 3, 4, 0, 2]
    assert [hit.rerank_score for hit in by_title.hits] == [3, 2, 1, 0, 0]
    assert not by_title.hits[4].HasField("rerank_score")
    assert all([*hit.object.properties] == ["year"] and not hit.object.images for hit in by_title.hits)
    assert by_title.reranking.model == site.nim.model
    assert places(page) == [3, 4]
    assert [hit.object.images["photo"].content for hit in page.hits] == [drawing(3), drawing(4)]
    assert [hit.object.vectors["v"] for hit in page.hits] == [vector(3), vector(4)]


async def test_pictures_of_a_blob_reach_the_nim_alone_or_beside_the_texts(site: Site) -> None:
    alone = await site.find({"reranker": "nim-rerank", "query": "xyz", "image_property": "photo"})
    both = await site.find({**BY_TITLE, "image_property": "photo"})

    assert places(alone) == places(both) == [2, 4, 3, 1, 0]
    sent_alone, sent_both = (request["passages"] for request in site.nim.requests[-2:])
    assert [base64.b64decode(each["image"].partition(",")[2]) for each in sent_alone] == list(map(drawing, range(5)))
    assert all("text" not in each for each in sent_alone)
    assert [each.get("text") for each in sent_both] == [title or None for title in TITLES]
    assert all(not hit.object.images for hit in both.hits)


async def test_only_the_first_hits_are_reranked_and_the_others_follow(site: Site) -> None:
    some = await site.find({**BY_TITLE, "limit": 2}, limit=4)
    more = await site.find({**BY_TITLE, "limit": 500})

    assert (places(some), some.reranking.scored) == ([1, 0, 2, 3], 2)
    assert (places(more), more.reranking.scored) == ([1, 3, 4, 0, 2], 4)


async def test_words_and_blends_are_reranked_too(site: Site) -> None:
    words = {"query": "w", "properties": [{"name": "title"}]}

    by_words = await site.find(BY_TITLE, near_vector=None, bm25=words)
    blended = await site.find(BY_TITLE, near_vector=None, hybrid={"bm25": words, "near_vector": {"vector": vector(0)}})

    assert places(by_words) == [1, 3, 4, 0]
    assert places(blended)[:3] == [1, 3, 4]


async def test_a_nim_that_fails_fails_the_search_or_leaves_the_first_order(site: Site) -> None:
    allowed = {**BY_TITLE, "keep_order_on_failure": True}
    site.nim.fault = Fault(status=503, headers={"Retry-After": "9"})

    with pytest.raises(AioRpcError) as refused:
        await site.find(BY_TITLE)
    kept = await site.find(allowed)
    site.nim.fault = None
    well = await site.find(allowed)

    failure = unpack(refused.value)
    assert (failure.reason, failure.retry_s) == ("EMBEDDER_UNAVAILABLE", 9)
    assert (places(kept), unpack(kept.reranking.error).reason) == ([0, 1, 2, 3, 4], "EMBEDDER_UNAVAILABLE")
    assert places(well) == [1, 3, 4, 0, 2]
    assert not well.reranking.HasField("error")


async def test_a_nim_that_hangs_leaves_time_for_the_first_order_within_the_callers_deadline(site: Site) -> None:
    site.nim.fault = Fault(gate=asyncio.Event())

    kept = await site.find({**BY_TITLE, "keep_order_on_failure": True, "image_property": "photo"}, seconds=6)
    with pytest.raises(AioRpcError) as refused:
        await site.find(BY_TITLE, seconds=0.5)

    assert places(kept) == [0, 1, 2, 3, 4]
    assert "its share of the time" in kept.reranking.error.message
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def use(address: str, url: str, nim: FakeRerankNim) -> None:
    """Rerank as the client guide and the command line do, and look where a reranker is shown."""
    albums = collection_pb.Collection(
        name="Albums",
        properties=[
            {"name": "title", "data_type": "DATA_TYPE_TEXT"},
            {"name": "cover", "data_type": "DATA_TYPE_BLOB"},
        ],
        vectors=[{"name": "default", "text_fields": [{"name": "title"}]}],
    )

    def on_the_command_line(*arguments: str) -> str:
        return CliRunner().invoke(app, ["--address", address, *arguments]).stdout

    with Client(address) as client:
        client.create_collection(albums)
        objects = [
            Object({"title": title}, {"cover": picture((0, green, 0))}) for title, green in (("cat", 0), ("dog", 200))
        ]
        assert not [each.error for each in client.import_objects("Albums", objects) if each.error]
        scope: dict[str, Any] = {"client": client, "Rerank": pb.Rerank}
        exec(snippet("rerank"), scope)
    words = on_the_command_line("search", "a dog", "--rerank-with", "rerank", "--rerank-text", "title")
    status = on_the_command_line("status")
    metrics = httpx.get(f"{url}/metrics").text

    result = scope["result"]
    assert (result.reranking.model, result.reranking.scored, result.reranking.error) == (nim.model, 2, None)
    assert [hit.object.properties["title"] for hit in result.hits] == ["dog", "cat"]
    assert words.index("dog") < words.index("cat")
    assert f"rerank    {nim.model}" in status
    assert 'vecgate_reranker_up{reranker="rerank"} 1.0' in metrics
    assert 'vecgate_reranker_passages_total{outcome="scored",reranker="rerank"} 4.0' in metrics
    assert 'vecgate_nim_answers_total{embedder="rerank",status="2xx"}' in metrics


async def test_a_server_starts_without_its_reranker_and_uses_it_once_it_is_there(
    weaviate_binary: None, tmp_path: Path
) -> None:
    async with FakeRerankNim() as nim:
        base_url = nim.base_url
        await nim.die()
        settings = {
            **tiny_model(tmp_path / "model"),
            "VECGATE_EMBEDDERS__RERANK__KIND": "nim-rerank",
            "VECGATE_EMBEDDERS__RERANK__BASE_URL": base_url,
        }
        with serving(tmp_path / "weaviate", **settings) as running:
            line = await asyncio.to_thread(running.wait_for, "serving")
            await asyncio.to_thread(running.wait_for, "reranker_unavailable")
            await nim.rise()
            await asyncio.to_thread(running.wait_for, "reranker_ready")
            await asyncio.to_thread(use, running.address, running.url, nim)

    assert line["rerankers"] == ["rerank"]
