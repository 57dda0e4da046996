"""Batches on Weaviate's wire are those of the client's own insert_many, for every type of value."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from weaviate import WeaviateAsyncClient
from weaviate.classes.config import ConsistencyLevel
from weaviate.connect import ConnectionParams
from weaviate.proto.v1 import batch_pb2
from weaviate.util import _ServerVersion

from service.domain import Consistency, ObjectValue, Scope, StoredObject
from service.store.weaviate.batches import Batch, add_object, send
from service.store.weaviate.objects import to_weaviate

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
NAMES = st.sampled_from(["title", "count", "tags", "home", "place"])

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
whole = st.integers(-(2**53), 2**53)
numbers = st.floats(allow_nan=False, allow_infinity=False)
degrees = st.floats(-90, 90)
values = st.recursive(
    st.one_of(
        st.booleans(),
        whole,
        numbers,
        texts,
        st.fixed_dictionaries({"latitude": degrees, "longitude": degrees}),
        st.lists(st.booleans(), max_size=3),
        st.lists(whole, max_size=3),
        st.lists(numbers | whole, max_size=3),
        st.lists(texts, max_size=3),
    ),
    lambda inner: (
        st.dictionaries(NAMES, inner, max_size=3).map(ObjectValue)
        | st.lists(st.dictionaries(NAMES, inner, max_size=2).map(ObjectValue), max_size=3)
    ),
    max_leaves=6,
)
vectors = st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=4).map(lambda each: np.array(each, np.float32))
objects = st.builds(
    StoredObject,
    st.uuids(),
    st.dictionaries(NAMES, st.none() | values, max_size=4),
    st.dictionaries(st.sampled_from(["photo", "scan"]), st.binary(max_size=8)),
    st.dictionaries(st.sampled_from(["main", "other", "default"]), vectors),
)
scopes = st.builds(Scope, st.sampled_from(["", "tenant-1"]), st.sampled_from([None, *Consistency]))


class KeepingClient:
    """The client, with a connection that keeps what is sent."""

    def __init__(self) -> None:
        self.client = WeaviateAsyncClient(ConnectionParams.from_params("127.0.0.1", 1, False, "127.0.0.1", 2, False))
        connection: Any = self.client._connection
        connection._weaviate_version = _ServerVersion(1, 39, 3)
        connection.grpc_batch_objects = self._keep
        self.sent: list[batch_pb2.BatchObjectsRequest] = []
        self.bounds: list[Mapping[str, float]] = []

    async def _keep(self, request: batch_pb2.BatchObjectsRequest, **bounds: float) -> dict[int, str]:
        self.sent.append(request)
        self.bounds.append(bounds)
        return {}


@pytest.fixture
def keeping() -> KeepingClient:
    """Return a client that keeps what is sent."""
    return KeepingClient()


@RELAXED
@given(written=st.lists(objects, min_size=1, max_size=3), scope=scopes)
async def test_a_batch_is_the_client_s(keeping: KeepingClient, written: list[StoredObject], scope: Scope) -> None:
    within = keeping.client.collections.use("Things")
    within = within.with_tenant(scope.tenant) if scope.tenant else within
    if scope.consistency is not None:
        within = within.with_consistency_level(ConsistencyLevel(scope.consistency.value))

    await within.data.insert_many([to_weaviate(each) for each in written])
    batch = Batch()
    for each in written:
        add_object(batch, each, "Things", scope.tenant)
    await send(keeping.client, batch, scope)

    theirs, ours = keeping.sent[-2:]
    assert ours == theirs
    assert keeping.bounds[-1] == keeping.bounds[-2]


@pytest.mark.parametrize("value", ["\ud800", ["\ud800"], object(), [object()]])
def test_a_value_that_no_message_holds_is_an_error_and_adds_nothing(value: Any) -> None:
    batch = Batch()
    add_object(batch, StoredObject(UUID(int=1), {"title": "good"}), "Things", "")
    before = batch.SerializeToString()

    with pytest.raises((TypeError, ValueError)):
        add_object(batch, StoredObject(UUID(int=2), {"count": 1, "title": value}), "Things", "")

    assert batch.SerializeToString() == before
