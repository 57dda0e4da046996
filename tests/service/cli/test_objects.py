"""`vecgate objects` against a server in memory."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from tests.fakes.server import FakeVecgate, serving
from tests.fakes.statuses import failure
from vecgate.client import Client, Object, all_of, where
from vecgate.v1 import property_pb2 as property_pb

Run = Callable[..., Result]
IDS = [str(UUID(int=n)) for n in range(5)]


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    """A server with five objects, two in a page."""
    with serving(FakeVecgate()) as running:
        running.page_size = 2
        running.add_collection("Pictures", name=property_pb.DATA_TYPE_TEXT, year=property_pb.DATA_TYPE_INT)
        with Client(running.address) as client:
            objects = [Object({"name": f"picture {n}", "year": n}, id=id_) for n, id_ in enumerate(IDS)]
            assert all(outcome.stored for outcome in client.import_objects("Pictures", objects))
        yield running


@pytest.fixture
def run(fake: FakeVecgate) -> Run:
    return lambda *arguments, **more: CliRunner().invoke(
        app, ["--address", fake.address, "objects", *arguments], **more
    )


def test_the_client_lists_all_pages(fake: FakeVecgate) -> None:
    with Client(fake.address) as client:
        found = list(client.list_objects("Pictures", return_properties=["year"], tenant="anna"))

    assert [(each.id, each.properties) for each in found] == [(id_, {"year": n}) for n, id_ in enumerate(IDS)]
    assert [request.page_token for request in fake.requests["ListObjects"]] == ["", IDS[1], IDS[3]]
    assert {request.scope.tenant for request in fake.requests["ListObjects"]} == {"anna"}


def test_list_shows_ids_and_properties(run: Run) -> None:
    result = run("list", "Pictures", "--limit", "3")
    lines = result.stdout.splitlines()
    assert (result.exit_code, len(lines)) == (0, 4)
    assert lines[1].split("  ") == [IDS[0], "name: picture 0, year: 0"]


def test_list_shows_truth_values_and_objects_as_options_take_them_and_lists_with_commas(
    fake: FakeVecgate, run: Run
) -> None:
    properties = {"a": True, "b": ["x", "y z"], "c": {"city": "Köln", "open": False}, "d": [{"e": 1}], "f": [True, 2]}
    fake.objects["Pictures"][IDS[0]].properties.update(properties)

    line = run("list", "Pictures", "--limit", "1").stdout.splitlines()[1]

    assert line.split("  ", 1)[1] == (
        'a: true, b: x, y z, c: {"city": "Köln", "open": false}, d: [{"e": 1}], f: true, 2, name: picture 0, year: 0'
    )


def test_list_prints_an_object_in_json_a_line(run: Run) -> None:
    result = run("list", "Pictures", "--limit", "0", "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"id": id_, "properties": {"name": f"picture {n}", "year": n}} for n, id_ in enumerate(IDS)
    ]


def test_a_number_that_no_double_holds_is_no_condition(fake: FakeVecgate, run: Run) -> None:
    result = run("list", "Pictures", "--where", "year=9007199254740993")

    assert (result.exit_code, result.stderr) == (
        2,
        "error: --where 'year=9007199254740993': 'year' takes a value of type int, not '9007199254740993'\n",
    )


def test_list_sends_conditions_and_what_to_sort_by(fake: FakeVecgate, run: Run) -> None:
    assert run("list", "Pictures", "--where", "year>=2", "--sort=-year", "--sort", "name").exit_code == 0

    request = fake.requests["ListObjects"][0]
    assert request.filters == all_of(where("year") >= 2)
    assert [(each.property, each.descending) for each in request.sort] == [("year", True), ("name", False)]


def test_get_shows_an_object_with_its_vectors(run: Run) -> None:
    shown = json.loads(run("get", "Pictures", IDS[1], "--vectors").stdout)
    assert (shown["id"], shown["properties"]) == (IDS[1], {"name": "picture 1", "year": 1})
    assert len(shown["vectors"]["default"]) == 4


def test_get_of_what_is_not_there_fails(run: Run) -> None:
    result = run("get", "Pictures", str(UUID(int=99)))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no object" in result.stderr


def test_delete_takes_one_id(fake: FakeVecgate, run: Run) -> None:
    assert run("delete", "Pictures", IDS[1], "--dry-run").stdout == "1 object would be deleted\n"
    assert IDS[1] in fake.objects["Pictures"]
    assert run("delete", "Pictures", IDS[1]).exit_code == 0
    assert IDS[1] not in fake.objects["Pictures"]
    assert run("delete", "Pictures", IDS[1]).exit_code == 1


def test_delete_by_condition_counts_asks_and_names_what_failed(fake: FakeVecgate, run: Run) -> None:
    wanted = all_of(where("year") >= 1)
    result = run("delete", "Pictures", "--where", "year>=1", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "2 objects would be deleted\n")
    assert run("delete", "Pictures", "--where", "year>=1", input="n\n").exit_code == 1
    assert len(fake.objects["Pictures"]) == 5

    result = run("delete", "Pictures", "--where", "year>=1", "--yes", "--tenant", "anna")

    assert (result.exit_code, result.stdout) == (1, "1 object is deleted\n")
    assert f"{IDS[3]} is not deleted: it failed" in result.stderr
    requests = fake.requests["DeleteObjects"]
    assert [each.dry_run for each in requests] == [True, True, False]
    assert all(each.filters == wanted for each in requests)
    assert requests[-1].scope.tenant == "anna"


@pytest.mark.parametrize("arguments", [(), (IDS[0], "--where", "year>=1")])
def test_delete_takes_an_id_or_conditions(fake: FakeVecgate, run: Run, arguments: tuple[str, ...]) -> None:
    assert run("delete", "Pictures", *arguments).exit_code == 2
    assert len(fake.objects["Pictures"]) == 5


def test_update_sends_values_pictures_and_what_goes(fake: FakeVecgate, run: Run, tmp_path: Path) -> None:
    fake.add_collection(
        "Pictures",
        name=property_pb.DATA_TYPE_TEXT,
        year=property_pb.DATA_TYPE_INT,
        tags=property_pb.DATA_TYPE_TEXT_ARRAY,
        image=property_pb.DATA_TYPE_BLOB,
        old=property_pb.DATA_TYPE_BLOB,
        hashed=property_pb.DATA_TYPE_BLOB_HASH,
    )
    file = tmp_path / "a.png"
    file.write_bytes(b"picture")
    changes = ["--set", "name=7 = seven", "--set", "year=7", "--set", 'tags=["a", "b"]', "--image", f"image={file}"]

    result = run(
        "update", "Pictures", IDS[0], *changes, "--unset", "old", "--unset", "hashed", "--unset", "other", "--truncate"
    )

    assert (result.exit_code, result.stdout) == (0, f"{IDS[0]} is changed\n  default: computed by fake\n")
    (request,) = fake.requests["UpdateObject"]
    assert (request.object.id, request.truncate) == (IDS[0], True)
    assert dict(request.object.properties) == {"name": "7 = seven", "year": 7, "tags": ["a", "b"]}
    assert {name: image.content for name, image in request.object.images.items()} == {"image": b"picture"}
    assert sorted(request.update_mask.paths) == [
        "images.hashed", "images.image", "images.old",
        "properties.name", "properties.other", "properties.tags", "properties.year",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--set", "name"),
        ("--set", "year=x"),
        ("--set", "year=9007199254740993"),
        ("--set", "name=\udcff"),
        ("--set", "year=1", "--unset", "year"),
        ("--image", "image"),
    ],
)
def test_an_update_that_cannot_be_read_is_not_sent(fake: FakeVecgate, run: Run, arguments: tuple[str, ...]) -> None:
    assert run("update", "Pictures", IDS[0], *arguments).exit_code == 2
    assert not fake.requests["UpdateObject"]


def test_backfill_adds_up_names_failures_and_goes_on_after_a_stop(fake: FakeVecgate, run: Run) -> None:
    fake.failing["BackfillVectors page 2"] = [failure(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")]

    result = run("backfill", "Pictures", "--vector", "default", "--verify", "--from", IDS[0], "--tenant", "anna")

    assert (result.exit_code, result.stdout) == (
        1, "Pictures: 4 objects seen, 3 filled, 0 entered into the index again, 1 failed\n"
    )  # fmt: skip
    assert f"{IDS[4]} did not get its vectors: it failed" in result.stderr
    requests = fake.requests["BackfillVectors"]
    assert [each.page_token for each in requests] == [IDS[0], IDS[2]]
    assert all((each.vectors, each.verify, each.scope.tenant) == (["default"], True, "anna") for each in requests)


def test_backfill_that_gets_nowhere_says_where_to_go_on(fake: FakeVecgate, run: Run) -> None:
    fake.failing["BackfillVectors page 2"] = [failure(grpc.StatusCode.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED")]

    result = run("backfill", "Pictures")

    assert (result.exit_code, result.stdout) == (1, "Pictures: 2 objects seen, 2 filled, 0 failed\n")
    assert f"continue with --from {IDS[1]}" in result.stderr
