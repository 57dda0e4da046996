"""A real gRPC server on a free port over a store and an embedder in memory, and a real channel to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import boto3
import grpc
import pytest
from click.testing import Result
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from embedders.contract import InputLimits
from service.access import Authenticator
from service.cli import app
from service.core.embedder_pool import EmbedderPool
from service.core.objects import writing
from service.core.pictures import NO_PICTURES, Pictures
from service.core.reranker_pool import RerankerPool
from service.rpc.connect.application import ConnectApplication
from service.rpc.server.server import GrpcServer
from service.rpc.shared.bounds import RequestLimits
from service.settings import AuthSettings, LimitSettings, ServerSettings, WebSettings
from service.sources import storage
from service.web.server import WebServer
from tests.fakes.embedder import FakeEmbedder, watched
from tests.fakes.http_channel import WIRES, HttpChannel
from tests.fakes.reranker import FakeReranker
from tests.fakes.server import FakeVecgate, serving
from tests.fakes.store import FakeStore
from vecgate.client import Client, Object
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

PNG = b"\x89PNG\r\n\x1a\n picture"

ALL_WIRES = ("grpc", *WIRES)
over_every_wire = pytest.mark.parametrize("transport", ALL_WIRES, indirect=True)
"""Runs a test once for each way of a call."""

over_binary_wires = pytest.mark.parametrize("transport", ["grpc", "connect-binary", "grpc-web"], indirect=True)
_transport = "grpc"

Run = Callable[..., Result]
"""Runs a command of the command line."""

LIMITS = replace(
    RequestLimits.of(LimitSettings(max_inputs=50, max_objects=20, max_hits=100)),
    max_filter_depth=4,
    max_filter_nodes=20,
)


class Wire:
    """A running server, what is behind it, and stubs that talk to it."""

    def __init__(
        self,
        server: GrpcServer,
        store: FakeStore,
        embedders: Sequence[FakeEmbedder],
        pool: EmbedderPool,
        rerankers: RerankerPool,
        web: WebServer,
        api: ConnectApplication,
        over: str,
    ) -> None:
        self.server = server
        self.web = web
        self.api = api
        self.over = over
        self.store = store
        self.embedder = embedders[0]
        self.embedders = embedders
        self.pool = pool
        self.rerankers = rerankers
        self.channel: Any = (
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") if over == "grpc" else HttpChannel(web.address, over)
        )
        self.embedding = EmbeddingServiceStub(self.channel)
        self.collections = CollectionServiceStub(self.channel)
        self.objects = ObjectServiceStub(self.channel)
        self.search = SearchServiceStub(self.channel)
        self.evaluation = EvaluationServiceStub(self.channel)

    async def create_pictures(self, **vector: object) -> None:
        """Create a collection Pictures with an image, a title, a year, and one named vector over image and title."""
        config = {"name": "default", "image_fields": [{"name": "image"}], "text_fields": [{"name": "title"}], **vector}
        await self.collections.CreateCollection(
            collection_pb.CreateCollectionRequest(
                collection=collection_pb.Collection(
                    name="Pictures",
                    properties=[
                        property_pb.Property(name="image", data_type=property_pb.DATA_TYPE_BLOB),
                        property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
                        property_pb.Property(name="tags", data_type=property_pb.DATA_TYPE_TEXT_ARRAY),
                        property_pb.Property(name="year", data_type=property_pb.DATA_TYPE_INT),
                        property_pb.Property(name="taken", data_type=property_pb.DATA_TYPE_DATE),
                        property_pb.Property(name="place", data_type=property_pb.DATA_TYPE_GEO_COORDINATES),
                    ],
                    vectors=[collection_pb.VectorConfig(**config)],
                )
            )
        )


@dataclass
class Failure:
    """A failed call or item, unpacked."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    fields: list[str]
    reasons: list[str]
    retry_s: float | None
    quota: list[tuple[str, str]]
    request_id: str


def unpack(error: grpc.aio.AioRpcError | status_pb2.Status) -> Failure:
    """Unpack a status and its details; each kind of detail stands there at most once."""
    status = error if isinstance(error, status_pb2.Status) else rpc_status.from_call(error)
    assert status is not None, f"no details: {error}"
    kinds = [detail.TypeName() for detail in status.details]
    assert len(kinds) == len(set(kinds))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry, request = error_details_pb2.RetryInfo(), error_details_pb2.RequestInfo()
    quota = error_details_pb2.QuotaFailure()
    found = {
        type(each) for detail in status.details for each in (info, bad, retry, request, quota) if detail.Unpack(each)
    }
    assert info.domain == "vecgate"
    return Failure(
        next(code for code in grpc.StatusCode if code.value[0] == status.code),
        status.message,
        info.reason,
        dict(info.metadata),
        [violation.field for violation in bad.field_violations],
        [violation.reason for violation in bad.field_violations],
        retry.retry_delay.ToTimedelta().total_seconds() if error_details_pb2.RetryInfo in found else None,
        [(violation.subject, violation.quota_id) for violation in quota.violations],
        request.request_id,
    )


