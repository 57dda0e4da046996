"""Pictures of hits in terminals that show them, and nothing but the table in all others."""

import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from PIL import Image
from typer.testing import CliRunner

from service.cli import app, output, terminal, thumbnails
from service.cli.terminal import Screen, Way
from tests.fakes.embedder import picture
from tests.fakes.server import FakeVecgate, serving
from tests.fakes.statuses import failure
from tests.fakes.terminal import (
    AS_FOOT,
    AS_ITERM2,
    AS_KITTY,
    AS_TMUX,
    AS_VTE,
    ATTRIBUTES,
    KITTY,
    SILENT,
    VERSION,
    Shown,
    run_in_terminal,
)
from tests.service.cli.test_terminal import CONTROL, EVIL
from tests.service.conftest import Run
from vecgate.client import Client, Object
from vecgate.v1 import property_pb2 as property_pb

ROWS = [(str(n + 1), str(UUID(int=n))) for n in range(3)]
RED, BLUE = (220, 20, 20), (20, 20, 220)


def drawn(colour: tuple[int, int, int], file_format: str = "PNG") -> bytes:
    return picture(colour, size=(64, 64), file_format=file_format)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeVecgate]:
    """A red and a blue picture, text that would control a terminal, and an object without a picture."""
    with serving(FakeVecgate()) as running:
        running.add_collection("Pictures", name=property_pb.DATA_TYPE_TEXT, image=property_pb.DATA_TYPE_BLOB)
        objects = [
            Object({"name": "red"}, {"image": drawn(RED)}, id=str(UUID(int=0))),
            Object({"name": EVIL}, {"image": drawn(BLUE, "JPEG")}, id=str(UUID(int=1))),
            Object({"name": "none"}, id=str(UUID(int=2))),
        ]
        with Client(running.address) as client:
            assert all(each.stored for each in client.import_objects("Pictures", objects))
        yield running


@pytest.fixture
def run_on_pipe(server: FakeVecgate) -> Run:
    return lambda *arguments: CliRunner().invoke(app, ["--address", server.address, *arguments])


def search(server: FakeVecgate, folder: Path, answers: Mapping[bytes, bytes], *options: str, **more: Any) -> Shown:
    arguments = ("--address", server.address, "search", "red", *options)
    return run_in_terminal(folder / "report", answers, *arguments, **more)


def near(colour: Any, expected: tuple[int, ...], within: int = 12) -> bool:
    return all(abs(one - other) <= within for one, other in zip(colour, expected, strict=True))


def assert_clean(shown: Shown) -> None:
    """Assert that the table is there, and nothing that controls the terminal or that it answered."""
    assert (shown.code, shown.restored, shown.unread) == (0, True, b"")
    assert CONTROL.findall(shown.text) == []
    assert re.findall(r"^(\d) +[\d.]+ +([0-9a-f-]{36}) ", shown.text, re.MULTILINE) == ROWS
    assert not re.search(r"\^\[|\[\?|>\||i=31", shown.text), "an answer was echoed"


@pytest.mark.parametrize(
    ("answers", "pictures"),
    [(AS_KITTY, Shown.kitty_pictures), (AS_ITERM2, Shown.iterm2_pictures)],
    ids=["kitty", "iterm2"],
)
def test_kitty_and_iterm2_get_the_hits_beside_each_other(
    server: FakeVecgate, tmp_path: Path, answers: Mapping[bytes, bytes], pictures: Any
) -> None:
    shown = search(server, tmp_path, answers, pixels=(800, 480))

    assert_clean(shown)
    (strip,) = pictures(shown)
    assert strip.size == (460, 140)
    assert near(strip.getpixel((70, 70)), RED)
    assert near(strip.getpixel((150, 70)), (255, 255, 255)), "a gap"
    assert near(strip.getpixel((230, 70)), BLUE)
    assert near(strip.getpixel((390, 70)), (255, 255, 255)), "a hit without a picture"


@pytest.mark.parametrize(
    ("answers", "variables"),
    [(AS_FOOT, {}), (AS_TMUX, {"TERM": "tmux-256color", "TMUX": "/tmp/tmux,1,0"})],
    ids=["foot", "tmux"],
)
def test_terminals_with_sixels_get_them(
    server: FakeVecgate, tmp_path: Path, answers: Mapping[bytes, bytes], variables: dict[str, str]
) -> None:
    shown = search(server, tmp_path, answers, **variables)

    assert_clean(shown)
    (colours,) = shown.sixel_colours()
    assert any(near(each, (86, 8, 8), 3) for each in colours), colours
    assert any(near(each, (8, 8, 86), 3) for each in colours), colours


