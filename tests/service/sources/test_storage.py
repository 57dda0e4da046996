"""Where sources are: folders, patterns, a real server that speaks S3, and a web server."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.domain.collections import DataType
from service.sources import (
    InvalidMapping,
    InvalidSource,
    Mapping,
    RowRefused,
    Schema,
    fragments,
    read,
    schema,
    storage,
)
from tests.service.sources.making import collection, objects_of, rows_of, tar

BUCKET = "pictures"
Bucket = Any
"""Of boto3, which makes its classes as it runs."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server for the files of a folder."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            if "denied" in self.path:
                self.send_error(403)
            else:
                super().do_HEAD()

        def do_GET(self) -> None:
            start, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            content = Path(self.translate_path(self.path)).read_bytes()
            part = content[int(start) : int(end) + 1]
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            self.send_header("Last-Modified", "Sat, 31 Jan 2026 08:00:00 GMT")
            self.end_headers()
            self.wfile.write(part)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_tables_and_tars_on_s3_are_read_in_place(bucket: Bucket, tmp_path: Path) -> None:
    for number in range(3):
        table = parquet(tmp_path / "t.parquet", n=[number * 2, number * 2 + 1], image=[b"A", b"B"])
        bucket.upload_file(str(table), f"2026/{number}/t ä{number}.parquet")
    bucket.put_object(Key="2026/_SUCCESS", Body=b"")
    bucket.upload_file(str(tar(tmp_path / "s.tar", {"a.jpg": b"T"})), "tars/s.tar")
    here = collection(n=DataType.INT, image=DataType.BLOB)

    found = fragments([f"s3://{BUCKET}/2026"])
    made, refused = objects_of(found, Mapping().bind(schema(found), here))

    assert refused == []
    assert [(each.properties, each.images) for each in made] == [
        ({"n": n}, {"image": b"AB"[n % 2 : n % 2 + 1]}) for n in range(6)
    ]
    assert [row.values["jpg"] for row in rows_of(fragments([f"s3://{BUCKET}/tars/s.tar"]))] == [b"T"]
    assert len(fragments([f"s3://{BUCKET}/**/*[01].parquet"])) == 2
    assert len(fragments([f"s3://{BUCKET}/2026/"])) == 3


