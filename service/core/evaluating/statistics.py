"""Means with intervals, and whether the difference of two systems is more than chance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
"""One value for each query."""

RESAMPLES = 2_000
"""Resamples of an interval."""

FLIPS, FLIPS_EACH = 10_000, 200
"""Random exchanges of two systems, at least, and for each test that is made together with others: of fewer, even one
that makes a difference as large would be too many."""

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
    return estimate_each([values])[0]


def estimate_each(values: Sequence[Values]) -> list[Estimate]:
    """Return the mean of each of some values, with its interval; see estimate. All get the same resamples.

    Args:
        values: each float64, shape (queries,), all for the same queries.
    """
    if not values:
        return []
    random = np.random.default_rng(SEED)
    rows = np.stack(values, axis=1)
    count = len(rows)
    parts = []
    for size in _parts(RESAMPLES):
        drawn = random.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        parts.append(times.astype(np.float64) @ rows / count)
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(parts), [outside, 1 - outside], axis=0)
    means = rows.mean(axis=0)
    return [Estimate(*map(float, each)) for each in zip(means, low, high, strict=True)]


def compare(first: Values, second: Values) -> Difference:
    """Return how much more the second system has than the first one, and whether the difference is real.

    Args:
        first: float64, shape (queries,).
        second: the same of another system, for the same queries.
    """
    return compare_each([(first, second)])[0]


def compare_each(pairs: Sequence[tuple[Values, Values]]) -> list[Difference]:
    """Return how much more the second one of each of some pairs of systems has; see compare.

    The more pairs there are, the surer each difference must be (Bonferroni's correction).

    Args:
        pairs: both float64, shape (queries,), all for the same queries.
    """
    if not pairs:
        return []
    differences = np.stack([second - first for first, second in pairs])
    chances = exchange_chances(differences, tested=len(pairs))
    return [
        Difference(mean, chance, chance < SIGNIFICANCE / len(pairs))
        for mean, chance in zip(estimate_each(list(differences)), chances, strict=True)
    ]


def exchange_chances(differences: NDArray[np.float64], *, tested: int) -> list[float]:
    """Return how often chance alone makes the differences of pairs of systems as large, 0 to 1.

    If the two systems of a pair are equal, their values could be exchanged for any query. The sum of their differences
    is compared with those of random exchanges, which assumes nothing about how they are distributed. All pairs get the
    same exchanges, because making them takes longer than using them.

    Args:
        differences: float64, shape (pairs, queries).
        tested: how many tests are made together, of other kinds as well.
    """
    observed = np.abs(differences.sum(axis=1))
    random = np.random.default_rng(SEED)
    as_large = np.zeros(len(differences), np.int64)
    flips = max(FLIPS, FLIPS_EACH * tested)
    for size in _parts(flips):
        signs = random.integers(2, size=(size, differences.shape[1]), dtype=np.int8) * 2.0 - 1
        # Sums of the same values in another order may differ in their last digit.
        as_large += (np.abs(signs @ differences.T) >= observed * (1 - 1e-9)).sum(axis=0)
    # The observed one is among all possible exchanges.
    return [(int(each) + 1) / (flips + 1) for each in as_large]


def fewest_queries(comparisons: int) -> int:
    """Return of how many queries at least one of so many comparisons can find a real difference."""
    # If one system is better for each of n queries, 2 of the 2^n exchanges make a difference as large.
    return int(np.floor(np.log2(2 * comparisons / SIGNIFICANCE))) + 1


def _parts(total: int) -> Iterator[int]:
    """Yield the sizes of parts of a total."""
    for start in range(0, total, AT_ONCE):
        yield min(AT_ONCE, total - start)
