"""What of the explorer needs no browser: its tests run in node, and its ids are those of the command line."""

import json
import subprocess
from pathlib import Path

import pytest

from embedders.images import formats
from service.cli.pictures import SUFFIXES, picture_id
from service.domain.keys import normal_path
from tests.environments import built, run
from tests.explorer.scripts import COMMANDS, SOURCES

LOGIC = Path(__file__).parent / "logic"
NAMES = (
    "dog.png",
    "./dog.png",
    "sub folder/dög.JPG",
    "cafe\u0301.png",
    "a\\b.png",
    "<img src=x onerror=alert(1)>.png",
    "\u202egnp.exe.png",
    "日本/😀.webp",
    "lone\ud800.png",
    "byte\udce9.png",
    "x" * 300 + ".gif",
)
"""Names of files as Python has them."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the programs in `logic`, each as one file that node runs."""
    folder = tmp_path_factory.mktemp("logic")
    options = ("--bundle", "--platform=node", "--format=esm", "--out-extension:.js=.mjs", f"--outdir={folder}")
    with built(SOURCES, COMMANDS, name="explorer") as programs:
        run((programs / "node_modules" / ".bin" / "esbuild", *sorted(LOGIC.glob("*.ts")), *options), LOGIC)
    return folder


def test_the_logic_passes_its_own_tests(bundles: Path) -> None:
    run(("node", "--test", *sorted(bundles.glob("*.test.mjs"))), bundles)


def test_paths_and_ids_are_those_of_the_command_line(bundles: Path) -> None:
    told = _told(bundles, {"collection": "Pictures", "paths": NAMES})

    assert told["made"] == [{"path": normal_path(each), "id": picture_id("Pictures", each)} for each in NAMES]


def test_the_same_names_are_pictures_as_for_the_command_line(bundles: Path) -> None:
    told = _told(bundles, {"collection": "Pictures", "paths": []})

    assert told["suffixes"] == sorted(SUFFIXES)
    assert told["heic"] == sorted(formats.HEIC_SUFFIXES)


def _told(bundles: Path, question: object) -> dict[str, list[object]]:
    """Return what the program says that makes ids."""
    asked = json.dumps(question)
    done = subprocess.run(("node", bundles / "ids.mjs"), input=asked, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))
