"""AdminService shows what goes on inside, and the command line says it in words."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedders.errors import EmbedderUnavailable
from embedders.front.batching import BatchingEmbedder
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.queueing import QueueBounds
from service.cli import app
from tests.fakes.clients import key_of, let_in
from tests.fakes.embedder import FakeEmbedder
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import admin_service_pb2 as pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1.admin_service_pb2_grpc import AdminServiceStub

TEXTS = embedding_pb.EmbedInputsRequest(inputs=[{"text": "a"}, {"text": "b"}, {"text": "c"}])


async def ask(wire: Wire, *metadata: tuple[str, str]) -> pb.GetServerStatusResponse:
    return await AdminServiceStub(wire.channel).GetServerStatus(pb.GetServerStatusRequest(), metadata=metadata)


async def status_in_words(wire: Wire, monkeypatch: pytest.MonkeyPatch, key: str = "") -> str:
    monkeypatch.setenv("VECGATE_API_KEY", key)
    arguments = ["--address", f"127.0.0.1:{wire.server.port}", "status"]
    return (await asyncio.to_thread(CliRunner().invoke, app, arguments)).output


async def test_what_waits_runs_and_is_in_flight_is_shown_while_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = FakeEmbedder(name="slow", max_batch=1, slots=1)
    wire = await start_wire(BatchingEmbedder(inner, bounds=QueueBounds(max_inputs=50, max_bytes=10_000)))  # type: ignore[arg-type]
    inner.gate = asyncio.Event()
    calls = [asyncio.ensure_future(wire.embedding.EmbedInputs(TEXTS)) for _ in range(2)]
    async with asyncio.timeout(10):
        while (await ask(wire)).embedders[0].queued_inputs != 5:
            await asyncio.sleep(0.01)
    busy, words = await ask(wire), await status_in_words(wire, monkeypatch)
    inner.gate.set()
    await asyncio.gather(*calls)
    idle = await ask(wire)
    await stop_wire(wire)

    assert (busy.embedders[0].name, busy.embedders[0].running_batches, busy.calls_in_flight) == ("slow", 1, 3)
    assert busy.embedders[0].queued_bytes == 5
    assert busy.embedders[0].oldest_wait.ToTimedelta().total_seconds() > 0
    assert busy.store_available
    assert busy.release
    assert "5 inputs, 0.0 MiB, the first since" in words
    assert (idle.embedders[0].queued_inputs, idle.embedders[0].running_batches, idle.calls_in_flight) == (0, 0, 1)


async def test_what_is_broken_is_shown_with_its_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = FakeEmbedder(name="sick")
    wire = await start_wire(BreakerEmbedder(inner, BreakerRules(max_failures=1)))  # type: ignore[arg-type]
    well = await ask(wire)
    inner.failure = EmbedderUnavailable("the NIM does not answer")
    await failure_of(wire.embedding.EmbedInputs(TEXTS))
    wire.store.available = False
    broken, words = await ask(wire), await status_in_words(wire, monkeypatch)
    await stop_wire(wire)

    assert (well.embedders[0].breaker_open, well.embedders[0].fault, well.store_available) == (False, "", True)
    assert (broken.embedders[0].breaker_open, broken.store_available) == (True, False)
    assert broken.embedders[0].fault == "the NIM does not answer"
    assert "not asked for a while, because it failed" in words


async def test_clients_are_shown_with_what_they_use_up_and_to_admins_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = 'permissions = ["embed"]\n[clients.greedy.quota]\ninputs_per_second = 0.1'
    wire = await start_wire(
        auth=let_in(
            tmp_path / "clients.toml", boss='permissions = ["admin"]', greedy=quota, quiet='permissions = ["embed"]'
        )
    )
    greedy, boss = (("authorization", f"Bearer {key_of(name)}") for name in ("greedy", "boss"))
    await wire.embedding.EmbedInputs(TEXTS, metadata=(greedy,))
    shown = await ask(wire, boss)
    refused = await failure_of(AdminServiceStub(wire.channel).GetServerStatus(pb.GetServerStatusRequest()))
    words, few = [await status_in_words(wire, monkeypatch, key_of(name)) for name in ("boss", "quiet")]
    await stop_wire(wire)

    assert [(each.name, each.inputs_in_flight) for each in shown.clients] == [("boss", 0), ("greedy", 0)]
    assert not shown.clients[0].HasField("retry_delay")
    assert 10 < shown.clients[1].retry_delay.ToTimedelta().total_seconds() <= 30
    assert refused.reason == "CREDENTIALS_MISSING"
    assert "used up for" in words
    assert "used up" not in few
    assert "is serving" in few
