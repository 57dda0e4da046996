"""Environments of Python of their own for programs of others, made once from their locks in the cache folder."""

import fcntl
import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

from platformdirs import user_cache_path

UV = Path(sysconfig.get_path("scripts")) / "uv"


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
