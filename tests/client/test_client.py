"""The client against a fake server: requests, responses, chunks, retries, errors."""

import copy
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import grpc
import numpy as np
import pytest

from tests.client.conftest import Connect
from tests.conftest import assert_close
from tests.fakes.server import DIMENSION, FakeVecgate, serving
from tests.fakes.statuses import failure
from vecgate import client as client_module
from vecgate.client import (
    Client,
    FieldViolation,
    Health,
    Object,
    Unreachable,
    VecgateError,
    decode_vector,
    encode_vector,
    where,
)
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        running.add_collection("Pictures", image=property_pb.DATA_TYPE_BLOB, title=property_pb.DATA_TYPE_TEXT)
        yield running


@pytest.fixture
def client(fake: FakeVecgate, connect: Connect) -> Iterator[Client]:
    with connect(fake.address) as connected:
        yield connected


def objects(count: int, size: int = 10) -> list[Object]:
    return [
        Object({"title": str(number)}, images={"image": bytes(size)}, id=str(UUID(int=number)))
        for number in range(count)
    ]


def test_everything_public_is_listed_in_order() -> None:
    assert client_module.__all__ == sorted(client_module.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(client_module, name) for name in client_module.__all__)


def test_vectors_survive_the_way_to_the_wire_and_back() -> None:
    values = np.array([1.5, -2.0, 0.25], dtype=np.float64)

    decoded = decode_vector(encode_vector(values))

    assert decoded.dtype == np.float32
    assert decoded.flags.writeable
    assert_close(decoded, values)


def test_a_matrix_is_no_vector() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        encode_vector(np.zeros((2, 2)))


def test_texts_bytes_and_files_are_embedded_in_order(client: Client, fake: FakeVecgate, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"picture")

    answer = client.embed(["two words", b"picture", file], embedder="fake", truncate=True)

    request = fake.requests["EmbedInputs"][0]
    assert [each.WhichOneof("content") for each in request.inputs] == ["text", "image", "image"]
    assert (request.embedder, request.truncate) == ("fake", True)
    assert answer.embedder.space == "fake/space"
    assert answer.matrix().shape == (3, DIMENSION)
    assert answer.matrix().dtype == np.float32
    assert_close(answer.matrix()[1], answer.matrix()[2])
    assert [each.token_count for each in answer.items] == [4, None, None]


def test_an_input_that_fails_fails_alone(client: Client, fake: FakeVecgate) -> None:
    fake.unembeddable.add("long")

    answer = client.embed(["short", "long"])

    assert answer.items[0].error is None
    assert answer.items[1].vector is None
    assert answer.items[1].error is not None
    assert answer.items[1].error.reason == "TEXT_TOO_LONG"
    with pytest.raises(VecgateError, match="TEXT_TOO_LONG"):
        answer.matrix()


def test_an_error_carries_all_that_the_server_said(client: Client, fake: FakeVecgate) -> None:
    fake.failing["EmbedInputs"] = [
        failure(
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_INPUT",
            "two faults",
            violations=(("inputs[0].text", "is blank", "INVALID_INPUT"), ("inputs[1]", "is not set", "INVALID_INPUT")),
            retry_after_s=3,
            request_id="abc",
            metadata={"bound": "1"},
        )
    ]

    with pytest.raises(VecgateError) as caught:
        client.embed([""])

    error = caught.value
    assert type(error) is VecgateError
    assert (error.code, error.reason, error.message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_INPUT",
        "two faults",
    )
    assert error.violations == (
        FieldViolation("inputs[0].text", "is blank", "INVALID_INPUT"),
        FieldViolation("inputs[1]", "is not set", "INVALID_INPUT"),
    )
    assert (error.retry_after_s, error.request_id, error.metadata) == (3.0, "abc", {"bound": "1"})
    assert str(error) == "INVALID_INPUT: two faults"


def test_an_error_is_the_same_behind_another_process() -> None:
    for kind in (VecgateError, Unreachable):
        error = kind(
            grpc.StatusCode.UNAVAILABLE,
            "too many",
            reason="OVERLOADED",
            metadata={"bound": "1"},
            violations=[FieldViolation("inputs[0]", "is blank")],
            retry_after_s=3,
            request_id="abc",
        )

        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert (type(again), vars(again), str(again)) == (kind, vars(error), "OVERLOADED: too many")
            assert again.args == ("too many",)


