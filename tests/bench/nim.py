"""The NIM client against a NIM on loopback that answers at once.

The NIM is a process of its own, so that what is timed here is the client.
"""

import asyncio
import base64
import json
import multiprocessing
import time
from functools import cache
from multiprocessing.queues import Queue
from typing import NamedTuple

import httpx
import numpy as np

from embedders.inputs import QUERY, Input, TextInput
from embedders.nim import NimConfig, NimEmbedder

__all__ = ["bench_nim"]

MODEL = "nvidia/nvclip"
DIMENSION = 1024
CONNECTIONS = 32
ROUNDS = 3


class Load(NamedTuple):
    """Callers at the same time, inputs of each call, and calls in all."""

    callers: int
    inputs: int
    calls: int


LOADS = (Load(1, 1, 200), Load(32, 1, 640), Load(8, 64, 64))


class Figures(NamedTuple):
    """What one run of a load gave."""

    requests_a_core: float
    inputs_per_s: float
    p50_ms: float
    p99_ms: float


class InstantNim(asyncio.Protocol):
    """Answers each request with vectors made beforehand."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer the request once it is whole."""
        self._received += data
        head, _, content = self._received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        if head and len(content) >= length > 0:
            self._received = b""
            self._transport.write(_answer(len(json.loads(content)["input"])))


@cache
def _answer(count: int) -> bytes:
    row = np.random.default_rng(0).standard_normal(DIMENSION)
    packed = base64.b64encode((row / np.linalg.norm(row)).astype("<f4").tobytes()).decode()
    data = [{"object": "embedding", "index": at, "embedding": packed} for at in range(count)]
    body = json.dumps({"object": "list", "data": data, "model": MODEL, "usage": {}}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _serve(ports: "Queue[int]") -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(InstantNim, "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def _run(embedder: NimEmbedder, load: Load) -> Figures:
    inputs: list[Input] = [TextInput(f"a dog of number {number}") for number in range(load.inputs)]
    seconds: list[float] = []

    async def call() -> None:
        for _ in range(load.calls // load.callers):
            started = time.perf_counter()
            await embedder.embed(inputs, QUERY)
            seconds.append(time.perf_counter() - started)

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call() for _ in range(load.callers)))
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return Figures(len(seconds) / cpu, len(seconds) * load.inputs / took, float(p50), float(p99))


async def bench_nim() -> None:
    """Print the NIM client's speed, and what it gains over httpx's own transport."""
    context = multiprocessing.get_context("spawn")
    ports: Queue[int] = context.Queue()
    server = context.Process(target=_serve, args=(ports,), daemon=True)
    server.start()
    config = NimConfig(
        base_url=f"http://127.0.0.1:{await asyncio.to_thread(ports.get)}", model=MODEL, max_connections=CONNECTIONS
    )
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    ours = NimEmbedder(config)
    httpx_alone = NimEmbedder(config, transport=httpx.AsyncHTTPTransport(limits=limits))
    for embedder in (ours, httpx_alone):
        await embedder.start()
        await embedder.embed([TextInput("warm up")], QUERY)
    for load in LOADS:
        rounds = [(await _run(ours, load), await _run(httpx_alone, load)) for _ in range(ROUNDS)]
        mine, other = (Figures(*np.median([each[side] for each in rounds], axis=0)) for side in (0, 1))
        print(
            f"NIM client, {load.callers} callers of {load.inputs} inputs: {mine.requests_a_core:.0f} requests/s a core "
            f"({mine.requests_a_core / other.requests_a_core:.1f} x httpx's own transport; goal 400 for 32 callers), "
            f"{mine.inputs_per_s:.0f} inputs/s, p50 {mine.p50_ms:.1f} ms, "
            f"p99 {mine.p99_ms / mine.p50_ms:.1f} x p50 (goal 3)"
        )
    for embedder in (ours, httpx_alone):
        await embedder.close()
    server.terminate()
    await asyncio.to_thread(server.join)
