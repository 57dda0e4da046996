"""Who may do what: every RPC and every HTTP route, for strangers and for clients with and without the permission."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest
import structlog
from google.protobuf import descriptor, message_factory
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from starlette.routing import Route

from service.auth.clients import Permission
from service.auth.gate import Gate
from service.auth.keys import hash_key
from service.auth.rules import METHODS, ROUTES, Rule
from service.settings import AuthSettings
from service.web.calls import HEALTH, OTHER
from tests.fakes.clients import ALL, NONE, ONE_TENANT, SHOP, SOME, bearer, clients_file
from tests.fakes.web import MODEL, running_web
from tests.wire.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.input_pb2 import Input

MODULES = (collection_pb, embedding_pb, object_pb, search_pb)
RPCS = {
    f"{service.full_name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
TAKES = {
    "EmbedInputs": "embed",
    "ListEmbedders": "",
    "CreateCollection": "admin",
    "GetCollection": "search write admin",
    "ListCollections": "search write admin",
    "UpdateCollection": "admin",
    "DeleteCollection": "admin",
    "CreateTenants": "admin",
    "ListTenants": "search write admin",
    "UpdateTenants": "admin",
    "DeleteTenants": "admin",
    "ImportObjects": "write",
    "GetObject": "search",
    "ListObjects": "search",
    "UpdateObject": "write",
    "DeleteObject": "write",
    "DeleteObjects": "write",
    "BackfillVectors": "write",
    "SearchObjects": "search",
}
"""The permissions of which each RPC takes one. A new RPC has to be thought about here, and in service.auth.rules."""

ROUTES_TAKE = {
    "/v1/embeddings": "embed",
    "/v1/models": "",
    "/v1/models/{model}": "",
    "/v1/metadata": "",
    "/v1/version": "",
    "/openapi.json": "",
    "/metrics": "",
    OTHER: "",
}


def request_for(method: descriptor.MethodDescriptor, collection: str, tenant: str = "") -> Any:
    """Return a request that names a collection, and tenants if it can name some."""
    request = message_factory.GetMessageClass(method.input_type)()
    rule = METHODS[f"{method.containing_service.full_name}/{method.name}"]
    if rule.collection:
        put(request, rule.collection, collection)
    if rule.tenants and tenant:
        put(request, rule.tenants, tenant)
    return request


def put(message: Any, path: str, value: str) -> None:
    name, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[name]
    if rest:
        put(getattr(message, name).add() if field.is_repeated else getattr(message, name), rest, value)
    elif field.is_repeated:
        getattr(message, name).append(value)
    else:
        setattr(message, name, value)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Wire]:
    """A server that asks who calls."""
    running = await start_wire(gate=Gate(AuthSettings(keys_file=clients_file(tmp_path))))
    yield running
    await stop_wire(running)


async def reason_of(wire: Wire, name: str, request: Any, metadata: tuple[tuple[str, str], ...]) -> str:
    """Return why an RPC refused who called; empty if it did not, whatever else became of it."""
    method = RPCS[name]
    answer = message_factory.GetMessageClass(method.output_type)
    call = wire.channel.unary_unary(f"/{name}", type(request).SerializeToString, answer.FromString)
    try:
        await call(request, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        assert error.code() is not StatusCode.INTERNAL, error
        if error.code() not in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED):
            return ""
    else:
        return ""
    return (await failure_of(call(request, metadata=metadata))).reason


def test_every_rpc_and_every_route_is_in_the_table_and_in_the_matrix() -> None:
    assert RPCS.keys() <= METHODS.keys()
    assert {name.rpartition("/")[2] for name in METHODS} == TAKES.keys()
    assert ROUTES.keys() == ROUTES_TAKE.keys()


async def test_every_route_that_is_served_is_in_the_table() -> None:
    async with running_web() as web:
        paths = [route.path for route in web.server._endpoint.router.routes if isinstance(route, Route)]

    assert {path.replace("{model:path}", "{model}") for path in paths} - HEALTH == ROUTES.keys() - {OTHER}


@pytest.mark.parametrize("name", RPCS)
def test_whatever_names_a_collection_or_a_tenant_is_held_to_it(name: str) -> None:
    def named(message: descriptor.Descriptor, wanted: str) -> Iterator[str]:
        return (field.name for field in message.fields if field.name in (wanted, f"{wanted}s"))

    rule = METHODS[name]
    collections = list(named(RPCS[name].input_type, "collection"))
    tenants = list(named(RPCS[name].input_type, "tenant"))

    assert [rule.collection.partition(".")[0]] == collections if collections else True
    assert [rule.tenants.partition(".")[0]] == tenants if tenants else True
    assert rule.collection or not rule.tenants


@pytest.mark.parametrize("name", RPCS)
async def test_strangers_may_call_no_rpc(guarded: Wire, name: str) -> None:
    request = request_for(RPCS[name], "Pictures")

    reasons = [
        await reason_of(guarded, name, request, metadata)
        for metadata in (
            (),
            (("authorization", "Basic eDp5"),),
            bearer("another-key"),
            bearer(hash_key(ALL)),
            (*bearer(ALL), *bearer("another-key")),
            (("x-api-key", "another-key"),),
        )
    ]

    assert reasons == ["API_KEY_MISSING"] * 2 + ["API_KEY_INVALID"] * 4


@pytest.mark.parametrize("name", RPCS)
async def test_each_rpc_takes_its_permission_and_no_other(guarded: Wire, name: str) -> None:
    takes = TAKES[name.rpartition("/")[2]].split()
    request = request_for(RPCS[name], "Pictures")

    reasons = {
        key: await reason_of(guarded, name, request, metadata)
        for key, metadata in [
            *((key, bearer(key)) for key in (*SOME.values(), ALL, NONE)),
            ("x", (("x-api-key", ALL),)),
        ]
    }

    let_in = {SOME[Permission(each)] for each in takes} | {ALL, "x"} if takes else reasons.keys()
    assert reasons == {key: "" if key in let_in else "PERMISSION_DENIED" for key in reasons}


@pytest.mark.parametrize("name", [name for name in RPCS if METHODS[name].collection])
async def test_a_client_reaches_its_own_collections_alone(guarded: Wire, name: str) -> None:
    reasons = [
        await reason_of(guarded, name, request_for(RPCS[name], collection), bearer(SHOP))
        for collection in ("Shop", "ShopPictures", "shopPictures", "Pictures", "AShop", "")
    ]

    assert reasons == ["", "", "", *["COLLECTION_DENIED"] * 3]


@pytest.mark.parametrize("name", [name for name in RPCS if METHODS[name].tenants or METHODS[name].all_tenants])
async def test_a_client_reaches_its_own_tenants_alone(guarded: Wire, name: str) -> None:
    rule = METHODS[name]

    own, other, none = [
        await reason_of(guarded, name, request_for(RPCS[name], "Pictures", tenant), bearer(ONE_TENANT))
        for tenant in ("mine-1", "theirs", "")
    ]

    assert none == ("TENANT_DENIED" if rule.all_tenants else "")
    if rule.tenants:
        assert (own, other) == ("", "TENANT_DENIED")


async def test_lists_leave_out_what_a_client_may_not_use(guarded: Wire) -> None:
    for collection in ("Pictures", "ShopOne", "ShopTwo"):
        draft = collection_pb.Collection(
            name=collection,
            multi_tenancy=collection_pb.MultiTenancyConfig(enabled=True),
            vectors=[collection_pb.VectorConfig(name="default")],
        )
        await guarded.collections.CreateCollection(
            collection_pb.CreateCollectionRequest(collection=draft), metadata=bearer(ALL)
        )
    names = ("mine-1", "mine-2", "theirs")
    await guarded.collections.CreateTenants(
        collection_pb.CreateTenantsRequest(
            collection="Pictures", tenants=[collection_pb.Tenant(name=name) for name in names]
        ),
        metadata=bearer(ALL),
    )

    async def collections(key: str, **more: Any) -> list[str]:
        request = collection_pb.ListCollectionsRequest(**more)
        return [
            each.name for each in (await guarded.collections.ListCollections(request, metadata=bearer(key))).collections
        ]

    async def tenants(key: str) -> list[str]:
        request = collection_pb.ListTenantsRequest(collection="Pictures")
        return [each.name for each in (await guarded.collections.ListTenants(request, metadata=bearer(key))).tenants]

    assert await collections(ALL) == ["Pictures", "ShopOne", "ShopTwo"]
    assert await collections(SHOP) == ["ShopOne", "ShopTwo"]
    assert await collections(SHOP, page_size=1) == ["ShopOne"]
    assert await tenants(ALL) == list(names)
    assert await tenants(ONE_TENANT) == ["mine-1", "mine-2"]


async def test_a_refusal_says_who_may_not_do_what_and_the_log_names_the_client_but_no_key(guarded: Wire) -> None:
    request = embedding_pb.EmbedInputsRequest(inputs=[Input(text="a cat")])
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        denied = await failure_of(guarded.embedding.EmbedInputs(request, metadata=bearer(SOME[Permission.SEARCH])))
        await guarded.embedding.EmbedInputs(request, metadata=bearer(SOME[Permission.EMBED]))
        stranger = await failure_of(guarded.embedding.EmbedInputs(request, metadata=bearer("another-key")))
        elsewhere = await failure_of(
            guarded.search.SearchObjects(search_pb.SearchObjectsRequest(collection="Pictures"), metadata=bearer(SHOP))
        )

    assert denied.metadata == {"client": "only-search", "permission": "embed"}
    assert elsewhere.metadata == {"client": "shop", "collection": "Pictures"}
    assert stranger.metadata == {}
    calls = [line for line in lines if line["event"] == "call"]
    assert [line.get("client") for line in calls] == ["only-search", "only-embed", None, "shop"]
    assert [line["code"] for line in calls] == ["PERMISSION_DENIED", "OK", "UNAUTHENTICATED", "PERMISSION_DENIED"]
    assert "key" not in str(lines)


@pytest.mark.parametrize("opened", [True, False])
async def test_health_and_reflection_have_switches_of_their_own(tmp_path: Path, *, opened: bool) -> None:
    settings = AuthSettings(keys_file=clients_file(tmp_path), open_health=opened, open_reflection=opened)
    wire = await start_wire(gate=Gate(settings))
    check = health_pb2.HealthCheckRequest(service="liveness")
    ask = reflection_pb2.ServerReflectionRequest(list_services="")

    async def outcome(call: Callable[..., Any], metadata: Any) -> StatusCode:
        made = call(metadata)
        try:
            await (anext(aiter(made)) if hasattr(made, "__aiter__") else made)
        except grpc.aio.AioRpcError as error:
            return error.code()
        made.cancel()
        return StatusCode.OK

    health, reflection = HealthStub(wire.channel), ServerReflectionStub(wire.channel)
    calls: tuple[Callable[..., Any], ...] = (
        lambda metadata: health.Check(check, metadata=metadata),
        lambda metadata: health.Watch(check, metadata=metadata),
        lambda metadata: reflection.ServerReflectionInfo(iter([ask]), metadata=metadata),
    )
    strangers = [await outcome(call, ()) for call in calls]
    clients = [await outcome(call, bearer(NONE)) for call in calls]
    await stop_wire(wire)

    assert strangers == [StatusCode.OK if opened else StatusCode.UNAUTHENTICATED] * 3
    assert clients == [StatusCode.OK] * 3


async def ask_http(url: str, path: str, headers: dict[str, str]) -> int:
    body = {"model": MODEL, "input": "a cat"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        return (await (http.post(path, json=body) if "embeddings" in path else http.get(path))).status_code


@pytest.mark.parametrize("route", ROUTES_TAKE)
async def test_each_route_takes_a_key_and_its_permission(tmp_path: Path, route: str) -> None:
    path = "/nothing/here" if route == OTHER else route.replace("{model}", MODEL)
    takes = ROUTES_TAKE[route].split()
    done = 404 if route == OTHER else 200
    async with running_web(gate=Gate(AuthSettings(keys_file=clients_file(tmp_path)))) as web:
        strangers = [
            await ask_http(web.url, path, headers)
            for headers in ({}, {"authorization": "Bearer another-key"}, {"x-api-key": "another-key"})
        ]
        clients = {
            key: await ask_http(web.url, path, {"authorization": f"Bearer {key}"})
            for key in (*SOME.values(), ALL, NONE)
        }
        by_other_header = await ask_http(web.url, path, {"x-api-key": ALL})

    let_in = {SOME[Permission(each)] for each in takes} | {ALL} if takes else clients.keys()
    assert strangers == [401] * 3
    assert clients == {key: done if key in let_in else 403 for key in clients}
    assert by_other_header == done


@pytest.mark.parametrize("opened", [True, False])
async def test_health_and_metrics_over_http_have_switches_of_their_own(tmp_path: Path, *, opened: bool) -> None:
    settings = AuthSettings(keys_file=clients_file(tmp_path), open_health=opened, open_metrics=opened)
    async with running_web(gate=Gate(settings)) as web:
        strangers = {path: await ask_http(web.url, path, {}) for path in (*HEALTH, "/metrics")}
        clients = {path: await ask_http(web.url, path, {"x-api-key": NONE}) for path in (*HEALTH, "/metrics")}

    assert set(strangers.values()) == {200 if opened else 401}
    assert set(clients.values()) == {200}


async def test_what_no_rule_names_is_open_to_no_client(
    guarded: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "vecgate.v1.EmbeddingService/ListEmbedders"
    monkeypatch.delitem(cast("dict[str, Rule]", METHODS), name)
    monkeypatch.delitem(cast("dict[str, Rule]", ROUTES), "/v1/models")

    by_grpc = await reason_of(guarded, name, embedding_pb.ListEmbeddersRequest(), bearer(ALL))
    async with running_web(gate=Gate(AuthSettings(keys_file=clients_file(tmp_path)))) as web:
        by_http = await ask_http(web.url, "/v1/models", {"x-api-key": ALL})

    assert (by_grpc, by_http) == ("PERMISSION_DENIED", 403)


async def test_a_stranger_has_nothing_read_that_it_sent(guarded: Wire) -> None:
    call = guarded.channel.unary_unary("/vecgate.v1.EmbeddingService/EmbedInputs")

    failure = await failure_of(call(b"\xff no message"))

    assert failure.reason == "API_KEY_MISSING"
