"""Nonsense in every message of the API and every HTTP body never makes the server fail."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import grpc
import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.messages import METHODS, bodies, messages, mutants
from tests.fakes.web import MODEL, running_web
from tests.service.conftest import Wire, start_wire, stop_wire
from vecgate.client import where
from vecgate.v1 import admin_service_pb2 as admin_pb
from vecgate.v1 import alias_pb2 as alias_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import evaluation_service_pb2 as evaluation_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1 import tenant_pb2 as tenant_pb
from vecgate.v1.input_pb2 import Image, Input

OURS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.CANCELLED}
"""Codes that no request may lead to."""

CALL_S = 60
ONE = str(UUID(int=1))
NAMED = collection_pb.VectorConfig(name="default", text_fields=[collection_pb.WeightedField(name="title", weight=1)])
SOUND: dict[str, Message] = {
    "CreateCollection": collection_pb.CreateCollectionRequest(
        collection=collection_pb.Collection(
            name="Other",
            properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
            vectors=[NAMED],
        )
    ),
    "UpdateCollection": collection_pb.UpdateCollectionRequest(
        collection=collection_pb.Collection(name="Pictures", description="seen"), update_mask={"paths": ["description"]}
    ),
    "BindVector": collection_pb.BindVectorRequest(
        collection="Pictures",
        vector={"embedder": "fake", "image_fields": [{"name": "image"}], "text_fields": [{"name": "title"}]},
    ),
    "GetCollection": collection_pb.GetCollectionRequest(name="Pictures"),
    "ListCollections": collection_pb.ListCollectionsRequest(page_size=1),
    "DeleteCollection": collection_pb.DeleteCollectionRequest(name="Pictures"),
    "CreateAlias": alias_pb.CreateAliasRequest(alias={"name": "Another", "collection": "Pictures"}),
    "GetAlias": alias_pb.GetAliasRequest(name="Current"),
    "ListAliases": alias_pb.ListAliasesRequest(collection="Pictures", page_size=1),
    "UpdateAlias": alias_pb.UpdateAliasRequest(alias={"name": "Current", "collection": "Shared"}),
    "DeleteAlias": alias_pb.DeleteAliasRequest(name="Current"),
    "CreateTenants": tenant_pb.CreateTenantsRequest(collection="Shared", tenants=[{"name": "more"}]),
    "ListTenants": tenant_pb.ListTenantsRequest(collection="Shared"),
    "UpdateTenants": tenant_pb.UpdateTenantsRequest(
        collection="Shared", tenants=[{"name": "one", "activity_status": 2}]
    ),
    "DeleteTenants": tenant_pb.DeleteTenantsRequest(collection="Shared", names=["one"]),
    "GetServerStatus": admin_pb.GetServerStatusRequest(),
    "EmbedInputs": embedding_pb.EmbedInputsRequest(
        inputs=[Input(text="a cat"), Input(image=Image(content=picture()))], purpose=1, truncate=True
    ),
    "ListEmbedders": embedding_pb.ListEmbeddersRequest(),
    "EvaluateCollection": evaluation_pb.EvaluateCollectionRequest(
        collection="Pictures", captions={"property": "title"}, systems=[{}, {"alpha": 0.5}], limit=3
    ),
    "ImportObjects": object_pb.ImportObjectsRequest(
        collection="Pictures",
        objects=[
            {"id": ONE, "images": {"image": Image(content=picture())}},
            {"vectors": {"default": {"data": bytes(32)}}},
        ],
    ),
    "ListObjects": object_pb.ListObjectsRequest(collection="Pictures", page_size=1),
    "UpdateObject": object_pb.UpdateObjectRequest(
        collection="Pictures", object=object_pb.DataObject(id=ONE, properties={"title": "a dog"})
    ),
    "DeleteObject": object_pb.DeleteObjectRequest(collection="Pictures", id=ONE),
    "DeleteObjects": object_pb.DeleteObjectsRequest(collection="Pictures", filters=where("title").equal("a cat")),
    "BackfillVectors": object_pb.BackfillVectorsRequest(collection="Pictures"),
    "CountMissingVectors": object_pb.CountMissingVectorsRequest(collection="Pictures"),
    "GetObject": object_pb.GetObjectRequest(collection="Pictures", id=ONE),
    "SearchObjects": search_pb.SearchObjectsRequest(
        collection="Pictures", near_text={"concepts": ["a cat"]}, limit=3, certainty=0.1
    ),
    "ProjectObjects": search_pb.ProjectObjectsRequest(
        collection="Pictures", inputs=[Input(text="a cat")], properties=["title"]
    ),
}
"""Requests that go well, one for every method."""
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
"""Requests for each method; where it is set, they are others in every run."""

A_FEW = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def fuzzed(runner: asyncio.Runner) -> Iterator[Wire]:
    wire = runner.run(start_wire())
    yield wire
    runner.run(stop_wire(wire))


async def make_ready(wire: Wire) -> None:
    """Have the collections that requests name, one of them of tenants, and an alias; and none of what requests make."""
    wire.store.aliases = {"Current": "Pictures"}
    there = set(wire.store._collections)
    if "Pictures" not in there:
        await wire.create_pictures()
    if UUID(ONE) not in wire.store._objects.get("Pictures", {}):
        cat = object_pb.DataObject(id=ONE, properties={"title": "a cat", "year": 2024})
        await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=[cat]))
    if "Shared" in there:
        await wire.collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name="Shared"))
    if "Other" in there:
        await wire.collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name="Other"))
    shared = collection_pb.Collection(name="Shared", vectors=[NAMED], multi_tenancy={"enabled": True})
    shared.properties.add(name="title", data_type=property_pb.DATA_TYPE_TEXT)
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=shared))
    await wire.collections.CreateTenants(tenant_pb.CreateTenantsRequest(collection="Shared", tenants=[{"name": "one"}]))


async def code_of(wire: Wire, method: MethodDescriptor, request: Any) -> grpc.StatusCode:
    """Call a method on a collection that is there, and return how it ended."""
    await make_ready(wire)
    assert method.containing_service is not None
    make = wire.channel.unary_stream if method.server_streaming else wire.channel.unary_unary
    call = make(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )(request, timeout=CALL_S)
    try:
        if method.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_request_is_the_servers_fault(fuzzed: Wire, runner: asyncio.Runner, method: MethodDescriptor) -> None:
    ended: Counter[grpc.StatusCode] = Counter()

    @A_FEW
    @given(st.one_of(messages(method.input_type), mutants(SOUND[method.name]), mutants(SOUND[method.name])))
    def send(request: Any) -> None:
        code = runner.run(code_of(fuzzed, method, request))
        ended[code] += 1
        assert code not in OURS

    # What lies behind the checks is reached only from a request that goes well.
    assert runner.run(code_of(fuzzed, method, SOUND[method.name])) is grpc.StatusCode.OK
    send()

    assert len(ended) > 1 or not method.input_type.fields, f"all of it ends at the same door: {ended}"


def test_no_body_is_the_http_servers_fault(runner: asyncio.Runner) -> None:
    as_json = bodies(MODEL).map(lambda body: json.dumps(body).encode("utf-8", "surrogatepass"))
    contents = st.one_of(as_json, as_json.map(lambda text: text[: len(text) // 2]), st.binary(max_size=200))

    async def post(url: str, content: bytes) -> int:
        async with httpx.AsyncClient(timeout=CALL_S) as http:
            return (await http.post(f"{url}/v1/embeddings", content=content)).status_code

    web = running_web(FakeEmbedder())
    running = runner.run(web.__aenter__())
    try:

        @A_FEW
        @given(contents)
        def send(content: bytes) -> None:
            assert runner.run(post(running.url, content)) < 500

        send()
    finally:
        runner.run(web.__aexit__(None, None, None))
