"""Docs that could drift from the code."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from service.cli import app
from service.process.metrics_table import PAGE as METRICS_PAGE
from service.process.metrics_table import with_metrics
from service.settings import KINDS, describe_embedders, describe_settings
from service.settings.table import PAGE as SETTINGS_PAGE
from service.settings.table import make_page
from tests.pages import ROOT, blocks, pages, prose
from vecgate.v1.error_reason_pb2 import ErrorReason

# Pages that say what once was, or what another project's files are called.
HISTORY = {"CHANGELOG.md"}
COMMANDS: Any = typer.main.get_command(app)
PATH = re.compile(r"`((?:[\w.*-]+/)+[\w.*-]*)`")
FOLDERS = ("protos/", "service/", "embedders/", "tests/", "helm/")


def test_the_page_of_settings_is_fresh() -> None:
    assert SETTINGS_PAGE.read_text(encoding="utf-8") == make_page(), "run `make docs`"


def test_the_table_of_metrics_is_fresh() -> None:
    text = METRICS_PAGE.read_text(encoding="utf-8")

    assert text == with_metrics(text), "run `make docs`"


def test_the_client_guide_names_every_error_reason() -> None:
    text = (ROOT / "protos/README.md").read_text(encoding="utf-8")
    names = ErrorReason.keys()
    reasons = {name.removeprefix("ERROR_REASON_") for name in names} - {"UNSPECIFIED"}

    assert {reason for reason in reasons if f"`{reason}`" not in text} == set()


@pytest.mark.parametrize(("page", "most"), [("README.md", 10_000), ("DECISIONS.md", 20_000), ("CHANGELOG.md", 8_000)])
def test_a_page_that_everyone_reads_stays_short(page: str, most: int) -> None:
    assert (ROOT / page).stat().st_size <= most


def test_the_index_of_decisions_names_every_record() -> None:
    index, _, records = (ROOT / "DECISIONS.md").read_text(encoding="utf-8").partition("\n## ")
    named = re.findall(r"\b\d+\b", re.sub(r"`.*?`", "", index))

    assert [number for number in re.findall(r"^(?:## )?(\d+)\. ", records, re.MULTILINE) if number not in named] == []


def test_links_between_pages_lead_to_files_and_headings() -> None:
    for page in pages():
        for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)]*)?\)", prose(page)):
            file = page.parent / target if target else page
            assert file.exists(), f"{page}: {target}"
            assert not heading or heading in headings(file), f"{page}: {target}{heading}"


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_paths_that_pages_name_exist() -> None:
    missing = []
    for page in pages():
        for path in PATH.findall(prose(page)):
            known = path.startswith(FOLDERS) or path.endswith((".py", ".md", ".yaml", ".proto"))
            if known and str(page.relative_to(ROOT)) not in HISTORY:
                found = [*ROOT.glob(path), *page.parent.glob(path)]
                missing += [f"{page.relative_to(ROOT)}: {path}"] * (not found)

    assert not missing, missing


def test_settings_that_pages_name_exist() -> None:
    known = {name for name, _ in describe_settings()}
    known |= {name for kind in KINDS for name, _ in describe_embedders(kind)}
    named = {
        f"{page.relative_to(ROOT)}: {name}"
        for page in pages()
        if str(page.relative_to(ROOT)) not in HISTORY
        for name in re.findall(r"\bVECGATE_[A-Z]+__[A-Z0-9_]*[A-Z]\b", page.read_text(encoding="utf-8"))
        if re.sub("(?<=_EMBEDDERS__)[A-Z0-9_]+(?=__)", "<NAME>", name) not in known
    }

    assert named == set()


def test_make_targets_that_pages_name_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for page in pages():
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`(?:[A-Z_]+=\S+ )?make ([a-z-]+)", text)
        named += re.findall(r"^(?:[A-Z_]+=\S+ )?make ([a-z-]+)", text, re.MULTILINE)
        assert [name for name in named if name not in targets] == [], page


def test_packages_that_pages_have_installed_exist() -> None:
    server, client = (
        tomllib.loads((ROOT / file).read_text(encoding="utf-8"))["project"]
        for file in ("pyproject.toml", "protos/pyproject.toml")
    )
    known = {client["name"], server["name"], *server["optional-dependencies"]}
    for page in pages():
        for package in re.findall(r"pip install '?(vecgate[^'`\s]*)", page.read_text(encoding="utf-8")):
            assert set(re.findall(r"[a-z-]+", package)) <= known, f"{page}: {package}"


def commands(page: Path) -> Iterator[str]:
    """Yield the lines of the command line that a page names, within its text and in its blocks."""
    yield from re.findall(r"`(vecgate [^`]*)`", prose(page))
    for block in blocks(page):
        if block.language == "sh":
            yield from re.findall(r"^(vecgate [^#\n]*)", block.code, re.MULTILINE)


def test_commands_and_options_that_pages_name_exist() -> None:
    wrong = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in pages()
        if str(page.relative_to(ROOT)) not in HISTORY
        for line in commands(page)
        if not is_command(shlex.split(line)[1:])
    ]

    assert not wrong, wrong


def is_command(words: list[str]) -> bool:
    """Return whether words are a command, or begin one, with options that it has."""
    command = COMMANDS
    before = ""
    for word in words:
        options = {name for each in command.params for name in each.opts} | {"--help"}
        subcommands = getattr(command, "commands", {})
        if word.startswith("--") and word not in options:
            return False
        if word in subcommands:
            command = subcommands[word]
        elif subcommands and not word.startswith("--") and before not in options:
            return False
        before = word
    return True


def test_the_locks_name_no_host_and_pin_every_package_by_hash() -> None:
    locks = [*ROOT.glob("requirements-*.txt"), *ROOT.glob("tests/bench/peers/requirements-*.txt")]
    for lock in locks:
        text = lock.read_text(encoding="utf-8")
        pins = re.findall(r"^[a-z0-9][^ =]*==", text, re.MULTILINE)

        assert "://" not in text
        assert len(re.findall(r"^ +--hash=sha256:", text, re.MULTILINE)) >= len(pins) > 10
    assert locks


@pytest.mark.parametrize("target", ["setup", "model"])
def test_make_installs_into_the_projects_own_environment_whichever_is_active(target: str) -> None:
    command = ["make", "--dry-run", "--always-make", target]
    steps = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    installs = [step for step in steps if "uv pip install" in step]

    assert installs
    assert [step for step in installs if "--python .venv/bin/python" not in step] == []


def test_the_version_stands_in_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert f"## [{version}]" in changelog or "## [Unreleased]" in changelog


def test_no_large_file_is_in_the_repository_but_the_models_weights() -> None:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    large = [name for name in names.split("\0") if name and (ROOT / name).stat().st_size > 500_000]

    assert [name for name in large if not name.endswith(".safetensors")] == []
