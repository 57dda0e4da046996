"""The end of a server, over every wire."""

import asyncio
from collections.abc import Callable

from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from service.settings import ServerSettings
from tests.service.conftest import over_every_wire, start_wire
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1.input_pb2 import Input


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@over_every_wire
async def test_a_call_in_flight_is_answered_while_the_server_stops_and_watches_of_health_end() -> None:
    wire = await start_wire(server=ServerSettings(port=0, drain_grace_s=20))
    wire.embedder.gate = asyncio.Event()
    running = asyncio.ensure_future(wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[Input(text="a")])))
    watch = HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest(service="vecgate.v1.EmbeddingService"))
    statuses = aiter(watch)
    first = await anext(statuses)
    await until(lambda: wire.embedder.in_flight)

    stopping = asyncio.create_task(asyncio.wait_for(asyncio.gather(wire.server.stop(), wire.web.stop()), 15))
    second = await anext(statuses)
    wire.embedder.gate.set()
    answer = await running
    await stopping
    await wire.channel.close()
    wire.api.close()
    await wire.pool.close()

    serving = health_pb2.HealthCheckResponse
    assert [first.status, second.status] == [serving.SERVING, serving.NOT_SERVING]
    assert answer.results[0].HasField("embedding")
