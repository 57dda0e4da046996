"""Near-duplicates of real pictures, with the bundled model and a real Weaviate."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from service.cli import app
from tests.e2e.serving import Serving, serving

pytestmark = pytest.mark.e2e

PICTURES = Path(__file__).parents[1] / "data/pictures"
COPIED = ("airplane", "abacus", "accordion", "camping", "dog", "rocket")
Run = Callable[..., Result]


def as_jpeg(file: Path, side: int, quality: int) -> bytes:
    """Return a picture as somebody passes it on: on white, in another size, as JPEG."""
    with Image.open(file) as picture:
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture.convert("RGBA"))
    copy = io.BytesIO()
    white.convert("RGB").resize((side, side), Image.Resampling.LANCZOS).save(copy, "JPEG", quality=quality)
    return copy.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures; of six of them there is the same file once more, and two copies."""
    made = tmp_path_factory.mktemp("pictures")
    files = sorted(PICTURES.glob("*.png"))
    chosen = {*files[::12], *(PICTURES / f"{name}.png" for name in COPIED)}
    for file in chosen:
        (made / file.name).write_bytes(file.read_bytes())
    for name in COPIED:
        file = PICTURES / f"{name}.png"
        (made / f"zz-{name}-same.png").write_bytes(file.read_bytes())
        with Image.open(file) as picture:
            side = picture.width
        (made / f"zz-{name}-small.jpg").write_bytes(as_jpeg(file, side * 3 // 4, 85))
        (made / f"zz-{name}-big.jpg").write_bytes(as_jpeg(file, side * 2, 70))
    return made


@pytest.fixture(scope="module")
def running(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("duplicates")) as server:
        server.wait_for("serving")
        yield server


@pytest.fixture
def run(running: Serving) -> Run:
    return lambda *arguments: CliRunner().invoke(app, ["--address", running.address, *arguments])


def test_copies_of_pictures_are_left_out_and_different_pictures_are_not(run: Run, folder: Path) -> None:
    originals = len([each for each in folder.iterdir() if not each.name.startswith("zz-")])

    result = run("import", str(folder), "--collection", "Kept", "--duplicates", "skip")
    again = run("import", str(folder), "--collection", "Kept", "--duplicates", "skip")

    assert result.exit_code == 0, result.output
    named = dict(re.findall(r"^  (\S+): (\S+), ", result.stdout, re.MULTILINE))
    copies = {name: of for name, of in named.items() if name.startswith("zz-")}
    right = {name: of for name, of in copies.items() if name.removeprefix("zz-").rpartition("-")[0] == of[:-4]}
    assert len(right) >= 3 * len(COPIED) - 2, result.stdout
    assert len(copies) == len(right), result.stdout
    assert len(named) - len(copies) <= originals // 20, "different pictures that are taken for copies"
    assert {f"zz-{name}-same.png" for name in COPIED} <= right.keys()
    assert "the same content" in result.stdout
    assert f"{len(named)} left out as duplicates" in result.stdout
    assert again.stdout == result.stdout


def test_groups_of_a_stored_collection_are_shown_with_their_pictures(run: Run, folder: Path, tmp_path: Path) -> None:
    run("import", str(folder), "--collection", "All")
    page = tmp_path / "page.html"

    result = run("duplicates", "All", "--json", "--html", str(page))

    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    groups = [{each["name"] for each in group} for group in answer["groups"]]
    for name in COPIED:
        (own,) = [group for group in groups if f"{name}.png" in group]
        assert f"zz-{name}-same.png" in own
    assert answer["objects"] == len(list(folder.iterdir()))
    assert page.read_text(encoding="utf-8").count("<img") == sum(map(len, groups))
    assert "measured with 32 pictures" in result.stderr
