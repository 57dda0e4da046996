"""Whether two samples come from the same source: tests that need no more than numpy."""

import math

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.float32]
"""Values of independent observations."""

FARTHEST = 12
"""Standard deviations from the mean; beyond them is less than one of 10^30."""


def distribution_change(first: Sample, second: Sample) -> tuple[float, float]:
    """Return the two-sample statistic of Kolmogorov and Smirnov, and how often chance alone makes one as large.

    The statistic is the largest difference of the two shares of values that are at most x, over all x: 0 for equal
    samples, 1 for samples that do not overlap. The chance is Kolmogorov's limit with the correction of Stephens,
    "Use of the Kolmogorov-Smirnov, Cramér-von Mises and related statistics without extensive tables", 1970.

    Args:
        first: shape (observations,), at least one.
        second: the same of the other sample.
    """
    first, second = np.sort(first), np.sort(second)
    every = np.concatenate([first, second])
    shares = [np.searchsorted(each, every, side="right") / len(each) for each in (first, second)]
    statistic = float(np.abs(shares[0] - shares[1]).max())
    size = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    scaled = (size + 0.12 + 0.11 / size) * statistic
    if scaled < 0.2:  # noqa: PLR2004 -- there the series converges slowly, and its sum is 1
        return statistic, 1.0
    terms = (math.copysign(2, k % 2 - 0.5) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 21))
    return statistic, min(1.0, max(0.0, sum(terms)))


def share_change(first: int, of_first: int, second: int, of_second: int) -> float:
    """Return how often chance alone makes two shares as different, by Fisher's exact test.

    Args:
        first: observations of the first sample that have a property.
        of_first: all of the first sample.
        second: the same of the second sample.
        of_second: all of the second sample.
    """
    having, every = first + second, of_first + of_second
    if not 0 < having < every:
        return 1.0
    mean = having * of_first / every
    deviation = math.sqrt(mean * of_second / every * (every - having) / max(1, every - 1))
    # What is farther away has no weight, and there may be millions of it.
    least = max(0, having - of_second, math.floor(mean - FARTHEST * deviation - 1))
    most = min(having, of_first, math.ceil(mean + FARTHEST * deviation + 1))
    if not least <= first <= most:
        return 0.0
    logs = np.array(
        [_log_choose(of_first, each) + _log_choose(of_second, having - each) for each in range(least, most + 1)]
    )
    weights = np.exp(logs - logs.max())
    # Weights of the same size may differ in their last digits.
    rarer = weights <= weights[first - least] * (1 + 1e-7)
    return float(weights[rarer].sum() / weights.sum())


def mean_change(difference: float, *errors: float) -> float:
    """Return how often chance alone makes a difference of two means as large, by the normal distribution.

    Without any error, nothing is known of chance, and 1 is returned.

    Args:
        difference: of the means.
        errors: the standard errors of both.
    """
    error = math.hypot(*errors)
    if error == 0:
        return 1.0
    return math.erfc(abs(difference) / error / math.sqrt(2))


def _log_choose(size: int, taken: int) -> float:
    return math.lgamma(size + 1) - math.lgamma(taken + 1) - math.lgamma(size - taken + 1)
