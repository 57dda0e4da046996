"""How an evaluation differs from an earlier one, in words, and that one's file."""

import json
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import json_format, timestamp_pb2

from service.cli.output import EXIT_WRONG_USE, describe_os_error, fail
from vecgate.v1 import evaluation_service_pb2 as pb

NAMES = {
    pb.CHANGE_KIND_OBJECT_COUNT: "objects",
    pb.CHANGE_KIND_MISSING: "without the vector",
    pb.CHANGE_KIND_ZERO: "vectors without direction",
    pb.CHANGE_KIND_OTHER_LENGTH: "other number of values",
    pb.CHANGE_KIND_DOUBLED: "doubled",
    pb.CHANGE_KIND_OFF_LENGTH: "not of unit length",
    pb.CHANGE_KIND_HUBS: "hubs",
    pb.CHANGE_KIND_QUERY_GAP: "gap between queries and objects",
    pb.CHANGE_KIND_LENGTHS: "mean length",
    pb.CHANGE_KIND_CENTRE: "cosine of the centres",
    pb.CHANGE_KIND_DISTRIBUTION: "difference of the distributions",
    pb.CHANGE_KIND_GROUPS: "share of a group",
    pb.CHANGE_KIND_SAME_OBJECTS: "same objects with another vector",
    pb.CHANGE_KIND_NOT_FOUND: "not found by their own vectors",
    pb.CHANGE_KIND_INDEX_RECALL: "index recall",
    pb.CHANGE_KIND_NDCG: "nDCG",
    pb.CHANGE_KIND_RECIPROCAL_RANK: "MRR",
    pb.CHANGE_KIND_RECALL: "recall",
    pb.CHANGE_KIND_MEDIAN_TIME: "median time of a search",
}
SHARES = {
    pb.CHANGE_KIND_MISSING,
    pb.CHANGE_KIND_ZERO,
    pb.CHANGE_KIND_OTHER_LENGTH,
    pb.CHANGE_KIND_DOUBLED,
    pb.CHANGE_KIND_OFF_LENGTH,
    pb.CHANGE_KIND_HUBS,
    pb.CHANGE_KIND_GROUPS,
    pb.CHANGE_KIND_SAME_OBJECTS,
    pb.CHANGE_KIND_NOT_FOUND,
}
MEASURED = {
    pb.CHANGE_KIND_INDEX_RECALL,
    pb.CHANGE_KIND_NDCG,
    pb.CHANGE_KIND_RECIPROCAL_RANK,
    pb.CHANGE_KIND_RECALL,
}
TITLES = ("of", "what", "before", "now", "is it chance?")
"""Of the table of differences."""


def read_report(file: Path) -> pb.EvaluationReport:
    """Return the report of the evaluation in a file, or end the command."""
    try:
        return parse_report(file.read_bytes())
    except OSError as error:
        fail(describe_os_error(error), EXIT_WRONG_USE)
    except ValueError:
        words = "has no report to compare with; give what `vecgate evaluate --json` of this version printed"
        fail(f"{file}: {words}", EXIT_WRONG_USE)


def parse_report(content: bytes) -> pb.EvaluationReport:
    """Return the report of an evaluation in JSON.

    Raises:
        ValueError: it has none.
    """
    try:
        # A newer one may have more fields; whether it can be compared is for the server to say.
        return json_format.ParseDict(json.loads(content)["report"], pb.EvaluationReport(), ignore_unknown_fields=True)
    except (LookupError, TypeError, RecursionError, json_format.ParseError) as error:
        raise ValueError from error


def when(time: timestamp_pb2.Timestamp) -> str:
    """Return a time in words."""
    return f"{time.ToDatetime():%Y-%m-%d %H:%M} UTC"


def drift_rows(drift: pb.Drift) -> Iterator[tuple[str, ...]]:
    """Yield the differences, for a table with TITLES."""
    for each in drift.changes:
        before = _value(each.kind, each.before) if each.HasField("before") else ""
        name = NAMES.get(each.kind, "") + (", same queries" if each.same_queries else "")
        yield (each.subject, name, before, _value(each.kind, each.now), _verdict(each))


def how_compared(drift: pb.Drift) -> str:
    """Return how measures were compared, in words; nothing if there are none, or too few queries."""
    if same := max((each.same_queries for each in drift.changes), default=0):
        return f"{same} queries are the same in both, and were compared one by one."
    if any(each.kind in MEASURED and each.HasField("chance") for each in drift.changes):
        return (
            "Measures were compared as two samples, which shows large changes only: fewer than 30 queries are the same "
            "in both, or the earlier evaluation kept no values of them."
        )
    return ""


def _value(kind: pb.ChangeKind.ValueType, value: float) -> str:
    if kind == pb.CHANGE_KIND_OBJECT_COUNT:
        return f"{value:.0f}"
    if kind == pb.CHANGE_KIND_MEDIAN_TIME:
        return f"{1000 * value:.1f} ms"
    return f"{value:.2%}" if kind in SHARES else f"{value:.3f}"


def _verdict(change: pb.Change) -> str:
    measured = change.kind in MEASURED
    if change.real:
        # Of the same loss only one row has the message.
        worse = change.message or (measured and change.now < change.before)
        return "worse" if worse else "better"
    if change.HasField("chance"):
        return "may be chance, or slight" if measured else "may be chance"
    return ""
