"""`vecgate evaluate`: measures how well a collection is searched."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from service.cli.connection import EVALUATION_TIMEOUT_S, AddressOption, TenantOption, connected
from service.cli.drift import TITLES, drift_rows, how_compared, read_report, when
from service.cli.evaluation_page import (
    MEASURES,
    best_weights_in_words,
    evaluation_page,
    gain_in_words,
    objects_in_words,
)
from service.cli.output import (
    EXIT_FAILED,
    EXIT_WRONG_USE,
    Doing,
    JsonOption,
    fail,
    note,
    print_json,
    print_table,
    progress_console,
    say,
)
from service.cli.query_file import read_queries
from vecgate.client import Client
from vecgate.v1 import evaluation_service_pb2 as pb
from vecgate.v1 import scope_pb2
from vecgate.v1 import search_service_pb2 as search_pb

WANTED_RECALL = 0.95

MAX_CHANGED_SHARE = 0.1
"""If the number of objects has changed more since a comparison, it was one of another collection."""

MARGIN = 0.02
"""A vector is no worse than another one if the interval of their difference does not reach so far below 0."""

PROVES_NOTHING = frozenset({pb.FINDING_KIND_NOTHING_FOUND, pb.FINDING_KIND_FEW_QUERIES})
"""Findings with which no named vector is taken for the better one."""

STAGES = {
    pb.EVALUATION_STAGE_SAMPLING: "choosing objects",
    pb.EVALUATION_STAGE_EMBEDDING: "embedding queries",
    pb.EVALUATION_STAGE_READING: "reading all vectors",
    pb.EVALUATION_STAGE_SEARCHING: "searching",
}
KEYS = {
    "name": "name",
    "vector": "target_vector",
    "alpha": "alpha",
    "ef": "ef",
    "reranker": "reranker",
    "rerank-text": "rerank_property",
    "rerank-image": "rerank_image_property",
}

JOINS = {
    "manual-weights": search_pb.TARGET_JOIN_MANUAL_WEIGHTS,
    "relative-score": search_pb.TARGET_JOIN_RELATIVE_SCORE,
}
WORDS_OF_KEYS = ", ".join([*KEYS, "weights (NAME:WEIGHT+NAME:WEIGHT)", f"join ({' or '.join(JOINS)})"])


class MeasureName(Enum):
    """A measure of hits against known answers."""

    NDCG = "ndcg"
    MRR = "mrr"
    RECALL = "recall"


MEASURES_BY_NAME = {
    MeasureName.NDCG: pb.EVALUATION_MEASURE_NDCG,
    MeasureName.MRR: pb.EVALUATION_MEASURE_RECIPROCAL_RANK,
    MeasureName.RECALL: pb.EVALUATION_MEASURE_RECALL,
}

SampleOption = Annotated[
    int, typer.Option("--sample", min=1, max=1000, help="How many stored objects to search by, or their captions.")
]
CaptionOption = Annotated[
    str,
    typer.Option(
        "--caption-field",
        metavar="PROPERTY",
        help="Search by the texts in this property; the answer to each is its own object.",
        show_default=False,
    ),
]
QueriesOption = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="Search by the queries of a CSV or JSONL: text, image (a path), id, answers (separated by |).",
        show_default=False,
    ),
]
QrelsOption = Annotated[
    Path | None,
    typer.Option(
        "--qrels",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="The answers to --queries in TREC's form: QUERY 0 ANSWER GAIN.",
        show_default=False,
    ),
]
AnswerOption = Annotated[
    str,
    typer.Option(
        "--answer-property",
        metavar="PROPERTY",
        help="Property whose values name the answers; ids of objects if left out.",
        show_default=False,
    ),
]


SystemOption = Annotated[
    list[str] | None,
    typer.Option(
        "--system",
        metavar="KEY=VALUE,...",
        help="A way to search, such as vector=new or alpha=0.5. Repeatable; all are compared with the first one. "
        f"Keys: {WORDS_OF_KEYS}; `present` is a search that sets none.",
        show_default=False,
    ),
]
FieldWeightsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--field-weights",
        metavar="FIELD=WEIGHT,...",
        help="Other weights of the fields that an object's vector is made of, such as photo=0.9,title=0.1, tried among "
        "a sample whose fields are embedded again. Repeatable; all are compared with the present ones. `present` alone "
        "goes with --suggest.",
        show_default=False,
    ),
]
FieldSampleOption = Annotated[
    int | None,
    typer.Option(
        "--field-sample",
        min=1,
        max=5000,
        help="How many objects --field-weights embeds again; 1000 if not given.",
        show_default=False,
    ),
]
NoIndexRecallOption = Annotated[
    bool, typer.Option("--no-index-recall", help="Do not read all vectors to compare the index with exact search.")
]
MaxObjectsOption = Annotated[
    int, typer.Option("--max-objects", min=1, help="Read all vectors of no larger collection.")
]
AllowChangeEfOption = Annotated[
    bool,
    typer.Option(
        "--allow-change-ef",
        help="Change the ef of the index while it is measured, for everybody's searches; it is set back.",
    ),
]
SuggestOption = Annotated[
    bool,
    typer.Option(
        "--suggest",
        help="Suggest an ef (with --allow-change-ef), an alpha (with answers), or weights of vectors or of fields.",
    ),
]
WantedRecallOption = Annotated[
    float, typer.Option("--wanted-recall", min=0.01, max=1, help="The index recall that --suggest is to reach.")
]
AgainstOption = Annotated[
    Path | None,
    typer.Option(
        "--against",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="Compare with an earlier evaluation of this collection, as --json printed it.",
        show_default=False,
    ),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", dir_okay=False, metavar="FILE", help="Write a page with plots and pictures."),
]


def evaluate(
    context: typer.Context,
    *,
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection's name.")],
    sample: SampleOption = 200,
    caption_field: CaptionOption = "",
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    answer_property: AnswerOption = "",
    systems: SystemOption = None,
    field_weights: FieldWeightsOption = None,
    field_sample: FieldSampleOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Hits that count.")] = 10,
    no_index_recall: NoIndexRecallOption = False,
    max_objects: MaxObjectsOption = 1_000_000,
    allow_change_ef: AllowChangeEfOption = False,
    suggest: SuggestOption = False,
    wanted_recall: WantedRecallOption = WANTED_RECALL,
    against: AgainstOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Measure how well a collection is searched: its index against exact search, and hits against known answers.

    Without --caption-field or --queries, it searches by the vectors of stored objects, and measures the index alone.
    """
    request = query_request(
        collection,
        tenant,
        sample=sample,
        caption_field=caption_field,
        queries=queries,
        qrels=qrels,
        answer_property=answer_property,
    )
    request.systems.extend(_system(each) for each in systems or ())
    if field_weights:
        if allow_change_ef or wanted_recall != WANTED_RECALL:
            fail("--allow-change-ef and --wanted-recall do not go with --field-weights", EXIT_WRONG_USE)
        request.field_sample_size, request.suggest_field_weights = field_sample or 0, suggest
        _add_field_weights(request, field_weights)
    elif field_sample is not None:
        fail("--field-sample goes with --field-weights; give that, too", EXIT_WRONG_USE)
    request.limit, request.skip_index_recall, request.max_objects = limit, no_index_recall, max_objects
    request.allow_ef_change = allow_change_ef
    if against is not None:
        request.earlier.CopyFrom(read_report(against))
    if suggest and not field_weights:
        _set_suggestions(request, wanted_recall)
    with connected(context, address, EVALUATION_TIMEOUT_S) as client:
        found = run_evaluation(client, request)
        if html is not None:
            html.write_text(evaluation_page(client, collection, found, tenant), encoding="utf-8")
    _print_evaluation(found, as_json=as_json)
    if html is not None:
        note(f"the page is in {html}")


