"""What holds for every call: errors, deadlines, cancellation, request ids, the access log."""

import asyncio

import grpc
import pytest
import structlog
from grpc import StatusCode
from grpc_status import rpc_status

from embedders import errors as embedder_errors
from service import errors
from service.error_table import TABLE, rule_for, to_status
from service.settings import ServerSettings
from tests.service.conftest import Wire, failure_of, over_every_wire, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.error_reason_pb2 import ErrorReason
from vecgate.v1.input_pb2 import Input

A_TEXT = pb.EmbedInputsRequest(inputs=[Input(text="a cat")])

EMBEDDER_FAILURES = [
    (embedder_errors.EmbedderUnavailable("down"), StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE", 1.0),
    (embedder_errors.EmbedderOverloaded("full", retry_after_s=0.5), StatusCode.UNAVAILABLE, "OVERLOADED", 0.5),
    (
        embedder_errors.EmbedderRateLimited("busy", retry_after_s=7),
        StatusCode.RESOURCE_EXHAUSTED,
        "UPSTREAM_RATE_LIMITED",
        7.0,
    ),
    (embedder_errors.CredentialRejected("key"), StatusCode.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED", None),
    (embedder_errors.CallerKeyRejected("yours"), StatusCode.UNAUTHENTICATED, "UPSTREAM_KEY_REJECTED", None),
    (embedder_errors.ModelGone("gone"), StatusCode.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED", None),
    (embedder_errors.AnswerInvalid("63 of 64"), StatusCode.INTERNAL, "EMBEDDER_ANSWER_INVALID", None),
]


@over_every_wire
@pytest.mark.parametrize(("error", "code", "reason", "retry_s"), EMBEDDER_FAILURES, ids=str)
async def test_an_embedders_failure_reaches_the_caller_with_its_reason_and_retry_delay(
    wire: Wire, error: Exception, code: StatusCode, reason: str, retry_s: float | None
) -> None:
    wire.embedder.failure = error

    failure = await failure_of(wire.embedding.EmbedInputs(A_TEXT))

    assert (failure.code, failure.reason, failure.retry_s) == (code, reason, retry_s)
    assert failure.message == str(error)


STORE_FAILURES = [
    (errors.StoreUnavailable("Weaviate does not answer"), StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", 1.0),
    (errors.StoreRejected("read-only"), StatusCode.FAILED_PRECONDITION, "STORE_REJECTED", None),
]


@over_every_wire
@pytest.mark.parametrize("method", ["create", "get", "list", "delete", "import", "get_object", "search"])
@pytest.mark.parametrize(("error", "code", "reason", "retry_s"), STORE_FAILURES, ids=["unavailable", "rejected"])
async def test_a_stores_failure_reaches_the_caller_of_every_method(
    wire: Wire, method: str, error: errors.ServiceError, code: StatusCode, reason: str, retry_s: float | None
) -> None:
    await wire.create_pictures()
    wire.store.fail_next(error)
    collection = collection_pb.Collection(name="Other", vectors=[collection_pb.VectorConfig(name="default")])
    call = {
        "create": lambda: wire.collections.CreateCollection(
            collection_pb.CreateCollectionRequest(collection=collection)
        ),
        "get": lambda: wire.collections.GetCollection(collection_pb.GetCollectionRequest(name="Pictures")),
        "list": lambda: wire.collections.ListCollections(collection_pb.ListCollectionsRequest()),
        "delete": lambda: wire.collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name="Pictures")),
        "import": lambda: wire.objects.ImportObjects(
            object_pb.ImportObjectsRequest(collection="Pictures", objects=[object_pb.DataObject()])
        ),
        "get_object": lambda: wire.objects.GetObject(
            object_pb.GetObjectRequest(collection="Pictures", id="3fa85f64-5717-4562-b3fc-2c963f66afa6")
        ),
        "search": lambda: wire.search.SearchObjects(
            search_pb.SearchObjectsRequest(collection="Pictures", bm25=search_pb.Bm25(query="a"))
        ),
    }[method]

    failure = await failure_of(call())

    assert (failure.code, failure.reason, failure.retry_s) == (code, reason, retry_s)


EVERY_ERROR: tuple[Exception, ...] = (
    errors.InvalidRequest([errors.Violation("name", "is wrong", "INVALID_ID"), errors.Violation("scope", "is wrong")]),
    errors.EmbedderNotFound("x"),
    errors.RerankerNotFound("x"),
    errors.CollectionNotFound("Ünknown", "there is another"),
    errors.AliasNotFound("x"),
    errors.TenantNotFound("x"),
    errors.ObjectNotFound("x"),
    errors.CollectionAlreadyExists("x"),
    errors.SpaceMismatch(vector="v", bound="a", given="b", bound_dimension=1, given_dimension=None),
    errors.SpaceAmbiguous(vector="v", model="m", spaces=["a", "b"]),
    errors.CollectionNotBound("x", "v"),
    errors.ImageNotStored("v", "image"),
    errors.BindingUnproven("too far", {"lowest": "0.5"}),
    errors.PackageMissing("UMAP", "umap-learn", "map"),
    errors.CollectionChanged("x"),
    errors.ImageUriNotAllowed("not there"),
    errors.ImageNotServed("404"),
    errors.ImageUnreachable("silent"),
    errors.CredentialsMissing("no key"),
    errors.CredentialsInvalid("wrong key"),
    errors.PermissionDenied("not you"),
    errors.QuotaExceeded("anna", "inputs_per_second", "10", retry_after_s=2.5),
    errors.StoreRejected("read-only"),
    errors.TenantInactive("x"),
    errors.VectorRemoved("v"),
    errors.StoreUnavailable("silent", retry_after_s=3),
    errors.Overloaded("full"),
    errors.MessageTooLarge("too long"),
    embedder_errors.EmbedderOverloaded("full"),
    embedder_errors.EmbedderRateLimited("busy", retry_after_s=7),
    embedder_errors.EmbedderUnavailable("down"),
    embedder_errors.CallerKeyRejected("yours"),
    embedder_errors.CredentialRejected("ours"),
    embedder_errors.ModelGone("gone"),
    embedder_errors.ModelUnusable("broken"),
    embedder_errors.SpaceDisproved("another"),
    embedder_errors.AnswerInvalid("63 of 64"),
    TimeoutError(),
    ValueError("the caller's secret text"),
)


@over_every_wire
async def test_every_error_of_the_table_comes_with_all_its_details(wire: Wire) -> None:
    request = collection_pb.GetCollectionRequest(name="Pictures")
    for error in EVERY_ERROR:
        wire.store.fail_next(error)  # type: ignore[arg-type]

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.collections.GetCollection(request, metadata=(("x-request-id", "abc-123"),))

        assert rpc_status.from_call(caught.value) == to_status(error, "abc-123")
    told = {next(kind for kind in type(each).__mro__ if kind in TABLE) for each in EVERY_ERROR}
    assert told == TABLE.keys()


@over_every_wire
async def test_an_unexpected_exception_tells_nothing_but_the_request_id(wire: Wire) -> None:
    wire.embedder.failure = ValueError("the caller's secret text")

    call = wire.embedding.EmbedInputs(A_TEXT, metadata=(("x-request-id", "abc-123"),))
    failure = await failure_of(call)

    assert (failure.code, failure.reason, failure.request_id) == (StatusCode.INTERNAL, "INTERNAL", "abc-123")
    assert "secret" not in failure.message
    assert "abc-123" in failure.message


@over_every_wire
async def test_every_call_has_a_request_id_the_callers_own_if_it_sent_one(wire: Wire) -> None:
    given = wire.embedding.EmbedInputs(A_TEXT, metadata=(("x-request-id", "mine"),))
    made = wire.embedding.EmbedInputs(A_TEXT)
    overlong = wire.embedding.EmbedInputs(A_TEXT, metadata=(("x-request-id", "x" * 200),))

    ids = [(await call.trailing_metadata())["x-request-id"] for call in (given, made, overlong)]

    assert ids[0] == "mine"
    assert len(ids[1]) == len(ids[2]) == 32


@over_every_wire
async def test_a_call_past_its_callers_deadline_ends_and_its_work_is_dropped(wire: Wire) -> None:
    wire.embedder.gate = asyncio.Event()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.embedding.EmbedInputs(A_TEXT, timeout=0.2)

    assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(60):
        while wire.embedder.in_flight:
            await asyncio.sleep(0)


@over_every_wire
async def test_a_call_past_the_servers_own_limit_ends_with_deadline_exceeded() -> None:
    wire = await start_wire(server=ServerSettings(port=0, max_call_s=0.1))
    try:
        wire.embedder.gate = asyncio.Event()
        failure = await failure_of(wire.embedding.EmbedInputs(A_TEXT))
    finally:
        await stop_wire(wire)

    assert (failure.code, failure.reason) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


@over_every_wire
async def test_a_cancelled_call_drops_its_work(wire: Wire) -> None:
    wire.embedder.gate = asyncio.Event()
    wire.embedder.entered.clear()
    call = wire.embedding.EmbedInputs(A_TEXT)
    waiting = asyncio.ensure_future(call)
    async with asyncio.timeout(60):
        await wire.embedder.entered.wait()
        waiting.cancel()
        while wire.embedder.in_flight:
            await asyncio.sleep(0)

    assert call.cancelled()


@over_every_wire
async def test_a_message_over_the_servers_bound_is_refused_by_grpc() -> None:
    wire = await start_wire(server=ServerSettings(port=0, max_request_bytes=2048))
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[Input(text="x" * 4000)]))
    finally:
        await stop_wire(wire)

    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED


