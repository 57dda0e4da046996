"""Measures of hits against known answers, as trec_eval has them, by ir-measures."""

from collections.abc import Mapping, Sequence
from enum import Enum
from importlib.util import find_spec

import numpy as np

from service.core.evaluating.statistics import Values
from service.errors import PackageMissing


class Measure(Enum):
    """What is measured of the hits of a query, by its name for people; each is 0 to 1, and 1 is best.

    INDEX_RECALL: the share of the exactly nearest objects that the index finds.
    NDCG: how far up the answers are, the best ones most of all.
    RECIPROCAL_RANK: 1 divided by the place of the first answer.
    RECALL: the share of the answers that are found.
    """

    INDEX_RECALL = "index recall"
    NDCG = "nDCG"
    RECIPROCAL_RANK = "MRR"
    RECALL = "recall"


def check_measures() -> None:
    """Check that hits can be measured against answers here.

    Raises:
        PackageMissing: the library is not installed.
    """
    if find_spec("ir_measures") is None:
        raise PackageMissing("Measuring hits against known answers", "ir-measures", "evaluate")


def measure(answers: Sequence[Mapping[str, int]], found: Sequence[Sequence[str]], limit: int) -> dict[Measure, Values]:
    """Return by measure one value for each query.

    Args:
        answers: for each query its answers, each with how good it is: 1 or more, 0 for none.
        found: for each query what was found, best first, each once.
        limit: how many hits count.

    Returns:
        float64, shape (queries,): nDCG@limit, the reciprocal rank and recall@limit. All are 0 where nothing was found.
    """
    # Not on top: it is an optional package.
    import ir_measures  # noqa: PLC0415

    wanted = {
        ir_measures.nDCG @ limit: Measure.NDCG,
        ir_measures.RR: Measure.RECIPROCAL_RANK,
        ir_measures.R @ limit: Measure.RECALL,
    }
    qrels = {str(number): dict(each) for number, each in enumerate(answers)}
    # Scores that fall with the rank; trec_eval sorts by the score and knows no ranks.
    run = {
        str(number): {name: float(limit - rank) for rank, name in enumerate(each[:limit])}
        for number, each in enumerate(found)
    }
    values = {each: np.zeros(len(answers)) for each in wanted.values()}
    for each in ir_measures.iter_calc(list(wanted), qrels, run):
        values[wanted[each.measure]][int(each.query_id)] = each.value
    return values
