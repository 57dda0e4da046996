"""Quotas over gRPC and HTTP: what uses them up, and how a call beyond them ends."""

import asyncio
import json
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import structlog
from grpc import StatusCode

from service.domain import StoredObject
from service.settings import AuthSettings
from tests.fakes.clients import key_of, let_in
from tests.fakes.web import running_web
from tests.service.access.test_access import METHODS, PERMISSIONS, ask_web, bearer, call, request_for
from tests.service.conftest import over_every_wire, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2, object_service_pb2, search_service_pb2
from vecgate.v1 import embedding_service_pb2 as pb


@over_every_wire
async def test_bytes_of_calls_that_a_client_may_not_make_count(tmp_path: Path) -> None:
    quota = "[clients.poor.quota]\nbytes_per_second = 10"
    wire = await start_wire(auth=let_in(tmp_path / "clients.toml", poor=f'permissions = ["search"]\n{quota}'))
    request = pb.EmbedInputsRequest(inputs=[{"text": "a" * 1000}])

    codes = []
    for _ in range(2):
        failure = await call(wire, "EmbeddingService/EmbedInputs", request, bearer("poor"))
        assert failure is not None
        codes.append(failure.code)
    await stop_wire(wire)

    assert codes == [StatusCode.PERMISSION_DENIED, StatusCode.RESOURCE_EXHAUSTED]


@pytest.fixture
def poor(tmp_path: Path) -> AuthSettings:
    quota = "[clients.poor.quota]\ninputs_per_second = 0.1"
    return let_in(tmp_path / "clients.toml", poor=f"permissions = {json.dumps(PERMISSIONS)}\n{quota}")


