"""CSV and JSONL as sources: rows with their lines, types, ranges of bytes, and what is wrong with a table."""

import json
from pathlib import Path

import pytest

from service.domain.collections import DataType, Property
from service.sources import InvalidSource, Mapping, fragments, schema
from service.sources.rows import size_of
from tests.service.sources.making import collection, objects_of, rows_of


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_cells_of_csv_become_what_the_property_is(tmp_path: Path) -> None:
    found = fragments(
        [write(tmp_path, "t.csv", '\ufeffn,x,ok,day,title\n5,0.5,TRUE,2026-01-31,"a\nb"\n,,,,c\nfive,,,,d\n')]
    )
    here = collection(n=DataType.INT, x=DataType.NUMBER, ok=DataType.BOOLEAN, day=DataType.DATE, title=DataType.TEXT)

    made, refused = objects_of(found, Mapping().bind(schema(found), here))

    assert [each.properties for each in made] == [
        {"n": 5, "x": 0.5, "ok": True, "day": "2026-01-31T00:00:00+00:00", "title": "a\nb"},
        {"title": "c"},
    ]
    assert refused == ["t.csv, line 5: n: it is not a whole number: five"]


def test_a_row_of_csv_with_more_or_fewer_cells_is_refused_alone(tmp_path: Path) -> None:
    found = fragments([write(tmp_path, "t.csv", "a,b\n1,2\n1\n1,2,3\n\n4,5\n")])

    made, refused = objects_of(found, Mapping().bind(schema(found), collection(a=DataType.TEXT)))

    assert [each.properties for each in made] == [{"a": "1"}, {"a": "4"}]
    assert [each.partition(": ")[0] for each in refused] == ["t.csv, line 3", "t.csv, line 4"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('a\n"' + "x" * 200_000 + '"\n', "line 2 is not CSV: field larger than field limit"),
        ("a\n" + "x" * 2000 + "\n", "the line at byte 2 is longer than 1000 bytes"),
        (b"a\n\xff\n", "line 2 is not in UTF-8"),
        ('a\n"x" y\n', "line 2 is not CSV"),
    ],
    ids=["a huge field", "a huge line", "not UTF-8", "not CSV"],
)
def test_a_csv_that_is_not_one_is_named_with_its_line(
    text: str | bytes, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "1000 bytes" in fault:
        monkeypatch.setattr("service.sources.text.MAX_LINE_BYTES", 1000)
    found = fragments([write(tmp_path, "t.csv", text)])

    with pytest.raises(InvalidSource, match=rf"t\.csv: {fault}"):
        list(rows_of(found))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a,a\n", "it has the column 'a' twice"),
        ("\n", "it is empty"),
        ("a;b\n1;2\n", "it has columns separated by semicolons; save it as CSV with commas"),
        ("a\tb\n1\t2\n", "it has columns separated by tabs; save it as CSV with commas"),
    ],
)
def test_a_csv_has_different_columns(text: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match=fault):
        schema(fragments([write(tmp_path, "t.csv", text)]))


def test_jsonl_has_the_types_of_its_values(tmp_path: Path) -> None:
    lines = [
        {"n": 1, "x": 1, "tags": [], "maker": {"name": "m"}, "note": None},
        {"n": 2, "x": 0.5, "tags": ["a"], "maker": {"name": "n", "since": 1999}, "note": "text"},
    ]
    found = fragments([write(tmp_path, "t.jsonl", "\n\n".join(map(json.dumps, lines)))])
    nested = (Property("name", DataType.TEXT), Property("since", DataType.INT))
    here = collection(
        Property("maker", DataType.OBJECT, nested=nested),
        n=DataType.INT,
        x=DataType.NUMBER,
        tags=DataType.TEXT_ARRAY,
        note=DataType.TEXT,
    )

    columns = schema(found)
    made, refused = objects_of(found, Mapping().bind(columns, here))

    assert {each.name: each.type for each in columns.columns} == {
        "n": DataType.INT,
        "x": DataType.NUMBER,
        "tags": DataType.TEXT_ARRAY,
        "maker": DataType.OBJECT,
        "note": DataType.TEXT,
    }
    assert refused == []
    assert made[0].properties == {"n": 1, "x": 1.0, "tags": [], "maker": {"name": "m"}}
    assert made[1].properties["note"] == "text"


