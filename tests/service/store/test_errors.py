from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from grpc.aio import AioRpcError, Metadata
from weaviate.classes.init import Timeout
from weaviate.exceptions import (
    InsufficientPermissionsError,
    UnexpectedStatusCodeError,
    WeaviateBatchError,
    WeaviateClosedClientError,
    WeaviateConnectionError,
    WeaviateGRPCUnavailableError,
    WeaviateInvalidInputError,
    WeaviateQueryError,
    WeaviateRetryError,
    WeaviateStartUpError,
    WeaviateTimeoutError,
)
from weaviate.proto.v1 import batch_pb2

from service.domain import Scope, StoredObject
from service.errors import (
    CollectionAlreadyExists,
    CollectionNotFound,
    InvalidRequest,
    ObjectNotFound,
    ServiceError,
    StoreRejected,
    StoreUnavailable,
    TenantInactive,
    TenantNotFound,
)
from service.store.base import WriteFailure
from service.store.weaviate.errors import reject, translate
from service.store.weaviate.writing import insert


def _query_error(code: grpc.StatusCode, details: str) -> Exception:
    # The client raises its own exception while it handles gRPC's, which alone has the code.
    error = WeaviateQueryError(details, "GRPC search")
    error.__context__ = AioRpcError(code, Metadata(), Metadata(), details)
    return error


def _status_error(status: int, body: Any) -> Exception:
    return UnexpectedStatusCodeError("Nothing came of it", httpx.Response(status, json=body))


@pytest.mark.parametrize(
    "error",
    [
        WeaviateConnectionError("x"),
        WeaviateStartUpError("x"),
        WeaviateTimeoutError("x"),
        WeaviateRetryError("x", 4),
        WeaviateClosedClientError(),
        WeaviateGRPCUnavailableError("1", ("host", 1)),
        httpx.ReadError("x"),
        httpx.RemoteProtocolError("x"),
        httpx.PoolTimeout("x"),
        ConnectionResetError(),
        TimeoutError(),
        _query_error(grpc.StatusCode.UNAVAILABLE, "read-only"),
        _query_error(grpc.StatusCode.DEADLINE_EXCEEDED, "late"),
        _query_error(grpc.StatusCode.UNKNOWN, "store is read-only due to: disk usage too high"),
        _query_error(grpc.StatusCode.UNKNOWN, "memory pressure: cannot load shard"),
        _query_error(grpc.StatusCode.UNKNOWN, 'batch objects: {msg:"cannot process batch: not enough memory"}'),
        _query_error(grpc.StatusCode.UNKNOWN, "put object: write wal: no space left on device"),
        _query_error(
            grpc.StatusCode.UNKNOWN, 'cannot achieve consistency level "QUORUM": cannot reach enough replicas'
        ),
        _query_error(grpc.StatusCode.UNKNOWN, "put object: context deadline exceeded"),
        _status_error(500, {"error": [{"message": "msg:repo.object code:500 err:leader not found"}]}),
        _status_error(500, {"error": [{"message": "not enough memory"}]}),
        _status_error(500, None),
        _status_error(503, None),
        _status_error(502, "<html>"),
        KeyError("class"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:60],
)
def test_what_may_pass_is_unavailable(error: Exception) -> None:
    assert type(translate(error, "Pictures")) is StoreUnavailable


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (_status_error(404, None), CollectionNotFound, "Pictures"),
        (
            _status_error(422, {"error": [{"message": "class name Pictures already exists"}]}),
            CollectionAlreadyExists,
            "Pictures",
        ),
        (
            _status_error(422, {"error": [{"message": 'class already exists: found similar class "PICTURES"'}]}),
            CollectionAlreadyExists,
            "PICTURES",
        ),
        (_status_error(422, {"error": [{"message": "'9 bad' is not a valid class name"}]}), StoreRejected, "9 bad"),
        (
            _status_error(500, {"error": [{"message": "msg:repo.merge err:new node has a vector with length 0"}]}),
            StoreRejected,
            "length 0",
        ),
        (
            _status_error(
                500,
                {"error": [{"message": "cannot reach enough replicas: vector dimensions do not match the index"}]},
            ),
            StoreRejected,
            "dimensions",
        ),
        (_status_error(401, {"code": 401, "message": "who are you"}), StoreRejected, "API key"),
        (InsufficientPermissionsError(httpx.Response(403, json={"error": [{"message": "no"}]})), StoreRejected, "no"),
        (_query_error(grpc.StatusCode.UNKNOWN, "could not find class Pictures in schema"), CollectionNotFound, "Pict"),
        (
            _query_error(grpc.StatusCode.UNKNOWN, 'search: object search at index pictures: tenant not found: "zz".'),
            TenantNotFound,
            "'zz'",
        ),
        (
            _query_error(
                grpc.StatusCode.UNKNOWN, "class Pictures has multi-tenancy enabled, but request was without tenant"
            ),
            InvalidRequest,
            "scope.tenant: collection 'Pictures' has tenants; name one",
        ),
        (
            _query_error(
                grpc.StatusCode.UNKNOWN, "class Pictures has multi-tenancy disabled, but request was with tenant"
            ),
            InvalidRequest,
            "scope.tenant: collection 'Pictures' has no tenants; leave this out",
        ),
        (
            _query_error(grpc.StatusCode.UNKNOWN, "explorer: get class: extend: unknown capability: rerank"),
            InvalidRequest,
            "rerank: collection 'Pictures' has no reranker module in Weaviate; leave this out",
        ),
        (
            _query_error(grpc.StatusCode.UNKNOWN, "tenant not active: 'off'"),
            TenantInactive,
            "'off' is not active",
        ),
        (_query_error(grpc.StatusCode.UNKNOWN, "vector lengths don't match"), StoreRejected, "vector lengths"),
        (_query_error(grpc.StatusCode.UNAUTHENTICATED, "no key"), StoreRejected, "API key"),
        (_query_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "usage limit"), StoreRejected, "usage limit"),
        (WeaviateBatchError("too large"), StoreRejected, "too large"),
        (
            WeaviateBatchError("requires an integer, the given value is 'could not find class, store is read-only'"),
            StoreRejected,
            "requires an integer",
        ),
    ],
)
def test_what_weaviate_refuses_is_told_with_its_reason(
    error: Exception, kind: type[ServiceError], message: str
) -> None:
    translated = translate(error, "Pictures")
    assert type(translated) is kind
    assert message in str(translated)