def test_no_server_is_unreachable(connect: Connect) -> None:
    with serving(FakeVecgate()) as gone:
        address = gone.address

    with connect(address) as client, pytest.raises(Unreachable):
        client.embedders()


def test_a_server_that_says_unavailable_with_a_reason_is_reachable(client: Client, fake: FakeVecgate) -> None:
    fake.failing["SearchObjects"] = [failure(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", retry_after_s=1)] * 4

    with pytest.raises(VecgateError) as caught:
        client.search("Pictures", text="dog")

    assert type(caught.value) is VecgateError
    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert len(fake.requests["SearchObjects"]) == 4


def test_an_import_of_large_pictures_is_retried(client: Client, fake: FakeVecgate) -> None:
    fake.failing["ImportObjects"] = [failure(grpc.StatusCode.UNAVAILABLE, "OVERLOADED")]

    outcomes = list(client.import_objects("Pictures", objects(2, size=1_000_000)))

    assert [outcome.stored for outcome in outcomes] == [True, True]
    assert len(fake.requests["ImportObjects"]) == 2


def test_a_call_that_a_stopping_server_lets_fall_is_retried(client: Client, fake: FakeVecgate) -> None:
    fake.failing["EmbedInputs"] = [failure(grpc.StatusCode.CANCELLED)]

    embedded = client.embed(["dog"])

    assert len(embedded.matrix()) == 1
    assert len(fake.requests["EmbedInputs"]) == 2


def test_creating_a_collection_is_not_retried(client: Client, fake: FakeVecgate) -> None:
    fake.failing["CreateCollection"] = [failure(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")]

    with pytest.raises(VecgateError, match="STORE_UNAVAILABLE"):
        client.create_collection(collection_pb.Collection(name="Other"))

    assert len(fake.requests["CreateCollection"]) == 1


def test_a_collection_is_created_shown_and_deleted(client: Client, fake: FakeVecgate) -> None:
    wanted = collection_pb.Collection(name="Other", vectors=[collection_pb.VectorConfig(name="default")])

    made = client.create_collection(wanted)
    found = client.get_collection("Other")
    client.delete_collection("Other")

    assert made.vectors[0].space == "fake/space"
    assert (found.name, found.object_count) == ("Other", 0)
    assert "Other" not in fake.collections


def test_listing_collections_follows_the_pages(client: Client, fake: FakeVecgate) -> None:
    for name in ("A", "B", "C"):
        fake.add_collection(name)
    fake.page_size = 2

    names = [each.name for each in client.list_collections()]

    assert names == ["A", "B", "C", "Pictures"]
    assert len(fake.requests["ListCollections"]) == 2


def test_an_import_is_cut_by_the_servers_count_and_keeps_the_order(client: Client, fake: FakeVecgate) -> None:
    fake.limits.max_objects = 3

    outcomes = list(client.import_objects("Pictures", objects(8)))

    assert sorted(len(each.objects) for each in fake.requests["ImportObjects"]) == [2, 3, 3]
    assert [outcome.id for outcome in outcomes] == [str(UUID(int=number)) for number in range(8)]
    assert outcomes[0].vectors[0].embedder == "fake"


def test_an_import_looks_for_duplicates_call_by_call_and_names_them(client: Client, fake: FakeVecgate) -> None:
    fake.limits.max_objects = 1
    ids = [str(UUID(int=number)) for number in range(3)]
    fake.duplicates[ids[1]] = object_pb.Duplicate(id=ids[0], cosine=0.75)
    skip = object_pb.DuplicateCheck(action=object_pb.DUPLICATE_ACTION_SKIP, min_cosine=0.5, target_vector="default")
    report = object_pb.DuplicateCheck(action=object_pb.DUPLICATE_ACTION_REPORT)

    skipping = client.import_objects("Pictures", objects(3), duplicates=skip)
    first = next(skipping)
    sent = len(fake.requests["ImportObjects"])
    left_out = [first, *skipping]
    reported = list(client.import_objects("Pictures", objects(3), duplicates=report))

    assert sent == 1, "the second call begins when the first has ended"
    assert [(each.stored, each.skipped, each.error) for each in left_out] == [
        (True, False, None), (False, True, None), (True, False, None)
    ]  # fmt: skip
    assert [(each.stored, each.skipped) for each in reported] == [(True, False)] * 3
    for outcomes in (left_out, reported):
        assert [each.duplicate_of for each in outcomes] == [None, fake.duplicates[ids[1]], None]
    assert [each.duplicates for each in fake.requests["ImportObjects"]] == [skip] * 3 + [report] * 3


def test_an_import_is_cut_by_bytes(connect: Connect) -> None:
    with serving(FakeVecgate(max_request_bytes=40_000)) as fake, connect(fake.address) as client:
        fake.add_collection("Pictures")

        outcomes = list(client.import_objects("Pictures", objects(9, size=4_000)))

        assert all(outcome.stored for outcome in outcomes)
        assert max(each.ByteSize() for each in fake.requests["ImportObjects"]) <= 10_000


def test_an_object_that_fits_in_no_request_fails_alone_and_in_its_place(connect: Connect) -> None:
    with serving(FakeVecgate(max_request_bytes=40_000)) as fake, connect(fake.address) as client:
        fake.add_collection("Pictures")
        first, second, third = objects(3)
        huge = Object(second.properties, images={"image": bytes(39_900)}, id=second.id)

        outcomes = list(client.import_objects("Pictures", [first, huge, third]))

        assert [outcome.stored for outcome in outcomes] == [True, False, True]
        assert [outcome.id for outcome in outcomes] == [first.id, second.id, third.id]
        assert outcomes[1].error is not None
        assert "one request carries at most 38976" in outcomes[1].error.message
        assert list(fake.objects["Pictures"]) == [first.id, third.id]


def test_an_object_of_the_largest_size_that_the_client_sends_is_taken(connect: Connect) -> None:
    with serving(FakeVecgate(max_request_bytes=40_000)) as fake, connect(fake.address) as client:
        fake.add_collection("Pictures")

        outcomes = list(client.import_objects("Pictures", [Object(images={"image": bytes(38_900)}, id=str(uuid4()))]))

        assert [outcome.error for outcome in outcomes] == [None]


def test_an_import_of_nothing_but_unsendable_objects_calls_nobody(client: Client, fake: FakeVecgate) -> None:
    outcomes = list(client.import_objects("Pictures", [Object({"count": 2**60 + 1}), Object({"thing": object()})]))

    assert [str(outcome.error) for outcome in outcomes] == [
        "INVALID_INPUT: property 'count': a whole number beyond 2^53 must be one that a double can hold",
        "INVALID_INPUT: property 'thing': object is not a type that a property takes",
    ]
    assert fake.requests["ImportObjects"] == []


def test_what_the_server_refuses_stands_in_its_place(client: Client, fake: FakeVecgate) -> None:
    bad = failure(
        grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_EMPTY", violations=(("objects[1].images", "is empty", "IMAGE_EMPTY"),)
    )
    fake.refuse = lambda each: bad if each.properties["title"] == "1" else None

    outcomes = list(client.import_objects("Pictures", objects(3)))

    assert [outcome.error.reason if outcome.error else "" for outcome in outcomes] == ["", "IMAGE_EMPTY", ""]


def test_an_import_reads_only_as_far_ahead_as_its_calls_in_flight(client: Client) -> None:
    read = []

    def counted() -> Iterator[Object]:
        for each in objects(100):
            read.append(each)
            yield each

    outcomes = client.import_objects("Pictures", counted(), chunk_objects=5)
    next(outcomes)

    assert len(read) == 21
    outcomes.close()


def test_a_call_that_fails_ends_the_import_after_the_outcomes_before_it(client: Client, fake: FakeVecgate) -> None:
    fake.refuse = lambda _: fake.failing["ImportObjects"].append(
        failure(grpc.StatusCode.FAILED_PRECONDITION, "EMBEDDING_SPACE_MISMATCH")
    )
    outcomes = client.import_objects("Pictures", objects(6), chunk_objects=3)

    with pytest.raises(VecgateError, match="EMBEDDING_SPACE_MISMATCH"):
        list(outcomes)


def test_an_object_comes_back_as_it_was_sent(client: Client) -> None:
    taken = datetime(2026, 1, 31, 8, tzinfo=UTC)
    id_ = str(uuid4())
    sent = Object(
        {
            "title": "a",
            "count": 3,
            "share": 0.5,
            "tags": ["x", "y"],
            "taken": taken,
            "nothing": None,
            "size": np.int64(7),
            "place": {"latitude": np.float64(52.52), "longitude": -13.0},
        },
        images={"image": b"bytes"},
        vectors={"default": [1, 0, 0, 0]},
        id=id_,
    )
    assert [outcome.error for outcome in client.import_objects("Pictures", [sent])] == [None]

    found = client.get_object("Pictures", id_, return_images=["image"], return_vectors=["default"])

    assert found.properties == {
        "title": "a",
        "count": 3,
        "share": 0.5,
        "tags": ["x", "y"],
        "taken": "2026-01-31T08:00:00+00:00",
        "nothing": None,
        "size": 7,
        "place": {"latitude": 52.52, "longitude": -13.0},
    }
    assert isinstance(found.properties["count"], int)
    assert found.images == {"image": b"bytes"}
    assert found.vectors.keys() == {"default"}


def test_a_missing_object_is_named(client: Client) -> None:
    with pytest.raises(VecgateError, match="OBJECT_NOT_FOUND"):
        client.get_object("Pictures", str(uuid4()))


def test_a_search_passes_everything_on(client: Client, fake: FakeVecgate) -> None:
    list(client.import_objects("Pictures", objects(5)))

    result = client.search(
        "Pictures",
        text=["red", "car"],
        limit=2,
        offset=1,
        target_vector="default",
        filters=where("title").equal("1"),
        auto_limit=2,
        return_images=["image"],
    )

    request = fake.requests["SearchObjects"][0]
    assert list(request.near_text.concepts) == ["red", "car"]
    assert list(request.target_vectors) == ["default"]
    assert request.auto_limit == 2
    assert request.filters == where("title").equal("1")
    assert [hit.object.properties["title"] for hit in result.hits] == ["1", "2"]
    assert result.hits[0].distance is not None
    assert_close(result.hits[0].distance, 0.1)
    assert result.hits[0].object.images == {"image": bytes(10)}
    assert result.embedder is not None
    assert result.embedder.name == "fake"


def test_a_search_takes_a_picture_a_vector_or_a_message(client: Client, fake: FakeVecgate, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"picture")

    client.search("Pictures", image=file)
    client.search("Pictures", vector=np.ones(4), vector_space="other")
    client.search("Pictures", query=search_pb.Hybrid(bm25=search_pb.Bm25(query="red"), alpha=0.5))
    client.search("Pictures", query=search_pb.Bm25(query="red"))
    by_id = client.search("Pictures", query=search_pb.NearObject(id="x"))

    by_image, by_vector, hybrid, keywords, by_object = fake.requests["SearchObjects"]
    assert by_image.near_image.image.content == b"picture"
    assert by_vector.near_vector.space == "other"
    assert_close(decode_vector(by_vector.near_vector.vector), [1, 1, 1, 1])
    assert (hybrid.hybrid.bm25.query, hybrid.hybrid.alpha) == ("red", 0.5)
    assert (keywords.bm25.query, by_object.near_object.id) == ("red", "x")
    assert by_id.embedder is None


def test_a_search_takes_one_query(client: Client) -> None:
    with pytest.raises(ValueError, match="give one of"):
        client.search("Pictures", text="a", vector=[1.0])
    with pytest.raises(ValueError, match="list_objects"):
        client.search("Pictures")


def test_health_is_read_without_the_health_package(client: Client, fake: FakeVecgate) -> None:
    fake.healthy["vecgate.v1.SearchService"] = False

    assert client.health() is Health.SERVING
    assert client.health("vecgate.v1.SearchService") is Health.NOT_SERVING
    assert fake.requests["Check"][1].service == "vecgate.v1.SearchService"


def test_an_answer_over_grpcs_own_bound_is_received(client: Client) -> None:
    list(client.import_objects("Pictures", objects(3, size=2 * 1024 * 1024)))

    hits = client.search("Pictures", text="dog", return_images=["image"]).hits

    assert sum(len(hit.object.images["image"]) for hit in hits) == 6 * 1024 * 1024
