"""How the command line speaks: consoles, tables, errors and exit codes.

Nothing else in the command line prints. What is printed here cannot control the terminal, except for pictures that were
decoded and made again.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.table import Table
from rich.text import Text

from service.process.printable import printable, printable_json
from vecgate.client import Unreachable, VecgateError

EXIT_FAILED = 1
EXIT_WRONG_USE = 2
NEEDS_SERVER = "this needs: pip install 'vecgate[server]'"
NEEDS_TABLES = "this needs: pip install 'vecgate[tables]'"
EXIT_UNREACHABLE = 3
EXIT_FAULTS = 4
# Wider than any line: what is piped into a file or a program is neither folded nor cut.
PIPED_WIDTH = 100_000

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def to_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def progress_console() -> Console:
    """Return the console for passing things, on standard error."""
    return Console(stderr=True, highlight=False)


class Doing(ProgressColumn):
    """What a task of a progress bar is about."""

    def render(self, task: Task) -> Text:
        """Return the task's description."""
        return Text(printable(task.description))


def say(line: str = "", *, style: str = "") -> None:
    """Print a line of the result."""
    _console().print(Text(printable(line), style=style), soft_wrap=True)


def note(line: str) -> None:
    """Print a line beside the result, on standard error."""
    progress_console().print(Text(printable(line)), soft_wrap=True)


def fail(message: str, code: int, *, more: Iterable[str] = ()) -> NoReturn:
    """Print an error as one line on standard error, with more lines below it, and end with an exit code."""
    progress_console().print(Text.assemble(("error: ", "bold red"), printable(message)), soft_wrap=True)
    for line in more:
        note(line)
    raise typer.Exit(code)


def confirm(question: str) -> None:
    """Ask a question; another answer than yes ends the command."""
    typer.confirm(printable(question), abort=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON, in one line without an indent."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(printable_json(json.dumps(value, indent=indent, ensure_ascii=not unicode)))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Sequence[str] = ()) -> None:
    """Print a table.

    Args:
        titles: of the columns.
        rows: a cell for each column.
        whole: titles of the columns that a narrow terminal must not fold.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(Text(printable(title)), no_wrap=title in whole, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = _console()
    with console.capture() as captured:
        console.print(table)
    # Columns are padded to their width, the last one too.
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_pictures(sequence: str) -> None:
    """Print a terminal's sequence that shows pictures, and a line end behind it."""
    typer.echo(sequence, color=True)  # or typer takes it out where the output is piped


def describe_error(error: VecgateError, *, target: str) -> tuple[str, int]:
    """Return an error in words, and the exit code for it."""
    if isinstance(error, Unreachable):
        cause = " ".join(error.message.split()) or "the connection broke"
        help_ = "start one with `vecgate serve`, or name another with --address or VECGATE_ADDRESS"
        return f"no Vecgate answers at {target}; {help_} ({cause})", EXIT_UNREACHABLE
    text = str(error)
    if error.retry_after_s is not None:
        text += f" (try again in {error.retry_after_s:g} s)"
    if error.request_id:
        text += f" (request id {error.request_id})"
    return text, EXIT_FAILED


def describe_os_error(error: OSError) -> str:
    """Return why a file cannot be used, with its name where there is one."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def shorten(value: str | Path, width: int = 60) -> str:
    """Return a text in one line, which a terminal gets at most so long and a pipe whole."""
    line = printable(" ".join(str(value).split()))
    return line if len(line) <= width or not to_terminal() else line[: width - 1] + "…"


def describe_value(value: Any) -> str:
    """Return a property's value in one line: a list of scalars with commas, objects and truth values as JSON."""
    if isinstance(value, list) and not any(isinstance(each, list | dict) for each in value):
        return shorten(", ".join(map(_scalar, value)))
    return shorten(_scalar(value))


def _scalar(value: Any) -> str:
    return (
        json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(value, bool | dict | list) else str(value)
    )


def _console() -> Console:
    return Console(highlight=False, width=None if to_terminal() else PIPED_WIDTH)
