from collections import Counter
from uuid import UUID

import numpy as np
import pytest

from service.bulk.ledger import Totals
from service.bulk.reconciling import InCollection, Reconciliation, count_objects, look_into
from service.bulk.stages import Target
from service.domain import Collection, MultiTenancy, NamedVector, Scope, Space, StoredObject
from service.errors import StoreUnavailable, TenantNotFound
from service.settings import WeaviateSettings
from tests.fakes.store import FakeStore

TOTALS = Totals(
    fragments=2, rows=10, rejected={"IMAGE_TOO_LARGE": 2}, distinct=7, outdated=1, stored={"a": 5, "b": 3, "c": 0}
)


def collection(counted: int, *, before: int = 0, absent: int = 0, unfound: int = 0) -> InCollection:
    lacking = frozenset({"b", "left by a killed command"} if absent else ())
    return InCollection(before, counted, sampled=5, absent=absent, mended=0, unfound=unfound, lacking=lacking)


@pytest.mark.parametrize(("counted", "before"), [(8, 0), (28, 20), (21, 20), (20, 20), (9, 0), (99, 20)])
def test_at_least_as_many_objects_as_the_ledger_says_add_up_since_others_may_write_too(counted: int, before: int):
    assert Reconciliation(2, TOTALS, collection(counted, before=before), Counter(a=5, b=3)).faults == []


@pytest.mark.parametrize(("counted", "before", "least"), [(7, 0, 8), (19, 20, 20)])
def test_too_few_objects_are_an_error_with_the_numbers(counted: int, before: int, least: int):
    (fault,) = Reconciliation(2, TOTALS, collection(counted, before=before), None).faults

    assert f"has {counted} objects, and at least {least} are expected: it had {before} before the first run" in fault
    assert "7 are of this input, and 1 of earlier versions" in fault


def test_objects_that_are_not_there_or_not_found_and_missing_rows_of_files_are_errors():
    found = Reconciliation(2, TOTALS, collection(8, absent=2, unfound=3), Counter(a=3, b=3))

    assert found.lacking == {"a", "b"}
    assert found.faults == [
        "of 5 objects that were looked for, 2 are not there",
        "of 5 objects that were looked for, 3 are not found by their vectors",
        "the Parquet files have 6 rows, and 8 are expected",
        "the same command does 2 of 2 fragments again; repeat it",
    ]


def test_rows_of_one_fragment_do_not_make_up_for_those_of_another():
    found = Reconciliation(2, TOTALS, None, Counter(a=3, b=5))

    assert found.lacking == {"a", "b"}
    assert len(found.faults) == 2


def test_a_fragment_without_an_entry_is_an_error():
    faults = Reconciliation(5, TOTALS, collection(8), None).faults

    assert faults == ["3 of 5 fragments have no entry; repeat the command"]


def with_tenants(*, auto_creation: bool) -> Collection:
    return Collection("Photos", (), (), multi_tenancy=MultiTenancy(auto_creation=auto_creation))


async def test_a_tenant_that_the_first_write_creates_has_no_objects_yet():
    store = FakeStore()
    await store.create_collection(with_tenants(auto_creation=True))

    assert await count_objects(store, with_tenants(auto_creation=True), Scope("new")) == 0
    with pytest.raises(TenantNotFound):
        await count_objects(store, with_tenants(auto_creation=False), Scope("new"))


async def filled() -> tuple[FakeStore, Collection]:
    """Return a store with a collection of five objects."""
    store, own = FakeStore(), Collection("Photos", (), (NamedVector("main", Space("fake", 2, "fake/model")),))
    await store.create_collection(own)
    vectors = [np.array([1, n], np.float32) for n in range(5)]
    await store.put_objects(
        "Photos", [StoredObject(UUID(int=n), vectors={"main": each}) for n, each in enumerate(vectors)]
    )
    return store, own


async def test_objects_are_looked_for_a_few_at_a_time_as_their_ids_come(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.bulk.reconciling.AT_ONCE", 2)
    store, own = await filled()

    ids = ((UUID(int=n), f"f{n // 2}") for n in range(7))
    found = await look_into(store, Target(own, Scope(), WeaviateSettings(), 0.0), 0, ids)

    assert found == InCollection(
        before=0, counted=5, sampled=7, absent=2, mended=0, unfound=0, lacking=frozenset({"f2", "f3"})
    )


@pytest.mark.parametrize("method", ["get_objects", "search", "reindex_vector", "count_objects"])
async def test_a_store_that_does_not_answer_for_a_while_is_waited_for(method: str):
    store, own = await filled()
    store.lost.add((UUID(int=3), "main"))
    store.fail_next_of(method, StoreUnavailable("Weaviate does not answer"))

    ids = ((UUID(int=n), "f") for n in range(5))
    found = await look_into(store, Target(own, Scope(), WeaviateSettings(), 600.0), 0, ids)

    assert found == InCollection(before=0, counted=5, sampled=5, absent=0, mended=1, unfound=0)
