"""`vecgate import` takes what can be read, names what it ignores, and lets odd files fail alone."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from service.cli.pictures import picture_id
from tests.fakes.server import FakeVecgate, serving

ROOT = Path(__file__).parents[3]
Import = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures and a table of them, so that pictures beside them are listed as not in it."""
    for name in ("a.png", "b.jpg", "sub/c.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "pictures.csv").write_text("file,name\na.png,A\nb.jpg,B\nsub/c.webp,C\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def import_(fake: FakeVecgate, folder: Path) -> Import:
    return lambda *options: CliRunner().invoke(
        app, ["--address", fake.address, "import", str(folder), "--collection", "Pictures", *options]
    )


def test_every_suffix_of_a_format_that_is_read_is_imported_and_all_else_is_named(
    import_: Import, fake: FakeVecgate, folder: Path
) -> None:
    taken = ["1.avif", "2.JFIF", "3.jpe", "4.tif", "5.Png", "6.dib", "7.apng", "sub/8.mpo", ".9.gif"]
    others = ["a.heic", "b.HEIC", "sub/c.heic", "d.heic", "e.HIF", "notes.txt", "Thumbs.db", "Makefile", ".hidden"]
    for name in (*taken, *others):
        (folder / name).write_bytes(name.encode())

    result = import_()

    assert result.exit_code == 0
    paths = {each.properties["path"] for each in fake.objects["Pictures"].values()}
    assert paths == {"a.png", "b.jpg", "sub/c.webp", *taken}
    assert result.stdout.split("ignored:\n")[1].splitlines()[:5] == [
        "  .heic (4): a.heic, b.HEIC, d.heic and 1 more; HEIC is not read: convert it to JPEG or PNG",
        "  no suffix (2): .hidden, Makefile",
        "  .db (1): Thumbs.db",
        "  .hif (1): e.HIF; HEIC is not read: convert it to JPEG or PNG",
        "  .txt (1): notes.txt",
    ]


def test_a_name_that_is_not_utf_8_is_stored_as_in_a_uri_and_found_by_the_table(
    import_: Import, fake: FakeVecgate, folder: Path
) -> None:
    for name in (b"caf\xe9.png", b"\xff\xfe.jpg"):
        (folder / os.fsdecode(name)).write_bytes(b"x")
    (folder / "pictures.csv").write_text("file,name\ncaf%E9.png,Coffee\n", encoding="utf-8")

    result = import_()

    assert result.exit_code == 0
    by_path = {each.properties["path"]: each for each in fake.objects["Pictures"].values()}
    assert by_path["caf%E9.png"].properties["name"] == "Coffee"
    assert by_path["caf%E9.png"].id == picture_id("Pictures", "caf%E9.png")
    assert "%FF%FE.jpg" in by_path
    assert "  %FF%FE.jpg\n" in result.stdout


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines.png", r"two\nlines.png"),
        ("\x1b[2J\x1b]0;x\x07.png", r"\x1b[2J\x1b]0;x\x07.png"),
        ("\u202egnp.png", r"\u202egnp.png"),
        ("\x9b31m.png", r"\x9b31m.png"),
        (f"{'n' * 250}.png", f"{'n' * 250}.png"),
        ("--help.png", "--help.png"),
        ("[red]x.png", "[red]x.png"),
        ("猫 🐈.png", "猫 🐈.png"),
    ],
)
def test_odd_names_are_stored_as_they_are_and_listed_in_one_line(
    import_: Import, fake: FakeVecgate, folder: Path, name: str, shown: str
) -> None:
    (folder / name).write_bytes(b"odd")

    result = import_()

    assert result.exit_code == 0
    assert name in {each.properties["path"] for each in fake.objects["Pictures"].values()}
    assert f"  {shown}\n" in result.stdout


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_odd_names_are_listed_by_a_process_of_its_own_in_any_locale(
    fake: FakeVecgate, folder: Path, locale: str
) -> None:
    for name in (b"caf\xe9.png", b"\xff.heic", "猫\x1b[2J.png".encode()):
        (folder / os.fsdecode(name)).write_bytes(b"x")
    command = [sys.executable, "-m", "service", "--address", fake.address, "import", str(folder), "--collection", "P"]

    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "LC_ALL": locale}, capture_output=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, b"the collection P is created\n")
    assert "\n  caf%E9.png\n  猫\\x1b[2J.png\n" in ended.stdout.decode()
    assert "  .heic (1): %FF.heic; HEIC is not read" in ended.stdout.decode()


def test_what_cannot_be_read_fails_alone_by_name(import_: Import, fake: FakeVecgate, folder: Path) -> None:
    (folder / "dangling.png").symlink_to(folder / "nowhere")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "large.png").touch()
    os.truncate(folder / "large.png", 2**33)
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inside.png").write_bytes(b"inside")
    (folder / "round.png").symlink_to(folder)
    (folder / "sub" / "up").symlink_to(folder)

    result = import_("--no-properties")

    assert result.exit_code == 1
    paths = {each.properties["path"] for each in fake.objects["Pictures"].values()}
    assert paths == {"a.png", "b.jpg", "sub/c.webp", "folder.png/inside.png"}
    for reason, names in {
        "No such file or directory": ["dangling.png"],
        "Too many levels of symbolic links": ["loop.png"],
        "it is empty": ["empty.png"],
        f"it has {2**33} bytes; the limit is {2**29}": ["large.png"],
        "it is a pipe, a socket or a device": ["device.png", "pipe.png"],
    }.items():
        lines = [f"the file cannot be read: {reason} ({len(names)})", *(f"  {name}" for name in names)]
        assert "\n".join(lines) in result.stdout
    assert "  links to folders (2): round.png, sub/up\n" in result.stdout


def test_a_file_or_folder_that_vanishes_meanwhile_fails_alone(
    import_: Import, fake: FakeVecgate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "gone").mkdir()
    (folder / "gone" / "x.png").write_bytes(b"x")
    walk, stat = os.scandir, Path.stat

    def scandir(path: str) -> object:
        if str(path).endswith("gone"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return walk(path)

    def stat_late(path: Path, **options: bool) -> os.stat_result:
        if path.name == "b.jpg":
            path.unlink(missing_ok=True)
        return stat(path, **options)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "stat", stat_late)

    result = import_()

    assert result.exit_code == 1
    assert {each.properties["path"] for each in fake.objects["Pictures"].values()} == {"a.png", "sub/c.webp"}
    assert "the folder cannot be read: No such file or directory (1)\n  gone\n" in result.stdout
    assert "the file cannot be read: No such file or directory (1)\n  b.jpg\n" in result.stdout


def test_of_two_names_that_are_one_path_the_second_fails_by_name(
    import_: Import, fake: FakeVecgate, folder: Path
) -> None:
    (folder / "\u00e9.png").write_bytes(b"composed")
    (folder / "e\u0301.png").write_bytes(b"decomposed")
    (folder / "sub\\c.webp").write_bytes(b"backslash")

    result = import_()

    assert result.exit_code == 1
    assert len(fake.objects["Pictures"]) == 4
    assert result.stdout.startswith("Pictures: 4 stored, 2 failed\n")
    composed, decomposed = "\u00e9.png", "e\u0301.png"
    assert f"its path is that of {decomposed}, spelled in another way; rename one (1)\n  {composed}\n" in result.stdout
    assert "its path is that of sub/c.webp, spelled in another way; rename one (1)\n  sub\\c.webp\n" in result.stdout
