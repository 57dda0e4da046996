"""Clients in Go, TypeScript and Java: generated from the API, built, and run against a server.

What was built is kept in the cache folder until the API or the program changes.
"""

import asyncio
import fcntl
import hashlib
import json
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from platformdirs import user_cache_path

from tests.service.conftest import Wire, start_wire, stop_wire
from vecgate.client import AsyncClient

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"
PROGRAMS = Path(__file__).parent / "languages"
IMAGE = ROOT / "tests" / "data" / "pictures" / "dog.png"
# What building leaves where the sources are.
OUTPUTS = frozenset({"build", "generated", "node_modules", "target"})
BUF = Path(sysconfig.get_path("scripts")) / "buf"


@dataclass(frozen=True)
class Language:
    """How a client is built and run.

    Attributes:
        name: the folder of its sources.
        needs: programs without which it cannot be built.
        build: commands.
        run: the command that takes the server's address and an image.
    """

    name: str
    needs: tuple[str, ...]
    build: tuple[tuple[str | Path, ...], ...]
    run: tuple[str, ...]


GO = Language(
    "go",
    ("go",),
    ((BUF, "generate", PROTOS, "--path", PROTOS / "vecgate"), ("go", "build", "-o", "client", ".")),
    ("./client",),
)
TYPESCRIPT = Language(
    "typescript",
    ("node", "npm"),
    (
        ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
        (BUF, "generate", PROTOS),
        ("node_modules/.bin/tsc",),
    ),
    ("node", "build/main.js"),
)
JAVA = Language(
    "java",
    ("javac", "mvn"),
    (("mvn", "-q", "-B", f"-Dprotos={PROTOS}", "compile", "dependency:copy-dependencies"),),
    ("java", "-cp", "target/classes:target/dependency/*", "Main"),
)


@contextmanager
def built(language: Language) -> Iterator[Path]:
    """Build a client if it is not there, and keep other runs away from it meanwhile."""
    sources = PROGRAMS / language.name
    folder = user_cache_path("vecgate") / "clients" / language.name
    folder.mkdir(parents=True, exist_ok=True)
    # Without comments, which change no client that is only run.
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
            for command in language.build:
                run(command, folder)
            mark.write_text(digest.hexdigest())
        yield folder


def run(command: Sequence[str | Path], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr[-4000:]}{done.stdout[-4000:]}"
    return done.stdout


def report_of(language: Language, server: Wire) -> dict[str, list[object]]:
    with built(language) as folder:
        return dict(json.loads(run((*language.run, f"127.0.0.1:{server.server.port}", str(IMAGE)), folder)))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", [GO, TYPESCRIPT, JAVA], ids=lambda language: language.name)
async def test_a_generated_client_embeds_imports_and_searches(language: Language) -> None:
    missing = [name for name in language.needs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"there is no {missing[0]}")
    server = await start_wire()
    try:
        await server.create_pictures()
        async with AsyncClient(f"127.0.0.1:{server.server.port}") as client:
            expected = (await client.embed(["a dog", IMAGE])).matrix()

        report = await asyncio.to_thread(report_of, language, server)
    finally:
        await stop_wire(server)

    assert np.array_equal(np.array(report["vectors"], dtype=np.float32), expected)
    assert len(report["stored"]) == 1
    assert report["found"] == report["stored"]


def test_buf_builds_the_api_from_its_folder_alone(tmp_path: Path) -> None:
    run((BUF, "build", PROTOS, "--output", tmp_path / "api.binpb"), tmp_path)

    assert (tmp_path / "api.binpb").stat().st_size > 10_000


def test_the_file_of_google_is_as_published() -> None:
    published = files("google.rpc") / "status.proto"

    assert (PROTOS / "third_party" / "google" / "rpc" / "status.proto").read_bytes() == published.read_bytes()
