"""What the queries of an evaluation may be together, and where their vectors are put together."""

import threading
from uuid import UUID

import numpy as np
import pytest

from service.core.embedder_pool import EmbedderPool
from service.core.evaluating import queries
from service.core.evaluating.queries import QueryMaker
from service.core.evaluating.task import Stage, Task
from service.domain import Collection, NamedVector, ObjectQueries, Scope, Space, StoredObject
from service.errors import InvalidRequest
from tests.fakes.store import FakeStore

VECTORS = [NamedVector("a", Space("s", 4, "m")), NamedVector("b", Space("t", 6, "n"))]


async def nothing(stage: Stage, done: int, total: int) -> None:
    pass


async def maker() -> QueryMaker:
    store = FakeStore()
    collection = Collection("Points", (), tuple(VECTORS))
    await store.create_collection(collection)
    made = {"a": np.ones(4, np.float32), "b": np.ones(6, np.float32)}
    await store.put_objects("Points", [StoredObject(UUID(int=row + 1), vectors=made) for row in range(10)])
    return QueryMaker(store, EmbedderPool([]), Task(collection, Scope(), nothing), VECTORS, 10)


async def test_the_values_of_all_named_vectors_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    making = await maker()
    monkeypatch.setattr(queries, "MAX_QUERY_VALUES", 100)
    found = await making.make(ObjectQueries(10))
    monkeypatch.setattr(queries, "MAX_QUERY_VALUES", 99)

    assert {name: each.shape for name, each in found.vectors.items()} == {"a": (10, 4), "b": (10, 6)}
    with pytest.raises(InvalidRequest, match="take fewer queries"):
        await making.make(ObjectQueries(10))


async def test_vectors_are_put_together_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    making, stack, threads = await maker(), np.stack, []

    def noting(*given: object, **options: object) -> object:
        threads.append(threading.current_thread())
        return stack(*given, **options)  # type: ignore[call-overload]  # as it is called

    monkeypatch.setattr(queries.np, "stack", noting)
    await making.make(ObjectQueries(10))

    assert len(threads) == 2
    assert threading.main_thread() not in threads
