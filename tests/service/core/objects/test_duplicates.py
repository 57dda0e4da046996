"""Duplicates by themselves: what is searched, and which objects of one chunk are compared with which."""

import threading
from collections.abc import Sequence
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray

from embedders.contract import Vector
from service.core.objects import duplicates
from service.core.objects.duplicates import Duplicate, DuplicateAction, DuplicateCheck, Duplicates
from service.domain import Collection, DataType, Distance, NamedVector, Property, Space, StoredObject, WeightedField
from service.errors import StoreRejected
from service.store.base import NO_TENANT
from tests.fakes.store import FakeStore

SKIP, REPORT = DuplicateAction.SKIP, DuplicateAction.REPORT


def collection(distance: Distance = Distance.COSINE) -> Collection:
    vector = NamedVector("default", Space("space", 2, "model"), (WeightedField("image"),), distance=distance)
    return Collection("Pictures", (Property("image", DataType.BLOB),), (vector,))


def at(angle: float, number: int, image: bytes = b"", length: float = 1) -> StoredObject:
    """Return an object whose vector has an angle in degrees."""
    turn = np.radians(angle)
    vector = np.array([np.cos(turn), np.sin(turn)], np.float32) * length
    return StoredObject(UUID(int=number), {}, {"image": image} if image else {}, {"default": vector})


async def find(
    store: FakeStore,
    objects: Sequence[StoredObject],
    action: DuplicateAction = SKIP,
    *,
    stored: Sequence[StoredObject] = (),
    degrees: float = 5,
    min_cosine: float | None = None,
) -> dict[int, Duplicate]:
    """Return what is found, by the objects' numbers."""
    if min_cosine is None:
        min_cosine = float(np.cos(np.radians(degrees + 0.01))) if degrees else 0
    check = DuplicateCheck(action, min_cosine)
    known = {each.id: each for each in stored}
    found = await Duplicates(store).find(store._collections["Pictures"], check, objects, known, NO_TENANT)
    return {id_.int: each for id_, each in found.items()}


@pytest.fixture
async def store() -> FakeStore:
    made = FakeStore()
    await made.create_collection(collection())
    return made


@pytest.mark.parametrize(("action", "expected"), [(SKIP, {2: 1, 4: 3}), (REPORT, {2: 1, 3: 2, 4: 3})])
async def test_an_object_is_compared_with_what_will_be_stored_only(
    store: FakeStore, action: DuplicateAction, expected: dict[int, int]
) -> None:
    found = await find(store, [at(angle, number) for number, angle in ((1, 0), (2, 4), (3, 8), (4, 12))], action)

    assert {number: each.id.int for number, each in found.items()} == expected
    assert {each.skipped for each in found.values()} == {action is SKIP}


async def test_an_object_that_is_replaced_is_compared_as_it_will_be(store: FakeStore) -> None:
    before = [at(0, 1), at(0, 2), at(90, 3)]
    await store.put_objects("Pictures", before)

    found = await find(store, [at(0, 1), at(45, 2)], REPORT, stored=before[:2])
    back = await find(store, [at(90, 1), at(0, 2)], REPORT, stored=before[:2])

    assert found == {}, "the second one leaves the first one's place"
    assert {number: each.id.int for number, each in back.items()} == {1: 3}


@pytest.mark.parametrize(("action", "expected"), [(SKIP, {1: 2, 3: 2}), (REPORT, {1: 2, 3: 2})])
async def test_what_is_stored_stays_and_others_duplicate_it_whichever_comes_first(
    store: FakeStore, action: DuplicateAction, expected: dict[int, int]
) -> None:
    stored = at(0, 2)
    await store.put_objects("Pictures", [stored])

    found = await find(store, [at(2, 1), stored, at(-2, 3)], action, stored=[stored])

    assert {number: each.id.int for number, each in found.items()} == expected


