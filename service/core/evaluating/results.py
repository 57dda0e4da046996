"""What an evaluation finds, and the words for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.core.evaluating.answers import Lacking
from service.core.evaluating.drift import FEWEST_QUERIES, Drift, Report, SystemReport, named_system
from service.core.evaluating.fields import FieldSample
from service.core.evaluating.measures import Measure
from service.core.evaluating.queries import Query
from service.core.evaluating.statistics import Difference, Estimate, Values, fewest_queries
from service.core.evaluating.suggesting import EXACT, AlphaSuggestion, EfSuggestion, WeightsSuggestion, queries_for
from service.core.evaluating.truth import VectorCounts
from service.domain import Distance, NamedVector, System

WIDE_GAP = 0.5
"""Centres that are farther apart are named: those of texts and of pictures are, in most models that read both."""

GOOD_RECALL = 0.95
"""An index that surely finds less is named."""


class FindingKind(Enum):
    """What an evaluation warns of; the numbers are those of the API."""

    LOW_INDEX_RECALL = 1
    OBJECTS_NOT_FOUND = 2
    NO_BETTER_THAN_CHANCE = 3
    WORSE = 4
    CAPTION_IN_VECTOR = 5
    VECTORS_MISSING = 6
    VECTORS_ZERO = 7
    VECTORS_DOUBLED = 8
    WRONG_LENGTH = 9
    NOT_UNIT_LENGTH = 10
    HUBS = 11
    GAP = 12
    ANSWERS_MISSING = 13
    NOTHING_FOUND = 14
    FEW_QUERIES = 15
    DRIFT = 16
    EF_UNCERTAIN = 17
    EF_FOR_OBJECTS = 18
    FIELD_SAMPLE = 19
    OBJECTS_LEFT_OUT = 20


REMARKS = frozenset(
    {
        FindingKind.WORSE,
        FindingKind.CAPTION_IN_VECTOR,
        FindingKind.GAP,
        FindingKind.ANSWERS_MISSING,
        FindingKind.NOTHING_FOUND,
        FindingKind.FEW_QUERIES,
        FindingKind.EF_UNCERTAIN,
        FindingKind.EF_FOR_OBJECTS,
        FindingKind.FIELD_SAMPLE,
        FindingKind.OBJECTS_LEFT_OUT,
    }
)
"""What is good to know of the evaluation, and no fault of the collection."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One warning, in words, with what to do.

    Attributes:
        kind: what it warns of.
        system: which way to search it is about; empty for the collection itself.
        message: the words.
        vector: which named vector, if it is about the stored vectors of one.
    """

    kind: FindingKind
    system: str
    message: str
    vector: str = ""

    @property
    def fault(self) -> bool:
        """Whether something is broken."""
        return self.kind not in REMARKS


@dataclass(frozen=True, slots=True)
class SystemResult:
    """How well a system does.

    Attributes:
        system: the system.
        target: the named vector that it searched.
        measures: the mean of each measure.
        values: of each measure the value of each query.
        searches: how many searches it was asked for.
        mean_s: the mean time of a search, as median_s and p95_s in seconds.
        lost: how many objects were not found by their own vectors.
    """

    system: System
    target: NamedVector
    measures: Mapping[Measure, Estimate]
    values: Mapping[Measure, Values]
    searches: int
    mean_s: float
    median_s: float
    p95_s: float
    lost: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much more a system has of a measure than the first one."""

    system: str
    measure: Measure
    difference: Difference


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A query by which systems differ much, or which goes badly.

    Attributes:
        query: the query.
        values: the measure by system, in their order.
        found: the first hits by system.
    """

    query: Query
    values: Sequence[float]
    found: Sequence[Sequence[UUID]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation finds.

    Attributes:
        collection: the collection's own name.
        tenant: whose objects; empty if the collection has no tenants.
        query_set: which kind of queries there were: `objects`, `captions` or `queries`.
        query_digest: what they are fixed to; see queries.query_digest.
        query_digests: of each of them; see queries.query_digests.
        queries: how many there were.
        objects: how many objects the collection or tenant has.
        limit: hits that count.
        main: the measure by which queries are shown.
        systems: in the order of the wishes.
        comparisons: of all systems but the first one with that.
        shown: queries by which systems differ most, or that go worst.
        counts: what reading all vectors showed, by named vector; empty if they were not read.
        findings: what to look at.
        ef: the suggested ef; None if none was asked for.
        alpha: the suggested alpha; None if none was asked for.
        weights: the suggested weights; None if none were asked for.
        sample: among how many objects all searches were; None for searches of the collection.
        embedded: inputs that were embedded.
        embedding_s: how long that took, in seconds.
        searches: searches of all systems, and of suggestions.
        seconds: how long all took.
        time: when it ended.
        drift: how it differs from an earlier evaluation; None if there was none.
    """

    collection: str
    tenant: str
    query_set: str
    query_digest: bytes
    query_digests: NDArray[np.uint64]
    queries: int
    objects: int
    limit: int
    main: Measure
    systems: Sequence[SystemResult]
    comparisons: Sequence[Comparison]
    shown: Sequence[QueryResult]
    counts: Mapping[str, VectorCounts]
    findings: Sequence[Finding]
    ef: EfSuggestion | None
    alpha: AlphaSuggestion | None
    weights: WeightsSuggestion | None
    sample: int | None
    embedded: int
    embedding_s: float
    searches: int
    seconds: float
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    drift: Drift | None = None

    def report(self) -> Report:
        """Return what of it is compared with that of another one."""
        systems = {
            each.system.name: SystemReport(
                named_system(each.system, each.target),
                each.measures,
                each.lost,
                each.searches,
                each.median_s,
                {kind: values.astype(np.float32) for kind, values in each.values.items()},
            )
            for each in self.systems
        }
        return Report(
            self.time,
            self.collection,
            self.tenant,
            self.query_set,
            self.query_digest,
            queries=self.queries,
            limit=self.limit,
            objects=self.objects,
            systems=systems,
            vectors=self.counts,
            query_digests=self.query_digests,
        )


