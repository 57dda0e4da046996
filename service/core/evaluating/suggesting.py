"""The smallest ef that reaches a wanted recall, the best alpha of hybrid searches, and the best weights."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from service.core.evaluating.statistics import SIGNIFICANCE, Difference, Estimate, Values, compare, estimate

MAX_EF = 4096
"""The largest ef that is tried."""

EXACT = 0.01
"""The recall of a suggested ef should be known to this either way."""

FINENESS = 32
"""The search for an ef ends when what is left to choose among is a 32nd of it."""

ALPHAS = tuple(step / 10 for step in range(11))
"""What is tried of alpha."""

FOLDS = 5
"""Parts of the queries: each in turn judges the alpha that is best for the others."""


@dataclass(frozen=True, slots=True)
class EfSuggestion:
    """The smallest ef that reaches a wanted recall.

    Attributes:
        wanted: the recall.
        ef: the ef; the largest that was tried if none reaches it.
        reached: whether it reaches it.
        recall: what an ef reaches with other queries than those by which it was chosen, by cross-validation.
        tried: every ef that was tried, with the recall that it reached.
    """

    wanted: float
    ef: int
    reached: bool
    recall: Estimate
    tried: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class AlphaSuggestion:
    """The best alpha.

    Attributes:
        alpha: the best one for all queries.
        value: what it is worth for other queries, by cross-validation.
        tried: every alpha that was tried, with the mean of the measure.
    """

    alpha: float
    value: Estimate
    tried: Sequence[tuple[float, float]]


def queries_for(recall: Estimate, count: int) -> int:
    """Return of about how many queries the recall would be known to EXACT either way, as it is of so many queries."""
    return int(np.ceil(round(count * ((recall.high - recall.low) / 2 / EXACT) ** 2, 6)))


@dataclass(frozen=True, slots=True)
class WeightsSuggestion:
    """The best weights of named vectors that are searched together, or of an object's fields.

    Attributes:
        weights: the best ones for all queries, by named vector or field.
        value: what they are worth for other queries, by cross-validation.
        gain: how much more that is than the first system has; its chance is of the best of all that was tried.
        tried: all weights that were tried, with the mean of the measure.
    """

    weights: Mapping[str, float]
    value: Estimate
    gain: Difference
    tried: Sequence[tuple[Mapping[str, float], float]]


async def smallest_ef(
    wanted: float, least: int, measure: Callable[[int, Sequence[int]], Awaitable[Values]], count: int
) -> EfSuggestion:
    """Return the smallest ef that reaches a recall, and what such an ef reaches with other queries.

    All queries choose it. For the second, each half of them chooses one, which the other half judges.

    Args:
        wanted: the recall.
        least: the smallest ef that makes a difference: the number of hits.
        measure: returns the recall of some queries, by their places, with an ef.
        count: how many queries there are, two or more.
    """
    tried: dict[int, Values] = {}

    async def reaches(ef: int) -> bool:
        if ef not in tried:
            tried[ef] = await measure(ef, range(count))
        return bool(tried[ef].mean() >= wanted)

    low = high = least
    while not (reached := await reaches(high)) and high < MAX_EF:
        low, high = high, min(MAX_EF, 2 * high)
    while reached and high - low > max(1, high // FINENESS):
        middle = (low + high) // 2
        low, high = (low, middle) if await reaches(middle) else (middle, high)
    judged = np.zeros(count)
    for half in (0, 1):
        chosen = min((ef for ef, values in tried.items() if values[half::2].mean() >= wanted), default=max(tried))
        judged[1 - half :: 2] = tried[chosen][1 - half :: 2]
    means = [(ef, float(values.mean())) for ef, values in sorted(tried.items())]
    return EfSuggestion(wanted, high, reached, estimate(judged), means)


def best_alpha(values: NDArray[np.float64]) -> AlphaSuggestion:
    """Return the best of ALPHAS.

    Args:
        values: float64, shape (alphas, queries): the measure of each query with each alpha.
    """
    best, judged, means = _best_by_others(values)
    tried = [(alpha, float(mean)) for alpha, mean in zip(ALPHAS, means, strict=True)]
    return AlphaSuggestion(ALPHAS[best], estimate(judged), tried)


def weights_to_try(present: Mapping[str, float]) -> list[dict[str, float]]:
    """Return all weights of some named vectors or fields, in steps of 0.1, that are 1 together, and the present ones.

    Args:
        present: the present weights, which are tried as shares of their sum if that is over 0.
    """
    steps, total = len(ALPHAS) - 1, sum(present.values())
    tried = [
        {name: part / steps for name, part in zip(present, parts, strict=True)}
        for parts in product(range(steps + 1), repeat=len(present))
        if sum(parts) == steps
    ]
    shares = {name: weight / total for name, weight in present.items()} if total > 0 else tried[0]
    known = any(all(math.isclose(each[name], shares[name], abs_tol=1e-6) for name in shares) for each in tried)
    return tried if known else [*tried, shares]


def best_weights(tried: Sequence[Mapping[str, float]], values: NDArray[np.float64], first: Values) -> WeightsSuggestion:
    """Return the best weights.

    Args:
        tried: what was tried.
        values: float64, shape (weights, queries): the measure of each query with each of them.
        first: float64, shape (queries,): the same with the first system.
    """
    best, judged, means = _best_by_others(values)
    listed = [(each, float(mean)) for each, mean in zip(tried, means, strict=True)]
    gain = estimate(judged - first)
    # Values by cross-validation depend on each other, and what was chosen among many looks better than it is. So the
    # chance is that of the chosen weights, for as many comparisons as were made (Bonferroni's correction).
    chance = min(1.0, len(tried) * compare(first, values[best]).chance)
    difference = Difference(gain, chance, chance < SIGNIFICANCE and gain.mean > 0)
    return WeightsSuggestion(tried[best], estimate(judged), difference, listed)


def _best_by_others(values: NDArray[np.float64]) -> tuple[int, Values, Values]:
    """Return the best place for all queries, its values by cross-validation, and the mean of each place."""
    count = values.shape[1]
    folds = np.arange(count) % min(FOLDS, count)
    judged = np.zeros(count)
    for fold in range(int(folds.max()) + 1):
        others = values[:, folds != fold]
        best = _best(others.mean(axis=1)) if others.shape[1] else 0
        judged[folds == fold] = values[best, folds == fold]
    means = values.mean(axis=1)
    return _best(means), judged, means


def _best(means: Values) -> int:
    """Return the place of the largest mean; of several that are as large the one in the middle."""
    largest = np.flatnonzero(means >= means.max() - 1e-9)
    return int(largest[len(largest) // 2])
