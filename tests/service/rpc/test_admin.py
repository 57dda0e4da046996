"""AdminService shows what goes on inside, and the command line says it in words."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from typer.testing import CliRunner

from embedders.errors import EmbedderUnavailable
from embedders.front.batching import BatchingEmbedder
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.cache import CachingEmbedder, VectorCache
from embedders.front.queueing import QueueBounds
from embedders.reranking import Passage
from service.cli import app
from service.rpc import admin
from service.settings import EmbedderSettings, ServerSettings
from tests.fakes.clients import key_of, let_in
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.reranker import FakeReranker
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import admin_service_pb2 as pb
from vecgate.v1 import collection_service_pb2 as collection_pb
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
    async with asyncio.timeout(60):
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
    assert "Weaviate 1.2.3 (node1 healthy)" in words
    assert "in 1 process" in words
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
    assert "Weaviate does not answer: " in words


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
    boss_, greedy_ = shown.clients
    assert (greedy_.inputs, greedy_.max_inputs_per_second) == (3, 0.1)
    assert 2.5 < greedy_.used_inputs <= 3
    assert greedy_.request_bytes == TEXTS.ByteSize()
    assert not greedy_.HasField("max_bytes_per_second")
    assert not greedy_.HasField("max_inputs_in_flight")
    assert (boss_.inputs, boss_.used_inputs, boss_.HasField("max_inputs_per_second")) == (0, 0, False)
    assert not shown.clients[0].HasField("retry_delay")
    assert 10 < shown.clients[1].retry_delay.ToTimedelta().total_seconds() <= 30
    assert refused.reason == "CREDENTIALS_MISSING"
    assert "used up for" in words
    assert "0.1 inputs a second" in words
    assert "used up" not in few
    assert "is serving" in few


async def test_counts_grow_by_what_was_done(wire: Wire) -> None:
    before = await ask(wire)
    await wire.embedding.EmbedInputs(TEXTS)
    await failure_of(wire.collections.GetCollection(collection_pb.GetCollectionRequest(name="Nowhere")))
    after = await ask(wire)

    def calls(status: pb.GetServerStatusResponse, method: str) -> int:
        return sum(each.seconds.count for each in status.methods if each.name == f"vecgate.v1.{method}")

    def missed(status: pb.GetServerStatusResponse) -> int:
        return sum(each.count for each in status.failures if each.reason == "COLLECTION_NOT_FOUND")

    assert calls(after, "EmbeddingService/EmbedInputs") - calls(before, "EmbeddingService/EmbedInputs") == 1
    assert missed(after) - missed(before) == 1


async def test_the_work_of_an_embedder_is_counted_and_measured() -> None:
    queue = BatchingEmbedder(FakeEmbedder(name="busy", max_batch=2), bounds=QueueBounds(max_inputs=50, max_bytes=1000))
    cached = CachingEmbedder(BreakerEmbedder(queue, BreakerRules()), VectorCache(10_000))
    wire = await start_wire(cached)  # type: ignore[arg-type]
    before = (await ask(wire)).embedders[0]
    await wire.embedding.EmbedInputs(TEXTS)
    await wire.embedding.EmbedInputs(TEXTS)
    status = await ask(wire)
    await stop_wire(wire)

    after = status.embedders[0]
    assert after.embedded_inputs - before.embedded_inputs == 3
    assert (after.cache_hits - before.cache_hits, after.cache_misses - before.cache_misses) == (3, 3)
    assert after.batch_fill.count - before.batch_fill.count == 2
    assert after.batch_fill.sum - before.batch_fill.sum == pytest.approx(1.5)
    assert after.queue_seconds.count - before.queue_seconds.count == 1
    assert (after.max_batch, after.batch_slots) == (2, 1)
    assert after.max_queued_inputs == EmbedderSettings().max_queued_inputs
    for each in (after.queue_seconds, after.backend_seconds, after.batch_fill, after.preprocess_seconds):
        assert sum(each.bucket_counts) == each.count
        assert len(each.bucket_counts) == len(each.bounds) + 1
        assert sorted(each.bounds) == list(each.bounds)
    assert status.cache_bytes > 0
    assert status.max_cache_bytes == EmbedderSettings().cache_bytes


async def test_the_server_tells_since_when_it_runs_and_what_it_takes(wire: Wire) -> None:
    status = await ask(wire)

    assert 0 < status.start_time.ToDatetime().timestamp() < status.observe_time.ToDatetime().timestamp()
    assert status.workers == 1
    assert status.max_calls == ServerSettings().max_calls
    assert status.resident_bytes > 1024 * 1024
    assert status.cpu_time.ToTimedelta().total_seconds() > 0


async def test_the_store_tells_its_version_and_nodes_or_why_it_does_not(wire: Wire) -> None:
    well = (await ask(wire)).store
    wire.store.available = False
    down = (await ask(wire)).store

    assert (well.version, well.fault, [each.status for each in well.nodes]) == ("1.2.3", "", ["HEALTHY"])
    assert (down.version, len(down.nodes)) == ("", 0)
    assert down.fault


async def test_a_store_that_does_not_tell_its_state_in_time_keeps_nothing_else_back(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "STATE_AFTER_S", 0.01)
    monkeypatch.setattr(wire.store, "state", asyncio.Event().wait)

    status = await ask(wire)

    assert "did not tell its state within 0.01 s" in status.store.fault
    assert status.embedders


async def test_rerankers_of_several_addresses_are_counted_together() -> None:
    reranker = FakeReranker(name="rank")
    wire = await start_wire(rerankers=[[reranker]])
    before = (await ask(wire)).rerankers[0]
    await wire.rerankers.rerank(wire.rerankers.get("rank"), "a", [Passage("b"), Passage("c")], None)
    after = (await ask(wire)).rerankers[0]
    await stop_wire(wire)

    assert after.scored_passages - before.scored_passages == 2
    assert after.seconds.count - before.seconds.count == 1
    assert (after.max_waiting_calls, after.call_slots) == (256, reranker.spec.slots)


class Shown(Collector):
    """Metrics as all processes of a server have them together."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("process_start_time_seconds", "", 1.0)
        yield from self._metrics

    async def exposed(self) -> CollectorRegistry:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry


