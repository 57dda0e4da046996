from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from service.bulk.accounts import Accounts
from service.bulk.ledger import Ledger
from service.bulk.rows import Row, from_table, to_table
from service.core.objects.duplicates import Duplicate
from service.sources.fragments import Fragment


def row(number: int, *, reason: str = "", fragment: str = "f0") -> Row:
    return Row(fragment, number, f"row {number + 1}", id=b"" if reason else bytes(15) + bytes([number]), reason=reason)


def end(count: int, *, reason: str = "", fragment: str = "f0") -> Row:
    return Row(fragment, count, end=True, reason=reason, message="it is damaged" if reason else "")


def accounts_of(folder: Path, count: int = 1) -> Accounts:
    ledger = Ledger(str(folder))
    ledger.enter()
    return Accounts(ledger, {f"f{n}": Fragment(f"/{n}.parquet", "parquet", "", "1") for n in range(count)})


def table(*rows: Row) -> pa.Table:
    return to_table(rows)


def test_a_fragment_is_done_when_each_of_its_rows_has_an_outcome_in_whatever_order_they_come(tmp_path: Path):
    accounts, ledger = accounts_of(tmp_path), Ledger(str(tmp_path))

    accounts.take(table(row(2), end(3)))
    accounts.take(table(row(0)))
    before = ledger.done()
    accounts.take(table(row(1, reason="IMAGE_TOO_LARGE")))

    (entry,) = ledger.entries()
    assert before == set()
    assert (entry.rows, entry.stored, entry.rejected) == (3, 2, {"IMAGE_TOO_LARGE": 1})


def test_a_row_that_comes_twice_counts_once(tmp_path: Path):
    accounts, ledger = accounts_of(tmp_path), Ledger(str(tmp_path))

    accounts.take(table(row(0), row(0), end(2)))
    before = ledger.done()
    accounts.take(table(row(1)))

    assert (before, accounts.progress.rows, ledger.totals({"f0"}).rows) == (set(), 2, 2)


def test_rows_that_come_again_after_their_fragment_is_done_count_once(tmp_path: Path):
    accounts = accounts_of(tmp_path)

    accounts.take(table(row(0), end(1)))
    accounts.take(table(row(0), end(1)))

    assert (accounts.progress.rows, accounts.progress.fragments) == (1, 1)


def test_rows_that_are_left_out_are_not_stored_and_those_that_are_alike_are_and_both_are_listed(tmp_path: Path):
    accounts, ledger = accounts_of(tmp_path), Ledger(str(tmp_path))
    left_out, alike = row(1), row(2)
    left_out.duplicates(Duplicate(UUID(bytes=row(0).id), 0.99, same_content=False, skipped=True))
    alike.duplicates(Duplicate(UUID(bytes=row(7).id), 1.0, same_content=True, skipped=False))

    accounts.take(table(row(0), left_out, alike, row(3, reason="IMAGE_TOO_LARGE"), end(4)))

    (entry,) = ledger.entries()
    assert (entry.rows, entry.stored, entry.skipped, entry.similar, sum(entry.rejected.values())) == (4, 2, 1, 1, 1)
    assert (accounts.progress.stored, accounts.progress.skipped) == (2, 1)
    assert {id_.int for id_, _ in ledger.all_ids(["f0"])} == {0, 2}
    assert pq.read_table(tmp_path / "duplicates").drop_columns(["location", "part"]).to_pylist() == [
        {
            "row": n,
            "place": f"row {n + 1}",
            "id": str(UUID(int=n)),
            "duplicate_of": str(UUID(int=other)),
            "cosine": cosine,
            "same_content": same,
            "skipped": skipped,
        }
        for n, other, cosine, same, skipped in ((1, 0, 0.99, False, True), (2, 7, 1.0, True, False))
    ]


def test_an_empty_fragment_is_done(tmp_path: Path):
    accounts = accounts_of(tmp_path)

    accounts.take(table(end(0)))

    assert Ledger(str(tmp_path)).done() == {"f0"}


def test_a_fragment_that_cannot_be_read_to_its_end_is_told_and_not_done(tmp_path: Path):
    accounts = accounts_of(tmp_path, 2)

    accounts.take(table(row(0), end(1, reason="SOURCE_UNREADABLE"), row(0, fragment="f1"), end(1, fragment="f1")))

    assert Ledger(str(tmp_path)).done() == {"f1"}
    assert accounts.progress.unreadable == [("/0.parquet", "it is damaged")]


def test_the_time_of_each_stage_is_told_as_its_share(tmp_path: Path):
    accounts = accounts_of(tmp_path)
    timed = row(0)
    timed.seconds = {"read": 1.0, "decode": 2.0, "embed": 5.0, "write": 2.0}

    accounts.take(table(timed))

    assert accounts.progress.shares() == {"read": 0.1, "decode": 0.2, "embed": 0.5, "write": 0.2}


def test_a_row_is_the_same_after_its_way_between_two_processes():
    rejected = row(3)
    rejected.reject("IMAGE_UNDECODABLE", "no picture")

    rows = from_table(to_table([row(1), rejected, end(2)]))

    assert [each.number for each in rows] == [1, 3, 2]
    assert (rows[1].reason, rows[1].live, rows[2].end) == ("IMAGE_UNDECODABLE", False, True)