@pytest.mark.parametrize("answers", [SILENT, AS_VTE], ids=["silent", "vte"])
def test_terminals_without_pictures_get_the_table_alone(
    server: FakeVecgate, tmp_path: Path, answers: Mapping[bytes, bytes]
) -> None:
    asked_before = len(server.requests["GetObject"])

    shown = search(server, tmp_path, answers)

    assert_clean(shown)
    assert "[picture]" not in shown.text
    assert len(server.requests["GetObject"]) == asked_before, "no picture is read that nobody sees"


@pytest.fixture
def in_terminal(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Have this process think that it is in a terminal, which answers nothing; return what it is asked."""
    asked: list[bytes] = []
    monkeypatch.setattr(output, "to_terminal", lambda: True)
    monkeypatch.setattr(thumbnails, "to_terminal", lambda: True)
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr(terminal, "_ask", lambda questions: asked.append(questions) or b"")
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return asked


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (("--pictures", "never"), {}),
        (("--json",), {}),
        ((), {"TERM": "dumb"}),
        ((), {"TERM": "linux"}),
        ((), {"TERM": ""}),
        ((), {"VECGATE_PICTURES": "never"}),
    ],
    ids=["never", "json", "dumb", "linux", "nameless", "variable"],
)
def test_a_terminal_is_not_asked_where_no_picture_is_wanted(
    run_on_pipe: Run,
    in_terminal: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    variables: dict[str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert run_on_pipe("search", "red", *options).exit_code == 0
    assert in_terminal == []


@pytest.mark.parametrize(
    ("variables", "is_asked"),
    [
        ({}, True),
        ({"TMUX": "/tmp/tmux,1,0"}, False),
        ({"STY": "1.pts"}, False),
        ({"TERM": "screen.xterm-256color"}, False),
        ({"TERM": "tmux-256color"}, False),
    ],
)
def test_tmux_and_screen_are_not_asked_what_they_take_for_a_title(
    run_on_pipe: Run,
    in_terminal: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    *,
    is_asked: bool,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert run_on_pipe("search", "red").exit_code == 0

    (questions,) = in_terminal
    assert (KITTY in questions) is is_asked
    assert questions.endswith(ATTRIBUTES)


def test_what_was_typed_ahead_stays_for_the_next_program(server: FakeVecgate, tmp_path: Path) -> None:
    shown = search(server, tmp_path, AS_KITTY, typed=b"ls\n")

    assert (shown.code, shown.unread, shown.asked) == (0, b"ls\n", [])


def test_an_interrupted_question_leaves_the_terminal_as_it_was(server: FakeVecgate, tmp_path: Path) -> None:
    interrupt = {VERSION: b"\x03"}

    shown = search(server, tmp_path, interrupt)

    assert shown.restored
    assert shown.code != 0
    assert KITTY in shown.asked


def test_blocks_are_for_those_who_ask_for_them(server: FakeVecgate, tmp_path: Path, run_on_pipe: Run) -> None:
    shown = search(server, tmp_path, AS_VTE, "--pictures", "always")
    piped = run_on_pipe("search", "red", "--pictures", "always")

    assert (shown.code, piped.exit_code) == (0, 0)
    for written in (shown.written.decode(), piped.stdout):
        assert "▄" in written
        assert "\x1b[38;2;220;20;20m" in written


def test_a_pipe_gets_no_pictures(server: FakeVecgate, run_on_pipe: Run) -> None:
    asked_before = len(server.requests["GetObject"])

    result = run_on_pipe("search", "red")

    assert "\x1b" not in result.stdout
    assert len(server.requests["GetObject"]) == asked_before


def test_json_with_pictures_is_refused(run_on_pipe: Run) -> None:
    result = run_on_pipe("search", "red", "--json", "--pictures", "always")

    assert result.exit_code == 2
    assert "--save FOLDER" in result.stderr


def test_saved_images_are_not_read_a_second_time(server: FakeVecgate, run_on_pipe: Run, tmp_path: Path) -> None:
    asked_before = len(server.requests["GetObject"])

    result = run_on_pipe("search", "red", "--pictures", "always", "--save", str(tmp_path / "saved"))

    assert "▄" in result.stdout
    # The hit without an image is asked for again.
    assert len(server.requests["GetObject"]) == asked_before + 1


def test_hostile_pictures_are_left_out_and_the_others_shown(run: Run, fake: FakeVecgate) -> None:
    huge = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(huge, "PNG")
    contents = {
        "huge": huge.getvalue(),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "escapes": b"\x1b]0;title\x07" * 100,
        "cut": drawn(RED)[:60],
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "good": drawn(BLUE),
    }
    fake.add_collection("Pictures", name=property_pb.DATA_TYPE_TEXT, image=property_pb.DATA_TYPE_BLOB)
    objects = [
        Object({"name": name}, {"image": content}, id=str(UUID(int=n)))
        for n, (name, content) in enumerate(contents.items())
    ]
    with Client(fake.address) as client:
        assert all(each.stored for each in client.import_objects("Pictures", objects))

    result = run("search", "x", "--pictures", "always")

    assert result.exit_code == 0, result.output
    assert "\x1b[38;2;20;20;220m" in result.stdout
    assert "\x1b]" not in result.stdout
    assert "\x1b[38;2;220;20;20m" not in result.stdout


def test_calls_and_bytes_for_pictures_are_bounded(run: Run, fake: FakeVecgate, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.add_collection("Pictures", name=property_pb.DATA_TYPE_TEXT, image=property_pb.DATA_TYPE_BLOB)
    objects = [Object({"name": "a"}, {"image": drawn(RED)}, id=str(UUID(int=n))) for n in range(30)]
    with Client(fake.address) as client:
        assert all(each.stored for each in client.import_objects("Pictures", objects))

    assert run("search", "x", "--limit", "30", "--pictures", "always").exit_code == 0
    calls = len(fake.requests["GetObject"])
    monkeypatch.setattr(thumbnails, "TOTAL_BYTES", len(drawn(RED)) + 1)
    assert run("search", "x", "--limit", "30", "--pictures", "always").exit_code == 0

    assert calls == thumbnails.SHOWN
    assert len(fake.requests["GetObject"]) == calls + 2


def test_a_refused_picture_costs_the_pictures_and_not_the_hits(run: Run, pictures: FakeVecgate) -> None:
    pictures.failing["GetObject"] = [failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", EVIL)]

    result = run("search", "x", "--pictures", "always")

    assert result.exit_code == 0
    assert "pictures are left out: QUOTA_EXCEEDED" in result.stderr
    assert CONTROL.findall(result.stderr) == []
    assert len(result.stdout.splitlines()) == 4
    assert len(pictures.requests["GetObject"]) == 1


def test_the_pictures_are_those_that_vectors_are_made_of(fake: FakeVecgate) -> None:
    blobs = {"icon": property_pb.DATA_TYPE_BLOB, "photo": property_pb.DATA_TYPE_BLOB}
    fake.add_collection("A", title=property_pb.DATA_TYPE_TEXT, **blobs)
    fake.add_collection("B", **blobs)
    fake.add_collection("C", title=property_pb.DATA_TYPE_TEXT)
    fake.collections["B"].vectors[0].image_fields.add(name="photo")

    found = [thumbnails.picture_property(fake.collections[name]) for name in "ABC"]

    assert found == ["icon", "photo", None]


@pytest.mark.parametrize(
    ("screen", "row"),
    [
        (Screen(Way.KITTY, 200), 5),
        (Screen(Way.KITTY, 80), 5),
        (Screen(Way.KITTY, 40), 2),
        (Screen(Way.KITTY, 10), 1),
        (Screen(Way.SIXEL, 200, (20, 40)), 3),
        (Screen(Way.BLOCKS, 80, (1, 2)), 3),
    ],
)
def test_as_many_pictures_stand_in_a_row_as_fit(screen: Screen, row: int) -> None:
    assert thumbnails._per_row(screen) == row


@pytest.mark.parametrize(
    ("answer", "way"),
    [
        (b"\x1b_Gi=31;OK\x1b\\\x1bP>|WezTerm 20240203\x1b\\\x1b[?65;4;6;18;22c", Way.KITTY),
        (b"\x1b_Gi=31;ENOTSUPPORTED:\x1b\\\x1b[?62;4c", Way.SIXEL),
        (b"\x1b[?64;14;24c", None),
        (b"\x1b[?4c", Way.SIXEL),
        (b"", None),
    ],
)
def test_an_answer_says_how_pictures_are_shown(answer: bytes, way: Way | None) -> None:
    assert terminal._way(answer) is way
