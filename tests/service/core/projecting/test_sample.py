import threading
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pytest

from service.core.projecting import sample as sampling
from service.core.projecting.sample import Sample, SampleOf, read_sample
from service.domain import (
    Collection,
    Condition,
    DataType,
    NamedVector,
    Operator,
    Property,
    PropertyValue,
    Space,
    StoredObject,
    Target,
)
from tests.fakes.store import FakeStore

NAME = "Things"
SPACE = UUID(int=7)


def random_ids(count: int) -> list[UUID]:
    return [uuid5(SPACE, str(number)) for number in range(count)]


def counted(count: int) -> list[UUID]:
    return [UUID(int=number + 1) for number in range(count)]


def of_time(count: int) -> list[UUID]:
    """Return version 7 UUIDs of one hour: they begin with the time in milliseconds."""
    times = [1_790_000_000_000 + number * 3_600_000 // count for number in range(count)]
    return [UUID(int=time << 80 | 7 << 76 | 2 << 62 | number * 97) for number, time in enumerate(times)]


async def filled(
    ids: Sequence[UUID], vectors: Mapping[int, Sequence[float] | None] | None = None, **values: Any
) -> FakeStore:
    """Return a store with objects of these ids; the vector of each is its place, unless one is given."""
    store, chosen = FakeStore(), dict(vectors or {})
    properties = (
        Property("title", DataType.TEXT),
        Property("tags", DataType.TEXT_ARRAY),
        Property("counts", DataType.INT_ARRAY),
        Property("year", DataType.INT),
    )
    await store.create_collection(Collection(NAME, properties, (NamedVector("main", Space("fake", 2, "fake/model")),)))
    objects = []
    for number, id_ in enumerate(ids):
        vector = chosen.get(number, (number + 1, 1))
        own: Mapping[str, PropertyValue] = {"year": number, **values}
        named = {} if vector is None else {"main": np.asarray(vector, np.float32)}
        objects.append(StoredObject(id_, own, vectors=named))
    assert await store.put_objects(NAME, objects) == [None] * len(objects)
    store.calls.clear()
    return store


async def take(store: FakeStore, size: int, **wanted: Any) -> Sample:
    total = await store.count_objects(NAME)
    return await read_sample(store, SampleOf(NAME, "main", size, **wanted), total)


async def test_of_few_objects_all_are_taken_with_their_vectors_and_values_by_id() -> None:
    ids = random_ids(40)
    store = await filled(ids)

    sample = await take(store, 100, properties=("year", "title"))

    assert sample.ids == sorted(ids)
    numbers = [ids.index(id_) for id_ in sample.ids]
    assert sample.vectors.tolist() == [[number + 1, 1] for number in numbers]
    assert (sample.vectors.dtype, sample.missing) == (np.float32, 0)
    assert sample.values == {"year": numbers, "title": [None] * 40}


@pytest.mark.parametrize("make_ids", [random_ids, counted, of_time])
async def test_it_is_from_all_over_the_ids_whatever_they_are_made_of(make_ids: Any) -> None:
    ids = sorted(make_ids(1600))
    store = await filled(ids)

    sample = await take(store, 160)

    assert len(sample.ids) == 160
    places = np.array([ids.index(id_) for id_ in sample.ids])
    shares = np.histogram(places, bins=8, range=(0, 1600))[0]
    assert min(shares) >= 10, "there are sixteen places, so every eighth of the collection has one of them at least"


async def test_the_same_objects_give_the_same_sample() -> None:
    store = await filled(random_ids(500))

    assert (await take(store, 50)).ids == (await take(store, 50)).ids


@pytest.mark.parametrize("make_ids", [random_ids, counted, of_time])
async def test_most_objects_of_a_sample_are_in_the_next_one_after_some_came_and_some_went(make_ids: Any) -> None:
    ids = sorted(make_ids(1000))
    before, grown, shrunk = [await filled(each) for each in (ids[:950], ids, ids[50:950])]

    sample = set((await take(before, 100)).ids)

    assert len(sample & set((await take(grown, 100)).ids)) >= 80
    assert len(sample & set((await take(shrunk, 100)).ids)) >= 80


async def test_ids_that_are_crowded_in_one_place_fill_the_sample_all_the_same() -> None:
    far = UUID(int=(1 << 128) - 1)
    store = await filled([*counted(300), far])

    sample = await take(store, 120)

    assert len(sample.ids) == 120


async def test_objects_without_the_vector_are_counted_and_others_take_their_place() -> None:
    store = await filled(random_ids(300), dict.fromkeys(range(0, 300, 2)))

    sample = await take(store, 100)

    assert len(sample.ids) == 100
    assert all(row.any() for row in sample.vectors)
    assert sample.missing > 0


async def test_no_more_than_four_objects_are_read_for_each_point() -> None:
    store = await filled(random_ids(2000), dict.fromkeys(range(2000)))

    sample = await take(store, 100)

    assert (list(sample.ids), sample.vectors.shape) == ([], (0, 0))
    assert 400 <= sample.missing < 400 + sampling.LARGEST_PAGE


async def test_of_long_vectors_there_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_VALUES", 50)

    sample = await take(await filled(random_ids(200)), 100)

    assert sample.vectors.shape == (25, 2)


async def test_pages_are_short_where_objects_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PAGE_BYTES", 2000)
    pages: list[int] = []
    store = await filled(random_ids(60), title="x" * 1000)
    search = store.search

    async def watched(collection: str, spec: Any) -> Any:
        hits = await search(collection, spec)
        pages.append(len(hits))
        return hits

    monkeypatch.setattr(store, "search", watched)
    sample = await take(store, 60, properties=("title",))

    assert len(sample.ids) == 60
    assert max(pages[1:]) <= 2


async def test_values_are_cut_to_what_a_label_needs() -> None:
    tags = [f"tag {number}".ljust(300, "x") for number in range(20)]

    store = await filled(random_ids(3), title="é" * 5000, tags=tags)
    titles, lists = [await take(store, 3, properties=(name,)) for name in ("title", "tags")]

    assert titles.values["title"] == ["é" * 200] * 3
    assert lists.values["tags"] == [[each[:200] for each in tags[:10]]] * 3


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        pytest.param("title", "x" + "é" * 60, "x" + "é" * 29, id="a text, at a whole character"),
        pytest.param("tags", ["a", "b" * 20, "c" * 60, "d"], ["a", "b" * 20], id="a list, before what does not fit"),
        pytest.param("tags", ["é" * 60, "d"], ["é" * 26], id="the first text of a list"),
        pytest.param("counts", list(range(20)), list(range(7)), id="numbers"),
    ],
)
async def test_the_values_of_a_point_share_its_bytes_equally(
    monkeypatch: pytest.MonkeyPatch, name: str, value: PropertyValue, kept: PropertyValue
) -> None:
    monkeypatch.setattr(sampling, "MAX_POINT_BYTES", 240)
    store = await filled(random_ids(1), **{name: value})

    sample = await take(store, 1, properties=("title", "tags", "counts", "year"))

    assert sample.values[name] == [kept]


