"""The smallest ef that reaches a recall, and the best alpha, on made-up curves."""

from collections.abc import Sequence

import numpy as np
import pytest

from service.core.evaluating.statistics import Estimate, Values
from service.core.evaluating.suggesting import (
    ALPHAS,
    MAX_EF,
    best_alpha,
    best_weights,
    queries_for,
    smallest_ef,
    weights_to_try,
)


class Curve:
    """A recall that grows with ef, with another noise for each query."""

    def __init__(self, reaches: float = 1.0) -> None:
        self.noise = np.random.default_rng(1).normal(0, 0.02, 1000)
        self.reaches = reaches
        self.asked: list[int] = []

    def mean(self, ef: int) -> float:
        return self.reaches * (1 - float(np.exp(-ef / 60)))

    async def __call__(self, ef: int, rows: Sequence[int]) -> Values:
        self.asked.append(ef)
        return self.mean(ef) + self.noise[list(rows)]


@pytest.mark.parametrize("wanted", [0.2, 0.8, 0.95, 0.99])
async def test_the_smallest_ef_reaches_the_wanted_recall_with_other_queries_and_less_does_not(wanted: float) -> None:
    curve = Curve()

    found = await smallest_ef(wanted, 10, curve, 1000)

    assert found.reached
    assert abs(found.recall.mean - curve.mean(found.ef)) < 0.005
    assert found.recall.mean > wanted - 0.01
    assert found.ef == 10 or curve.mean(int(found.ef * 0.9)) < wanted + 0.005
    assert len(curve.asked) < 16
    assert set(curve.asked) == {ef for ef, _ in found.tried}


async def test_a_recall_that_no_ef_reaches_is_not_promised() -> None:
    found = await smallest_ef(0.95, 10, Curve(reaches=0.9), 1000)

    assert (found.reached, found.ef) == (False, MAX_EF)
    assert abs(found.recall.mean - 0.9) < 0.01


async def test_the_recall_of_a_suggested_ef_is_that_of_queries_which_did_not_choose_it() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(0, 0.2, 40)

    async def curve(ef: int, rows: Sequence[int]) -> Values:
        return 1 - float(np.exp(-ef / 60)) + noise[list(rows)]

    found = await smallest_ef(0.9, 10, curve, 40)

    # The half that has it easier chooses less, which the other one judges.
    tried = dict(found.tried)
    assert found.recall.mean != pytest.approx(tried[found.ef])
    assert queries_for(found.recall, 40) > 40
    assert queries_for(Estimate(0.9, 0.89, 0.91), 700) == pytest.approx(700, abs=1)


def test_the_best_weights_are_found_among_all_that_are_1_together() -> None:
    tried = weights_to_try({"a": 0.2, "b": 0.3, "c": 0.5})
    random = np.random.default_rng(5)
    values = np.array(
        [1 - (each["a"] - 0.2) ** 2 - (each["b"] - 0.7) ** 2 + random.normal(0, 0.02, 300) for each in tried]
    )

    equal = np.array([each == {"a": 0.3, "b": 0.3, "c": 0.4} for each in tried])

    found = best_weights(tried, values, values[equal][0])

    assert len(tried) == 66
    assert all(sum(each.values()) == pytest.approx(1) for each in tried)
    assert found.weights == pytest.approx({"a": 0.2, "b": 0.7, "c": 0.1}, abs=0.11)
    assert found.value.mean == pytest.approx(1, abs=0.02)
    # What equal parts lack: 0.01 of the first, and 0.16 of the second.
    assert found.gain.mean.mean == pytest.approx(0.17, abs=0.03)
    assert found.gain.real
    assert len(weights_to_try({"a": 1, "b": 1})) == 11
    assert weights_to_try({"a": 3, "b": 1})[11:] == [{"a": 0.75, "b": 0.25}]
    assert len(weights_to_try({"a": 1, "b": -1})) == 11


def test_the_best_alpha_is_judged_by_queries_that_did_not_choose_it() -> None:
    random = np.random.default_rng(2)
    values = np.array([1 - (alpha - 0.7) ** 2 + random.normal(0, 0.1, 200) for alpha in ALPHAS])
    nothing = random.random((len(ALPHAS), 200))

    found, chance = best_alpha(values), best_alpha(nothing)

    assert abs(found.alpha - 0.7) < 0.11
    assert best_alpha(np.ones((len(ALPHAS), 50))).alpha == 0.5
    assert abs(found.value.mean - 1) < 0.03
    # The best of eleven equal ones looks better than it is, and cross-validation shows that it is not.
    assert max(mean for _, mean in chance.tried) > 0.52
    assert chance.value.low < 0.5 < chance.value.high


def test_weights_as_good_as_the_present_ones_are_seldom_called_better() -> None:
    random = np.random.default_rng(3)
    tried = weights_to_try({"a": 1, "b": 1})

    suggested = (best_weights(tried, each, each[0]) for each in random.random((300, len(tried), 30)))

    # 1 in 100, and no more than 9 of 300 in all but 1 of 300 times.
    assert sum(each.gain.real for each in suggested) <= 9
