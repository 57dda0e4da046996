"""Imports while something goes wrong, and what became of every object: for tests/e2e/test_acknowledged.py."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import NAMESPACE_URL, uuid4, uuid5

import grpc
import httpx
import numpy as np

from service.process.ports import answers_ready, free_ports
from service.settings import WeaviateSettings, read_secret
from service.store.embedded.server import EmbeddedWeaviate
from tests.e2e.beside import beside
from tests.e2e.serving import Serving, end_all
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.nim import FakeNim
from tests.fakes.proxy import Proxy
from tests.fakes.weaviate import at_ports
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

RUNS = int(os.environ.get("FAULT_RUNS", "1"))
"""How often each fault is tried."""

COUNT = 200
CHUNK = 20
DIMENSION = 64
CALL_S = 20.0
PARALLEL = 4
PAUSE_S = 0.05
PATIENCE_S = 90.0
QUICK = [("grpc.max_reconnect_backoff_ms", 500)]

Fault = Callable[[], AbstractAsyncContextManager[None]]
"""Does something to a site, and undoes it."""


@dataclass
class Site:
    """A Vecgate, and what it makes vectors of texts with.

    Attributes:
        collection: the one that is imported into.
        cancels: settable; whether callers cancel their calls when their time is up, instead of giving them a deadline.
    """

    channel: grpc.aio.Channel
    embedder: FakeEmbedder | FakeNim
    collection: str = field(default="", init=False)
    cancels: bool = field(default=False, init=False)


@dataclass
class Inside(Site):
    """A Vecgate in this process, its Weaviate, and proxies between the two."""

    weaviate: EmbeddedWeaviate
    http: Proxy
    grpc: Proxy

    async def set_shards(self, status: str) -> None:
        """Do to the shards what Weaviate does by itself when its disk is nearly full, and what an operator does."""
        address = f"http://127.0.0.1:{self.weaviate.http_port}/v1/schema/{self.collection}/shards"
        key = read_secret(self.weaviate.client_settings.api_key, None)
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as rest:
            for shard in (await rest.get(address)).json():
                (await rest.put(f"{address}/{shard['name']}", json={"status": status})).raise_for_status()

    async def restarted(self, pid: int) -> None:
        """Return when Weaviate has another process, and answers."""
        async with asyncio.timeout(PATIENCE_S):
            while self.weaviate.pid in {None, pid} or not await answers_ready("127.0.0.1", self.weaviate.http_port):
                await asyncio.sleep(0.1)


@dataclass
class Outside(Site):
    """A Vecgate that is a process of its own, with a Weaviate that it runs."""

    folder: Path
    settings: Mapping[str, str]
    serving: Serving = field(init=False)

    def start(self) -> None:
        """Start it."""
        self.serving = Serving(self.folder, **self.settings)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        await asyncio.to_thread(self.serving.end, number)

    async def kill(self) -> None:
        """Kill it, and start it again, which ends the Weaviate that it left."""
        await self.end(signal.SIGKILL)
        self.start()


@dataclass
class Tally:
    """What became of the objects of an import.

    Attributes:
        refused: how often one was not acknowledged, and sent again.
        lost: acknowledged and not there.
        unfound: acknowledged and not found by their own vector.
        doubled: there more than once.
        wrong: there with a vector of something else.
    """

    refused: int = 0
    lost: set[str] = field(default_factory=set)
    unfound: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)

    @property
    def faults(self) -> dict[str, int]:
        """How many objects are not as they should be, by what is wrong with them."""
        names = ("lost", "unfound", "doubled", "wrong")
        return {name: len(getattr(self, name)) for name in names if getattr(self, name)}


@asynccontextmanager
async def inside(folder: Path, binary: Path | None = None) -> AsyncIterator[Inside]:
    """Run a Weaviate that is started again when it dies, and a Vecgate that reaches it through proxies."""
    settings = WeaviateSettings(embedded=True, binary=binary, data_dir=folder, **at_ports(0, 0), timeout_s=10)
    async with AsyncExitStack() as ends:
        weaviate = EmbeddedWeaviate(settings)
        ends.push_async_callback(weaviate.stop)
        await weaviate.start()
        http = ends.enter_context(Proxy(weaviate.http_port))
        rpc = ends.enter_context(Proxy(weaviate.grpc_port))
        embedder = FakeEmbedder(dimension=DIMENSION)
        through = weaviate.client_settings.model_copy(update=at_ports(http.port, rpc.port))
        channel, _ = await ends.enter_async_context(beside(through, embedder))
        yield Inside(channel, embedder, weaviate, http, rpc)


@asynccontextmanager
async def outside(folder: Path) -> AsyncIterator[Outside]:
    """Run a Vecgate as a process, with a NIM in this one."""
    (port,) = free_ports(1)
    async with AsyncExitStack() as ends:
        nim = await ends.enter_async_context(FakeNim(dimension=DIMENSION))
        channel = await ends.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}", QUICK))
        settings = {
            "VECGATE_SERVER__PORT": str(port),
            "VECGATE_EMBEDDERS__NIM__KIND": "nim",
            "VECGATE_EMBEDDERS__NIM__BASE_URL": nim.base_url,
        }
        site = Outside(channel, nim, folder, settings)
        site.start()
        ends.callback(end_all, folder)
        ends.push_async_callback(site.end)
        await channel.channel_ready()
        yield site


async def import_through(site: Site, fault: Fault, *, call_s: Sequence[float] = (CALL_S,)) -> Tally:
    """Import objects while a fault comes and goes, each again until it is acknowledged, and look for all of them.

    Args:
        site: what it befalls.
        fault: what befalls it.
        call_s: seconds that the calls may take, in turn; those after a refusal take what they need.
    """
    site.collection = f"Faulty{uuid4().hex[:8]}"
    await _create(site)
    tally = Tally()
    chunks = [[_object(number) for number in range(start, start + CHUNK)] for start in range(0, COUNT, CHUNK)]
    quarter = len(chunks) // 4
    async with asyncio.timeout(PATIENCE_S):
        await _send_all(site, chunks[:quarter], tally, (CALL_S,))
        async with fault():
            await _send_all(site, chunks[quarter:], tally, call_s)
        await _settle(site)
    await _look(site, [each for chunk in chunks for each in chunk], tally)
    got = collection_pb.DeleteCollectionRequest(name=site.collection)
    await CollectionServiceStub(site.channel).DeleteCollection(got)
    return tally


def _object(number: int) -> object_pb.DataObject:
    made = object_pb.DataObject(id=str(uuid5(NAMESPACE_URL, f"object {number}")))
    made.properties.update({"title": f"picture {number}"})
    return made


async def _create(site: Site) -> None:
    collection = collection_pb.Collection(
        name=site.collection,
        properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
        vectors=[collection_pb.VectorConfig(name="default", text_fields=[{"name": "title"}])],
    )
    request = collection_pb.CreateCollectionRequest(collection=collection)
    await CollectionServiceStub(site.channel).CreateCollection(request)


async def _send_all(
    site: Site, chunks: Sequence[Sequence[object_pb.DataObject]], tally: Tally, call_s: Sequence[float]
) -> None:
    """Send chunks, a few at the same time, each until all of it is acknowledged."""
    room = asyncio.Semaphore(PARALLEL)

    async def send(number: int, objects: Sequence[object_pb.DataObject]) -> None:
        async with room:
            seconds = call_s[number % len(call_s)]
            while objects:
                request = object_pb.ImportObjectsRequest(collection=site.collection, objects=objects)
                try:
                    async with asyncio.timeout(seconds if site.cancels else None):
                        stub = ObjectServiceStub(site.channel)
                        response = await stub.ImportObjects(request, timeout=None if site.cancels else seconds)
                except (grpc.aio.AioRpcError, TimeoutError):
                    tally.refused += len(objects)
                else:
                    stored = {each.id for each in response.results if each.WhichOneof("outcome") == "stored"}
                    objects = [each for each in objects if each.id not in stored]
                    tally.refused += len(objects)
                seconds = CALL_S
                await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(send(*each) for each in enumerate(chunks)))


async def _settle(site: Site) -> None:
    """Wait until searches work again."""
    request = search_pb.SearchObjectsRequest(collection=site.collection, limit=1, bm25=search_pb.Bm25(query="a"))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await SearchServiceStub(site.channel).SearchObjects(request, timeout=5)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)
            else:
                return


async def _look(site: Site, objects: Sequence[object_pb.DataObject], tally: Tally) -> None:
    """Read every object back and search it by its own vector."""
    there: dict[str, object_pb.DataObject] = {}
    request = object_pb.ListObjectsRequest(collection=site.collection, page_size=100, output={"vectors": ["default"]})
    while True:
        page = await ObjectServiceStub(site.channel).ListObjects(request)
        for each in page.objects:
            if each.id in there:
                tally.doubled.add(each.id)
            there[each.id] = each
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    got = collection_pb.GetCollectionRequest(name=site.collection)
    counted = (await CollectionServiceStub(site.channel).GetCollection(got)).collection.object_count
    if counted != len(there):
        tally.doubled.add(f"{counted} objects, and {len(there)} are listed")
    room = asyncio.Semaphore(8)

    async def look(each: object_pb.DataObject) -> None:
        own = site.embedder.vector(each.properties["title"])
        if each.id not in there:
            tally.lost.add(each.id)
            return
        stored = np.frombuffer(there[each.id].vectors["default"].data, "<f4")
        if stored.shape != own.shape or not np.allclose(stored, own, atol=1e-4):
            tally.wrong.add(each.id)
        near = search_pb.NearVector(vector={"data": own.astype("<f4").tobytes()})
        search = search_pb.SearchObjectsRequest(collection=site.collection, limit=1, near_vector=near)
        async with room:
            hits = (await SearchServiceStub(site.channel).SearchObjects(search)).hits
        if not hits or hits[0].object.id != each.id:
            tally.unfound.add(each.id)

    await asyncio.gather(*map(look, objects))
