"""Clients in Go, TypeScript and Java: generated from the API, built, and run against a server.

What was built is kept in the cache folder until the API or the program changes.
"""

import asyncio
import json
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tests.environments import BUF, NPM_CI, PROTOS, Command, built, run
from tests.service.conftest import Wire, start_wire, stop_wire
from vecgate.client import AsyncClient

PROGRAMS = Path(__file__).parent / "languages"
IMAGE = Path(__file__).parents[1] / "data" / "pictures" / "dog.png"


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
    build: tuple[Command, ...]
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
        NPM_CI,
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


def report_of(language: Language, server: Wire) -> dict[str, list[object]]:
    with built(PROGRAMS / language.name, language.build, name=f"clients/{language.name}") as folder:
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
