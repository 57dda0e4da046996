"""Means with intervals, and whether the difference of two systems is more than chance."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
"""One value for each query."""

RESAMPLES = 2_000
"""Resamples of an interval."""

FLIPS, FLIPS_EACH = 10_000, 200
"""Random exchanges of two systems, at least, and for each comparison that is made together with others: of fewer,
even one that makes a difference as large would be too many."""

AT_ONCE = 200
"""Resamples or exchanges that are made together: with a thousand queries they take 1.6 MB."""

CONFIDENCE = 0.95
"""Of an interval."""

SIGNIFICANCE = 0.01
"""A difference is real if chance makes one as large less often than this."""

SEED = 0
"""The same values give the same interval every time."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries, and the interval that holds the mean over all such queries in 95 of 100 cases."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more a system has than another one on the same queries.

    Attributes:
        mean: the mean of the differences, with its interval.
        chance: how often chance alone makes a difference as large, 0 to 1.
        real: whether that is too seldom to be chance.
    """

    mean: Estimate
    chance: float
    real: bool


def estimate(values: Values) -> Estimate:
    """Return the mean of some values, with its interval by the bootstrap.

    Args:
        values: float64, shape (queries,), at least one.
    """
    random = np.random.default_rng(SEED)
    count = len(values)
    means = np.concatenate(
        [values[random.integers(count, size=(size, count))].mean(axis=1) for size in _parts(RESAMPLES)]
    )
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return Estimate(float(values.mean()), float(low), float(high))


def compare(first: Values, second: Values, *, comparisons: int = 1) -> Difference:
    """Return how much more the second system has than the first one, and whether the difference is real.

    If the two systems are equal, their values could be exchanged for any query. The differences are compared with
    those of random exchanges, which assumes nothing about how they are distributed.

    Args:
        first: float64, shape (queries,).
        second: the same of another system, for the same queries.
        comparisons: how many comparisons are made together. The more there are, the surer each one must be
            (Bonferroni's correction).
    """
    differences = second - first
    observed = abs(float(differences.sum()))
    random = np.random.default_rng(SEED)
    as_large = 0
    flips = max(FLIPS, FLIPS_EACH * comparisons)
    for size in _parts(flips):
        signs = random.integers(2, size=(size, len(differences)), dtype=np.int8) * 2.0 - 1
        # Sums of the same values in another order may differ in their last digit.
        as_large += int((np.abs(signs @ differences) >= observed * (1 - 1e-9)).sum())
    # The observed one is among all possible exchanges.
    chance = (as_large + 1) / (flips + 1)
    return Difference(estimate(differences), chance, chance < SIGNIFICANCE / comparisons)


def fewest_queries(comparisons: int) -> int:
    """Return of how many queries at least one of so many comparisons can find a real difference."""
    # If one system is better for each of n queries, 2 of the 2^n exchanges make a difference as large.
    return int(np.floor(np.log2(2 * comparisons / SIGNIFICANCE))) + 1


def _parts(total: int) -> Iterator[int]:
    """Yield the sizes of parts of a total."""
    for start in range(0, total, AT_ONCE):
        yield min(AT_ONCE, total - start)
