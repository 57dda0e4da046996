import pytest

from service.bulk.ledger import Totals
from service.bulk.reconciling import InCollection, Reconciliation

TOTALS = Totals(fragments=2, rows=10, rejected={"IMAGE_TOO_LARGE": 2}, distinct=7, outdated=1)


def collection(counted: int, *, before: int = 0, absent: int = 0, unfound: int = 0) -> InCollection:
    return InCollection(before, counted, sampled=5, absent=absent, mended=0, unfound=unfound)


@pytest.mark.parametrize(("counted", "before"), [(8, 0), (28, 20), (21, 20), (20, 20)])
def test_as_many_objects_as_the_ledger_says_add_up_where_some_may_have_been_there_before(counted: int, before: int):
    assert Reconciliation(TOTALS, collection(counted, before=before), 8).faults == []


@pytest.mark.parametrize(("counted", "before"), [(7, 0), (9, 0), (29, 20), (19, 20)])
def test_another_number_of_objects_is_an_error_with_the_numbers(counted: int, before: int):
    (fault,) = Reconciliation(TOTALS, collection(counted, before=before), None).faults

    assert f"has {counted} objects" in fault
    assert f"{before} that it had before the first run, 7 of this input, and 1 of earlier versions" in fault


def test_objects_that_are_not_there_or_not_found_and_missing_rows_of_files_are_errors():
    faults = Reconciliation(TOTALS, collection(8, absent=2, unfound=3), 6).faults

    assert faults == [
        "of 5 objects that were looked for, 2 are not there",
        "of 5 objects that were looked for, 3 are not found by their vectors",
        "the Parquet files have 6 rows, and 8 are expected",
    ]
