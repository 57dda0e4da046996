"""The bounds of the gRPC server: at each bound, one over it, and far over it; and callers that vanish or misbehave."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from embedders.front.batching import BatchingEmbedder
from embedders.front.queueing import QueueBounds
from service.rpc.server import calls, server
from service.settings import ServerSettings
from tests.fakes.embedder import FakeEmbedder
from tests.service.conftest import Wire, failure_of, over_binary_wires, over_every_wire, start_wire, stop_wire
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.input_pb2 import Input

A_TEXT = pb.EmbedInputsRequest(inputs=[Input(text="a cat")])


async def start_bounded(monkeypatch: pytest.MonkeyPatch, **bounds: Any) -> Wire:
    """Start a server with other bounds: settings, or constants of the server."""
    settings = {name: bounds.pop(name) for name in [*bounds] if name in ServerSettings.model_fields}
    for name, bound in bounds.items():
        homes = [module for module in (server, calls) if hasattr(module, name.upper())]
        assert homes, f"there is no bound {name}"
        for module in homes:
            monkeypatch.setattr(module, name.upper(), bound)
    return await start_wire(server=ServerSettings.model_validate({"port": 0, "drain_grace_s": 5, **settings}))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(25):
        while not condition():
            await asyncio.sleep(0.01)


def texts(count: int) -> pb.EmbedInputsRequest:
    return pb.EmbedInputsRequest(inputs=[Input(text="a cat")] * count)


def hits(count: int) -> search_pb.SearchObjectsRequest:
    return search_pb.SearchObjectsRequest(collection="Pictures", limit=count, near_text={"concepts": ["a cat"]})


def objects(count: int) -> object_pb.ImportObjectsRequest:
    return object_pb.ImportObjectsRequest(collection="Pictures", objects=[object_pb.DataObject()] * count)


@over_every_wire
@pytest.mark.parametrize(
    ("bound", "request_of", "field"),
    [
        pytest.param(50, texts, "inputs", id="max_inputs"),
        pytest.param(20, objects, "objects", id="max_objects"),
        pytest.param(100, hits, "limit", id="max_hits"),
    ],
)
async def test_a_call_takes_what_is_at_its_bound_and_no_more(
    wire: Wire, bound: int, request_of: Callable[[int], Any], field: str
) -> None:
    await wire.create_pictures()
    stubs = {
        "inputs": wire.embedding.EmbedInputs,
        "objects": wire.objects.ImportObjects,
        "limit": wire.search.SearchObjects,
    }
    call = stubs[field]

    await call(request_of(bound))
    over = [await failure_of(call(request_of(count))) for count in (bound + 1, 100 * bound)]

    assert {each.code for each in over} == {StatusCode.INVALID_ARGUMENT}
    assert [each.fields for each in over] == [[field], [field]]
    assert all(str(bound) in each.message for each in over)


@over_binary_wires
@pytest.mark.parametrize("over", [1, 1_000_000])
async def test_a_message_over_its_bound_is_refused_and_one_at_it_is_not(
    monkeypatch: pytest.MonkeyPatch, over: int
) -> None:
    bound = 4096
    wire = await start_bounded(monkeypatch, max_request_bytes=bound)
    at = pb.EmbedInputsRequest(inputs=[Input(text="x" * (bound - 20))])
    while at.ByteSize() < bound:
        at.inputs[0].text += "x"

    answered = await wire.embedding.EmbedInputs(at)
    at.inputs[0].text += "x" * over
    code = await wire.embedding.EmbedInputs(at).code()
    await stop_wire(wire)

    assert len(answered.results) == 1
    assert code is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(("size", "code"), [(1000, "OK"), (2048, "RESOURCE_EXHAUSTED"), (60_000, "RESOURCE_EXHAUSTED")])
async def test_metadata_over_its_bound_is_refused(monkeypatch: pytest.MonkeyPatch, size: int, code: str) -> None:
    wire = await start_bounded(monkeypatch, max_header_bytes=2048)

    ended = await wire.embedding.EmbedInputs(A_TEXT, metadata=(("x-long", "x" * size),)).code()
    await stop_wire(wire)

    assert ended.name == code


@over_every_wire
async def test_calls_over_their_number_are_overload_and_health_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await start_bounded(monkeypatch, max_calls=2)
    wire.embedder.gate = asyncio.Event()
    running = [asyncio.ensure_future(wire.embedding.EmbedInputs(A_TEXT)) for _ in range(2)]
    await until(lambda: wire.embedder.in_flight == 2)

    over = [await failure_of(wire.embedding.ListEmbedders(pb.ListEmbeddersRequest())) for _ in range(3)]
    health = await HealthStub(wire.channel).Check(health_pb2.HealthCheckRequest(service="liveness"))
    wire.embedder.gate.set()
    await asyncio.gather(*running)
    after = await wire.embedding.ListEmbedders(pb.ListEmbeddersRequest())
    await stop_wire(wire)

    assert {(each.code, each.reason, each.retry_s) for each in over} == {(StatusCode.UNAVAILABLE, "OVERLOADED", 1.0)}
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert after.embedders


@over_every_wire
async def test_a_call_that_cannot_be_answered_before_its_deadline_is_refused_before_it_has_passed() -> None:
    inner = FakeEmbedder(max_batch=4)
    embedder: Any = BatchingEmbedder(inner, bounds=QueueBounds(max_inputs=1000, max_bytes=10**6))
    wire = await start_wire(embedder)
    inner.gate = asyncio.Event()
    slow = asyncio.ensure_future(wire.embedding.EmbedInputs(A_TEXT))
    await until(lambda: inner.in_flight == 1)
    await asyncio.sleep(0.5)
    inner.gate.set()
    await slow
    inner.gate = asyncio.Event()
    # One first, or calls that come in the same moment share its batch.
    waiting = [asyncio.ensure_future(wire.embedding.EmbedInputs(A_TEXT))]
    await until(lambda: inner.in_flight == 1)
    waiting += [asyncio.ensure_future(wire.embedding.EmbedInputs(A_TEXT)) for _ in range(40)]
    await until(lambda: embedder.waiting == 40)

    refused = await failure_of(wire.embedding.EmbedInputs(A_TEXT, timeout=5))
    inner.gate.set()
    answers = await asyncio.gather(*waiting)
    later = await wire.embedding.EmbedInputs(A_TEXT, timeout=5)
    await stop_wire(wire)

    assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "OVERLOADED")
    assert refused.retry_s is not None
    assert all(len(each.results) == 1 for each in [*answers, later])


@pytest.mark.parametrize("bound", ["max_connection_idle_s", "max_connection_age_s"])
async def test_a_connection_ends_at_its_bound_without_a_failed_call(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    wire = await start_bounded(monkeypatch, **{bound: 0.3})
    await wire.embedding.EmbedInputs(A_TEXT)
    async with asyncio.timeout(25):
        while wire.channel.get_state() is grpc.ChannelConnectivity.READY:
            await asyncio.sleep(0.02)
    answer = await wire.embedding.EmbedInputs(A_TEXT, wait_for_ready=True)
    await stop_wire(wire)

    assert len(answer.results) == 1


async def code_for_a_client_that_pings(
    monkeypatch: pytest.MonkeyPatch, *, allowed_s: float, waited_s: float
) -> StatusCode:
    """Return how a call ends whose client pings every 100 ms for so long."""
    wire = await start_bounded(monkeypatch, min_ping_interval_s=allowed_s)
    wire.embedder.gate = asyncio.Event()
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{wire.server.port}", options) as channel:
        call = EmbeddingServiceStub(channel).EmbedInputs(A_TEXT)
        ended = asyncio.ensure_future(call.code())
        await asyncio.wait((ended,), timeout=waited_s)
        wire.embedder.gate.set()
        seen = await ended
    await stop_wire(wire)
    return seen


async def test_a_client_that_pings_too_often_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await code_for_a_client_that_pings(monkeypatch, allowed_s=60, waited_s=8) is StatusCode.UNAVAILABLE


async def test_a_client_that_pings_as_often_as_it_may_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a machine that stalls several pings come at once, now and then.
    codes = [await code_for_a_client_that_pings(monkeypatch, allowed_s=0.01, waited_s=2) for _ in range(3)]

    assert codes.count(StatusCode.OK) >= 2


async def test_callers_that_vanish_hold_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await start_bounded(monkeypatch, max_calls=3)
    wire.embedder.gate = asyncio.Event()
    for _ in range(2):
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{wire.server.port}", [("grpc.use_local_subchannel_pool", 1)])
        lost = [asyncio.ensure_future(EmbeddingServiceStub(channel).EmbedInputs(A_TEXT)) for _ in range(3)]
        await until(lambda: wire.embedder.in_flight == 3)
        await channel.close()
        await asyncio.gather(*lost, return_exceptions=True)
        await until(lambda: not wire.embedder.in_flight)
    wire.embedder.gate.set()

    answer = await wire.embedding.EmbedInputs(A_TEXT)
    await stop_wire(wire)

    assert len(answer.results) == 1


async def test_watches_of_the_health_over_their_number_are_refused_and_those_that_end_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = await start_bounded(monkeypatch, max_calls=2)
    stub = HealthStub(wire.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(service="liveness")) for _ in range(2)]
    for each in watches:
        await each.read()

    over = [await stub.Watch(health_pb2.HealthCheckRequest(service="liveness")).code() for _ in range(3)]
    answer = await wire.embedding.EmbedInputs(A_TEXT)
    watches[0].cancel()
    async with asyncio.timeout(25):
        while not await stub.Watch(health_pb2.HealthCheckRequest(service="liveness")).read():
            await asyncio.sleep(0.01)
    await stop_wire(wire)

    assert set(over) == {StatusCode.RESOURCE_EXHAUSTED}
    assert len(answer.results) == 1
