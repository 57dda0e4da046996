"""Parquet of several writers becomes objects by a mapping alone, and damaged files say where."""

import json
import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.domain.collections import DataType, Property
from service.domain.objects import ObjectValue
from service.sources import InvalidMapping, InvalidSource, Mapping, fragments, read, schema
from tests.service.sources.making import collection, objects_of, rows_of

PICTURE = b"\x89PNG"
ID = "6f0c9a52-3f7e-4d0b-9a39-0b5f6a0f4c1e"


def write(folder: Path, columns: dict[str, Any], **options: Any) -> list[Any]:
    path = folder / "t.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return fragments([str(path)])


EVERY_TYPE: dict[str, Any] = {
    "title": pa.array(["a", None], pa.large_string()),
    "kind": pa.array(["x", "x"]).dictionary_encode(),
    "whole": pa.array([1.0, None]),
    "price": pa.array([Decimal("1.50"), None]),
    "day": pa.array([date(2026, 1, 31), None]),
    "time": pa.array([1, None], pa.timestamp("ns")),
    "zoned": pa.array([1, None], pa.timestamp("s", "Europe/Berlin")),
    "tags": pa.array([["a"], []], pa.large_list(pa.string())),
    "shares": pa.array([[0.5, 1], None], pa.list_(pa.float16(), 2)),
    "ok": pa.array([True, None]),
    "key": pa.array([UUID(ID).bytes, None], pa.uuid()),
    "maker": pa.array([{"name": "m", "since": 1999}, None]),
    "where": pa.array([{"latitude": 1.0, "longitude": 2.0}, None]),
    "parts": pa.array(
        [[{"name": "p", "since": None}], None], pa.list_(pa.struct({"name": pa.string(), "since": pa.int8()}))
    ),
    "image": pa.array([PICTURE, None], pa.large_binary()),
}


def test_every_type_of_arrow_that_a_property_has_arrives_as_its_value(tmp_path: Path) -> None:
    found = write(tmp_path, EVERY_TYPE)
    nested = (Property("name", DataType.TEXT), Property("since", DataType.INT))
    here = collection(
        Property("maker", DataType.OBJECT, nested=nested),
        Property("parts", DataType.OBJECT_ARRAY, nested=nested),
        title=DataType.TEXT,
        kind=DataType.TEXT,
        whole=DataType.INT,
        price=DataType.NUMBER,
        day=DataType.DATE,
        time=DataType.DATE,
        zoned=DataType.DATE,
        tags=DataType.TEXT_ARRAY,
        shares=DataType.NUMBER_ARRAY,
        ok=DataType.BOOLEAN,
        key=DataType.UUID,
        where=DataType.GEO_COORDINATES,
        image=DataType.BLOB,
    )

    (full, bare), refused = objects_of(found, Mapping().bind(schema(found), here))

    assert refused == []
    assert full.images == {"image": PICTURE}
    assert full.properties == {
        "title": "a",
        "kind": "x",
        "whole": 1,
        "price": 1.5,
        "day": "2026-01-31T00:00:00+00:00",
        "time": "1970-01-01T00:00:00+00:00",
        "zoned": "1970-01-01T01:00:01+01:00",
        "tags": ["a"],
        "shares": [0.5, 1.0],
        "ok": True,
        "key": ID,
        "maker": {"name": "m", "since": 1999},
        "where": {"latitude": 1.0, "longitude": 2.0},
        "parts": [{"name": "p"}],
    }
    assert isinstance(full.properties["maker"], ObjectValue)
    assert not isinstance(full.properties["where"], ObjectValue)
    assert (bare.properties, bare.images) == ({"kind": "x", "tags": []}, {})


def by_duckdb(path: Path) -> None:
    duckdb.sql(
        f"""COPY (SELECT 7::HUGEINT % 10 AS n, 'a' AS name, [1, 2] AS sizes, DATE '2026-01-31' AS day,
        TIMESTAMP '2026-01-31 08:00:00' AS time, {{'maker': 'm'}} AS meta, 'abc'::BLOB AS picture,
        1.25::DECIMAL(9, 2) AS price, '{ID}'::UUID AS code) TO '{path}' (FORMAT parquet)"""
    )


