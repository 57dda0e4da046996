"""The table of properties beside a folder of pictures, and the match of the two."""

import json
from pathlib import Path

import pytest

from service.cli.pictures import picture_id, scan_folder, schema_of
from service.cli.sidecar import InvalidSidecar, find_sidecar, read_sidecar
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def jsonl(folder: Path, *records: object) -> Path:
    return write(folder, "p.jsonl", "".join(json.dumps(each) + "\n" for each in records))


def test_csv_columns_are_texts_and_empty_cells_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", '\ufefffile,name,keywords,year\na.png,"A, big",x; y,2020\nb.png,B,,\n')

    sidecar = read_sidecar(path)

    assert sidecar.types == dict.fromkeys(("name", "keywords", "year"), property_pb.DATA_TYPE_TEXT)
    assert sidecar.rows["a.png"].properties == {"name": "A, big", "keywords": "x; y", "year": "2020"}
    assert sidecar.rows["b.png"].properties == {"name": "B"}
    assert sidecar.rows["b.png"].line == 3


def test_jsonl_columns_have_the_types_of_their_values(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        {"file": "a.png", "n": 1, "x": 1, "ok": True, "tags": [], "shares": [1, 2.5], "note": None},
        {"file": "b.png", "n": 2, "x": 0.5, "ok": False, "tags": ["t"], "shares": [3], "note": "text"},
    )

    sidecar = read_sidecar(path)

    assert sidecar.types == {
        "n": property_pb.DATA_TYPE_INT,
        "x": property_pb.DATA_TYPE_NUMBER,
        "ok": property_pb.DATA_TYPE_BOOLEAN,
        "tags": property_pb.DATA_TYPE_TEXT_ARRAY,
        "shares": property_pb.DATA_TYPE_NUMBER_ARRAY,
        "note": property_pb.DATA_TYPE_TEXT,
    }
    assert "note" not in sidecar.rows["a.png"].properties


def test_every_faulty_line_of_a_jsonl_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "p.jsonl",
        '{"file": "a.png"}\n{"file": \n\n[1]\n{"name": "x"}\n{"file": "a.png"}\n{"file": "c", "n": NaN}\n',
    )

    with pytest.raises(InvalidSidecar) as caught:
        read_sidecar(path)

    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path} cannot be used:"
    assert [line.strip().split(": ")[0] for line in lines[1:]] == [
        "line 2 is not JSON",
        "line 4 is not a JSON object",
        "line 5 has no 'file'",
        "line 6 names a.png a second time; line 1 does too",
        "line 7 is not JSON",
    ]


@pytest.mark.parametrize(
    ("first", "second", "fault"),
    [
        (1, "one", "line 2 has a value for 'v' of another type"),
        ([1], 1, "line 2 has a value for 'v' of another type"),
        ([], "x", "line 1 has a list as 'v'"),
        ({"a": 1}, None, "line 1 has a value for 'v' that is not a text"),
        ([1, "x"], None, "line 1 has a value for 'v' that is not a text"),
    ],
)
def test_a_column_of_mixed_types_is_refused(tmp_path: Path, first: object, second: object, fault: str) -> None:
    path = jsonl(tmp_path, {"file": "a.png", "v": first}, {"file": "b.png", "v": second})

    with pytest.raises(InvalidSidecar, match=fault):
        read_sidecar(path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name\nx\n", "line 1 has no column 'file'"),
        ("", "line 1 has no column 'file'"),
        ("file;name\na.png;x\n", "line 1 has columns separated by semicolons; save it as CSV with commas"),
        ("file,name\na.png\n", "line 2 has more or fewer cells than the 2 columns"),
        ("file,name\na.png,b,c\n", "line 2 has more or fewer cells than the 2 columns"),
        ("file,name,name\na.png,b,c\n", "line 1 has the column 'name' twice"),
        ("file,Name,name\na.png,b,c\n", "two columns for the property 'name'"),
        ('file\n"a.png', "is not CSV"),
    ],
)
def test_a_faulty_csv_is_refused_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InvalidSidecar, match=fault):
        read_sidecar(write(tmp_path, "p.csv", text))


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes("file,name\na.png,Tür\n".encode("latin-1"))

    with pytest.raises(InvalidSidecar, match="UTF-8"):
        read_sidecar(path)


def test_names_that_weaviate_does_not_take_are_changed_and_told(tmp_path: Path) -> None:
    sidecar = read_sidecar(write(tmp_path, "p.csv", "file,Alt text,id,2nd,path\na.png,1,2,3,4\n"))

    assert sidecar.renamed == {"Alt text": "alt_text", "id": "id_", "2nd": "_2nd", "path": "path_"}
    assert sidecar.rows["a.png"].properties == {"alt_text": "1", "id_": "2", "_2nd": "3", "path_": "4"}


def test_two_tables_in_a_folder_need_a_choice(tmp_path: Path) -> None:
    assert find_sidecar(tmp_path) is None
    first = write(tmp_path, "a.csv", "file\n")
    assert find_sidecar(tmp_path) == first
    write(tmp_path, "b.jsonl", "")

    with pytest.raises(InvalidSidecar, match=r"a\.csv, b\.jsonl"):
        find_sidecar(tmp_path)


def test_pictures_are_found_by_suffix_in_all_folders_and_matched_with_rows(tmp_path: Path) -> None:
    for name in ("b.PNG", "sub/deep/a.jpeg", "sub/c.tiff", "notes.txt"):
        write(tmp_path, name, "x")
    table = write(tmp_path, "p.csv", "file,name\n./b.PNG,B\nsub\\c.tiff,C\ngone.png,G\nnotes.txt,N\n")

    pictures = scan_folder(tmp_path, read_sidecar(table))

    assert pictures.files == ("b.PNG", "sub/c.tiff", "sub/deep/a.jpeg")
    assert pictures.properties("b.PNG") == {"path": "b.PNG", "name": "B"}
    assert pictures.properties("sub/c.tiff") == {"path": "sub/c.tiff", "name": "C"}
    assert [row.file for row in pictures.rows_without_picture] == ["gone.png", "notes.txt"]
    assert pictures.pictures_without_row == ("sub/deep/a.jpeg",)


def test_a_limit_makes_no_row_an_orphan(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path, name, "x")
    table = write(tmp_path, "p.csv", "file\na.png\nb.png\n")

    pictures = scan_folder(tmp_path, read_sidecar(table), limit=1)

    assert pictures.files == ("a.png",)
    assert pictures.rows_without_picture == ()


def test_the_collection_has_the_picture_the_path_and_the_columns(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "x")
    table = write(tmp_path, "p.csv", "file,name\na.png,A\n")

    schema = schema_of(
        "Pictures", scan_folder(tmp_path, read_sidecar(table)), text_fields=[pb.WeightedField(name="name")]
    )

    assert {each.name: each.data_type for each in schema.properties} == {
        "image": property_pb.DATA_TYPE_BLOB,
        "path": property_pb.DATA_TYPE_TEXT,
        "name": property_pb.DATA_TYPE_TEXT,
    }
    assert [each.name for each in schema.vectors[0].image_fields] == ["image"]
    assert [each.name for each in schema.vectors[0].text_fields] == ["name"]


def test_an_id_depends_on_collection_and_path_and_on_nothing_else() -> None:
    assert picture_id("Pictures", "sub/é.png") == picture_id("Pictures", "sub\\e\u0301.png")
    assert len({picture_id("Pictures", "a.png"), picture_id("Pictures", "b.png"), picture_id("Other", "a.png")}) == 3
    assert picture_id("Pictures", "a.png") == "5ffddea6-fcbd-59db-a6f0-521057685562"