def _print_evaluation(found: pb.Evaluation, *, as_json: bool) -> None:
    if as_json:
        print_json(json_format.MessageToDict(found, preserving_proto_field_name=True))
    else:
        show_evaluation(found)


def query_request(
    collection: str,
    tenant: str,
    *,
    sample: int,
    caption_field: str,
    queries: Path | None,
    qrels: Path | None,
    answer_property: str,
) -> pb.EvaluateCollectionRequest:
    """Return a request that has its queries; end the command if the options contradict each other."""
    request = pb.EvaluateCollectionRequest(collection=collection, scope=scope_pb2.Scope(tenant=tenant))
    if queries is None and (qrels is not None or answer_property):
        fail("--qrels and --answer-property go with --queries; give that, too", EXIT_WRONG_USE)
    if queries is not None and caption_field:
        fail("--queries replaces --caption-field; give one of them", EXIT_WRONG_USE)
    if queries is not None:
        request.queries.queries.extend(read_queries(queries, qrels))
        request.queries.answer_property = answer_property
    elif caption_field:
        request.captions.property, request.captions.sample_size = caption_field, sample
    else:
        request.objects.sample_size = sample
    return request


def answered(request: pb.EvaluateCollectionRequest) -> bool:
    """Return whether the answers to the queries of a request are known."""
    return request.HasField("captions") or any(each.answers for each in request.queries.queries)


