"""`vecgate import`: pictures and rows into a collection, and what it does with a local folder of pictures."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.text import Text

from service.cli.collections import parse_weighted_field
from service.cli.connection import AddressOption, TenantOption, connected
from service.cli.imports import Duplicates, Import
from service.cli.journal import Journal
from service.cli.likeness import SAMPLE, ThresholdOption
from service.cli.output import (
    EXIT_FAILED,
    EXIT_WRONG_USE,
    NEEDS_TABLES,
    Doing,
    describe_error,
    describe_os_error,
    fail,
    note,
    progress_console,
    say,
    shorten,
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
# Suffixes of files that are no part of a folder of pictures, in lower case.
TABLES = (".parquet", ".parq", ".pq", ".tar", ".tar.gz", ".tgz")
# Names of one kind of file that is ignored.
SHOWN_EXAMPLES = 3


PropertiesOption = Annotated[
    Path | None,
    typer.Option(
        "--properties",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="Of a folder of pictures: CSV or JSONL with a column `file`; if not given, the one in the folder.",
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
SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="A folder of pictures; or Parquet, CSV, JSONL, WebDataset tars and folders of these, on disks, object "
        "stores (s3://, gs://, az://) and https://, also as patterns with * and **.",
    ),
]
MapOption = Annotated[
    Path | None,
    typer.Option(
        "--map",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="TOML that says which column becomes what.",
        show_default=False,
    ),
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="COLUMN=PROPERTY",
        help="What a column becomes: a property, a named vector, id, tenant, several of them with commas, or nothing "
        "to leave it out. A text that becomes an image refers to it, by a path or a URL. Repeatable.",
        show_default=False,
    ),
]
ImagesOption = Annotated[
    str,
    typer.Option(
        "--images",
        metavar="LOCATION",
        help="Folder, such as s3://bucket/pictures, below which the pictures are that rows refer to; without it, that "
        "of the table.",
        show_default=False,
    ),
]


DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show the mapping, the first rows and what would be refused; store nothing.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Import the first so many pictures or rows.", show_default=False),
]
NoPropertiesOption = Annotated[
    bool, typer.Option("--no-properties", help="Of a folder of pictures: ignore CSV and JSONL files.")
]


def import_(
    context: typer.Context,
    *,
    sources: SourcesArgument,
    collection: Annotated[str, typer.Option("--collection", metavar="NAME", help="Created if it does not exist.")],
    map_: MapOption = None,
    columns: ColumnsOption = None,
    images: ImagesOption = "",
    dry_run: DryRunOption = False,
    properties: PropertiesOption = None,
    no_properties: NoPropertiesOption = False,
    text_fields: TextFieldsOption = None,
    embedder: Annotated[
        str,
        typer.Option("--embedder", help="The embedder, used when the collection is created.", show_default=False),
    ] = "",
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that the model cannot read whole.")] = False,
    limit: LimitOption = None,
    resume: ResumeOption = None,
    duplicates: DuplicatesOption = None,
    threshold: ThresholdOption = None,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Import pictures and rows into a collection.

    The pictures of a folder get a CSV or JSONL of properties beside them when there is one, and ids from the
    collection's name and their paths. Rows of tables get ids from a column that is mapped to id, else from their
    content. So importing again changes nothing.
    """
    if threshold is not None and duplicates is None:
        fail("--threshold is for --duplicates; give both", EXIT_WRONG_USE)
    chosen = Import(
        collection=collection,
        text_fields=[parse_weighted_field(each, "--text-field") for each in text_fields or ()],
        embedder=embedder,
        truncate=truncate,
        limit=limit,
        resume=resume,
        tenant=tenant,
        dry_run=dry_run,
        duplicates=duplicates,
        threshold=threshold,
    )
    if map_ is None and not (columns or images) and (folder := _picture_folder(sources)):
        pictures = read_folder(folder, properties, no_properties=no_properties, limit=limit)
        with connected(context, address) as client:
            import_pictures(client, pictures, chosen)
        return
    if properties or no_properties:
        fail("--properties and --no-properties are for one local folder of pictures", EXIT_WRONG_USE)
    try:
        from service.cli import tables  # noqa: PLC0415 -- not there with the command line alone
    except ImportError:
        fail(NEEDS_TABLES, EXIT_WRONG_USE)
    found = tables.open_tables(sources, tables.mapping_of(map_, columns or (), images))
    with connected(context, address) as client:
        tables.import_tables(client, found, chosen)


