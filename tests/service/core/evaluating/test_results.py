"""What is said of comparisons and of suggestions."""

import pytest

from service.cli import drift, evaluation_page
from service.core.evaluating.measures import Measure
from service.core.evaluating.results import Comparison, FindingKind, findings_of_comparisons, findings_of_ef
from service.core.evaluating.statistics import Difference, Estimate
from service.core.evaluating.suggesting import EfSuggestion
from service.rpc.evaluation.messages import MEASURES


@pytest.mark.parametrize("measure", Measure)
def test_a_finding_calls_a_measure_what_tables_call_it(measure: Measure) -> None:
    worse = Comparison("other", measure, Difference(Estimate(-0.07, -0.1, -0.04), 0.001, real=True))

    (found,) = findings_of_comparisons([worse], "present")

    name = evaluation_page.MEASURES[MEASURES[measure]]
    assert found.message == f"its {name} is 0.070 lower than that of 'present'"
    assert name in drift.NAMES.values()


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
