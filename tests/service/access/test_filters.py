"""Filters lead into no collection that a client may not access."""

from pathlib import Path
from uuid import UUID

import pytest
from grpc import StatusCode

from service.domain import Collection, DataType, NamedVector, Property, Space, StoredObject
from tests.fakes.clients import key_of, let_in
from tests.service.conftest import failure_of, start_wire, stop_wire
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb

THROUGH = {
    "all_of": {
        "filters": [{"condition": {"references": ["secret"], "property": "x", "operator": 1, "value": {"text": "x"}}}]
    }
}


@pytest.mark.parametrize("method", ["SearchObjects", "DeleteObjects"])
async def test_a_client_of_some_collections_may_not_filter_through_references(tmp_path: Path, method: str) -> None:
    auth = let_in(
        tmp_path / "clients.toml",
        limited='permissions = ["search", "write"]\ncollections = ["Mine"]',
        free='permissions = ["search", "write"]',
    )
    wire = await start_wire(auth=auth)
    vector = NamedVector("main", Space("fake", 8, "fake/model"))
    await wire.store.create_collection(Collection("Mine", (Property("secret", None),), (vector,)))

    async def call(client: str) -> object:
        metadata = (("authorization", f"Bearer {key_of(client)}"),)
        if method == "SearchObjects":
            request = search_pb.SearchObjectsRequest(collection="Mine", filters=THROUGH, near_text={"concepts": ["a"]})
            return await wire.search.SearchObjects(request, metadata=metadata)
        delete = object_pb.DeleteObjectsRequest(collection="Mine", filters=THROUGH, dry_run=True)
        return await wire.objects.DeleteObjects(delete, metadata=metadata)

    failure = await failure_of(call("limited"))
    with_all = await call("free")
    await stop_wire(wire)

    assert (failure.code, failure.reason) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert "references" in failure.message
    assert with_all


BY_ID = {"condition": {"object_field": "OBJECT_FIELD_ID", "operator": 1, "value": {"text": str(UUID(int=1))}}}
BY_VALUE = {"condition": {"property": "title", "operator": "FILTER_OPERATOR_LIKE", "value": {"text": "a*"}}}
BY_TIME = {
    "condition": {
        "object_field": "OBJECT_FIELD_CREATION_TIME",
        "operator": "FILTER_OPERATOR_GREATER",
        "value": {"text": "2024-01-01T00:00:00Z"},
    }
}


@pytest.mark.parametrize(
    ("filters", "dry_run", "refused"),
    [
        (BY_VALUE, True, True),
        (BY_VALUE, False, True),
        (BY_ID, True, True),
        (BY_ID, False, False),
        (BY_TIME, False, True),
        ({"negation": BY_VALUE}, False, True),
        ({"all_of": {"filters": [BY_ID, BY_VALUE]}}, False, True),
        ({"any_of": {"filters": [BY_ID, {"negation": {"any_of": {"filters": [BY_VALUE]}}}]}}, False, True),
        ({"any_of": {"filters": [BY_ID, BY_ID]}}, False, False),
        (THROUGH, False, True),
    ],
)
async def test_a_client_that_may_not_search_learns_nothing_by_deleting(
    tmp_path: Path, filters: dict[str, object], *, dry_run: bool, refused: bool
) -> None:
    auth = let_in(tmp_path / "clients.toml", writer='permissions = ["write"]', both='permissions = ["write", "search"]')
    wire = await start_wire(auth=auth)
    properties = (Property("title", DataType.TEXT), Property("secret", None))
    await wire.store.create_collection(
        Collection("Mine", properties, (NamedVector("main", Space("fake", 8, "fake/model")),))
    )
    await wire.store.put_objects("Mine", [StoredObject(UUID(int=2), {"title": "b"})])

    async def delete(client: str) -> object_pb.DeleteObjectsResponse:
        request = object_pb.DeleteObjectsRequest(collection="Mine", filters=filters, dry_run=dry_run)
        return await wire.objects.DeleteObjects(request, metadata=(("authorization", f"Bearer {key_of(client)}"),))

    if refused:
        failure = await failure_of(delete("writer"))
        assert (failure.code, failure.reason) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert "search" in failure.message
    else:
        assert (await delete("writer")).matched == 0
    if filters not in (THROUGH, BY_TIME):  # which the store in memory does not know
        await delete("both")
    await stop_wire(wire)
