import hashlib
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest

from service.bulk import ledger as ledgers
from service.bulk.ledger import Duplicate, Entry, Ledger, LedgerFailed, Rejection, Totals, name_of
from service.errors import InvalidRequest


def ids_of(*texts: str) -> list[bytes]:
    return [hashlib.sha256(each.encode()).digest()[:16] for each in texts]


def entered(folder: Path) -> Ledger:
    ledger = Ledger(str(folder))
    ledger.enter()
    return ledger


LARGE = Rejection(1, "row 2", "IMAGE_TOO_LARGE", "too large")
ALIKE = Duplicate(2, "row 3", "b", "a", 0.99, same_content=False, skipped=True)


def add(
    ledger: Ledger,
    name: str,
    ids: list[bytes],
    rejections: tuple[Rejection, ...] = (),
    skipped: tuple[Duplicate, ...] = (),
) -> str:
    rejected = {each.reason: 1 for each in rejections}
    rows = len(ids) + len(rejections) + len(skipped)
    entry = Entry(name, "/a.parquet", name, "1", rows, len(ids), rejected, ledger.run, len(skipped))
    ledger.add(entry, ids, rejections, skipped)
    return name


def test_a_fragment_is_done_once_its_entry_is_written_and_stays_so_for_another_process(tmp_path: Path):
    ledger = entered(tmp_path / "new" / "ledger")
    before = ledger.done()

    name = add(ledger, name_of("/a.parquet", "row groups 0-0", "1"), ids_of("a"))

    assert (before, Ledger(ledger.location).done()) == (set(), {name})


@pytest.mark.parametrize("changed", [("/b", "part", "1"), ("/a", "other", "1"), ("/a", "part", "2")])
def test_another_place_or_content_is_another_entry(changed: tuple[str, str, str]):
    assert name_of("/a", "part", "1") != name_of(*changed)


def test_an_entry_that_was_not_written_last_does_not_count(tmp_path: Path):
    ledger = entered(tmp_path)
    add(ledger, "one", ids_of("a"))
    (tmp_path / "ids" / "two").write_bytes(ids_of("b")[0])  # what a killed command left

    totals = ledger.totals({"one", "two"})

    assert (ledger.done(), totals.rows, totals.distinct) == ({"one"}, 1, 1)


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_rows_in_are_stored_and_rejected_and_duplicates_however_many_parts_ids_are_compared_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    monkeypatch.setattr(ledgers, "IDS_AT_ONCE", at_once)
    ledger = entered(tmp_path)
    names = {
        add(ledger, "one", ids_of("a", "b", "b", "c"), (Rejection(4, "row 5", "IMAGE_TOO_LARGE", "too large"),)),
        add(ledger, "two", ids_of("c", "d"), skipped=(ALIKE, ALIKE)),
    }
    add(ledger, "old", ids_of("a", "x", "y"), skipped=(ALIKE,))

    read = Ledger._read
    paths = Counter[str]()

    def counted(ledger: Ledger, path: str) -> bytes | None:
        paths[path] += 1
        return read(ledger, path)

    monkeypatch.setattr(Ledger, "_read", counted)
    totals = ledger.totals(names)

    assert {paths[f"ids/{each}"] for each in (*names, "old")} == {1}
    runs = dict.fromkeys((*names, "old"), ledger.run)
    stored = {"one": 4, "two": 2}
    assert totals == Totals(2, 9, {"IMAGE_TOO_LARGE": 1}, skipped=2, distinct=4, outdated=2, runs=runs, stored=stored)
    assert totals.duplicates == 2


def test_an_id_that_ends_in_zeros_is_one_id_of_its_own(tmp_path: Path):
    ledger = entered(tmp_path)
    zeros, ones = bytes(15) + b"\1", b"\1" + bytes(15)

    add(ledger, "one", [bytes(16), zeros, ones])

    assert ledger.totals({"one"}).distinct == 3
    assert set(ledger.some_ids(["one"], 3)) == {(id_, "one") for id_ in (UUID(int=0), UUID(int=1), UUID(bytes=ones))}


def test_rejected_rows_are_a_table_with_their_places_and_reasons(tmp_path: Path):
    ledger = entered(tmp_path)

    add(ledger, "one", [], (Rejection(0, "a.parquet, row 1", "IMAGE_UNDECODABLE", "no picture"),))

    (row,) = pq.read_table(tmp_path / "rejected" / "one.parquet").to_pylist()
    assert row == {
        "location": "/a.parquet",
        "part": "one",
        "row": 0,
        "place": "a.parquet, row 1",
        "reason": "IMAGE_UNDECODABLE",
        "message": "no picture",
    }