def _set_suggestions(request: pb.EvaluateCollectionRequest, wanted_recall: float) -> None:
    if request.systems and request.systems[0].target_weights:
        request.suggest_weights = True
        return
    request.suggest_alpha = answered(request)
    if request.allow_ef_change:
        request.wanted_recall = wanted_recall
    elif not request.suggest_alpha:
        fail(
            "--suggest needs --allow-change-ef for an ef, which changes the index for a while, or queries with answers "
            "for an alpha",
            EXIT_WRONG_USE,
        )


def _system(text: str) -> pb.EvaluatedSystem:
    """Return the system of KEY=VALUE,..., or end the command."""
    system = pb.EvaluatedSystem()
    for part in text.split(",") if text != "present" else ():
        key, _, value = part.partition("=")
        if key == "weights" and value:
            _set_weights(system, text, value)
            continue
        if key == "join" and value in JOINS:
            system.target_join = JOINS[value]
            continue
        if key not in KEYS or not value:
            fail(f"--system {text}: write it as KEY=VALUE,... with the keys {WORDS_OF_KEYS}", EXIT_WRONG_USE)
        try:
            kind = {"alpha": float, "ef": int}.get(key, str)
            setattr(system, KEYS[key], kind(value))
        except ValueError:
            fail(f"--system {text}: {value!r} is not a number", EXIT_WRONG_USE)
    return system


def _add_field_weights(request: pb.EvaluateCollectionRequest, given: Sequence[str]) -> None:
    """Add a system with the present weights of fields, unless one is there, and one for each of others."""
    if not request.suggest_field_weights and given == ["present"]:
        fail("--field-weights present goes with --suggest; or give other weights, too", EXIT_WRONG_USE)
    if not request.systems:
        request.systems.add(name="present")
    for text in given:
        if text == "present":
            continue
        system = request.systems.add(target_vector=request.systems[0].target_vector)
        for part in text.split(","):
            name, _, weight = part.rpartition("=")
            if name in system.field_weights:
                fail(f"--field-weights {text}: has {name} twice; give it once", EXIT_WRONG_USE)
            try:
                system.field_weights[name] = float(weight)
            except ValueError:
                words = "write it as FIELD=WEIGHT,..., such as photo=0.9,title=0.1, or present"
                fail(f"--field-weights {text}: {words}", EXIT_WRONG_USE)


def _set_weights(system: pb.EvaluatedSystem, text: str, value: str) -> None:
    """Set the weights of NAME:WEIGHT+NAME:WEIGHT, or end the command."""
    for part in value.split("+"):
        name, _, weight = part.partition(":")
        try:
            system.target_weights[name] = float(weight)
        except ValueError:
            fail(
                f"--system {text}: write weights as NAME:WEIGHT+NAME:WEIGHT, such as text:0.3+image:0.7", EXIT_WRONG_USE
            )


