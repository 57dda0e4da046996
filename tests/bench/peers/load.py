"""Callers that call again as soon as they are answered. Their requests are bytes made beforehand, for all systems."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np

Call = Callable[[bytes], Awaitable[int]]
"""Sends a request and returns the bytes of its answer."""

UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(slots=True)
class Sample:
    """One measurement.

    Attributes:
        items: inputs embedded.
        took_s: from the first call to the last answer.
        calls_s: how long each call took.
        server_cpu_s: CPU of all processes of the system.
        client_cpu_s: CPU of the load.
    """

    items: int = 0
    took_s: float = 0.0
    calls_s: list[float] = field(default_factory=list)
    server_cpu_s: float = 0.0
    client_cpu_s: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the calls in milliseconds."""
        return float(np.percentile(self.calls_s, percent)) * 1000


async def run_callers(
    callers: Sequence[Call], requests: Iterator[bytes], items: int, least_bytes: int, seconds: float
) -> Sample:
    """Let callers call for some seconds; an answer shorter than `least_bytes` has no vectors in it."""
    sample = Sample()
    began, cpu = time.perf_counter(), time.process_time()

    async def caller(call: Call) -> None:
        while (now := time.perf_counter()) - began < seconds:
            size = await call(next(requests))
            assert size >= least_bytes, f"an answer of {size} bytes"
            sample.calls_s.append(time.perf_counter() - now)
            sample.items += items

    await asyncio.gather(*map(caller, callers))
    sample.took_s = time.perf_counter() - began
    sample.client_cpu_s = time.process_time() - cpu
    return sample


@asynccontextmanager
async def grpc_callers(address: str, method: str, count: int) -> AsyncIterator[list[Call]]:
    """Open one connection for all callers of a gRPC method."""
    async with grpc.aio.insecure_channel(address, options=UNBOUNDED) as channel:
        send = channel.unary_unary(method)

        async def call(request: bytes) -> int:
            return len(await send(request))

        yield [call] * count


@asynccontextmanager
async def http_callers(port: int, path: str, count: int) -> AsyncIterator[list[Call]]:
    """Open a connection for each caller of an HTTP path."""
    async with _closing() as connections:

        async def caller() -> Call:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            connections.append(writer)

            async def call(request: bytes) -> int:
                head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
                writer.write(f"{head}content-length: {len(request)}\r\n\r\n".encode() + request)
                answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(answer.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                content = await reader.readexactly(length)
                assert b" 200 " in answer.partition(b"\r\n")[0], content[:500]
                return length

            return call

        yield [await caller() for _ in range(count)]


@asynccontextmanager
async def _closing() -> AsyncIterator[list[asyncio.StreamWriter]]:
    connections: list[asyncio.StreamWriter] = []
    try:
        yield connections
    finally:
        for each in connections:
            each.close()
