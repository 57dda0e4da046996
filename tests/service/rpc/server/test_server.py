"""The server as a whole: health, drain, its port."""

import asyncio
from collections.abc import Collection

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from embedders.errors import EmbedderUnavailable
from service.process.addresses import AddressTaken
from service.process.ports import free_ports
from service.rpc.server.server import GrpcServer
from service.settings import ServerSettings
from tests.fakes.embedder import FakeEmbedder
from tests.service.conftest import LIMITS, Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import admin_service_pb2 as admin_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.input_pb2 import Input

A_TEXT = pb.EmbedInputsRequest(inputs=[Input(text="a cat")])
SERVICES = ("EmbeddingService", "CollectionService", "ObjectService", "SearchService")


async def health(wire: Wire, service: str = "") -> str:
    name = f"vecgate.v1.{service}" if service.partition("/")[0] in SERVICES else service
    response = await HealthStub(wire.channel).Check(health_pb2.HealthCheckRequest(service=name))
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


async def until_health(wire: Wire, service: str, status: str) -> None:
    async with asyncio.timeout(60):
        while await health(wire, service) != status:
            await asyncio.sleep(0.02)


async def test_every_service_and_the_server_as_a_whole_report_serving(wire: Wire) -> None:
    assert {await health(wire, service) for service in (*SERVICES, "")} == {"SERVING"}


async def test_a_store_that_is_down_takes_down_all_but_embedding_and_comes_back(wire: Wire) -> None:
    wire.store.available = False
    await until_health(wire, "", "NOT_SERVING")
    down = {service: await health(wire, service) for service in SERVICES}
    wire.store.available = True
    await until_health(wire, "", "SERVING")

    assert down == {
        "EmbeddingService": "SERVING",
        "CollectionService": "NOT_SERVING",
        "ObjectService": "NOT_SERVING",
        "SearchService": "NOT_SERVING",
    }


async def test_an_embedder_that_fails_takes_down_what_needs_it_until_it_works_again(wire: Wire) -> None:
    wire.embedder.failure = EmbedderUnavailable("the NIM does not answer")
    await failure_of(wire.embedding.EmbedInputs(A_TEXT))
    await until_health(wire, "", "NOT_SERVING")
    down = {service: await health(wire, service) for service in SERVICES}
    (info,) = (await wire.embedding.ListEmbedders(pb.ListEmbeddersRequest())).embedders
    wire.embedder.failure = None
    await wire.embedding.EmbedInputs(A_TEXT)
    await until_health(wire, "", "SERVING")

    assert down == {
        "EmbeddingService": "NOT_SERVING",
        "CollectionService": "SERVING",
        "ObjectService": "NOT_SERVING",
        "SearchService": "NOT_SERVING",
    }
    assert (info.health, info.health_detail) == (pb.EMBEDDER_HEALTH_UNAVAILABLE, "the NIM does not answer")


async def test_liveness_is_about_the_process_alone(wire: Wire) -> None:
    wire.store.available = False
    wire.embedder.failure = EmbedderUnavailable("the NIM does not answer")
    await failure_of(wire.embedding.EmbedInputs(A_TEXT))
    await until_health(wire, "", "NOT_SERVING")
    await until_health(wire, "EmbeddingService", "NOT_SERVING")

    assert await health(wire, "liveness") == "SERVING"
    assert await health(wire, "vecgate.v1.AdminService") == "SERVING"


async def test_a_draining_process_is_alive_to_its_end(wire: Wire) -> None:
    wire.embedder.gate = asyncio.Event()
    wire.embedder.entered.clear()
    in_flight = asyncio.ensure_future(wire.embedding.EmbedInputs(A_TEXT))
    await wire.embedder.entered.wait()
    states = {
        name: aiter(HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest(service=name)))
        for name in ("liveness", "")
    }
    before = {name: (await anext(each)).status for name, each in states.items()}

    stopping = asyncio.create_task(wire.server.stop())
    draining = (await anext(states[""])).status
    change = asyncio.ensure_future(anext(states["liveness"]))
    silent, _ = await asyncio.wait((change,), timeout=0.1)
    wire.embedder.gate.set()
    await in_flight
    await stopping
    with pytest.raises(grpc.aio.AioRpcError):
        await change

    assert set(before.values()) == {health_pb2.HealthCheckResponse.SERVING}
    assert draining == health_pb2.HealthCheckResponse.NOT_SERVING
    assert not silent


async def test_no_method_of_the_api_is_unimplemented(wire: Wire) -> None:
    modules = (admin_pb, pb, collection_pb, object_pb, search_pb)
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    codes = {}
    for method in (method for service in services for method in service.methods):
        assert not method.client_streaming, "interceptors wrap calls with one request only"
        call_kind = wire.channel.unary_stream if method.server_streaming else wire.channel.unary_unary
        call = call_kind(f"/{method.containing_service.full_name}/{method.name}")(b"")
        codes[method.name] = await call.code()

    assert len(codes) == sum(len(service.methods) for service in services)
    assert set(codes.values()) == {StatusCode.OK, StatusCode.INVALID_ARGUMENT}


