"""What a call costs the server beside the work that it asks for, beside a bare echo over gRPC in the same run.

The echo is a server of grpc.aio that reads a request's bytes and answers ready ones. Vecgate answers the same with
embedders that return a ready vector at once: by themselves, behind the queue and the breaker, and behind the cache,
too; and with a ready answer in place of SearchService's method. Both run in processes of their own, and their CPU
time is what counts.
"""

import asyncio
import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any
from unittest.mock import patch

import grpc
import numpy as np
import uvloop

from embedders.contract import EmbedderSpec, InputLimits, WatchedEmbedder
from embedders.front.batching import BatchingEmbedder
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.cache import CachingEmbedder, VectorCache
from embedders.front.queueing import QueueBounds
from service.core.embedder_pool import EmbedderPool
from service.process.log import configure_logging
from service.rpc.search.servicer import SearchServicer
from service.rpc.server.server import GrpcServer
from service.rpc.shared.bounds import RequestLimits
from service.settings import LimitSettings, LogSettings, ServerSettings
from tests.bench.web import DIMENSION, NoEmbedder, process
from tests.fakes.embedder import watched
from tests.fakes.store import FakeStore
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import search_service_pb2 as search_pb

EMBED = "/vecgate.v1.EmbeddingService/EmbedInputs"
SEARCH = "/vecgate.v1.SearchService/SearchObjects"
CALLERS = 32
ROUNDS = 5
SECONDS = 1.5
GOAL = 1.5
"""A call's CPU time, at most, as a multiple of the echo's."""

Requests = Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Load:
    """Calls to one server.

    Attributes:
        name: of what answers them.
        echo: whether that is the echo.
        method: what is called.
        requests: the bytes of the calls.
    """

    name: str
    echo: bool
    method: str
    requests: Requests


def _vector(seed: int) -> bytes:
    row = np.random.default_rng(seed).standard_normal(DIMENSION)
    return (row / np.linalg.norm(row)).astype("<f4").tobytes()


def _texts(embedder: str) -> Requests:
    """Yield requests to embed a text that is always another one."""
    for number in itertools.count():
        inputs = [{"text": f"a dog of number {number}"}]
        yield embedding_pb.EmbedInputsRequest(embedder=embedder, inputs=inputs).SerializeToString()


def _searches() -> Requests:
    near: Any = {"vector": {"data": _vector(1)}}
    request = search_pb.SearchObjectsRequest(collection="Bench", near_vector=near, limit=10)
    return itertools.repeat(request.SerializeToString())


def _embedded() -> bytes:
    ref: Any = {"name": "instant", "model": "none", "space": "none", "dimension": DIMENSION}
    results: Any = [{"embedding": {"vector": {"data": _vector(0)}, "token_count": 5}}]
    return embedding_pb.EmbedInputsResponse(embedder=ref, results=results).SerializeToString()


def _found() -> search_pb.SearchObjectsResponse:
    hits: Any = [
        {"object": {"id": f"00000000-0000-0000-0000-{at:012}", "properties": {"title": f"a dog {at}"}}, "distance": 0.5}
        for at in range(10)
    ]
    return search_pb.SearchObjectsResponse(hits=hits)


class _Echo(grpc.GenericRpcHandler):
    """Answers each method with the same bytes."""

    def __init__(self) -> None:
        self._handlers = {EMBED: _answering(_embedded()), SEARCH: _answering(_found().SerializeToString())}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a method."""
        return self._handlers.get(handler_call_details.method)


def _answering(answer: bytes) -> Any:
    async def call(request: bytes, context: Any) -> bytes:
        del request, context
        return answer

    return grpc.unary_unary_rpc_method_handler(call)


def _embedder(name: str) -> NoEmbedder:
    inner = NoEmbedder()
    inner.spec = EmbedderSpec(
        name=name, model=name, space=name, dimension=DIMENSION, limits=InputLimits(), max_batch=64
    )
    return inner


def _embedders() -> list[WatchedEmbedder]:
    bounds = QueueBounds(max_inputs=4096, max_bytes=2**28)
    batched, cached = (
        BreakerEmbedder(BatchingEmbedder(_embedder(name), bounds=bounds, apart=True), BreakerRules())
        for name in ("batched", "cached")
    )
    return [watched(_embedder("instant")), batched, CachingEmbedder(cached, VectorCache(64 * 2**20))]


def _searching_at_once() -> Any:
    """Return a method for SearchService's servicer that has its answer ready."""
    answer = _found()

    async def search(servicer: object, request: object, context: object) -> search_pb.SearchObjectsResponse:
        del servicer, request, context
        return answer

    return search


