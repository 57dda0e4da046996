"""A gRPC server in a process of its own, over a store and an embedder in memory, that tells what calls cost it.

It prints its ports. For each line that it reads, it prints two numbers: the longest time of the processor, in seconds,
that its event loop has taken for one round since the last line, and by how many bytes its memory has grown, at most.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedders.contract import Embedding, EmbedOptions, Input, Outcome
from embedders.front.batching import BatchingEmbedder
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.cache import CachingEmbedder, VectorCache
from embedders.front.queueing import QueueBounds
from service.access import Authenticator
from service.core.embedder_pool import EmbedderPool
from service.process.log import configure_logging
from service.rpc.server.server import GrpcServer
from service.rpc.shared.bounds import RequestLimits
from service.settings import AuthSettings, LimitSettings, LogSettings, ServerSettings, WebSettings
from service.web.server import WebServer
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.store import FakeStore

ROW = np.full(8, 8**-0.5, np.float32)


class Instant(FakeEmbedder):
    """Takes no time of the processor."""

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Return the same vector for all."""
        del options
        await asyncio.sleep(0)
        return [Embedding(ROW) for _ in inputs]


class Rounds:
    """Measures the rounds of an event loop.

    Attributes:
        longest_s: the longest one, of its thread's own time.
    """

    def __init__(self, loop: Any) -> None:
        self.longest_s = 0.0
        self._once = loop._run_once
        loop._run_once = self._measured

    def _measured(self) -> None:
        began_s = time.thread_time()
        self._once()
        self.longest_s = max(self.longest_s, time.thread_time() - began_s)


def memory(line: str) -> int:
    """Return what Linux says of this process's memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{line}:")[1].split()[0]) * 1024


def answer(rounds: Rounds, ports: str) -> None:
    """Say what calls cost, until nobody asks any more."""
    sys.stdout.write(f"{ports}\n")
    sys.stdout.flush()
    before = 0
    for _ in sys.stdin:
        sys.stdout.write(f"{rounds.longest_s} {memory('VmHWM') - before}\n")
        sys.stdout.flush()
        rounds.longest_s = 0.0
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")


async def main(max_bytes: int) -> None:
    """Serve requests of so many bytes until there is nothing more to read."""
    configure_logging(LogSettings(format="json"))
    front = CachingEmbedder(
        BreakerEmbedder(
            BatchingEmbedder(Instant(max_batch=64), bounds=QueueBounds(max_inputs=4096, max_bytes=2**29)),
            BreakerRules(),
        ),
        VectorCache(2**20),
    )
    pool = EmbedderPool([front], check_interval_s=3600)
    await pool.start()
    await pool.first_checks()
    open_to_all = Authenticator(AuthSettings())
    server = GrpcServer(
        ServerSettings(port=0, max_request_bytes=max_bytes),
        RequestLimits.of(LimitSettings()),
        store=FakeStore(),
        embedders=pool,
        authenticator=open_to_all,
    )
    web = WebServer(
        WebSettings(port=0, max_body_bytes=max_bytes), ServerSettings(), embedders=pool, authenticator=open_to_all
    )
    await server.start()
    await web.start()
    rounds = Rounds(asyncio.get_running_loop())
    await asyncio.to_thread(answer, rounds, f"{server.port} {web.port}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
