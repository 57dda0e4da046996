"""The client's import, without a server: what is sent again, and for how long."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc
import numpy as np
import pytest
from google.rpc import status_pb2

from tests.fakes.statuses import failure
from vecgate.client import Object, VecgateError
from vecgate.client.importing import ChunkBounds, Retries, import_in_chunks
from vecgate.client.values import ImportOutcome
from vecgate.v1 import object_service_pb2 as pb

BOUNDS = ChunkBounds(max_objects=2, target_bytes=10_000, max_bytes=100_000, max_values=10)
BUSY = failure(grpc.StatusCode.UNAVAILABLE, "OVERLOADED", retry_after_s=3)
GONE = failure(grpc.StatusCode.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED")

Refuse = Callable[[str, int], status_pb2.Status | None]


class Failed(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # what gRPC raises is both
    """A call that failed as a whole."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.status = status

    def code(self) -> grpc.StatusCode:
        return next(each for each in grpc.StatusCode if each.value[0] == self.status.code)

    def details(self) -> str:
        return self.status.message

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        return [("grpc-status-details-bin", self.status.SerializeToString())]


class Server:
    """Answers calls, and keeps the time."""

    def __init__(
        self, refuse: Refuse = lambda _id, _attempt: None, calls: list[status_pb2.Status | None] | None = None
    ) -> None:
        self.refuse = refuse
        self.calls = list(calls or [])
        self.sent: list[list[str]] = []
        self.attempts: dict[str, int] = {}
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def send(self, objects: list[pb.DataObject]) -> "Sent":
        self.sent.append([each.id for each in objects])
        return Sent(self, objects, self.calls.pop(0) if self.calls else None)

    def run(self, count: int, seconds: float = 60, bounds: ChunkBounds = BOUNDS) -> Iterator[ImportOutcome]:
        objects = (Object(id=str(number)) for number in range(count))
        retries = Retries(seconds, clock=lambda: self.now, sleep=self.sleep)
        return import_in_chunks(self.send, objects, bounds, retries=retries)


class Sent:
    """A call in flight."""

    def __init__(self, server: "Server", objects: list[pb.DataObject], status: status_pb2.Status | None) -> None:
        self.server, self.objects, self.status = server, objects, status

    def cancel(self) -> None:
        self.server.sent.append(["cancelled"])

    def result(self) -> pb.ImportObjectsResponse:
        if self.status is not None:
            raise Failed(self.status)
        response = pb.ImportObjectsResponse()
        for each in self.objects:
            attempt = self.server.attempts[each.id] = self.server.attempts.get(each.id, 0) + 1
            error = self.server.refuse(each.id, attempt)
            if error is None:
                response.results.add(id=each.id, stored=pb.StoredObject())
            else:
                response.results.add(id=each.id, error=error)
        return response


def test_a_call_that_fails_for_a_transient_reason_is_retried_when_the_server_says() -> None:
    server = Server(calls=[BUSY, None, BUSY])

    outcomes = list(server.run(4))

    assert [(each.id, each.error) for each in outcomes] == [(str(number), None) for number in range(4)]
    assert server.sent == [["0", "1"], ["2", "3"], ["0", "1"], ["0", "1"]]
    assert server.slept == [3, 3]


def test_only_the_objects_that_may_do_better_are_sent_again() -> None:
    refusals = {("0", 1): BUSY, ("1", 1): GONE, ("3", 1): BUSY, ("3", 2): BUSY}
    server = Server(lambda id_, attempt: refusals.get((id_, attempt)))

    outcomes = list(server.run(4))

    assert [each.error.reason if each.error else "" for each in outcomes] == ["", "EMBEDDER_MISCONFIGURED", "", ""]
    assert [each.id for each in outcomes] == ["0", "1", "2", "3"]
    assert server.sent == [["0", "1"], ["2", "3"], ["0"], ["3"], ["3"]]


def refused_for(field: str) -> status_pb2.Status:
    return failure(
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", violations=((field, "has too many", "INVALID_INPUT"),)
    )


def test_a_call_that_is_refused_for_its_objects_is_made_for_each_alone() -> None:
    server = Server(calls=[refused_for("objects.images"), None, None, refused_for("objects.images.key")])
    outcomes = list(server.run(4))

    assert [each.error.reason if each.error else "" for each in outcomes] == ["", "INVALID_INPUT", "", ""]
    assert [each.id for each in outcomes] == ["0", "1", "2", "3"]
    assert server.sent == [["0", "1"], ["2", "3"], ["0"], ["1"]]
    with pytest.raises(VecgateError, match="INVALID_INPUT"):
        list(Server(calls=[refused_for("scope.tenant")]).run(2))


def test_objects_alone_wait_where_the_server_is_busy_and_keep_the_outcomes_that_they_have() -> None:
    server = Server(calls=[refused_for("objects"), None, BUSY, refused_for("objects"), refused_for("objects")])

    outcomes = list(server.run(3, bounds=replace(BOUNDS, max_objects=3)))

    assert [each.error.reason if each.error else "" for each in outcomes] == ["", "INVALID_INPUT", ""]
    assert server.sent == [["0", "1", "2"], ["0"], ["1"], ["1", "2"], ["1"], ["2"]]
    assert server.slept == [3]


