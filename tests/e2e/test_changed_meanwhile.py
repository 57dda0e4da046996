"""Collections that others change while vectors for them are made: no vector gets into the index of another space."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import grpc
import httpx
import numpy as np
import pytest
from grpc import StatusCode
from weaviate import WeaviateAsyncClient
from weaviate.classes.config import Configure, DataType, Property

from service.settings import WeaviateSettings
from tests.conftest import assert_close
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder
from tests.service.conftest import failure_of, unpack
from tests.weaviate_versions import needs_removal
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub

TITLE = {"text_fields": [{"name": "title"}]}
PROPERTIES = [{"name": "title", "data_type": "DATA_TYPE_TEXT"}]
ONE = str(UUID(int=1))


@dataclass
class Site:
    """Vecgate with an embedder for each of two spaces, beside a client of Weaviate's own, and a collection's name."""

    a: FakeEmbedder
    b: FakeEmbedder
    collections: CollectionServiceStub
    objects: ObjectServiceStub
    direct: WeaviateAsyncClient
    rest: httpx.AsyncClient
    name: str

    async def create(self, embedder: str, *names: str) -> None:
        """Create the collection with named vectors, the first one searched where none is named."""
        vectors = [{"name": name, "embedder": embedder, **TITLE} for name in names]
        collection = {"name": self.name, "properties": PROPERTIES, "vectors": vectors, "default_vector": names[0]}
        await self.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))

    async def bind(self, embedder: str, **fields: bool) -> None:
        """Bind the vector of another client's collection."""
        vector = {"embedder": embedder, **TITLE}
        request = collection_pb.BindVectorRequest(collection=self.name, vector=vector, without_proof=True, **fields)
        await self.collections.BindVector(request)

    async def write(self, title: str) -> pb.ImportResult:
        """Import an object, and return its result."""
        objects = [{"id": ONE, "properties": {"title": title}}]
        request = pb.ImportObjectsRequest(collection=self.name, objects=objects)
        return (await self.objects.ImportObjects(request)).results[0]

    async def update(self, title: str) -> pb.UpdateObjectResponse:
        """Change the title of the object."""
        changed = {"id": ONE, "properties": {"title": title}}
        return await self.objects.UpdateObject(pb.UpdateObjectRequest(collection=self.name, object=changed))

    async def backfill(self) -> list[pb.BackfillVectorsResponse]:
        """Fill all vectors."""
        return [each async for each in self.objects.BackfillVectors(pb.BackfillVectorsRequest(collection=self.name))]

    async def stored(self) -> dict[str, Any]:
        """Return the object as Weaviate has it."""
        answer = await self.rest.get(f"/v1/objects/{self.name}/{ONE}", params={"include": "vector"})
        return answer.json() if answer.status_code == httpx.codes.OK else {}

    async def while_embedding(self, call: Coroutine[Any, Any, Any], change: Coroutine[Any, Any, Any]) -> Any:
        """Change something between the moment in which a call asks the first embedder and the answer to it."""
        self.a.gate = asyncio.Event()
        self.a.entered.clear()
        task = asyncio.create_task(call)
        async with asyncio.timeout(30):
            await self.a.entered.wait()
            await change
        self.a.gate.set()
        return await task


@pytest.fixture
async def site(weaviate_settings: WeaviateSettings) -> AsyncIterator[Site]:
    a, b = FakeEmbedder(name="a", space="A"), FakeEmbedder(name="b", space="B")
    assert weaviate_settings.api_key is not None
    key = {"authorization": f"Bearer {weaviate_settings.api_key.get_secret_value()}"}
    async with (
        beside(weaviate_settings, a, b) as (channel, direct),
        httpx.AsyncClient(base_url=weaviate_settings.http_url, headers=key) as rest,
    ):
        stubs = CollectionServiceStub(channel), ObjectServiceStub(channel)
        yield Site(a, b, *stubs, direct, rest, f"Changed{uuid4().hex}")