def _in_silence(serve: Callable[[], Any]) -> None:
    configure_logging(LogSettings(format="json"))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    uvloop.run(serve())


async def _report_cpu(pipe: Connection, port: int) -> None:
    """Tell the port, and then the CPU seconds used so far whenever asked, until told to end."""
    # As the service does at its start.
    gc.collect()
    gc.freeze()
    pipe.send(port)
    while await asyncio.to_thread(pipe.recv):
        pipe.send(time.process_time())
    gc.unfreeze()


def serve_echo(pipe: Connection) -> None:
    """Serve the echo until told to end."""

    async def serve() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Echo(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await _report_cpu(pipe, port)
        await server.stop(None)

    _in_silence(serve)


def serve_vecgate(pipe: Connection) -> None:
    """Serve Vecgate's API with embedders that answer at once, until told to end."""

    async def serve() -> None:
        pool = EmbedderPool(_embedders(), check_interval_s=3600)
        await pool.start()
        await pool.first_checks()
        settings = ServerSettings(port=0, drain_delay_s=0)
        with patch.object(SearchServicer, "SearchObjects", _searching_at_once()):
            server = GrpcServer(settings, RequestLimits.of(LimitSettings()), store=FakeStore(), embedders=pool)
        await server.start()
        await _report_cpu(pipe, server.port)
        await server.stop()
        await pool.close()

    _in_silence(serve)


async def _count(port: int, load: Load) -> int:
    """Return how many calls closed-loop callers get answered."""
    done, ends_s = 0, time.perf_counter() + SECONDS
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(load.method)

        async def caller() -> None:
            nonlocal done
            while time.perf_counter() < ends_s:
                await ask(next(load.requests))
                done += 1

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done


def _cost_s(pipe: Connection, port: int, load: Load) -> float:
    """Return the server's CPU seconds for a call."""

    def used_s() -> float:
        pipe.send(True)
        return float(pipe.recv())

    before_s = used_s()
    calls = uvloop.run(_count(port, load))
    return (used_s() - before_s) / calls


def bench_call() -> None:
    """Print the server's CPU time of a call as a multiple of an echo's."""
    embed_echo = Load("echo", echo=True, method=EMBED, requests=_texts(""))
    search_echo = Load("echo of searches", echo=True, method=SEARCH, requests=_searches())
    compared = [
        (Load("EmbedInputs, no queue", echo=False, method=EMBED, requests=_texts("instant")), embed_echo),
        (Load("EmbedInputs with queue and breaker", echo=False, method=EMBED, requests=_texts("batched")), embed_echo),
        (Load("EmbedInputs with cache, too", echo=False, method=EMBED, requests=_texts("cached")), embed_echo),
        (Load("SearchObjects without its servicer", echo=False, method=SEARCH, requests=_searches()), search_echo),
    ]
    loads = [embed_echo, search_echo, *(load for load, _ in compared)]
    with process(serve_echo) as echo, process(serve_vecgate) as vecgate:
        servers = {True: (echo, echo.recv()), False: (vecgate, vecgate.recv())}
        rounds = [{load.name: _cost_s(*servers[load.echo], load) for load in loads} for _ in range(ROUNDS + 1)][1:]
    for load, floor in compared:
        ratio = statistics.median(each[load.name] / each[floor.name] for each in rounds)
        cost, least = (statistics.median(each[one.name] for each in rounds) * 1e6 for one in (load, floor))
        print(f"CPU of {load.name}: {ratio:.2f} of the echo's (goal {GOAL}; {cost:.0f} and {least:.0f} us)")
