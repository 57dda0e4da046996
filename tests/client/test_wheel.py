"""The distribution vecgate-client, built and installed without an index."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.fakes.server import FakeVecgate, serving

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
BLOCKING = """
import sys
from vecgate.client import Client

with Client(sys.argv[1]) as client:
    print(client.embed("a cat").matrix().shape)
"""
ASYNCIO = """
import asyncio
import sys
from vecgate.client import AsyncClient

async def main():
    async with AsyncClient(sys.argv[1]) as client:
        print((await client.embed("a cat")).matrix().shape)

asyncio.run(main())
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def project(folder: Path) -> dict[str, object]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run(SCRIPTS / "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=ROOT / "protos")
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the client's wheel, and all that this one has but Vecgate's own packages."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    uv = SCRIPTS / "uv"
    run(uv, "venv", "--quiet", "--offline", "--python", sys.executable, folder)
    interpreter = folder / "bin" / "python"
    run(uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", interpreter, wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but the .pth files in it, those of the editable projects, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return interpreter


def test_the_client_and_the_server_have_one_version() -> None:
    client, server = project(ROOT / "protos"), project(ROOT)

    assert client["version"] == server["version"]
    assert server["dependencies"] == [f"vecgate-client=={client['version']}"]


def test_the_client_is_under_the_projects_licence() -> None:
    assert (ROOT / "protos" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_is_small_and_holds_the_client_the_stubs_and_the_api(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    api = {path.relative_to(ROOT / "protos").as_posix() for path in ROOT.glob("protos/vecgate/v1/*.proto")}

    assert wheel.stat().st_size < 300_000
    assert {name.split("/")[0] for name in names} == {"vecgate", wheel.name.replace("-py3-none-any.whl", ".dist-info")}
    assert {"vecgate/py.typed", "vecgate/client/__init__.py", "vecgate/v1/search_service_pb2.py"} | api <= set(names)
    assert [name for name in names if name.endswith("/licenses/LICENSE")]


@pytest.fixture(scope="module")
def server_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's wheel."""
    folder = tmp_path_factory.mktemp("server")
    run(SCRIPTS / "hatchling", "build", "--target", "wheel", "--directory", folder)
    (built,) = folder.iterdir()
    return built


def test_the_servers_wheel_leaves_the_package_vecgate_to_the_client(server_wheel: Path) -> None:
    assert {name.split("/")[0] for name in zipfile.ZipFile(server_wheel).namelist()} == {
        "embedders",
        "service",
        server_wheel.name.replace("-py3-none-any.whl", ".dist-info"),
    }


def test_the_servers_wheel_holds_the_explorer_as_it_is_served_and_nothing_it_is_built_from(server_wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(server_wheel).namelist() if name.startswith("service/web/explorer/")]
    served = {f"service/web/explorer/static/{path.name}" for path in ROOT.glob("service/web/explorer/static/*")}

    assert "service/web/explorer/static/index.html" in served
    assert {name for name in names if not name.endswith(".py")} == {*served, "service/web/explorer/README.md"}


def test_the_client_needs_what_it_says_it_needs_and_no_server(wheel: Path, python: Path) -> None:
    (metadata,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA")]
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    needed = re.findall(r"^Requires-Dist: ([a-z-]+)", text, re.MULTILINE)
    script = """
import sys
from importlib.util import find_spec

import vecgate.client

print(find_spec("service"), find_spec("embedders"), vecgate.client.__file__)
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"weaviate", "pydantic", "torch", "httpx", "aiohttp"}))
"""

    server, heavy = run(python, "-I", "-c", script).splitlines()

    assert needed == ["googleapis-common-protos", "grpcio", "numpy", "protobuf"]
    assert server.startswith(f"None None {python.parents[1]}/")
    assert heavy == ""


def test_a_program_that_uses_the_client_is_typed(python: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import PIL.Image

from vecgate.client import AsyncClient, Client, Object, near_inputs, where

PICTURE = PIL.Image.new("RGB", (1, 1))
OBJECTS = [Object({"a": np.float32(1)}, images={"i": Path("x")}, id=uuid4()), Object(images={"i": PICTURE})]

async def some() -> AsyncIterator[Object]:
    yield OBJECTS[0]

async def main(client: AsyncClient) -> bytes:
    await client.embed(["a", b"x", bytearray(), Path("a.png"), PICTURE])
    ids = [outcome.id async for outcome in client.import_objects("A", some())]
    ids += [outcome.id async for outcome in client.import_objects("A", OBJECTS)]
    return (await client.search("A", image=PICTURE, target_vector={"a": 0.5})).hits[0].object.images["a"]

with Client() as client:
    query = near_inputs("a", PICTURE, np.ones(3), uuid4())
    distance: float | None = client.search("A", query=query, filters=where("a") == "b").hits[0].distance
    print(client.embed(PICTURE).matrix().shape, [each.id for each in client.list_objects("A")])
""")
    # Kept between runs, because numpy takes most of the time.
    cache = ("--cache-dir", ROOT / ".mypy_cache" / "client")
    mypy = ("-m", "mypy", "--strict", "--config-file", "", *cache, "--python-executable", python)

    assert run(sys.executable, *mypy, program, cwd=tmp_path) == "Success: no issues found in 1 source file\n"


@pytest.mark.parametrize("script", [BLOCKING, ASYNCIO], ids=["blocking", "asyncio"])
def test_the_installed_client_embeds(python: Path, script: str) -> None:
    with serving(FakeVecgate()) as fake:
        assert run(python, "-I", "-c", script, fake.address) == "(1, 4)\n"
