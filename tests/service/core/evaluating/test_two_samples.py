"""Tests of two samples, against scipy's."""

import numpy as np
import pytest
from scipy import stats

from service.core.evaluating.two_samples import distribution_change, mean_change, share_change
from tests.conftest import assert_close


@pytest.mark.parametrize(("sizes", "shift"), [((500, 500), 0.0), ((500, 300), 0.2), ((40, 60), 0.5), ((200, 200), 3.0)])
def test_the_distance_of_two_distributions_and_its_chance_are_scipys(sizes: tuple[int, int], shift: float) -> None:
    random = np.random.default_rng(1)
    first, second = (random.standard_normal(size).astype(np.float32) for size in sizes)

    statistic, chance = distribution_change(first, second + np.float32(shift))

    expected = stats.ks_2samp(first, second + np.float32(shift))
    assert_close(statistic, expected.statistic, 1e-6)
    assert_close(chance, expected.pvalue, 0.02)


def test_equal_samples_differ_by_chance_alone() -> None:
    sample = np.arange(10, dtype=np.float32)

    assert distribution_change(sample, sample) == (0, 1)


@pytest.mark.parametrize(
    "counts",
    [(0, 10, 0, 10), (10, 10, 5, 5), (3, 1000, 0, 1000), (1, 40, 12, 50), (120, 500, 200, 500), (7, 9, 1000, 4000)],
)
def test_the_chance_of_two_shares_is_fishers(counts: tuple[int, int, int, int]) -> None:
    first, of_first, second, of_second = counts

    chance = share_change(*counts)

    expected = stats.fisher_exact([[first, of_first - first], [second, of_second - second]]).pvalue
    assert_close(chance, expected, 1e-7)


def test_shares_of_millions_are_compared_without_looking_at_each() -> None:
    assert share_change(5_000_000, 10_000_000, 5_100_000, 10_000_000) == 0
    assert share_change(5_000_000, 10_000_000, 5_000_000, 10_000_000) == 1


def test_the_chance_of_two_means_is_that_of_the_normal_distribution() -> None:
    assert_close(mean_change(0.3, 0.1, 0.1), 2 * stats.norm.sf(0.3 / np.hypot(0.1, 0.1)), 1e-9)
    assert mean_change(0.0, 0.0, 0.0) == 1
    assert mean_change(0.1, 0.0, 0.0) == 1