def test_values_that_the_client_repeats_are_not_passed_on() -> None:
    translated = translate(WeaviateInvalidInputError("The vector you supplied was malformatted! Vector: secret"))
    assert type(translated) is StoreRejected
    assert "secret" not in str(translated)


def test_errors_of_the_service_stay_as_they_are() -> None:
    error = ObjectNotFound("1")
    assert translate(error, "Pictures") is error


def test_a_server_whose_shards_are_away_is_unavailable_and_not_refusing() -> None:
    details = "explorer: get class: vector search: object vector search at index soak: no read replica found"

    error = translate(_query_error(grpc.StatusCode.UNKNOWN, details), "Soak")

    assert isinstance(error, StoreUnavailable)
    assert "starting or stopping" in str(error)


class Refusing:
    """A client whose writes fail for these reasons, one for each object."""

    timeout_config = Timeout(insert=1)

    def __init__(self, *reasons: str) -> None:
        self._connection = self
        self.reasons = reasons
        self.writes = 0

    async def grpc_batch_objects(self, request: batch_pb2.BatchObjectsRequest, **_: object) -> dict[int, str]:
        self.writes += 1
        return dict(enumerate(self.reasons[: len(request.objects)]))


async def insert_into(client: Refusing, objects: list[StoredObject]) -> list[WriteFailure | None]:
    return await insert(client, "Pictures", objects, Scope())  # type: ignore[arg-type]


async def test_objects_that_only_lack_their_index_entries_are_not_sent_again_to_pass_for_stored() -> None:
    entry = "insert to vector index: insert doc id {} to vector index: add batch of 1 vectors: not enough memory"
    client = Refusing("invalid text property 'a' value 1", entry.format(1), entry.format(2))

    outcomes = await insert_into(client, [StoredObject(uuid4()) for _ in range(3)])

    assert [type(each) for each in outcomes] == [StoreRejected, StoreUnavailable, StoreUnavailable]
    assert client.writes == 1


async def test_an_object_of_which_no_message_can_be_made_fails_alone_and_without_its_value() -> None:
    client = Refusing("invalid text property 'a'")
    odd = StoredObject(uuid4(), {"title": "secret \ud800"})

    outcomes = await insert_into(client, [odd, StoredObject(uuid4())])

    assert [type(each) for each in outcomes] == [StoreRejected, StoreRejected]
    assert ["secret" in str(each) for each in outcomes] == [False, False]
    assert "invalid text property" in str(outcomes[1])


async def test_a_batch_that_finds_no_memory_fails_as_a_whole() -> None:
    with pytest.raises(StoreUnavailable, match="no room"):
        await insert_into(Refusing("cannot process batch: not enough memory"), [StoredObject(uuid4())])


def test_a_weaviate_without_hashes_of_blobs_says_since_when_there_are_some() -> None:
    message = "property 'photo': invalid dataType: [blobHash]: unknown primitive data type 'blobHash'"

    error = reject(message, "Pictures")

    assert type(error) is StoreRejected
    assert str(error) == f"Weaviate refused: {message}; blobHash came with Weaviate 1.37: use blob, or a newer Weaviate"
