"""Tenants over the wire, through the client library and on the command line."""

from collections.abc import Iterator

import pytest
from click.testing import Result
from google.protobuf.message import Message
from grpc import StatusCode
from typer.testing import CliRunner

from service.cli import app
from tests.fakes.server import FakeVecgate, serving
from tests.service.conftest import Wire, failure_of
from vecgate.client import Client
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import tenant_pb2 as tenant_pb
from vecgate.v1.object_service_pb2 import ImportObjectsRequest

ACTIVE, INACTIVE = tenant_pb.TENANT_ACTIVITY_STATUS_ACTIVE, tenant_pb.TENANT_ACTIVITY_STATUS_INACTIVE
OFFLOADED = tenant_pb.TENANT_ACTIVITY_STATUS_OFFLOADED
ANNA = tenant_pb.Tenant(name="anna")


async def create_shared(wire: Wire, **tenancy: bool) -> pb.Collection:
    collection = pb.Collection(
        name="Shared", vectors=[{"name": "default"}], multi_tenancy=pb.MultiTenancyConfig(enabled=True, **tenancy)
    )
    return (await wire.collections.CreateCollection(pb.CreateCollectionRequest(collection=collection))).collection


async def list_tenants(wire: Wire, **fields: object) -> tenant_pb.ListTenantsResponse:
    return await wire.collections.ListTenants(tenant_pb.ListTenantsRequest(collection="Shared", **fields))


async def test_a_collection_with_tenants_is_returned_as_it_was_created(wire: Wire) -> None:
    created = await create_shared(wire, auto_tenant_creation=True)

    got = (await wire.collections.GetCollection(pb.GetCollectionRequest(name="Shared"))).collection

    got.ClearField("etag")
    assert got == created
    assert got.multi_tenancy == pb.MultiTenancyConfig(
        enabled=True, auto_tenant_creation=True, auto_tenant_activation=False
    )
    assert not got.HasField("object_count")


async def test_nothing_is_embedded_for_a_tenant_that_is_not_active(wire: Wire) -> None:
    collection = pb.Collection(
        name="Shared",
        properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
        vectors=[{"name": "default", "text_fields": [{"name": "title"}]}],
        multi_tenancy=pb.MultiTenancyConfig(enabled=True),
    )
    await wire.collections.CreateCollection(pb.CreateCollectionRequest(collection=collection))
    resting = tenant_pb.Tenant(name="anna", activity_status=INACTIVE)
    await wire.collections.CreateTenants(tenant_pb.CreateTenantsRequest(collection="Shared", tenants=[resting]))
    wire.embedder.calls.clear()

    objects = [{"properties": {"title": "a dog"}}]
    failure = await failure_of(
        wire.objects.ImportObjects(ImportObjectsRequest(collection="Shared", scope={"tenant": "anna"}, objects=objects))
    )

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "STORE_REJECTED")
    assert "tenant 'anna' is not active; activate it with UpdateTenants" in failure.message
    assert wire.embedder.calls == []


@pytest.mark.parametrize("automatic", [True, False])
async def test_objects_to_embed_for_a_new_tenant_create_it_where_that_is_set(wire: Wire, *, automatic: bool) -> None:
    collection = pb.Collection(
        name="Shared",
        properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
        vectors=[{"name": "default", "text_fields": [{"name": "title"}]}],
        multi_tenancy=pb.MultiTenancyConfig(enabled=True, auto_tenant_creation=automatic),
    )
    await wire.collections.CreateCollection(pb.CreateCollectionRequest(collection=collection))
    objects = [{"properties": {"title": "a dog"}}]
    call = wire.objects.ImportObjects(
        ImportObjectsRequest(collection="Shared", scope={"tenant": "new"}, objects=objects)
    )

    if automatic:
        assert (await call).results[0].HasField("stored")
        assert [each.name for each in (await list_tenants(wire)).tenants] == ["new"]
    else:
        assert (await failure_of(call)).reason == "TENANT_NOT_FOUND"
        assert not (await list_tenants(wire)).tenants


async def test_objects_are_counted_by_tenant(wire: Wire) -> None:
    await create_shared(wire, auto_tenant_creation=True)
    objects = [{"vectors": {"default": {"data": b"\0\0\x80\x3f" * 8}}}]
    await wire.objects.ImportObjects(
        ImportObjectsRequest(collection="Shared", scope={"tenant": "anna"}, objects=objects)
    )
    await wire.collections.CreateTenants(tenant_pb.CreateTenantsRequest(collection="Shared", tenants=[{"name": "ben"}]))

    async def count(tenant: str) -> int:
        request = pb.GetCollectionRequest(name="Shared", scope={"tenant": tenant})
        return (await wire.collections.GetCollection(request)).collection.object_count

    assert [await count(tenant) for tenant in ("anna", "ben")] == [1, 0]
    assert (await failure_of(count("carla"))).reason == "TENANT_NOT_FOUND"
    assert (await failure_of(count("a b"))).fields == ["scope.tenant"]