def test_objects_alone_are_not_tried_one_after_the_other_where_nobody_answers() -> None:
    away = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="no connection")
    server = Server(calls=[refused_for("objects"), None, away, refused_for("objects"), away])

    outcomes = list(server.run(3, bounds=replace(BOUNDS, max_objects=3)))

    assert [each.error for each in outcomes] == [None] * 3
    assert server.sent == [["0", "1", "2"], ["0"], ["1"], ["1", "2"], ["1"], ["1", "2"]]


def test_an_object_alone_that_stays_without_an_answer_fails_alone() -> None:
    server = Server(calls=[refused_for("objects"), None] + [BUSY] * 100)

    outcomes = list(server.run(2, seconds=10))

    assert [each.error.reason if each.error else "" for each in outcomes] == ["", "OVERLOADED"]
    assert server.now <= 10
    with pytest.raises(VecgateError, match="EMBEDDER_MISCONFIGURED"):
        list(Server(calls=[refused_for("objects"), GONE]).run(2))


def test_what_does_not_pass_is_not_sent_again() -> None:
    server = Server(calls=[None, GONE])
    outcomes = server.run(4)

    assert [next(outcomes).id, next(outcomes).id] == ["0", "1"]
    with pytest.raises(VecgateError, match="EMBEDDER_MISCONFIGURED"):
        next(outcomes)
    assert server.slept == []


@pytest.mark.parametrize("seconds", [0, 10])
def test_retries_end(seconds: float) -> None:
    busy = Server(lambda _id, _attempt: BUSY)
    assert {each.error.reason for each in busy.run(2, seconds) if each.error} == {"OVERLOADED"}
    assert busy.now <= seconds
    away = Server(calls=[BUSY] * 100)
    with pytest.raises(VecgateError, match="OVERLOADED"):
        list(away.run(2, seconds))
    assert away.now <= seconds
    assert len(away.slept) == seconds // 3


def test_no_more_calls_are_in_flight_than_allowed_and_no_object_is_read_ahead_of_them() -> None:
    server = Server()
    read: list[int] = []

    def objects() -> Iterator[Object]:
        for number in range(100):
            read.append(number)
            yield Object(id=str(number))

    outcomes = import_in_chunks(server.send, objects(), BOUNDS, in_flight=3, retries=Retries(0))
    next(outcomes)

    assert len(server.sent) == 3
    assert len(read) == 7, "three chunks of two, and the object that ends the third"
    outcomes.close()  # type: ignore[attr-defined]
    assert server.sent[3:] == [["cancelled"], ["cancelled"]]


def test_values_count_whatever_type_holds_them() -> None:
    for value in (list(range(9)), np.arange(9.0), np.ones((2, 3)), [{"a": (1, 2)}, {"b": {"c": [1, 2]}}]):
        server = Server()
        objects = [Object({"a": value}) for _ in range(2)]

        outcomes = list(import_in_chunks(server.send, objects, BOUNDS, retries=Retries(0)))

        assert [each.error for each in outcomes] == [None, None]
        assert len(server.sent) == 2, "two objects of 10 values each are more than one call takes"


def test_chunks_are_bounded_in_values_and_an_object_of_more_is_refused_alone() -> None:
    server = Server()
    few, many, far_too_many = (
        {"tags": ["a"] * 3},
        {"tags": ["a"] * 8, "home": None},
        {"home": {"rooms": list(range(9))}},
    )
    objects = [Object(properties, id=str(at)) for at, properties in enumerate([few, few, many, far_too_many, few])]
    bounds = replace(BOUNDS, max_objects=10)

    outcomes = list(import_in_chunks(server.send, objects, bounds, retries=Retries(0)))

    assert server.sent == [["0", "1"], ["2"], ["4"]]
    assert [each.error and each.error.reason for each in outcomes] == [None, None, None, "INVALID_PROPERTY", None]


@pytest.mark.parametrize("again", ["0A1B2C3D-0000-4000-8000-000000000001", "{0a1b2c3d-0000-4000-8000-000000000001}"])
@pytest.mark.parametrize("between", [0, 1, 2, 9])
def test_an_id_counts_once_in_an_import_whatever_call_it_is_in(again: str, between: int) -> None:
    server = Server()
    id_ = "0a1b2c3d-0000-4000-8000-000000000001"
    objects = [Object(id=id_), *(Object() for _ in range(between)), Object(id=again), Object(id=id_)]

    outcomes = list(import_in_chunks(server.send, objects, BOUNDS, retries=Retries(0)))

    assert [each.error is None for each in outcomes] == [True] * (between + 1) + [False] * 2
    assert {each.error.reason for each in outcomes if each.error} == {"DUPLICATE_ID"}
    assert sum(map(len, server.sent)) == between + 1


def test_objects_without_ids_and_ids_that_are_none_are_left_to_the_server() -> None:
    server = Server()

    outcomes = list(
        import_in_chunks(server.send, [Object(), Object(), Object(id="x"), Object(id="x")], BOUNDS, retries=Retries(0))
    )

    assert [each.error for each in outcomes] == [None] * 4
    assert sum(map(len, server.sent)) == 4
