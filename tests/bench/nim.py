"""A NIM's embedder, as the service has it, against a NIM on loopback that answers at once.

The NIM is a process of its own, so that what is timed here is queue, breaker and client.
"""

import asyncio
import base64
import json
import multiprocessing
import time
from functools import cache
from multiprocessing.queues import Queue
from typing import NamedTuple

import numpy as np

from embedders.contract import QUERY, Embedder, Input, TextInput
from embedders.factory import build_embedder
from embedders.front.queueing import QueueBounds
from embedders.nim.embedder import NimConfig, NimEmbedder

MODEL = "nvidia/nvclip"
DIMENSION = 1024
CONNECTIONS = 32
ROUNDS = 3

CALLS_A_CORE = 400
INPUTS_PER_S = 10_000
P99_TO_P50 = 3
"""The goals: calls of one input for each second of CPU, inputs a second in large calls, and the slowest calls."""


class Load(NamedTuple):
    """Callers at the same time, inputs of each call, and calls in all."""

    callers: int
    inputs: int
    calls: int


LOADS = (Load(1, 1, 300), Load(32, 1, 1280), Load(8, 64, 160))


class Figures(NamedTuple):
    """What one run of a load gave."""

    calls_a_core: float
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
        if self._received.startswith(b"GET "):
            self._received = b""
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
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


async def _run(embedder: Embedder, load: Load) -> Figures:
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


def _report(load: Load, served: Figures, bare: Figures) -> str:
    small = load.inputs == 1
    calls = f" (goal {CALLS_A_CORE})" if small else ""
    inputs = "" if small else f" (goal {INPUTS_PER_S})"
    return (
        f"NIM, {load.callers} callers of {load.inputs} inputs: {served.calls_a_core:.0f} calls/s a core{calls}, "
        f"{served.inputs_per_s:.0f} inputs/s{inputs}, {served.calls_a_core * load.inputs:.0f} inputs/s a core, "
        f"p50 {served.p50_ms:.1f} ms, p99 {served.p99_ms / served.p50_ms:.1f} x p50 (goal {P99_TO_P50}); without queue "
        f"and breaker {bare.calls_a_core:.0f} calls/s a core"
    )


async def bench_nim() -> None:
    """Print how fast a NIM is called, and what queue and breaker cost."""
    context = multiprocessing.get_context("spawn")
    ports: Queue[int] = context.Queue()
    server = context.Process(target=_serve, args=(ports,), daemon=True)
    server.start()
    config = NimConfig(
        base_url=f"http://127.0.0.1:{await asyncio.to_thread(ports.get)}", model=MODEL, max_connections=CONNECTIONS
    )
    embedders: list[Embedder] = [
        build_embedder(config, bounds=QueueBounds(max_inputs=4096, max_bytes=2**28)),
        NimEmbedder(config),
    ]
    for embedder in embedders:
        await embedder.start()
        await embedder.embed([TextInput("warm up")], QUERY)
    for load in LOADS:
        rounds = [[await _run(embedder, load) for embedder in embedders] for _ in range(ROUNDS)]
        print(_report(load, *(Figures(*np.median(each, axis=0)) for each in zip(*rounds, strict=True))))
    for embedder in embedders:
        await embedder.close()
    server.terminate()
    await asyncio.to_thread(server.join)
