"""What callers that mean it no good can make the gRPC server hold: nothing, or no more than its bounds."""

import asyncio
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc import StatusCode
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from service.rpc.server import server as rpc_server
from service.settings import ServerSettings
from tests.fakes.clients import let_in
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.raw_grpc import RawClient
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from tests.service.rpc.server.test_limits import A_TEXT, start_bounded, until
from vecgate.v1 import admin_service_pb2 as admin_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1.admin_service_pb2_grpc import AdminServiceStub
from vecgate.v1.input_pb2 import Input

EMBED = "/vecgate.v1.EmbeddingService/EmbedInputs"
MIB = 1024 * 1024


def calls_in(lines: list[Any]) -> list[Any]:
    return [line for line in lines if line["event"] == "call"]


async def ended_lines(lines: list[Any], count: int) -> list[Any]:
    await until(lambda: len(calls_in(lines)) == count)
    return calls_in(lines)


async def test_what_strangers_send_is_not_read(tmp_path: Path) -> None:
    wire = await start_wire(auth=let_in(tmp_path / "clients.toml", somebody='permissions = ["embed"]'))
    client = await RawClient.connect(wire.server.port)
    streams = range(1, 9, 2)
    for stream in streams:
        client.call(stream, EMBED)
    sending = [asyncio.ensure_future(client.message(stream, b"x" * 32 * MIB, whole=False)) for stream in streams]

    await until(lambda: client.ended == set(streams))

    sent = await asyncio.gather(*sending)
    await client.close()
    await stop_wire(wire)
    assert max(sent) < 16 * MIB, "no more than gRPC's window of a stream that nobody reads"


async def test_connections_beyond_the_bound_are_closed_at_once_and_those_without_a_call_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = await start_bounded(monkeypatch, max_connections=4, max_connection_idle_s=1)
    idle = [await RawClient.connect(wire.server.port) for _ in range(4)]
    beyond = [await RawClient.connect(wire.server.port) for _ in range(3)]

    await until(lambda: all(each.closed for each in beyond))
    # gRPC lets those go that have had no call.
    await until(lambda: all(each.closed for each in idle))
    answer = await wire.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20, wait_for_ready=True)

    for each in (*idle, *beyond):
        await each.close()
    await stop_wire(wire)
    assert answer


async def test_connections_that_say_nothing_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_server, "HANDSHAKE_TIMEOUT_MS", 500)
    wire = await start_bounded(
        monkeypatch,
    )
    silent = [await asyncio.open_connection("127.0.0.1", wire.server.port) for _ in range(4)]

    async with asyncio.timeout(25):
        for reader, _ in silent:
            while await reader.read(1000):
                pass

    for _, writer in silent:
        writer.close()
    await stop_wire(wire)


@pytest.mark.parametrize(("files", "connections"), [(128, 96), (2, 1), (1_000_000, 8192), (-1, 8192)])
def test_connections_leave_a_quarter_of_the_files_to_others(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))

    assert dict(rpc_server._options(ServerSettings()))["grpc.max_allowed_incoming_connections"] == connections


@pytest.mark.parametrize("bound", ["max_call_s", "request_timeout_s"])
async def test_a_request_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    wire = await start_bounded(monkeypatch, **{bound: 0.5})
    client = await RawClient.connect(wire.server.port)
    with structlog.testing.capture_logs() as lines:
        client.call(1, EMBED)
        await client.message(1, b"x" * MIB, whole=False)
        await until(lambda: 1 in client.ended)
        (line,) = await ended_lines(lines, 1)
    await client.close()
    await stop_wire(wire)

    assert line["code"] == "DEADLINE_EXCEEDED"


async def test_an_answer_that_nobody_takes_counts_as_a_call_until_its_caller_is_gone() -> None:
    embedder = FakeEmbedder(dimension=200_000)
    wire = await start_wire(embedder, server=bounded(max_calls=1))
    client = await RawClient.connect(wire.server.port)
    client.call(1, EMBED)
    await client.message(1, pb.EmbedInputsRequest(inputs=[Input(text="a cat")]).SerializeToString())
    await until(lambda: embedder.calls and not embedder.in_flight)
    await asyncio.sleep(0.2)

    refused = await failure_of(wire.embedding.ListEmbedders(pb.ListEmbeddersRequest()))
    status = await AdminServiceStub(wire.channel).GetServerStatus(admin_pb.GetServerStatusRequest())
    await client.close()
    answer = await come_again(lambda: wire.embedding.ListEmbedders(pb.ListEmbeddersRequest()))
    await stop_wire(wire)

    assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "OVERLOADED")
    assert status.embedders, "who looks into an overload is answered"
    assert answer.embedders


def bounded(**settings: Any) -> Any:
    return rpc_server.ServerSettings.model_validate({"port": 0, "drain_grace_s": 1, **settings})


