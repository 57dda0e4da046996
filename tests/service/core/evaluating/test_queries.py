"""What the queries of an evaluation may be together, and where their vectors are put together."""

import threading
from uuid import UUID

import numpy as np
import pytest

from embedders.contract import ImageInput, Input, TextImageInput, TextInput
from service.core.embedder_pool import EmbedderPool
from service.core.evaluating import queries
from service.core.evaluating.queries import Query, QueryMaker, query_digest, query_digests
from service.core.evaluating.task import Stage, Task
from service.domain import (
    CaptionQueries,
    Collection,
    NamedVector,
    ObjectQueries,
    Scope,
    Space,
    StoredObject,
    WrittenQueries,
    WrittenQuery,
)
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


def test_a_query_is_the_same_if_its_id_and_its_words_are() -> None:
    same, first = (Query("a", "b", UUID(int=1), {"c": 1}), Query("a", "b")), Query("a")
    others = [Query("a", ""), Query("", "a"), Query("ab"), Query("a", "c")]

    digests = query_digests([*same, *others])

    assert digests.dtype == np.uint64
    assert digests[0] == digests[1]
    assert len(set(digests.tolist())) == 5
    # If this fails, saved reports have no query in common any more.
    assert query_digests([first]).tolist() == [13927583355105955917]


def test_a_digest_tells_all_apart_that_can_be_changed_of_queries() -> None:
    def one(id_: str = "a", content: Input | None = None, **answers: int) -> WrittenQuery:
        return WrittenQuery(id_, "", content or TextInput("b"), answers)

    written = [
        (one(),),
        (one("ab", TextInput("")),),
        (one(), one("b")),
        (one("b"), one()),
        (one(content=ImageInput(b"b")),),
        (one(content=TextImageInput("b", b"c")),),
        (one(c=1),),
        (one(c=2),),
        (one(c=1, d=1),),
    ]
    sets = [*map(WrittenQueries, written), WrittenQueries((one(),), "year"), CaptionQueries("a", 7), ObjectQueries(7)]

    assert len({query_digest(each) for each in sets}) == len(sets)
    assert query_digest(WrittenQueries((one(c=1, d=2),))) == query_digest(WrittenQueries((one(d=2, c=1),)))
    assert query_digest(CaptionQueries("a", 7)) == query_digest(CaptionQueries("a", 8))