@over_every_wire
async def test_each_call_writes_one_access_line_without_content(wire: Wire) -> None:
    with structlog.testing.capture_logs() as lines:
        await wire.embedding.EmbedInputs(A_TEXT, metadata=(("x-request-id", "mine"),))
        await failure_of(wire.embedding.EmbedInputs(pb.EmbedInputsRequest()))
        async with asyncio.timeout(60):
            while len([line for line in lines if line["event"] == "call"]) < 2:
                await asyncio.sleep(0)

    calls = [line for line in lines if line["event"] == "call"]
    assert [line["code"] for line in calls] == ["OK", "INVALID_ARGUMENT"]
    assert {line["method"] for line in calls} == {"/vecgate.v1.EmbeddingService/EmbedInputs"}
    assert calls[0]["request_bytes"] > 0
    assert "a cat" not in str(lines)


def test_every_reason_of_the_api_comes_from_the_table_or_a_violation() -> None:
    from_table = {ErrorReason.Name(rule.reason) for rule in TABLE.values()}
    from_violations = {
        f"ERROR_REASON_{name}"
        for name in (
            "BATCH_TOO_LARGE", "TEXT_TOO_LONG", "IMAGE_EMPTY", "IMAGE_TOO_LARGE", "IMAGE_UNDECODABLE", "INVALID_VECTOR",
            "INVALID_ID", "DUPLICATE_ID", "UNKNOWN_PROPERTY", "INVALID_PROPERTY", "UNKNOWN_VECTOR",
        )
    }  # fmt: skip

    assert from_table | from_violations == set(ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


def test_every_exception_that_reaches_a_caller_has_a_rule_of_its_own() -> None:
    parents = {embedder_errors.EmbedderError, errors.ServiceError, errors.NotFound}
    items = {embedder_errors.InputRejected, *embedder_errors.InputRejected.__subclasses__()}
    every = {
        value
        for module in (errors, embedder_errors)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }

    assert every - parents - items == {each for each in TABLE if issubclass(each, Exception)} - {TimeoutError}
    assert rule_for(KeyError()).code is StatusCode.INTERNAL