def by_pandas(path: Path) -> None:
    frame = pd.DataFrame(
        {
            "n": [7.0],
            "name": pd.Categorical(["a"]),
            "sizes": [[1, 2]],
            "day": [date(2026, 1, 31)],
            "time": pd.to_datetime(["2026-01-31 08:00:00"]),
            "meta": [{"maker": "m"}],
            "picture": [b"abc"],
            "price": [1.25],
            "code": [ID],
        },
        index=["row"],
    )
    frame.to_parquet(path)


def like_spark(path: Path) -> None:
    """Write as Spark's writer does, as far as pyarrow imitates it (`flavor="spark"`, old timestamps); no Spark runs."""
    table = pa.table(
        {
            "n": pa.array([7], pa.int16()),
            "name": ["a"],
            "sizes": [[1, 2]],
            "day": [date(2026, 1, 31)],
            "time": pa.array([datetime(2026, 1, 31, 8, tzinfo=UTC)], pa.timestamp("ns", "UTC")),
            "meta": [{"maker": "m"}],
            "picture": [b"abc"],
            "price": [Decimal("1.25")],
            "code": [ID],
        }
    )
    pq.write_table(
        table,
        path,
        use_deprecated_int96_timestamps=True,
        use_compliant_nested_type=False,
        store_schema=False,
        version="1.0",
        data_page_version="1.0",
        flavor="spark",
    )


@pytest.mark.parametrize("writer", [by_duckdb, by_pandas, like_spark])
def test_what_others_wrote_comes_in_by_a_mapping_alone(writer: Callable[[Path], None], tmp_path: Path) -> None:
    writer(tmp_path / "others.parquet")
    (tmp_path / "map.toml").write_text(
        '[columns]\nn = "number"\nname = "title"\n"meta.maker" = "maker"\npicture = "image"\ncode = "id"\n'
    )
    here = collection(
        number=DataType.INT,
        title=DataType.TEXT,
        sizes=DataType.INT_ARRAY,
        day=DataType.DATE,
        time=DataType.DATE,
        maker=DataType.TEXT,
        price=DataType.NUMBER,
        image=DataType.BLOB,
    )
    found = fragments([str(tmp_path)])

    plan = Mapping.load(tmp_path / "map.toml").bind(schema(found), here)
    (made,), refused = objects_of(found, plan)

    assert refused == []
    assert made.id == ID
    assert made.images == {"image": b"abc"}
    assert made.properties == {
        "number": 7,
        "title": "a",
        "sizes": [1, 2],
        "day": "2026-01-31T00:00:00+00:00",
        "time": "2026-01-31T08:00:00+00:00",
        "maker": "m",
        "price": 1.25,
    }


def test_every_fault_of_a_mapping_is_told_before_a_row_is_read(tmp_path: Path) -> None:
    found = write(tmp_path, {"title": ["a"], "tags": [["a"]], "n": [1.5], "span": pa.array([1], pa.duration("s"))})
    here = collection(title=DataType.INT, tags=DataType.TEXT, n=DataType.BOOLEAN, image=DataType.BLOB)
    mapping = Mapping({"gone": "title", "span": "image", "n": "nothing"}, spaces={"other": "x"})

    with pytest.raises(InvalidMapping) as caught:
        mapping.bind(schema(found), here)

    assert caught.value.faults == (
        "there is no column 'gone'; there are title, tags, n, span",
        "'span': the property 'image' is blob, the column duration[s]",
        "'n': the collection Things has no property or vector 'nothing'",
        "'title': the property 'title' is int, the column string",
        "'tags': the property 'tags' is text, the column list<element: string>",
        "[spaces]: the collection Things has no named vector 'other'",
    )


