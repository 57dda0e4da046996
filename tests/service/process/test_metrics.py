"""What calls leave in the metrics and in their lines of the access log."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog
from prometheus_client import REGISTRY

from embedders.errors import EmbedderUnavailable
from embedders.front.batching import BatchingEmbedder
from embedders.front.queueing import QueueBounds, calling_client
from service.core.embedder_pool import EmbedderPool
from tests.fakes.clients import key_of, let_in
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.raw_http import connect
from tests.fakes.web import MODEL, running_web
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.input_pb2 import Input

EMBED = "vecgate.v1.EmbeddingService/EmbedInputs"
A_TEXT = pb.EmbedInputsRequest(inputs=[Input(text="a cat")])


def value(name: str, **labels: str) -> float:
    """Return a sample's value, 0 if there is none."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def becomes(wanted: float, name: str, **labels: str) -> None:
    """Wait until a sample has a value: a caller may hear of a call's end before the server has counted it."""
    async with asyncio.timeout(60):
        while value(name, **labels) != wanted:
            await asyncio.sleep(0)


async def lines_of(lines: list[Any], count: int) -> list[Any]:
    """Return the lines of the access log once there are so many."""
    async with asyncio.timeout(60):
        while len(calls := [line for line in lines if line["event"] == "call"]) < count:
            await asyncio.sleep(0)
    return calls


async def test_calls_are_counted_by_method_code_and_client_and_timed(wire: Wire) -> None:
    calls = {code: value("vecgate_grpc_calls_total", method=EMBED, code=code, client="anonymous") for code in
             ("OK", "INVALID_ARGUMENT")}  # fmt: skip
    timed = value("vecgate_grpc_call_seconds_count", method=EMBED)

    await wire.embedding.EmbedInputs(A_TEXT)
    await failure_of(wire.embedding.EmbedInputs(pb.EmbedInputsRequest()))

    for code, before in calls.items():
        await becomes(before + 1, "vecgate_grpc_calls_total", method=EMBED, code=code, client="anonymous")
    await becomes(timed + 2, "vecgate_grpc_call_seconds_count", method=EMBED)
    await becomes(0, "vecgate_grpc_calls_in_flight")


async def test_a_call_counts_for_the_client_that_the_context_names() -> None:
    embedder = FakeEmbedder()
    inner = embedder.embed

    async def embed(*arguments: Any) -> Any:
        calling_client.set("search-team")
        return await inner(*arguments)

    embedder.embed = embed  # type: ignore[method-assign]
    wire = await start_wire(embedder)
    before = value("vecgate_grpc_calls_total", method=EMBED, code="OK", client="search-team")
    try:
        await wire.embedding.EmbedInputs(A_TEXT)
    finally:
        await stop_wire(wire)

    await becomes(before + 1, "vecgate_grpc_calls_total", method=EMBED, code="OK", client="search-team")


@pytest.mark.parametrize(
    ("failure", "reason", "blame"),
    [
        (EmbedderUnavailable("down"), "EMBEDDER_UNAVAILABLE", "upstream"),
        (KeyError("a cat"), "INTERNAL", "server"),
    ],
)
async def test_failures_are_counted_by_reason_and_by_whose_fault_they_are(
    wire: Wire, failure: Exception, reason: str, blame: str
) -> None:
    before = value("vecgate_failures_total", reason=reason, blame=blame)
    wire.embedder.failure = failure

    await failure_of(wire.embedding.EmbedInputs(A_TEXT))

    await becomes(before + 1, "vecgate_failures_total", reason=reason, blame=blame)


async def test_a_space_mismatch_is_counted(wire: Wire) -> None:
    await wire.create_pictures()
    other = await start_wire(FakeEmbedder(space="other"))
    other.store.__dict__.update(wire.store.__dict__)
    before = value("vecgate_failures_total", reason="EMBEDDING_SPACE_MISMATCH", blame="caller")
    request = search_pb.SearchObjectsRequest(collection="Pictures", near_text={"concepts": ["a cat"]})
    try:
        failure = await failure_of(other.search.SearchObjects(request))
    finally:
        await stop_wire(other)

    assert failure.reason == "EMBEDDING_SPACE_MISMATCH"
    await becomes(before + 1, "vecgate_failures_total", reason="EMBEDDING_SPACE_MISMATCH", blame="caller")


async def test_objects_of_imports_are_counted_by_what_became_of_them(wire: Wire) -> None:
    def counted() -> dict[str, float]:
        return {each: value("vecgate_import_objects_total", outcome=each) for each in ("stored", "rejected", "failed")}

    await wire.create_pictures()
    before = counted()
    wire.store.rejected[UUID(int=1)] = "the shard is read-only"
    titles = {"": "a cat", str(UUID(int=1)): "a dog", str(UUID(int=2)): 3}
    objects = [object_pb.DataObject(id=id_, properties={"title": title}) for id_, title in titles.items()]
    await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=objects))

    assert {each: counted()[each] - before[each] for each in before} == {"stored": 1, "rejected": 1, "failed": 1}


