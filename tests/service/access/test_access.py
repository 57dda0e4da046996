"""Who may call what: every RPC and every HTTP route, with no key, a wrong one, one that may not, and one that may."""

import importlib
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from service.access.policy import HTTP_RULES, RULES
from service.domain import TenantActivity
from service.settings import AuthSettings
from service.web.bounds import WebBounds
from tests.fakes.clients import key_of, let_in
from tests.fakes.web import MODEL, Web, running_web
from tests.service.conftest import Failure, Wire, over_every_wire, start_wire, stop_wire, unpack
from vecgate import v1
from vecgate.v1 import collection_service_pb2
from vecgate.v1 import tenant_pb2 as tenant_pb

MODULES = [
    importlib.import_module(f"vecgate.v1.{each.name}")
    for each in pkgutil.iter_modules(v1.__path__)
    if each.name.endswith("_pb2")
]
METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
PERMISSIONS = ("embed", "search", "write", "admin")
NEEDED: dict[str, Sequence[str]] = {
    "EmbeddingService/EmbedInputs": ["embed"],
    "EmbeddingService/ListEmbedders": PERMISSIONS,
    "AdminService/GetServerStatus": ["admin"],
    "EvaluationService/EvaluateCollection": ["admin"],
    "CollectionService/CreateCollection": ["admin"],
    "CollectionService/UpdateCollection": ["admin"],
    "CollectionService/BindVector": ["admin"],
    "CollectionService/DeleteCollection": ["admin"],
    "CollectionService/GetCollection": ["search", "write", "admin"],
    "CollectionService/ListCollections": ["search", "write", "admin"],
    "CollectionService/CreateTenants": ["admin"],
    "CollectionService/UpdateTenants": ["admin"],
    "CollectionService/DeleteTenants": ["admin"],
    "CollectionService/ListTenants": ["search", "write", "admin"],
    "CollectionService/CreateAlias": ["admin"],
    "CollectionService/UpdateAlias": ["admin"],
    "CollectionService/DeleteAlias": ["admin"],
    "CollectionService/GetAlias": ["search", "write", "admin"],
    "CollectionService/ListAliases": ["search", "write", "admin"],
    "ObjectService/ImportObjects": ["write"],
    "ObjectService/UpdateObject": ["write"],
    "ObjectService/DeleteObject": ["write"],
    "ObjectService/DeleteObjects": ["write"],
    "ObjectService/BackfillVectors": ["write"],
    "ObjectService/CountMissingVectors": ["search", "write", "admin"],
    "ObjectService/GetObject": ["search"],
    "ObjectService/ListObjects": ["search"],
    "SearchService/SearchObjects": ["search"],
    "SearchService/ProjectObjects": ["search"],
}
"""What each RPC needs, written down a second time."""

ROUTES: dict[tuple[str, str], Sequence[str]] = {
    ("POST", "/v1/embeddings"): ["embed"],
    ("GET", "/v1/models"): PERMISSIONS,
    ("GET", f"/v1/models/{MODEL}"): PERMISSIONS,
    ("GET", "/v1/metadata"): PERMISSIONS,
    ("GET", "/v1/manifest"): PERMISSIONS,
    ("GET", "/v1/license"): PERMISSIONS,
    ("GET", "/v1/version"): PERMISSIONS,
    ("GET", "/openapi.json"): PERMISSIONS,
}
OPEN_ROUTES = ("/v1/health/live", "/v1/health/ready", "/metrics")
REFUSED = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)


@pytest.fixture
def auth(tmp_path: Path) -> AuthSettings:
    clients = {name: f'permissions = ["{name}"]' for name in PERMISSIONS}
    clients["limited"] = f'permissions = {list(PERMISSIONS)}\ncollections = ["Mine*"]\ntenants = ["ours-*"]'.replace(
        "'", '"'
    )
    return let_in(tmp_path / "clients.toml", **clients)