def test_rows_with_a_fault_are_refused_alone_with_file_row_and_column(tmp_path: Path) -> None:
    found = write(tmp_path, {"n": [1.0, 2.5, float("nan")], "sku": ["a", None, "c"]}, row_group_size=1)
    plan = Mapping({"sku": "id"}).bind(schema(found), collection(n=DataType.INT, sku=DataType.TEXT))

    made, refused = objects_of(found, plan)

    assert [(each.properties, bool(each.id)) for each in made] == [({"n": 1}, True)]
    assert refused == [
        "t.parquet, row 2: n: it is not a whole number: 2.5",
        "t.parquet, row 3: nothing in it becomes a property, an image or a vector",
    ]


def test_a_value_that_python_does_not_have_refuses_its_row_alone(tmp_path: Path) -> None:
    found = write(tmp_path, {"time": pa.array([2**62, 0], pa.timestamp("us"))})

    (made,), (refused,) = objects_of(found, Mapping().bind(schema(found), collection(time=DataType.DATE)))

    assert made.properties == {"time": "1970-01-01T00:00:00+00:00"}
    assert refused.startswith("t.parquet, row 1: a value cannot be read: time: ")


def test_a_zone_with_seconds_is_written_in_whole_minutes_at_the_same_moment(tmp_path: Path) -> None:
    found = write(tmp_path, {"time": pa.array([-2_840_140_800], pa.timestamp("s", "Europe/Berlin"))})

    (made,), _ = objects_of(found, Mapping().bind(schema(found), collection(time=DataType.DATE)))

    assert made.properties == {"time": "1880-01-01T00:54:00+00:54"}


@pytest.mark.parametrize("time", ["9999-12-31T23:59:45+00:00:30", "2026-01-01T00:00:00+23:59:30"])
def test_a_date_that_has_no_whole_minutes_refuses_its_row_alone(tmp_path: Path, time: str) -> None:
    found = write(tmp_path, {"time": [time, "2026-01-31T08:00:00Z"]})

    (made,), (refused,) = objects_of(found, Mapping().bind(schema(found), collection(time=DataType.DATE)))

    assert made.properties == {"time": "2026-01-31T08:00:00+00:00"}
    assert refused.startswith("t.parquet, row 1: time: in a zone of whole minutes it has no such date")


def test_row_groups_are_fragments_and_numbers_of_rows_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.sources.parquet.FRAGMENT_BYTES", 1)
    found = write(tmp_path, {"n": list(range(5))}, row_group_size=2)

    assert [each.part for each in found] == ["row groups 0-0", "row groups 1-1", "row groups 2-2"]
    assert [(row.number, row.values["n"]) for row in rows_of(found)] == [(each + 1, each) for each in range(5)]
    assert pickle.loads(pickle.dumps(found)) == found


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    found = write(tmp_path, {"a": [1], "b": [2]})

    assert [row.values for row in rows_of(found, ["b"])] == [{"b": 2}]


def test_a_batch_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.sources.parquet.BATCH_BYTES", 10_000)
    found = write(tmp_path, {"image": [np.random.default_rng(each).bytes(3000) for each in range(10)]})

    sizes = [len(batch) for fragment in found for batch in read(fragment)]

    assert sum(sizes) == 10
    assert max(sizes) <= 3


def test_a_picture_that_stands_for_many_rows_is_in_memory_once(tmp_path: Path) -> None:
    picture = b"x" * 100_000
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    inner = pa.array([{"bytes": picture, "path": None}] * 899 + [None], kind)
    found = write(tmp_path, {"plain": [picture] * 900, "inner": inner, "n": list(range(900))})

    (batch,) = [batch for fragment in found for batch in read(fragment)]

    assert {id(row.values["plain"]) for row in batch} == {id(batch[0].values["plain"])}
    assert len({id(row.values["inner"]["bytes"]) for row in batch[:-1]}) == 1
    assert batch[0].values == {"plain": picture, "inner": {"bytes": picture, "path": None}, "n": 0}
    assert batch[-1].values["inner"] is None