async def come_again(call: Callable[[], Any]) -> Any:
    async with asyncio.timeout(25):
        while True:
            try:
                return await call()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # The latter is what writing to a stream that was refused raises.
                await asyncio.sleep(0.02)


async def test_a_client_that_is_gone_without_a_word_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_server, "KEEPALIVE_TIMEOUT_MS", 200)
    wire = await start_bounded(monkeypatch, keepalive_s=1)
    wire.embedder.gate = asyncio.Event()
    client = await RawClient.connect(wire.server.port)
    client.call(1, EMBED)
    await client.message(1, A_TEXT.SerializeToString())
    await until(lambda: wire.embedder.in_flight == 1)

    async with asyncio.timeout(30):
        while wire.embedder.in_flight:
            await asyncio.sleep(0.05)
    await client.close()
    await stop_wire(wire)

    assert client.closed


async def test_calls_that_hold_too_much_keep_others_from_beginning_until_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = await start_bounded(monkeypatch, max_request_bytes=MIB, max_calls_bytes=MIB)
    wire.embedder.gate = asyncio.Event()
    large = pb.EmbedInputsRequest(inputs=[Input(text="x" * 30_000)] * 33)
    small = pb.EmbedInputsRequest(inputs=[Input(text="x" * 30_000)])
    running = [asyncio.ensure_future(wire.embedding.EmbedInputs(each)) for each in (large, small)]
    await until(lambda: wire.embedder.in_flight == 2)
    at_the_bound = asyncio.ensure_future(wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=large.inputs[:2])))
    await until(lambda: wire.embedder.in_flight == 3)

    over = [await failure_of(wire.embedding.EmbedInputs(each)) for each in (A_TEXT, large)]
    wire.embedder.gate.set()
    await asyncio.gather(*running, at_the_bound)
    after = await come_again(lambda: wire.embedding.EmbedInputs(A_TEXT))
    await stop_wire(wire)

    assert {(each.code, each.reason) for each in over} == {(StatusCode.UNAVAILABLE, "OVERLOADED")}
    assert all(str(MIB) in each.message for each in over)
    assert len(after.results) == 1


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"\x0a\x04\x0a\x02\xff\xfe"], ids=["nonsense", "no-utf-8"])
async def test_bytes_that_are_no_message_are_the_callers_fault_and_leave_a_line(wire: Wire, content: bytes) -> None:
    with structlog.testing.capture_logs() as lines:
        failure = await failure_of(wire.channel.unary_unary(EMBED)(content))
        (line,) = await ended_lines(lines, 1)

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert (line["code"], line["request_bytes"]) == ("INVALID_ARGUMENT", len(content))
    assert {each["log_level"] for each in lines} == {"info"}


async def test_messages_over_their_bounds_leave_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await start_bounded(monkeypatch, max_request_bytes=2048, max_response_bytes=1024)
    with structlog.testing.capture_logs() as lines:
        request = await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[Input(text="x" * 4000)])).code()
        (first,) = await ended_lines(lines, 1)
        answer = await failure_of(wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[Input(text="a")] * 50)))
        second = (await ended_lines(lines, 2))[1]
    await stop_wire(wire)

    assert (request, first["code"]) == (StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")
    assert (answer.code, answer.reason) == (StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert second["code"] == "RESOURCE_EXHAUSTED"


async def test_a_long_list_of_faults_reaches_the_caller_as_far_as_it_fits(wire: Wire) -> None:
    properties = [property_pb.Property(name=f"bad name {number}") for number in range(100)]
    collection = collection_pb.Collection(name="Long", properties=properties)

    many = await failure_of(
        wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))
    )
    long = await failure_of(wire.collections.GetCollection(collection_pb.GetCollectionRequest(name="L" + "ö" * 500)))

    assert many.code is StatusCode.INVALID_ARGUMENT
    assert len(many.fields) >= 10
    assert many.fields[-1] == "", "the last says how many more there are"
    assert long.code in (StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND)
    assert long.message.endswith("...")


async def test_streams_of_reflection_over_their_number_are_refused_and_those_that_end_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = await start_bounded(monkeypatch, max_calls=2)
    stub = ServerReflectionStub(wire.channel)

    async def ask(stream: Any) -> Any:
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        return await stream.read()

    open_ones = [stub.ServerReflectionInfo() for _ in range(2)]
    for each in open_ones:
        assert await ask(each)
    over = stub.ServerReflectionInfo()
    code = await over.code()
    embedded = await wire.embedding.EmbedInputs(A_TEXT)
    open_ones[0].cancel()

    async def again() -> Any:
        return await ask(stub.ServerReflectionInfo())

    answer = await come_again(again)
    await stop_wire(wire)

    assert code is StatusCode.UNAVAILABLE
    assert len(embedded.results) == 1
    assert answer.list_services_response.service
