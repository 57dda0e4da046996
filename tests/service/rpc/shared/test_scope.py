"""Tenant and consistency over the wire: what calls pass on, and what they refuse."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from grpc import StatusCode

from service.domain import Consistency, Scope, TenantActivity
from tests.service.conftest import Wire, failure_of
from vecgate.client import where
from vecgate.v1 import evaluation_service_pb2 as evaluation_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import scope_pb2
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.vector_pb2 import Vector

ID = str(UUID(int=1))

VECTORS = {"default": Vector(data=b"\0\0\x80\x3f" * 8)}


async def search(wire: Wire, **fields: object) -> search_pb.SearchObjectsResponse:
    return await wire.search.SearchObjects(search_pb.SearchObjectsRequest(collection="Pictures", **fields))


async def backfill(wire: Wire, **scope: object) -> list[pb.BackfillVectorsResponse]:
    request = pb.BackfillVectorsRequest(collection="Pictures", verify=True, scope=scope)
    return [each async for each in wire.objects.BackfillVectors(request)]


async def evaluate(wire: Wire, **scope: object) -> list[evaluation_pb.EvaluateCollectionResponse]:
    request = evaluation_pb.EvaluateCollectionRequest(
        collection="Pictures", captions={"property": "title"}, scope=scope
    )
    return [each async for each in wire.evaluation.EvaluateCollection(request)]


CALLS: dict[str, Callable[..., Awaitable[object]]] = {
    "ImportObjects": lambda wire, **scope: wire.objects.ImportObjects(
        pb.ImportObjectsRequest(collection="Pictures", objects=[{"id": ID, "vectors": VECTORS}], scope=scope)
    ),
    "GetObject": lambda wire, **scope: wire.objects.GetObject(
        pb.GetObjectRequest(collection="Pictures", id=ID, scope=scope)
    ),
    "ListObjects": lambda wire, **scope: wire.objects.ListObjects(
        pb.ListObjectsRequest(collection="Pictures", scope=scope)
    ),
    "UpdateObject": lambda wire, **scope: wire.objects.UpdateObject(
        pb.UpdateObjectRequest(collection="Pictures", object={"id": ID, "vectors": VECTORS}, scope=scope)
    ),
    "BackfillVectors": backfill,
    "CountMissingVectors": lambda wire, **scope: wire.objects.CountMissingVectors(
        pb.CountMissingVectorsRequest(collection="Pictures", scope=scope)
    ),
    "DeleteObject": lambda wire, **scope: wire.objects.DeleteObject(
        pb.DeleteObjectRequest(collection="Pictures", id=ID, scope=scope)
    ),
    "DeleteObjects": lambda wire, **scope: wire.objects.DeleteObjects(
        pb.DeleteObjectsRequest(collection="Pictures", filters=where("title").equal("red"), scope=scope)
    ),
    "dry run": lambda wire, **scope: wire.objects.DeleteObjects(
        pb.DeleteObjectsRequest(collection="Pictures", filters=where("title").equal("red"), dry_run=True, scope=scope)
    ),
    "near_vector": lambda wire, **scope: search(wire, near_vector={"vector": VECTORS["default"]}, scope=scope),
    "near_object": lambda wire, **scope: search(wire, near_object={"id": ID}, scope=scope),
    "bm25": lambda wire, **scope: search(wire, bm25={"query": "red"}, scope=scope),
    "ProjectObjects": lambda wire, **scope: wire.search.ProjectObjects(
        search_pb.ProjectObjectsRequest(collection="Pictures", scope=scope)
    ),
    "EvaluateCollection": evaluate,
    "hybrid": lambda wire, **scope: search(wire, hybrid={"bm25": {"query": "red"}}, scope=scope),
}


@pytest.fixture
async def tenants(wire: Wire) -> Wire:
    """Return a server with a collection whose tenants anna and ben have one object each, of the same id."""
    await wire.create_pictures()
    wire.store.tenants["Pictures"] = dict.fromkeys(("anna", "ben"), TenantActivity.ACTIVE)
    for tenant in ("anna", "ben"):
        await wire.objects.ImportObjects(
            pb.ImportObjectsRequest(
                collection="Pictures",
                scope={"tenant": tenant},
                objects=[{"id": ID, "vectors": VECTORS, "properties": {"title": f"red {tenant}"}}],
            )
        )
    wire.store.scopes.clear()
    return wire


@pytest.mark.parametrize("call", CALLS)
async def test_calls_on_objects_pass_tenant_and_consistency_on(tenants: Wire, call: str) -> None:
    await CALLS[call](tenants, tenant="ben", consistency=scope_pb2.CONSISTENCY_ALL)
    assert set(tenants.store.scopes) == {Scope("ben", Consistency.ALL)}
    tenants.store.scopes.clear()
    await CALLS[call](tenants, tenant="anna")
    assert set(tenants.store.scopes) == {Scope("anna")}


async def test_objects_of_one_tenant_are_not_seen_by_another(tenants: Wire) -> None:
    for tenant in ("anna", "ben"):
        found = await search(tenants, near_vector={"vector": VECTORS["default"]}, scope={"tenant": tenant})
        assert [hit.object.properties["title"] for hit in found.hits] == [f"red {tenant}"]


async def test_the_same_content_of_two_tenants_gets_two_ids(tenants: Wire) -> None:
    ids = set()
    for tenant in ("anna", "ben", "anna"):
        response = await tenants.objects.ImportObjects(
            pb.ImportObjectsRequest(
                collection="Pictures", scope={"tenant": tenant}, objects=[{"properties": {"title": "red"}}]
            )
        )
        ids.add(response.results[0].id)
    assert len(ids) == 2


@pytest.mark.parametrize("call", CALLS)
async def test_a_tenant_that_is_not_there_is_named(tenants: Wire, call: str) -> None:
    failure = await failure_of(CALLS[call](tenants, tenant="carla"))
    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "TENANT_NOT_FOUND")
    assert failure.metadata == {"name": "carla"}


@pytest.mark.parametrize("call", CALLS)
async def test_a_tenant_is_needed_where_there_are_some_and_refused_where_there_are_none(
    tenants: Wire, call: str
) -> None:
    failure = await failure_of(CALLS[call](tenants))
    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["scope.tenant"])
    assert "name one" in failure.message
    tenants.store.tenants.clear()
    failure = await failure_of(CALLS[call](tenants, tenant="anna"))
    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["scope.tenant"])
    assert "leave this out" in failure.message


@pytest.mark.parametrize("call", CALLS)
async def test_what_can_be_no_tenant_and_no_consistency_is_refused_at_once(tenants: Wire, call: str) -> None:
    failure = await failure_of(CALLS[call](tenants, tenant="../anna", consistency=9))
    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["scope.tenant", "scope.consistency"])
    assert not tenants.store.scopes
