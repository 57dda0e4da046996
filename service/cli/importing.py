"""`vecgate import`: a folder of pictures into a collection."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.text import Text

from service.cli.collections import parse_weighted_field
from service.cli.connection import AddressOption, TenantOption, connected
from service.cli.journal import InvalidJournal, Journal
from service.cli.likeness import SAMPLE, ThresholdOption, image_vector, measure_threshold
from service.cli.output import (
    EXIT_FAILED,
    EXIT_WRONG_USE,
    Doing,
    describe_error,
    describe_os_error,
    fail,
    note,
    progress_console,
    say,
    to_terminal,
)
from service.cli.pictures import (
    HEIC_SUFFIXES,
    IMAGE_PROPERTY,
    PATH_PROPERTY,
    SUFFIXES,
    ImportSummary,
    PictureFolder,
    picture_id,
    read_picture,
    scan_folder,
    schema_of,
    send_pictures,
    shown_path,
)
from service.cli.sidecar import InvalidSidecar, find_sidecar, read_sidecar
from vecgate.client import Client, VecgateError
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb

# Names under one reason that a terminal shows; everything is listed when the output is piped.
SHOWN_NAMES = 20
# Names of one kind of file that is ignored.
SHOWN_EXAMPLES = 3


class Duplicates(Enum):
    """What to do with pictures that duplicate others."""

    SKIP = "skip"
    REPORT = "report"


PropertiesOption = Annotated[
    Path | None,
    typer.Option(
        "--properties",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="CSV or JSONL with a column `file`; if not given, the one in FOLDER.",
        show_default=False,
    ),
]
TextFieldsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text-field",
        metavar="NAME[=WEIGHT]",
        help="Column that becomes part of the vector beside the image when the collection is created. Repeatable.",
        show_default=False,
    ),
]
DuplicatesOption = Annotated[
    Duplicates | None,
    typer.Option(
        "--duplicates",
        help="What to do with pictures that equal, or nearly equal, another one: skip leaves them out, report stores "
        "and lists them. Each costs a search.",
        show_default=False,
    ),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        dir_okay=False,
        metavar="FILE",
        help="Keep a record of stored pictures in FILE, and skip those that it lists.",
        show_default=False,
    ),
]


def import_(
    context: typer.Context,
    *,
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, metavar="FOLDER", help="Pictures, also in its subfolders.")
    ],
    collection: Annotated[str, typer.Option("--collection", metavar="NAME", help="Created if it does not exist.")],
    properties: PropertiesOption = None,
    no_properties: Annotated[bool, typer.Option("--no-properties", help="Ignore CSV and JSONL files.")] = False,
    text_fields: TextFieldsOption = None,
    embedder: Annotated[
        str,
        typer.Option("--embedder", help="The embedder, used when the collection is created.", show_default=False),
    ] = "",
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that the model cannot read whole.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Import the first so many pictures.", show_default=False)
    ] = None,
    resume: ResumeOption = None,
    duplicates: DuplicatesOption = None,
    threshold: ThresholdOption = None,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Import the pictures of a folder, with a CSV or JSONL of properties beside them when there is one.

    Ids come from the collection's name and the path in the folder, so importing again changes nothing.
    """
    if threshold is not None and duplicates is None:
        fail("--threshold is for --duplicates; give both", EXIT_WRONG_USE)
    fields = [parse_weighted_field(each, "--text-field") for each in text_fields or ()]
    pictures = read_folder(folder, properties, no_properties=no_properties, limit=limit)
    with ExitStack() as opened, connected(context, address) as client:
        journal = None if resume is None else opened.enter_context(_open_journal(resume, collection, tenant))
        wanted = schema_of(collection, pictures, text_fields=fields, embedder=embedder)
        with_path = ensure_collection(client, wanted)
        if journal is not None and not client.get_collection(collection, tenant).object_count:
            journal.forget()
        check = None if duplicates is None else _duplicate_check(client, collection, pictures, duplicates, threshold)
        summary = import_with_progress(
            client,
            collection,
            pictures,
            truncate=truncate,
            with_path=with_path,
            tenant=tenant,
            journal=journal,
            duplicates=check,
        )
        target = client.target
    show_summary(collection, pictures, summary)
    if summary.stopped is not None:
        fail(*describe_error(summary.stopped, target=target))
    if summary.failed or pictures.rows_without_picture:
        raise typer.Exit(EXIT_FAILED)


