"""Docs that could drift from the code."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from service.process.metrics_table import with_metrics
from service.settings.table import README, with_table
from vecgate.v1.error_reason_pb2 import ErrorReason

ROOT = Path(__file__).parents[2]


def test_the_readme_lists_every_setting_as_it_is() -> None:
    text = README.read_text(encoding="utf-8")

    assert text == with_table(text), "run `make docs`"


def test_the_readme_lists_every_metric_as_it_is() -> None:
    text = README.read_text(encoding="utf-8")

    assert text == with_metrics(text), "run `make docs`"


def test_the_readme_names_every_error_reason() -> None:
    text = README.read_text(encoding="utf-8")
    names = ErrorReason.keys()
    reasons = {name.removeprefix("ERROR_REASON_") for name in names} - {"UNSPECIFIED"}

    assert {reason for reason in reasons if f"`{reason}`" not in text} == set()


def test_links_between_files_of_the_project_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("helm/**/*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_locks_name_no_host_and_pin_every_package_by_hash() -> None:
    locks = list(ROOT.glob("requirements-*.txt"))
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
