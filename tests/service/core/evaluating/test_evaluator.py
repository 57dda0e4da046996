"""What an evaluation makes of measures, and that nothing runs beside it when its caller has left."""

import asyncio
import threading
from uuid import UUID

import numpy as np
import pytest

from service.core.embedder_pool import EmbedderPool
from service.core.evaluating import evaluator
from service.core.evaluating.evaluator import Evaluator, _comparisons
from service.core.evaluating.measures import Measure
from service.core.evaluating.statistics import Difference, Values, compare_each
from service.core.evaluating.task import Stage
from service.core.reranker_pool import RerankerPool
from service.domain import Collection, EvaluationWishes, NamedVector, ObjectQueries, Space, StoredObject, System
from service.errors import Overloaded
from tests.fakes.store import FakeStore


def test_each_measure_of_each_system_is_a_comparison_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noting(pairs: list[tuple[Values, Values]]) -> list[Difference]:
        asked.append(len(pairs))
        return compare_each(pairs)

    monkeypatch.setattr(evaluator, "compare_each", noting)
    every = {kind: np.ones(3) for kind in Measure}
    # Words have no index to be measured.
    words = {kind: each for kind, each in every.items() if kind is not Measure.INDEX_RECALL}

    found = _comparisons([System("a"), System("b"), System("words")], [every, every, words])

    names = [(each.system, each.measure) for each in found]
    assert names == [*(("b", kind) for kind in Measure), *(("words", kind) for kind in words)]
    assert asked == [7]


@pytest.mark.parametrize("part", ["_results", "_comparisons", "_with_drift"])
async def test_no_other_evaluation_begins_before_a_thread_of_one_whose_caller_has_left_has_ended(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, random = FakeStore(), np.random.default_rng(1)
    await store.create_collection(Collection("Points", (), (NamedVector("a", Space("s", 4, "m")),)))
    ids = [UUID(int=row + 1) for row in range(40)]
    await store.put_objects(
        "Points", [StoredObject(each, vectors={"a": random.standard_normal(4).astype(np.float32)}) for each in ids]
    )
    evaluating = Evaluator(store, EmbedderPool([]), RerankerPool())
    wishes = EvaluationWishes("Points", ObjectQueries(40), (System("present"),))
    earlier = (await evaluating.evaluate(wishes, nothing)).report()
    begun, go_on, function = threading.Event(), threading.Event(), getattr(evaluator, part)

    def held(*args: object) -> object:
        begun.set()
        assert go_on.wait(60)
        return function(*args)

    monkeypatch.setattr(evaluator, part, held)
    running = asyncio.ensure_future(evaluating.evaluate(wishes, nothing, earlier=earlier))
    assert await asyncio.to_thread(begun.wait, 60)

    running.cancel()
    await asyncio.wait([running], timeout=0.2)
    with pytest.raises(Overloaded):
        await evaluating.evaluate(wishes, nothing)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert (await evaluating.evaluate(wishes, nothing)).queries == 40


async def nothing(stage: Stage, done: int, total: int) -> None:
    pass
