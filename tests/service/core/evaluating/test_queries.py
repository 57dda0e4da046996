"""What the queries of an evaluation may be together."""

import numpy as np
import pytest

from service.core.evaluating import queries
from service.errors import InvalidRequest


def test_too_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_QUERY_VALUES", 8)
    rows = [np.ones(4, np.float32)] * 3

    assert queries._stacked(rows[:2]).shape == (2, 4)
    with pytest.raises(InvalidRequest, match="take fewer queries"):
        queries._stacked(rows)
