"""Filters lead into no collection that a client may not touch."""

from pathlib import Path

import pytest
from grpc import StatusCode

from service.domain import Collection, NamedVector, Property, Space
from tests.fakes.clients import key_of, let_in
from tests.wire.conftest import failure_of, start_wire, stop_wire
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
            request = search_pb.SearchObjectsRequest(collection="Mine", filters=THROUGH)
            return await wire.search.SearchObjects(request, metadata=metadata)
        delete = object_pb.DeleteObjectsRequest(collection="Mine", filters=THROUGH, dry_run=True)
        return await wire.objects.DeleteObjects(delete, metadata=metadata)

    failure = await failure_of(call("limited"))
    with_all = await call("free")
    await stop_wire(wire)

    assert (failure.code, failure.reason) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert "references" in failure.message
    assert with_all
