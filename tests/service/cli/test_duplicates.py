"""`vecgate duplicates`, and `--duplicates` of an import: what is asked for, found and shown."""

import json
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app, grouping
from service.cli.grouping import Member
from service.cli.pictures import picture_id
from tests.fakes.embedder import picture
from tests.fakes.server import FakeVecgate, serving
from vecgate.client import Client, Object
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import vector_index_pb2 as index_pb

Run = Callable[..., Result]
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e.png"


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        yield running


@pytest.fixture
def run(fake: FakeVecgate) -> Run:
    return lambda *arguments: CliRunner().invoke(app, ["--address", fake.address, *arguments])


def at(angle: float) -> list[float]:
    """Return a vector at an angle in degrees."""
    return [float(np.cos(np.radians(angle))), float(np.sin(np.radians(angle)))]


@pytest.fixture
def angles(fake: FakeVecgate) -> FakeVecgate:
    """Objects at angles: a chain of three, a pair, and one alone."""
    fake.add_collection("Pictures", image=property_pb.DATA_TYPE_BLOB, path=property_pb.DATA_TYPE_TEXT)
    fake.collections["Pictures"].vectors[0].image_fields.add(name="image")
    named = {HOSTILE: 0, "b.png": 4, "c.png": 8, "d.png": 90, "e.png": 91, "f.png": 200}
    objects = [
        Object({"path": name}, {"image": picture()}, {"default": at(angle)}, id=UUID(int=number))
        for number, (name, angle) in enumerate(named.items(), start=1)
    ]
    with Client(fake.address) as client:
        assert all(outcome.stored for outcome in client.import_objects("Pictures", objects))
    return fake


FIVE_DEGREES = ("--threshold", "0.996")


def test_objects_near_another_one_are_groups_with_their_cosines(run: Run, angles: FakeVecgate) -> None:
    result = run("duplicates", "Pictures", *FIVE_DEGREES, "--json")

    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["objects"], answer["without_vector"], answer["min_cosine"]) == (6, 0, 0.996)
    assert [[UUID(each["id"]).int for each in group] for group in answer["groups"]] == [[1, 2, 3], [4, 5]]
    cosines = [[each["cosine"] for each in group] for group in answer["groups"]]
    assert cosines == [[pytest.approx(np.cos(np.radians(4)), abs=1e-5)] * 3, [pytest.approx(0.999848, abs=1e-5)] * 2]
    request = angles.requests["SearchObjects"][0]
    assert (list(request.target_vectors), list(request.output.vectors)) == (["default"], ["default"])
    assert request.distance == pytest.approx(0.024)


def test_a_table_names_the_objects_and_cannot_control_the_terminal(run: Run, angles: FakeVecgate) -> None:
    result = run("duplicates", "Pictures", *FIVE_DEGREES)

    lines = result.stdout.splitlines()
    assert lines[0].split() == ["group", "id", "path", "cosine"]
    assert lines[-1] == "Pictures: 2 groups with 5 objects among 6"
    assert [line.split()[0] for line in lines[1:-1]] == ["1", "1", "1", "2", "2"]
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout


def test_the_limit_filters_tenant_and_vector_are_those_asked_for(run: Run, angles: FakeVecgate) -> None:
    result = run(
        "duplicates", "Pictures", *FIVE_DEGREES, "--limit", "2", "--where", "path=b*", "--tenant", "anna", "--json"
    )

    assert json.loads(result.stdout)["objects"] == 2
    assert len(angles.requests["SearchObjects"]) == 2
    for method in ("ListObjects", "SearchObjects"):
        request = angles.requests[method][0]
        assert "path" in str(request.filters)
        assert request.scope.tenant == "anna"


def test_of_another_distance_all_neighbours_are_compared(run: Run, angles: FakeVecgate) -> None:
    angles.collections["Pictures"].vectors[0].index.distance = index_pb.DISTANCE_DOT

    result = run("duplicates", "Pictures", *FIVE_DEGREES, "--json")

    assert [len(group) for group in json.loads(result.stdout)["groups"]] == [3, 2]
    assert not angles.requests["SearchObjects"][0].HasField("distance")