def _duplicate_check(
    client: Client, collection: str, pictures: PictureFolder, action: Duplicates, threshold: float | None
) -> object_pb.DuplicateCheck:
    """Return what the server does with duplicates; without a threshold it is measured.

    Raises:
        VecgateError: a call failed.
    """
    vector = image_vector(client.get_collection(collection))
    if threshold is None:
        threshold = measure_threshold(client, vector, _sample(pictures))
    wanted = object_pb.DuplicateAction.Value(f"DUPLICATE_ACTION_{action.name}")
    return object_pb.DuplicateCheck(action=wanted, min_cosine=threshold, target_vector=vector.name)


def _sample(pictures: PictureFolder) -> Iterator[bytes]:
    """Yield some of the pictures, from all parts of the folder; those that cannot be read are left out."""
    for file in pictures.files[:: -(-len(pictures.files) // SAMPLE)]:
        with suppress(OSError):
            yield read_picture(pictures.folder / file)


def _open_journal(file: Path, collection: str, tenant: str) -> Journal:
    """Return the journal in a file, or end the command if the file is something else."""
    try:
        return Journal(file, collection, tenant)
    except InvalidJournal as error:
        fail(str(error), EXIT_WRONG_USE)


def read_folder(
    folder: Path, properties: Path | None = None, *, no_properties: bool = False, limit: int | None = None
) -> PictureFolder:
    """Return a folder's pictures and their properties; end the command without a picture or with an unusable table."""
    try:
        table = None if no_properties else properties or find_sidecar(folder)
        sidecar = read_sidecar(table) if table else None
        pictures = scan_folder(folder, sidecar, limit=limit)
    except InvalidSidecar as error:
        first, *more = str(error).splitlines()
        fail(first, EXIT_WRONG_USE, more=more)
    except OSError as error:
        fail(describe_os_error(error), EXIT_WRONG_USE)
    if not pictures.files:
        kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in SUFFIXES))
        refused = [f"{shown_path(name)}: {reason}" for name, reason in pictures.refused]
        fail(f"{folder} holds no pictures ({kinds})", EXIT_WRONG_USE, more=[*refused, *_ignored(pictures)])
    for column, name in sidecar.renamed.items() if sidecar else ():
        note(f"the column {column!r} becomes the property {name!r}, because Weaviate does not take its name")
    return pictures


def ensure_collection(client: Client, wanted: pb.Collection) -> bool:
    """Create a collection if it does not exist, and return whether it has the property for the path.

    A collection that cannot take the pictures ends the command.

    Raises:
        VecgateError: a call failed.
    """
    here = {each.name for each in wanted.properties}
    for field in wanted.vectors[0].text_fields:
        if field.name not in here:
            fail(f"--text-field {field.name}: there is no such column", EXIT_WRONG_USE)
    try:
        found = client.get_collection(wanted.name)
    except VecgateError as error:
        if error.reason != "COLLECTION_NOT_FOUND":
            raise
        client.create_collection(wanted)
        note(f"the collection {wanted.name} is created")
        return True
    types = {each.name: each.data_type for each in found.properties}
    if types.get(IMAGE_PROPERTY) not in (property_pb.DATA_TYPE_BLOB, property_pb.DATA_TYPE_BLOB_HASH):
        fail(
            f"the collection {wanted.name} has no blob property {IMAGE_PROPERTY!r}; choose another one", EXIT_WRONG_USE
        )
    missing = sorted(here - types.keys() - {PATH_PROPERTY})
    if missing:
        fail(
            f"the collection {wanted.name} has no property {', '.join(missing)}; "
            "import into another one, or leave the table out with --no-properties",
            EXIT_WRONG_USE,
        )
    asked = {each.name for each in wanted.vectors[0].text_fields}
    if not asked <= {each.name for vector in found.vectors for each in vector.text_fields}:
        note(f"the collection {wanted.name} exists and keeps its fields; --text-field is not applied")
    return PATH_PROPERTY in types