def test_faulty_lines_of_jsonl_are_refused_alone(tmp_path: Path) -> None:
    text = '{"a": "x"}\n{"a": \n[1]\n{"a": NaN}\n' + "[" * 100_000 + '\n{"a": 5}\n{"a": "y"}\n'
    found = fragments([write(tmp_path, "t.jsonl", text)])
    here = collection(a=DataType.UUID, b=DataType.TEXT)
    plan = Mapping({"a": "b"}).bind(schema(fragments([write(tmp_path, "good.jsonl", '{"a": "x"}')])), here)

    made, refused = objects_of(found, plan)

    assert [each.properties for each in made] == [{"b": "x"}, {"b": "5"}, {"b": "y"}]
    assert [each.partition(": ")[0] for each in refused] == [f"t.jsonl, line {number}" for number in (2, 3, 4, 5)]


@pytest.mark.parametrize("step", [1, 7, 10, 11, 64])
def test_ranges_of_a_jsonl_have_each_line_once(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.sources.text.FRAGMENT_BYTES", step)
    found = fragments([write(tmp_path, "t.jsonl", "".join(f'{{"n": {"1" * each}}}\n' for each in range(1, 9)))])

    rows = list(rows_of(found))

    assert [len(str(row.values["n"])) for row in rows] == list(range(1, 9))
    assert len(found) > 1


def test_a_row_refers_to_a_picture_by_the_column_file(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "A")
    found = fragments([write(tmp_path, "t.csv", "file,name\na.png,x\nb.png,y\n")])
    here = collection(image=DataType.BLOB, name=DataType.TEXT)

    (made,), (refused,) = objects_of(found, Mapping().bind(schema(found), here))

    assert (made.images, made.properties) == ({"image": b"A"}, {"name": "x"})
    assert refused.startswith("t.csv, line 3: file: the picture cannot be read: ")
    assert refused.endswith("there is no such file")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_that_is_empty_alone_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match=r"there are no rows"):
        fragments([write(tmp_path, name, "")])


def test_texts_that_are_not_utf_8_and_vectors_of_huge_numbers_are_refused_alone(tmp_path: Path) -> None:
    lines = ['{"t": "\\udce9", "k": "a", "v": [1, 2]}', '{"t": "a", "k": "\\ud800", "v": [1, 2]}']
    lines += ['{"t": "b", "k": "b", "v": [1' + "0" * 400 + ", 1]}", '{"t": "c", "k": "c", "v": [1, 2]}']
    found = fragments([write(tmp_path, "t.jsonl", "\n".join(lines))])
    mapping = Mapping({"k": "id", "v": "default"}, spaces={"default": "fake-space"})

    made, refused = objects_of(found, mapping.bind(schema(found), collection(t=DataType.TEXT)))

    assert [each.properties for each in made] == [{"t": "c"}]
    half = "it has half of a character, which no text in UTF-8 has: at 0"
    assert refused == [
        f"t.jsonl, line 1: t: {half}",
        f"t.jsonl, line 2: k: {half}",
        "t.jsonl, line 3: v: it is not a list of numbers",
    ]


def test_keys_that_differ_are_different_objects(tmp_path: Path) -> None:
    found = fragments([write(tmp_path, "t.csv", "sku,n\nA\\B,1\nA/B,1\n./A/B,1\n")])

    made, _ = objects_of(found, Mapping({"sku": "id"}).bind(schema(found), collection(n=DataType.INT)))

    assert len({each.id for each in made}) == 3


def test_a_batch_is_bounded_by_what_its_lists_hold() -> None:
    assert size_of({"a": ["x" * 100, ["y" * 10]], "b": [1.0, None]}) == 126
