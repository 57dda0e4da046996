"""Traces of calls, as a collector gets them over OTLP."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import patch

import httpx
import pytest
import structlog

from embedders.errors import EmbedderUnavailable
from embedders.front.batching import BatchingEmbedder
from embedders.front.queueing import QueueBounds
from embedders.nim.embedder import NimConfig, NimEmbedder
from embedders.telemetry import tracing
from service.process.tracing import Tracing
from service.settings import InvalidSettings
from tests.fakes.collector import Collector, attributes_of, collector
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.nim import FakeNim
from tests.fakes.web import MODEL, running_web
from tests.service.conftest import failure_of, start_wire, stop_wire
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1.input_pb2 import Input

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
EMBED = "vecgate.v1.EmbeddingService/EmbedInputs"
SECRET = "sesame-open-up"  # what a caller sent
ERROR = 2


def request(text: str = SECRET) -> pb.EmbedInputsRequest:
    return pb.EmbedInputsRequest(inputs=[Input(text=text)])


@asynccontextmanager
async def traced(**variables: str) -> AsyncIterator[Collector]:
    """Trace what happens inside; at its end the collector has all of it."""
    with collector() as found:
        with patch.dict(os.environ, {"OTEL_EXPORTER_OTLP_ENDPOINT": found.address, **variables}):
            running = Tracing()
        try:
            yield found
        finally:
            await running.close()


async def test_a_call_is_one_trace_within_its_callers() -> None:
    wrapped = BatchingEmbedder(FakeEmbedder(), bounds=QueueBounds(max_inputs=100, max_bytes=10_000))
    wire = await start_wire(wrapped)  # type: ignore[arg-type]
    async with traced() as found:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            await wire.embedding.EmbedInputs(request(), metadata=(("traceparent", PARENT),))
            await stop_wire(wire)

    (call,), (embedding,), (batch,) = (found.named(name) for name in (EMBED, "embeddings fake/model", "batch fake"))
    assert call.trace_id.hex() == embedding.trace_id.hex() == batch.trace_id.hex() == TRACE
    assert call.parent_span_id.hex() == SPAN
    assert embedding.parent_span_id == call.span_id
    assert batch.parent_span_id == embedding.span_id
    assert attributes_of(call) == {
        "rpc.system.name": "grpc",
        "rpc.method": EMBED,
        "rpc.response.status_code": "OK",
    }
    assert attributes_of(embedding) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "fake",
        "gen_ai.request.model": "fake/model",
        "gen_ai.embeddings.dimension.count": 8,
        "gen_ai.usage.input_tokens": 3,
        "vecgate.space": "fake",
        "vecgate.inputs": 1,
    }
    assert [line["trace_id"] for line in lines if line["event"] == "call"] == [TRACE]
    assert found.resources[0]["service.name"] == "vecgate"


async def test_a_shared_batch_is_one_span_linked_with_those_of_all_its_calls() -> None:
    fake = FakeEmbedder()
    wrapped = BatchingEmbedder(fake, bounds=QueueBounds(max_inputs=100, max_bytes=10_000))
    async with running_web(fake, wrapped=wrapped) as web, traced() as found, httpx.AsyncClient(timeout=20) as http:
        fake.gate = asyncio.Event()
        fake.entered.clear()
        url = f"{web.url}/v1/embeddings"
        calls = [asyncio.create_task(http.post(url, json={"model": MODEL, "input": "first"}))]
        async with asyncio.timeout(60):
            await fake.entered.wait()
            calls += [asyncio.create_task(http.post(url, json={"model": MODEL, "input": text})) for text in "abc"]
            while wrapped.waiting < 3:
                await asyncio.sleep(0)
        fake.gate.set()
        await asyncio.gather(*calls)

    (shared,) = (span for span in found.named("batch fake") if attributes_of(span)["vecgate.batch.inputs"] == 3)
    waiting = {link.span_id for link in shared.links}
    callers = [span for span in found.named("embeddings fake/model") if span.span_id in waiting]
    assert len(callers) == 3
    assert len({span.trace_id for span in callers}) == 3
    assert shared.parent_span_id in waiting
    assert all(shared.span_id in {link.span_id for link in span.links} for span in callers)


async def test_the_trace_goes_on_to_the_nim() -> None:
    async with FakeNim() as nim:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, model=nim.model))
        await embedder.start()
        async with traced() as found:
            with tracing.span("caller"):
                await embedder.check()
        await embedder.close()

    (caller,), (sent,) = found.named("caller"), found.named("POST /v1/embeddings")
    assert sent.trace_id == caller.trace_id
    assert nim.headers[-1]["traceparent"].startswith(f"00-{sent.trace_id.hex()}-{sent.span_id.hex()}-")
    assert attributes_of(sent)["http.response.status_code"] == 200


@pytest.mark.parametrize(
    ("failure", "code", "kind"),
    [(EmbedderUnavailable("down"), "UNAVAILABLE", "EmbedderUnavailable"), (KeyError(SECRET), "INTERNAL", "KeyError")],
)
async def test_failures_are_told_by_class_and_code_and_nothing_that_a_caller_sent_is_in_a_span(
    failure: Exception, code: str, kind: str
) -> None:
    fake = FakeEmbedder()
    wire = await start_wire(fake)
    fake.failure = failure
    async with traced() as found:
        await failure_of(wire.embedding.EmbedInputs(request(), metadata=(("x-secret", SECRET),)))
        await stop_wire(wire)

    (call,), (embedding,) = found.named(EMBED), found.named("embeddings fake/model")
    assert (call.status.code, attributes_of(call)["error.type"]) == (ERROR, code)
    assert (embedding.status.code, attributes_of(embedding)["error.type"]) == (ERROR, kind)
    assert SECRET not in str(found.spans)


async def test_a_callers_own_fault_is_no_failure_of_the_server() -> None:
    wire = await start_wire()
    async with traced() as found:
        await failure_of(wire.embedding.EmbedInputs(pb.EmbedInputsRequest()))
        await stop_wire(wire)

    (call,) = found.named(EMBED)
    assert attributes_of(call)["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert call.status.code == 0


async def test_http_requests_are_traced_by_route_and_health_is_not() -> None:
    async with running_web(FakeEmbedder()) as web, traced() as found, httpx.AsyncClient(base_url=web.url) as http:
        await http.get("/v1/models/unheard-of", headers={"traceparent": PARENT})
        await http.get("/v1/health/ready")

    (span,) = found.spans
    assert (span.name, span.trace_id.hex()) == ("GET /v1/models/{model}", TRACE)
    assert attributes_of(span) == {
        "http.request.method": "GET",
        "http.route": "/v1/models/{model}",
        "http.response.status_code": 404,
    }


async def test_what_callers_do_not_decide_is_sampled_and_what_they_decide_is_kept() -> None:
    wire = await start_wire()
    async with traced(OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0") as found:
        await wire.embedding.EmbedInputs(request())
        await wire.embedding.EmbedInputs(request(), metadata=(("traceparent", PARENT),))
        await wire.embedding.EmbedInputs(request(), metadata=(("traceparent", "nonsense"),))
        await stop_wire(wire)

    assert {span.trace_id.hex() for span in found.spans} == {TRACE}


async def test_a_collector_that_is_down_costs_spans_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    # OpenTelemetry would try for a minute.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    running = Tracing()
    wire = await start_wire()
    with structlog.testing.capture_logs() as lines:
        try:
            response = await wire.embedding.EmbedInputs(request())
        finally:
            await stop_wire(wire)
            async with asyncio.timeout(60):
                await running.close()
                await running.close()

    assert response.results[0].HasField("embedding")
    (lost,) = (line for line in lines if line["event"] == "spans_lost")
    assert lost["spans"] >= 1


async def test_a_collector_that_takes_all_spans_is_not_complained_of() -> None:
    with structlog.testing.capture_logs() as lines:
        async with traced():
            with tracing.span("any"):
                pass

    assert [line for line in lines if line["event"] == "spans_lost"] == []


async def test_the_variables_of_opentelemetry_name_the_service() -> None:
    names = {}
    for variables in ({"OTEL_SERVICE_NAME": "here"}, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=there,where=site"}):
        async with traced(**variables) as found:
            with tracing.span("any"):
                pass
        names[variables.popitem()[1]] = found.resources[0]

    assert names["here"]["service.name"] == "here"
    assert names["service.name=there,where=site"].items() >= {("service.name", "there"), ("where", "site")}
    assert all("service.version" in each for each in names.values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"},
        {"OTEL_EXPORTER_OTLP_COMPRESSION": "zip"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "10"},
        {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-1"},
    ],
    ids=str,
)
def test_what_opentelemetry_does_not_take_is_a_fault_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **wrong}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(InvalidSettings, match=r"OpenTelemetry's variables \(OTEL_\*\) cannot be used: "):
        Tracing()


@pytest.mark.parametrize(
    "off",
    [
        {},
        {"OTEL_SERVICE_NAME": "here"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=str,
)
def test_nothing_is_traced_unless_asked_for(monkeypatch: pytest.MonkeyPatch, off: dict[str, str]) -> None:
    for name, value in off.items():
        monkeypatch.setenv(name, value)
    Tracing()

    assert not tracing.active()
    assert tracing.outgoing() == {}
    assert tracing.here() is None
