"""Columns that refer to pictures: what is read, what is left to be fetched, and what is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.domain.collections import Collection, DataType, NamedVector, Property, WeightedField
from service.fetching.uris import MAX_URI_BYTES
from service.sources import Fragment, InvalidMapping, Mapping, fragments, schema
from service.sources.mapping import MAX_URI_CHARS
from service.sources.storage import without_secrets
from tests.service.sources.making import SPACE, collection, objects_of

URI = "https://cdn.example.com/p/a.jpg?w=200&signature=s"
PICTURES = collection(image=DataType.BLOB, link=DataType.TEXT)


def parquet(path: Path, references: list[str]) -> Path:
    pq.write_table(pa.table({"photo": references}), path / "t.parquet")
    return path / "t.parquet"


def csv(path: Path, references: list[str]) -> Path:
    (path / "t.csv").write_text("photo\n" + "".join(f'"{each}"\n' for each in references))
    return path / "t.csv"


def jsonl(path: Path, references: list[str]) -> Path:
    (path / "t.jsonl").write_text("".join(json.dumps({"photo": each}) + "\n" for each in references))
    return path / "t.jsonl"


def found_in(path: Path) -> list[Fragment]:
    return list(fragments([str(path)]))


def outcome(table: Path, reference: str, images: str = "") -> tuple[Any, str]:
    """Return the picture that a reference becomes, or why it becomes none."""
    found = found_in(parquet(table, [reference]))
    plan = Mapping({"photo": "image"}, images).bind(schema(found), PICTURES)
    made, refused = objects_of(found, plan)
    return (made[0].images["image"], "") if made else (None, refused[0])


@pytest.mark.parametrize("write", [parquet, csv, jsonl])
def test_a_picture_on_the_web_is_left_to_be_fetched(write: Callable[[Path, list[str]], Path], tmp_path: Path) -> None:
    found = found_in(write(tmp_path, [URI, "HTTP://h/a"]))
    plan = Mapping({"photo": "image"}).bind(schema(found), PICTURES)

    made, refused = objects_of(found, plan)

    assert ([each.images for each in made], refused) == ([{"image": URI}, {"image": "HTTP://h/a"}], [])
    assert plan.uris(made[0]) == {"image": URI}


@pytest.mark.parametrize("write", [parquet, csv, jsonl])
def test_a_picture_on_an_object_store_is_read(
    write: Callable[[Path, list[str]], Path], bucket: Any, tmp_path: Path
) -> None:
    bucket.put_object(Key="2026/a b.png", Body=b"A")
    found = found_in(write(tmp_path, ["s3://pictures/2026/a b.png", "a b.png"]))
    mapping = Mapping().with_options(["photo=image"], "s3://pictures/2026/")

    made, refused = objects_of(found, mapping.bind(schema(found), PICTURES))

    assert ([each.images for each in made], refused) == ([{"image": b"A"}] * 2, [])


@pytest.mark.parametrize(
    "reference",
    [
        "s3://other/a.png",
        "s3://pictures-of-others/a.png",
        "s3://pictures/secret/a.png",
        "s3://pictures/2026/../secret/a.png",
        "s3://pictures/2026/%2e%2e/secret/a.png",
        "s3://pictures/2026/%2E%2E%2Fsecret/a.png",
        "s3://pictures/2026/.\t./secret/a.png",
        "s3://pictures/2026/.\n./secret/a.png",
        "s3://pictures/2026/..\\secret\\a.png",
        "s3://pictures/2026\n/../secret/a.png",
        "s3://pictures@127.0.0.1/2026/a.png",
        "s3://key:hunter2@pictures/2026/a.png",
        "S3://PICTURES/secret/a.png",
        "../secret/a.png",
        "/secret/a.png",
        "gs://pictures/2026/a.png",
        "secret/../../secret/a.png",
    ],
)
def test_a_reference_to_another_place_of_an_object_store_is_refused(
    reference: str, bucket: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.put_object(Key="secret/a.png", Body=b"secret")
    caplog.clear()

    content, reason = outcome(tmp_path, reference, "s3://pictures/2026")

    assert content is None
    assert reason.startswith("t.parquet, row 1: photo: ")
    assert "hunter2" not in reason
    # The server's own log of requests.
    assert [each for each in caplog.messages if " /pictures/2026/" not in each] == []


@pytest.mark.parametrize(
    "reference",
    [
        "file:///etc/passwd",
        "file:/etc/passwd",
        "FILE://localhost/etc/passwd",
        "data:image/png;base64,iVBORw0KGgo=",
        "ftp://h/a.png",
        "javascript:alert(1)",
        "https:\\\\h\\a.png",
        "/etc/passwd",
        "//etc/passwd",
        "../../../../etc/passwd",
        "./../table/../secret.png",
        "a\0/../../secret.png",
    ],
)
@pytest.mark.parametrize("images", ["", "https://cdn.example.com/p"])
def test_a_reference_that_leads_out_of_the_folder_is_refused(reference: str, images: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "table").mkdir()

    content, reason = outcome(tmp_path / "table", reference, images)

    assert content is None
    assert reason.startswith("t.parquet, row 1: photo: ")


@pytest.mark.parametrize(
    "reference", ["https://user:hunter2@h/a.png", "https://hunter2@h/a.png", "http://h\\@hunter2@i/a"]
)
def test_a_reference_with_a_password_is_refused_and_not_repeated(reference: str, tmp_path: Path) -> None:
    content, reason = outcome(tmp_path, reference)

    assert content is None
    assert "a URL with a user or password is not read" in reason
    assert "hunter2" not in reason


@pytest.mark.parametrize(
    "reference",
    [
        " https://h/x?sig=SECRET",
        "\thttps://u:SECRET@h/x",
        "https://h/x\n",
        "a.png ",
    ],
)
def test_a_reference_with_white_space_at_an_end_is_refused_and_not_repeated(reference: str, tmp_path: Path) -> None:
    reason = "t.parquet, row 1: photo: the reference begins or ends with white space; remove it"
    assert outcome(tmp_path, reference) == (None, reason)


@pytest.mark.parametrize(
    ("reference", "images"),
    [
        ("//u:SECRET@h/x", ""),
        ("//SECRET@h/x", ""),
        ("https:\\\\u:SECRET@h\\x", ""),
        ("https:u:SECRET@h/x", ""),
        ("\x01https://u:SECRET@h/x?sig=SECRET", ""),
        ("ftp://h/x?sig=SECRET", ""),
        ("a.png?sig=SECRET", ""),
        ("s3://b/x?X-Amz-Signature=SECRET", ""),
        ("s3://pictures/x?X-Amz-Signature=SECRET", "s3://pictures"),
    ],
)
def test_what_is_told_of_a_reference_has_no_signature_and_no_password(
    reference: str, images: str, tmp_path: Path
) -> None:
    content, reason = outcome(tmp_path, reference, images)

    assert content is None
    assert reason.startswith("t.parquet, row 1: photo: ")
    assert "SECRET" not in reason


def test_a_location_is_told_with_all_that_is_no_secret() -> None:
    for each in ("/p/logo@2x.png", "abfss://container@account.dfs.core.windows.net/x", "s3://b/a:b/logo@2x.png"):
        assert without_secrets(each) == each


@pytest.mark.parametrize("write", [csv, jsonl])
def test_a_uri_that_no_request_can_hold_is_refused(write: Callable[[Path, list[str]], Path], tmp_path: Path) -> None:
    start = "https://h/"
    found = found_in(write(tmp_path, [start.ljust(MAX_URI_CHARS, "a"), start.ljust(MAX_URI_CHARS + 1, "a")]))
    plan = Mapping({"photo": "image"}).bind(schema(found), PICTURES)

    made, refused = objects_of(found, plan)

    assert MAX_URI_CHARS == MAX_URI_BYTES
    assert [len(str(each.images["image"])) for each in made] == [MAX_URI_CHARS]
    assert [each.partition("photo: ")[2] for each in refused] == [
        f"a URI must have at most {MAX_URI_CHARS} characters: it has {MAX_URI_CHARS + 1}"
    ]


def test_a_uri_with_characters_outside_of_ascii_is_refused(tmp_path: Path) -> None:
    found = found_in(jsonl(tmp_path, ["https://h/\ud800", "https://h/é.png"]))
    plan = Mapping({"photo": "image"}).bind(schema(found), PICTURES)

    made, refused = objects_of(found, plan)

    assert made == []
    assert ["the URI has characters outside of ASCII" in each for each in refused] == [True, True]


def test_a_path_in_a_folder_on_the_web_is_percent_encoded(tmp_path: Path) -> None:
    references = ["a b.png", "é#1.png", "a%20b.png", "b (1)/c.png?w=9", "\ud800.png"]
    found = found_in(jsonl(tmp_path, references))
    mapping = Mapping({"photo": "image"}, "https://cdn.example.com:8443/p")

    made, refused = objects_of(found, mapping.bind(schema(found), PICTURES))

    assert refused == []
    assert [str(each.images["image"]).removeprefix("https://cdn.example.com:8443/p/") for each in made] == [
        "a%20b.png",
        "%C3%A9%231.png",
        "a%20b.png",
        "b%20(1)/c.png?w=9",
        "%ED%A0%80.png",
    ]


@pytest.mark.parametrize("images", ["/", "//", "s3://", "s3:///", "https://"])
def test_pictures_are_below_a_folder_that_has_a_name(images: str, tmp_path: Path) -> None:
    found = found_in(csv(tmp_path, ["a.png"]))

    with pytest.raises(InvalidMapping, match=f"^images: {re.escape(images)} names no folder"):
        Mapping({"photo": "image"}, images).bind(schema(found), PICTURES)


@pytest.mark.parametrize(
    ("columns", "options", "key", "targets"),
    [
        ({}, (), "sku", "id"),
        ({}, ("sku=title",), "sku", "title,id"),
        ({"sku": "title, id"}, (), "sku", "title,id"),
        ({"sku": "title"}, ("sku=",), "sku", "id"),
    ],
)
def test_a_key_column_also_becomes_what_it_is_mapped_to(
    columns: dict[str, str], options: tuple[str, ...], key: str, targets: str
) -> None:
    assert Mapping(columns).with_options(options, key=key).columns == {"sku": targets}


def test_a_path_in_a_folder_on_the_web_is_a_uri_below_it(tmp_path: Path) -> None:
    below = [outcome(tmp_path, each, "https://cdn.example.com/p/") for each in ("a.jpg", "b/../a.jpg", "a.jpg?w=9")]

    assert below == [
        ("https://cdn.example.com/p/a.jpg", ""),
        ("https://cdn.example.com/p/a.jpg", ""),
        ("https://cdn.example.com/p/a.jpg?w=9", ""),
    ]


def test_a_column_becomes_a_picture_and_the_property_that_keeps_the_reference(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('[columns]\nphoto = "image, link"\n')
    found = found_in(csv(tmp_path, [URI]))
    mapping = Mapping.load(tmp_path / "map.toml")
    plan = mapping.bind(schema(found), collection(image=DataType.BLOB_HASH, link=DataType.TEXT))

    (made,), _ = objects_of(found, plan)

    assert plan.targets() == {"photo": "property link, image image"}
    assert (made.properties, made.images) == ({"link": URI}, {"image": URI})
    assert mapping.new_properties(schema(found)) == (
        Property("image", DataType.BLOB),
        Property("link", DataType.TEXT),
    )


def test_a_text_of_which_vectors_are_made_as_of_a_picture_holds_the_reference_alone(tmp_path: Path) -> None:
    vector = NamedVector("default", SPACE, (WeightedField("photo"),))
    here = Collection("Things", (Property("photo", DataType.TEXT),), (vector,))
    found = found_in(csv(tmp_path, [URI]))
    plan = Mapping().bind(schema(found), here)

    (made,), _ = objects_of(found, plan)

    assert plan.references == {"photo": ["default"]}
    assert (made.properties, made.images) == ({"photo": URI}, {})
    assert plan.uris(made) == {"photo": URI}
    assert plan.uris(replace(made, vectors={"default": np.zeros(2, np.float32)})) == {}


def test_a_column_that_cannot_be_what_it_is_to_become_is_told_before_a_row_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"photo": [URI], "n": [1], "vector": [[1.0, 2.0]]}), tmp_path / "t.parquet")
    found = found_in(tmp_path / "t.parquet")
    here = collection(image=DataType.BLOB, thumb=DataType.BLOB, link=DataType.TEXT, more=DataType.TEXT)
    mapping = Mapping({"n": "image", "photo": "thumb, link, more, image"})

    with pytest.raises(InvalidMapping) as caught:
        mapping.bind(schema(found), here)

    assert caught.value.faults == (
        "'n': the property 'image' is blob, the column int64",
        "'photo': a column becomes one image and one other property at most",
        "'photo': a column becomes one image and one other property at most",
    )
