"""How two evaluations differ: nothing is found where nothing has changed, and each change is named."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray

from embedders.contract import Vector
from service.core.evaluating import drift, summary
from service.core.evaluating.drift import FEWEST_QUERIES, Change, ChangeKind, Report, SystemReport, drift_between
from service.core.evaluating.measures import Measure
from service.core.evaluating.results import FindingKind, findings_of_drift
from service.core.evaluating.statistics import Estimate, Values, estimate, exchange_chances
from service.core.evaluating.summary import Summarizer, VectorSummary
from service.core.evaluating.truth import VectorCounts
from service.domain import System

DIMENSION = 64
DRAWN = 300
"""Objects of a collection, as far as a test says nothing else."""
PRESENT = System("present", "default")


def cloud(random: np.random.Generator, count: int = DRAWN, model: int = 0, pictures: float = 0.5) -> Vector:
    """Return unit vectors as a model makes them: those of texts around one centre, those of pictures around another."""
    fixed = np.random.default_rng(model)
    centres = fixed.standard_normal((2, DIMENSION))
    spread = fixed.uniform(0.5, 1.5, DIMENSION)
    which = (random.random(count) < pictures).astype(int)
    made = 0.9 * centres[which] / np.linalg.norm(centres, axis=1)[which, None]
    made += 0.6 * random.standard_normal((count, DIMENSION)) * spread / np.sqrt(DIMENSION)
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def ids_of(random: np.random.Generator, count: int) -> list[UUID]:
    return [UUID(bytes=random.bytes(16)) for _ in range(count)]


def summarized(ids: list[UUID], vectors: Vector) -> VectorSummary:
    summarizer = Summarizer()
    for start in range(0, len(ids), 100):
        page = vectors[start : start + 100]
        summarizer.add(ids[start : start + 100], page, np.linalg.norm(page, axis=1))
    found = summarizer.summary()
    assert found is not None
    return found


def report(found: VectorSummary | None = None, **counts: Any) -> Report:
    values: dict[str, Any] = {"objects": DRAWN} | counts
    system = SystemReport(PRESENT, {Measure.INDEX_RECALL: Estimate(0.97, 0.96, 0.98)}, 0, 200, 0.01)
    return Report(
        datetime(2026, 1, 1, tzinfo=UTC),
        "Pictures",
        "",
        "objects",
        b"",
        queries=200,
        limit=10,
        objects=values["objects"],
        systems={"present": system},
        vectors={"default": VectorCounts("fake", **values, summary=found)},
    )


def changes(before: Report, now: Report) -> Mapping[ChangeKind, Change]:
    return {each.kind: each for each in drift_between(before, now).changes}


def named(before: Report, now: Report) -> dict[ChangeKind, str]:
    """Return what has changed for the worse."""
    return {kind: each.message for kind, each in changes(before, now).items() if each.message}


def measured(recall: Estimate) -> Report:
    return replace(report(), systems={"present": SystemReport(PRESENT, {Measure.INDEX_RECALL: recall}, 0, 200, 0.01)})


def drawn(random: np.random.Generator, ids: list[UUID] | None = None, **cloud_: Any) -> Report:
    vectors = cloud(random, **cloud_)
    return report(summarized(ids or ids_of(random, len(vectors)), vectors))


def test_other_objects_and_queries_of_the_same_kind_are_drift_in_less_than_one_of_100_evaluations() -> None:
    random, queries = np.random.default_rng(5), FEWEST_QUERIES

    def sampled() -> Report:
        places = random.geometric(0.4, queries)
        found_of_one = np.where(places <= 10, 1 / places, 0)
        measures = {
            Measure.INDEX_RECALL: random.binomial(10, 0.97, queries) / 10,
            Measure.NDCG: np.where(places <= 10, 1 / np.log2(1 + places), 0),
            Measure.RECIPROCAL_RANK: found_of_one,
            Measure.RECALL: np.sign(found_of_one),
        }
        found = drawn(random)
        missing, doubled = int(random.binomial(DRAWN, 0.05)), int(random.binomial(DRAWN, 0.1))
        counts = replace(
            found.vectors["default"],
            missing=missing,
            doubled=doubled,
            gap=0.8 + random.normal(0, 0.02),
            gap_error=0.02,
        )
        estimates = {kind: estimate(values) for kind, values in measures.items()}
        system = SystemReport(PRESENT, estimates, int(random.binomial(queries, 0.01)), queries, 0.01)
        return replace(found, queries=queries, vectors={"default": counts}, systems={"present": system})

    found = [any(each.real for each in drift_between(sampled(), sampled()).changes) for _ in range(100)]

    assert sum(found) <= 1


def judged(ndcg: Values, digests: NDArray[np.uint64] | None = None) -> Report:
    """Return a report with the nDCG of each of its queries; queries with equal digests are the same."""
    queries = np.arange(len(ndcg), dtype=np.uint64) if digests is None else digests
    kept = {Measure.NDCG: ndcg.astype(np.float32)}
    system = SystemReport(PRESENT, {Measure.NDCG: estimate(ndcg)}, 0, len(ndcg), 0.01, kept)
    return replace(report(), queries=len(ndcg), systems={"present": system}, query_digests=queries)


def without_values(found: Report) -> Report:
    """Return a report as earlier versions made it."""
    systems = {name: replace(each, values={}) for name, each in found.systems.items()}
    return replace(found, systems=systems, query_digests=np.zeros(0, np.uint64))


def of_ndcg(before: Report, now: Report) -> list[Change]:
    return [each for each in drift_between(before, now).changes if each.kind is ChangeKind.NDCG]


def ranked(random: np.random.Generator, hard: Values) -> Values:
    """Return what an index finds of queries by how hard each is: most as before, some better or worse."""
    return np.clip(hard + random.normal(0, 0.03, len(hard)) * (random.random(len(hard)) < 0.3), 0, 1)


def test_the_same_queries_of_an_unchanged_collection_are_called_equal_in_at_least_95_of_100_repetitions() -> None:
    random = np.random.default_rng(6)

    def changed() -> bool:
        hard = random.random(100)
        return any(each.real for each in of_ndcg(judged(ranked(random, hard)), judged(ranked(random, hard))))

    assert sum(changed() for _ in range(100)) <= 5


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_of_2_in_100_that_two_samples_do_not_show_is_found_with_the_same_queries(seed: int) -> None:
    random = np.random.default_rng(seed)
    hard = random.random(200)
    before, worse = ranked(random, hard), np.clip(ranked(random, hard) - 0.021, 0, 1)

    (same,) = of_ndcg(judged(before), judged(worse))
    (two,) = of_ndcg(without_values(judged(before)), judged(worse))

    assert (same.same_queries, same.real) == (200, True)
    assert same.before is not None
    assert same.before - same.now == pytest.approx(0.02, abs=0.004)
    assert "for the 200 queries that both evaluations have, and was" in same.message
    assert (two.same_queries, two.real) == (0, False)


def test_the_same_queries_are_found_in_whatever_order_they_come() -> None:
    random = np.random.default_rng(1)
    before, now = ranked(random, random.random(200)), ranked(random, random.random(200))
    order = random.permutation(200)

    sorted_, mixed = (
        of_ndcg(judged(before), each) for each in (judged(now), judged(now[order], digests=order.astype(np.uint64)))
    )

    assert [(each.before, each.now, each.chance) for each in mixed] == [
        (each.before, each.now, each.chance) for each in sorted_
    ]
    (unchanged,) = of_ndcg(judged(before), judged(before[order], digests=order.astype(np.uint64)))
    assert unchanged.chance == 1


@pytest.mark.parametrize(("gone", "paired"), [(1, True), (170, True), (171, False)])
def test_what_is_left_of_the_queries_is_compared_one_by_one_and_all_as_two_samples(
    gone: int,
    paired: bool,  # noqa: FBT001
) -> None:
    random = np.random.default_rng(1)
    hard, others = random.random(200), random.random(gone)
    before = ranked(random, hard)
    now = np.concatenate([np.clip(before[gone:] - 0.1, 0, 1), others])
    left = np.arange(gone, 200 + gone, dtype=np.uint64)

    found = of_ndcg(judged(before), judged(now, digests=left))

    assert [each.same_queries for each in found] == ([200 - gone, 0] if paired else [0])
    assert found[-1].now == pytest.approx(now.mean())
    if paired:
        assert found[0].real
        assert found[0].before == pytest.approx(before[gone:].mean(), abs=1e-6)


def test_new_queries_that_go_badly_are_named_where_the_same_ones_go_as_before() -> None:
    random = np.random.default_rng(1)
    before = ranked(random, random.random(200))
    now = np.concatenate([before[:120], np.zeros(80)])
    digests = np.concatenate([np.arange(120), np.arange(1000, 1080)]).astype(np.uint64)

    same, every = of_ndcg(judged(before), judged(now, digests=digests))

    assert (same.same_queries, same.chance, same.message) == (120, 1, "")
    assert "its nDCG is" in every.message


@pytest.mark.parametrize(("loss", "told"), [(1e-7, False), (0.009, False), (0.011, True)])
def test_a_slight_loss_is_not_named_though_it_is_that_of_all_queries(loss: float, told: bool) -> None:  # noqa: FBT001
    values = np.random.default_rng(1).uniform(0.2, 1, 200)

    (change,) = of_ndcg(judged(values), judged(values - loss))

    assert (change.real, bool(change.message)) == (told, told)
    assert change.chance is not None
    assert change.chance < 0.001


@pytest.mark.parametrize(("loss", "told"), [(0.0095, False), (0.0105, True)])
def test_a_slight_loss_of_many_queries_is_not_named_as_that_of_two_samples(
    loss: float,
    told: bool,  # noqa: FBT001
) -> None:
    values = np.random.default_rng(1).uniform(0.98, 1, 1000)

    (change,) = of_ndcg(without_values(judged(values)), judged(values - loss))

    assert (change.same_queries, change.real, bool(change.message)) == (0, told, told)
    assert change.chance is not None
    assert change.chance < 0.001


@pytest.mark.parametrize(("lost", "real"), [(10, False), (30, True)])
def test_a_loss_that_two_comparisons_show_is_told_once_and_a_slight_one_not_at_all(
    lost: int,
    real: bool,  # noqa: FBT001
) -> None:
    before = np.full(1000, 0.999)
    now = before.copy()
    now[1 : lost + 1] = 0.0
    digests = np.arange(1, 1001, dtype=np.uint64)

    found = drift_between(judged(before), judged(np.roll(now, -1), digests=digests))

    same, every = [each for each in found.changes if each.kind is ChangeKind.NDCG]
    assert (same.same_queries, every.same_queries) == (999, 0)
    assert (same.real, every.real) == (real, real)
    assert (bool(same.message), every.message) == (real, "")
    faults = [each for each in findings_of_drift(found) if each.kind is FindingKind.DRIFT]
    assert [each.message for each in faults] == ([same.message] if real else [])


def test_the_losses_of_two_systems_are_each_told() -> None:
    values = np.random.default_rng(1).uniform(0.2, 1, 200)
    before, now = judged(values), judged(values - 0.1, digests=np.arange(1, 201, dtype=np.uint64))
    both = [
        replace(each, systems={"present": each.systems["present"], "other": other})
        for each, other in (
            (before, replace(before.systems["present"], values={})),
            (now, replace(now.systems["present"], values={})),
        )
    ]

    found = [(each.subject, each.same_queries, bool(each.message)) for each in of_ndcg(*both)]

    assert found == [("present", 199, True), ("present", 0, False), ("other", 0, True)]


def test_a_loss_is_found_however_many_differences_are_tested_together() -> None:
    values = np.random.default_rng(1).uniform(0.2, 1, 50)
    before, now = judged(values), judged(values - 0.05)
    several = [
        replace(
            each,
            systems={str(number): each.systems["present"] for number in range(20)},
            vectors={str(number): each.vectors["default"] for number in range(20)},
        )
        for each in (before, now)
    ]

    assert all(each.real for each in of_ndcg(*several))


def test_all_that_is_compared_query_by_query_gets_its_chance_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noting(differences: Values, *, tested: int) -> list[float]:
        asked.append((differences.shape, tested))
        return exchange_chances(differences, tested=tested)

    monkeypatch.setattr(drift, "exchange_chances", noting)
    random = np.random.default_rng(1)
    before = {kind: random.random(200).astype(np.float32) for kind in Measure}
    now = before | {Measure.RECALL: before[Measure.RECALL] - np.float32(0.1)}
    estimates = {kind: Estimate(0.5, 0.4, 0.6) for kind in Measure}
    reports = [
        replace(
            report(),
            systems={str(number): SystemReport(PRESENT, estimates, 0, 200, 0.01, values) for number in range(20)},
            query_digests=np.arange(200, dtype=np.uint64),
        )
        for values in (before, now)
    ]

    changes = drift_between(*reports).changes

    tested = sum(each.chance is not None for each in changes)
    assert asked == [((80, 200), tested)]
    real = {(each.kind, each.subject) for each in changes if each.real}
    assert real == {(ChangeKind.RECALL, str(number)) for number in range(20)}


def test_the_same_objects_give_the_same_summary_in_whatever_pages_they_come() -> None:
    random = np.random.default_rng(2)
    ids, vectors = ids_of(random, 1200), cloud(random, 1200)
    whole = Summarizer()
    whole.add(ids, vectors, np.linalg.norm(vectors, axis=1))

    first, second = whole.summary(), summarized(ids, vectors)

    assert first is not None
    assert len(first.digests) == summary.MAX_SUMMARY_OBJECTS
    assert (first.digests == second.digests).all()
    assert np.allclose(first.projections, second.projections, atol=1e-6)
    assert np.allclose(first.centre, vectors.mean(axis=0), atol=1e-6)


def test_reports_that_were_saved_before_still_fit() -> None:
    # If this fails, saved reports tell nothing any more: raise FORMAT in service/rpc/evaluation/messages.py.
    found = summarized([UUID(int=1), UUID(int=2)], np.eye(2, 4, dtype=np.float32))

    assert found.digests.tolist() == [2257864845367464997, 9421528303774410942]
    assert ["".join("+" if each > 0 else "-" for each in row) for row in found.projections] == [
        "+--++++-+-+---+-+++------++++++-",
        "-++--+++----+--+--++-+++--+--+-+",
    ]
    assert np.allclose(np.abs(found.projections), 32**-0.5, atol=1e-6)


def test_projections_keep_the_distances_between_vectors() -> None:
    random = np.random.default_rng(3)
    vectors = cloud(random, 200)
    found = summarized(ids_of(random, 200), vectors)

    estimated = np.square(found.projections[::2] - found.projections[1::2]).sum(axis=1).mean()

    pairs = np.square(vectors[:, None] - vectors[None]).sum(axis=2)
    assert abs(estimated / pairs[np.triu_indices(200, 1)].mean() - 1) < 0.15


@pytest.mark.parametrize("seed", range(5))
def test_data_that_has_shifted_is_named(seed: int) -> None:
    random = np.random.default_rng(seed)
    before = drawn(random)
    vectors = cloud(random)
    towards = cloud(np.random.default_rng(99), 1, model=1)
    shifted = vectors + 0.25 * towards
    now = report(summarized(ids_of(random, DRAWN), shifted / np.linalg.norm(shifted, axis=1, keepdims=True)))

    found = named(before, now)

    assert set(found) == {ChangeKind.DISTRIBUTION}
    assert "other content was imported" in found[ChangeKind.DISTRIBUTION]


@pytest.mark.parametrize("seed", range(5))
def test_another_models_vectors_at_the_same_objects_are_named(seed: int) -> None:
    random = np.random.default_rng(seed)
    ids = ids_of(random, DRAWN)

    found = changes(drawn(random, ids), drawn(random, ids, model=1))

    assert found[ChangeKind.SAME_OBJECTS].now == 1
    assert "another model than its space says" in found[ChangeKind.SAME_OBJECTS].message
    assert found[ChangeKind.DISTRIBUTION].real
    assert found[ChangeKind.CENTRE].now < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_another_models_vectors_at_new_objects_are_named(seed: int) -> None:
    random = np.random.default_rng(seed)

    found = named(drawn(random), drawn(random, model=1))

    assert "another model's vectors" in found[ChangeKind.DISTRIBUTION]
    assert ChangeKind.SAME_OBJECTS not in found


@pytest.mark.parametrize("seed", range(5))
def test_a_lost_modality_is_named(seed: int) -> None:
    random = np.random.default_rng(seed)

    found = changes(drawn(random, pictures=0.4), drawn(random, pictures=0.0))

    groups = found[ChangeKind.GROUPS]
    assert groups.before is not None
    assert abs(groups.before - 0.4) < 0.1
    assert groups.now == 0
    assert "A modality is lost" in groups.message


def test_a_modality_that_has_become_rarer_or_has_come_is_named() -> None:
    random = np.random.default_rng(1)

    rarer = named(drawn(random, pictures=0.5), drawn(random, pictures=0.2))[ChangeKind.GROUPS]
    come = named(drawn(random, pictures=0.0), drawn(random, pictures=0.5))[ChangeKind.GROUPS]

    assert "has become smaller" in rarer
    assert "another modality has come" in come


def test_vectors_without_groups_have_none() -> None:
    random = np.random.default_rng(1)

    assert ChangeKind.GROUPS not in changes(drawn(random, pictures=0.0), drawn(random, pictures=0.0))


def test_other_lengths_are_named_and_their_last_digits_are_not() -> None:
    random = np.random.default_rng(1)
    ids, vectors = ids_of(random, DRAWN), cloud(random)
    before = report(summarized(ids, vectors))

    rounded = named(before, report(summarized(ids, vectors * np.float32(1.0001))))
    longer = named(before, report(summarized(ids, vectors * np.float32(1.1))))

    assert rounded == {}
    assert set(longer) == {ChangeKind.LENGTHS}
    assert "1.100 instead of 1.000" in longer[ChangeKind.LENGTHS]


@pytest.mark.parametrize("field", ["missing", "zero", "other_length", "doubled", "off_length", "hubs"])
def test_more_of_a_fault_is_named_with_what_to_do_and_less_is_better(field: str) -> None:
    few, many = report(**{field: 3}), report(**{field: 60})
    kind = ChangeKind[field.upper()]

    worse, better = changes(few, many)[kind], changes(many, few)[kind]

    assert worse.real
    assert "20.00% of the objects" in worse.message
    assert "; it was 1.00%" in worse.message
    assert (better.real, better.message) == (True, "")
    assert not changes(few, report(**{field: 5}))[kind].real


def test_hubs_of_another_number_of_queries_are_not_compared() -> None:
    assert ChangeKind.HUBS not in changes(report(), replace(report(hubs=60), queries=100))


def test_a_collection_that_has_lost_many_objects_is_named_and_one_that_has_grown_is_not() -> None:
    assert "had 300" in named(report(), report(objects=200))[ChangeKind.OBJECT_COUNT]
    assert named(report(objects=200), report()) == {}
    assert named(report(), report(objects=280)) == {}


def test_a_gap_that_has_changed_by_more_than_its_error_is_named() -> None:
    before = report(gap=0.8, gap_error=0.02)

    assert "lay 0.80 from them" in named(before, report(gap=0.4, gap_error=0.02))[ChangeKind.QUERY_GAP]
    assert named(before, report(gap=0.83, gap_error=0.02)) == {}


def test_an_index_that_finds_less_or_has_lost_objects_is_named_and_a_slow_one_is_only_shown() -> None:
    before = report()
    worse = SystemReport(PRESENT, {Measure.INDEX_RECALL: Estimate(0.7, 0.66, 0.74)}, 40, 200, 10.0)

    found = changes(before, replace(before, systems={"present": worse, "new": worse}))

    assert "its index recall is 0.700, and was 0.970" in found[ChangeKind.INDEX_RECALL].message
    assert "20.0% of the objects are not found" in found[ChangeKind.NOT_FOUND].message
    time = found[ChangeKind.MEDIAN_TIME]
    assert (time.before, time.now, time.chance, time.real) == (0.01, 10.0, None, False)


def test_the_more_is_tested_the_surer_each_difference_must_be() -> None:
    few, more = report(missing=10), report(missing=32)
    both = [replace(each, vectors={str(n): each.vectors["default"] for n in range(12)}) for each in (few, more)]

    one, twelve = changes(few, more)[ChangeKind.MISSING], changes(*both)[ChangeKind.MISSING]

    assert one.chance == twelve.chance
    assert (one.real, twelve.real) == (True, False)


@pytest.mark.parametrize(("queries", "tested"), [(29, False), (30, True)])
def test_measures_of_few_queries_are_shown_and_not_tested(queries: int, tested: bool) -> None:  # noqa: FBT001
    def of(value: float) -> Report:
        system = SystemReport(PRESENT, {Measure.NDCG: Estimate(value, value, value)}, 0, queries, 0.01)
        return replace(report(gap=value, gap_error=0.01), queries=queries, systems={"present": system})

    found = drift_between(of(1.0), of(0.2))

    assert found.queries == queries
    for kind in (ChangeKind.NDCG, ChangeKind.QUERY_GAP):
        change = next(each for each in found.changes if each.kind is kind)
        assert (change.before, change.now) == (1.0, 0.2)
        assert (change.chance is not None, change.real) == (tested, tested)
    told = [each.message for each in findings_of_drift(found) if each.kind is FindingKind.FEW_QUERIES]
    assert len(told) == 1 - tested


def test_two_queries_of_hundreds_are_no_drift_where_all_went_well_before() -> None:
    well = estimate(np.ones(200))
    now = np.ones(200)
    now[:2] = 0

    found = changes(measured(well), measured(estimate(now)))[ChangeKind.INDEX_RECALL]

    assert found.chance is not None
    assert (found.chance > 0.1, found.real) == (True, False)


@pytest.mark.parametrize(("common", "told"), [(19, False), (20, True)])
def test_few_objects_in_common_do_not_tell_of_another_model(common: int, told: bool) -> None:  # noqa: FBT001
    random = np.random.default_rng(1)
    ids = ids_of(random, common)
    first, second = ([*ids, *ids_of(random, DRAWN - common)] for _ in range(2))

    assert (ChangeKind.SAME_OBJECTS in changes(drawn(random, first), drawn(random, second, model=1))) is told
