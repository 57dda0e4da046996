"""What is said of suggestions."""

import pytest

from service.core.evaluating.results import FindingKind, findings_of_ef
from service.core.evaluating.statistics import Estimate
from service.core.evaluating.suggesting import EfSuggestion


@pytest.mark.parametrize(
    ("half", "by_objects", "kinds"),
    [
        (0.009, False, []),
        (0.02, False, [FindingKind.EF_UNCERTAIN]),
        (0.009, True, [FindingKind.EF_FOR_OBJECTS]),
        (0.02, True, [FindingKind.EF_UNCERTAIN, FindingKind.EF_FOR_OBJECTS]),
    ],
)
def test_an_ef_that_may_reach_less_is_warned_of(half: float, kinds: list[FindingKind], *, by_objects: bool) -> None:
    ef = EfSuggestion(0.9, 40, reached=True, recall=Estimate(0.9, 0.9 - half, 0.9 + half), tried=[(40, 0.9)])

    found = findings_of_ef(ef, 250, by_objects=by_objects)

    assert [each.kind for each in found] == kinds
    assert all("about 1000 would tell it" in each.message for each in found if each.kind is FindingKind.EF_UNCERTAIN)