@pytest.fixture
async def guarded(auth: AuthSettings, transport: str) -> AsyncIterator[Wire]:
    wire = await start_wire(auth=auth)
    yield wire
    await stop_wire(wire)


@pytest.fixture
async def web(auth: AuthSettings) -> AsyncIterator[Web]:
    async with running_web(auth=auth) as running:
        yield running


def request_for(method: MethodDescriptor, collection: str, tenant: str = "") -> Message:
    """Return a request that names a collection and a tenant wherever it can."""
    request = GetMessageClass(method.input_type)()
    fields = method.input_type.fields_by_name
    if "collection" in fields:
        if fields["collection"].message_type is None:
            request.collection = collection
        else:
            request.collection.name = collection
    elif "name" in fields:
        request.name = collection
    elif "alias" in fields:
        request.alias.name = request.alias.collection = collection
    if tenant and "tenant" in fields:
        request.tenant = tenant
    if tenant and "scope" in fields:
        request.scope.tenant = tenant
    if tenant and "tenants" in fields:
        request.tenants.add(name=tenant)
    if tenant and "names" in fields:
        request.names.append(tenant)
    return request


async def call(wire: Wire, name: str, request: Message, *metadata: tuple[str, str]) -> Failure | None:
    """Make a call, and return how it failed; None when it did not."""
    method = METHODS[name]
    kind = wire.channel.unary_stream if method.server_streaming else wire.channel.unary_unary
    made = kind(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )(request, metadata=metadata)
    try:
        if method.server_streaming:
            async for _ in made:
                pass
        else:
            await made
    except grpc.aio.AioRpcError as error:
        return unpack(error)
    return None


def bearer(client: str) -> tuple[str, str]:
    return "authorization", f"Bearer {key_of(client)}"


def test_every_rpc_has_its_rule_and_its_row_here() -> None:
    assert METHODS.keys() <= RULES.keys()
    assert METHODS.keys() == NEEDED.keys()


