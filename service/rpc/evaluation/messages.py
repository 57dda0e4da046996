"""What an evaluation finds, as messages."""

import math
from datetime import datetime, timedelta

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from service.core.evaluating.drift import Drift
from service.core.evaluating.measures import Measure
from service.core.evaluating.results import Evaluation, QueryResult, SystemResult
from service.core.evaluating.statistics import Estimate
from service.core.evaluating.summary import VectorSummary
from service.core.evaluating.truth import VectorCounts
from service.domain import System
from vecgate.v1 import evaluation_service_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb

MEASURES: "dict[Measure, pb.EvaluationMeasure.ValueType]" = {
    Measure.INDEX_RECALL: pb.EVALUATION_MEASURE_INDEX_RECALL,
    Measure.NDCG: pb.EVALUATION_MEASURE_NDCG,
    Measure.RECIPROCAL_RANK: pb.EVALUATION_MEASURE_RECIPROCAL_RANK,
    Measure.RECALL: pb.EVALUATION_MEASURE_RECALL,
}
FORMAT = 1
"""Of what later evaluations compare with. An earlier one of another format is refused."""

MAX_TEXT_CHARS = 200
"""Of the words of a query in the result."""


def evaluation_to_pb(found: Evaluation) -> pb.Evaluation:
    """Return an evaluation as a message."""
    message = pb.Evaluation(
        query_count=found.queries,
        object_count=found.objects,
        limit=found.limit,
        main_measure=MEASURES[found.main],
        systems=[_system_result(each) for each in found.systems],
        queries=map(_query_result, found.shown),
        sample_object_count=found.sample,
        embedded_inputs=found.embedded,
        embedding_time=_duration(found.embedding_s),
        searches=found.searches,
        time=_duration(found.seconds),
        report=_report(found),
        drift=None if found.drift is None else _drift(found.drift),
    )
    for each in found.comparisons:
        message.comparisons.add(
            system=each.system,
            measure=MEASURES[each.measure],
            difference=_estimate(each.difference.mean),
            chance=each.difference.chance,
            real=each.difference.real,
        )
    message.vectors.extend(_vector_counts(name, counts) for name, counts in found.counts.items())
    for finding in found.findings:
        kind = pb.FindingKind.Value(f"FINDING_KIND_{finding.kind.name}")
        message.findings.add(kind=kind, system=finding.system, message=finding.message, fault=finding.fault)
    _add_suggestions(message, found)
    return message


def _report(found: Evaluation) -> pb.EvaluationReport:
    message = pb.EvaluationReport(
        format=FORMAT,
        collection=found.collection,
        tenant=found.tenant,
        query_set=found.query_set,
        query_digest=found.query_digest,
        query_count=found.queries,
        limit=found.limit,
        object_count=found.objects,
        end_time=_timestamp(found.time),
        query_digests=found.query_digests.astype("<u8").tobytes(),
        systems=[_system_result(each, with_values=True) for each in found.systems],
    )
    for name, counts in found.counts.items():
        each = message.vectors.add()
        each.CopyFrom(_vector_counts(name, counts))
        if counts.summary is not None:
            each.summary.CopyFrom(_summary(counts.summary))
    return message


def _vector_counts(name: str, counts: VectorCounts) -> pb.VectorCounts:
    return pb.VectorCounts(
        name=name,
        objects=counts.objects,
        missing=counts.missing,
        zero=counts.zero,
        other_length=counts.other_length,
        doubled=counts.doubled,
        off_length=counts.off_length,
        hubs=counts.hubs,
        query_gap=counts.gap,
        query_gap_error=counts.gap_error,
        space=counts.space,
    )


def _summary(summary: VectorSummary) -> pb.VectorSummary:
    return pb.VectorSummary(
        centre=summary.centre.astype("<f4").tobytes(),
        digests=summary.digests.astype("<u8").tobytes(),
        lengths=summary.lengths.astype("<f4").tobytes(),
        projections=np.ascontiguousarray(summary.projections, "<f4").tobytes(),
    )


def _drift(drift: Drift) -> pb.Drift:
    changes = [
        pb.Change(
            kind=pb.ChangeKind.Value(f"CHANGE_KIND_{each.kind.name}"),
            subject=each.subject,
            before=each.before,
            now=each.now,
            chance=each.chance,
            real=each.real,
            message=each.message,
            same_queries=each.same_queries,
        )
        for each in drift.changes
    ]
    return pb.Drift(since=_timestamp(drift.since), changes=changes)


def _add_suggestions(message: pb.Evaluation, found: Evaluation) -> None:
    if (ef := found.ef) is not None:
        message.ef.CopyFrom(
            pb.EfSuggestion(
                wanted_recall=ef.wanted,
                ef=ef.ef,
                reached=ef.reached,
                recall=_estimate(ef.recall),
                tried=[pb.TriedEf(ef=value, recall=recall) for value, recall in ef.tried],
            )
        )
    if (weights := found.weights) is not None:
        message.weights.weights.update(weights.weights)
        message.weights.ndcg.CopyFrom(_estimate(weights.value))
        message.weights.gain.CopyFrom(_estimate(weights.gain.mean))
        message.weights.chance, message.weights.real = weights.gain.chance, weights.gain.real
        message.weights.tried.extend(pb.TriedWeights(weights=each, ndcg=value) for each, value in weights.tried)
    if (best := found.alpha) is not None:
        message.alpha.CopyFrom(
            pb.AlphaSuggestion(
                alpha=best.alpha,
                ndcg=_estimate(best.value),
                tried=[pb.TriedAlpha(alpha=alpha, ndcg=value) for alpha, value in best.tried],
            )
        )


def _system_result(result: SystemResult, *, with_values: bool = False) -> pb.SystemResult:
    return pb.SystemResult(
        system=_system(result.system, result.target.name),
        space=result.target.space_id,
        measures=[
            pb.MeasuredEstimate(
                measure=MEASURES[each],
                estimate=_estimate(value),
                values=result.values[each].astype("<f4").tobytes() if with_values else b"",
            )
            for each, value in result.measures.items()
        ],
        searches=result.searches,
        mean_time=_duration(result.mean_s),
        median_time=_duration(result.median_s),
        p95_time=_duration(result.p95_s),
        lost_objects=result.lost,
    )


def _system(system: System, vector: str) -> pb.EvaluatedSystem:
    return pb.EvaluatedSystem(
        name=system.name,
        target_vector="" if system.weights else vector,
        alpha=system.alpha,
        ef=system.ef,
        reranker=system.reranker,
        rerank_property=system.rerank_property,
        rerank_image_property=system.rerank_image_property,
        target_weights=system.weights,
        field_weights=system.field_weights,
        target_join=search_pb.TargetJoin.Value(f"TARGET_JOIN_{system.join.name if system.join else 'UNSPECIFIED'}"),
    )


def _query_result(result: QueryResult) -> pb.QueryResult:
    return pb.QueryResult(
        id=result.query.id,
        text=result.query.text[:MAX_TEXT_CHARS],
        stored=result.query.object is not None,
        found=[
            pb.FoundObjects(value=None if math.isnan(value) else value, ids=map(str, ids))
            for value, ids in zip(result.values, result.found, strict=True)
        ],
    )


def _estimate(estimate: Estimate) -> pb.Estimate:
    return pb.Estimate(mean=estimate.mean, low=estimate.low, high=estimate.high)


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
