"""One server process beside two for one address: embeddings from the cache, and searches by vector.

Callers have connections of their own, which the kernel spreads over the processes. Callers, servers and Weaviate share
the machine's cores, so what two processes gain depends on how many are free.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import uvloop

from tests.bench.web import process, serve_nim
from tests.e2e.serving import Serving, serving
from vecgate.client import Object
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb

EMBED = "/vecgate.v1.EmbeddingService/EmbedInputs"
SEARCH = "/vecgate.v1.SearchService/SearchObjects"
CONNECTIONS = 32
ROUNDS = 5
SECONDS = 2.0
OBJECTS = 2000
COLLECTION = "Workers"


async def bench_workers() -> None:
    """Print the calls a second of two workers as a multiple of one's, and the CPU of a call."""
    await asyncio.to_thread(_bench)


def _bench() -> None:
    with ExitStack() as ends:
        nim = str(ends.enter_context(process(serve_nim)).recv())
        servers = {number: ends.enter_context(_server(nim, number)) for number in (1, 2)}
        vector, _ = [_fill(server) for server in servers.values()]
        requests = {
            EMBED: embedding_pb.EmbedInputsRequest(inputs=[{"text": "a dog"}]).SerializeToString(),
            SEARCH: search_pb.SearchObjectsRequest(
                collection=COLLECTION, near_vector={"vector": {"data": vector.tobytes()}}, limit=10
            ).SerializeToString(),
        }
        for method, request in requests.items():
            rounds = [
                {number: _measure(server, method, request) for number, server in servers.items()}
                for _ in range(ROUNDS + 1)
            ][1:]
            rates = {number: statistics.median(each[number][0] for each in rounds) for number in servers}
            costs = {number: statistics.median(each[number][1] for each in rounds) * 1e6 for number in servers}
            ratio = statistics.median(each[2][0] / each[1][0] for each in rounds)
            print(
                f"{method.rpartition('/')[2]} with two workers on {os.cpu_count()} cores: {ratio:.2f} x one's calls "
                f"({rates[2]:.0f} and {rates[1]:.0f} a second; CPU of a call {costs[2]:.0f} and {costs[1]:.0f} us)"
            )


@contextmanager
def _server(nim: str, workers: int) -> Iterator[Serving]:
    settings = {
        "VECGATE_EMBEDDERS__NIM__KIND": "nim",
        "VECGATE_EMBEDDERS__NIM__BASE_URL": nim,
        "VECGATE_SERVER__WORKERS": str(workers),
    }
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), **settings) as server:
        yield server


def _fill(server: Serving) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Put objects with ready vectors into the server's Weaviate, and return a vector to search by."""
    with server.client() as client:
        (info,) = client.embedders().embedders
        vectors = np.random.default_rng(0).standard_normal((OBJECTS, info.dimension)).astype("<f4")
        client.create_collection(
            collection_pb.Collection(
                name=COLLECTION,
                properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
                vectors=[{"name": "default", "text_fields": [{"name": "title"}]}],
            )
        )
        objects = (Object({"title": f"{n}"}, vectors={"default": row}) for n, row in zip(count(), vectors))
        assert not [outcome for outcome in client.import_objects(COLLECTION, objects) if outcome.error]
    return vectors[0]


def _measure(server: Serving, method: str, request: bytes) -> tuple[float, float]:
    """Return the calls a second that closed-loop callers get answered, and the CPU seconds that each costs."""
    before_s, began_s = _cpu_s(server), time.perf_counter()
    calls = uvloop.run(_count(server.address, method, request))
    return calls / (time.perf_counter() - began_s), (_cpu_s(server) - before_s) / calls


def _cpu_s(server: Serving) -> float:
    """Return the CPU seconds of the server's processes, without Weaviate."""
    parent = psutil.Process(server.process.pid)
    own = [parent, *(each for each in parent.children() if "run_worker" in str(each.cmdline()))]
    return float(sum(sum(each.cpu_times()[:2]) for each in own))


async def _count(address: str, method: str, request: bytes) -> int:
    done, ends_s = 0, time.perf_counter() + SECONDS

    async def caller() -> None:
        nonlocal done
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            ask = channel.unary_unary(method)
            while time.perf_counter() < ends_s:
                await ask(request)
                done += 1

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return done
