"""A long run under faults: embed, import and search, while the NIM fails now and then and Weaviate is restarted.

Vecgate is a process of its own with a Weaviate that it runs; the NIM is a fake in this one. It prints what the server
holds as time goes by, and how many stored objects are lost. BENCH_SECONDS sets how long; ten minutes without it.
"""

import asyncio
import os
import random
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.serving import Serving, serving
from tests.fakes.nim import FakeNim, Fault
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.input_pb2 import Input
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

SECONDS = float(os.environ.get("BENCH_SECONDS", "600"))
SAMPLES = 10
RESTARTS = 4
FAULTS = (
    Fault(status=500),
    Fault(status=503),
    Fault(status=429, headers={"Retry-After": "0"}),
    Fault(reset=True),
    Fault(body=b"no JSON"),
)
FAULT_EVERY_S = 0.5
CALL_S = 10
PAGE = 500
BACK_S = 120
EXPECTED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
"""Codes that faults of the NIM and a Weaviate that is away lead to."""


@dataclass
class Run:
    """What has been done so far.

    Attributes:
        codes: how calls ended, by kind of call.
        stored: ids of objects that the server said are stored.
        reasons: what was said of calls that ended with a code that is not expected.
    """

    codes: Counter[str] = field(default_factory=Counter)
    stored: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)

    async def call(self, kind: str, work: Callable[[], Awaitable[None]]) -> None:
        """Make a call and note how it ended."""
        try:
            await work()
            self.codes[f"{kind} OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.codes[f"{kind} {error.code().name}"] += 1
            if error.code() not in EXPECTED:
                self.reasons[str(error.details())[:300]] += 1
            await asyncio.sleep(0.1)


async def bench_soak() -> None:
    """Print the server's memory, file descriptors, threads and tasks over time, and the objects that are lost."""
    with tempfile.TemporaryDirectory() as folder:
        async with FakeNim() as nim:
            settings = {
                "VECGATE_EMBEDDERS__NIM__KIND": "nim",
                "VECGATE_EMBEDDERS__NIM__BASE_URL": nim.base_url,
                # Soon full, so that what grows later is no cache.
                "VECGATE_EMBEDDER__CACHE_BYTES": str(2**20),
            }
            context = serving(Path(folder), **settings)
            server = await asyncio.to_thread(context.__enter__)
            try:
                await asyncio.to_thread(server.wait_for, "serving")
                async with grpc.aio.insecure_channel(server.address) as channel:
                    await _soak(server, nim, channel)
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)


async def _soak(server: Serving, nim: FakeNim, channel: grpc.aio.Channel) -> None:
    run, end = Run(), time.monotonic() + SECONDS
    title = property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)
    collection = collection_pb.Collection(
        name="Soak", properties=[title], vectors=[{"name": "default", "text_fields": [{"name": "title"}]}]
    )
    await CollectionServiceStub(channel).CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))
    workers = [
        *(_embed(run, channel, end) for _ in range(4)),
        *(_import(run, channel, end) for _ in range(2)),
        *(_search(run, channel, end) for _ in range(4)),
        _disturb_nim(nim, end),
        _restart_weaviate(server, end),
        _watch(server, end),
    ]
    await asyncio.gather(*workers)
    nim.faults.clear()
    lost = len(run.stored - await _present(channel))
    print(f"calls: {', '.join(f'{count} {kind}' for kind, count in sorted(run.codes.items()))}")
    own = sum(count for reason, count in run.reasons.items() if reason.startswith("internal error"))
    print(f"{own} failed by Vecgate's own fault (goal 0); others that are not simply unavailable: {dict(run.reasons)}")
    print(f"{len(run.stored)} objects stored, {lost} lost (goal 0)")


async def _embed(run: Run, channel: grpc.aio.Channel, end: float) -> None:
    stub = EmbeddingServiceStub(channel)

    async def work() -> None:
        texts = [Input(text=f"a text {random.random()}") for _ in range(random.randint(1, 8))]
        await stub.EmbedInputs(embedding_pb.EmbedInputsRequest(inputs=texts), timeout=CALL_S)

    while time.monotonic() < end:
        await run.call("embed", work)


async def _import(run: Run, channel: grpc.aio.Channel, end: float) -> None:
    stub = ObjectServiceStub(channel)

    async def work() -> None:
        objects = [object_pb.DataObject(properties={"title": f"an object {random.random()}"}) for _ in range(20)]
        request = object_pb.ImportObjectsRequest(collection="Soak", objects=objects)
        answer = await stub.ImportObjects(request, timeout=CALL_S)
        run.stored.update(each.id for each in answer.results if not each.HasField("error"))

    while time.monotonic() < end:
        await run.call("import", work)
        await asyncio.sleep(0.2)


async def _search(run: Run, channel: grpc.aio.Channel, end: float) -> None:
    stub = SearchServiceStub(channel)

    async def work() -> None:
        near = search_pb.NearText(concepts=[f"an object {random.random()}"])
        await stub.SearchObjects(search_pb.SearchObjectsRequest(collection="Soak", near_text=near), timeout=CALL_S)

    while time.monotonic() < end:
        await run.call("search", work)


async def _disturb_nim(nim: FakeNim, end: float) -> None:
    while time.monotonic() < end:
        await asyncio.sleep(FAULT_EVERY_S)
        nim.faults.append(random.choice(FAULTS))
        # What the fake remembers would grow, too.
        for memory in (nim.requests, nim.headers, nim.heads):
            memory.clear()


async def _restart_weaviate(server: Serving, end: float) -> None:
    pause = SECONDS / (RESTARTS + 1)
    for _ in range(RESTARTS):
        await asyncio.sleep(pause)
        if time.monotonic() < end - pause / 2:
            server.weaviate().terminate()


async def _watch(server: Serving, end: float) -> None:
    process, began = psutil.Process(server.process.pid), time.monotonic()
    for number in range(1, SAMPLES + 1):
        await asyncio.sleep(max(0.0, began + (end - began) * number / SAMPLES - time.monotonic()))
        tasks = await asyncio.to_thread(_tasks, server.url)
        print(
            f"after {time.monotonic() - began:.0f} s: {process.memory_info().rss / 2**20:.0f} MiB, "
            f"{process.num_fds()} file descriptors, {process.num_threads()} threads, {tasks} tasks",
            flush=True,
        )


def _tasks(url: str) -> int:
    """Return the tasks of the server's event loop."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return next(int(family.samples[0].value) for family in families if family.name == "vecgate_tasks")


async def _present(channel: grpc.aio.Channel) -> set[str]:
    """Return the ids of all objects there are, once Weaviate is back."""
    stub, found = ObjectServiceStub(channel), set[str]()
    request = object_pb.ListObjectsRequest(collection="Soak", page_size=PAGE)
    end = time.monotonic() + BACK_S
    while time.monotonic() < end:
        try:
            answer = await stub.ListObjects(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            if error.code() not in EXPECTED:
                raise
            await asyncio.sleep(1)
            continue
        found.update(each.id for each in answer.objects)
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token
    raise AssertionError(f"Weaviate did not come back within {BACK_S} s")
