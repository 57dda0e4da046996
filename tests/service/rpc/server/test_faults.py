"""A local model that fails under the whole server: the right error in time, true health, and no trace afterwards."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from embedders.clip import ClipConfig, ClipEmbedder
from embedders.front.batching import BatchingEmbedder
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.queueing import QueueBounds
from service.core.embedder_pool import EmbedderPool
from service.rpc.server.server import GrpcServer
from service.settings import ServerSettings
from tests.fakes.models import in_process, loaded
from tests.fakes.store import FakeStore
from tests.fakes.tiny_clip import write_tiny_clip
from tests.service.conftest import LIMITS, code_of, failure_of
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.input_pb2 import Input

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
A_TEXT = pb.EmbedInputsRequest(inputs=[Input(text="a cat")])
# A check each interval, its time-out and the reporter's own interval take 3 s; the rest is for a busy machine.
RULES = BreakerRules(max_failures=2, cool_down_s=0.05, max_cool_down_s=0.1, check_timeout_s=2)
IN_TIME_S = 30.0

Encode = Callable[[Any], Any]


@dataclass
class Local:
    """A server over a tiny local model."""

    clip: ClipEmbedder
    embedding: EmbeddingServiceStub
    health: health_pb2_grpc.HealthStub

    async def becomes(self, status: int) -> None:
        async with asyncio.timeout(IN_TIME_S):
            while (await self.health.Check(health_pb2.HealthCheckRequest())).status != status:
                await asyncio.sleep(0.02)

    def patch(self, monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Encode], Encode]) -> None:
        replica = loaded(self.clip).replica
        monkeypatch.setattr(replica, "encode_texts", wrap(replica.encode_texts))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
async def local(model: Path) -> AsyncIterator[Local]:
    tasks_before, threads_before = asyncio.all_tasks(), set(threading.enumerate())
    clip = in_process(ClipConfig(model=str(model), device="cpu"))
    batching = BatchingEmbedder(clip, bounds=QueueBounds(max_inputs=100, max_bytes=10**6), apart=True)
    pool = EmbedderPool([BreakerEmbedder(batching, RULES)], check_interval_s=0.1)
    await pool.start()
    await pool.first_checks()
    server = GrpcServer(
        ServerSettings(port=0, drain_grace_s=5),
        LIMITS,
        store=FakeStore(),
        embedders=pool,
    )
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = Local(clip, EmbeddingServiceStub(channel), health_pb2_grpc.HealthStub(channel))
        await running.becomes(SERVING)
        yield running
    await server.stop()
    await pool.close()
    assert asyncio.all_tasks() <= tasks_before | {asyncio.current_task()}
    left = {each for each in set(threading.enumerate()) - threads_before if each.name.startswith("clip-")}
    assert not left


async def recovers(local: Local) -> None:
    await local.becomes(SERVING)
    response = await local.embedding.EmbedInputs(A_TEXT, timeout=IN_TIME_S)
    assert response.results[0].HasField("embedding")


async def test_a_forward_pass_that_always_raises_is_unavailable_and_not_healthy_until_it_works(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        local.patch(patch, lambda _: lambda _: 1 / 0)
        for _ in range(3):
            failure = await failure_of(local.embedding.EmbedInputs(A_TEXT, timeout=IN_TIME_S))
            assert (failure.code, failure.reason) == (StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE")
            assert failure.retry_s is not None
        await local.becomes(NOT_SERVING)
    await recovers(local)


async def test_a_forward_pass_that_hangs_costs_no_more_than_the_deadline_and_turns_health(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def hang(encode: Encode) -> Encode:
        def run(texts: Any) -> Any:
            go.wait(60)
            return encode(texts)

        return run

    with monkeypatch.context() as patch:
        local.patch(patch, hang)
        began = asyncio.get_running_loop().time()
        assert await code_of(local.embedding.EmbedInputs(A_TEXT, timeout=0.2)) is StatusCode.DEADLINE_EXCEEDED
        assert asyncio.get_running_loop().time() - began < IN_TIME_S
        await local.becomes(NOT_SERVING)
    go.set()
    await recovers(local)


async def test_out_of_memory_on_every_larger_batch_fails_nobody(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def short(encode: Encode) -> Encode:
        def run(texts: Any) -> Any:
            if len(texts) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return encode(texts)

        return run

    local.patch(monkeypatch, short)
    request = pb.EmbedInputsRequest(inputs=[Input(text=f"text {at}") for at in range(20)])
    response = await local.embedding.EmbedInputs(request, timeout=IN_TIME_S)
    assert all(result.HasField("embedding") for result in response.results)
    await local.becomes(SERVING)
