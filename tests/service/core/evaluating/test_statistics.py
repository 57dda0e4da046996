"""Intervals hold the true mean, equal systems are called equal, and different ones different."""

import numpy as np
import pytest

from service.core.evaluating.statistics import Values, compare, estimate, fewest_queries

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

    enough, less = (compare(np.zeros(n), np.ones(n), comparisons=comparisons) for n in (fewest + 4, fewest - 1))

    assert enough.real
    assert not less.real


def test_many_comparisons_at_once_need_surer_ones() -> None:
    random = np.random.default_rng(5)
    first = random.random(40)
    second = first + random.normal(0.05, 0.1, 40)
    alone = compare(first, second)

    assert alone.real
    assert not compare(first, second, comparisons=1 + int(0.01 / alone.chance)).real
