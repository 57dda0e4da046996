"""What an evaluation makes of measures."""

import numpy as np
import pytest

from service.core.evaluating import evaluator
from service.core.evaluating.evaluator import _comparisons
from service.core.evaluating.measures import Measure
from service.core.evaluating.statistics import Difference, Values, compare
from service.domain import System


def test_each_measure_of_each_system_is_a_comparison_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noting(first: Values, second: Values, *, comparisons: int) -> Difference:
        asked.append(comparisons)
        return compare(first, second, comparisons=comparisons)

    monkeypatch.setattr(evaluator, "compare", noting)
    every = {kind: np.ones(3) for kind in Measure}
    # Words have no index to be measured.
    words = {kind: each for kind, each in every.items() if kind is not Measure.INDEX_RECALL}

    found = _comparisons([System("a"), System("b"), System("words")], [every, every, words])

    assert len(found) == 7
    assert asked == [7] * 7