def run_evaluation(client: Client, request: pb.EvaluateCollectionRequest) -> pb.Evaluation:
    """Return an evaluation, and show how far it is on a terminal."""
    console = progress_console()
    result = pb.Evaluation()
    columns = (Doing(), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("beginning", total=None)
        for event in client.evaluate_collection(request):
            if event.HasField("evaluation"):
                result = event.evaluation
            else:
                told = event.progress
                bar.update(task, description=STAGES.get(told.stage, ""), completed=told.done, total=told.total)
    return result


def check_better(client: Client, request: pb.EvaluateCollectionRequest, vector: str, measure: MeasureName) -> str:
    """Compare a named vector with the default one; end the command unless it is surely no worse by MARGIN.

    Returns:
        The etag of the collection that was compared.

    Raises:
        VecgateError: a call failed.
    """
    compared = client.get_collection(request.collection, request.scope.tenant)
    present = compared.default_vector
    if not present or present == vector:
        fail(f"the default vector is {present or 'not set'}; there is nothing to compare {vector} with", EXIT_WRONG_USE)
    request.systems.add(name=present, target_vector=present)
    request.systems.add(name=vector, target_vector=vector)
    request.skip_index_recall = True
    found = run_evaluation(client, request)
    show_evaluation(found)
    say()
    if useless := [each.message for each in found.findings if each.kind in PROVES_NOTHING]:
        fail(f"this proves nothing about {vector}; nothing is changed: {'; '.join(useless)}", EXIT_FAILED)
    kind = MEASURES_BY_NAME[measure]
    change = next(each for each in found.comparisons if each.measure == kind)
    by = change.difference
    words = (
        f"the {MEASURES[kind]} of {vector} differs by {by.mean:+.3f} ({by.low:+.3f} to {by.high:+.3f}) from that of "
        f"{present}"
    )
    # That a loss may be chance does not make it chance: few queries leave room for any loss.
    if by.low <= -MARGIN:
        surer = "it is worse" if by.high < 0 else f"it may be worse by {MARGIN:g}; more queries make this surer"
        fail(f"{words}, so {surer}; nothing is changed", EXIT_FAILED)
    say(f"{words}, so it is no worse by {MARGIN:g}.")
    count = client.get_collection(request.collection, request.scope.tenant).object_count
    if abs(count - found.object_count) > MAX_CHANGED_SHARE * found.object_count:
        fail(
            f"{request.collection} had {found.object_count} objects when it was compared, and has {count} now: compare "
            "again; nothing is changed",
            EXIT_FAILED,
        )
    return compared.etag


def show_evaluation(found: pb.Evaluation) -> None:
    """Print an evaluation as tables."""
    timed = not found.HasField("sample_object_count")
    say(
        f"{found.query_count} queries, {objects_in_words(found)}, the first {found.limit} hits; "
        f"{found.searches} searches and {found.embedded_inputs} embedded inputs in {_seconds(found):.1f} s"
    )
    say()
    kinds = [each for each in MEASURES if any(m.measure == each for s in found.systems for m in s.measures)]
    rows = [
        (
            each.system.name,
            each.system.target_vector or ", ".join(sorted(each.system.target_weights)),
            *(_cell(found, each, kind) for kind in kinds),
            *(_times(each) if timed else ()),
        )
        for each in found.systems
    ]
    titles = ["system", "vector", *(MEASURES[kind] for kind in kinds), *(("median", "95 %") if timed else ())]
    print_table(titles, rows, whole=("system",))
    if len(found.systems) > 1:
        say()
        first = found.systems[0].system.name
        say(f"* worse or better than {first} by more than chance. Intervals hold the mean in 95 of 100 cases.")
    for line in suggestions(found):
        say()
        say(line)
    if found.HasField("drift"):
        say()
        say(f"Compared with the evaluation of {when(found.drift.since)}: {how_compared(found.drift)}".rstrip(": "))
        print_table(TITLES, drift_rows(found.drift), whole=TITLES)
    for each in found.findings:
        say()
        say(f"{each.system}: {each.message}" if each.system else each.message, style="yellow")


def suggestions(found: pb.Evaluation) -> list[str]:
    """Return what is suggested, in words."""
    lines = []
    if found.HasField("ef"):
        ef, recall = found.ef, found.ef.recall
        reached = f"other queries reach {recall.mean:.3f} with it ({recall.low:.3f} to {recall.high:.3f})"
        lines.append(
            f"The smallest ef for an index recall of {ef.wanted_recall:g} is {ef.ef}; {reached}."
            if ef.reached
            else f"No ef of up to {ef.ef} reaches an index recall of {ef.wanted_recall:g}; {reached}."
        )
    if found.HasField("weights"):
        ndcg = found.weights.ndcg
        lines.append(
            f"{best_weights_in_words(found)}; queries that did not choose them have an nDCG of {ndcg.mean:.3f} "
            f"({ndcg.low:.3f} to {ndcg.high:.3f}), {gain_in_words(found)}."
        )
    if found.HasField("alpha"):
        best, ndcg = found.alpha, found.alpha.ndcg
        lines.append(
            f"The best alpha is {best.alpha:g}; queries that did not choose it have an nDCG of {ndcg.mean:.3f} "
            f"({ndcg.low:.3f} to {ndcg.high:.3f})."
        )
    return lines


def _seconds(found: pb.Evaluation) -> float:
    return found.time.ToTimedelta().total_seconds()


def _cell(found: pb.Evaluation, system: pb.SystemResult, kind: pb.EvaluationMeasure.ValueType) -> str:
    value = next((each.estimate for each in system.measures if each.measure == kind), None)
    if value is None:
        return ""
    real = any(each.real for each in found.comparisons if each.system == system.system.name and each.measure == kind)
    return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f}){' *' if real else ''}"


def _times(system: pb.SystemResult) -> Sequence[str]:
    spans = (system.median_time, system.p95_time)
    return [f"{1000 * each.ToTimedelta().total_seconds():.1f} ms" for each in spans]
