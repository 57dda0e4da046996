"""The ef of an index is changed for a while, and the former one comes back."""

import asyncio

import pytest

from service.core.evaluating.index_ef import EfChanges
from service.domain import Collection, NamedVector, Space, VectorIndex
from tests.fakes.store import FakeStore


def points(ef: int) -> Collection:
    return Collection(
        "Points", (), (NamedVector("default", Space("s", 6, "m"), index=VectorIndex("hnsw", parameters={"ef": ef})),)
    )


@pytest.fixture
async def store() -> FakeStore:
    store = FakeStore()
    await store.create_collection(points(64))
    return store


async def ef_now(store: FakeStore) -> object:
    return (await store.get_collection("Points")).vectors[0].index.parameters["ef"]


async def test_what_comes_back_is_the_ef_of_the_moment_before_the_change(store: FakeStore) -> None:
    changes = EfChanges(store)
    # An operator changes it between two systems of an evaluation.
    async with changes.changed("Points", "default", 100):
        pass
    await store.update_collection(points(80))

    async with changes.changed("Points", "default", 200):
        during = await ef_now(store)

    assert (during, await ef_now(store)) == (200, 80)


async def test_it_comes_back_also_if_the_caller_is_cancelled_again_and_again(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, update = EfChanges(store), store.update_collection
    reached, go_on, again = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(collection: Collection) -> None:
        (again if reached.is_set() else reached).set()
        await go_on.wait()
        await update(collection)

    monkeypatch.setattr(store, "update_collection", slow)

    async def measure() -> None:
        async with changes.changed("Points", "default", 200):
            raise AssertionError("it has been cancelled before")

    measuring = asyncio.create_task(measure())
    await reached.wait()
    for _ in range(3):
        # The first one cancels the change, and the others the restoring.
        measuring.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.wait([measuring])
    assert measuring.cancelled()
    assert not again.is_set()
    go_on.set()
    await changes.settled()

    assert again.is_set()
    assert await ef_now(store) == 64
