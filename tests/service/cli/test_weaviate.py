"""`vecgate weaviate`: the program that is put in place, and the data that is removed."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from service.store.embedded import binary


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a server leaves it."""
    folder = tmp_path / "weaviate"
    (folder / "data" / "pictures").mkdir(parents=True)
    for name in ("data/pictures/segment", "weaviate.log", "vecgate.lock"):
        (folder / name).write_text("x")
    monkeypatch.setenv("VECGATE_WEAVIATE__DATA_DIR", str(folder))
    return folder


def clear() -> Result:
    return CliRunner().invoke(app, ["weaviate", "clear"])


def test_clear_removes_what_the_server_stored(data: Path) -> None:
    first, second = clear(), clear()

    assert (first.exit_code, first.stdout) == (0, f"everything stored in {data} is removed\n")
    assert (second.exit_code, second.stdout) == (0, f"nothing is stored in {data}\n")
    assert not data.exists()


def test_clear_needs_nothing_of_what_a_server_needs(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_SERVER__HOST", "0.0.0.0")

    assert clear().exit_code == 0

    assert not data.exists()


def test_clear_leaves_files_of_others(data: Path) -> None:
    (data / "mine.txt").write_text("x")

    assert clear().exit_code == 0

    assert [each.name for each in data.iterdir()] == ["mine.txt"]


def test_clear_refuses_a_folder_that_no_server_has_used(data: Path) -> None:
    (data / "vecgate.lock").unlink()

    assert clear().exit_code == 1

    assert (data / "data" / "pictures" / "segment").exists()


def test_clear_refuses_while_a_server_runs(data: Path) -> None:
    with (data / "vecgate.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = clear()

    assert (result.exit_code, "in use by a running Vecgate" in result.stderr) == (1, True)
    assert (data / "data").exists()


def test_clear_refuses_while_a_weaviate_that_was_left_behind_runs(data: Path) -> None:
    (data / "weaviate.pid").write_text(json.dumps({"pid": os.getpid()}))

    result = clear()

    assert (result.exit_code, f"process {os.getpid()}" in result.stderr) == (1, True)
    assert (data / "data").exists()


@pytest.fixture
def no_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Weaviate server program is found anywhere."""

    def find(configured: Path | None) -> Path:
        raise binary.WeaviateBinaryMissing(f"none, not even {configured}")

    monkeypatch.setattr(binary, "find_binary", find)


def test_install_does_nothing_where_the_setting_names_a_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "weaviate-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("VECGATE_WEAVIATE__BINARY", str(program))
    monkeypatch.setattr(binary, "install_binary", lambda report: report("building"))

    result = CliRunner().invoke(app, ["weaviate", "install"])

    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.usefixtures("no_binary")
def test_install_prints_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(report: Callable[[str], None]) -> None:
        report("building")

    monkeypatch.setattr(binary, "install_binary", install)

    result = CliRunner().invoke(app, ["weaviate", "install"])

    assert (result.exit_code, result.stdout) == (0, "building\n")


@pytest.mark.usefixtures("no_binary")
def test_install_that_fails_says_why_and_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(report: Callable[[str], None]) -> None:
        report("building")
        raise binary.WeaviateBinaryMissing("no Go here")

    monkeypatch.setattr(binary, "install_binary", install)

    result = CliRunner().invoke(app, ["weaviate", "install"])

    assert (result.exit_code, result.stderr) == (1, "error: no Go here\n")