def import_with_progress(
    client: Client,
    collection: str,
    pictures: PictureFolder,
    *,
    truncate: bool = False,
    with_path: bool = True,
    tenant: str = "",
    journal: Journal | None = None,
    duplicates: object_pb.DuplicateCheck | None = None,
) -> ImportSummary:
    """Import pictures and show a progress bar on a terminal."""
    columns = (Doing(), BarColumn(), MofNCompleteColumn(), _Pace())
    console = progress_console()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"importing into {collection}", total=len(pictures.files))
        return send_pictures(
            client,
            collection,
            pictures,
            truncate=truncate,
            with_path=with_path,
            tenant=tenant,
            journal=journal,
            duplicates=duplicates,
            advance=lambda: progress.advance(task),
        )


def show_summary(collection: str, pictures: PictureFolder, summary: ImportSummary) -> None:
    """Print the result of every picture and row."""
    known = summary.stored + summary.skipped + summary.left_out + summary.failed_count
    unknown = len(pictures.files) + len(pictures.refused) - known
    counts = f"{collection}: {summary.stored} stored, {summary.failed_count} failed"
    if summary.skipped:
        counts += f", {summary.skipped} stored before"
    if summary.left_out:
        counts += f", {summary.left_out} left out as duplicates"
    say(counts + (f", {unknown} not imported because the import stopped" if unknown else ""), style="bold")
    for reason, files in summary.failed.items():
        _list(f"{reason} ({len(files)})", map(shown_path, files))
    if summary.duplicates:
        names = {picture_id(collection, each): each for each in pictures.files}
        lines = [
            f"{shown_path(file)}: {shown_path(names.get(of.id, of.id))}, "
            + ("the same content" if of.same_content else f"cosine {of.cosine:.4f}")
            for file, of in summary.duplicates.items()
        ]
        _list(f"duplicates ({len(lines)})", lines)
    for line in _ignored(pictures):
        say(line)
    table = pictures.sidecar.path.name if pictures.sidecar else ""
    if pictures.rows_without_picture:
        rows = [f"{shown_path(row.file)} (line {row.line})" for row in pictures.rows_without_picture]
        _list(f"rows of {table} without a picture ({len(rows)})", rows)
    if pictures.pictures_without_row:
        files = [shown_path(each) for each in pictures.pictures_without_row]
        _list(f"pictures without a row in {table}, so without its properties ({len(files)})", files)


def _ignored(pictures: PictureFolder) -> list[str]:
    """Return lines that name what was ignored: counts by suffix, and examples."""
    lines = ["ignored:"] if pictures.ignored else []
    for kind, names in sorted(pictures.ignored.items(), key=lambda each: (-len(each[1]), each[0])):
        examples = ", ".join(map(shown_path, names[:SHOWN_EXAMPLES]))
        more = f" and {len(names) - SHOWN_EXAMPLES} more" if len(names) > SHOWN_EXAMPLES else ""
        convert = "; HEIC is not read: convert it to JPEG or PNG" if kind in HEIC_SUFFIXES else ""
        lines.append(f"  {shown_path(kind)} ({len(names)}): {examples}{more}{convert}")
    return lines


def _list(title: str, names: Iterable[str]) -> None:
    names = list(names)
    say(title)
    shown = SHOWN_NAMES if to_terminal() else len(names)
    for name in names[:shown]:
        say(f"  {name}")
    if len(names) > shown:
        say(f"  and {len(names) - shown} more; pipe the output to see all")


def pace(done: float, total: float, elapsed_s: float) -> str:
    """Return the rate and the remaining time as text; empty before there is a rate."""
    if not done or not elapsed_s:
        return ""
    rate = done / elapsed_s
    return f"{rate:.1f}/s, {timedelta(seconds=round((total - done) / rate))} left"


class _Pace(ProgressColumn):
    """Rate and remaining time since the start; rich's own estimate is wrong because outcomes come in bursts."""

    def render(self, task: Task) -> Text:
        """Return them as text."""
        return Text(pace(task.completed, task.total or 0, task.elapsed or 0))
