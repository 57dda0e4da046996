"""`vecgate import`: folders with and without tables, second runs, and everything that goes wrong."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from service.cli.pictures import picture_id
from tests.fakes.server import FakeVecgate, serving
from tests.fakes.statuses import failure
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb

ROOT = Path(__file__).parents[3]
Import = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures and a table of them."""
    for name in ("a.png", "b.jpg", "sub/c.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "pictures.csv").write_text(
        "file,name,keywords\na.png,A,x; y\nb.jpg,B,\nsub/c.webp,C,z\n", encoding="utf-8"
    )
    return tmp_path


@pytest.fixture
def import_(fake: FakeVecgate, folder: Path) -> Import:
    return lambda *options: CliRunner().invoke(
        app, ["--address", fake.address, "import", str(folder), "--collection", "Pictures", *options]
    )


def test_pictures_and_their_properties_are_stored_and_the_collection_is_created(
    import_: Import, fake: FakeVecgate
) -> None:
    result = import_("--text-field", "name=0.3", "--embedder", "fake")

    assert (result.exit_code, result.stdout) == (0, "Pictures: 3 stored, 0 failed\n")
    assert result.stderr == "the collection Pictures is created\n"
    stored = fake.objects["Pictures"][picture_id("Pictures", "sub/c.webp")]
    assert dict(stored.properties) == {"path": "sub/c.webp", "name": "C", "keywords": "z"}
    assert stored.images["image"].content == b"sub/c.webp"
    vector = fake.collections["Pictures"].vectors[0]
    assert (vector.name, vector.embedder) == ("default", "fake")
    assert [each.name for each in vector.image_fields] == ["image"]
    assert [each.name for each in vector.text_fields] == ["name"]


def test_a_second_run_changes_nothing(import_: Import, fake: FakeVecgate) -> None:
    import_()
    before = dict(fake.objects["Pictures"])

    result = import_()

    assert result.exit_code == 0
    assert fake.objects["Pictures"] == before
    assert len(fake.requests["CreateCollection"]) == 1


def test_a_jsonl_gives_typed_properties(import_: Import, fake: FakeVecgate, folder: Path) -> None:
    (folder / "pictures.csv").unlink()
    lines = [{"file": "a.png", "year": 2020, "tags": ["x"]}, {"file": "b.jpg", "year": 2021, "tags": []}]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    result = import_()

    assert result.exit_code == 0
    assert {each.name: each.data_type for each in fake.collections["Pictures"].properties}[
        "year"
    ] == property_pb.DATA_TYPE_INT
    assert "pictures without a row in p.jsonl, so without its properties (1)\n  sub/c.webp\n" in result.stdout


def test_failures_are_grouped_by_reason_with_their_files(import_: Import, fake: FakeVecgate, folder: Path) -> None:
    (folder / "b.jpg").unlink()
    (folder / "b.jpg").symlink_to(folder / "nowhere")
    fake.refuse = lambda each: (
        None
        if each.properties["path"] == "d.png"
        else failure(
            grpc.StatusCode.INVALID_ARGUMENT,
            "IMAGE_UNDECODABLE",
            "objects[0] is bad",
            violations=((f"objects[{each.id}].images", "is not a picture", "IMAGE_UNDECODABLE"),),
        )
    )
    (folder / "d.png").write_bytes(b"d")

    result = import_()

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "Pictures: 1 stored, 3 failed",
        "the file cannot be read: No such file or directory (1)",
        "  b.jpg",
        "IMAGE_UNDECODABLE: is not a picture (2)",
        "  a.png",
        "  sub/c.webp",
        "pictures without a row in pictures.csv, so without its properties (1)",
        "  d.png",
    ]


def test_a_row_without_a_picture_is_reported_and_ends_with_1(import_: Import, folder: Path) -> None:
    (folder / "a.png").unlink()

    result = import_()

    assert result.exit_code == 1
    assert (
        result.stdout == "Pictures: 2 stored, 0 failed\nrows of pictures.csv without a picture (1)\n  a.png (line 2)\n"
    )


def test_a_faulty_table_stops_everything_before_a_call(import_: Import, fake: FakeVecgate, folder: Path) -> None:
    (folder / "pictures.csv").unlink()
    (folder / "p.jsonl").write_text('{"file": "a.png"}\n{"file": }\n', encoding="utf-8")

    result = import_()

    assert result.exit_code == 2
    assert "line 2 is not JSON" in result.stderr
    assert dict(fake.requests) == {}


