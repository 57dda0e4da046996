"""Evaluations of collections: queries, exact search, the searches of all systems, and what they show."""

import asyncio
import time
from collections.abc import Container, Coroutine, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.embedder_pool import EmbedderPool
from service.core.evaluating.answers import LOOKED_THROUGH, Lacking, lacking_answers
from service.core.evaluating.checks import (
    QUERIES_PATH,
    check_earlier,
    check_lengths,
    check_reader,
    check_wishes,
    measures_index,
    with_ids,
)
from service.core.evaluating.drift import Report, drift_between
from service.core.evaluating.fields import FieldSample, FieldSampler
from service.core.evaluating.index_ef import EfChanges
from service.core.evaluating.measures import Measure, check_measures, measure
from service.core.evaluating.queries import QueryMaker, QuerySet, query_digest, query_digests
from service.core.evaluating.results import (
    REMARKS,
    Comparison,
    Evaluation,
    Finding,
    FindingKind,
    QueryResult,
    SystemResult,
    findings_of_answers,
    findings_of_comparisons,
    findings_of_counts,
    findings_of_drift,
    findings_of_ef,
    findings_of_fields,
    findings_of_queries,
    findings_of_system,
)
from service.core.evaluating.searching import Run, SystemRunner
from service.core.evaluating.statistics import Values, compare_each, estimate_each
from service.core.evaluating.suggesting import (
    ALPHAS,
    AlphaSuggestion,
    EfSuggestion,
    WeightsSuggestion,
    best_alpha,
    best_weights,
    smallest_ef,
    weights_to_try,
)
from service.core.evaluating.task import Stage, Task, Tell
from service.core.evaluating.truth import IndexTruth
from service.core.pictures import NO_PICTURES, Pictures
from service.core.reranker_pool import RerankerPool
from service.domain import CaptionQueries, EvaluationWishes, NamedVector, ObjectQueries, System, WrittenQueries
from service.errors import InvalidRequest, Overloaded, Violation
from service.process.metrics import forget_other_vectors, note_evaluation
from service.store.base import Store

Made = TypeVar("Made")

SHOWN = 5
"""Queries that gain most, and as many that lose most, for each system; and hits of each."""

FEWEST_FOR_EF = 20
"""Queries of which one half chooses an ef and the other judges it."""


