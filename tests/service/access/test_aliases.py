"""Aliases, which Weaviate's clients make, get around no policy, and what they name is not deleted by them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc import StatusCode

from service.access.policy import RULES
from service.domain import Collection, DataType, MultiTenancy, NamedVector, Property, Space, TenantActivity
from service.errors import StoreUnavailable
from service.settings import AuthSettings
from tests.fakes.clients import let_in
from tests.service.access.test_access import METHODS, PERMISSIONS, REFUSED, bearer, call, request_for
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import alias_pb2 as alias_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import tenant_pb2 as tenant_pb

FOLLOWING = [name for name in METHODS if RULES[name].collection and RULES[name].follows]
ABOUT_ALIASES = [
    f"CollectionService/{name}" for name in ("CreateAlias", "UpdateAlias", "DeleteAlias", "GetAlias", "ListAliases")
]
NOT_FOLLOWING = ["CollectionService/CreateCollection", "CollectionService/DeleteCollection", *ABOUT_ALIASES]


@pytest.fixture
def auth(tmp_path: Path) -> AuthSettings:
    every = str(list(PERMISSIONS)).replace("'", '"')
    return let_in(
        tmp_path / "clients.toml",
        limited=f'permissions = {every}\ncollections = ["Mine*"]',
        lower=f'permissions = {every}\ncollections = ["mine*"]',
        free=f"permissions = {every}",
        embedding='permissions = ["embed"]\ncollections = ["Mine*"]',
    )


@pytest.fixture
async def wire(auth: AuthSettings) -> AsyncIterator[Wire]:
    """Mine and Theirs, each with an alias that looks like the other's."""
    wire = await start_wire(auth=auth)
    vector = NamedVector("main", Space("fake", 8, "fake/model"))
    for name in ("Mine", "Theirs"):
        await wire.store.create_collection(
            Collection(name, (Property("title", DataType.TEXT),), (vector,), multi_tenancy=MultiTenancy())
        )
        wire.store.tenants[name] = {"anna": TenantActivity.ACTIVE}
    wire.store.aliases = {"MineToo": "Theirs", "TheirsToo": "Mine"}
    yield wire
    await stop_wire(wire)


def test_every_rpc_about_a_collection_is_among_these() -> None:
    assert {*FOLLOWING, *NOT_FOLLOWING} == {name for name in METHODS if request_for(METHODS[name], "x").ByteSize()}


@pytest.mark.parametrize("client", ["limited", "lower"])
@pytest.mark.parametrize("alias", ["MineToo", "mineToo"])
@pytest.mark.parametrize("name", FOLLOWING)
async def test_an_alias_that_may_be_touched_opens_no_collection_that_may_not(
    wire: Wire, name: str, alias: str, client: str
) -> None:
    failure = await call(wire, name, request_for(METHODS[name], alias, "anna"), bearer(client))

    assert failure is not None
    assert (failure.code, failure.reason) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert alias in failure.message
    assert "Theirs" not in failure.message


@pytest.mark.parametrize("client", ["limited", "lower", "free"])
@pytest.mark.parametrize("alias", ["TheirsToo", "theirsToo"])
@pytest.mark.parametrize("name", FOLLOWING)
async def test_an_alias_that_may_not_be_touched_keeps_nobody_from_a_collection_that_may(
    wire: Wire, name: str, alias: str, client: str
) -> None:
    failure = await call(wire, name, request_for(METHODS[name], alias, "anna"), bearer(client))

    assert (
        failure is None or failure.code not in (*REFUSED, StatusCode.NOT_FOUND) or failure.reason == "OBJECT_NOT_FOUND"
    )


@pytest.mark.parametrize("client", ["limited", "free"])
@pytest.mark.parametrize("alias", ["MineToo", "mineToo"])
async def test_deleting_an_alias_is_refused_and_deletes_nothing(wire: Wire, alias: str, client: str) -> None:
    name = "CollectionService/DeleteCollection"
    failure = await call(wire, name, request_for(METHODS[name], alias), bearer(client))

    assert failure is not None
    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, ["name"])
    assert [each.name for each in await wire.store.list_collections()] == ["Mine", "Theirs"]


async def test_no_collection_gets_the_name_of_an_alias(wire: Wire) -> None:
    request = collection_pb.CreateCollectionRequest(
        collection={
            "name": "MineToo",
            "vectors": [{"name": "v", "text_fields": [{"name": "t"}]}],
            "properties": [{"name": "t", "data_type": 1}],
        }
    )
    failure = await failure_of(wire.collections.CreateCollection(request, metadata=(bearer("limited"),)))

    assert (failure.code, failure.reason) == (StatusCode.ALREADY_EXISTS, "COLLECTION_ALREADY_EXISTS"), failure.message


async def test_lists_show_collections_by_their_own_names(wire: Wire) -> None:
    listed = await wire.collections.ListCollections(
        collection_pb.ListCollectionsRequest(), metadata=(bearer("limited"),)
    )

    assert [each.name for each in listed.collections] == ["Mine"]


async def test_what_is_written_by_an_alias_is_in_the_collection_under_the_same_id(wire: Wire) -> None:
    ids = set()
    for spelling in ("Mine", "mine", "TheirsToo"):
        request = object_pb.ImportObjectsRequest(
            collection=spelling, scope={"tenant": "anna"}, objects=[{"properties": {"title": "a cat"}}]
        )
        answer = await wire.objects.ImportObjects(request, metadata=(bearer("limited"),))
        ids.add(answer.results[0].id)

    listed = await wire.objects.ListObjects(
        object_pb.ListObjectsRequest(collection="Mine", scope={"tenant": "anna"}), metadata=(bearer("limited"),)
    )
    assert {each.id for each in listed.objects} == ids
    assert len(ids) == 1


