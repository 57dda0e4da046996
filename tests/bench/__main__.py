"""Benchmarks: python -m tests.bench [NAME...]; without a name all but the long ones. tests/README.md lists them.

Ratios compare things measured in the same run, in turns, by their medians. The machine may be busy with other work, so
the absolute figures say little; the ratios say more. Each figure that has a goal states it.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc

from embedders.clip import ClipConfig, ClipEmbedder
from embedders.contract import DOCUMENT, QUERY, ImageInput, Input, TextInput
from embedders.factory import build_embedder
from embedders.front.queueing import QueueBounds
from service.core.embedder_pool import EmbedderPool
from service.domain import ReturnFields, SearchSpec, StoredObject
from service.process.log import configure_logging
from service.rpc.server.server import GrpcServer
from service.rpc.shared.bounds import RequestLimits
from service.settings import LimitSettings, LogSettings, ServerSettings, WeaviateSettings
from service.store.embedded.server import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore
from tests.bench.bulk import bench_bulk, bench_bulk_memory, bench_bulk_workers
from tests.bench.calls import bench_call
from tests.bench.kills import bench_kills
from tests.bench.nim import bench_nim
from tests.bench.peers import bench_peers
from tests.bench.quotas import bench_quotas
from tests.bench.serving import bench_overload, write_random_clip
from tests.bench.soak import bench_soak
from tests.bench.start import bench_start
from tests.bench.store import bench_memory, bench_store_import, bench_store_ready
from tests.bench.store_search import bench_store_search
from tests.bench.suggest import bench_suggest
from tests.bench.trace import bench_trace
from tests.bench.web import bench_web, bench_web_batches, bench_web_nim
from tests.bench.wires import bench_wires
from tests.bench.workers import bench_workers
from tests.fakes.store import FakeStore
from tests.fakes.weaviate import at_ports
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.input_pb2 import Image
from vecgate.v1.input_pb2 import Input as PbInput
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub

PICTURES = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "data/pictures").glob("*.png"))][:256]
COLOURS = ("red", "green", "blue", "old", "new", "big", "tiny", "lost")
THINGS = ("dog", "cat", "house", "car", "tree", "boat", "flower", "ball", "shoe", "clock", "apple", "horse", "train")
TEXTS = [f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]
ROUNDS = 5
MESSAGE_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Work = Callable[[], Awaitable[object]]


async def medians(**works: Work) -> dict[str, float]:
    """Return the median seconds of each work, all run in turns after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS + 1):
        for name, work in works.items():
            started = time.perf_counter()
            await work()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


async def bench_model() -> None:
    """Print how fast the bundled model loads and embeds."""
    started = time.perf_counter()
    embedder = ClipEmbedder(ClipConfig())
    await embedder.start()
    print(f"bundled model: its processes are ready in {time.perf_counter() - started:.2f} s (goal 4)")
    images: list[Input] = [ImageInput(content) for content in PICTURES]
    texts: list[Input] = [TextInput(text) for text in TEXTS]
    took = await medians(images=lambda: embedder.embed(images, DOCUMENT), texts=lambda: embedder.embed(texts, QUERY))
    await embedder.close()
    print(
        f"  {len(images) / took['images']:.0f} pictures/s, {len(texts) / took['texts']:.0f} short texts/s, in batches "
        "(no goal: what the machine gives)"
    )


async def bench_served() -> None:
    """Print what gRPC and batching across calls cost over the bare embedder."""
    embedder = build_embedder(ClipConfig(), bounds=QueueBounds(max_inputs=10_000, max_bytes=2**30))
    pool = EmbedderPool([embedder], check_interval_s=3600)
    await pool.start()
    await pool.first_checks()
    server = GrpcServer(ServerSettings(port=0), RequestLimits.of(LimitSettings()), store=FakeStore(), embedders=pool)
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=MESSAGE_OPTIONS)
    stub = EmbeddingServiceStub(channel)
    texts: list[Input] = [TextInput(text) for text in TEXTS]
    whole = embedding_pb.EmbedInputsRequest(inputs=[PbInput(text=text) for text in TEXTS])
    singles = [embedding_pb.EmbedInputsRequest(inputs=[PbInput(text=text)]) for text in TEXTS]

    async def one_by_one() -> None:
        gate = asyncio.Semaphore(64)

        async def call(request: embedding_pb.EmbedInputsRequest) -> None:
            async with gate:
                await stub.EmbedInputs(request)

        await asyncio.gather(*(call(request) for request in singles))

    took = await medians(
        bare=lambda: embedder.embed(texts, QUERY), whole=lambda: stub.EmbedInputs(whole), singles=one_by_one
    )
    await channel.close()
    await server.stop()
    await pool.close()
    print(f"{len(TEXTS)} texts served: {took['bare'] / took['whole']:.2f} of the bare embedder's speed in one call "
          f"(goal 0.9), {took['bare'] / took['singles']:.2f} one by one from 64 callers (goal 0.75)")  # fmt: skip