async def test_an_access_line_says_where_the_time_went() -> None:
    fake = FakeEmbedder()
    wrapped = BatchingEmbedder(fake, bounds=QueueBounds(max_inputs=100, max_bytes=10_000))
    async with running_web(fake, wrapped=wrapped) as web:
        fake.gate = asyncio.Event()
        fake.entered.clear()
        with structlog.testing.capture_logs() as lines:
            async with httpx.AsyncClient(base_url=web.url, timeout=20) as http:
                first = asyncio.create_task(http.post("/v1/embeddings", json={"model": MODEL, "input": "a cat"}))
                async with asyncio.timeout(60):
                    await fake.entered.wait()
                second = asyncio.create_task(http.post("/v1/embeddings", json={"model": MODEL, "input": "a dog"}))
                async with asyncio.timeout(60):
                    while not wrapped.waiting:
                        await asyncio.sleep(0)
                assert value("vecgate_embedder_queued_inputs", embedder="fake") == 1
                assert value("vecgate_embedder_queued_bytes", embedder="fake") == 5
                assert value("vecgate_embedder_queue_age_seconds", embedder="fake") > 0
                assert value("vecgate_embedder_running_batches", embedder="fake") == 1
                while value("vecgate_embedder_queue_age_seconds", embedder="fake") < 0.02:
                    await asyncio.sleep(0)
                fake.gate.set()
                await asyncio.gather(first, second)
            calls = await lines_of(lines, 2)

    assert [line["code"] for line in calls] == [200, 200]
    assert calls[0]["backend_ms"] >= 20
    assert calls[1]["queue_ms"] >= 20
    assert all(line["duration_ms"] >= line["backend_ms"] for line in calls)
    assert all("store_ms" not in line for line in calls), "nothing was asked of the store"
    assert value("vecgate_embedder_queued_inputs", embedder="fake") == 0, "a closed embedder is let go of"


async def test_http_requests_are_counted_by_route_and_never_by_a_callers_words() -> None:
    async with running_web(FakeEmbedder()) as web, httpx.AsyncClient(base_url=web.url, timeout=20) as http:
        labels = [("POST /v1/embeddings", "200"), ("GET /v1/models/{model}", "404"), ("(other)", "404")]
        before = [value("vecgate_http_requests_total", route=r, code=c, client="anonymous") for r, c in labels]
        others = value("vecgate_http_requests_total", route="(other)", code="405", client="anonymous")

        await http.post("/v1/embeddings", json={"model": MODEL, "input": "a cat"})
        await http.get("/v1/models/unheard-of")
        await http.get("/unheard-of")
        await http.request("TRACE", "/v1/models")

        after = [value("vecgate_http_requests_total", route=r, code=c, client="anonymous") for r, c in labels]
        page = (await http.get("/metrics")).text

    assert after == [each + 1 for each in before]
    assert value("vecgate_http_requests_total", route="(other)", code="405", client="anonymous") == others + 1
    assert "unheard-of" not in page
    assert "TRACE" not in page


async def test_requests_sent_along_with_another_ones_count_for_nobody_by_its_key(tmp_path: Path) -> None:
    auth = let_in(tmp_path / "clients.toml", along='permissions = ["embed"]')
    credentials = [f"authorization: Bearer {key_of('along')}\r\n", "authorization: Bearer wrong\r\n", ""]
    requests = [f"GET /v1/models HTTP/1.1\r\nhost: x\r\n{each}\r\n".encode() for each in credentials]
    route = "GET /v1/models"
    before = value("vecgate_http_requests_total", route=route, code="401", client="anonymous")

    async with running_web(FakeEmbedder(), auth=auth) as web:
        connection = await connect(web)
        await connection.send(b"".join(requests))
        statuses = [(await connection.answer())[0] for _ in requests]
        connection.writer.close()

    assert statuses == [200, 401, 401]
    assert value("vecgate_http_requests_total", route=route, code="401", client="anonymous") == before + 2
    assert value("vecgate_http_requests_total", route=route, code="401", client="along") == 0


async def test_an_embedder_that_fails_its_check_is_down_until_one_passes() -> None:
    fake = FakeEmbedder(name="shaky", space="of/shaky")
    fake.failure = EmbedderUnavailable("down")
    pool = EmbedderPool([fake], check_interval_s=3600)
    await pool.start()
    await pool.first_checks()
    down = value("vecgate_embedder_up", embedder="shaky", space="of/shaky")
    fake.failure = None
    await pool._check(fake)
    up = value("vecgate_embedder_up", embedder="shaky", space="of/shaky")
    await pool.close()

    assert (down, up) == (0, 1)


@pytest.mark.parametrize(
    ("failure", "event", "level"),
    [
        (None, "call", "info"),
        (EmbedderUnavailable("down"), "call_failed", "warning"),
        (KeyError("a cat"), "call_failed", "error"),
    ],
    ids=["the caller's fault", "the backend's", "ours"],
)
async def test_a_failure_is_as_loud_as_whose_fault_it_is_and_ours_shows_its_place(
    wire: Wire, failure: Exception | None, event: str, level: str
) -> None:
    wire.embedder.failure = failure
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await failure_of(wire.embedding.EmbedInputs(A_TEXT if failure else pb.EmbedInputsRequest()))
        await lines_of(lines, 1)

    (line,) = (each for each in lines if each["event"] == event)
    assert line["log_level"] == level
    assert line["error"] == (type(failure).__name__ if failure else "InvalidRequest")
    assert ("traceback" in line) == (level == "error")
    assert "a cat" not in str(lines)