class _Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_has_the_pictures_and_no_code_whatever_the_names_are(
    run: Run, angles: FakeVecgate, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"

    result = run("duplicates", "Pictures", *FIVE_DEGREES, "--html", str(file))

    assert result.exit_code == 0, result.output
    text = file.read_text(encoding="utf-8")
    page = _Page(text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5
    assert all((each["src"] or "").startswith("data:image/jpeg;base64,/9j/") for each in images)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>alert(1)</script>" in page.words, "as words"
    assert "http" not in text.replace("http-equiv", "")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "default-src 'none'" in text


def test_an_object_that_is_gone_is_on_the_page_without_its_picture(
    run: Run, angles: FakeVecgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.duplicates_page.PICTURES", 2)
    found = grouping.find_groups

    def find(*arguments: object) -> grouping.Found:
        answer = found(*arguments)  # type: ignore[arg-type]
        del angles.objects["Pictures"][answer.groups[0][0].id]
        return answer

    monkeypatch.setattr("service.cli.duplicates.find_groups", find)

    result = run("duplicates", "Pictures", *FIVE_DEGREES, "--html", str(tmp_path / "page.html"))

    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<img") == 1
    assert "the page has the first 2 pictures" in result.stderr


def test_groups_are_joined_in_any_order_and_a_member_has_its_greatest_cosine() -> None:
    links = grouping._Links()
    pairs = [("a", "b", 0.9), ("c", "d", 0.8), ("e", "f", 0.7), ("d", "a", 0.95), ("b", "c", 0.5)]
    for one, other, cosine in pairs:
        links.join(Member(one, one, cosine), Member(other, other, cosine))

    groups = links.groups()

    assert [[each.id for each in group] for group in groups] == [["a", "b", "c", "d"], ["e", "f"]]
    assert [each.cosine for each in groups[0]] == [0.95, 0.9, 0.8, 0.95]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--threshold", "0"), "more than 0"),
        (("--threshold", "1.5"), "less than or equal to"),
        (("--vector", "nope"), "no named vector 'nope'; it has: default"),
    ],
)
def test_wrong_options_end_the_command(run: Run, angles: FakeVecgate, arguments: tuple[str, ...], words: str) -> None:
    result = run("duplicates", "Pictures", *arguments)

    assert result.exit_code == 2
    assert words in result.stderr


def test_a_collection_without_stored_pictures_needs_a_threshold(run: Run, fake: FakeVecgate) -> None:
    fake.add_collection("Texts", title=property_pb.DATA_TYPE_TEXT)

    without = run("duplicates", "Texts", "--vector", "default")
    given = run("duplicates", "Texts", "--vector", "default", "--threshold", "0.9")

    assert (without.exit_code, given.exit_code) == (2, 0)
    assert "give --threshold" in without.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        (tmp_path / name).write_bytes(picture((number, 0, 0)))
    return tmp_path


@pytest.mark.parametrize(
    ("action", "counts"),
    [("skip", "1 stored, 0 failed, 2 left out as duplicates"), ("report", "3 stored, 0 failed")],
)
def test_an_import_leaves_duplicates_out_or_lists_them(
    run: Run, fake: FakeVecgate, folder: Path, action: str, counts: str
) -> None:
    a, b, c = (picture_id("Pictures", f"{name}.png") for name in "abc")
    fake.duplicates = {
        b: object_pb.Duplicate(id=a, cosine=1, same_content=True),
        c: object_pb.Duplicate(id="elsewhere", cosine=0.98765),
    }

    result = run(
        "import", str(folder), "--collection", "Pictures", "--duplicates", action, "--threshold", "0.97",
        "--resume", str(folder / "journal"),
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"Pictures: {counts}",
        "duplicates (2)",
        "  b.png: a.png, the same content",
        "  c.png: elsewhere, cosine 0.9877",
    ]
    check = fake.requests["ImportObjects"][0].duplicates
    assert check == object_pb.DuplicateCheck(
        action=object_pb.DuplicateAction.Value(f"DUPLICATE_ACTION_{action.upper()}"),
        min_cosine=0.97,
        target_vector="default",
    )
    assert len(fake.objects["Pictures"]) == (1 if action == "skip" else 3)
    assert ((folder / "journal").read_text().count("\n")) == (2 if action == "skip" else 4), "only what is stored"


def test_without_a_threshold_an_import_measures_one_with_its_pictures(
    run: Run, fake: FakeVecgate, folder: Path
) -> None:
    (folder / "broken.png").write_bytes(b"no picture")

    result = run("import", str(folder), "--collection", "Pictures", "--duplicates", "report")

    assert result.exit_code == 0, result.output
    assert "measured with 3 pictures" in result.stderr
    assert [len(each.inputs) for each in fake.requests["EmbedInputs"]] == [4, 4, 4]
    assert 0 < fake.requests["ImportObjects"][0].duplicates.min_cosine <= 1


def test_a_threshold_alone_is_refused(run: Run, folder: Path) -> None:
    result = run("import", str(folder), "--collection", "Pictures", "--threshold", "0.9")

    assert result.exit_code == 2
    assert "--duplicates" in result.stderr