async def test_tenants_of_an_alias_are_those_of_the_collection(wire: Wire) -> None:
    create = tenant_pb.CreateTenantsRequest(collection="TheirsToo", tenants=[{"name": "ben"}])
    await wire.collections.CreateTenants(create, metadata=(bearer("free"),))
    listed = await wire.collections.ListTenants(
        tenant_pb.ListTenantsRequest(collection="TheirsToo"), metadata=(bearer("free"),)
    )

    assert [each.name for each in listed.tenants] == ["anna", "ben"]
    assert set(wire.store.tenants) == {"Mine", "Theirs"}


async def test_nobody_passes_while_no_one_knows_where_an_alias_leads(wire: Wire) -> None:
    name = "ObjectService/GetObject"
    wire.store.fail_next_of("get_collection", StoreUnavailable("down"))
    failure = await call(wire, name, request_for(METHODS[name], "MineToo"), bearer("limited"))

    assert failure is not None
    assert failure.reason == "STORE_UNAVAILABLE"


async def test_who_may_not_make_the_call_at_all_asks_the_store_nothing(wire: Wire) -> None:
    before = len(wire.store.calls)
    failure = await call(wire, FOLLOWING[0], request_for(METHODS[FOLLOWING[0]], "MineToo"), bearer("embedding"))

    assert failure is not None
    assert failure.reason == "PERMISSION_DENIED"
    assert len(wire.store.calls) == before


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("MineNew", "Theirs"),
        ("MineNew", "MineToo"),  # an alias of Theirs
        ("MineNew", "TheirsToo"),  # an alias of Mine
        ("Another", "Mine"),
        ("Another", "Theirs"),
    ],
)
async def test_an_alias_is_created_by_those_only_who_may_use_its_name_and_its_collection(
    wire: Wire, name: str, target: str
) -> None:
    before = dict(wire.store.aliases)
    request = alias_pb.CreateAliasRequest(alias={"name": name, "collection": target})

    failure = await failure_of(wire.collections.CreateAlias(request, metadata=(bearer("limited"),)))

    # Only a name that the client may use anyhow is looked up.
    expected = "INVALID_INPUT" if target == "MineToo" else "PERMISSION_DENIED"
    assert failure.reason == expected, failure.message
    assert wire.store.aliases == before


@pytest.mark.parametrize(
    ("name", "target"), [("MineToo", "Mine"), ("TheirsToo", "Mine"), ("MineReal", "Theirs"), ("MineNone", "Theirs")]
)
async def test_an_alias_is_switched_by_those_only_who_may_use_both_collections_and_its_name(
    wire: Wire, name: str, target: str
) -> None:
    wire.store.aliases["MineReal"] = "Mine"
    before = dict(wire.store.aliases)
    request = alias_pb.UpdateAliasRequest(alias={"name": name, "collection": target})

    failure = await failure_of(wire.collections.UpdateAlias(request, metadata=(bearer("limited"),)))

    assert failure.reason == ("ALIAS_NOT_FOUND" if name == "MineNone" else "PERMISSION_DENIED"), failure.message
    assert wire.store.aliases == before


@pytest.mark.parametrize("name", ["MineToo", "TheirsToo", "Another"])
async def test_an_alias_is_deleted_by_those_only_who_may_use_its_name_and_its_collection(wire: Wire, name: str) -> None:
    before = dict(wire.store.aliases)
    request = alias_pb.DeleteAliasRequest(name=name)

    failure = await failure_of(wire.collections.DeleteAlias(request, metadata=(bearer("limited"),)))

    assert failure.reason == "PERMISSION_DENIED"
    assert wire.store.aliases == before


async def test_who_may_use_all_of_it_changes_an_alias(wire: Wire) -> None:
    stub, key = wire.collections, (bearer("limited"),)
    alias = {"name": "MineNew", "collection": "Mine"}

    await stub.CreateAlias(alias_pb.CreateAliasRequest(alias=alias), metadata=key)
    await stub.UpdateAlias(alias_pb.UpdateAliasRequest(alias=alias), metadata=key)
    await stub.DeleteAlias(alias_pb.DeleteAliasRequest(name="MineNew"), metadata=key)

    assert wire.store.aliases == {"MineToo": "Theirs", "TheirsToo": "Mine"}


async def test_only_aliases_of_collections_that_may_be_used_are_shown(wire: Wire) -> None:
    stub, key = wire.collections, (bearer("limited"),)

    listed = await stub.ListAliases(alias_pb.ListAliasesRequest(), metadata=key)
    got = await stub.GetAlias(alias_pb.GetAliasRequest(name="TheirsToo"), metadata=key)
    of_mine = await stub.ListAliases(alias_pb.ListAliasesRequest(collection="TheirsToo"), metadata=key)
    denied = [
        await failure_of(stub.GetAlias(alias_pb.GetAliasRequest(name="MineToo"), metadata=key)),
        await failure_of(stub.ListAliases(alias_pb.ListAliasesRequest(collection="MineToo"), metadata=key)),
        await failure_of(stub.ListAliases(alias_pb.ListAliasesRequest(collection="Theirs"), metadata=key)),
    ]
    missing = await failure_of(stub.GetAlias(alias_pb.GetAliasRequest(name="MineNone"), metadata=key))

    assert [(each.name, each.collection) for each in listed.aliases] == [("TheirsToo", "Mine")]
    assert (got.alias, list(of_mine.aliases)) == (listed.aliases[0], list(listed.aliases))
    assert [each.reason for each in denied] == ["PERMISSION_DENIED"] * 3
    assert all("Theirs" not in each.message for each in denied[:2])
    assert missing.reason == "ALIAS_NOT_FOUND"
