"""What is over the bound of a list or a string is refused by name; what an object has too much of fails alone."""

import asyncio
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from service.domain import Hit, ReturnFields, SearchSpec
from tests.fakes.clients import let_in
from tests.fakes.store import FakeStore
from tests.service.access.test_access import bearer
from tests.service.conftest import Wire, failure_of, over_every_wire, start_wire, stop_wire, unpack
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb

ONE = str(UUID(int=1))


def imported(*properties: dict[str, Any]) -> object_pb.ImportObjectsRequest:
    request = object_pb.ImportObjectsRequest(collection="Pictures")
    for each in properties:
        request.objects.add().properties.update(each)
    return request


@over_every_wire
@pytest.mark.parametrize(
    "properties",
    [
        {"tags": ["a"] * 10_000},
        {"tags": [None] * 10_000},
        {f"a{number}": None for number in range(10_001)},
        {"place": {"deep": [[["a"] * 5000] * 2]}},
        {"title": "a" * 4 * 1024 * 1024},
    ],
    ids=["texts", "nulls", "names", "nested", "long"],
)
async def test_an_object_with_too_much_in_its_properties_fails_alone(wire: Wire, properties: dict[str, Any]) -> None:
    await wire.create_pictures()

    answer = await wire.objects.ImportObjects(imported({"title": "a"}, properties, {"tags": ["a"] * 9999}))
    changed = object_pb.UpdateObjectRequest(collection="Pictures", object=imported(properties).objects[0])
    changed.object.id = answer.results[0].id
    update = await failure_of(wire.objects.UpdateObject(changed))

    assert [each.HasField("stored") for each in answer.results] == [True, False, True]
    failure = unpack(answer.results[1].error)
    assert (failure.reason, failure.fields) == ("INVALID_PROPERTY", ["objects[1].properties"])
    assert (update.reason, update.fields) == ("INVALID_PROPERTY", ["object.properties"])


@over_every_wire
async def test_an_object_with_too_many_vectors_fails_alone(wire: Wire) -> None:
    await wire.create_pictures()
    sound, over = (imported({"title": title}).objects[0] for title in ("a", "b"))
    for number in range(101):
        over.vectors[f"a{number}"].SetInParent()

    request = object_pb.ImportObjectsRequest(collection="Pictures", objects=[sound, over])
    answer = await wire.objects.ImportObjects(request)
    over.id = answer.results[0].id
    update = await failure_of(
        wire.objects.UpdateObject(object_pb.UpdateObjectRequest(collection="Pictures", object=over))
    )

    failure = unpack(answer.results[1].error)
    assert (failure.reason, failure.fields) == ("INVALID_VECTOR", ["objects[1].vectors"])
    assert (update.reason, update.fields) == ("INVALID_VECTOR", ["object.vectors"])


@over_every_wire
async def test_the_values_of_all_objects_are_bounded_before_any_is_looked_at(wire: Wire) -> None:
    await wire.create_pictures()

    failure = await failure_of(wire.objects.ImportObjects(imported(*[{"tags": ["a"] * 9999}] * 11)))

    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, ["objects.properties"])
    assert "100000" in failure.message


async def test_a_picture_does_not_wait_while_a_request_of_many_fields_is_read(wire: Wire) -> None:
    picture = embedding_pb.EmbedInputsRequest(inputs=[{"image": {"content": bytes(300_000)}}])
    read = threading.Event()
    # What a request of as many fields as there may be does, for longer.
    wire.server._calls._reading.submit(read.wait)
    many = asyncio.ensure_future(wire.objects.ImportObjects(imported(*[{"tags": ["a" * 20] * 5000}])))

    try:
        answer = await wire.embedding.EmbedInputs(picture, timeout=30)
        waiting = not many.done()
    finally:
        read.set()

    assert answer.results[0].WhichOneof("outcome") == "error"
    assert waiting
    assert (await failure_of(many)).reason == "COLLECTION_NOT_FOUND"


async def test_a_hundred_faults_are_named_and_the_others_counted(wire: Wire) -> None:
    await wire.create_pictures()

    answer = await wire.objects.ImportObjects(imported({f"a{number}": 1 for number in range(1000)}))

    failure = unpack(answer.results[0].error)
    described = answer.results[0].error.details[1]
    assert 5 < len(failure.fields) <= 100
    assert failure.fields[-1] == ""
    assert f"and {1000 - len(failure.fields) + 1} more".encode() in described.value
    assert answer.ByteSize() < 8192


class Noting(FakeStore):
    """Keeps what listings asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[ReturnFields] = []

    async def search(self, collection: str, spec: SearchSpec) -> list[Hit]:
        self.asked.append(spec.fields)
        return await super().search(collection, spec)


async def test_what_is_named_twice_is_returned_once() -> None:
    wire = await start_wire(store=(store := Noting()))
    await wire.create_pictures()
    await wire.objects.ImportObjects(imported({"title": "a cat"}))

    search = search_pb.SearchObjectsRequest(
        collection="Pictures",
        near_text={"concepts": ["a cat"]},
        output={"vectors": ["default"] * 100, "images": ["image"] * 1000, "properties": ["title"] * 3},
    )
    found = await wire.search.SearchObjects(search)
    search.output.vectors.append("default")
    over = await failure_of(wire.search.SearchObjects(search))
    unknown = await failure_of(
        wire.search.SearchObjects(
            search_pb.SearchObjectsRequest(
                collection="Pictures",
                near_text={"concepts": ["a cat"]},
                output={"vectors": ["default", "b", "default", "a"]},
            )
        )
    )

    await stop_wire(wire)

    assert len(found.hits) == 1
    assert [(each.properties, each.images, each.vectors) for each in store.asked] == [
        (["title"], ["image"], ["default"])
    ]
    assert over.fields == ["output.vectors"]
    assert unknown.fields == ["output.vectors[1]", "output.vectors[3]"]


async def test_who_may_not_call_is_told_so_whatever_was_sent(tmp_path: Path) -> None:
    wire = await start_wire(auth=let_in(tmp_path / "clients.toml", reader='permissions = ["search"]'))
    call: Any = wire.channel.unary_unary("/vecgate.v1.CollectionService/CreateCollection")

    codes = [
        await call(content, metadata=(bearer("reader"),)).code() for content in (b"", b"\xff", b"\x0a\x00" * 10**6)
    ]
    await stop_wire(wire)

    assert codes == [StatusCode.PERMISSION_DENIED] * 3


async def test_a_long_request_for_reflection_is_refused_and_a_short_one_answered(wire: Wire) -> None:
    def asked(name: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
        return ServerReflectionStub(wire.channel).ServerReflectionInfo(iter([request]))

    answer = await asked("vecgate.v1.SearchService").read()
    code = await asked("a" * 1_000_000).code()

    assert answer.file_descriptor_response.file_descriptor_proto
    assert code is StatusCode.INVALID_ARGUMENT


async def test_a_watch_of_a_long_name_is_not_kept(wire: Wire) -> None:
    request = health_pb2.HealthCheckRequest(service="a" * 1_000_000)

    codes = [await HealthStub(wire.channel).Watch(request).code(), await HealthStub(wire.channel).Check(request).code()]

    assert codes == [StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT]


async def test_the_id_of_an_object_that_fails_is_returned_cut(wire: Wire) -> None:
    await wire.create_pictures()
    request = imported({"title": "a"})
    request.objects[0].id = "x" * 1000

    (result,) = (await wire.objects.ImportObjects(request)).results

    assert result.HasField("error")
    assert result.id == "x" * 64
