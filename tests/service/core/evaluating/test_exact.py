"""Exact search finds what sorting all distances finds, whatever the measure and the pages."""

from uuid import UUID

import numpy as np
import pytest

from service.core.evaluating import exact
from service.core.evaluating.exact import Nearest, every_object, rows_of
from service.domain import (
    Collection,
    DataType,
    Distance,
    NamedVector,
    Property,
    ReturnFields,
    Scope,
    Space,
    StoredObject,
)
from tests.fakes.distances import measure
from tests.fakes.store import FakeStore

RANDOM = np.random.default_rng(1)
VECTORS = RANDOM.integers(-4, 5, (300, 6)).astype(np.float32) + np.float32(0.5)
IDS = [UUID(int=number + 1) for number in range(300)]
QUERIES = VECTORS[:20] + np.float32(0.25)


@pytest.mark.parametrize("distance", list(Distance))
def test_the_nearest_are_those_that_sorting_finds(distance: Distance) -> None:
    queries = VECTORS[:20] if distance is Distance.HAMMING else QUERIES
    nearest = Nearest(distance, queries, 10, [None] * 20)

    for start in range(0, 300, 7):
        nearest.add(IDS[start : start + 7], VECTORS[start : start + 7])

    for row, query in enumerate(queries):
        expected = sorted(measure(distance, query, each) for each in VECTORS)[:10]
        assert np.sort(nearest.distances[row]) == pytest.approx(expected, abs=1e-4)
        measured = [measure(distance, query, VECTORS[id_.int - 1]) for id_ in nearest.ids[row]]
        assert sorted(measured) == pytest.approx(expected, abs=1e-4)


def test_an_object_is_not_its_own_neighbour_and_missing_ones_are_none() -> None:
    nearest = Nearest(Distance.COSINE, VECTORS[:2], 5, [IDS[0], None])

    nearest.add(IDS[:3], VECTORS[:3])

    assert set(nearest.ids[0]) == {IDS[1], IDS[2], None}
    assert set(nearest.ids[1]) == {*IDS[:3], None}


def test_what_is_as_near_as_the_farthest_neighbour_counts_as_one() -> None:
    nearest = Nearest(Distance.L2_SQUARED, np.zeros((1, 2), np.float32), 1, [None])
    nearest.add([IDS[0]], np.array([[3, 4]], np.float32))

    assert nearest.within(0, np.array([5, 0], np.float32))
    assert nearest.within(0, np.array([0, 5 + 1e-7], np.float32))
    assert not nearest.within(0, np.array([5.01, 0], np.float32))


async def test_pages_are_short_where_texts_are_long() -> None:
    store = FakeStore()
    await store.create_collection(Collection("Texts", (Property("title", DataType.TEXT),), ()))
    long = "x" * 100_000
    await store.put_objects("Texts", [StoredObject(id_, {"title": long}) for id_ in IDS[:100]])

    pages = [page async for page in every_object(store, "Texts", ReturnFields(["title"]), Scope())]

    assert [len(page) for page in pages] == [16, 20, 20, 20, 20, 4]


async def test_all_objects_are_read_in_pages_of_about_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore()
    await store.create_collection(Collection("Points", (), (NamedVector("default", Space("s", 6, "m")),)))
    objects = [StoredObject(id_, vectors={"default": each}) for id_, each in zip(IDS, VECTORS, strict=True)]
    await store.put_objects("Points", [*objects, StoredObject(UUID(int=1000))])
    monkeypatch.setattr(exact, "PAGE_BYTES", 40 * 24)

    pages = [page async for page in every_object(store, "Points", ReturnFields(vectors=["default"]), Scope())]

    assert [len(page) for page in pages] == [16, *[40] * 7, 5]
    read = [rows_of(page, "default", 6) for page in pages]
    assert [id_ for ids, _ in read for id_ in ids] == IDS
    assert np.array_equal(np.concatenate([rows for _, rows in read]), VECTORS)
