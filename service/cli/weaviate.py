"""`vecgate weaviate`: the embedded Weaviate server."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import typer

from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, NEEDS_SERVER, describe_os_error, fail, say

app = typer.Typer(help="The embedded Weaviate server.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    # Without a callback typer replaces a group by its only command.
    pass


@app.command("install")
def install() -> None:
    """Build the Weaviate server with Go, or download it, into the cache folder, unless it is there."""
    try:
        from service.settings import InvalidSettings, load_settings  # noqa: PLC0415 -- with the server only
        from service.store.embedded.binary import (  # noqa: PLC0415 -- with the server only
            WeaviateBinaryMissing,
            find_binary,
            install_binary,
        )
    except ModuleNotFoundError:
        fail(NEEDS_SERVER, EXIT_WRONG_USE)
    try:
        configured = load_settings(serves=False).weaviate.binary
    except InvalidSettings as error:
        fail(f"the settings are wrong: {error}", EXIT_WRONG_USE)
    with contextlib.suppress(WeaviateBinaryMissing):
        find_binary(configured)
        return
    try:
        install_binary(report=say)
    except WeaviateBinaryMissing as error:
        fail(str(error), EXIT_FAILED)


@app.command("clear")
def clear() -> None:
    """Remove all data of the embedded Weaviate server; not while it runs."""
    try:
        from service.settings import InvalidSettings, load_settings  # noqa: PLC0415 -- with the server only
    except ModuleNotFoundError:
        fail(NEEDS_SERVER, EXIT_WRONG_USE)
    try:
        folder = load_settings(serves=False).weaviate.data_dir.expanduser().absolute()
    except InvalidSettings as error:
        fail(f"the settings are wrong: {error}", EXIT_WRONG_USE)
    if not folder.exists():
        say(f"nothing is stored in {folder}")
        return
    try:
        _remove(folder)
    except OSError as error:
        fail(describe_os_error(error), EXIT_FAILED)
    say(f"everything stored in {folder} is removed")


def _remove(folder: Path) -> None:
    """Remove the files of Vecgate and its Weaviate from a folder, and the folder if it is empty then."""
    import fcntl  # noqa: PLC0415 -- not on Windows, where the other commands run all the same

    lock = folder / "vecgate.lock"
    # The setting may name any folder; only a folder that a server has used may be emptied.
    if not lock.is_file():
        fail(f"{folder} is not a data folder of an embedded Weaviate; nothing is removed", EXIT_FAILED)
    with lock.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(f"{folder} is in use by a running Vecgate; stop it first", EXIT_FAILED)
        orphan = _running_weaviate(folder / "weaviate.pid")
        if orphan is not None:
            fail(f"Weaviate (process {orphan}) still runs on {folder}; stop it first", EXIT_FAILED)
        if (folder / "data").exists():
            shutil.rmtree(folder / "data")
        for file in (*folder.glob("weaviate.log*"), folder / "weaviate.pid", lock):
            file.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _running_weaviate(pid_file: Path) -> int | None:
    """Return the process id in a file if the process runs: a killed server leaves its Weaviate running."""
    try:
        pid = int(json.loads(pid_file.read_text(encoding="utf-8"))["pid"])
        os.kill(pid, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid
