"""Files of queries for `vecgate evaluate`: CSV or JSONL, with answers in them or in a qrels file in TREC's form."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from service.cli.output import EXIT_WRONG_USE, describe_os_error, fail
from service.domain.keys import separator_fault
from vecgate.client import TextImage
from vecgate.client.values import input_to_pb
from vecgate.v1 import evaluation_service_pb2 as pb

COLUMNS = frozenset({"id", "text", "image", "answers"})
QRELS_FIELDS = 4
"""Query, a field that nobody uses, answer, and how good it is."""

Answers = Mapping[str, Mapping[str, int]]
"""How good each answer is, by query and name."""


def read_queries(path: Path, qrels: Path | None) -> list[pb.WrittenQuery]:
    """Return the queries of a file; end the command if it cannot be used.

    Args:
        path: CSV with a header, or JSONL. Each query has a `text`, an `image` (a path from the file's folder) or both;
            it may have an `id`, otherwise its line, and `answers`: names separated by "|", in JSONL also a list.
        qrels: the answers in TREC's form; None if they are in the queries.
    """
    try:
        known = None if qrels is None else _read_qrels(qrels)
        queries = [_query(path, line, record, known) for line, record in _records(path)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        fail(describe_os_error(error) if isinstance(error, OSError) else f"{path}: {error}", EXIT_WRONG_USE)
    if known is not None:
        queries = [each for each in queries if each.answers]
    if not queries:
        fail(f"{path}: holds no queries" + ("" if qrels is None else f" that have answers in {qrels}"), EXIT_WRONG_USE)
    return queries


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() != ".jsonl":
            reader = csv.DictReader(file, strict=True)
            if fault := separator_fault(reader.fieldnames or ()):
                fail(f"{path}: it has {fault}", EXIT_WRONG_USE)
            for record in reader:
                yield reader.line_num, record
            return
        for line, text in enumerate(file, start=1):
            if text.strip():
                try:
                    record = json.loads(text)
                except ValueError as error:
                    fail(f"{path}: line {line} is not JSON: {error}", EXIT_WRONG_USE)
                if not isinstance(record, dict):
                    fail(f"{path}: line {line} is not a JSON object", EXIT_WRONG_USE)
                yield line, record


def _query(path: Path, line: int, record: Mapping[str, Any], known: Answers | None) -> pb.WrittenQuery:
    if other := record.keys() - COLUMNS:
        names = ", ".join(sorted(map(str, other)))
        fail(f"{path}: line {line} has {names}; the columns are {', '.join(sorted(COLUMNS))}", EXIT_WRONG_USE)
    text, image = record.get("text") or "", record.get("image") or ""
    if not (text or image):
        fail(f"{path}: line {line} has neither a text nor an image", EXIT_WRONG_USE)
    id_ = str(record.get("id") or line)
    picture = path.parent / str(image)
    content = TextImage(str(text), picture) if text and image else picture if image else str(text)
    answers: Mapping[str, int] = _answers(record.get("answers")) if known is None else known.get(id_, {})
    return pb.WrittenQuery(
        id=id_,
        input=input_to_pb(content),
        answers=[pb.Answer(name=name, gain=gain) for name, gain in answers.items()],
    )


def _answers(value: Any) -> dict[str, int]:
    names = value if isinstance(value, list) else str(value or "").split("|")
    return {str(each).strip(): 1 for each in names if str(each).strip()}


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = text.split()
        if not fields:
            continue
        if len(fields) != QRELS_FIELDS or not fields[3].lstrip("-").isdigit():
            fail(f"{path}: line {line} must be QUERY 0 ANSWER GAIN, such as: 12 0 cat.jpg 1", EXIT_WRONG_USE)
        if (gain := int(fields[3])) > 0:
            found.setdefault(fields[0], {})[fields[2]] = gain
    return found
