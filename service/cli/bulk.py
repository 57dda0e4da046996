"""`vecgate bulk`: large tables of pictures into a collection, on one machine or on many."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from service.bulk import PATIENCE_S
from service.cli.connection import TenantOption
from service.cli.importing import ColumnsOption, DryRunOption, DuplicatesOption, ImagesOption, MapOption
from service.cli.likeness import ThresholdOption, told_threshold
from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, Doing, fail, note, progress_console, say

if TYPE_CHECKING:
    from service.bulk.accounts import Progress as Done
    from service.bulk.job import Job, Result
    from service.bulk.ledger import Totals
    from service.bulk.reconciling import InCollection

NEEDS_BULK = "bulk work needs: pip install 'vecgate[server,bulk]', and vecgate[clip] for local models"
LOG_EVERY = 10_000
"""Rows between two lines of progress where no terminal is."""
MAX_FAULTS = 20
"""Of one kind that are shown."""

LocationsArgument = Annotated[
    list[str],
    typer.Argument(metavar="LOCATION...", help="Files, folders, patterns with *, or URLs such as s3://bucket/a/."),
]
CollectionOption = Annotated[str, typer.Option("--collection", metavar="NAME", help="Where objects go; it exists.")]
LedgerOption = Annotated[
    str,
    typer.Option(
        "--ledger",
        metavar="LOCATION",
        help="Folder or URL that tells what is done; for a cluster, on storage that outlives the command. Without it: "
        "vecgate-bulk/COLLECTION in this folder.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    str,
    typer.Option(
        "--output",
        metavar="LOCATION",
        help="Folder or URL for Parquet files with the objects and their vectors.",
        show_default=False,
    ),
]
OnlyOutputOption = Annotated[
    bool, typer.Option("--only-output", help="Store nothing in the collection, whose properties still count.")
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key", metavar="COLUMN", help="Column that ids come from, instead of the content.", show_default=False
    ),
]
TruncateOption = Annotated[bool, typer.Option("--truncate", help="Cut texts that the model cannot read whole.")]
DecodersOption = Annotated[int, typer.Option("--decoders", min=0, help="Processes that decode; 0: as many as fit.")]
EmbeddersOption = Annotated[
    int, typer.Option("--embedders", min=0, help="Processes with an embedder; 0: one for each GPU.")
]
WritersOption = Annotated[
    int, typer.Option("--writers", min=0, help="Processes that write; 0: as many as fit, or one with --duplicates.")
]
BatchOption = Annotated[
    int, typer.Option("--batch", min=0, max=2048, help="Rows that an embedder takes at a time; 0: 256.")
]
PatienceOption = Annotated[
    float,
    typer.Option(
        "--patience", min=0, help="Seconds to wait for what does not answer: Weaviate, a NIM, an origin of pictures."
    ),
]


def bulk(
    *,
    locations: LocationsArgument,
    collection: CollectionOption,
    ledger: LedgerOption = "",
    output: OutputOption = "",
    only_output: OnlyOutputOption = False,
    mapping: MapOption = None,
    columns: ColumnsOption = None,
    images: ImagesOption = "",
    key: KeyOption = "",
    tenant: TenantOption = "",
    truncate: TruncateOption = False,
    duplicates: DuplicatesOption = None,
    threshold: ThresholdOption = None,
    decoders: DecodersOption = 0,
    embedders: EmbeddersOption = 0,
    writers: WritersOption = 0,
    batch: BatchOption = 0,
    patience: PatienceOption = PATIENCE_S,
    dry_run: DryRunOption = False,
) -> None:
    """Embed tables of pictures and store each row once, on this machine or on the Ray cluster of RAY_ADDRESS.

    Embedders and Weaviate are those of the settings of `vecgate serve`; no server is needed. The same command again
    does what is left.
    """
    if only_output and not output:
        fail("--only-output needs --output", EXIT_WRONG_USE)
    if threshold is not None and duplicates is None:
        fail("--threshold is for --duplicates; give both", EXIT_WRONG_USE)
    if only_output and duplicates is not None:
        fail("--duplicates compares with what the collection stores, and --only-output stores nothing", EXIT_WRONG_USE)
    try:
        from service.bulk.job import Job  # noqa: PLC0415 -- an extra
        from service.bulk.pipeline import Sizes  # noqa: PLC0415 -- an extra
        from service.cli.tables import mapping_of  # noqa: PLC0415 -- an extra
    except ModuleNotFoundError as error:
        fail(f"{NEEDS_BULK} (there is no module {error.name})", EXIT_WRONG_USE)
    chosen = mapping_of(mapping, columns or (), images, key)
    ledger = ledger or f"vecgate-bulk/{collection}"
    sizes = Sizes(decoders, embedders, writers, batch)
    action = duplicates.value if duplicates else ""
    stores = not only_output
    job = Job(
        locations, collection, ledger, chosen, tenant, truncate, sizes, patience, output, stores, action, threshold
    )
    if dry_run:
        _show_dry_run(job)
        return
    result = _run(job)
    show_result(result)
    if result.faults:
        raise typer.Exit(EXIT_FAILED)


def _show_dry_run(job: "Job") -> None:
    """Print what a job would do, and end the command with a failure if rows would be refused."""
    from service.bulk.job import look  # noqa: PLC0415 -- an extra
    from service.cli.tables import Tables, show_dry_run  # noqa: PLC0415 -- an extra
    from service.settings import load_settings  # noqa: PLC0415 -- with the server only

    with _one_line(job):
        found = look(job, load_settings(serves=False))
    tables = Tables(found.found, found.columns, job.mapping)
    if not show_dry_run(tables, found.plan, found.refusal, exists=True, limit=None):
        raise typer.Exit(EXIT_FAILED)


def _run(job: "Job") -> "Result":
    """Run a job, and end the command with one line if it cannot."""
    from service.bulk.job import run  # noqa: PLC0415 -- an extra
    from service.settings import load_settings  # noqa: PLC0415 -- with the server only

    with _one_line(job), _Shown() as shown:
        return run(job, load_settings(serves=False), shown.advance)


@contextmanager
def _one_line(job: "Job") -> Iterator[None]:
    """End the command with one line, or one for each fault, if a job cannot be done."""
    from service.bulk.patience import BulkStopped  # noqa: PLC0415 -- an extra
    from service.errors import ServiceError  # noqa: PLC0415 -- with the server only
    from service.settings import InvalidSettings  # noqa: PLC0415 -- with the server only
    from service.sources.errors import InvalidMapping, InvalidSource  # noqa: PLC0415 -- an extra

    try:
        yield
    except InvalidSettings as error:
        fail("the settings are wrong:", EXIT_WRONG_USE, more=[f"  {line}" for line in str(error).splitlines()])
    except InvalidMapping as error:
        fail(f"the input does not fit {job.collection}:", EXIT_WRONG_USE, more=error.faults)
    except InvalidSource as error:
        fail(str(error), EXIT_WRONG_USE)
    except BulkStopped as error:
        fail(str(error), EXIT_FAILED, more=["what is done counts: the same command goes on from there"])
    except ServiceError as error:
        fail(str(error), EXIT_FAILED)


def show_result(result: "Result") -> None:
    """Print what a job did, and whether everything adds up."""
    done = result.progress
    if result.threshold is not None:
        say(told_threshold(result.threshold))
    if result.done_before:
        say(f"{result.done_before} of {result.found} fragments were done before")
    if done.wanted:
        say(f"{done.rows} rows in this run, {done.rate:.1f} a second; working time: {_shares(done)}")
    checked = result.reconciliation
    if checked is not None:
        totals = checked.totals
        _show_totals(totals)
        if checked.in_files is not None:
            say(f"the Parquet files have {checked.in_files.total()} rows")
        if checked.collection is not None:
            _show_collection(checked.collection, totals)
    for fault in result.faults[:MAX_FAULTS]:
        say(f"wrong: {fault}")


def _show_totals(totals: "Totals") -> None:
    left_out = f" + {totals.skipped} left out" if totals.skipped else ""
    say(
        f"{totals.rows} rows in = {totals.distinct} stored + {sum(totals.rejected.values())} rejected + "
        f"{totals.duplicates} duplicates{left_out}",
        style="bold",
    )
    if alike := totals.skipped + totals.similar:
        say(f"  {alike} rows equal or nearly equal an object of another id; duplicates/ of the ledger lists them")
    for reason, count in sorted(totals.rejected.items()):
        say(f"  rejected as {reason}: {count}")
    if totals.outdated:
        say(f"  {totals.outdated} objects are of earlier versions of changed files, and still stored")


def _show_collection(within: "InCollection", totals: "Totals") -> None:
    say(f"the collection has {within.counted} objects; {within.sampled} were looked for by their vectors")
    if (others := within.counted - within.before - totals.distinct - totals.outdated) > 0:
        say(f"  {others} of them were written by others since the first run")
    if within.mended:
        say(f"  {within.mended} of the latter were entered into the index again")


def _shares(done: "Done") -> str:
    return ", ".join(f"{stage} {share:.0%}" for stage, share in done.shares().items())


class _Shown:
    """The progress: a bar on a terminal, and a line now and then elsewhere."""

    def __init__(self) -> None:
        console = progress_console()
        columns = (BarColumn(), MofNCompleteColumn(), Doing())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._lines = not console.is_terminal
        self._task = self._bar.add_task("fragments", total=None)
        self._next = LOG_EVERY

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, done: "Done") -> None:
        """Show the progress."""
        told = told_progress(done)
        self._bar.update(self._task, total=done.wanted, completed=done.fragments, description=f"fragments, {told}")
        if self._lines and done.rows >= self._next:
            self._next = done.rows + LOG_EVERY
            note(f"{done.fragments} of {done.wanted} fragments, {told}")


def told_progress(done: "Done") -> str:
    """Return the progress in words: rows, rate, time left, shares of the stages, and what is rejected."""
    words = [f"{done.rows} rows, {done.rate:.0f}/s"]
    if (left := done.left_s) is not None:
        words.append(f"{left // 60:.0f} min {left % 60:.0f} s left")
    words.append(_shares(done))
    if done.skipped:
        words.append(f"{done.skipped} left out")
    words += [f"{reason} {count}" for reason, count in done.rejected.most_common(3)]
    return ", ".join(words)