@over_every_wire
@pytest.mark.parametrize("name", METHODS)
async def test_every_rpc_needs_a_key_with_its_permission(guarded: Wire, name: str) -> None:
    request = request_for(METHODS[name], "Mine")

    without = await call(guarded, name, request)
    wrong = await call(guarded, name, request, ("authorization", "Bearer guessed"))
    assert without is not None
    assert (without.code, without.reason) == (StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING")
    assert wrong is not None
    assert (wrong.code, wrong.reason) == (StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    for permission in PERMISSIONS:
        before = len(guarded.store.calls)
        failure = await call(guarded, name, request, bearer(permission))
        if permission in NEEDED[name]:
            assert failure is None or failure.code not in REFUSED, permission
        else:
            assert failure is not None
            assert (failure.code, failure.reason) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
            assert all(each in failure.message for each in NEEDED[name])
            assert len(guarded.store.calls) == before


@over_every_wire
@pytest.mark.parametrize("name", [each for each in METHODS if request_for(METHODS[each], "x").ByteSize()])
async def test_another_clients_collection_or_tenant_is_refused_whether_it_is_there_or_not(
    guarded: Wire, name: str
) -> None:
    method = METHODS[name]

    theirs = await call(guarded, name, request_for(method, "Theirs"), bearer("limited"))
    assert theirs is not None
    assert (theirs.code, theirs.reason) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert "Theirs" in theirs.message
    for spelling in ("Mine", "mineToo"):
        own = await call(guarded, name, request_for(method, spelling, "ours-1"), bearer("limited"))
        assert own is None or own.code not in REFUSED or "some tenants only" in own.message
    if request_for(method, "Mine") != request_for(method, "Mine", "theirs"):
        tenant = await call(guarded, name, request_for(method, "Mine", "theirs"), bearer("limited"))
        assert tenant is not None
        assert tenant.code is StatusCode.PERMISSION_DENIED
        assert "theirs" in tenant.message


@over_every_wire
@pytest.mark.parametrize(
    "name",
    [
        "CollectionService/DeleteCollection",
        "CollectionService/UpdateCollection",
        "CollectionService/BindVector",
        "CollectionService/CreateAlias",
        "CollectionService/UpdateAlias",
        "CollectionService/DeleteAlias",
    ],
)
async def test_who_may_touch_some_tenants_only_may_not_touch_all_of_them_at_once(guarded: Wire, name: str) -> None:
    failure = await call(guarded, name, request_for(METHODS[name], "Mine"), bearer("limited"))
    everyone = await call(guarded, name, request_for(METHODS[name], "Mine"), bearer("admin"))

    assert failure is not None
    assert (failure.code, failure.reason) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert "some tenants only" in failure.message
    assert everyone is None or everyone.code not in REFUSED


@over_every_wire
async def test_what_a_stranger_sends_is_not_read(guarded: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await guarded.channel.unary_unary("/vecgate.v1.EmbeddingService/EmbedInputs")(b"\xff is not a message")

    assert unpack(caught.value).reason == "CREDENTIALS_MISSING"


@over_every_wire
async def test_a_list_shows_what_the_client_may_touch(guarded: Wire) -> None:
    stub = guarded.collections
    for name in ("Mine", "MineToo", "Theirs"):
        await stub.CreateCollection(
            collection_service_pb2.CreateCollectionRequest(
                collection={"name": name, "vectors": [{"name": "default"}], "multi_tenancy": {"enabled": True}}
            ),
            metadata=(bearer("admin"),),
        )
        guarded.store.tenants[name] = dict.fromkeys(("ours-1", "theirs"), TenantActivity.ACTIVE)

    listed = await stub.ListCollections(
        collection_service_pb2.ListCollectionsRequest(page_size=1), metadata=(bearer("limited"),)
    )
    more = await stub.ListCollections(
        collection_service_pb2.ListCollectionsRequest(page_size=2, page_token=listed.next_page_token),
        metadata=(bearer("limited"),),
    )
    everything = await stub.ListCollections(
        collection_service_pb2.ListCollectionsRequest(), metadata=(bearer("search"),)
    )
    tenants = await stub.ListTenants(tenant_pb.ListTenantsRequest(collection="Mine"), metadata=(bearer("limited"),))

    assert [each.name for page in (listed, more) for each in page.collections] == ["Mine", "MineToo"]
    assert not more.next_page_token
    assert [each.name for each in everything.collections] == ["Mine", "MineToo", "Theirs"]
    assert [each.name for each in tenants.tenants] == ["ours-1"]


@over_every_wire
@pytest.mark.parametrize("open_", [True, False])
async def test_health_and_reflection_have_their_own_switches(auth: AuthSettings, *, open_: bool) -> None:
    switched = auth.model_copy(update={"without_key": ["health", "reflection"] if open_ else []})
    wire = await start_wire(auth=switched)
    health = health_pb2_grpc.HealthStub(wire.channel)

    def reflect(version: str) -> Callable[..., Awaitable[Any]]:
        method = wire.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")

        async def ask(*metadata: tuple[str, str]) -> Any:
            request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
            return await anext(aiter(method(iter([request]), metadata=metadata)))

        return ask

    async def check(*metadata: tuple[str, str]) -> Any:
        return await health.Check(health_pb2.HealthCheckRequest(), metadata=metadata)

    async def watch(*metadata: tuple[str, str]) -> Any:
        return await anext(aiter(health.Watch(health_pb2.HealthCheckRequest(), metadata=metadata)))

    for ask in (reflect("v1"), reflect("v1alpha"), check, watch):
        await ask(bearer("embed"))
        if open_:
            await ask()
            await ask(("authorization", "Bearer guessed"))
        else:
            for metadata in ((), (("authorization", "Bearer guessed"),)):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(*metadata)
                assert caught.value.code() is StatusCode.UNAUTHENTICATED
    await stop_wire(wire)


@over_every_wire
async def test_two_keys_in_one_call_are_no_key(guarded: Wire) -> None:
    name = "EmbeddingService/ListEmbedders"
    failure = await call(guarded, name, request_for(METHODS[name], ""), bearer("embed"), bearer("admin"))
    assert failure is not None
    assert failure.reason == "CREDENTIALS_MISSING"


async def ask_web(web: Web, method: str, path: str, client: str | None, **options: Any) -> httpx.Response:
    headers = {} if client is None else dict([bearer(client)])
    body = {"json": {"model": MODEL, "input": "a cat"}} if method == "POST" else {}
    async with httpx.AsyncClient() as http:
        # As one string: of a path that is joined to an address, httpx takes "//v1" for the name of a host.
        return await http.request(method, f"{web.url}{path}", headers=headers, **body, **options)


def test_every_route_has_its_row_here() -> None:
    paths = {path.replace("{model}", MODEL) for path in _paths()}
    assert paths == {path for _, path in ROUTES} | set(OPEN_ROUTES)
    assert {path.replace("{model}", MODEL) for path in HTTP_RULES} == paths


async def test_a_route_without_a_rule_is_open_to_nobody(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(HTTP_RULES, "/v1/version")
    answer = await ask_web(web, "GET", "/v1/version", "admin")
    assert (answer.status_code, "has no rule" in answer.text) == (httpx.codes.FORBIDDEN, True)


@pytest.mark.parametrize("path", ["//v1/embeddings", "/v1/%65mbeddings", "/v1/embeddings%0A", "/v1/embeddings/"])
async def test_no_spelling_of_a_path_gets_around_its_permission(web: Web, path: str) -> None:
    answer = await ask_web(web, "POST", path, "search")
    assert answer.status_code in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND)
    assert answer.json()["error"]["code"] in ("permission_denied", "path_not_found")


def _paths() -> set[str]:
    from service.core.embedder_pool import EmbedderPool
    from service.settings import WebSettings
    from service.web.endpoint import Endpoint

    endpoint = Endpoint(WebSettings(), WebBounds(), EmbedderPool([], check_interval_s=1), AuthSettings())
    return set(endpoint.routes) - endpoint.open_paths


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_every_route_needs_a_key_with_its_permission(web: Web, route: tuple[str, str]) -> None:
    for client in (None, "guessed"):
        assert (await ask_web(web, *route, client)).status_code == httpx.codes.UNAUTHORIZED
        assert (await ask_web(web, route[0], f"/{route[1]}", client)).status_code == httpx.codes.UNAUTHORIZED
    web.embedder.calls.clear()
    for permission in PERMISSIONS:
        answer = await ask_web(web, *route, permission)
        if permission in ROUTES[route]:
            assert answer.status_code == httpx.codes.OK, answer.text
        else:
            assert answer.status_code == httpx.codes.FORBIDDEN
            assert answer.json()["error"]["code"] == "permission_denied"
    assert len(web.embedder.calls) == (1 if route[0] == "POST" else 0)


@pytest.mark.parametrize("path", OPEN_ROUTES)
async def test_health_and_metrics_of_http_have_their_own_switches(auth: AuthSettings, path: str) -> None:
    for open_ in (True, False):
        switched = auth.model_copy(update={"without_key": ["health", "metrics"] if open_ else []})
        async with running_web(auth=switched) as web:
            without = await ask_web(web, "GET", path, None)
            with_key = await ask_web(web, "GET", path, "search")
        assert without.status_code == (httpx.codes.OK if open_ else httpx.codes.UNAUTHORIZED)
        assert with_key.status_code == httpx.codes.OK


async def test_what_is_no_route_is_told_to_clients_alone(web: Web) -> None:
    assert (await ask_web(web, "GET", "/admin", None)).status_code == httpx.codes.UNAUTHORIZED
    assert (await ask_web(web, "GET", "/admin", "embed")).status_code == httpx.codes.NOT_FOUND