async def test_no_method_takes_what_cannot_be_parsed_and_each_says_so_in_a_sentence(wire: Wire) -> None:
    for module in (admin_pb, pb, collection_pb, object_pb, search_pb):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                call_kind = wire.channel.unary_stream if method.server_streaming else wire.channel.unary_unary
                call = call_kind(f"/{method.containing_service.full_name}/{method.name}")(b"\xff\xff")

                assert await call.code() is StatusCode.INVALID_ARGUMENT
                assert await call.details() == "the request cannot be parsed as the method's message"


async def test_a_drain_reports_not_serving_first_and_lets_calls_in_flight_finish(wire: Wire) -> None:
    watch = HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest(service=""))
    states = aiter(watch)
    first = (await anext(states)).status
    wire.embedder.gate = asyncio.Event()
    wire.embedder.entered.clear()
    in_flight = asyncio.ensure_future(wire.embedding.EmbedInputs(A_TEXT))
    await wire.embedder.entered.wait()

    stopping = asyncio.create_task(wire.server.stop())
    second = (await anext(states)).status
    refused = await _failure_code(wire)
    finished_early = in_flight.done()
    wire.embedder.gate.set()
    response = await in_flight
    async with asyncio.timeout(60):
        await stopping

    assert (first, second) == (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)
    # A call that gRPC has in hand when it begins to stop, but has not given to us yet, it cancels: clients repeat both.
    assert refused in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
    assert not finished_early
    assert response.results[0].HasField("embedding")


async def _failure_code(wire: Wire) -> StatusCode:
    """Return the code of a call on a new connection to a server that drains."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{wire.server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        return caught.value.code()


async def test_a_taken_port_is_told_with_the_setting_to_change(wire: Wire) -> None:
    settings = ServerSettings(port=wire.server.port)

    with pytest.raises(AddressTaken, match=rf"127\.0\.0\.1:{wire.server.port}.*VECGATE_SERVER__PORT"):
        GrpcServer(settings, LIMITS, store=wire.store, embedders=wire.pool)


async def test_a_server_that_has_not_started_refuses_connections_so_that_nobody_waits(wire: Wire) -> None:
    settings = ServerSettings(port=free_ports(1)[0])
    server = GrpcServer(settings, LIMITS, store=wire.store, embedders=wire.pool)
    health = "/grpc.health.v1.Health"

    async with grpc.aio.insecure_channel(f"127.0.0.1:{settings.port}") as channel:
        check, watch = channel.unary_unary(f"{health}/Check"), channel.unary_stream(f"{health}/Watch")
        for call in (check(b"", timeout=20), watch(b"", timeout=20)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (call if isinstance(call, grpc.aio.UnaryUnaryCall) else call.read())
            assert caught.value.code() is StatusCode.UNAVAILABLE

        await server.start()
        answer = await check(b"", timeout=20, wait_for_ready=True)
    await server.stop()

    assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING


async def test_who_loses_the_race_for_a_port_is_told_when_it_starts(wire: Wire) -> None:
    settings = ServerSettings(port=free_ports(1)[0])
    servers = [GrpcServer(settings, LIMITS, store=wire.store, embedders=wire.pool) for _ in range(2)]
    await servers[0].start()

    with pytest.raises(AddressTaken):
        await servers[1].start()

    await servers[0].stop()


async def test_an_embedder_that_was_down_at_the_start_is_found_again_by_its_check() -> None:
    embedder = FakeEmbedder()
    embedder.failure = EmbedderUnavailable("not up yet")
    wire = await start_wire(embedder)
    try:
        before = await health(wire)
        embedder.failure = None
        await wire.pool._check(wire.pool.default)
        await until_health(wire, "", "SERVING")
    finally:
        await stop_wire(wire)

    assert before == "NOT_SERVING"


async def test_each_embedder_has_its_own_health_and_a_nim_that_of_any_of_its_addresses() -> None:
    one, two, clip = embedders = [FakeEmbedder(name=name) for name in ("open", "open-2", "clip")]
    wire = await start_wire(*embedders, replicas={"open": ["open", "open-2"]})
    names = [f"EmbeddingService/{each.spec.name}" for each in embedders]

    async def after(failing: Collection[FakeEmbedder], changed: FakeEmbedder) -> list[str]:
        """Return what all embedders' health is once that of one has changed, because these fail now."""
        name = f"vecgate.v1.EmbeddingService/{changed.spec.name}"
        states = aiter(HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest(service=name)))
        await anext(states)
        for member, each in zip(wire.pool.all, embedders, strict=True):
            each.failure = EmbedderUnavailable("down") if each in failing else None
            await wire.pool._check(member)
        async with asyncio.timeout(60):
            await anext(states)
        return [await health(wire, each) for each in names]

    at_first = [await health(wire, each) for each in names]
    first_address_down = await after([one, clip], clip)
    both_down = await after([one, two], two)
    all_up = await after([], two)
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await health(wire, "EmbeddingService/nobody")
    await stop_wire(wire)

    assert at_first == all_up == ["SERVING"] * 3
    assert first_address_down == ["SERVING", "SERVING", "NOT_SERVING"]
    assert both_down == ["NOT_SERVING", "NOT_SERVING", "SERVING"]
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
