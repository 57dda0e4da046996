"""Prometheus and its promtool for tests: python -m helm.tools.prometheus puts them into the user's cache.

They are those on PATH, or come from Debian's package, which is unpacked and not installed. They cannot be built with
Go's own "install", because their module replaces others.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

from platformdirs import user_cache_path

from service.process.installing import installing_alone

PROGRAMS = ("prometheus", "promtool")
FOLDER = user_cache_path("vecgate") / "prometheus"


class PrometheusMissing(Exception):
    """The programs could be had in no way; the message says why not."""


def prometheus() -> Path:
    """Return the Prometheus server's program; see `promtool`."""
    return _program("prometheus")


def promtool() -> Path:
    """Return the program that checks what Prometheus reads.

    Raises:
        PrometheusMissing: it is not there and cannot be had.
    """
    return _program("promtool")


@cache
def _program(name: str) -> Path:
    if found := shutil.which(name):
        return Path(found)
    program = FOLDER / name
    if not os.access(program, os.X_OK):
        FOLDER.mkdir(parents=True, exist_ok=True)
        with installing_alone(FOLDER / "prometheus", "Prometheus", partial(print, file=sys.stderr)):
            if not os.access(program, os.X_OK):
                _install()
    return program


def _install() -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        _run("apt-get", "download", "--quiet", "prometheus", folder=folder)
        (package,) = Path(folder).glob("prometheus_*.deb")
        _run("dpkg-deb", "--extract", package.name, "package", folder=folder)
        for each in PROGRAMS:
            (Path(folder) / "package/usr/bin" / each).replace(FOLDER / each)


def _run(*command: str, folder: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise PrometheusMissing(f"there is no {command[0]}; put prometheus and promtool on PATH") from error
    if done.returncode != 0:
        raise PrometheusMissing(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")


if __name__ == "__main__":
    for each in PROGRAMS:
        sys.stdout.write(f"{_program(each)}\n")