def test_a_file_that_has_changed_is_another_fragment_and_is_not_read_as_the_old_one(tmp_path: Path) -> None:
    (before,) = write(tmp_path, {"a": [1]})
    (after,) = write(tmp_path, {"a": [1, 2]})

    assert before.identity != after.identity
    with pytest.raises(InvalidSource, match=r"t\.parquet: it has changed since it was found"):
        read(before)


def test_vectors_are_taken_if_their_space_is_that_of_the_named_vector(tmp_path: Path) -> None:
    vectors = pa.array([[1.0, 0.0], [0.0, 0.0], [1.0]], pa.list_(pa.float32()))
    table = pa.table({"made": vectors, "title": ["a", "b", "c"]})
    here = collection(title=DataType.TEXT)
    pq.write_table(
        table.replace_schema_metadata({"vecgate.space": "fake-space", "vecgate.embedder": "e"}), tmp_path / "v.parquet"
    )
    found = fragments([str(tmp_path)])
    columns = schema(found)

    made, refused = objects_of(found, Mapping().bind(columns, here))

    assert [each.vectors["default"].tolist() for each in made] == [[1.0, 0.0]]
    assert refused == [
        "v.parquet, row 2: made: the vector has only zeros, or a value that is not finite",
        "v.parquet, row 3: made: a vector of the space has 2 values: this has 1",
    ]


def test_what_a_bulk_job_wrote_needs_no_mapping_and_keeps_its_ids(tmp_path: Path) -> None:
    told = {"vecgate.space": "fake-space"}
    fields = [pa.field("id", pa.string()), pa.field("default", pa.string())]
    fields.append(pa.field("vector_default", pa.list_(pa.float32(), 2), metadata=told))
    table = pa.table([[ID], ["a"], [[1.0, 0.0]]], schema=pa.schema(fields))
    pq.write_table(table, tmp_path / "v.parquet")
    found = fragments([str(tmp_path)])

    (made,), _ = objects_of(found, Mapping().bind(schema(found), collection(default=DataType.TEXT)))

    assert (made.id, made.properties, made.vectors["default"].tolist()) == (ID, {"default": "a"}, [1.0, 0.0])
    assert [each.name for each in Mapping().new_properties(schema(found))] == ["default"]


@pytest.mark.parametrize(
    ("metadata", "mapping", "fault"),
    [
        (
            {"vecgate.space": "other"},
            Mapping({"made": "default"}),
            "are in the space other, the vector 'default' is bound to",
        ),
        (
            {},
            Mapping({"made": "default"}),
            "the file does not say which space its vectors are in; say it in the mapping",
        ),
        ({"vecgate.space": "fake-space"}, Mapping({"made": "default"}), "have 3 values, the space fake-space has 2"),
    ],
    ids=["another space", "no space", "another dimension"],
)
def test_vectors_of_another_or_no_space_are_refused_before_anything_runs(
    metadata: dict[str, str], mapping: Mapping, fault: str, tmp_path: Path
) -> None:
    table = pa.table({"made": pa.array([[1.0, 0.0, 0.0]], pa.list_(pa.float32(), 3))})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "v.parquet")

    with pytest.raises(InvalidMapping, match=fault):
        mapping.bind(schema(fragments([str(tmp_path)])), collection(title=DataType.TEXT))


def test_pictures_of_hugging_face_are_bytes_or_files_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(PICTURE)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    values = [{"bytes": b"own", "path": "x.png"}, {"bytes": None, "path": "images/a.png"}, None]
    found = write(tmp_path, {"picture": pa.array(values, kind), "n": [1, 2, 3]})

    made, refused = objects_of(found, Mapping().bind(schema(found), collection(n=DataType.INT, image=DataType.BLOB)))

    assert [each.images for each in made] == [{"image": b"own"}, {"image": PICTURE}, {}]
    assert refused == []


