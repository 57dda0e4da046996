"""`vecgate collections` with files and updates, against a server in memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from tests.fakes.server import FakeVecgate, serving
from vecgate.client import Client
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

WANTED = {
    "name": "Elsewhere",
    "description": "from a file",
    "properties": [
        {"name": "title", "data_type": "DATA_TYPE_TEXT", "tokenization": "TOKENIZATION_FIELD"},
        {
            "name": "maker",
            "data_type": "DATA_TYPE_OBJECT",
            "nested_properties": [{"name": "name", "data_type": "DATA_TYPE_TEXT"}],
        },
    ],
    "vectors": [
        {
            "name": "default",
            "text_fields": [{"name": "title"}],
            "index": {"hnsw": {"ef": 99}, "quantizer": {"rq": {"bits": 1}}},
        }
    ],
    "object_count": 7,
}


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "collection.json"
    path.write_text(json.dumps(WANTED))
    return str(path)


def run(fake: FakeVecgate, *arguments: str, **more: str) -> Result:
    return CliRunner().invoke(app, ["--address", fake.address, "collections", *arguments], **more)


def test_create_makes_what_a_file_says_under_another_name(fake: FakeVecgate, file: str) -> None:
    result = run(fake, "create", "Pictures", "--from", file)

    assert (result.exit_code, result.stderr) == (0, "")
    made = fake.requests["CreateCollection"][0].collection
    assert (made.name, made.description) == ("Pictures", "from a file")
    assert (made.vectors[0].index.hnsw.ef, made.vectors[0].index.quantizer.rq.bits) == (99, 1)
    assert made.properties[0].tokenization == property_pb.TOKENIZATION_FIELD


def test_what_show_prints_can_be_created_again(fake: FakeVecgate, file: str) -> None:
    run(fake, "create", "Pictures", "--from", file)

    shown = run(fake, "show", "Pictures", "--json").stdout
    result = run(fake, "create", "Copy", "--from", "-", input=shown)

    assert result.exit_code == 0
    first, second = (each.collection for each in fake.requests["CreateCollection"])
    assert list(first.properties) == list(second.properties)
    assert first.vectors[0].index == second.vectors[0].index
    table = run(fake, "show", "Pictures").stdout
    assert "hnsw, rq" in table
    assert "object" in table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be the JSON of a collection"),
        ('{"nope": 1}', "must be the JSON of a collection"),
        (None, "No such file"),
    ],
)
@pytest.mark.parametrize("command", ["create", "update"])
def test_a_file_that_cannot_be_read_ends_with_2(
    fake: FakeVecgate, tmp_path: Path, command: str, content: str | None, message: str
) -> None:
    path = tmp_path / "collection.json"
    if content is not None:
        path.write_text(content)

    result = run(fake, command, "Pictures", "--from", str(path))

    assert result.exit_code == 2
    assert message in result.stderr
    assert "CreateCollection" not in fake.requests


def test_a_file_does_not_go_with_fields(fake: FakeVecgate, file: str) -> None:
    result = run(fake, "create", "Pictures", "--from", file, "--text-field", "title")

    assert (result.exit_code, "CreateCollection" in fake.requests) == (2, False)


def test_update_sends_a_description_properties_and_a_file(fake: FakeVecgate, file: str) -> None:
    fake.add_collection("Pictures", title=property_pb.DATA_TYPE_TEXT)

    described = run(fake, "update", "Pictures", "--description", "")
    extended = run(fake, "update", "Pictures", "--property", "year:int", "--from", file)

    assert [described.exit_code, extended.exit_code] == [0, 0]
    first, second = fake.requests["UpdateCollection"]
    assert (first.collection, list(first.update_mask.paths)) == (pb.Collection(name="Pictures"), ["description"])
    assert [each.name for each in second.collection.properties] == ["title", "maker", "year"]
    assert (second.collection.vectors[0].index.hnsw.ef, list(second.update_mask.paths)) == (99, [])


def test_update_switches_the_default_vector_and_show_marks_it(fake: FakeVecgate) -> None:
    vectors = [pb.VectorConfig(name=each) for each in ("old", "new")]
    with Client(fake.address) as client:
        client.create_collection(pb.Collection(name="Pictures", vectors=vectors, default_vector="new"))

    result = run(fake, "update", "Pictures", "--default-vector", "new")

    assert result.exit_code == 0
    (sent,) = fake.requests["UpdateCollection"]
    assert sent.collection == pb.Collection(name="Pictures", default_vector="new")
    assert list(sent.update_mask.paths) == ["default_vector"]
    table = run(fake, "show", "Pictures").stdout
    assert "new (default)" in table
    assert "old (default)" not in table


def test_update_removes_named_vectors(fake: FakeVecgate) -> None:
    fake.add_collection("Pictures", title=property_pb.DATA_TYPE_TEXT)

    result = run(fake, "update", "Pictures", "--remove-vector", "old", "--remove-vector", "older")

    assert result.exit_code == 0
    (sent,) = fake.requests["UpdateCollection"]
    assert (sent.collection, list(sent.removed_vectors)) == (pb.Collection(name="Pictures"), ["old", "older"])


@pytest.mark.parametrize(
    ("command", "options", "wanted", "words"),
    [
        (
            "create",
            ["--ttl", "30d"],
            {"enabled": True, "delete_on": "_creationTimeUnix", "default_ttl_seconds": 2_592_000},
            "Objects expire 2592000 s after their creation.",
        ),
        (
            "create",
            ["--ttl", "-90s", "--ttl-from", "day"],
            {"enabled": True, "delete_on": "day", "default_ttl_seconds": -90},
            "Objects expire -90 s after the date in day.",
        ),
        ("update", ["--ttl", "12h"], {"enabled": True, "default_ttl_seconds": 43_200}, ""),
        ("update", ["--ttl-from", "update"], {"delete_on": "_lastUpdateTimeUnix"}, ""),
        ("update", ["--ttl", "off"], {"enabled": False}, ""),
        ("update", ["--description", "x", "--ttl", "off"], {"enabled": False}, ""),
        ("update", [], None, ""),
    ],
)  # fmt: skip
def test_options_say_how_long_objects_live_and_show_tells_it(
    fake: FakeVecgate, command: str, options: list[str], wanted: dict[str, Any] | None, words: str
) -> None:
    if command == "update":
        fake.add_collection("Pictures", title=property_pb.DATA_TYPE_TEXT)

    assert run(fake, command, "Pictures", *options).exit_code == 0

    (sent,) = fake.requests[f"{command.capitalize()}Collection"]
    assert sent.collection.HasField("object_ttl") is (wanted is not None)
    assert sent.collection.object_ttl == pb.ObjectTtlConfig(**(wanted or {}))
    if command == "update" and "--description" in options:
        assert "object_ttl" in sent.update_mask.paths
    if words:
        assert words in run(fake, "show", "Pictures").stdout


@pytest.mark.parametrize("time", ["30", "30w", "soon", "1.5h", ""])
def test_what_is_not_a_time_ends_with_2(fake: FakeVecgate, time: str) -> None:
    result = run(fake, "create", "Pictures", "--ttl", time)
    assert (result.exit_code, "CreateCollection" in fake.requests) == (2, False)
    assert "30d" in result.stderr


@pytest.mark.parametrize(
    ("command", "options", "fix"),
    [
        ("create", ["--ttl-from", "day"], "--ttl-from needs --ttl"),
        ("create", ["--ttl", "off", "--ttl-from", "day"], "leave out --ttl-from"),
        ("update", ["--ttl", "off", "--ttl-from", "update"], "leave out --ttl-from"),
    ],
)
def test_what_a_time_counts_from_is_refused_where_there_is_no_time(
    fake: FakeVecgate, command: str, options: list[str], fix: str
) -> None:
    result = run(fake, command, "Pictures", *options)
    assert (result.exit_code, list(fake.requests)) == (2, [])
    assert fix in result.stderr


def test_the_client_updates_with_a_mask_and_returns_the_collection(fake: FakeVecgate) -> None:
    fake.add_collection("Pictures", title=property_pb.DATA_TYPE_TEXT)

    with Client(fake.address) as client:
        updated = client.update_collection(pb.Collection(name="Pictures", description="x"), ["description"])

    assert updated == fake.collections["Pictures"]
    assert list(fake.requests["UpdateCollection"][0].update_mask.paths) == ["description"]


def test_create_makes_an_image_field_of_which_the_hash_is_kept(fake: FakeVecgate) -> None:
    result = run(fake, "create", "Pictures", "--property", "photo:blob_hash", "--image-field", "photo")
    shown = run(fake, "show", "Pictures")

    assert result.exit_code == 0
    (property_,) = fake.requests["CreateCollection"][0].collection.properties
    assert (property_.name, property_.data_type) == ("photo", 17)
    assert "blob_hash" in shown.stdout


def test_delete_says_which_aliases_would_lead_to_nothing(fake: FakeVecgate) -> None:
    fake.add_collection("Pictures")
    fake.aliases = {"Current": "Pictures", "Other": "Another"}

    kept = run(fake, "delete", "Pictures", input="n\n")

    assert (kept.exit_code, set(fake.collections)) == (1, {"Pictures"})
    assert "Its aliases, Current, will lead to nothing." in kept.output


def test_show_counts_the_objects_that_lack_a_vector(pictures: FakeVecgate) -> None:
    shown = run(pictures, "show", "Pictures", "--missing")
    refused = run(pictures, "show", "Pictures", "--missing", "--json")

    titles, row = shown.stdout.splitlines()[-2:]
    assert titles.endswith("objects without it")
    assert row.split()[-1] == "2", "one of each of the two parts of the fake"
    assert refused.exit_code == 2
