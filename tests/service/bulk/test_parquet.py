import threading
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.bulk.ledger import LedgerFailed
from service.bulk.parquet import ParquetOutput, checked_location, schema_of
from service.bulk.rows import Row
from service.domain import Collection, DataType, NamedVector, ObjectValue, Property, Space, StoredObject
from service.errors import InvalidRequest
from service.sources.fragments import fragments, schema

SPACE = Space("clip:tiny:1", 3, "tiny")
COLLECTION = Collection(
    "Photos",
    (
        Property("image", DataType.BLOB),
        Property("tags", DataType.TEXT_ARRAY),
        Property("count", DataType.INT),
        Property("place", DataType.GEO_COORDINATES),
        Property("maker", DataType.OBJECT, nested=(Property("name", DataType.TEXT),)),
    ),
    (NamedVector("image", SPACE), NamedVector("other", SPACE)),
)
RUN = "0" * 8
NAMES = [each.name for each in COLLECTION.properties]


def row(fragment: str, number: int) -> Row:
    properties = {
        "tags": ["a", "b"],
        "count": number,
        "place": {"latitude": 1.0, "longitude": 2.0},
        "maker": ObjectValue(name="x"),
    }
    vector = np.array([number, 1, 2], np.float32)
    stored = StoredObject(UUID(int=number), properties, {"image": b"png"}, {"image": vector})
    return Row(fragment, number, object=stored, id=stored.id.bytes)


def output_at(folder: Path) -> ParquetOutput:
    return ParquetOutput(str(folder), schema_of(COLLECTION, NAMES, {"image": 3, "other": 3}), RUN)


def test_objects_are_rows_with_their_values_pictures_and_vectors(tmp_path: Path):
    output_at(tmp_path).write([row("a" * 32, 7)])

    (found,) = pq.read_table(tmp_path).to_pylist()
    assert found == {
        "id": str(UUID(int=7)),
        "image": b"png",
        "tags": ["a", "b"],
        "count": 7,
        "place": {"latitude": 1.0, "longitude": 2.0},
        "maker": {"name": "x"},
        "vector_image": [7.0, 1.0, 2.0],
        "other": None,
    }


def test_the_space_of_vectors_is_in_the_file_and_is_read_from_there(tmp_path: Path):
    output = ParquetOutput(str(tmp_path), schema_of(COLLECTION, ["count"], {"image": 3}), RUN)

    output.write([row("a" * 32, 7)])

    (file,) = tmp_path.iterdir()
    told = pq.read_schema(file).metadata
    assert {told[each] for each in (b"vecgate.space", b"vecgate.embedder", b"vecgate.dimension")} == {
        b"clip:tiny:1",
        b"tiny",
        b"3",
    }
    column = schema(fragments([str(tmp_path)])).find("image")
    assert column is not None
    assert (column.space, column.length) == ("clip:tiny:1", 3)


def test_the_same_batch_again_replaces_its_files_and_each_fragment_has_its_own(tmp_path: Path):
    output, batch = output_at(tmp_path), [row("a" * 32, 0), row("b" * 32, 5), row("a" * 32, 1)]

    output.write(batch)
    output.write(batch)

    assert output.count({"a" * 32, "b" * 32}) == {"a" * 32: 2, "b" * 32: 1}
    assert output.count({"a" * 32}) == {"a" * 32: 2}
    assert sorted(each.name[:33] for each in tmp_path.iterdir()) == ["a" * 32 + "-", "b" * 32 + "-"]


def test_a_batch_of_which_other_rows_are_rejected_the_next_time_replaces_its_file(tmp_path: Path):
    output, name = output_at(tmp_path), "a" * 32
    first, again = [row(name, number) for number in (4, 5, 6)], [row(name, number) for number in (4, 5, 6)]
    first[1].reject("STORE_REJECTED", "no room")
    again[0].reject("STORE_REJECTED", "no room")

    output.write(first)
    output.write([*again, Row(name, 3, end=True)])

    (file,) = tmp_path.iterdir()
    assert pq.read_table(file)["count"].to_pylist() == [5, 6]


def test_files_are_counted_several_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output, names = output_at(tmp_path), ("a" * 32, "b" * 32)
    output.write([row(name, 0) for name in names])
    rows_of, both = ParquetOutput._rows_of, threading.Barrier(2, timeout=300)

    def counting(own: ParquetOutput, path: str) -> int:
        # Each waits until the other one has begun.
        both.wait()
        return rows_of(own, path)

    monkeypatch.setattr(ParquetOutput, "_rows_of", counting)

    assert output.count(names) == dict.fromkeys(names, 1)


def test_only_files_of_fragments_without_an_entry_or_with_one_of_another_command_are_removed(tmp_path: Path):
    output, done = output_at(tmp_path / "out"), "a" * 32
    replace(output, run="1" * 8).write([row(done, 0), row(done, 1)])
    output.write([row(done, 0), row("b" * 32, 0)])
    (theirs,) = (tmp_path / "out").glob("b*")
    others = ["notes.txt", "part-0.parquet", f"sub/{theirs.name}", f"{'c' * 32}.parquet"]
    (tmp_path / "out" / "sub").mkdir()
    for each in others:
        (tmp_path / "out" / each).write_bytes(theirs.read_bytes())

    output.remove(output.left_by_others({done: RUN}))

    assert not theirs.exists()
    assert all((tmp_path / "out" / each).exists() for each in others)
    assert output.count({done, "b" * 32}) == {done: 1}


def test_the_output_of_another_ledger_is_refused(tmp_path: Path):
    output_at(tmp_path).check("")
    output_at(tmp_path).claim("one")
    output_at(tmp_path).check("one")

    for other in ("two", ""):
        with pytest.raises(InvalidRequest, match="output of another ledger"):
            output_at(tmp_path).check(other)


def test_an_output_is_an_absolute_path_or_a_url_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    assert checked_location("out") == str(tmp_path / "out")
    assert checked_location("s3://bucket/out/") == "s3://bucket/out/"
    for url in ("file:///x", "https://example.com/x"):
        with pytest.raises(InvalidRequest, match="cannot be written; name a local path"):
            checked_location(url)


def test_an_output_that_cannot_be_listed_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(LedgerFailed, match=str(tmp_path / "file")):
        output_at(tmp_path / "file").left_by_others({})
