"""Objects that an index does not find by their own vector, over a store in memory."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from embedders.contract import Vector
from service.core.objects import writing
from service.core.objects.writing import IndexEntries
from service.domain import Collection, Distance, NamedVector, Space, StoredObject, VectorIndex
from service.errors import ObjectNotFound, StoreRejected, StoreUnavailable
from service.store.base import NO_TENANT
from tests.fakes.store import FakeStore

NAME = "Things"
COUNT = 40


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(writing, "NEAREST", (5, 20))


def random_vectors(count: int = COUNT) -> list[Vector]:
    return list(np.random.default_rng(7).standard_normal((count, 8)).astype(np.float32))


async def filled(vectors: Sequence[Vector], distance: Distance = Distance.COSINE) -> tuple[FakeStore, NamedVector]:
    store, vector = FakeStore(), NamedVector("main", Space("fake", 8, "fake/model"), distance=distance)
    await store.create_collection(Collection(NAME, (), (vector,)))
    objects = [StoredObject(UUID(int=n), {}, {}, {"main": each}) for n, each in enumerate(vectors)]
    assert await store.put_objects(NAME, objects) == [None] * len(vectors)
    store.calls.clear()
    return store, vector


def having(vectors: Sequence[Vector]) -> dict[UUID, Vector]:
    return {UUID(int=n): each for n, each in enumerate(vectors)}


@pytest.mark.parametrize("distance", Distance)
async def test_what_an_index_lacks_and_what_it_has_no_links_to_is_found_and_nothing_else(distance: Distance) -> None:
    vectors = random_vectors()
    store, vector = await filled(vectors, distance)
    store.lost, store.unlinked = {(UUID(int=3), "main")}, {(UUID(int=5), "main")}

    lost = await IndexEntries(store).find_lost(NAME, vector, having(vectors), NO_TENANT)

    # By the dot product, longer vectors in the same direction may be nearer than the own one, and hide it.
    assert lost == [UUID(int=3), UUID(int=5)] or (distance is Distance.DOT and lost == [UUID(int=3)])
    mending = await IndexEntries(store).mend(NAME, vector, having(vectors), NO_TENANT)
    assert (mending.found, mending.failures, mending.unseen) == (lost, {}, [])
    assert store.lost == set()


@pytest.mark.parametrize(("same", "lost"), [(4, [2]), (12, [2]), (30, [])])
async def test_an_object_is_not_taken_for_found_because_another_has_the_same_vector(same: int, lost: list[int]) -> None:
    vectors = [np.ones(8, np.float32)] * same + random_vectors(10)
    store, vector = await filled(vectors)
    store.unlinked = {(UUID(int=2), "main")}

    found = await IndexEntries(store).find_lost(NAME, vector, having(vectors[:same]), NO_TENANT)

    assert [id_.int for id_ in found] == lost, "among more equals than are asked for nobody can tell"


async def test_among_any_number_of_equals_one_without_an_entry_is_found() -> None:
    vectors = [np.ones(8, np.float32)] * 30
    store, vector = await filled(vectors)
    store.lost = {(UUID(int=29), "main")}

    assert await IndexEntries(store).find_lost(NAME, vector, having(vectors), NO_TENANT) == [UUID(int=29)]


async def test_what_an_index_without_links_lacks_is_found_by_one_search_for_all() -> None:
    vectors = random_vectors()
    store, vector = await filled(vectors)
    store.lost = {(UUID(int=3), "main"), (UUID(int=5), "main")}
    flat = replace(vector, index=VectorIndex("flat"))

    assert await IndexEntries(store).find_lost(NAME, flat, having(vectors), NO_TENANT) == [UUID(int=3), UUID(int=5)]

    assert store.calls == ["search"], "each of it compares everything there is"


async def test_an_entry_that_is_not_found_after_it_was_entered_is_not_called_stored() -> None:
    vectors = random_vectors()
    store, vector = await filled(vectors)
    store.lost, store.unindexable = {(UUID(int=1), "main"), (UUID(int=2), "main")}, {UUID(int=1)}

    failures = await IndexEntries(store).ensure(NAME, vector, having(vectors), NO_TENANT)

    assert failures.keys() == {UUID(int=1)}
    assert isinstance(failures[UUID(int=1)], StoreUnavailable)
    assert "'main' does not find it yet; send it again" in str(failures[UUID(int=1)])


async def test_an_entry_of_an_object_that_the_store_denies_is_not_called_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weaviate that has just started again may say of an object that it does not exist, and list it a moment later."""

    async def deny(_: str, id_: UUID, *_more: object) -> None:
        raise ObjectNotFound(str(id_))

    vectors = random_vectors()
    store, vector = await filled(vectors)
    store.lost = {(UUID(int=3), "main")}
    monkeypatch.setattr(store, "reindex_vector", deny)

    failures = await IndexEntries(store).ensure(NAME, vector, having(vectors), NO_TENANT)
    mending = await IndexEntries(store).mend(NAME, vector, having(vectors), NO_TENANT)

    assert {id_: type(error) for id_, error in failures.items()} == {UUID(int=3): StoreUnavailable}
    assert (mending.failures, mending.gone) == ({}, [UUID(int=3)]), "a deleted object is no failure of a check"


@pytest.mark.parametrize(
    ("refused", "enters", "found"), [(9, True, True), (1, False, True), (9, False, False)], ids=["yet", "then", "never"]
)
async def test_a_refusal_counts_only_while_no_search_finds_the_object(
    monkeypatch: pytest.MonkeyPatch, *, refused: int, enters: bool, found: bool
) -> None:
    """Weaviate may refuse an object for an index that has no entry point, after another index took it."""
    vectors = random_vectors()
    store, vector = await filled(vectors)
    store.lost = {(UUID(int=3), "main")}
    reindex, refusals = store.reindex_vector, iter([StoreRejected("no valid entrypoint available")] * refused)

    async def refuse(*arguments: Any) -> None:
        refusal = next(refusals, None)
        if refusal is None or enters:
            await reindex(*arguments)
        if refusal is not None:
            raise refusal

    monkeypatch.setattr(store, "reindex_vector", refuse)

    mending = await IndexEntries(store).mend(NAME, vector, having(vectors), NO_TENANT)

    one = [UUID(int=3)]
    assert (mending.found, list(mending.failures)) == ((one, []) if found else ([], one))
    assert (mending.unseen, mending.gone) == ([], [])


async def test_nothing_is_asked_about_nothing() -> None:
    store, vector = await filled(random_vectors())

    assert await IndexEntries(store).ensure(NAME, vector, {}, NO_TENANT) == {}
    assert store.calls == []


async def test_a_store_that_fails_while_it_is_asked_says_so_as_itself() -> None:
    vectors = random_vectors()
    store, vector = await filled(vectors)
    store.fail_next_of("search", StoreUnavailable("Weaviate does not answer"))

    with pytest.raises(StoreUnavailable, match="does not answer"):
        await IndexEntries(store).ensure(NAME, vector, having(vectors), NO_TENANT)