def test_entries_and_ids_are_read_several_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ledger = entered(tmp_path)
    names = {add(ledger, name, ids_of(name)) for name in ("one", "two")}
    read, both = Ledger._read, threading.Barrier(2, timeout=300)

    def reading(own: Ledger, path: str) -> bytes | None:
        # Each waits until the other one has begun.
        both.wait()
        return read(own, path)

    monkeypatch.setattr(Ledger, "_read", reading)

    assert ledger.totals(names).distinct == 2


def test_few_entries_and_ids_wait_in_memory_however_slowly_they_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    count, begun, taken, waiting = 5 * ledgers.READ_AT_ONCE, 0, 0, []
    ledger = entered(tmp_path)
    names = {add(ledger, f"{number:02}", ids_of(str(number))) for number in range(count)}

    class Threads(ThreadPoolExecutor):
        def submit(self, *args: Any, **options: Any) -> Any:
            nonlocal begun
            begun += 1
            return super().submit(*args, **options)

    class File(SpooledTemporaryFile[bytes]):
        def write(self, content: Any) -> int:
            take()
            return super().write(content)

    def take() -> None:
        nonlocal taken
        waiting.append(begun - taken)
        taken += 1

    monkeypatch.setattr(ledgers, "ThreadPoolExecutor", Threads)
    monkeypatch.setattr(ledgers, "SpooledTemporaryFile", File)
    for _ in ledger.entries():
        take()
    of_entries, waiting = waiting, []
    # Its ids are as many again, and it takes all entries before.
    taken += count
    totals = ledger.totals(names)

    assert totals.distinct == len(of_entries) == len(waiting) == count
    assert max(of_entries) == max(waiting) == ledgers.READ_AT_ONCE


def test_a_forgotten_fragment_is_not_done_and_has_neither_rejected_rows_nor_duplicates(tmp_path: Path):
    ledger = entered(tmp_path)
    for name in ("one", "two", "three"):
        add(ledger, name, ids_of(name), (LARGE,) if name != "two" else (), (ALIKE,) if name != "two" else ())

    ledger.forget(["one", "two"])

    assert ledger.done() == {"three"}
    for folder in ("rejected", "duplicates"):
        assert [each.name for each in (tmp_path / folder).iterdir()] == ["three.parquet"]


@pytest.mark.parametrize("folder", ["rejected", "duplicates"])
def test_what_a_killed_command_listed_is_gone_once_the_fragment_is_done(tmp_path: Path, folder: str):
    ledger = entered(tmp_path)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "one.parquet").touch()

    add(ledger, "one", ids_of("a"))

    assert list((tmp_path / folder).iterdir()) == []


def test_an_entry_of_a_version_that_looked_for_no_duplicates_counts(tmp_path: Path):
    ledger = entered(tmp_path)
    add(ledger, "one", ids_of("a"))
    path = tmp_path / "fragments" / "one.json"
    old = json.loads(path.read_text())
    del old["skipped"], old["similar"]
    path.write_text(json.dumps(old))

    totals = ledger.totals({"one"})

    assert (totals.rows, totals.distinct, totals.skipped, totals.similar) == (1, 1, 0, 0)


def test_a_ledger_of_another_job_is_refused_with_what_differs(tmp_path: Path):
    ledger = Ledger(str(tmp_path))
    ledger.begin({"collection": "Photos", "_objects_before": 3})

    again = Ledger(str(tmp_path)).begin({"collection": "Photos", "_objects_before": 9})
    with pytest.raises(InvalidRequest, match="of a run with collection = 'Photos', and this one has 'Cats'"):
        ledger.begin({"collection": "Cats"})

    assert again["_objects_before"] == 3


def test_each_ledger_has_an_id_from_its_beginning_on(tmp_path: Path):
    one, other = Ledger(str(tmp_path / "one")), Ledger(str(tmp_path / "other"))
    before = one.id
    for each in (one, other, Ledger(one.location)):
        each.begin({})

    assert (before, Ledger(one.location).id) == ("", one.id)
    assert len({one.id, other.id, ""}) == 3


def test_a_command_that_did_not_end_well_is_seen_by_the_next_one(tmp_path: Path):
    ledger = Ledger(str(tmp_path))

    first, second = ledger.enter(), ledger.enter()
    ledger.leave()

    assert (first, second, ledger.enter()) == (False, True, False)


