"""`vecgate check`: whether the vectors of collections are sound, for a job that runs now and then."""

import json
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import Annotated
from urllib.parse import quote

import typer
from google.protobuf import json_format

from service.cli.connection import EVALUATION_TIMEOUT_S, AddressOption, connected
from service.cli.drift import parse_report
from service.cli.evaluating import MaxObjectsOption, SampleOption, run_evaluation
from service.cli.output import EXIT_FAILED, EXIT_FAULTS, describe_error, note, say
from vecgate.client import Client, Unreachable, VecgateError
from vecgate.v1 import evaluation_service_pb2 as pb
from vecgate.v1 import scope_pb2

RETRY_S = 10.0
"""Between tries while the server makes another evaluation; it makes one at a time."""

MAX_WAIT_S = 3600.0
"""For the evaluation of another caller, before that of a named vector counts as failed."""

NO_OBJECT = "objects.sample_size"
"""The field that the server names where no object has the vector."""

CollectionsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="COLLECTION...",
        help="Collections, each as NAME, or as NAME/TENANT if it has tenants.",
        show_default=False,
    ),
]
ReportsOption = Annotated[
    Path | None,
    typer.Option(
        "--reports",
        exists=True,
        file_okay=False,
        writable=True,
        metavar="FOLDER",
        help="Compare with the last evaluation of each named vector in this folder, and leave today's there.",
        show_default=False,
    ),
]


def check(
    context: typer.Context,
    *,
    collections: CollectionsArgument,
    reports: ReportsOption = None,
    sample: SampleOption = 200,
    max_objects: MaxObjectsOption = 1_000_000,
    address: AddressOption = None,
) -> None:
    """Check the vectors of collections: evaluate each by its own objects, and say what is broken or has changed.

    Of several named vectors each is evaluated. Exit codes: 0 if all are sound, 4 if faults were found, 1 if none were
    and a collection could not be evaluated, 3 if no server answers. While the server makes another evaluation, this
    waits, up to an hour for each named vector.
    """
    failed = faults = 0
    with connected(context, address, EVALUATION_TIMEOUT_S) as client:
        for name in collections:
            collection, _, tenant = name.partition("/")
            request = pb.EvaluateCollectionRequest(
                collection=collection,
                scope=scope_pb2.Scope(tenant=tenant),
                objects=pb.ObjectQueries(sample_size=sample),
                max_objects=max_objects,
            )
            try:
                found, missed = _check_vectors(client, name, request, reports)
            except Unreachable:
                raise
            except VecgateError as error:
                note(f"{name}: {describe_error(error, target=client.target)[0]}")
                failed += 1
            else:
                faults += found
                failed += missed
    if failed or faults:
        # What has changed is a fault once, so another try of a job would no longer find it.
        raise typer.Exit(EXIT_FAULTS if faults else EXIT_FAILED)


def _check_vectors(
    client: Client, name: str, request: pb.EvaluateCollectionRequest, reports: Path | None
) -> tuple[int, int]:
    """Say how each named vector of a collection is, and return the number of faults, and of vectors not evaluated.

    Raises:
        VecgateError: the collection cannot be read.
    """
    names = [each.name for each in client.get_collection(request.collection, request.scope.tenant).vectors]
    vectors = names or [""]
    faults = failed = empty = 0
    for vector in vectors:
        # A collection with only one is called by its own name.
        shown = f"{name} ({vector})" if len(vectors) > 1 else name
        asked = pb.EvaluateCollectionRequest()
        asked.CopyFrom(request)
        if vector:
            asked.systems.add(target_vector=vector)
        try:
            found = _check_one(client, shown, asked, reports and _report_file(reports, name, vector))
        except Unreachable:
            raise
        except VecgateError as error:
            note(f"{shown}: {describe_error(error, target=client.target)[0]}")
            failed += 1
        except OSError as error:
            note(f"{shown}: its report cannot be read or written: {error}")
            failed += 1
        else:
            faults += found or 0
            empty += found is None
    # Of several named vectors, one may be there for objects to come.
    return faults, failed + (empty if empty == len(vectors) else 0)


def _report_file(folder: Path, name: str, vector: str) -> Path:
    shown = f"{name} ({vector})" if vector else name
    return folder / f"{quote(shown, safe='')}.json"


def _keep(file: Path, found: pb.Evaluation) -> None:
    """Write an evaluation as `vecgate evaluate --json` prints it, all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    content = json_format.MessageToDict(found, preserving_proto_field_name=True)
    written = file.with_name(f".{file.name}.new")
    written.write_text(json.dumps(content), encoding="utf-8")
    written.replace(file)


def _check_one(client: Client, name: str, request: pb.EvaluateCollectionRequest, report: Path | None) -> int | None:
    """Say how a named vector is, and return the number of its faults; None if no object is known to have had it.

    Raises:
        VecgateError: it could not be evaluated.
        OSError: its file could not be read or written.
    """
    faults = []
    earlier = None
    if report is not None and report.exists():
        try:
            earlier = parse_report(report.read_bytes())
        except ValueError:
            faults.append(f"{report} has no report to compare with; today's takes its place")
    try:
        found, refusal = _compare(client, name, request, earlier)
    except VecgateError as error:
        if [each.field for each in error.violations] != [NO_OBJECT]:
            raise
        if earlier is not None:
            fix = f"fill it by a backfill, or delete {report} if this was meant"
            faults.append(f"no object has it any more, and the collection had {earlier.object_count} objects; {fix}")
        if not faults:
            say(f"{name}: no object has this vector yet")
            return None
        _tell(f"{name}: ", faults)
        return len(faults)
    faults += [refusal] if refusal else []
    faults += [each.message for each in found.findings if each.fault]
    _tell(f"{name}: {found.object_count} objects, ", faults)
    if report is not None:
        _keep(report, found)
    return len(faults)


def _tell(subject: str, faults: Sequence[str]) -> None:
    say(f"{subject}{f'{len(faults)} faults' if faults else 'sound'}")
    for each in faults:
        say(f"  {each}", style="yellow")


def _compare(
    client: Client, name: str, request: pb.EvaluateCollectionRequest, earlier: pb.EvaluationReport | None
) -> tuple[pb.Evaluation, str]:
    """Return an evaluation, and the reason if it cannot be compared with the earlier one; else an empty text.

    Raises:
        VecgateError: it could not be evaluated.
    """
    if earlier is None:
        return _evaluate(client, name, request), ""
    compared = pb.EvaluateCollectionRequest(earlier=earlier)
    compared.MergeFrom(request)
    try:
        return _evaluate(client, name, compared), ""
    except VecgateError as error:
        if not error.violations or not all(each.field.startswith("earlier") for each in error.violations):
            raise
        refusal = f"cannot be compared with the last evaluation, and today's takes its place: {error.message}"
    return _evaluate(client, name, request), refusal


def _evaluate(client: Client, name: str, request: pb.EvaluateCollectionRequest) -> pb.Evaluation:
    waited_s = 0.0
    while True:
        try:
            return run_evaluation(client, request)
        except VecgateError as error:
            if error.reason != "OVERLOADED" or waited_s >= MAX_WAIT_S:
                raise
            if not waited_s:
                note(f"{name}: the server is busy with another evaluation; waiting for up to {MAX_WAIT_S / 60:.0f} min")
            pause_s = error.retry_after_s or RETRY_S
            sleep(pause_s)
            waited_s += pause_s