def findings_of_drift(drift: Drift) -> list[Finding]:
    """Return what has changed for the worse, and whether there were too few queries to tell."""
    found = [Finding(FindingKind.DRIFT, "", each.message) for each in drift.changes if each.message]
    if drift.queries < FEWEST_QUERIES:
        message = (
            f"{drift.queries} queries are too few to tell a change of their measures from chance; give at least "
            f"{FEWEST_QUERIES}, in the earlier evaluation as well"
        )
        found.append(Finding(FindingKind.FEW_QUERIES, "", message))
    return found


def findings_of_system(result: SystemResult, objects: int, limit: int) -> list[Finding]:
    """Return what is wrong with one system."""
    name, found = result.system.name, []
    recall = result.measures.get(Measure.INDEX_RECALL)
    if recall is not None and recall.high < GOOD_RECALL:
        message = (
            f"its index finds {recall.mean:.1%} of the nearest objects; raise the ef of its HNSW index, or the "
            "rescore limit of its quantizer, or look for objects that the index has lost: "
            "`vecgate objects backfill --verify`"
        )
        found.append(Finding(FindingKind.LOW_INDEX_RECALL, name, message))
    if result.lost:
        message = (
            f"{result.lost} of {result.searches} objects are not found by their own vectors: the index has lost them, "
            "or searches too little; `vecgate objects backfill --verify` enters lost ones again"
        )
        found.append(Finding(FindingKind.OBJECTS_NOT_FOUND, name, message))
    answers = result.measures.get(Measure.RECALL)
    if answers is not None and objects > limit and answers.low <= limit / objects:
        message = (
            f"it finds {answers.mean:.1%} of the answers among {limit} hits, and chance finds {limit / objects:.1%}: "
            "the queries are embedded by another model than the objects, or the model does not know such things; "
            f"`vecgate collections bind` compares stored vectors of {result.target.name!r} with the embedder's"
        )
        found.append(Finding(FindingKind.NO_BETTER_THAN_CHANCE, name, message))
    return found


def findings_of_ef(ef: EfSuggestion, queries: int, *, by_objects: bool) -> list[Finding]:
    """Return why a suggested ef may reach less than it should.

    Args:
        ef: the suggestion.
        queries: how many queries chose it.
        by_objects: whether they were the own vectors of stored objects.
    """
    found = []
    if (needed := queries_for(ef.recall, queries)) > queries:
        half = (ef.recall.high - ef.recall.low) / 2
        message = (
            f"{queries} queries tell the recall of an ef to {half:.3f} either way; about {needed} would tell it to "
            f"{EXACT:g}"
        )
        found.append(Finding(FindingKind.EF_UNCERTAIN, "", message))
    if by_objects:
        message = (
            f"ef {ef.ef} was chosen by the own vectors of stored objects. An index finds their neighbours far more "
            "easily than those of anything else, because the objects themselves lead to them, so searches by texts, "
            "pictures and other vectors reach less; choose the ef by such queries: captions, or your own"
        )
        found.append(Finding(FindingKind.EF_FOR_OBJECTS, "", message))
    return found


def findings_of_fields(sample: FieldSample, systems: Sequence[System], objects: int) -> list[Finding]:
    """Return what the figures of weights of fields are of, and which objects they leave out.

    Args:
        sample: the objects.
        systems: the weights.
        objects: how many objects the collection has.
    """
    vector = sample.vector
    present = ", ".join(f"{name} {weight:g}" for name, weight in vector.field_weights.items())
    message = (
        f"all searches are exact ones among {sample.size} of {objects} objects, so their figures compare weights with "
        f"each other, and not with searches of the collection. The present weights of {vector.name!r} are {present}. "
        "Others need new vectors: add a named vector that has them (`vecgate collections update --from FILE`), without "
        "the fields of the weight 0, fill it "
        "(`vecgate objects backfill`), and let searches use it (`vecgate collections update --default-vector NEW "
        "--if-better`)"
    )
    found = [Finding(FindingKind.FIELD_SAMPLE, "", message)]
    if sample.failed or sample.empty:
        reason = f", for example because {sample.reason}" if sample.failed else ""
        message = (
            f"of {sample.size} objects, {sample.failed} cannot be embedded again{reason}, and {sample.empty} have "
            "nothing in these fields; no weights find them"
        )
        found.append(Finding(FindingKind.OBJECTS_LEFT_OUT, "", message))
    for each in systems:
        if lost := sample.without.get(tuple(each.field_weights.items()), 0):
            message = (
                f"it gives {lost} of {sample.size} objects no vector: all their fields have the weight 0, or cancel "
                "each other out"
            )
            found.append(Finding(FindingKind.OBJECTS_LEFT_OUT, each.name, message))
    return found


