"""Measures are trec_eval's."""

import numpy as np
import pytest
import pytrec_eval

from service.core.evaluating import measures
from service.core.evaluating.measures import Measure, check_measures, measure
from service.errors import PackageMissing

LIMIT = 10
THEIRS = {Measure.NDCG: f"ndcg_cut_{LIMIT}", Measure.RECIPROCAL_RANK: "recip_rank", Measure.RECALL: f"recall_{LIMIT}"}


def test_measures_equal_those_of_pytrec_eval_on_random_runs() -> None:
    random = np.random.default_rng(1)
    names = [f"object {number}" for number in range(40)]
    answers = [
        {name: int(random.integers(1, 4)) for name in random.choice(names, random.integers(1, 8), replace=False)}
        for _ in range(200)
    ]
    found = [list(random.choice(names, random.integers(1, 11), replace=False)) for _ in range(200)]

    ours = measure(answers, found, LIMIT)

    wanted = {f"ndcg_cut.{LIMIT}", "recip_rank", f"recall.{LIMIT}"}
    evaluator = pytrec_eval.RelevanceEvaluator({str(row): each for row, each in enumerate(answers)}, wanted)
    theirs = evaluator.evaluate(
        {str(row): {name: 1 / (1 + rank) for rank, name in enumerate(each)} for row, each in enumerate(found)}
    )
    for kind, name in THEIRS.items():
        expected = np.array([theirs[str(row)][name] for row in range(200)])
        assert np.abs(ours[kind] - expected).max() < 1e-9
        assert 0 < ours[kind].mean() < 1


def test_a_query_that_finds_nothing_counts_as_nothing() -> None:
    found = measure([{"a": 1}, {"a": 1}], [["b", "a"], []], LIMIT)

    assert found[Measure.RECIPROCAL_RANK].tolist() == [0.5, 0]
    assert found[Measure.RECALL].tolist() == [1, 0]


def test_hits_behind_the_limit_do_not_count() -> None:
    assert measure([{"a": 1}], [["b", "c", "a"]], 2)[Measure.RECIPROCAL_RANK].tolist() == [0]


def test_a_server_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_measures()
    monkeypatch.setattr(measures, "find_spec", lambda _: None)

    with pytest.raises(PackageMissing, match=r"vecgate\[evaluate\]"):
        check_measures()
