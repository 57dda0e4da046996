"""Builds images as releases are built, on a base that is made here from Debian's packages, and looks into them."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
UNCHECKED = (1).to_bytes(4, "little")
"""Flags of a compiled file that Python takes as it is (PEP 552)."""
LAST_LINES = 40
"""Of what a failing build printed."""
COMPILERS = frozenset({"as", "c++", "cc", "clang", "g++", "gcc", "ld", "nvcc", "rustc"})

BASE = "localhost/vecgate-base"
REVISION = "0" * 40
EPOCH = 1_767_225_600
CREATED = "2026-01-01T00:00:00Z"
"""The same moment."""


def say(line: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"{line}\n")


def run(*command: str | Path, **options: Any) -> str:
    """Run a program and return what it printed."""
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout.strip()


class Buildah:
    """buildah with storage of its own, so that nothing of the machine's is touched."""

    def __init__(self, folder: Path) -> None:
        self._prefix = ("buildah", "--root", folder / "storage", "--runroot", folder / "run")
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}

    def __call__(self, *arguments: str | Path) -> str:
        """Run a buildah command and return what it printed."""
        return run(*self._prefix, *arguments, env=self._environment)


def base_system() -> Path:
    """Return the base system as a tar file, after making it if it is not in the cache."""
    tar = user_cache_path("vecgate") / "image" / f"{SUITE}-python3.tar"
    if not tar.exists():
        say(f"making a base system of Debian {SUITE}")
        tar.parent.mkdir(parents=True, exist_ok=True)
        new = tar.with_name(f"new-{tar.name}")
        include = "--include=python3,python3-venv"
        run("mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, new)
        new.replace(tar)
    return tar


def make_base(buildah: Buildah) -> str:
    """Make the base image and return its reference, by digest."""
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, base_system(), "/")
    buildah("commit", "--quiet", container, BASE)
    buildah("rm", container)
    return f"{BASE}@{inspect(buildah, BASE)['FromImageDigest']}"


def build(buildah: Buildah, folder: Path, target: str, base: str) -> str:
    """Build a target's image as a release and return its name."""
    # Where package registries are reached through a proxy, pip is told its certificate.
    certificate = os.environ.get("PIP_CERT", "")
    config = folder / "pip.conf"
    config.write_text(f"[global]\ncert = {certificate}\n" if certificate else "", encoding="utf-8")
    volumes = ("--volume", f"{certificate}:{certificate}:ro") if certificate else ()
    say(f"building the {target} image")
    image = f"localhost/vecgate/{target}"
    arguments = {"BASE_IMAGE": base, "REVISION": REVISION, "CREATED": CREATED}
    options = ("--network", "host", "--secret", f"id=pip_conf,src={config}", *volumes, "--timestamp", str(EPOCH))
    given = (each for name, value in arguments.items() for each in ("--build-arg", f"{name}={value}"))
    try:
        buildah("build", *options, *given, "--format", "docker", "--target", target, "--tag", image, ROOT)
    except subprocess.CalledProcessError as error:
        say("\n".join(error.stdout.splitlines()[-LAST_LINES:]))
        raise
    return image


def inspect(buildah: Buildah, image: str) -> dict[str, Any]:
    """Return what buildah says of an image."""
    return dict(json.loads(buildah("inspect", "--type", "image", image)))


def check_again(buildah: Buildah, folder: Path, target: str, base: str, image: str) -> None:
    """Build an image again and assert that all of its layers are the same to the byte."""
    first, before = layers(buildah, image), contents(buildah, image)
    build(buildah, folder, target, base)
    second, after = layers(buildah, image), contents(buildah, image)
    changed = [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]
    assert changed == [], changed
    assert first == second


def layers(buildah: Buildah, image: str) -> list[str]:
    """Return the digests of an image's layers; what is around them has a random name of the builder's in it."""
    return list(inspect(buildah, image)["OCIv1"]["rootfs"]["diff_ids"])


def contents(buildah: Buildah, image: str) -> dict[Path, str]:
    """Return the digest of every file of an image by its path."""
    container = buildah("from", image)
    root = Path(buildah("mount", container))
    digests = {
        file.relative_to(root): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file() and not file.is_symlink()
    }
    buildah("rm", container)
    return digests


def pushed_and_pulled(buildah: Buildah, folder: Path, image: str) -> str:
    """Push an image, remove it, pull it back, and return the name that it then has."""
    kept = f"oci:{folder / 'pushed'}:{image.rpartition('/')[2]}"
    buildah("push", "--quiet", image, kept)
    buildah("rmi", "--force", image)
    return buildah("pull", "--quiet", kept)


def check_labels(configuration: dict[str, Any], base: str) -> None:
    """Assert that an image says what it is."""
    labels = {
        name.removeprefix("org.opencontainers.image."): text
        for name, text in configuration["OCIv1"]["config"]["Labels"].items()
    }
    expected = {"revision": REVISION, "created": CREATED, "base.name": base, "licenses": "Apache-2.0"}
    assert {name: labels.get(name) for name in expected} == expected, labels
    assert {"title", "version", "description"} <= labels.keys(), labels


def check_compiled(root: Path) -> int:
    """Assert that no compiled file is checked by the time of its source; return how many files there are."""
    files = list((root / "opt" / "vecgate").rglob("*.pyc"))
    checked = [file for file in files if file.read_bytes()[4:8] != UNCHECKED]
    assert files
    assert checked == []
    return len(files)


def check_programs(root: Path) -> None:
    """Assert that an image has no compiler."""
    found = [file for file in root.rglob("*") if file.name in COMPILERS and os.access(file, os.X_OK) and file.is_file()]
    assert found == [], found


def size_of(root: Path) -> int:
    """Return the bytes of all files of an image."""
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file() and not file.is_symlink())
