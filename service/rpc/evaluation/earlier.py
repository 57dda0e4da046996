"""The earlier evaluation in a request, with which the new one is compared."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from embedders.contract import Vector
from service.core.evaluating.drift import Report, SystemReport
from service.core.evaluating.statistics import Estimate
from service.core.evaluating.summary import DIRECTIONS, VectorSummary
from service.core.evaluating.truth import VectorCounts
from service.errors import Violations, collecting
from service.rpc.evaluation.messages import FORMAT, MEASURES
from service.rpc.evaluation.request import parse_system
from vecgate.v1 import evaluation_service_pb2 as pb

KINDS = {value: kind for kind, value in MEASURES.items()}
ROUNDING = 1e-3
"""By which float32 may exceed what is possible."""


def parse_earlier(request: pb.EvaluateCollectionRequest) -> Report | None:
    """Return the earlier evaluation of a request; None without one.

    Raises:
        InvalidRequest: it is of another format, or is none; with all violations.
    """
    if not request.HasField("earlier"):
        return None
    message = request.earlier
    with collecting() as violations:
        if message.format != FORMAT:
            words = f"is {message.format}, and this version compares evaluations of format {FORMAT}; evaluate again"
            violations.add("earlier.format", words)
            return None
        for name in ("object_count", "query_count"):
            words = "must be at least 0; give the evaluation as it came"
            violations.require(getattr(message, name) >= 0, f"earlier.{name}", words)
        vectors = {
            each.name: _counts(each, f"earlier.vectors[{index}]", violations)
            for index, each in enumerate(message.vectors)
        }
        digests = _query_digests(message, violations)
        systems = {
            each.system.name: _system(each, f"earlier.systems[{index}]", len(digests), violations)
            for index, each in enumerate(message.systems)
        }
    return Report(
        _time(message),
        message.collection,
        message.tenant,
        message.query_set,
        message.query_digest,
        queries=message.query_count,
        limit=message.limit,
        objects=message.object_count,
        systems=systems,
        vectors=vectors,
        query_digests=digests,
    )


def _time(message: pb.EvaluationReport) -> datetime:
    try:
        return message.end_time.ToDatetime(UTC)
    except ValueError:
        # Only shown.
        return datetime.fromtimestamp(0, UTC)


def _counts(message: pb.VectorCounts, path: str, violations: Violations) -> VectorCounts:
    counted = (message.missing, message.zero, message.other_length, message.doubled, message.off_length, message.hubs)
    fits = all(0 <= each <= message.objects for each in counted)
    violations.require(fits, path, "counts more of its objects than there are; give the evaluation as it came")
    gap = message.query_gap if message.HasField("query_gap") else None
    fits = all(math.isfinite(each) and each >= 0 for each in (gap or 0.0, message.query_gap_error))
    violations.require(fits, f"{path}.query_gap", "is no distance; give the evaluation as it came")
    summary = _summary(message.summary, f"{path}.summary", violations) if message.HasField("summary") else None
    return VectorCounts(
        message.space,
        message.objects,
        *counted,
        gap=gap,
        gap_error=message.query_gap_error,
        summary=summary,
    )


def _summary(message: pb.VectorSummary, path: str, violations: Violations) -> VectorSummary | None:
    count = len(message.digests) // 8
    lengths = {
        "centre": (len(message.centre), len(message.centre) // 4 * 4),
        "digests": (len(message.digests), 8 * count),
        "lengths": (len(message.lengths), 4 * count),
        "projections": (len(message.projections), 4 * count * DIRECTIONS),
    }
    wrong = [name for name, (found, wanted) in lengths.items() if found != wanted]
    # How many bytes there are at most is checked before the request is read.
    if not wrong and count and message.centre:
        centre, of_sample, projections = (
            _values(each) for each in (message.centre, message.lengths, message.projections)
        )
        if _may_be(centre, of_sample, projections):
            digests = np.frombuffer(message.digests, "<u8").astype(np.uint64)
            return VectorSummary(centre, digests, of_sample, projections.reshape(count, DIRECTIONS))
    violations.add(path, "is damaged; give the evaluation as it came")
    return None


def _may_be(centre: Vector, lengths: Vector, projections: Vector) -> bool:
    """Return whether vectors of unit length can have this centre and these projections."""
    farthest = math.sqrt(len(centre) / DIRECTIONS)
    return bool(
        np.isfinite(lengths).all()
        and (lengths > 0).all()
        # False for what is not a number, too.
        and np.linalg.norm(centre.astype(np.float64)) <= 1 + ROUNDING
        and np.abs(projections).max() <= farthest * (1 + ROUNDING)
    )


def _values(content: bytes) -> NDArray[np.float32]:
    return np.frombuffer(content, "<f4").astype(np.float32)


def _query_digests(message: pb.EvaluationReport, violations: Violations) -> NDArray[np.uint64]:
    """Return the digests of the queries; none if they are damaged, or the report is of an earlier version."""
    content = message.query_digests
    if len(content) in (0, 8 * message.query_count):
        digests = np.frombuffer(content, "<u8").astype(np.uint64)
        if len(np.unique(digests)) == len(digests):
            return digests
        violations.add("earlier.query_digests", "has the same query twice; give the evaluation as it came")
    else:
        words = (
            f"has {len(content)} bytes, and {message.query_count} queries have 8 each; give the evaluation as it came"
        )
        violations.add("earlier.query_digests", words)
    return np.zeros(0, np.uint64)


def _values_of_queries(
    message: pb.MeasuredEstimate, path: str, queries: int, violations: Violations
) -> NDArray[np.float32]:
    """Return the values of a measure; none if they are damaged, or the report is of an earlier version."""
    content, values = message.values, np.zeros(0, np.float32)
    if len(content) not in (0, 4 * queries):
        words = f"has {len(content)} bytes, and {queries} digests of queries go with 4 each; give it as it came"
        violations.add(path, words)
    elif content:
        values = _values(content)
        # All comparisons with what is not a number are false.
        fit = bool(((values >= 0) & (values <= 1 + ROUNDING)).all())
        fit = fit and abs(float(values.mean(dtype=np.float64)) - message.estimate.mean) <= ROUNDING
        violations.require(fit, path, "has values outside 0 to 1, or with another mean; give it as it came")
    return values


def _system(message: pb.SystemResult, path: str, queries: int, violations: Violations) -> SystemReport:
    measures = {
        KINDS[each.measure]: Estimate(each.estimate.mean, each.estimate.low, each.estimate.high)
        for each in message.measures
        if each.measure in KINDS
    }
    # All comparisons with what is not a number are false.
    fits = all(0 <= value <= 1 + ROUNDING for each in measures.values() for value in (each.mean, each.low, each.high))
    fits = fits and all(each.low <= each.high for each in measures.values())
    fits = fits and 0 <= message.lost_objects <= message.searches
    violations.require(fits, path, "has measures outside 0 to 1, or counts that cannot be; give it as it came")
    seconds = message.median_time.seconds + message.median_time.nanos / 1e9
    system = replace(parse_system(message.system, f"{path}.system", violations), path="")
    values = {
        KINDS[each.measure]: _values_of_queries(each, f"{path}.measures[{index}].values", queries, violations)
        for index, each in enumerate(message.measures)
        if each.measure in KINDS and each.values
    }
    return SystemReport(system, measures, message.lost_objects, message.searches, seconds, values)