async def test_a_count_takes_no_consistency(wire: Wire) -> None:
    await create_shared(wire)
    request = pb.GetCollectionRequest(name="Shared", scope={"tenant": "anna", "consistency": "CONSISTENCY_ALL"})

    failure = await failure_of(wire.collections.GetCollection(request))

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["scope.consistency"])


async def test_tenants_are_created_listed_updated_and_deleted(wire: Wire) -> None:
    await create_shared(wire)

    tenants = [
        ANNA,
        tenant_pb.Tenant(name="ben", activity_status=INACTIVE),
        tenant_pb.Tenant(name="carla", activity_status=ACTIVE),
    ]
    await wire.collections.CreateTenants(tenant_pb.CreateTenantsRequest(collection="Shared", tenants=tenants))
    changed = [
        tenant_pb.Tenant(name="ben", activity_status=ACTIVE),
        tenant_pb.Tenant(name="anna", activity_status=INACTIVE),
    ]
    await wire.collections.UpdateTenants(tenant_pb.UpdateTenantsRequest(collection="Shared", tenants=changed))
    await wire.collections.DeleteTenants(tenant_pb.DeleteTenantsRequest(collection="Shared", names=["carla", "nobody"]))

    left = (await list_tenants(wire)).tenants
    assert [(each.name, each.activity_status) for each in left] == [("anna", INACTIVE), ("ben", ACTIVE)]


async def test_tenants_are_listed_in_pages_and_by_name(wire: Wire) -> None:
    await create_shared(wire)
    tenants = [tenant_pb.Tenant(name=name) for name in ("c", "a", "b")]
    await wire.collections.CreateTenants(tenant_pb.CreateTenantsRequest(collection="Shared", tenants=tenants))

    first = await list_tenants(wire, page_size=2)
    second = await list_tenants(wire, page_size=2, page_token=first.next_page_token)
    named = await list_tenants(wire, names=["c", "nobody"])

    assert [each.name for each in first.tenants] == ["a", "b"]
    assert ([each.name for each in second.tenants], second.next_page_token) == (["c"], "")
    assert [each.name for each in named.tenants] == ["c"]


async def test_no_tenant_is_changed_when_one_is_not_there(wire: Wire) -> None:
    await create_shared(wire)
    await wire.collections.CreateTenants(tenant_pb.CreateTenantsRequest(collection="Shared", tenants=[ANNA]))

    changed = [tenant_pb.Tenant(name=name, activity_status=INACTIVE) for name in ("anna", "nobody")]
    failure = await failure_of(
        wire.collections.UpdateTenants(tenant_pb.UpdateTenantsRequest(collection="Shared", tenants=changed))
    )

    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "TENANT_NOT_FOUND")
    assert failure.metadata == {"name": "nobody"}
    assert [each.activity_status for each in (await list_tenants(wire)).tenants] == [ACTIVE]


CALLS: dict[str, Message] = {
    "CreateTenants": tenant_pb.CreateTenantsRequest(collection="Pictures", tenants=[ANNA]),
    "ListTenants": tenant_pb.ListTenantsRequest(collection="Pictures"),
    "UpdateTenants": tenant_pb.UpdateTenantsRequest(
        collection="Pictures", tenants=[tenant_pb.Tenant(name="anna", activity_status=INACTIVE)]
    ),
    "DeleteTenants": tenant_pb.DeleteTenantsRequest(collection="Pictures", names=["anna"]),
}


@pytest.mark.parametrize("method", CALLS)
async def test_a_collection_that_is_not_there_has_no_tenants(wire: Wire, method: str) -> None:
    failure = await failure_of(getattr(wire.collections, method)(CALLS[method]))

    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND")


@pytest.mark.parametrize("method", CALLS)
async def test_a_collection_without_tenants_says_so(wire: Wire, method: str) -> None:
    await wire.create_pictures()

    failure = await failure_of(getattr(wire.collections, method)(CALLS[method]))

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["collection"])
    assert "multi_tenancy.enabled" in failure.message