def test_a_table_elsewhere_is_taken_and_no_table_too(
    import_: Import, fake: FakeVecgate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("tables") / "t.csv"
    elsewhere.write_text("file,title\na.png,T\n", encoding="utf-8")

    import_("--properties", str(elsewhere), "--limit", "1")

    assert [dict(each.properties) for each in fake.objects["Pictures"].values()] == [{"path": "a.png", "title": "T"}]
    result = import_("--no-properties")
    assert result.exit_code == 0
    assert len(fake.objects["Pictures"]) == 3


def test_a_folder_without_pictures_is_wrong_use(fake: FakeVecgate, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")

    result = CliRunner().invoke(app, ["--address", fake.address, "import", str(tmp_path), "--collection", "P"])

    assert result.exit_code == 2
    assert "holds no pictures (apng, avif, " in result.stderr
    assert "ignored:\n  .txt (1): notes.txt\n" in result.stderr


def test_a_collection_that_cannot_take_the_pictures_is_refused(import_: Import, fake: FakeVecgate) -> None:
    fake.add_collection("Pictures", title=property_pb.DATA_TYPE_TEXT)
    no_image = import_()
    fake.add_collection("Pictures", image=property_pb.DATA_TYPE_BLOB, name=property_pb.DATA_TYPE_TEXT)
    no_column = import_()

    assert (no_image.exit_code, no_column.exit_code) == (2, 2)
    assert "no blob property 'image'" in no_image.stderr
    assert "no property keywords" in no_column.stderr
    assert fake.requests["ImportObjects"] == []


def test_a_collection_without_a_path_gets_none(import_: Import, fake: FakeVecgate) -> None:
    text = property_pb.DATA_TYPE_TEXT
    fake.add_collection("Pictures", image=property_pb.DATA_TYPE_BLOB, name=text, keywords=text)

    result = import_("--text-field", "name")

    assert result.exit_code == 0
    assert "--text-field is not applied" in result.stderr
    assert dict(fake.objects["Pictures"][picture_id("Pictures", "b.jpg")].properties) == {"name": "B"}


def test_pictures_go_into_a_collection_that_keeps_their_hashes(import_: Import, fake: FakeVecgate) -> None:
    text = property_pb.DATA_TYPE_TEXT
    fake.add_collection("Pictures", image=property_pb.DATA_TYPE_BLOB_HASH, name=text, keywords=text)

    assert import_().exit_code == 0
    assert fake.objects["Pictures"][picture_id("Pictures", "b.jpg")].images["image"].content


def test_an_unknown_text_field_is_wrong_use(import_: Import, fake: FakeVecgate) -> None:
    assert import_("--text-field", "nmae").exit_code == 2
    assert fake.requests["CreateCollection"] == []


def test_an_import_that_stops_says_how_far_it_came(import_: Import, fake: FakeVecgate) -> None:
    fake.failing["ImportObjects"] = [
        failure(grpc.StatusCode.FAILED_PRECONDITION, "EMBEDDING_SPACE_MISMATCH", "two spaces")
    ]

    result = import_()

    assert result.exit_code == 1
    assert result.stdout == "Pictures: 0 stored, 0 failed, 3 not imported because the import stopped\n"
    assert result.stderr.endswith("error: EMBEDDING_SPACE_MISMATCH: two spaces\n")


def test_truncation_is_asked_for_only_on_wish(import_: Import, fake: FakeVecgate) -> None:
    import_()
    import_("--truncate")

    assert [each.truncate for each in fake.requests["ImportObjects"]] == [False, True]


def test_a_journal_passes_over_what_is_stored_and_not_what_has_changed(
    import_: Import, fake: FakeVecgate, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = tmp_path_factory.mktemp("journals") / "done"
    fake.refuse = lambda each: failure(grpc.StatusCode.INTERNAL) if each.properties["name"] == "B" else None
    assert import_("--resume", str(journal)).exit_code == 1
    fake.refuse = lambda _: None
    (folder / "a.png").write_bytes(b"another")
    fake.requests["ImportObjects"].clear()

    result = import_("--resume", str(journal))

    assert (result.exit_code, result.stdout) == (0, "Pictures: 2 stored, 0 failed, 1 stored before\n")
    (request,) = fake.requests["ImportObjects"]
    assert [each.properties["path"] for each in request.objects] == ["a.png", "b.jpg"]
    assert import_("--resume", str(journal)).stdout == "Pictures: 0 stored, 0 failed, 3 stored before\n"
    (folder / "pictures.csv").write_text("file,name,keywords\na.png,A,new\n", encoding="utf-8")
    assert import_("--resume", str(journal)).stdout.startswith("Pictures: 3 stored, 0 failed\n")


def test_a_journal_counts_for_nothing_when_the_collection_is_empty_or_another_one(
    import_: Import, fake: FakeVecgate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = tmp_path_factory.mktemp("journals") / "done"
    import_("--resume", str(journal))
    assert "3 stored, 0 failed\n" in import_("--resume", str(journal), "--collection", "Others").stdout
    fake.objects["Pictures"].clear()
    assert import_("--resume", str(journal)).stdout == "Pictures: 3 stored, 0 failed\n"


def test_what_a_journal_lists_and_the_collection_lacks_is_imported_again_and_said(
    import_: Import, fake: FakeVecgate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Weaviate may have been restored from an older backup, and the collection made anew."""
    journal = tmp_path_factory.mktemp("journals") / "done"
    import_("--resume", str(journal))
    del fake.objects["Pictures"][picture_id("Pictures", "b.jpg")]

    result, again = import_("--resume", str(journal)), import_("--resume", str(journal))

    assert result.stdout == "Pictures: 1 stored, 0 failed, 2 stored before\n"
    assert f"1 of 3 objects that {journal} lists are not in Pictures, so their rows are imported" in result.stderr
    assert again.stdout == "Pictures: 0 stored, 0 failed, 3 stored before\n"
    assert again.stderr == f"looking for 3 objects that {journal} lists\n"


def test_a_journal_is_believed_where_its_reader_may_not_look(
    import_: Import, fake: FakeVecgate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = tmp_path_factory.mktemp("journals") / "done"
    import_("--resume", str(journal))
    fake.failing["ListObjects"] = [failure(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "it may not list")]

    result = import_("--resume", str(journal))

    assert result.stdout == "Pictures: 0 stored, 0 failed, 3 stored before\n"
    assert f"what {journal} lists is taken for stored and not looked for: it may not list" in result.stderr

    fake.objects["Pictures"].clear()
    fake.failing["ListObjects"] = [failure(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "it may not list")]
    assert import_("--resume", str(journal)).stdout == "Pictures: 3 stored, 0 failed\n"


def test_a_line_that_was_cut_off_counts_for_nothing_and_spoils_nothing(
    import_: Import, tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = tmp_path_factory.mktemp("journals") / "done"
    import_("--resume", str(journal))
    journal.write_bytes(journal.read_bytes()[:-10])
    assert "1 stored, 0 failed, 2 stored before" in import_("--resume", str(journal)).stdout
    assert "0 stored, 0 failed, 3 stored before" in import_("--resume", str(journal)).stdout


def test_a_file_that_is_no_journal_is_left_alone(
    import_: Import, fake: FakeVecgate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("journals") / "letter"
    other.write_text("Dear all")
    result = import_("--resume", str(other))
    assert (result.exit_code, other.read_text()) == (2, "Dear all")
    assert not fake.objects["Pictures"]


def test_an_import_that_is_killed_goes_on_with_what_is_not_stored(
    fake: FakeVecgate, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for number in range(300):
        (folder / f"{number:03}.png").write_bytes(b"%d" % number)
    journal = tmp_path_factory.mktemp("journals") / "done"
    fake.limits.max_objects = 10
    options = ["import", str(folder), "--collection", "Pictures", "--no-properties", "--resume", str(journal)]
    command = [sys.executable, "-m", "service", "--address", fake.address, *options]
    came = threading.Semaphore(0)
    going_on = threading.Event()

    def slow(_: object_pb.DataObject) -> None:
        came.release()
        if len(fake.objects["Pictures"]) > 100:
            going_on.wait(120)

    fake.refuse = slow
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        assert came.acquire(timeout=120)
    running.kill()
    running.wait()
    going_on.set()
    fake.refuse = lambda _: None
    fake.requests["ImportObjects"].clear()

    result = CliRunner().invoke(app, ["--address", fake.address, *options])

    sent = sum(len(request.objects) for request in fake.requests["ImportObjects"])
    # A kill in the middle of a write leaves a line that was cut off, which counts for nothing.
    noted = re.findall(r"^(\S{36}) \w{64}$", journal.read_text(), re.MULTILINE)
    assert (result.exit_code, sorted(noted)) == (0, sorted(fake.objects["Pictures"]))
    assert 50 <= 303 - sent <= 120, "most of what was stored before is not sent again"
    assert len(fake.objects["Pictures"]) == 303
    assert f"{sent} stored, 0 failed, {303 - sent} stored before" in result.stdout
