"""Intervals hold the true mean, equal systems are called equal, and different ones different."""

from dataclasses import astuple

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.evaluating import statistics
from service.core.evaluating.statistics import (
    AT_ONCE,
    Values,
    compare,
    compare_each,
    estimate,
    estimate_each,
    exchange_chances,
    fewest_queries,
)

REPETITIONS = 100


def scores(random: np.random.Generator, count: int, quality: float) -> Values:
    """Return reciprocal ranks, which are far from normal: most are 1, a half or 0."""
    ranks = random.geometric(quality, count)
    return np.where(ranks > 10, 0.0, 1 / ranks)


def test_an_interval_holds_the_true_mean_in_at_least_90_of_100_repetitions() -> None:
    random = np.random.default_rng(1)
    truth = float(scores(random, 1_000_000, 0.4).mean())

    intervals = [estimate(scores(random, 200, 0.4)) for _ in range(REPETITIONS)]

    assert sum(each.low <= truth <= each.high for each in intervals) >= 90
    assert all(each.low <= each.mean <= each.high for each in intervals)


def test_an_interval_is_the_same_alone_and_among_others() -> None:
    random = np.random.default_rng(7)
    values = [scores(random, 200, quality) for quality in (0.2, 0.4, 0.6)]

    together = estimate_each(values)

    for found, alone in zip(together, map(estimate, values), strict=True):
        assert astuple(found) == pytest.approx(astuple(alone), abs=1e-12)
    assert estimate_each([]) == []


@pytest.mark.parametrize("count", [20, 300])
def test_equal_systems_are_called_equal_in_at_least_95_of_100_repetitions(count: int) -> None:
    random = np.random.default_rng(2)

    found = [compare(scores(random, count, 0.4), scores(random, count, 0.4)) for _ in range(REPETITIONS)]

    assert sum(not each.real for each in found) >= 95


def test_a_better_system_is_called_better_and_a_worse_one_worse() -> None:
    random = np.random.default_rng(3)
    good, bad = scores(random, 300, 0.6), scores(random, 300, 0.3)

    better, worse = compare(bad, good), compare(good, bad)

    assert better.real
    assert worse.real
    assert better.mean.low > 0 > worse.mean.high
    assert better.mean.mean == pytest.approx(-worse.mean.mean)


def test_a_system_does_not_differ_from_itself_and_few_queries_prove_nothing() -> None:
    values = scores(np.random.default_rng(4), 50, 0.5)

    assert compare(values, values).chance == 1
    assert not compare(values, values).real
    assert not compare(np.zeros(5), np.ones(5)).real


@pytest.mark.parametrize("comparisons", [1, 3, 40, 300])
def test_with_a_few_more_than_the_fewest_queries_a_difference_can_be_real_and_with_less_it_cannot(
    comparisons: int,
) -> None:
    fewest = fewest_queries(comparisons)

    enough, less = (compare_each([(np.zeros(n), np.ones(n))] * comparisons) for n in (fewest + 4, fewest - 1))

    assert all(each.real for each in enough)
    assert not any(each.real for each in less)


def test_many_comparisons_at_once_need_surer_ones() -> None:
    random = np.random.default_rng(5)
    first = random.random(40)
    second = first + random.normal(0.05, 0.1, 40)
    alone = compare(first, second)

    assert alone.real
    together = compare_each([(first, second)] * (1 + int(0.01 / alone.chance)))
    assert not any(each.real for each in together)


def test_a_pair_has_the_same_chance_alone_and_among_others() -> None:
    random = np.random.default_rng(6)
    pairs = [(random.random(50), random.random(50) + shift) for shift in (0, 0.05, 0.1)]

    together = compare_each(pairs)

    assert [each.chance for each in together] == [compare(*pair).chance for pair in pairs]
    assert compare_each([]) == []


def test_exchanges_are_made_once_for_all_pairs_and_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made, begin = [], np.random.default_rng

    class Noting:
        def __init__(self, seed: int) -> None:
            self._random = begin(seed)

        def integers(self, most: int, *, size: tuple[int, int], dtype: type) -> NDArray[np.int8]:
            made.append(size)
            return self._random.integers(most, size=size, dtype=dtype)  # type: ignore[no-any-return]  # any dtype

    monkeypatch.setattr(statistics.np.random, "default_rng", Noting)
    exchange_chances(np.ones((80, 30)), tested=180)

    assert sum(exchanges for exchanges, _ in made) == 180 * 200
    assert {queries for _, queries in made} == {30}
    assert max(exchanges for exchanges, _ in made) <= AT_ONCE