@pytest.mark.parametrize(
    ("request_", "paths"),
    [
        (tenant_pb.CreateTenantsRequest(), ["collection", "tenants"]),
        (tenant_pb.CreateTenantsRequest(collection="C", tenants=[{"name": f"t{n}"} for n in range(1001)]), ["tenants"]),
        (
            tenant_pb.CreateTenantsRequest(
                collection="C",
                tenants=[{"name": "a b"}, {"name": "a"}, {"name": "a", "activity_status": 9}, {"name": "x" * 65}],
            ),
            ["tenants[0].name", "tenants[2].activity_status", "tenants[3].name", "tenants[2].name"],
        ),
        (
            tenant_pb.CreateTenantsRequest(collection="C", tenants=[{"name": "a", "activity_status": OFFLOADED}]),
            ["tenants[0].activity_status"],
        ),
        (tenant_pb.UpdateTenantsRequest(tenants=[ANNA]), ["collection", "tenants[0].activity_status"]),
        (
            tenant_pb.UpdateTenantsRequest(
                collection="C",
                tenants=[{"name": "a", "activity_status": tenant_pb.TENANT_ACTIVITY_STATUS_OFFLOADING}, {"name": ""}],
            ),
            ["tenants[0].activity_status", "tenants[1].name", "tenants[1].activity_status"],
        ),
        (tenant_pb.DeleteTenantsRequest(), ["collection", "names"]),
        (tenant_pb.DeleteTenantsRequest(collection="C", names=["a", "a", "ü"]), ["names[1]", "names[2]"]),
        (
            tenant_pb.ListTenantsRequest(names=[""], page_size=1001, page_token="!"),
            ["collection", "names[0]", "page_size", "page_token"],
        ),
        (tenant_pb.ListTenantsRequest(collection="C", names=["a"] * 1001), ["names"]),
    ],
)  # fmt: skip
async def test_every_violation_is_listed_with_its_path(wire: Wire, request_: Message, paths: list[str]) -> None:
    method = type(request_).__name__.removesuffix("Request")

    failure = await failure_of(getattr(wire.collections, method)(request_))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert failure.fields == paths
    assert wire.store.calls == []


@pytest.mark.parametrize("name", ["auto_tenant_creation", "auto_tenant_activation"])
async def test_an_automatism_without_tenants_is_refused(wire: Wire, name: str) -> None:
    collection = pb.Collection(name="C", vectors=[{"name": "v"}], multi_tenancy=pb.MultiTenancyConfig(**{name: True}))

    failure = await failure_of(wire.collections.CreateCollection(pb.CreateCollectionRequest(collection=collection)))

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", [f"collection.multi_tenancy.{name}"])


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        yield running


def run(fake: FakeVecgate, *arguments: str, **more: str) -> Result:
    return CliRunner().invoke(app, ["--address", fake.address, "tenants", *arguments], **more)


def test_the_client_splits_many_tenants_into_calls_and_follows_the_pages(fake: FakeVecgate) -> None:
    names = [f"t{number:04}" for number in range(1500)]

    with Client(fake.address) as client:
        client.create_tenants("Shared", iter(names))
        client.update_tenants("Shared", [tenant_pb.Tenant(name=name, activity_status=INACTIVE) for name in names])
        listed = [(each.name, each.activity_status) for each in client.list_tenants("Shared")]
        some = [each.name for each in client.list_tenants("Shared", ["t0007"])]
        client.delete_tenants("Shared", names[1:])

    assert listed == [(name, INACTIVE) for name in names]
    assert some == ["t0007"]
    assert list(fake.tenants["Shared"]) == ["t0000"]
    for method in ("CreateTenants", "UpdateTenants", "DeleteTenants"):
        assert len(fake.requests[method]) == 2


def test_the_command_line_creates_lists_and_updates_tenants(fake: FakeVecgate) -> None:
    none = run(fake, "list", "Shared")
    created = run(fake, "create", "Shared", "anna", "ben", "--inactive")
    updated = run(fake, "update", "Shared", "anna", "--status", "active")
    listed = run(fake, "list", "Shared")

    assert [each.exit_code for each in (none, created, updated, listed)] == [0] * 4
    assert none.stdout == "Shared has no tenants yet.\n"
    assert created.stdout == "Shared has anna, ben\n"
    assert listed.stdout.split() == ["tenant", "activity", "anna", "active", "ben", "inactive"]
    as_json = run(fake, "list", "Shared", "--json").stdout
    assert '"name": "anna"' in as_json
    assert '"activity_status": "inactive"' in as_json


def test_the_command_line_asks_before_it_deletes_tenants(fake: FakeVecgate) -> None:
    run(fake, "create", "Shared", "anna", "ben")

    kept = run(fake, "delete", "Shared", "anna", input="n\n")
    assert set(fake.tenants["Shared"]) == {"anna", "ben"}
    deleted = run(fake, "delete", "Shared", "anna", "--yes")

    assert (kept.exit_code, deleted.exit_code, deleted.stdout) == (1, 0, "anna: deleted\n")
    assert set(fake.tenants["Shared"]) == {"ben"}


def test_the_command_line_creates_and_shows_a_collection_with_tenants(fake: FakeVecgate) -> None:
    def collections(*arguments: str, **more: str) -> Result:
        return CliRunner().invoke(app, ["--address", fake.address, "collections", *arguments], **more)

    collections("create", "Shared", "--text-field", "title", "--auto-tenant-creation")
    shown = collections("show", "Shared")
    deleted = collections("delete", "Shared", input="y\n")

    (request,) = fake.requests["CreateCollection"]
    assert request.collection.multi_tenancy == pb.MultiTenancyConfig(
        enabled=True, auto_tenant_creation=True, auto_tenant_activation=False
    )
    assert shown.stdout.startswith("Shared: its tenants hold its objects\n")
    assert "the objects of all its tenants" in deleted.output