@pytest.mark.parametrize(
    "reference", ["../secret.png", "/etc/passwd", "a/../../x", "s3://bucket/a.png", "file:///etc/passwd"]
)
def test_a_reference_out_of_the_folder_is_refused(reference: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "table").mkdir()
    found = write(tmp_path / "table", {"file": [reference]})
    plan = Mapping({"file": "image"}).bind(schema(found), collection(image=DataType.BLOB))

    made, (refused,) = objects_of(found, plan)

    assert made == []
    assert "t.parquet, row 1: file: " in refused


def test_pictures_may_be_in_a_folder_that_the_mapping_names(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PICTURE)
    found = write(tmp_path / "table", {"file": ["a.png", str(tmp_path / "pictures" / "a.png")]})
    mapping = Mapping({"file": "image"}, images=str(tmp_path / "pictures"))

    made, _ = objects_of(found, mapping.bind(schema(found), collection(image=DataType.BLOB)))

    assert [each.images for each in made] == [{"image": PICTURE}] * 2


def test_a_damaged_file_is_named_with_the_row_from_which_it_cannot_be_read(tmp_path: Path) -> None:
    found = write(
        tmp_path, {"a": [b"x" * 100 + bytes([each]) for each in range(50)]}, compression="none", use_dictionary=False
    )
    path = tmp_path / "t.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    found = fragments([str(path)])

    with pytest.raises(InvalidSource, match=r"t\.parquet: row group 0 cannot be read from row 1 on: "):
        list(rows_of(found))


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"not a table", b"PAR1" + b"\xff" * 50 + (2**31 - 1).to_bytes(4, "little") + b"PAR1"]
)
def test_what_is_not_parquet_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(content)

    with pytest.raises(InvalidSource, match=r"t\.parquet: it is not Parquet, or damaged"):
        fragments([str(tmp_path)])


@pytest.mark.parametrize(("name", "bound"), [("MAX_FOOTER_VALUES", 20), ("MAX_FOOTER_TEXT_BYTES", 1000)])
def test_a_footer_over_its_bounds_is_refused(
    name: str, bound: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({f"c{number}": [1] for number in range(50)})
    pq.write_table(table.replace_schema_metadata({"note": "x" * 2000}), tmp_path / "t.parquet")
    assert len(schema(fragments([str(tmp_path)])).columns) == 50

    monkeypatch.setattr(f"service.sources.parquet.{name}", bound)
    with pytest.raises(InvalidSource, match=r"t\.parquet: it is not Parquet, or damaged"):
        fragments([str(tmp_path)])


def test_what_is_told_of_a_value_is_short(tmp_path: Path) -> None:
    found = write(tmp_path, {"day": ["x" * 10**6]})

    _, (refused,) = objects_of(found, Mapping().bind(schema(found), collection(day=DataType.DATE)))

    assert refused == f"t.parquet, row 1: day: it is not a date in ISO 8601 form: {'x' * 100}...{'x' * 100}"


def test_files_of_one_source_agree_on_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [1.5]}), tmp_path / "2.parquet")
    assert [(each.name, each.type) for each in schema(fragments([str(tmp_path)])).columns] == [
        ("a", DataType.NUMBER),
        ("b", DataType.TEXT),
    ]

    pq.write_table(pa.table({"a": ["text"]}), tmp_path / "3.parquet")
    with pytest.raises(InvalidSource, match=r"3\.parquet: the column 'a' is double and string"):
        schema(fragments([str(tmp_path)]))


def test_a_plan_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    found = write(tmp_path, {"a": ["x"]})
    plan = Mapping().bind(schema(found), collection(a=DataType.TEXT))

    assert pickle.loads(pickle.dumps(plan)) == plan
    assert json.dumps(plan.targets()) == '{"a": "property a"}'


def test_a_file_without_row_groups_alone_is_named(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "t.parquet", pa.schema([("a", pa.int64())])):
        pass

    with pytest.raises(InvalidSource, match="there are no rows"):
        fragments([str(tmp_path)])