async def test_the_largest_sample_is_put_together_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    zeros = np.zeros

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return zeros(*arguments)

    store = await filled(random_ids(3))
    monkeypatch.setattr(sampling.np, "zeros", watched)
    await take(store, 3)

    assert threads
    assert threading.current_thread().name not in threads


async def test_with_a_filter_it_is_spread_over_what_matches() -> None:
    ids = random_ids(400)
    late = Condition(Target.PROPERTY, Operator.GREATER_OR_EQUAL, 200, "year")
    store = await filled(ids)

    sample = await take(store, 50, filters=late, properties=("year",))

    years = sorted(int(str(each)) for each in sample.values["year"])
    assert (len(years), years[0] >= 200) == (50, True)
    assert min(np.histogram(years, bins=5, range=(200, 400))[0]) >= 5


@pytest.mark.parametrize("matching", [199, 200, 250])
async def test_what_matches_is_read_a_page_of_ids_at_a_time(monkeypatch: pytest.MonkeyPatch, matching: int) -> None:
    monkeypatch.setattr(sampling, "WINDOW", 200)
    monkeypatch.setattr(sampling, "WINDOW_PAGE", 50)
    store = await filled(random_ids(matching))
    limits: list[int] = []
    search = store.search

    async def watched(collection: str, spec: Any) -> Any:
        limits.append(spec.limit)
        return await search(collection, spec)

    monkeypatch.setattr(store, "search", watched)
    early = Condition(Target.PROPERTY, Operator.GREATER_OR_EQUAL, 0, "year")
    sample = await take(store, 400, filters=early)

    assert limits == [50] * 4
    assert len(sample.ids) == min(matching, 200)


async def test_an_empty_collection_has_an_empty_sample() -> None:
    sample = await take(await filled([]), 10, properties=("year",))

    assert (list(sample.ids), sample.vectors.shape, sample.values) == ([], (0, 0), {"year": []})