class Evaluator:
    """Evaluates collections, one at a time.

    Args:
        store: where objects are.
        embedders: what embeds queries.
        rerankers: what sorts hits again.
        pictures: fetches images of objects of which only the URI is stored.
    """

    def __init__(
        self, store: Store, embedders: EmbedderPool, rerankers: RerankerPool, *, pictures: Pictures = NO_PICTURES
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._rerankers = rerankers
        self._pictures = pictures
        self._turn = asyncio.Lock()
        self._efs = EfChanges(store)

    async def evaluate(
        self, wishes: EvaluationWishes, tell: Tell, api_key: str | None = None, *, earlier: Report | None = None
    ) -> Evaluation:
        """Return how well a collection is searched.

        Args:
            wishes: what to evaluate.
            tell: tells the caller how far it is.
            api_key: the caller's own key for NIMs; None for this server's.
            earlier: what to compare it with; None for nothing.

        Raises:
            PermissionDenied: the client may not search, and the evaluation shows texts or values of objects.
            Overloaded: another evaluation runs on this server.
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            InvalidRequest: something does not fit the collection, it is too large, or it has none of the answers.
            PackageMissing: answers are known, and the library that measures hits against them is not installed.
            RerankerNotFound: this server has no such reranker.
            EmbedderError: an embedder or a reranker failed.
            StoreUnavailable: the store failed.
        """
        check_reader(wishes)
        if self._turn.locked():
            # Two at once would slow each other down, and measure that.
            raise Overloaded("another evaluation is running on this server: try again later")
        async with self._turn:
            # Otherwise this one would measure, and put back, an ef of the last one, whose caller has left.
            await self._efs.settled()
            collection = self._embedders.resolve(await self._store.get_collection(wishes.collection))
            targets = check_wishes(collection, wishes, self._embedders, self._rerankers)
            wishes = await asyncio.to_thread(with_ids, collection, wishes)
            if earlier is not None:
                await asyncio.to_thread(check_earlier, collection, wishes, targets, earlier)
            task = Task(collection, wishes.scope, tell, api_key)
            course = _Course(
                self._store, self._embedders, self._rerankers, wishes, task, efs=self._efs, pictures=self._pictures
            )
            found = await course.run(targets)
            if earlier is not None:
                found = await _to_its_end(asyncio.to_thread(_with_drift, found, earlier))
            # Another process may have removed vectors.
            forget_other_vectors(collection.name, {each.name for each in collection.vectors})
            _show(found, wishes)
            return found

    async def close(self) -> None:
        """Wait until indexes that were changed have their former ef again, for a few seconds at most."""
        await self._efs.close()


class _Course:
    """The course of one evaluation."""

    def __init__(
        self,
        store: Store,
        embedders: EmbedderPool,
        rerankers: RerankerPool,
        wishes: EvaluationWishes,
        task: Task,
        *,
        efs: EfChanges,
        pictures: Pictures,
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._efs = efs
        self._wishes = wishes
        self._task = task
        self._truth = IndexTruth(store, task)
        self._runner = SystemRunner(store, rerankers, task)
        self._sampler = FieldSampler(store, embedders, pictures, task)
        self._sample: FieldSample | None = None
        self._lacking: Lacking | None = None
        self._searches = 0
        self._expected = 0

    async def run(self, targets: Sequence[NamedVector]) -> Evaluation:
        """Return what the evaluation finds; see Evaluator.evaluate.

        Args:
            targets: the named vector of each system.
        """
        begun, wishes = time.perf_counter(), self._wishes
        objects = await self._store.count_objects(self._task.collection.name, wishes.scope)
        self._check_size(objects)
        each_once = self._searched_vectors(targets)
        queries = await QueryMaker(self._store, self._embedders, self._task, each_once, objects).make(wishes.queries)
        self._check_count(len(queries.queries))
        if queries.answered:
            check_measures()
        self._expected = len(queries.queries) * (len(targets) + self._count_tried(targets[0]))
        indexed = self._indexed(targets)
        await self._look_for_answers(queries, objects, reads_all=bool(indexed) or wishes.tries_fields)
        if indexed:
            await self._truth.read(list(indexed.values()), queries, wishes.limit, objects)
        self._sample = sample = await self._read_fields(targets[0], queries, objects)
        runs, values = [], []
        for system, target in zip(wishes.systems, targets, strict=True):
            runs.append(await self._search(Run(system, target, range(len(queries.queries))), queries))
            values.append(await self._measure(runs[-1], queries))
            runs[-1].forget(SHOWN)
        ef = await self._suggest_ef(targets[0], queries)
        alpha = await self._suggest_alpha(targets[0], queries)
        weights = await self._suggest_weights(targets[0], queries, values[0])
        main = Measure.NDCG if queries.answered else Measure.INDEX_RECALL
        # Resampling the most queries of the most systems takes seconds.
        results = await _to_its_end(asyncio.to_thread(_results, runs, values))
        comparisons = await _to_its_end(asyncio.to_thread(_comparisons, wishes.systems, values))
        return Evaluation(
            collection=self._task.collection.name,
            tenant=wishes.scope.tenant,
            query_set=QUERIES_PATH[type(wishes.queries)],
            query_digest=await asyncio.to_thread(query_digest, wishes.queries),
            query_digests=await asyncio.to_thread(query_digests, queries.queries),
            queries=len(queries.queries),
            objects=objects,
            limit=wishes.limit,
            main=main,
            systems=results,
            comparisons=comparisons,
            shown=_shown(runs, [each.get(main) for each in values], queries),
            counts=self._truth.counts,
            findings=self._findings(each_once, results, comparisons, queries, ef=ef, objects=objects),
            ef=ef,
            alpha=alpha,
            weights=weights,
            sample=sample.size if sample else None,
            embedded=queries.embedded + (sample.embedded if sample else 0),
            embedding_s=queries.embedding_s + (sample.embedding_s if sample else 0),
            searches=self._searches,
            seconds=time.perf_counter() - begun,
        )

    def _findings(
        self,
        targets: Sequence[NamedVector],
        results: Sequence[SystemResult],
        comparisons: Sequence[Comparison],
        queries: QuerySet,
        *,
        ef: EfSuggestion | None,
        objects: int,
    ) -> list[Finding]:
        """Return what to look at: of the queries, the systems, their differences, and the vectors."""
        wishes, counts, count = self._wishes, self._truth.counts, len(queries.queries)
        searched = len(self._sample.ids) if self._sample else objects
        return [
            *(findings_of_answers(self._lacking, reads_all=wishes.tries_fields) if self._lacking else ()),
            *findings_of_queries(results, len(comparisons), count, wishes.limit),
            *(findings_of_ef(ef, count, by_objects=queries.by_objects) if ef else ()),
            *self._caption_findings(targets),
            *(findings_of_fields(self._sample, wishes.systems, objects) if self._sample else ()),
            *(finding for each in results for finding in findings_of_system(each, searched, wishes.limit)),
            *findings_of_comparisons(comparisons, wishes.systems[0].name),
            *(
                finding
                for each in targets
                if each.name in counts
                for finding in findings_of_counts(each, counts[each.name])
            ),
        ]

    async def _look_for_answers(self, queries: QuerySet, objects: int, *, reads_all: bool) -> None:
        if queries.answered and isinstance(self._wishes.queries, WrittenQueries):
            most = self._wishes.max_objects
            # What is cheap without reading all vectors shall stay so where an answer is misspelt.
            most = most if reads_all else min(most, LOOKED_THROUGH)
            self._lacking = await lacking_answers(self._store, self._task, queries, most, objects)

    def _check_size(self, objects: int) -> None:
        most = self._wishes.max_objects
        if self._wishes.index_recall and objects > most:
            message = (
                f"is {most}, and the collection has {objects} objects, all of which exact search reads; give more, or "
                "leave the index recall out"
            )
            raise InvalidRequest([Violation("max_objects", message)])

    def _check_count(self, count: int) -> None:
        if self._wishes.wanted_recall is not None and count < FEWEST_FOR_EF:
            message = f"needs at least {FEWEST_FOR_EF} queries, and there are {count}"
            raise InvalidRequest([Violation("wanted_recall", message)])

    async def _read_fields(self, target: NamedVector, queries: QuerySet, objects: int) -> FieldSample | None:
        """Return a sample that has all known answers, if weights of fields are tried."""
        if not self._wishes.tries_fields:
            return None
        answers = [each.object for each in queries.queries if each.object is not None]
        if self._lacking is not None:
            answers += self._lacking.objects.values()
        most = self._wishes.field_sample
        return await self._sampler.read(target, list(dict.fromkeys(answers)), most, objects, queries.answer_property)

    async def _search(self, run: Run, queries: QuerySet) -> Run:
        """Run a system's searches, with its ef, or among the sample."""
        if self._sample is not None:
            vectors, limit = queries.vectors[run.target.name], self._wishes.limit
            run.ids, run.names = await self._sample.search(run.system.field_weights, vectors, limit)
            # Their times would tell nothing of searches.
            run.seconds = np.zeros(len(run.rows))
            self._searches += len(run.rows) - 1
            await self._searched()
            return run
        async with self._efs.changed(self._task.collection.name, run.target.name, run.system.ef):
            return await self._runner.run(run, queries, self._wishes.limit, self._searched)

    async def _searched(self) -> None:
        self._searches += 1
        await self._task.tell(Stage.SEARCHING, self._searches, max(self._searches, self._expected))

    async def _measure(self, run: Run, queries: QuerySet) -> dict[Measure, Values]:
        """Return one value of each measure for each query of a run."""
        values: dict[Measure, Values] = {}
        if measures_index(self._wishes, run.system) and self._truth.has_any(run.target.name):
            values[Measure.INDEX_RECALL] = await self._truth.recall(run)
        if queries.answered:
            answers = [queries.queries[row].answers for row in run.rows]
            values |= await asyncio.to_thread(measure, answers, run.names, self._wishes.limit)
        return values

    async def _suggest_ef(self, target: NamedVector, queries: QuerySet) -> EfSuggestion | None:
        wanted, limit = self._wishes.wanted_recall, self._wishes.limit
        if wanted is None or not self._truth.has_any(target.name):
            return None

        async def recall(ef: int, rows: Sequence[int]) -> Values:
            run = Run(System(f"ef {ef}", target.name, ef=ef), target, rows)
            return await self._truth.recall(await self._search(run, queries))

        return await smallest_ef(wanted, limit, recall, len(queries.queries))

    async def _suggest_alpha(self, target: NamedVector, queries: QuerySet) -> AlphaSuggestion | None:
        if not self._wishes.suggest_alpha:
            return None
        values = await self._try([System(f"alpha {each:g}", target.name, each) for each in ALPHAS], target, queries)
        return best_alpha(values) if values.any() else None

    def _count_tried(self, target: NamedVector) -> int:
        """Return with how many alphas and weights all queries are searched."""
        return (len(ALPHAS) if self._wishes.suggest_alpha else 0) + len(self._weights_to_try(target))

    def _weights_to_try(self, target: NamedVector) -> list[dict[str, float]]:
        """Return weights of the vectors of the first system, or of the fields of a named vector."""
        first = self._wishes.systems[0]
        if self._wishes.suggest_field_weights:
            return weights_to_try(first.field_weights or target.field_weights)
        return weights_to_try(first.weights) if self._wishes.suggest_weights else []

    async def _suggest_weights(
        self, target: NamedVector, queries: QuerySet, present: dict[Measure, Values]
    ) -> WeightsSuggestion | None:
        """Return the best weights, compared with what the first system has."""
        tried, first = self._weights_to_try(target), self._wishes.systems[0]
        if not tried:
            return None
        systems = [
            replace(first, weights=each) if self._sample is None else replace(first, field_weights=each)
            for each in tried
        ]
        values = await self._try(systems, target, queries)
        return await asyncio.to_thread(best_weights, tried, values, present[Measure.NDCG]) if values.any() else None

    async def _try(self, systems: Sequence[System], target: NamedVector, queries: QuerySet) -> NDArray[np.float64]:
        """Return the nDCG of all queries by several systems: float64, shape (systems, queries)."""
        rows = []
        for system in systems:
            run = await self._search(Run(system, target, range(len(queries.queries))), queries)
            rows.append((await self._measure(run, queries))[Measure.NDCG])
        return np.stack(rows)

    def _indexed(self, targets: Sequence[NamedVector]) -> dict[str, NamedVector]:
        """Return the named vectors whose indexes are compared with exact search, by name."""
        wishes = self._wishes
        pairs = zip(wishes.systems, targets, strict=True)
        found = {target.name: target for system, target in pairs if measures_index(wishes, system)}
        return found if wishes.wanted_recall is None else {**found, targets[0].name: targets[0]}

    def _searched_vectors(self, targets: Sequence[NamedVector]) -> list[NamedVector]:
        """Return all named vectors that the systems search, each once."""
        joined = [name for each in self._wishes.systems for name in each.weights]
        found = [*targets, *filter(None, map(self._task.collection.find_vector, joined))]
        return list({each.name: each for each in found}.values())

    def _caption_findings(self, targets: Sequence[NamedVector]) -> list[Finding]:
        wanted = self._wishes.queries
        if not isinstance(wanted, CaptionQueries):
            return []
        made_of_it = [each.name for each in targets if wanted.property in {field.name for field in each.text_fields}]
        return [
            Finding(
                FindingKind.CAPTION_IN_VECTOR,
                "",
                f"vector {name!r} is made of {wanted.property!r} itself, so its captions are easy to find; choose a "
                "property that is not in it, or compare such vectors with each other only",
            )
            for name in made_of_it
        ]


async def _to_its_end(thread: Coroutine[object, object, Made]) -> Made:
    """Return what is made in a thread, and wait for its end though the caller has left.

    Nothing can stop a thread, and beside it the next evaluation would measure slow searches.
    """
    running = asyncio.ensure_future(thread)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _with_drift(found: Evaluation, earlier: Report) -> Evaluation:
    """Return an evaluation with how it differs from an earlier one."""
    check_lengths(earlier, found.counts)
    drift = drift_between(earlier, found.report())
    return replace(found, drift=drift, findings=[*found.findings, *findings_of_drift(drift)])


def _show(found: Evaluation, wishes: EvaluationWishes) -> None:
    """Show in the metrics what is wrong with each named vector, if all vectors were read.

    What searches of another ef, with words, with several vectors or with a reranker find tells of these, and not of
    the vector.
    """
    plain = [each for each in found.systems if each.system.ef is None and measures_index(wishes, each.system)]
    for vector in dict.fromkeys(each.target.name for each in plain):
        its = [each for each in plain if each.target.name == vector]
        recall = its[0].measures.get(Measure.INDEX_RECALL)
        note_evaluation(
            found.collection,
            found.tenant,
            vector,
            faults=_count_faults(found, vector, {each.system.name for each in its}),
            recall=None if recall is None else recall.mean,
            time_s=found.time.timestamp(),
        )


def _count_faults(found: Evaluation, vector: str, systems: Container[str]) -> dict[str, int]:
    """Return how many faults of each kind a named vector has.

    What was not looked for is left out and keeps its number: else an evaluation of another kind would end an alert.

    Args:
        found: the evaluation.
        vector: the named vector.
        systems: the names of the ways to search it that tell of it.
    """
    # Wrong answers of a caller are no better than chance, too.
    unknown = {FindingKind.NO_BETTER_THAN_CHANCE, FindingKind.DRIFT}
    if found.query_set != QUERIES_PATH[ObjectQueries]:
        unknown.add(FindingKind.OBJECTS_NOT_FOUND)
    faults = dict.fromkeys((kind.name for kind in FindingKind if kind not in REMARKS | unknown), 0)
    for each in found.findings:
        if each.kind.name in faults and (each.system in systems or each.vector == vector):
            faults[each.kind.name] += 1
    losses = None if found.drift is None else found.drift.count_losses(vector, systems)
    return faults if losses is None else {**faults, FindingKind.DRIFT.name: losses}


def _results(runs: Sequence[Run], values: Sequence[dict[Measure, Values]]) -> list[SystemResult]:
    return [
        SystemResult(
            run.system,
            run.target,
            dict(zip(measured, estimate_each(list(measured.values())), strict=True)),
            measured,
            searches=len(run.rows),
            mean_s=float(run.seconds.mean()),
            median_s=float(np.median(run.seconds)),
            p95_s=float(np.quantile(run.seconds, 0.95)),
            lost=len(run.lost),
        )
        for run, measured in zip(runs, values, strict=True)
    ]


def _comparisons(systems: Sequence[System], values: Sequence[dict[Measure, Values]]) -> list[Comparison]:
    """Compare all systems with the first one, by each measure that both have."""
    first = values[0]
    pairs = [
        (system, kind, measured[kind])
        for system, measured in zip(systems[1:], values[1:], strict=True)
        for kind in Measure
        if kind in first and kind in measured
    ]
    differences = compare_each([(first[kind], measured) for _, kind, measured in pairs])
    return [
        Comparison(system.name, kind, difference)
        for (system, kind, _), difference in zip(pairs, differences, strict=True)
    ]


def _shown(runs: Sequence[Run], values: Sequence[Values | None], queries: QuerySet) -> list[QueryResult]:
    """Return the queries by which systems differ most from the first one, or those that go worst of a single one."""
    first = values[0]
    if first is None:
        return []
    rows: dict[int, None] = {}
    if len(runs) == 1:
        rows.update(dict.fromkeys(int(row) for row in np.argsort(first, kind="stable")[:SHOWN] if first[row] < 1))
    for other in values[1:]:
        if other is not None:
            change = other - first
            order = np.argsort(change, kind="stable")
            rows.update(dict.fromkeys(int(row) for row in order[:SHOWN] if change[row] < 0))
            rows.update(dict.fromkeys(int(row) for row in order[::-1][:SHOWN] if change[row] > 0))
    return [
        QueryResult(
            queries.queries[row],
            [float("nan") if each is None else float(each[row]) for each in values],
            [run.ids[row][:SHOWN] for run in runs],
        )
        for row in rows
    ]
