"""WebDataset: members by key, their types, and tars that try to do harm."""

import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from service.domain.collections import DataType
from service.sources import InvalidSource, Mapping, fragments, schema
from tests.service.sources.making import collection, objects_of, rows_of, tar


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz")])
def test_members_with_one_key_are_a_row(name: str, mode: str, tmp_path: Path) -> None:
    members = {
        "a/000.jpg": b"A",
        "a/000.json": json.dumps({"caption": "from json", "width": 3, "txt": "hidden"}).encode(),
        "a/000.txt": b"a text\n",
        "a/000.cls": b"5",
        "b/000.JPG": b"B",
        "b/000.txt": "ü".encode(),
        "b/000.seg.png": b"mask",
    }
    found = fragments([str(tar(tmp_path / name, members, mode))])

    first, second = rows_of(found)

    assert first.values == {
        "__key__": "a/000",
        "jpg": b"A",
        "caption": "from json",
        "width": 3,
        "txt": "a text",
        "cls": 5,
    }
    assert second.values == {"__key__": "b/000", "jpg": b"B", "txt": "ü", "seg.png": b"mask"}
    assert first.where == f"{name}, key a/000"


def test_a_tar_becomes_objects_by_a_mapping(tmp_path: Path) -> None:
    members = {}
    for number in range(3):
        members |= {f"{number}.jpg": b"%d" % number, f"{number}.txt": b"text %d" % number, f"{number}.cls": b"7"}
    found = fragments([str(tar(tmp_path / "s.tar", members))])
    here = collection(title=DataType.TEXT, image=DataType.BLOB)

    plan = Mapping({"txt": "title", "__key__": "id"}).bind(schema(found), here)
    made, refused = objects_of(found, plan)

    assert refused == []
    assert [(each.properties, each.images) for each in made] == [
        ({"title": f"text {number}"}, {"image": b"%d" % number}) for number in range(3)
    ]
    assert len({each.id for each in made}) == 3
    assert plan.unused == {"cls": "the collection Things has no property of this name"}


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("evil.jpg")
    member.type, member.linkname = kind, target
    return member


def test_links_and_devices_refuse_their_row_alone_and_names_lead_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as file:
        for number, member in enumerate(
            (link(tarfile.SYMTYPE, "/etc/passwd"), link(tarfile.LNKTYPE, "0.jpg"), link(tarfile.CHRTYPE, ""))
        ):
            member.name = f"evil{number}.jpg"
            file.addfile(member)
        climbing = tarfile.TarInfo("../../climbing.jpg")
        climbing.size = 1
        file.addfile(climbing, io.BytesIO(b"C"))
    found = fragments([str(path)])

    rows = list(rows_of(found))

    assert [row.fault for row in rows] == [
        "a member is a link",
        "a member is a link",
        "a member is not a plain file",
        "",
    ]
    assert rows[-1].values == {"__key__": "../../climbing", "jpg": b"C"}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["s.tar"]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def test_a_member_over_the_bound_is_refused_unread_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sources.tars.MAX_VALUE_BYTES", 1000)
    found = fragments([str(tar(tmp_path / "s.tar", {"0.jpg": b"x" * 1001, "1.jpg": b"x" * 1000}))])

    large, small = rows_of(found)

    assert (large.fault, "jpg" in large.values) == ("a member has more than 1000 bytes", False)
    assert len(small.values["jpg"]) == 1000


@pytest.mark.parametrize(
    "content",
    [
        header("a.jpg", 2**40) + b"x" * 1000,
        header("a.jpg", 10**9) + b"x" * 1000,
        header("././@LongLink", 2**30, tarfile.GNUTYPE_LONGNAME) + b"x" * 1000,
        header("pax", 2**30, tarfile.XHDTYPE) + b"x" * 1000,
        header("a.jpg", 100_000_000) + b"x" * 1000,
        b"not a tar at all" * 100,
        b"",
    ],
    ids=["a terabyte", "a gigabyte", "a long name", "attributes", "a cut", "no tar", "empty"],
)
def test_declared_sizes_take_no_memory_and_the_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(content)
    found = fragments([str(tmp_path)])

    tracemalloc.start()
    with pytest.raises(InvalidSource, match=r"s\.tar: it is not a tar, or damaged"):
        list(rows_of(found))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2**27 + 2**24


def test_a_name_that_unpacks_to_a_gigabyte_is_not_unpacked(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "s.tar.gz", "wb", compresslevel=1) as file:
        file.write(header("././@LongLink", 2**26, tarfile.GNUTYPE_LONGNAME))
        for _ in range(64):
            file.write(b"x" * 2**20)
    found = fragments([str(tmp_path)])

    tracemalloc.start()
    with pytest.raises(InvalidSource, match="67108864 bytes are declared; the limit is 1048576"):
        list(rows_of(found))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_member_that_is_not_what_its_suffix_says_refuses_its_row_alone(tmp_path: Path) -> None:
    members = {"0.cls": b"five", "1.json": b"{", "2.txt": b"\xff", "3.json": b"[" * 100_000, "4.cls": b"4"}
    found = fragments([str(tar(tmp_path / "s.tar", members))])

    faults = [row.fault for row in rows_of(found)]

    assert faults == [
        "the member cls cannot be read",
        "the member json cannot be read",
        "the member txt cannot be read",
        "the member json cannot be read",
        "",
    ]


def test_names_that_are_not_utf_8_become_text(tmp_path: Path) -> None:
    found = fragments([str(tar(tmp_path / "caf\udce9.tar", {"./caf\udce9.txt": b"x"}))])

    (row,) = rows_of(found)

    assert row.values == {"__key__": "caf%E9", "txt": "x"}
    assert row.where == "caf%E9.tar, key caf%E9"
    assert str(InvalidSource(found[0].location, "\udce9")).endswith("/caf%E9.tar: %E9")
