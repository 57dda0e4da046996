"""`vecgate weights`: weights for sites without internet, fetched on a machine that has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TimeElapsedColumn
from rich.text import Text

from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, Doing, fail, progress_console, say

NEEDS_CLIP = "this needs: pip install 'vecgate[clip]'"

app = typer.Typer(help="Weights of local models, for sites without internet.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    # Without a callback typer would take the group's only command for the group.
    pass


@app.command("fetch")
def fetch(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of open_clip, such as ViT-H-14.")],
    tag: Annotated[str, typer.Argument(metavar="TAG", help="Its published weights, such as laion2b_s32b_b79k.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder to create; it must not exist yet.")],
) -> None:
    """Download a public open_clip checkpoint into a folder that can be carried to a server without internet."""
    try:
        from embedders.clip.weights import DownloadFailed, NotFetchable, fetch_weights  # noqa: PLC0415 -- for this only

        fetched = fetch_weights(model, tag, to, watch=_progress)
    except ModuleNotFoundError as error:
        fail(f"{NEEDS_CLIP} (there is no module {error.name})", EXIT_WRONG_USE)
    except NotFetchable as error:
        fail(str(error), EXIT_WRONG_USE)
    except DownloadFailed as error:
        fail(f"nothing was fetched: {error}", EXIT_FAILED)
    say(f"{fetched.folder}: {decimal(fetched.size)} from {fetched.source}")
    say(f"sha256 {fetched.sha256}")
    say("Carry the folder to the server under the same name, which is part of the model's space, and set there:")
    say("  VECGATE_EMBEDDERS__CLIP__KIND=clip")
    say(f"  VECGATE_EMBEDDERS__CLIP__MODEL={fetched.folder}")
    say(f"  VECGATE_EMBEDDERS__CLIP__EXPECTED_DIGEST={fetched.sha256}")


class _FolderSize(ProgressColumn):
    """The bytes in a folder, which may grow meanwhile."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def render(self, task: Task) -> Text:
        del task
        size = 0
        for file in self._folder.rglob("*"):
            try:
                size += 0 if file.is_symlink() or file.is_dir() else file.stat().st_size
            except FileNotFoundError:  # renamed meanwhile
                continue
        return Text(decimal(size))


@contextmanager
def _progress(folder: Path) -> Iterator[None]:
    console = progress_console()
    columns = (SpinnerColumn(), Doing(), _FolderSize(folder), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task("downloading", total=None)
        yield
