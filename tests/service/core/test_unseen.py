"""What the log says of searches by vector that find nothing, over a store in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from service.core.searching import unseen
from service.core.searching.unseen import UnseenObjects
from service.domain import (
    Collection,
    Condition,
    DataType,
    Hit,
    MultiTenancy,
    NamedVector,
    Operator,
    Property,
    Scope,
    SearchOptions,
    SearchSpec,
    Space,
    StoredObject,
    Target,
    TargetVectors,
    Tenant,
)
from service.errors import StoreUnavailable
from tests.fakes.store import FakeStore

NAME = "Things"
COUNTED = "vecgate_unseen_objects_total"
OWN = np.ones(4, np.float32)
NEAR = SearchSpec(TargetVectors({"main": OWN}))


class Clock:
    """Seconds that pass only when a test says so."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


async def filled(vectors: Sequence[dict[str, Any]], tenant: str = "") -> FakeStore:
    store = FakeStore()
    named = tuple(NamedVector(each, Space("fake", 4, "fake/model")) for each in ("main", "rare"))
    tenancy = MultiTenancy() if tenant else None
    properties = (Property("n", DataType.INT),)
    await store.create_collection(Collection(NAME, properties, named, multi_tenancy=tenancy))
    if tenant:
        await store.create_tenants(NAME, [Tenant(tenant)])
    objects = [StoredObject(UUID(int=n), {}, {}, each) for n, each in enumerate(vectors)]
    await store.put_objects(NAME, objects, Scope(tenant))
    store.lost = {(each.id, name) for each in objects for name in each.vectors}
    store.calls.clear()
    return store


async def forever(_: float) -> None:
    await asyncio.Event().wait()


async def ended(looking: UnseenObjects) -> None:
    """Wait until nothing is looked for."""
    if looking._task is not None:
        await looking._task


async def at_once(seconds: float) -> None:
    assert seconds == unseen.PAUSE_S


def unseen_of(store: FakeStore, clock: Clock | None = None) -> UnseenObjects:
    """Return what looks again without a pause."""
    return UnseenObjects(store, clock=clock or Clock(), sleep=at_once)


async def said(looking: UnseenObjects, spec: SearchSpec = NEAR) -> list[Any]:
    """Return what the log says of named vectors after a search that found nothing."""
    with capture_logs() as lines:
        looking.look(NAME, spec)
        await ended(looking)
    return [(line["log_level"], line["tenant"], line["vector"]) for line in lines if "vector" in line]


async def test_an_object_whose_index_entry_is_lost_is_named_once_in_a_while() -> None:
    clock = Clock()
    looking = unseen_of(await filled([{"main": OWN}]), clock)
    before = REGISTRY.get_sample_value(COUNTED) or 0

    assert await said(looking) == [("warning", "", "main")]
    assert await said(looking) == []
    clock.seconds += unseen.AGAIN_S
    assert await said(looking) == [("warning", "", "main")]
    assert REGISTRY.get_sample_value(COUNTED) == before + 2


async def test_of_several_objects_the_first_that_has_the_vector_counts() -> None:
    looking = unseen_of(await filled([{"main": OWN}] * 5 + [{"rare": OWN}]))

    assert await said(looking, replace(NEAR, query=TargetVectors({"rare": OWN}))) == [("warning", "", "rare")]


async def test_a_tenant_is_named_and_needed_for_what_mends_it() -> None:
    looking = unseen_of(await filled([{"main": OWN}], "anna"))

    with capture_logs() as lines:
        looking.look(NAME, replace(NEAR, scope=Scope("anna")))
        await ended(looking)

    (line,) = lines
    assert (line["log_level"], line["tenant"]) == ("warning", "anna")
    assert "backfill COLLECTION --tenant TENANT --verify" in line["reason"]


async def test_nothing_is_said_of_what_is_empty_or_lacks_the_vector_or_came_meanwhile() -> None:
    assert await said(unseen_of(await filled([]))) == []
    assert await said(unseen_of(await filled([{"rare": OWN}]))) == []
    store = await filled([{"main": OWN}])
    store.lost.clear()
    assert await said(unseen_of(store)) == []


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(Condition(Target.PROPERTY, Operator.EQUAL, 3, "n")),
        SearchOptions(distance=0.1),
        SearchOptions(certainty=0.9),
        SearchOptions(auto_limit=1),
    ],
)
async def test_a_search_with_conditions_may_find_nothing(options: SearchOptions) -> None:
    store = await filled([{"main": OWN}])

    assert await said(unseen_of(store), replace(NEAR, options=options)) == []
    assert store.calls == []


async def test_a_search_from_a_later_hit_or_of_several_vectors_may_find_nothing() -> None:
    store = await filled([{"main": OWN}])

    assert await said(unseen_of(store), replace(NEAR, offset=1)) == []
    assert await said(unseen_of(store), replace(NEAR, query=TargetVectors({"main": OWN, "rare": OWN}))) == []
    assert store.calls == []


async def test_a_store_that_fails_does_not_fail_the_search() -> None:
    store = await filled([{"main": OWN}])
    store.fail_next_of("search", StoreUnavailable("Weaviate is down"))

    assert await said(unseen_of(store)) == []


async def test_only_so_many_looks_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unseen, "MAX_REMEMBERED", 1)
    looking = unseen_of(await filled([{"main": OWN, "rare": OWN}]))

    assert await said(looking) == [("warning", "", "main")]
    assert await said(looking, replace(NEAR, query=TargetVectors({"rare": OWN}))) == [("warning", "", "rare")]
    assert await said(looking) == [("warning", "", "main")]


async def test_an_index_that_only_needs_time_is_not_called_lost() -> None:
    store = await filled([{"main": OWN}])

    async def load(_: float) -> None:
        store.lost.clear()

    assert await said(UnseenObjects(store, sleep=load)) == []
    assert store.calls == ["search"] * 4


async def test_one_search_is_looked_into_at_a_time_and_the_others_later() -> None:
    store, go = await filled([{"main": OWN, "rare": OWN}]), asyncio.Event()

    async def pause(_: float) -> None:
        await go.wait()

    looking = UnseenObjects(store, sleep=pause)
    rare = replace(NEAR, query=TargetVectors({"rare": OWN}))
    with capture_logs() as lines:
        looking.look(NAME, NEAR)
        looking.look(NAME, rare)
        go.set()
        await ended(looking)
        looking.look(NAME, rare)
        await ended(looking)

    assert [line["vector"] for line in lines] == ["main", "rare"]


async def test_a_look_that_waits_ends_when_it_is_closed() -> None:
    looking = UnseenObjects(await filled([{"main": OWN}]), sleep=forever)
    looking.look(NAME, NEAR)
    (task,) = (each for each in asyncio.all_tasks() if each.get_name() == "look-for-unseen")

    await looking.close()
    await looking.close()

    assert task.cancelled()


async def test_a_fault_of_the_look_itself_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await filled([{"main": OWN}])

    async def search(*_: object) -> list[Hit]:
        raise LookupError

    monkeypatch.setattr(store, "search", search)
    with capture_logs() as lines:
        looking = unseen_of(store)
        looking.look(NAME, NEAR)
        await ended(looking)

    assert [(line["event"], line["log_level"]) for line in lines] == [("search_not_looked_into", "error")]
