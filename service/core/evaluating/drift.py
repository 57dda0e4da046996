"""How an evaluation differs from an earlier one of the same collection, and which differences are more than chance."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from embedders.contract import Vector
from service.core.evaluating.measures import Measure
from service.core.evaluating.statistics import SIGNIFICANCE, Estimate, Values, exchange_chances
from service.core.evaluating.summary import VectorSummary
from service.core.evaluating.truth import VectorCounts
from service.core.evaluating.two_samples import Sample, distribution_change, mean_change, share_change
from service.domain import NamedVector, System

SHRUNK = 0.1
"""A collection that has lost a larger share of its objects is named."""

REPLACED, FEWEST_SAME = 0.5, 20
"""If more of the same objects have another vector, that is named; of fewer objects, a half may be two."""

FEWEST_QUERIES = 30
"""Of fewer queries, the mean of a measure is not distributed as the test needs it, and nothing is told from chance."""

SLIGHT = 0.01
"""By how much the mean of a measure must have changed: of many queries the least change is more than chance, and every
object that is added may stand before an answer."""

SAME_SQUARED = 0.02
"""Unit vectors whose squared distance is less, a cosine of over 0.99, count as the same."""

APART, SMALLEST_GROUP, GONE = 4.0, 0.05, 0.1
"""Two groups lie apart if their centres are so many of their standard deviations from each other; a cloud without
groups, cut into halves, has 2.7. The smaller one has at least 5 % of the objects, and is gone if a tenth of it is left.
"""

NORMAL = 1.959964
"""Standard errors from the mean to the end of an interval of 95 %."""


class ChangeKind(Enum):
    """What is compared; the numbers are those of the API."""

    OBJECT_COUNT = 1
    MISSING = 2
    ZERO = 3
    OTHER_LENGTH = 4
    DOUBLED = 5
    OFF_LENGTH = 6
    HUBS = 7
    QUERY_GAP = 8
    LENGTHS = 9
    CENTRE = 10
    DISTRIBUTION = 11
    GROUPS = 12
    SAME_OBJECTS = 13
    NOT_FOUND = 14
    INDEX_RECALL = 15
    NDCG = 16
    RECIPROCAL_RANK = 17
    RECALL = 18
    MEDIAN_TIME = 19


COUNTED = {
    ChangeKind.MISSING: ("lack the vector", "fill it in by `vecgate objects backfill`"),
    ChangeKind.ZERO: (
        "have zeros, or what is not a number, in it",
        "import them again, or update them with their own vectors",
    ),
    ChangeKind.OTHER_LENGTH: ("have another number of values in it", "find out which import brings another model's"),
    ChangeKind.DOUBLED: ("share it with another object", "look at the last imports: the same content, or one picture"),
    ChangeKind.OFF_LENGTH: ("have no unit length in it", "find out which import brings its own vectors"),
    ChangeKind.HUBS: ("are hubs", "look at them, and delete or rerank what is of no use"),
}
MEASURED = {
    Measure.INDEX_RECALL: (ChangeKind.INDEX_RECALL, "raise the ef of the index, or look for objects that it has lost"),
    Measure.NDCG: (ChangeKind.NDCG, "look at the queries that go worst, and at what was imported since"),
    Measure.RECIPROCAL_RANK: (ChangeKind.RECIPROCAL_RANK, "look at the queries that go worst"),
    Measure.RECALL: (ChangeKind.RECALL, "look at the queries that go worst, and for objects that are gone"),
}

OF_MEASURES = frozenset(kind for kind, _ in MEASURED.values())
OF_QUERIES = {ChangeKind.QUERY_GAP, *OF_MEASURES}
"""What is tested by means over queries."""
OF_SYSTEMS = {ChangeKind.NOT_FOUND, ChangeKind.MEDIAN_TIME, *OF_MEASURES}
"""What is compared of ways to search; all else is of vectors, or of the collection itself."""


@dataclass(frozen=True, slots=True, eq=False)
class SystemReport:
    """Of one way to search.

    Attributes:
        system: the way, as named_system returns it.
        measures: the mean of each measure.
        lost: how many objects were not found by their own vectors.
        searches: of how many searches.
        median_s: the median time of a search, in seconds.
        values: of each measure the value of each query, float32, shape (queries,), in the order of the report's
            query_digests. Reports of earlier versions have none.
    """

    system: System
    measures: Mapping[Measure, Estimate]
    lost: int
    searches: int
    median_s: float
    values: Mapping[Measure, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What of an evaluation is compared with that of a later one.

    Attributes:
        time: when it ended.
        collection: the collection's own name.
        tenant: whose objects; empty if the collection has no tenants.
        query_set: which kind of queries it searched by: `objects`, `captions` or `queries`.
        query_digest: what they are fixed to; see queries.query_digest.
        queries: how many of them.
        limit: hits that counted.
        objects: objects that there were.
        systems: the ways to search, by name.
        vectors: what reading all vectors showed, by named vector.
        query_digests: of each query, uint64, shape (queries,); see queries.query_digests. Reports of earlier versions
            have none.
    """

    time: datetime
    collection: str
    tenant: str
    query_set: str
    query_digest: bytes
    queries: int
    limit: int
    objects: int
    systems: Mapping[str, SystemReport]
    vectors: Mapping[str, VectorCounts]
    query_digests: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        kind: what differs.
        subject: the named vector or the system; empty for the collection itself.
        before: the earlier value; None where only the difference has one.
        now: today's value, or the difference.
        chance: how often chance alone makes a difference as large; None where there is no chance in it.
        real: whether it is more than chance.
        message: what it means and what to do; empty if there is nothing to do, or if the change of the same queries
            has said it.
        same_queries: of how many queries, which both evaluations have, the values were compared one by one; 0 for
            what is compared in another way.
    """

    kind: ChangeKind
    subject: str
    before: float | None
    now: float
    chance: float | None
    real: bool
    message: str
    same_queries: int = 0


@dataclass(frozen=True, slots=True)
class Drift:
    """How an evaluation differs from an earlier one.

    Attributes:
        since: when that ended.
        changes: all that was compared.
        queries: how many queries the one with fewer had. Of fewer than FEWEST_QUERIES, measures are only shown.
    """

    since: datetime
    changes: list[Change]
    queries: int

    def count_losses(self, vector: str, systems: Container[str]) -> int | None:
        """Return how many changes for the worse concern a named vector: its own, and those of the collection itself.

        Args:
            vector: the named vector.
            systems: the names of ways to search it, whose changes count, too.

        Returns:
            None if only one of the evaluations has read this vector.
        """
        others = [each for each in self.changes if each.kind not in OF_SYSTEMS]
        if vector not in [each.subject for each in others]:
            return None
        own = [each for each in others if each.subject in ("", vector)]
        own += [each for each in self.changes if each.kind in OF_SYSTEMS and each.subject in systems]
        return sum(bool(each.message) for each in own)


@dataclass(slots=True)
class _Found:
    """A difference before it is known how many are tested together.

    `differences` has those of the values of the same queries, which are the same ones for all measures.
    """

    kind: ChangeKind
    subject: str
    before: float | None
    now: float
    message: str = ""
    chance: float | None = None
    real: bool = False
    differences: Values | None = None


@dataclass(frozen=True, slots=True)
class _SameQueries:
    """The places in two reports of the queries that both have, and whether they have no others."""

    before: NDArray[np.intp]
    now: NDArray[np.intp]
    all: bool


def drift_between(earlier: Report, today: Report) -> Drift:
    """Return how two evaluations of a collection differ.

    Measures of queries that are the same in both are compared query by query, as those of two systems of an evaluation
    are; where there are others, measures are compared as two samples, by their means and standard errors. Shares are
    compared by Fisher's exact test, and vectors by the test of Kolmogorov and Smirnov on each of their projections, as
    Rabanser, Günnemann and Lipton found best among simple ways ("Failing Loudly: An Empirical Study of Methods for
    Detecting Dataset Shift", NeurIPS 2019). A difference is more than chance if chance makes one as large in less than
    one of 100 evaluations, divided by the number of differences that are tested (Bonferroni's correction). A measure
    must have changed by SLIGHT as well.
    """
    queries = min(earlier.queries, today.queries)
    found = [_object_count(earlier, today)]
    for name, counts in today.vectors.items():
        if name in earlier.vectors:
            as_many = earlier.queries == today.queries
            found += _of_vector(name, earlier.vectors[name], counts, as_many_queries=as_many)
    same = _same_queries(earlier, today)
    for name, system in today.systems.items():
        if name in earlier.systems:
            found += _of_system(name, earlier.systems[name], system, same)
    if queries < FEWEST_QUERIES:
        for each in found:
            if each.kind in OF_QUERIES:
                each.chance = None
    tested = sum(each.chance is not None or each.differences is not None for each in found)
    _compare_same_queries(found, tested)
    return Drift(earlier.time, _told_once([_judged(each, tested) for each in found]), queries)


def named_system(system: System, target: NamedVector) -> System:
    """Return a system with the named vector that it searches, whether it was asked for or not."""
    return replace(system, vector="" if system.weights else target.name, path="")


def _compare_same_queries(found: Sequence[_Found], tested: int) -> None:
    """Set the chances of what is compared query by query: all together, because one by one takes a minute."""
    differences = [each.differences for each in found if each.differences is not None]
    if differences:
        chances = iter(exchange_chances(np.stack(differences), tested=tested))
        for each in found:
            if each.differences is not None:
                each.chance = next(chances)


def _judged(found: _Found, tested: int) -> Change:
    real = found.real
    if found.chance is not None:
        slight = found.kind in OF_MEASURES and abs(found.now - (found.before or 0)) < SLIGHT
        real = found.chance < SIGNIFICANCE / tested and not slight
    same = 0 if found.differences is None else len(found.differences)
    message = found.message if real else ""
    return Change(found.kind, found.subject, found.before, found.now, found.chance, real, message, same)


def _told_once(changes: Sequence[Change]) -> list[Change]:
    """Return changes without the message of all queries where that of the same queries tells of the same loss."""
    told = {(each.kind, each.subject) for each in changes if each.same_queries and each.message}
    return [
        replace(each, message="") if not each.same_queries and (each.kind, each.subject) in told else each
        for each in changes
    ]


def _object_count(earlier: Report, today: Report) -> _Found:
    message = (
        f"the collection has {today.objects} objects, and had {earlier.objects}; if nobody deleted the others, look at "
        "its expiry (time to live) and at Weaviate's shards"
    )
    shrunk = today.objects < (1 - SHRUNK) * earlier.objects
    return _Found(ChangeKind.OBJECT_COUNT, "", earlier.objects, today.objects, message, real=shrunk)


def _of_vector(name: str, earlier: VectorCounts, today: VectorCounts, *, as_many_queries: bool) -> Iterator[_Found]:
    for kind, (what, fix) in COUNTED.items():
        # Of how many queries an object is among the nearest depends on how many there are.
        if kind is not ChangeKind.HUBS or as_many_queries:
            yield _of_count(name, kind, earlier, today, f"{what}; {fix}")
    if earlier.gap is not None and today.gap is not None:
        message = (
            f"vector {name!r}: queries lie {today.gap:.2f} from the objects, and lay {earlier.gap:.2f} from them; "
            "other kinds of objects are there now, or the embedder of queries is another one. Choose thresholds of "
            "certainty or distance again"
        )
        chance = mean_change(today.gap - earlier.gap, earlier.gap_error, today.gap_error)
        yield _Found(ChangeKind.QUERY_GAP, name, earlier.gap, today.gap, message, chance)
    if earlier.summary is not None and today.summary is not None:
        yield from _of_summary(name, earlier.summary, today.summary)


def _of_count(name: str, kind: ChangeKind, earlier: VectorCounts, today: VectorCounts, words: str) -> _Found:
    field = kind.name.lower()
    before, now = getattr(earlier, field), getattr(today, field)
    chance = share_change(before, earlier.objects, now, today.objects)
    old, new = before / max(1, earlier.objects), now / max(1, today.objects)
    message = f"vector {name!r}: {new:.2%} of the objects {words}; it was {old:.2%}" if new > old else ""
    return _Found(kind, name, old, new, message, chance)


def _of_summary(name: str, earlier: VectorSummary, today: VectorSummary) -> Iterator[_Found]:
    # In their last digits, lengths differ from batch to batch.
    lengths = [np.round(each.lengths, 3) for each in (earlier, today)]
    old, new = (float(each.mean()) for each in lengths)
    message = (
        f"vector {name!r}: the lengths of the vectors are others than before, {new:.3f} instead of {old:.3f} "
        "in the mean; find out which import brings vectors that were scaled in another way"
    )
    yield _Found(ChangeKind.LENGTHS, name, old, new, message, distribution_change(lengths[0], lengths[1])[1])
    cosine = _cosine(earlier.centre, today.centre)
    yield _Found(ChangeKind.CENTRE, name, None, cosine)
    pairs = zip(earlier.projections.T, today.projections.T, strict=True)
    tests = [distribution_change(before, now) for before, now in pairs]
    chance = min(1.0, len(tests) * min(chance for _, chance in tests))
    message = (
        f"vector {name!r}: the vectors lie elsewhere than before (the cosine of the centres is {cosine:.2f}): other "
        "content was imported, or another model's vectors; look at the last imports, and let `vecgate collections "
        "bind` compare stored vectors with the embedder's"
    )
    yield _Found(ChangeKind.DISTRIBUTION, name, None, max(each for each, _ in tests), message, chance)
    yield from _same_objects(name, earlier, today)
    yield from _groups(name, earlier.projections, today.projections)


def _cosine(first: Vector, second: Vector) -> float:
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else 0.0


def _same_objects(name: str, earlier: VectorSummary, today: VectorSummary) -> Iterator[_Found]:
    """Yield which share of the objects that both samples have got another vector, if there are enough of them."""
    _, old, new = np.intersect1d(earlier.digests, today.digests, return_indices=True)
    if len(old) < FEWEST_SAME:
        return
    moved = np.square(earlier.projections[old] - today.projections[new]).sum(axis=1) > SAME_SQUARED
    share = float(moved.mean())
    message = (
        f"vector {name!r}: {share:.0%} of the same objects have another vector than before: it comes from another "
        "model than its space says, or all content was changed; let `vecgate collections bind` compare stored vectors "
        "with the embedder's"
    )
    yield _Found(ChangeKind.SAME_OBJECTS, name, None, share, message, real=share > REPLACED)


def _groups(name: str, earlier: Vector, today: Vector) -> Iterator[_Found]:
    """Yield how the share of the smaller one of two groups has changed, if there are or were two."""
    split = _split(earlier)
    come = split is None
    if split is None:
        split = _split(today)
    if split is None:
        return
    before, now = (int(_second(each, split).sum()) for each in (earlier, today))
    if before * len(today) < now * len(earlier):
        # Of the two groups, look at the one that has become smaller.
        before, now = len(earlier) - before, len(today) - now
    old, new = before / len(earlier), now / len(today)
    what = f"vector {name!r}: vectors lie in two groups, as those of texts and of pictures do"
    if come:
        said = f"{what}, and did not before: another modality has come, or another model; look at the last imports"
    elif new < GONE * old:
        said = (
            f"{what}, and one of them is gone: {old:.0%} of the objects before, {new:.0%} now. A modality is lost: "
            "look for imports without pictures or without texts"
        )
    else:
        said = (
            f"{what}, and one of them has become smaller: {old:.0%} of the objects before, {new:.0%} now; if that is "
            "not wanted, look for imports without pictures or without texts"
        )
    yield _Found(ChangeKind.GROUPS, name, old, new, said, share_change(before, len(earlier), now, len(today)))


def _split(points: Vector) -> Vector | None:
    """Return the centres of the two groups that points are in, shape (2, DIRECTIONS); None if none lie apart.

    They are found by 2-means, from the halves along the axis of the largest variance.
    """
    if len(points) < 2 / SMALLEST_GROUP:
        return None
    centred = points - points.mean(axis=0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    second = centred @ axis > 0
    for _ in range(20):
        if not SMALLEST_GROUP <= second.mean() <= 1 - SMALLEST_GROUP:
            return None
        centres: Vector = np.stack([points[~second].mean(axis=0), points[second].mean(axis=0)])
        again = _second(points, centres)
        if (again == second).all():
            break
        second = again
    across = centres[1] - centres[0]
    distance = float(np.linalg.norm(across))
    if not distance or not SMALLEST_GROUP <= second.mean() <= 1 - SMALLEST_GROUP:
        return None
    along = points @ (across / distance)
    spread = float(np.sqrt((along[second].var() + along[~second].var()) / 2))
    return centres if distance > APART * spread else None


def _second(points: Vector, centres: Vector) -> NDArray[np.bool_]:
    """Return which points are nearer to the second centre."""
    first, second = centres
    near: NDArray[np.bool_] = points @ (second - first) > (second @ second - first @ first) / 2
    return near


def _same_queries(earlier: Report, today: Report) -> _SameQueries:
    _, before, now = np.intersect1d(earlier.query_digests, today.query_digests, return_indices=True)
    return _SameQueries(before, now, len(before) == earlier.queries == today.queries)


def _of_system(name: str, earlier: SystemReport, today: SystemReport, same: _SameQueries) -> Iterator[_Found]:
    chance = share_change(earlier.lost, earlier.searches, today.lost, today.searches)
    old, new = earlier.lost / max(1, earlier.searches), today.lost / max(1, today.searches)
    message = (
        f"{name}: {new:.1%} of the objects are not found by their own vectors, and {old:.1%} were not; "
        "`vecgate objects backfill --verify` enters lost ones again"
    )
    yield _Found(ChangeKind.NOT_FOUND, name, old, new, message if new > old else "", chance)
    for measure in MEASURED:
        paired = len(same.now) >= FEWEST_QUERIES and measure in earlier.values and measure in today.values
        if paired:
            yield _of_same_queries(name, measure, earlier.values[measure][same.before], today.values[measure][same.now])
        if measure in earlier.measures and measure in today.measures and not (paired and same.all):
            yield _of_means(name, measure, earlier, today)
    yield _Found(ChangeKind.MEDIAN_TIME, name, earlier.median_s, today.median_s)


def _of_same_queries(name: str, measure: Measure, earlier: Sample, today: Sample) -> _Found:
    """Return how a measure has changed: its values of the same queries, in the same order."""
    kind, fix = MEASURED[measure]
    before, now = earlier.astype(np.float64), today.astype(np.float64)
    old, new = float(before.mean()), float(now.mean())
    message = (
        f"{name}: its {measure.value} is {new:.3f} for the {len(now)} queries that both evaluations have, and was "
        f"{old:.3f}; {fix}"
    )
    return _Found(kind, name, old, new, message if new < old else "", differences=now - before)


def _of_means(name: str, measure: Measure, earlier: SystemReport, today: SystemReport) -> _Found:
    """Return how a measure has changed, from one sample of queries to another one."""
    kind, fix = MEASURED[measure]
    before, now = earlier.measures[measure], today.measures[measure]
    chance = mean_change(now.mean - before.mean, _error(before, earlier.searches), _error(now, today.searches))
    message = f"{name}: its {measure.value} is {now.mean:.3f}, and was {before.mean:.3f}; {fix}"
    return _Found(kind, name, before.mean, now.mean, message if now.mean < before.mean else "", chance)


def _error(estimate: Estimate, queries: int) -> float:
    """Return the standard error of a mean of values from 0 to 1."""
    # If all queries have the same value, the next one may have any other.
    return (estimate.high - estimate.low) / 2 / NORMAL or 1 / max(1, queries)
