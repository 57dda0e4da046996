"""What tests run beside themselves, made once in the cache folder: Pythons with locked packages, and built programs."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

SCRIPTS = Path(sysconfig.get_path("scripts"))
UV, BUF = SCRIPTS / "uv", SCRIPTS / "buf"
PROTOS = Path(__file__).parents[1] / "protos"
# What building leaves where the sources are.
OUTPUTS = frozenset({"build", "generated", "node_modules", "target"})
NPM_CI = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")

Command = Sequence[str | Path]


def python_with(lock: Path, *, name: str) -> Path:
    """Return the Python of an environment with what a lock names, after making it if it is not there.

    Args:
        lock: pins every package; what the packages say of each other is not looked at again.
        name: of the environment's folder.

    Raises:
        subprocess.CalledProcessError: the environment cannot be made; its `stderr` says why.
    """
    folder = user_cache_path("vecgate") / name / "python"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    mark, environment = folder / "built", folder / "environment"
    python = environment / "bin" / "python"
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != digest:
            mark.unlink(missing_ok=True)
            _run(UV, "venv", "--quiet", "--clear", "--python", sys.executable, environment)
            install = (UV, "pip", "install", "--quiet", "--python", python, "--no-deps", "--require-hashes")
            _run(*install, "--requirement", lock)
            mark.write_text(digest)
    return python


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def built(sources: Path, commands: Sequence[Command], *, name: str) -> Iterator[Path]:
    """Give the folder of a program, after building it there if it is not there; other runs keep away meanwhile.

    It is built again when the API or the sources have changed.

    Args:
        sources: what to copy to that folder.
        commands: build it, one after the other.
        name: of the folder in the cache.

    Raises:
        AssertionError: a command fails; the message is what it said.
    """
    folder = user_cache_path("vecgate") / name
    folder.mkdir(parents=True, exist_ok=True)
    # Without comments, which change no program that is only run.
    api = subprocess.run(
        (BUF, "build", PROTOS, "--exclude-source-info", "--output", "-"), capture_output=True, check=True
    )
    digest = hashlib.sha256(api.stdout)
    for path in sorted(sources.rglob("*")):
        if path.is_file() and not OUTPUTS.intersection(path.parts):
            digest.update(path.read_bytes())
    mark = folder / "built"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != digest.hexdigest():
            mark.unlink(missing_ok=True)
            shutil.copytree(sources, folder, ignore=shutil.ignore_patterns(*OUTPUTS), dirs_exist_ok=True)
            for command in commands:
                run(command, folder)
            mark.write_text(digest.hexdigest())
        yield folder


def run(command: Command, folder: Path) -> str:
    """Run a command in a folder and return what it printed.

    Raises:
        AssertionError: it ends with another code than 0; the message is the end of what it said.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr[-4000:]}{done.stdout[-4000:]}"
    return done.stdout