def findings_of_answers(lacking: Lacking, *, reads_all: bool) -> list[Finding]:
    """Return that a collection lacks some of the known answers, or that they were not seen.

    Args:
        lacking: the answers.
        reads_all: whether only the request bounds how many objects are looked through.
    """
    if not lacking.missing:
        return []
    message = (
        f"{lacking.missing} of {lacking.answers} known answers were not seen among the first {lacking.among} objects, "
        f"such as {lacking.example[:40]!r}; the others were not looked through, "
        + (
            "so set max_objects to more"
            if reads_all
            else "as only evaluations that compare the index with exact search read all objects"
        )
        if lacking.among is not None
        else f"{lacking.missing} of {lacking.answers} known answers are not in the collection, such as "
        f"{lacking.example[:40]!r}, and {lacking.queries} queries have no other, so all ways to search miss them; "
        "correct these answers, or import their objects"
    )
    return [Finding(FindingKind.ANSWERS_MISSING, "", message)]


def findings_of_queries(results: Sequence[SystemResult], comparisons: int, queries: int, limit: int) -> list[Finding]:
    """Return why nothing can be concluded from the queries.

    Args:
        results: the systems.
        comparisons: how many comparisons of them there are.
        queries: how many queries.
        limit: hits that count.
    """
    found = []
    scores = [each.measures[Measure.NDCG].mean for each in results if Measure.NDCG in each.measures]
    if scores and not any(scores):
        message = (
            f"no answer is among the first {limit} hits of any way to search, so these queries tell nothing about "
            "them; let more hits count, or look at the answers, the model and the vectors"
        )
        found.append(Finding(FindingKind.NOTHING_FOUND, "", message))
    if comparisons and queries < (fewest := fewest_queries(comparisons)):
        message = f"{queries} queries are too few to tell any difference from chance; give at least {fewest}"
        found.append(Finding(FindingKind.FEW_QUERIES, "", message))
    return found


def findings_of_comparisons(comparisons: Sequence[Comparison], first: str) -> list[Finding]:
    """Return which systems are really worse than the first one, or it than others."""
    found = []
    for each in comparisons:
        change = each.difference
        if change.real:
            worse, better = (each.system, first) if change.mean.mean < 0 else (first, each.system)
            message = f"its {each.measure.value} is {abs(change.mean.mean):.3f} lower than that of {better!r}"
            found.append(Finding(FindingKind.WORSE, worse, message))
    return found


def findings_of_counts(vector: NamedVector, counts: VectorCounts) -> list[Finding]:
    """Return what is wrong with the vectors of a named vector."""
    # Only then do embedders make unit vectors, and does the distance depend on it.
    lengths_count = vector.space is not None and not vector.native and vector.distance is not Distance.COSINE
    words = {
        FindingKind.VECTORS_MISSING: (
            counts.missing,
            "lack it, and searches do not find them; `vecgate objects backfill` fills them in",
        ),
        FindingKind.VECTORS_ZERO: (
            counts.zero,
            "have zeros, or what is not a number, in it; import them again, or update them with their own vectors",
        ),
        FindingKind.WRONG_LENGTH: (
            counts.other_length,
            "have another number of values in it than the queries; they come from another model",
        ),
        FindingKind.VECTORS_DOUBLED: (
            counts.doubled,
            "share it with another object: they have the same content, or their embedder does not tell them apart",
        ),
        FindingKind.NOT_UNIT_LENGTH: (
            counts.off_length if lengths_count else 0,
            "have no unit length in it, on which the distance depends; import them again without vectors",
        ),
        FindingKind.HUBS: (
            counts.hubs,
            "are among the nearest of very many queries, before others; if they are of no use, delete them, or rerank",
        ),
    }
    found = [
        Finding(kind, "", f"vector {vector.name!r}: {count} of {counts.objects} objects {what}", vector.name)
        for kind, (count, what) in words.items()
        if count
    ]
    if counts.gap is not None and counts.gap > WIDE_GAP:
        message = (
            f"vector {vector.name!r}: the queries lie apart from the objects (the distance of their centres is "
            f"{counts.gap:.2f}); choose the certainty or distance of such searches by these, not by searches near "
            "objects"
        )
        found.append(Finding(FindingKind.GAP, "", message, vector.name))
    return found
