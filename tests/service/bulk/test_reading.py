import pickle
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.bulk.fetching import Web
from service.bulk.reading import Reading, read_fragment
from service.bulk.rows import Row, from_table
from service.core.objects.checks import DraftObject, check_object
from service.domain import Collection, DataType, NamedVector, Property, Space
from service.domain.keys import key_id
from service.sources.errors import InvalidSource
from service.sources.fragments import Fragment, fragments, schema
from service.sources.mapping import Mapping
from tests.fakes.embedder import picture

COLLECTION = Collection(
    "Photos",
    (Property("image", DataType.BLOB), Property("count", DataType.INT), Property("when", DataType.DATE)),
    (NamedVector("main", Space("fake", 3, "fake/model")),),
)
COUNTS = [1, 2, None]
PICTURES = [picture((each, 0, 0)) for each in range(3)]


def read_all(folder: Path, mapping: Mapping | None = None, damage: str = "") -> list[Row]:
    """Write a table of three rows, and return the rows that the stage makes of it."""
    columns = {"count": COUNTS, "image": PICTURES, "when": ["2026-01-31T08:00:00Z", "soon", None]}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    (found,) = fragments([str(folder)])
    plan = (mapping or Mapping()).bind(schema([found]), COLLECTION)
    told = Fragment(found.location, found.kind, found.part, found.identity + damage)
    items = pa.table({"name": ["f"], "fragment": [pickle.dumps(told)]})
    return [
        row
        for table in read_fragment(items, Reading(plan, COLLECTION, "", Web((), 0, 0.0)))
        for row in from_table(table)
    ]


def test_an_id_that_comes_from_the_content_is_the_one_that_the_service_gives(tmp_path: Path):
    rows = read_all(tmp_path)

    assert rows[0].object is not None
    properties = {**rows[0].object.properties, "count": 1.0}
    draft = DraftObject("", "", properties, {"image": PICTURES[0]})
    assert rows[0].object.properties["count"] == 1
    assert rows[0].id == check_object(COLLECTION, draft).id.bytes


def test_an_id_that_comes_from_a_column_is_the_one_that_an_import_gives(tmp_path: Path):
    rows = read_all(tmp_path, Mapping({"count": "id", "when": ""}))

    assert rows[0].id == UUID(key_id("Photos", "1")).bytes


def test_a_row_that_does_not_fit_is_rejected_with_its_place_and_the_others_go_on(tmp_path: Path):
    rows = read_all(tmp_path)

    assert [each.live for each in rows[:3]] == [True, False, True]
    assert (rows[1].reason, rows[1].place) == ("ROW_REFUSED", "a.parquet, row 2")
    assert rows[1].message.startswith("when: ")


def test_after_the_rows_of_a_fragment_comes_how_many_they_were(tmp_path: Path):
    rows = read_all(tmp_path)

    assert [(each.number, each.end) for each in rows] == [(0, False), (1, False), (2, False), (3, True)]
    assert rows[3].reason == ""


def test_a_file_that_has_changed_since_it_was_found_ends_with_that(tmp_path: Path):
    (end,) = read_all(tmp_path, damage="x")

    assert (end.end, end.reason) == (True, "SOURCE_UNREADABLE")
    assert "changed" in end.message


def read_references(folder: Path) -> list[Row]:
    """Return the rows that the stage makes of a table that refers to a picture that is missing, and to another one."""
    (folder / "b.png").write_bytes(b"x")
    (folder / "a.csv").write_text("image\ngone.png\nb.png\n")
    (found,) = fragments([str(folder)])
    plan = Mapping().bind(schema([found]), COLLECTION)
    items = pa.table({"name": ["f"], "fragment": [pickle.dumps(found)]})
    return [
        row
        for table in read_fragment(items, Reading(plan, COLLECTION, "", Web((), 0, 0.0)))
        for row in from_table(table)
    ]


def test_a_picture_that_is_missing_is_a_rejected_row_with_the_path_and_the_reason(tmp_path: Path):
    rejected, stored, end = read_references(tmp_path)

    assert rejected.reason == "ROW_REFUSED"
    assert rejected.message == f"image: the picture cannot be read: {tmp_path}/gone.png: there is no such file"
    assert (stored.live, end.number, end.reason) == (True, 2, "")


def test_a_picture_that_cannot_be_read_now_ends_the_fragment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(location: str, max_bytes: int) -> bytes:
        raise InvalidSource(location, "access is denied")

    monkeypatch.setattr("service.sources.mapping.read_file", denied)

    (end,) = read_references(tmp_path)

    assert (end.end, end.reason) == (True, "SOURCE_UNREADABLE")
    assert end.message == f"line 2: the picture cannot be read: {tmp_path}/gone.png: access is denied"