def test_a_table_on_s3_refers_to_pictures_beside_it_and_pictures_alone_are_rows(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put_object(Key="shop/images/a b.png", Body=b"A")
    bucket.upload_file(
        str(parquet(tmp_path / "t.parquet", file=["images/a b.png", "images/gone.png"])), "shop/t.parquet"
    )
    here = collection(image=DataType.BLOB)
    found = fragments([f"s3://{BUCKET}/shop/"])

    (made,), (refused,) = objects_of(found, Mapping({"file": "image"}).bind(schema(found), here))
    alone = fragments([f"s3://{BUCKET}/shop/images"])
    (picture,), _ = objects_of(alone, Mapping().bind(schema(alone), here))

    assert made.images == picture.images == {"image": b"A"}
    assert refused.endswith("there is no such file")
    assert picture.id


def test_a_file_on_s3_that_has_changed_is_not_read_as_the_old_one(
    bucket: Bucket,
) -> None:
    bucket.put_object(Key="t.csv", Body=b"a\n1\n")
    (before,) = fragments([f"s3://{BUCKET}/t.csv"])
    bucket.put_object(Key="t.csv", Body=b"a\n2\n")

    with pytest.raises(InvalidSource, match=r"s3://pictures/t\.csv: it has changed since it was found"):
        read(before)


def test_what_is_not_on_s3_is_named(bucket: Bucket) -> None:
    for location, reason in {
        f"s3://{BUCKET}/nothing": "there are no files",
        f"s3://{BUCKET}/*.parquet": "no file fits this pattern",
        "s3://": "it names no host or bucket",
    }.items():
        with pytest.raises(InvalidSource) as caught:
            fragments([location])
        assert caught.value.reason == reason


def test_a_signed_url_is_refused_without_its_signature() -> None:
    with pytest.raises(InvalidSource, match=r"^https://h/x: a URL with \? cannot be read"):
        fragments(["https://h/x?signature=SECRET"])


def test_a_file_of_a_web_server_is_read_in_ranges(web: str, tmp_path: Path) -> None:
    parquet(tmp_path / "a b.parquet", n=[1, 2, 3])

    rows = list(rows_of(fragments([f"{web}/a%20b.parquet"])))

    assert [row.values["n"] for row in rows] == [1, 2, 3]
    for location in (f"{web}/gone.parquet", f"{web}/a%20b.parquet?key=1"):
        with pytest.raises(InvalidSource, match=r"gone|a URL with"):
            fragments([location])


@pytest.mark.parametrize("location", ["ftp://host/a.csv", "file:///etc/passwd", "data://x"])
def test_other_kinds_of_urls_are_refused(location: str) -> None:
    with pytest.raises(InvalidSource, match="cannot be read; name a local path or one of"):
        fragments([location])


def test_pictures_of_a_folder_are_rows_and_one_more_changes_one_fragment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sources.pictures.USUAL_FILES", 8)
    (tmp_path / "sub").mkdir()
    for number in range(100):
        (tmp_path / "sub" / f"{number:03}.png").write_bytes(b"%d" % number)
    (tmp_path / "notes.txt").write_text("x")
    before = fragments([str(tmp_path)])
    (tmp_path / "sub" / "050 and a half.png").write_bytes(b"x")
    after = fragments([str(tmp_path)])

    assert [row.values["file"] for row in rows_of(before)] == [f"sub/{number:03}.png" for number in range(100)]
    assert len(before) > 5
    assert len(set(after) - set(before)) <= 2
    assert sum(1 for _ in rows_of(after)) == 101


def test_pictures_that_cannot_be_read_fail_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.sources.pictures.MAX_VALUE_BYTES", 3)
    for name in ("a.png", "b.png", "large.png"):
        (tmp_path / name).write_bytes(name[:4].encode() if name == "large.png" else b"abc")
    found = fragments([str(tmp_path)])
    (tmp_path / "a.png").unlink()

    faults = {row.values["file"]: (row.fault, row.detail) for row in rows_of(found)}

    assert faults == {
        "a.png": ("the file cannot be read", "there is no such file"),
        "b.png": ("", ""),
        "large.png": ("the file cannot be read", "it has 4 bytes; the limit is 3"),
    }


def test_a_fragment_of_pictures_has_so_many_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.sources.pictures.MAX_FILES", 4)
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(b"x")

    assert max(sum(1 for _ in rows_of([each])) for each in fragments([str(tmp_path)])) == 4


def test_links_to_folders_are_not_followed_and_pipes_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")

    assert [row.values["file"] for row in rows_of(fragments([str(tmp_path)]))] == ["a.png"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["a.csv", "b.csv"]),
        ("?.csv", ["a.csv", "b.csv"]),
        ("[!b].csv", ["a.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv"]),
        ("*/*.csv", ["sub/c.csv"]),
        ("sub/**", ["sub/c.csv", "sub/deep/d.csv"]),
    ],
)
def test_patterns_mean_what_they_mean_in_a_shell(pattern: str, names: list[str], tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")

    found = fragments([f"{tmp_path}/{pattern}"])

    assert [each.location for each in found] == [f"{tmp_path}/{name}" for name in names]


def test_a_source_is_of_one_kind_and_there_is_something(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match=r"there are no tables .* and no pictures"):
        fragments([str(tmp_path)])
    with pytest.raises(InvalidSource, match="there is no such file"):
        fragments([str(tmp_path / "gone")])
    (tmp_path / "a.csv").write_text("a\n")
    tar(tmp_path / "a.tar", {})
    with pytest.raises(InvalidSource, match=r"several kinds of files \(csv, webdataset\)"):
        fragments([str(tmp_path)])


def test_a_picture_that_may_be_readable_later_is_no_refused_row(
    web: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Key="t.csv", Body=b"file\ngone.png\ndenied.png\n")
    found = fragments([f"s3://{BUCKET}/t.csv"])
    plan = Mapping({"file": "image"}).bind(schema(found), collection(image=DataType.BLOB))
    gone, denied = rows_of(found)
    monkeypatch.setenv("AWS_ENDPOINT_URL", web)
    storage.store_of.cache_clear()

    with pytest.raises(
        RowRefused, match=r"line 2: file: the picture cannot be read: s3://pictures/gone\.png: there is no"
    ):
        plan.object(gone)
    with pytest.raises(
        InvalidSource, match=r"t\.csv: line 3: the picture cannot be read: s3://pictures/denied\.png: "
    ) as caught:
        plan.object(denied)
    assert not caught.value.final


@pytest.mark.parametrize("name", ["a.png/b.png", "x" * 300, "a\0b", "folder"])
def test_a_path_that_is_not_that_of_a_file_is_final(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "folder").mkdir()

    with pytest.raises(InvalidSource) as caught:
        storage.read_file(f"{tmp_path}/{name}", 9)

    assert caught.value.final


def test_a_picture_of_a_folder_that_may_be_readable_later_ends_its_fragment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    (found,) = fragments([str(tmp_path)])

    def broken(entry: storage.Entry, max_bytes: int) -> bytes:
        if entry.location.endswith("b.png"):
            raise InvalidSource(entry.location, "Input/output error")
        return storage.read_entry(entry, max_bytes)

    monkeypatch.setattr("service.sources.pictures.read_entry", broken)
    batches = read(found)

    assert [row.values["file"] for row in next(batches)] == ["a.png"]
    with pytest.raises(InvalidSource, match=r"b\.png: Input/output error"):
        next(batches)


def test_a_picture_that_has_changed_since_it_was_found_ends_its_fragment_with_that(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    found = fragments([str(tmp_path)])
    (tmp_path / "a.png").write_bytes(b"another")

    with pytest.raises(InvalidSource, match="a picture has changed since it was found"):
        list(rows_of(found))


def test_tags_of_files_are_the_same_with_and_without_quotes() -> None:
    made = [storage._entry("az://a/b", {"e_tag": tag, "size": 1}) for tag in ("0x8D", '"0x8D"')]

    assert made[0] == made[1]


@pytest.mark.parametrize(
    "location",
    ["https://user:pass@host/x.parquet", "https://pass@host/x.csv", "s3://user:pass@bucket/", "ftp://pass@x/a"],
)
def test_passwords_in_urls_are_refused_and_not_repeated(location: str) -> None:
    with pytest.raises(InvalidSource, match="with a user or password") as caught:
        fragments([location])

    assert "pass@" not in str(caught.value)
    with pytest.raises(InvalidMapping, match=r"images: .*with a user or password"):
        Mapping(images=location).bind(Schema("csv", ()), collection(image=DataType.BLOB))


def test_a_container_before_a_host_is_no_user() -> None:
    assert storage.scheme_of("abfss://container@account.dfs.core.windows.net/x") == "abfss"