async def test_the_searches_of_a_reranker_are_those_of_all_processes_as_its_slots_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = GaugeMetricFamily("vecgate_reranker_running_calls", "", labels=["reranker"])
    running.add_metric(["rank"], 5)
    running.add_metric(["other"], 1)
    monkeypatch.setattr(admin, "exposed", Shown(running).exposed)
    wire = await start_wire(rerankers=[[FakeReranker(name="rank", slots=4)]], server=ServerSettings(port=0, workers=2))
    (shown,) = (await ask(wire)).rerankers
    await stop_wire(wire)

    assert (shown.running_calls, shown.call_slots) == (5, 8)


class ReadLabels(dict[str, str]):
    """Labels that count how often one is read."""

    read = 0

    def __getitem__(self, name: str) -> str:
        ReadLabels.read += 1
        return super().__getitem__(name)


async def test_the_work_grows_with_the_clients_and_not_with_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def labels_read(count: int) -> int:
        calls = CounterMetricFamily("vecgate_grpc_calls", "")
        names = [f"client{number:02}" for number in range(count)]
        for name in names:
            for code, value in (("OK", 3), ("RESOURCE_EXHAUSTED", 2)):
                labels = ReadLabels(method="m", code=code, client=name)
                calls.samples.append(Sample("vecgate_grpc_calls_total", labels, value))
        monkeypatch.setattr(admin, "exposed", Shown(calls).exposed)
        clients = dict.fromkeys(names, 'permissions = ["admin"]')
        wire = await start_wire(auth=let_in(tmp_path / f"{count}.toml", **clients))
        for name in names:
            ReadLabels.read = 0
            status = await ask(wire, ("authorization", f"Bearer {key_of(name)}"))
        await stop_wire(wire)
        assert [(each.name, each.calls, each.refused_calls) for each in status.clients] == [
            (name, 5, 2) for name in names
        ]
        return ReadLabels.read

    assert await labels_read(30) == 3 * await labels_read(10)