async def recreate(site: Site) -> None:
    """Delete the collection, and create it again for the other space, with the same object."""
    await site.collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name=site.name))
    await site.create("b", "v")
    assert (await site.write("t1")).HasField("stored")


async def test_an_import_does_not_write_into_a_collection_that_was_created_again(site: Site) -> None:
    await site.create("a", "v")

    result = await site.while_embedding(site.write("t2"), recreate(site))

    failure = unpack(result.error)
    assert (failure.code, failure.retry_s) == (StatusCode.UNAVAILABLE, 1)
    assert "bound to another space or removed meanwhile; send it again" in failure.message
    assert_close(np.asarray((await site.stored())["vectors"]["v"]), site.b.vector("t1"))
    assert (await site.write("t2")).HasField("stored")
    assert_close(np.asarray((await site.stored())["vectors"]["v"]), site.b.vector("t2"))


async def test_an_update_does_not_write_into_a_collection_that_was_created_again(site: Site) -> None:
    await site.create("a", "v")
    await site.write("t1")

    failure = await failure_of(site.while_embedding(site.update("t2"), recreate(site)))

    assert failure.code is StatusCode.UNAVAILABLE
    assert (await site.stored())["properties"] == {"title": "t1"}
    assert_close(np.asarray((await site.stored())["vectors"]["v"]), site.b.vector("t1"))


async def test_a_backfill_does_not_write_vectors_of_the_space_before_a_new_binding(site: Site) -> None:
    own = Configure.Vectors.self_provided(name="default")
    text = Property(name="title", data_type=DataType.TEXT)
    theirs = await site.direct.collections.create(site.name, properties=[text], vector_config=own)
    await theirs.data.insert({"title": "t1"}, uuid=UUID(ONE))
    await site.bind("a")

    (page,) = await site.while_embedding(site.backfill(), site.bind("b", replace=True))
    before = await site.stored()
    (again,) = await site.backfill()

    assert (page.filled, unpack(page.failures[0].error).code) == (0, StatusCode.UNAVAILABLE)
    assert not before.get("vectors")
    assert again.filled == 1
    assert_close(np.asarray((await site.stored())["vectors"]["default"]), site.b.vector("t1"))


async def test_an_object_that_others_store_meanwhile_keeps_what_this_version_does_not_handle(site: Site) -> None:
    await site.create("a", "v")
    phone = {"input": "0171 1234567", "defaultCountry": "DE"}
    await site.direct.collections.use(site.name).config.add_property(
        Property(name="phone", data_type=DataType.PHONE_NUMBER)
    )
    body = {"class": site.name, "id": ONE, "properties": {"title": "theirs", "phone": phone}}

    result = await site.while_embedding(site.write("ours"), site.rest.post("/v1/objects", json=body))

    stored = await site.stored()
    assert result.HasField("stored")
    assert stored["properties"]["title"] == "ours"
    assert stored["properties"]["phone"]["input"] == phone["input"]
    assert_close(np.asarray(stored["vectors"]["v"]), site.a.vector("ours"))


@needs_removal
async def test_an_update_right_after_a_named_vector_was_removed_may_be_sent_again(site: Site) -> None:
    await site.create("a", "w", "v")
    await site.write("t1")
    removal = collection_pb.UpdateCollectionRequest(collection={"name": site.name}, removed_vectors=["v"])
    await site.collections.UpdateCollection(removal)

    failures = []
    async with asyncio.timeout(60):
        while True:
            try:
                await site.update("t2")
                break
            except grpc.aio.AioRpcError as error:
                failures.append(unpack(error))

    assert {(each.code, each.retry_s) for each in failures} == {(StatusCode.UNAVAILABLE, 1)}
    assert {each.message for each in failures} == {"named vector 'v' was removed a moment ago; send it again"}
    assert (await site.stored())["properties"] == {"title": "t2"}