def test_a_command_stops_once_another_one_has_begun_or_has_ended_since(tmp_path: Path):
    earlier, later = entered(tmp_path), entered(tmp_path)

    for command in (lambda: add(earlier, "one", ids_of("a")), earlier.leave):
        with pytest.raises(LedgerFailed, match="another command uses this ledger since this one began"):
            command()
    add(later, "two", ids_of("b"))
    later.leave()
    with pytest.raises(LedgerFailed, match="another command uses this ledger"):
        earlier.check_alone()

    assert earlier.done() == {"two"}


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_the_first_entry_of_a_fragment_stays_though_another_command_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, where: str
):
    location = str(tmp_path) if where == "disk" else f"s3://{request.getfixturevalue('bucket').name}/ledger/"
    earlier, later = Ledger(location), Ledger(location)
    # Both found nobody else just before they wrote.
    monkeypatch.setattr(Ledger, "check_alone", lambda _: None)

    add(later, "one", ids_of("a"))
    add(earlier, "one", ids_of("a"))
    begun = [each.begin({}) for each in (earlier, later)]

    (entry,) = earlier.entries()
    assert entry.run == later.run
    assert begun[0] == begun[1]


def test_a_sample_of_ids_is_from_all_fragments(tmp_path: Path):
    ledger = entered(tmp_path)
    names = [add(ledger, f"n{n:03}", ids_of(*(f"{n}-{row}" for row in range(50)))) for n in range(40)]

    some = [id_ for id_, _ in ledger.some_ids(names, 20)]

    of_fragments = [{UUID(bytes=each) for each in ids_of(*(f"{n}-{row}" for row in range(50)))} for n in range(40)]
    assert 20 <= len(set(some)) <= 40
    assert sum(bool(ids & set(some)) for ids in of_fragments) >= 20


def test_all_ids_are_those_of_all_rows_however_unlike_the_fragments_are(tmp_path: Path):
    ledger = entered(tmp_path)
    wanted = [str(each) for each in range(20)]
    names = [add(ledger, "few", ids_of(*wanted[:2])), add(ledger, "many", ids_of(*wanted[2:])), "none"]

    names_of = ["few"] * 2 + ["many"] * 18
    assert list(ledger.all_ids(names)) == [
        (UUID(bytes=each), name) for each, name in zip(ids_of(*wanted), names_of, strict=True)
    ]
    assert list(ledger.some_ids([], 0)) == []


def test_a_location_that_cannot_be_used_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(LedgerFailed, match=str(tmp_path / "file")):
        Ledger(str(tmp_path / "file")).begin({})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null"])
def test_a_ledger_whose_file_was_damaged_says_which_one(tmp_path: Path, content: bytes):
    Ledger(str(tmp_path)).begin({"collection": "Things"})
    (tmp_path / "run.json").write_bytes(content)

    with pytest.raises(LedgerFailed, match=r"run\.json is damaged .*; use another ledger"):
        Ledger(str(tmp_path)).begin({"collection": "Things"})
    with pytest.raises(LedgerFailed, match=r"run\.json is damaged"):
        _ = Ledger(str(tmp_path)).id


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_an_entry_that_was_damaged_is_named_and_its_fragment_can_be_done_again(tmp_path: Path, content: bytes):
    ledger = entered(tmp_path)
    add(ledger, "a", ids_of("x", "y"))
    file = tmp_path / "fragments" / "a.json"
    file.write_bytes(content)

    with pytest.raises(LedgerFailed, match=r"fragments/a\.json is damaged .*; delete fragments/a\.json"):
        ledger.totals({"a"})
    file.unlink()
    add(ledger, "a", ids_of("x", "y"))
    assert ledger.totals({"a"}).distinct == 2


@pytest.mark.parametrize("content", [None, b"", b"1" * 16, b"1" * 31])
@pytest.mark.parametrize("current", [{"a"}, set()])
def test_rows_whose_ids_are_lost_are_not_taken_for_duplicates(tmp_path: Path, content: bytes | None, current: set[str]):
    ledger = entered(tmp_path)
    add(ledger, "a", ids_of("x", "y"))
    file = tmp_path / "ids" / "a"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)

    with pytest.raises(LedgerFailed, match=r"ids/a is damaged \([01] ids instead of 2\); delete fragments/a\.json"):
        ledger.totals(current)