def _picture_folder(sources: list[str]) -> Path | None:
    """Return the local folder that a source is, if it is one and has no Parquet and no tars."""
    folder = Path(sources[0])
    if len(sources) > 1 or not folder.is_dir():
        return None
    names = (name.lower() for _, _, files in os.walk(folder) for name in files)
    return None if any(name.endswith(TABLES) for name in names) else folder


def import_pictures(client: Client, pictures: PictureFolder, chosen: Import) -> None:
    """Import a folder of pictures, or say what would be imported, and end the command.

    Raises:
        VecgateError: a call failed.
    """
    collection = chosen.collection
    wanted = schema_of(collection, pictures, text_fields=chosen.text_fields, embedder=chosen.embedder)
    with chosen.journal() as journal:
        with_path = ensure_collection(client, wanted, dry_run=chosen.dry_run)
        if chosen.dry_run:
            show_pictures_to_import(collection, pictures)
            raise typer.Exit(EXIT_FAILED if pictures.refused or pictures.rows_without_picture else 0)
        chosen.begin(journal, client)
        check = chosen.duplicate_check(client, _sample(pictures))
        summary = import_with_progress(client, chosen, pictures, with_path=with_path, journal=journal, duplicates=check)
    show_summary(collection, pictures, summary)
    if summary.stopped is not None:
        fail(*describe_error(summary.stopped, target=client.target))
    if summary.failed or pictures.rows_without_picture:
        raise typer.Exit(EXIT_FAILED)


def _sample(pictures: PictureFolder) -> Iterator[bytes]:
    """Yield some of the pictures, from all parts of the folder; those that cannot be read are left out."""
    for file in pictures.files[:: -(-len(pictures.files) // SAMPLE)]:
        with suppress(OSError):
            yield read_picture(pictures.folder / file)


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


def ensure_collection(client: Client, wanted: pb.Collection, *, dry_run: bool = False) -> bool:
    """Create a collection if it does not exist, and return whether it has the property for the path.

    In a dry run it is not created.

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
        if dry_run:
            note(f"the collection {wanted.name} would be created")
        else:
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
    chosen: Import,
    pictures: PictureFolder,
    *,
    with_path: bool,
    journal: Journal | None = None,
    duplicates: object_pb.DuplicateCheck | None = None,
) -> ImportSummary:
    """Import pictures and show a progress bar on a terminal."""
    columns = (Doing(), BarColumn(), MofNCompleteColumn(), _Pace())
    console = progress_console()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"importing into {chosen.collection}", total=len(pictures.files))
        return send_pictures(
            client,
            chosen,
            pictures,
            with_path=with_path,
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
    _show_details(collection, pictures, summary)


def _show_details(collection: str, pictures: PictureFolder, summary: ImportSummary) -> None:
    """Print what is not imported, what is ignored, and what of the table and the pictures does not fit together."""
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


def show_pictures_to_import(collection: str, pictures: PictureFolder) -> None:
    """Print what would be imported, and what would not."""
    say(f"{collection}: {len(pictures.files)} pictures would be imported; nothing is stored", style="bold")
    for file in pictures.files[:SHOWN_EXAMPLES]:
        values = ", ".join(f"{name}={shorten(str(value))}" for name, value in pictures.properties(file).items())
        say(f"  {shown_path(file)}: {values}")
    summary = ImportSummary()
    for file, reason in pictures.refused:
        summary.fail(file, reason)
    _show_details(collection, pictures, summary)


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
