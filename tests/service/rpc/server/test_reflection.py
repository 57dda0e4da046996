"""gRPC reflection: what grpcurl, ghz and their like go by."""

from collections.abc import AsyncIterator, Iterator, Sequence

import grpc
import pytest
from google.protobuf import descriptor_database, descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, ServiceDescriptor
from grpc_reflection.v1alpha import reflection_pb2 as pb

from service.rpc.server.standard_services import ADMIN, COLLECTION, EMBEDDING, EVALUATION, OBJECT, SEARCH
from tests.service.conftest import Wire

SERVICES = (ADMIN, COLLECTION, EMBEDDING, EVALUATION, OBJECT, SEARCH)
HEALTH = "grpc.health.v1.Health"
NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


@pytest.fixture(params=NAMES)
def ask(wire: Wire, request: pytest.FixtureRequest) -> "Ask":
    return Ask(wire.channel, request.param)


class Ask:
    """Asks one of the two versions, on the wire as its callers do."""

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        self._call = channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            pb.ServerReflectionRequest.SerializeToString,
            pb.ServerReflectionResponse.FromString,
        )

    async def all(self, requests: Sequence[pb.ServerReflectionRequest]) -> list[pb.ServerReflectionResponse]:
        async def sent() -> AsyncIterator[pb.ServerReflectionRequest]:
            for each in requests:
                yield each

        return [answer async for answer in self._call(sent())]

    async def one(self, **fields: str) -> pb.ServerReflectionResponse:
        return (await self.all([pb.ServerReflectionRequest(**fields)]))[0]

    async def services(self) -> list[str]:
        return [each.name for each in (await self.one(list_services="")).list_services_response.service]

    async def pool_of(self, symbol: str) -> descriptor_pool.DescriptorPool:
        """Return what a caller can make of the files that come for a symbol, and of nothing else."""
        database = descriptor_database.DescriptorDatabase()
        for file in (await self.one(file_containing_symbol=symbol)).file_descriptor_response.file_descriptor_proto:
            database.Add(descriptor_pb2.FileDescriptorProto.FromString(file))
        return descriptor_pool.DescriptorPool(database)


async def test_both_versions_list_every_service(ask: Ask) -> None:
    assert await ask.services() == sorted((*SERVICES, HEALTH, *NAMES))


async def test_every_listed_service_is_described_with_all_its_methods_and_types(ask: Ask) -> None:
    for name in await ask.services():
        service = (await ask.pool_of(name)).FindServiceByName(name)

        assert service.methods
        for method in service.methods:
            for message in (method.input_type, method.output_type):
                assert message.full_name


async def test_every_symbol_is_found_in_the_file_that_declares_it(ask: Ask) -> None:
    files = {name: (await ask.pool_of(name)).FindServiceByName(name).file for name in await ask.services()}
    symbols = {
        symbol: file.name
        for file in files.values()
        for each in (
            *file.services_by_name.values(),
            *file.message_types_by_name.values(),
            *file.enum_types_by_name.values(),
        )
        for symbol in _symbols(each)
    }

    answers = await ask.all([pb.ServerReflectionRequest(file_containing_symbol=symbol) for symbol in symbols])

    found = {}
    for symbol, answer in zip(symbols, answers, strict=True):
        first = answer.file_descriptor_response.file_descriptor_proto[:1]
        found[symbol] = descriptor_pb2.FileDescriptorProto.FromString(first[0]).name if first else answer.error_response
        assert answer.original_request.file_containing_symbol == symbol
    assert found == symbols
    assert {"vecgate.v1.SearchService.SearchObjects", f"{HEALTH}.Check", f"{NAMES[0]}.ServerReflectionInfo"} <= set(
        found
    )
    assert "vecgate.v1.DataObject.ImagesEntry" in found, "nested messages are symbols"
    assert "grpc.health.v1.HealthCheckResponse.SERVING" in found, "values of nested enums are symbols"


def _symbols(each: ServiceDescriptor | Descriptor | EnumDescriptor) -> Iterator[str]:
    yield each.full_name
    if isinstance(each, ServiceDescriptor):
        yield from (method.full_name for method in each.methods)
    elif isinstance(each, EnumDescriptor):
        # A value is a sibling of its enum.
        scope = each.full_name.rpartition(".")[0]
        yield from (f"{scope}.{value.name}" for value in each.values)
    else:
        yield from (field.full_name for field in each.fields)
        yield from (oneof.full_name for oneof in each.oneofs)
        for inner in (*each.nested_types, *each.enum_types):
            yield from _symbols(inner)


async def test_the_details_of_errors_can_be_read(ask: Ask) -> None:
    for name in ("google.rpc.ErrorInfo", "google.rpc.BadRequest.FieldViolation", "vecgate.v1.ErrorReason"):
        assert (await ask.one(file_containing_symbol=name)).file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        ".",
        "vecgate.v1",
        "vecgate.v1.SearchService.Nothing",
        "vecgate.v1.Nothing.SearchObjects",
        "vecgate.v1.SearchService.SearchObjects.More",
        "vecgate.v1.SearchObjectsRequest.nothing",
        "Nothing",
    ],
)
async def test_an_unknown_symbol_is_not_found_and_the_stream_goes_on(ask: Ask, symbol: str) -> None:
    asked = [pb.ServerReflectionRequest(file_containing_symbol=each) for each in (symbol, HEALTH)]

    unknown, known = await ask.all(asked)

    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert known.file_descriptor_response.file_descriptor_proto


async def test_extensions_and_files_are_told(ask: Ask) -> None:
    by_name = await ask.one(file_by_filename="vecgate/v1/search_service.proto")
    no_file = await ask.one(file_by_filename="nothing.proto")
    numbers = await ask.one(all_extension_numbers_of_type="google.protobuf.MethodOptions")
    no_type = await ask.one(all_extension_numbers_of_type="vecgate.v1.SearchService.SearchObjects")

    assert by_name.file_descriptor_response.file_descriptor_proto
    assert no_file.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert numbers.all_extension_numbers_response.base_type_name == "google.protobuf.MethodOptions"
    assert no_type.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
