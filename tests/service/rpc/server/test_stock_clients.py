"""A client of gRPC that was told nothing takes answers of 4 MiB: what calls with their defaults return is shorter."""

from collections.abc import AsyncIterator

import grpc
import pytest

from service.rpc.shared.bounds import RequestLimits
from service.settings import LimitSettings
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Wire, start_wire, stop_wire
from vecgate.client import channel_options
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.input_pb2 import Input
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub

FOUR_MIB = 4 * 1024 * 1024
DIMENSION = 2048
LIMITS = RequestLimits.of(LimitSettings())
WORDY = "word " * 6_000
"""As long as a text may be that is embedded, nearly."""


@pytest.fixture
async def stock() -> AsyncIterator[Wire]:
    """A server with the default limits and a model of long vectors; its channel has gRPC's own options."""
    wire = await start_wire(FakeEmbedder(dimension=DIMENSION), limits=LIMITS)
    await wire.create_pictures()
    yield wire
    await stop_wire(wire)


async def import_all(wire: Wire, objects: list[object_pb.DataObject]) -> object_pb.ImportObjectsResponse:
    return await wire.objects.ImportObjects(
        object_pb.ImportObjectsRequest(collection="Pictures", objects=objects, truncate=True)
    )


async def test_as_many_vectors_as_one_call_may_ask_for_reach_a_stock_client(stock: Wire) -> None:
    inputs = [Input(text=f"text {number}") for number in range(LIMITS.max_inputs)]

    answer = await stock.embedding.EmbedInputs(embedding_pb.EmbedInputsRequest(inputs=inputs))

    assert {len(each.embedding.vector.data) for each in answer.results} == {4 * DIMENSION}
    assert FOUR_MIB * 0.95 < answer.ByteSize() < FOUR_MIB


async def test_an_import_in_which_every_object_fails_at_length_reaches_a_stock_client(stock: Wire) -> None:
    names = {f"unknown_{number}_{'x' * 300}": "x" for number in range(10)}
    wrong = object_pb.DataObject(
        id="no UUID" * 140, properties=names, vectors={name: {"data": b"123"} for name in names}
    )

    answer = await import_all(stock, [wrong] * LIMITS.max_objects)

    assert len(answer.results) == LIMITS.max_objects
    assert all(each.HasField("error") for each in answer.results)
    assert 1_000_000 < answer.ByteSize() < FOUR_MIB


async def test_pages_and_hits_of_the_default_size_reach_a_stock_client(stock: Wire) -> None:
    for start in range(0, 200, 20):
        made = [object_pb.DataObject(properties={"title": f"{number} {WORDY}"}) for number in range(start, start + 20)]
        answer = await import_all(stock, made)
        assert all(each.HasField("stored") for each in answer.results)

    found = await stock.search.SearchObjects(
        search_pb.SearchObjectsRequest(collection="Pictures", near_text={"concepts": ["a cat"]})
    )
    pages, seen, token = 0, set(), ""
    while pages == 0 or token:
        request = object_pb.ListObjectsRequest(
            collection="Pictures", output={"vectors": ["default"]}, page_size=LIMITS.max_hits, page_token=token
        )
        page = await stock.objects.ListObjects(request)
        pages, token = pages + 1, page.next_page_token
        seen |= {each.id for each in page.objects}
        assert page.ByteSize() < FOUR_MIB

    assert found.ByteSize() < FOUR_MIB
    assert (pages > 1, len(seen)) == (True, 200)


async def test_pictures_that_are_asked_for_need_a_client_that_takes_more(stock: Wire) -> None:
    for number in range(2):
        image = {"content": picture().ljust(3_000_000, bytes([number]))}
        answer = await import_all(stock, [object_pb.DataObject(images={"image": image})])
        assert answer.results[0].HasField("stored")
    request = object_pb.ListObjectsRequest(collection="Pictures", output={"images": ["image"]})

    code = await stock.objects.ListObjects(request).code()
    address = f"127.0.0.1:{stock.server.port}"
    async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        page = await ObjectServiceStub(channel).ListObjects(request)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (len(page.objects), page.next_page_token) == (2, "")


async def test_pages_of_large_schemas_reach_a_stock_client(stock: Wire) -> None:
    for number in range(20):
        properties = [
            property_pb.Property(name=f"p{at}", data_type=property_pb.DATA_TYPE_TEXT, description="d" * 4000)
            for at in range(100)
        ]
        collection = collection_pb.Collection(
            name=f"Wide{number:02d}", properties=properties, vectors=[collection_pb.VectorConfig(name="default")]
        )
        await stock.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))

    names, token, pages = [], "", 0
    while pages == 0 or token:
        page = await stock.collections.ListCollections(collection_pb.ListCollectionsRequest(page_token=token))
        pages, token = pages + 1, page.next_page_token
        names += [each.name for each in page.collections]
        assert page.ByteSize() < FOUR_MIB

    assert pages > 1
    assert names == ["Pictures", *(f"Wide{number:02d}" for number in range(20))]