@over_every_wire
async def test_a_used_up_quota_counts_for_every_kind_of_call_and_says_when_to_come_back(poor: AuthSettings) -> None:
    wire = await start_wire(auth=poor)
    embed = pb.EmbedInputsRequest(inputs=[{"text": "a"}, {"text": "b"}])
    name = "EmbeddingService/EmbedInputs"

    assert await call(wire, name, embed, bearer("poor")) is None
    for other in (name, "SearchService/SearchObjects", "ObjectService/ImportObjects", "EmbeddingService/ListEmbedders"):
        failure = await call(wire, other, request_for(METHODS[other], "Mine"), bearer("poor"))
        assert failure is not None
        assert (failure.code, failure.reason) == (StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert failure.retry_s is not None
        assert 10 < failure.retry_s <= 20
        assert failure.quota == [("client:poor", "inputs_per_second")]
    await stop_wire(wire)


@over_every_wire
async def test_searches_and_imports_use_up_a_quota_as_well(poor: AuthSettings) -> None:
    for request, name in (
        (
            search_service_pb2.SearchObjectsRequest(collection="Mine", near_text={"concepts": ["a", "b"]}),
            "SearchService/SearchObjects",
        ),
        (
            object_service_pb2.ImportObjectsRequest(collection="Mine", objects=[{"properties": {"title": "a"}}]),
            "ObjectService/ImportObjects",
        ),
    ):
        wire = await start_wire(auth=poor)
        create = collection_service_pb2.CreateCollectionRequest(
            collection={
                "name": "Mine",
                "properties": [{"name": "title", "data_type": "DATA_TYPE_TEXT"}],
                "vectors": [{"name": "default", "text_fields": [{"name": "title"}]}],
            }
        )
        assert await call(wire, "CollectionService/CreateCollection", create, bearer("poor")) is None
        assert await call(wire, name, request, bearer("poor")) is None
        failure = await call(wire, name, request, bearer("poor"))
        assert failure is not None
        assert failure.reason == "QUOTA_EXCEEDED"
        await stop_wire(wire)


async def test_a_used_up_quota_is_too_many_requests_over_http(poor: AuthSettings) -> None:
    async with running_web(auth=poor) as web:
        first = await ask_web(web, "POST", "/v1/embeddings", "poor")
        second = await ask_web(web, "POST", "/v1/embeddings", "poor")
    assert first.status_code == httpx.codes.OK
    assert second.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert second.json()["error"]["code"] == "quota_exceeded"
    assert 1 <= int(second.headers["retry-after"]) <= 10


@over_every_wire
async def test_a_backfill_goes_on_as_its_client_s_quota_is_paid(tmp_path: Path) -> None:
    quota = "[clients.poor.quota]\ninputs_per_second = 20"
    auth = let_in(tmp_path / "clients.toml", poor=f"permissions = {json.dumps(PERMISSIONS)}\n{quota}")
    wire = await start_wire(auth=auth, chunk_objects=10)
    create = collection_service_pb2.CreateCollectionRequest(
        collection={
            "name": "Mine",
            "properties": [{"name": "title", "data_type": "DATA_TYPE_TEXT"}],
            "vectors": [{"name": "default", "text_fields": [{"name": "title"}]}],
        }
    )
    assert await call(wire, "CollectionService/CreateCollection", create, bearer("poor")) is None
    objects = [StoredObject(UUID(int=number), {"title": f"{number}"}, {}, {}) for number in range(40)]
    await wire.store.put_objects("Mine", objects)

    backfill = object_service_pb2.BackfillVectorsRequest(collection="Mine")
    pages = [each async for each in wire.objects.BackfillVectors(backfill, metadata=(bearer("poor"),))]
    next_call = await call(wire, "EmbeddingService/ListEmbedders", pb.ListEmbeddersRequest(), bearer("poor"))
    await stop_wire(wire)

    assert sum(each.filled for each in pages) == 40
    owed_s = 0 if next_call is None else next_call.retry_s
    assert owed_s is not None
    assert owed_s <= 0.5, "what the last page cost; all of them would be a second"


async def test_bytes_count_as_they_come_over_http_too(tmp_path: Path) -> None:
    quota = "[clients.poor.quota]\nbytes_per_second = 10"
    auth = let_in(tmp_path / "clients.toml", poor=f'permissions = ["embed"]\n{quota}')
    async with running_web(auth=auth) as web:
        web.embedder.gate = asyncio.Event()
        first = asyncio.create_task(ask_web(web, "POST", "/v1/embeddings", "poor"))
        async with asyncio.timeout(60):
            while not web.embedder.in_flight:
                await asyncio.sleep(0.01)
        meanwhile = await ask_web(web, "POST", "/v1/embeddings", "poor")
        web.embedder.gate.set()
        answer = await first

    assert answer.status_code == httpx.codes.OK
    assert meanwhile.status_code == httpx.codes.TOO_MANY_REQUESTS


@over_every_wire
@pytest.mark.parametrize("calls", [3, 4, 30])
async def test_a_burst_of_calls_has_no_more_inputs_in_flight_than_the_quota(tmp_path: Path, calls: int) -> None:
    quota = "[clients.eager.quota]\nmax_inputs_in_flight = 3"
    wire = await start_wire(auth=let_in(tmp_path / "clients.toml", eager=f'permissions = ["embed"]\n{quota}'))
    wire.embedder.calls.clear()
    wire.embedder.gate = asyncio.Event()
    request = pb.EmbedInputsRequest(inputs=[{"text": "a"}])

    burst = [
        asyncio.ensure_future(call(wire, "EmbeddingService/EmbedInputs", request, bearer("eager")))
        for _ in range(calls)
    ]
    async with asyncio.timeout(60):
        while wire.embedder.in_flight < 3:
            await asyncio.sleep(0.01)
    late = await call(wire, "EmbeddingService/EmbedInputs", request, bearer("eager"))
    most = wire.embedder.in_flight
    wire.embedder.gate.set()
    failures = await asyncio.gather(*burst)
    await stop_wire(wire)

    assert most == 3
    assert late is not None
    assert late.quota == [("client:eager", "max_inputs_in_flight")]
    refused = [each for each in failures if each is not None]
    assert {each.reason for each in refused} <= {"QUOTA_EXCEEDED"}
    assert len(wire.embedder.calls) == calls - len(refused)


async def test_requests_sent_at_once_on_one_connection_are_each_their_own_senders(tmp_path: Path) -> None:
    quota = "[clients.poor.quota]\nbytes_per_second = 1"
    auth = let_in(tmp_path / "clients.toml", poor=f'permissions = ["embed"]\n{quota}')
    known = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: " + f"Bearer {key_of('poor')}".encode() + b"\r\n\r\n"
    unknown = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        async with running_web(auth=auth) as web:
            reader, writer = await asyncio.open_connection("127.0.0.1", web.server.port)
            writer.write(known + unknown + unknown)
            async with asyncio.timeout(60):
                answers = b""
                while answers.count(b"HTTP/1.1 ") < 3:
                    answers += await reader.read(65_536)
            writer.close()
            await writer.wait_closed()

    calls = [line for line in lines if line["event"] == "call"]
    assert [line["code"] for line in calls] == [200, 401, 401]
    assert [line.get("client") for line in calls] == ["poor", None, None]