async def failure_of(call: "Awaitable[object]") -> Failure:
    """Await a call that must fail, and unpack its status."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return unpack(caught.value)


async def code_of(call: "Awaitable[object]") -> grpc.StatusCode:
    """Await a call that must fail, and return its code: one whose time is up may end before the server says why."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def out_of_time(call: "Callable[[float], Awaitable[object]]", begun: asyncio.Event) -> grpc.StatusCode:
    """Make a call that has so many seconds, and runs out of them once it has begun something; return its code.

    A machine that is busy may not come that far within little time: then it has more.
    """
    for seconds in (0.3, 3, 30):
        code = await code_of(call(seconds))
        if begun.is_set():
            break
    return code


async def start_wire(
    *embedders: FakeEmbedder,
    server: ServerSettings | None = None,
    auth: AuthSettings | None = None,
    allow_caller_keys: bool = False,
    store: FakeStore | None = None,
    chunk_objects: int = 3,
    limits: RequestLimits = LIMITS,
    rerankers: Sequence[Sequence[FakeReranker]] = (),
    replicas: Mapping[str, Sequence[str]] | None = None,
    web: WebSettings | None = None,
    pictures: Pictures = NO_PICTURES,
) -> Wire:
    """Start a server over fakes, for stop_wire to end. Its stubs talk to it as the fixture `transport` says."""
    over = _transport
    store = store or FakeStore()
    fakes = embedders or (FakeEmbedder(limits=InputLimits(max_image_bytes=100_000), max_text_tokens=8),)
    pool = EmbedderPool([watched(each) for each in fakes], replicas=replicas, check_interval_s=60)
    await pool.start()
    await pool.first_checks()
    reranking = RerankerPool(rerankers, check_interval_s=60)
    await reranking.start()
    await reranking.first_checks()
    settings = server or ServerSettings(port=0, drain_grace_s=5)
    authenticator = Authenticator(auth or AuthSettings())
    running = GrpcServer(
        settings,
        limits,
        store=store,
        embedders=pool,
        rerankers=reranking,
        authenticator=authenticator,
        allow_caller_keys=allow_caller_keys,
        chunk_objects=chunk_objects,
        pictures=pictures,
    )
    await running.start()
    http = WebServer(web or WebSettings(port=0), settings, embedders=pool, authenticator=authenticator)
    api = ConnectApplication(running.methods, settings.max_request_bytes, limits)
    http.calls.serve(api)
    if over != "grpc":
        await http.start()
    return Wire(running, store, fakes, pool, reranking, http, api, over)


async def stop_wire(wire: Wire) -> None:
    """End a server, and see that each of its calls has given back what it counted as."""
    await wire.channel.close()
    await asyncio.gather(wire.server.stop(), wire.web.stop())
    wire.api.close()
    await wire.pool.close()
    await wire.rerankers.close()
    calls = wire.server._calls
    assert (calls._in_flight, calls._bounded, calls._bytes) == (0, 0, 0), "calls, bounded calls and bytes in flight"


@pytest.fixture(autouse=True)
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """The way of the test's calls: gRPC, unless the test is run for others, too."""
    global _transport  # noqa: PLW0603  # what tests start asks for it
    _transport = getattr(request, "param", "grpc")
    yield _transport
    _transport = "grpc"


@pytest.fixture(autouse=True)
def _writes_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was cut off comes late in a store in memory."""
    monkeypatch.setattr(writing, "LATE_S", 0.05)


@pytest.fixture
async def wire(transport: str) -> AsyncIterator[Wire]:
    """A server with one embedder."""
    running = await start_wire()
    yield running
    await stop_wire(running)


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        yield running


@pytest.fixture
def run(fake: FakeVecgate) -> Run:
    return lambda *arguments, **more: CliRunner().invoke(app, ["--address", fake.address, *arguments], **more)


@pytest.fixture
def pictures(fake: FakeVecgate) -> FakeVecgate:
    """Three pictures in a collection."""
    fake.add_collection("Pictures", image=property_pb.DATA_TYPE_BLOB, name=property_pb.DATA_TYPE_TEXT)
    names = ("red [car]", "../../etc/passwd", "dog")
    objects = [
        Object({"name": name, "year": 2020 + n}, {"image": PNG}, id=str(UUID(int=n))) for n, name in enumerate(names)
    ]
    with Client(fake.address) as client:
        assert all(outcome.stored for outcome in client.import_objects("Pictures", objects))
    return fake


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a server that speaks S3."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket, with the environment by which its files are found."""
    variables = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3,
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    storage.store_of.cache_clear()
    bucket = boto3.resource("s3", region_name="us-east-1", endpoint_url=s3).create_bucket(Bucket="pictures")
    yield bucket
    bucket.objects.delete()
    bucket.delete()
    storage.store_of.cache_clear()
