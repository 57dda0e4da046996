"""Makes the archive of the check for a machine without a network: make gpu-archive.

It holds the tracked files, and what they need beside Python, torch and torchvision with CUDA, which a machine with a
GPU mostly has and which are several gigabytes; --with-torch adds them. The packages are those of the locks, for Linux
on x86-64 and one version of Python.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
PACKAGES = BUILD / "gpu-packages.tar.xz"
ARCHIVE = BUILD / "vecgate-gpu-check.tar"
PLATFORM = "x86_64-manylinux_2_28"

TORCH = re.compile(
    r"torch|torchvision|triton|nvidia-.*|cuda-.*|sympy|mpmath|networkx|jinja2|markupsafe|fsspec|filelock|setuptools"
)
"""Torch, and what comes with it."""

TESTING = {
    "execnet",
    "hypothesis",
    "iniconfig",
    "pluggy",
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "pytest-xdist",
    "sortedcontainers",
    "trustme",
}
"""What the tests marked `gpu` need beside the service's own packages."""


def chosen(lock: str, names: Collection[str]) -> str:
    """Return what a lock says of some packages."""
    blocks = re.split(r"\n(?=\S)", lock)
    return "\n".join(each for each in blocks if re.split(r"[=\[ ]", each, maxsplit=1)[0] in names) + "\n"


def names_of(lock: str) -> set[str]:
    """Return the names of a lock's packages."""
    return set(re.findall(r"^([a-z0-9][a-z0-9.-]*)(?:\[.*\])?==", lock, re.MULTILINE))


def install(folder: Path, python: str, names: Collection[str]) -> None:
    """Install packages of the lock and the project itself into a folder, for another machine."""
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(chosen((ROOT / "requirements-dev.txt").read_text(encoding="utf-8"), names))
        wanted.flush()
        there = ["--python-version", python, "--python-platform", PLATFORM, "--only-binary", ":all:"]
        subprocess.run([*uv, *there, "--require-hashes", "--requirement", wanted.name], check=True)
    subprocess.run([*uv, "--no-build-isolation", str(ROOT / "protos"), str(ROOT)], check=True)
    # Of the project only names and versions stay: its code is in the tracked files.
    for code in ("embedders", "service", "vecgate"):
        shutil.rmtree(folder / code)


def main(arguments: Sequence[str]) -> int:
    """Make the archive, and say where it is and how to use it."""
    parser = argparse.ArgumentParser(prog="gpu-archive", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default="3.12", help="version of Python on the other machine; default: 3.12")
    parser.add_argument("--with-torch", action="store_true", help="with torch, torchvision and CUDA, several gigabytes")
    parser.add_argument("--without", action="append", default=[], help="a package that the other machine has")
    options = parser.parse_args(arguments)
    service = names_of((ROOT / "requirements-clip.txt").read_text(encoding="utf-8"))
    brought = set() if options.with_torch else {name for name in service if TORCH.fullmatch(name)}
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        install(Path(folder), options.python, (service | TESTING) - brought - set(options.without))
        unfinished = Path(folder).with_suffix(".tar.xz")
        with tarfile.open(unfinished, "w:xz", preset=1) as packages:  # 1 takes a quarter of the time
            packages.add(folder, "gpu-packages")
        unfinished.replace(PACKAGES)
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True).stdout
    files = ["--prefix=vecgate-gpu-check/", f"--output={ARCHIVE}", "HEAD"]
    subprocess.run([*git, "archive", *files], check=True)
    with tarfile.open(ARCHIVE, "a") as archive:
        archive.add(PACKAGES, f"vecgate-gpu-check/build/{PACKAGES.name}")
        entry = tarfile.TarInfo("vecgate-gpu-check/COMMIT")
        entry.size = len(commit)
        archive.addfile(entry, io.BytesIO(commit))
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size / 2**20:.0f} MiB. On the other machine, with Python {options.python}:")
    print(f"  tar xf {ARCHIVE.name} && cd vecgate-gpu-check && python3 tests/gpu_check/start.py")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