async def test_the_nearest_is_named_whether_it_is_stored_or_in_the_chunk(store: FakeStore) -> None:
    await store.put_objects("Pictures", [at(3, 1), at(80, 2)])

    found = await find(store, [at(77, 10), at(0, 11), at(1, 12), at(81, 13)], REPORT)

    assert {number: each.id.int for number, each in found.items()} == {10: 2, 11: 1, 12: 11, 13: 2}
    assert found[12].cosine == pytest.approx(np.cos(np.radians(1)))


async def test_the_search_is_bounded_by_a_distance_where_that_follows_from_the_cosine(store: FakeStore) -> None:
    await find(store, [at(0, 1)])
    assert store.options[-1].distance == pytest.approx(1 - np.cos(np.radians(5.01)) + 0.02)

    store._collections["Pictures"] = collection(Distance.L2_SQUARED)
    await store.put_objects("Pictures", [at(0, 1, length=2)])
    found = await find(store, [at(1, 2)])

    assert store.options[-1].distance is None
    assert found[2].cosine == pytest.approx(np.cos(np.radians(1)))


async def test_the_cosine_is_of_vectors_of_any_length(store: FakeStore) -> None:
    await store.put_objects("Pictures", [at(0, 1, length=10)])

    found = await find(store, [at(0, 2, length=1e-3), at(60, 3), at(60, 4, length=1e10)])

    assert {number: round(each.cosine, 6) for number, each in found.items()} == {2: 1, 4: 1}


async def test_stored_pictures_that_cannot_be_read_are_near_and_not_known_to_be_the_same(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_objects("Pictures", [at(0, 1, b"picture")])
    assert (await find(store, [at(0, 2, b"picture")]))[2].same_content

    async def refuse(*_: object) -> None:
        raise StoreRejected("too large")

    monkeypatch.setattr(store, "get_objects", refuse)

    assert not (await find(store, [at(0, 2, b"picture")]))[2].same_content
    assert await find(store, [at(0, 2, b"picture")], degrees=0) == {}


@pytest.mark.parametrize("stored", [True, False])
async def test_equal_vectors_have_the_greatest_cosine_whatever_rounding_makes_of_it(
    store: FakeStore, *, stored: bool
) -> None:
    before, objects = [at(angle, 1000 + angle) for angle in range(90)], [at(angle, angle) for angle in range(90)]
    if stored:
        await store.put_objects("Pictures", before)

    found = await find(store, objects if stored else [*before, *objects], min_cosine=1)

    assert {number: each.id.int for number, each in found.items()} == {n: 1000 + n for n in range(90)}


@pytest.mark.parametrize("stored", [True, False])
async def test_the_same_content_is_found_whatever_cosine_is_asked_for(store: FakeStore, *, stored: bool) -> None:
    before = at(0, 1, b"picture")
    if stored:
        await store.put_objects("Pictures", [before])
    later = [at(1, 2, b"picture"), at(1, 3, b"another")]

    found = await find(store, later if stored else [before, *later], min_cosine=1)

    assert {number: (each.id.int, each.same_content) for number, each in found.items()} == {2: (1, True)}


async def test_vectors_of_another_length_are_left_to_the_write(store: FakeStore) -> None:
    longer = StoredObject(UUID(int=2), {}, {}, {"default": np.ones(3, np.float32)})

    found = await find(store, [at(0, 1), longer, at(0, 3)])

    assert {number: each.id.int for number, each in found.items()} == {3: 1}


async def test_a_chunk_is_compared_beside_the_event_loop(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    compute = duplicates._cosines

    def noting(vectors: Sequence[Vector]) -> NDArray[np.float64]:
        if len(vectors) == 3:
            threads.append(threading.current_thread())
        return compute(vectors)

    monkeypatch.setattr(duplicates, "_cosines", noting)

    await find(store, [at(0, 1), at(30, 2), at(60, 3)])

    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


async def test_an_object_that_loses_the_vector_meanwhile_is_no_neighbour(store: FakeStore) -> None:
    await store.put_objects("Pictures", [at(0, 1)])
    store.lost.add((UUID(int=1), "default"))

    assert await find(store, [at(0, 2)]) == {}