async def bench_import() -> None:
    """Print how fast objects are imported, against writing ready vectors and against embedding alone."""
    with tempfile.TemporaryDirectory() as folder:
        weaviate = EmbeddedWeaviate(WeaviateSettings(data_dir=Path(folder), **at_ports(0, 0)))
        await weaviate.start()
        store = WeaviateStore(weaviate.client_settings)
        await store.start()
        embedder = build_embedder(ClipConfig(), bounds=QueueBounds(max_inputs=10_000, max_bytes=2**30))
        pool = EmbedderPool([embedder], check_interval_s=3600)
        await pool.start()
        await pool.first_checks()
        server = GrpcServer(ServerSettings(port=0), RequestLimits.of(LimitSettings()), store=store, embedders=pool)
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=MESSAGE_OPTIONS)
        await CollectionServiceStub(channel).CreateCollection(
            collection_pb.CreateCollectionRequest(
                collection=collection_pb.Collection(
                    name="Bench",
                    properties=[property_pb.Property(name="image", data_type=property_pb.DATA_TYPE_BLOB)],
                    vectors=[{"name": "default", "image_fields": [{"name": "image"}]}],
                )
            )
        )
        request = object_pb.ImportObjectsRequest(
            collection="Bench",
            objects=[object_pb.DataObject(images={"image": Image(content=each)}) for each in PICTURES],
        )
        objects = ObjectServiceStub(channel)
        await objects.ImportObjects(request)
        fields = ReturnFields(images=["image"], vectors=["default"])
        ready: list[StoredObject] = [
            hit.object for hit in await store.search("Bench", SearchSpec(limit=len(PICTURES), fields=fields))
        ]
        images: list[Input] = [ImageInput(content) for content in PICTURES]

        async def write() -> None:
            for begin in range(0, len(ready), 100):
                await store.put_objects("Bench", ready[begin : begin + 100])

        took = await medians(
            imported=lambda: objects.ImportObjects(request),
            written=write,
            embedded=lambda: embedder.embed(images, DOCUMENT),
        )
        await channel.close()
        await server.stop()
        await pool.close()
        await store.close()
        await weaviate.stop()
    bound = max(took["written"], took["embedded"])
    print(f"import of {len(PICTURES)} pictures: {len(PICTURES) / took['imported']:.0f} objects/s, "
          f"{bound / took['imported']:.2f} of the slower of writing ready vectors and embedding alone "
          f"(goal 0.8)")  # fmt: skip


async def bench_serving(*works: Callable[[Path], Awaitable[None]]) -> None:
    """Run benchmarks that need a model of a common size."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_random_clip(Path(folder) / "model")
        for work in works:
            await work(model)


def in_thread(work: Callable[[], None]) -> Work:
    """Return a benchmark that has its own clients and event loops as one to await."""
    return lambda: asyncio.to_thread(work)


BENCHMARKS: dict[str, Work] = {
    "model": bench_model,
    "served": bench_served,
    "import": bench_import,
    "call": in_thread(bench_call),
    "nim": bench_nim,
    "overload": lambda: bench_serving(bench_overload),
    "store-import": in_thread(bench_store_import),
    "store-ready": in_thread(bench_store_ready),
    "store-search": in_thread(bench_store_search),
    "start": in_thread(bench_start),
    "trace": bench_trace,
    "web": in_thread(bench_web),
    "web-nim": in_thread(bench_web_nim),
    "web-batches": in_thread(bench_web_batches),
    "wires": bench_wires,
    "workers": bench_workers,
}
LONG: dict[str, Work] = {
    "bulk": in_thread(bench_bulk),
    "bulk-memory": in_thread(bench_bulk_memory),
    "bulk-workers": in_thread(bench_bulk_workers),
    "kills": in_thread(bench_kills),
    "peers": in_thread(bench_peers),
    "quotas": bench_quotas,
    "soak": bench_soak,
    "suggest": in_thread(bench_suggest),
    "memory": in_thread(bench_memory),
}
"""Those that run only when they are named."""


def chosen(names: Sequence[str]) -> list[Work]:
    """Return the benchmarks of these names, all but the long ones if there is none; a name of none ends the program."""
    every = BENCHMARKS | LONG
    if unknown := [name for name in names if name not in every]:
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(every)}", file=sys.stderr)
        sys.exit(2)
    return [every[name] for name in names or BENCHMARKS]


async def main(works: Sequence[Work]) -> None:
    """Run benchmarks one after the other."""
    configure_logging(LogSettings(level="warning"))
    for work in works:
        await work()


if __name__ == "__main__":
    asyncio.run(main(chosen([each for each in sys.argv[1:] if each != "-v"])))
