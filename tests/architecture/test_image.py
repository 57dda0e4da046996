"""The Dockerfile: linted, strict, and in step with the chart and with what it is built from."""

import json
import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml

from service import healthcheck

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IMAGES = ("gateway", "clip", "bulk")
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def stages() -> dict[str, str]:
    """Return the text of each stage by its name."""
    parts = re.split(r"^FROM .* AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def instruction(stage: str, name: str) -> str:
    (found,) = re.findall(rf"^{name} (.*)$", stages()[stage], re.MULTILINE)
    return str(found)


def lint(text: str) -> list[str]:
    answer = subprocess.run(
        [HADOLINT, "--format", "json", "-"], input=text, capture_output=True, text=True, check=False
    )
    return [finding["code"] for finding in json.loads(answer.stdout)]


def test_the_linter_finds_nothing() -> None:
    assert lint(DOCKERFILE) == []


def test_the_linter_would_find_something() -> None:
    assert "DL3007" in lint("FROM debian:latest\nRUN cd /tmp")


def test_the_images_run_as_the_user_of_the_chart_and_need_no_shell() -> None:
    values = yaml.safe_load((ROOT / "helm" / "vecgate" / "values.yaml").read_text(encoding="utf-8"))
    user = values["podSecurityContext"]

    assert instruction("runtime", "USER") == f"{user['runAsUser']}:{user['runAsGroup']}"
    assert json.loads(instruction("runtime", "ENTRYPOINT")) == ["vecgate"]
    assert json.loads(instruction("runtime", "CMD")) == ["serve"]
    assert json.loads(instruction("runtime", "HEALTHCHECK").partition(" CMD ")[2]) == [
        "python",
        "-m",
        healthcheck.__name__,
    ]
    for target in IMAGES:
        assert f"FROM runtime AS {target}" in DOCKERFILE
        assert not re.search(r"^(RUN|USER|ENTRYPOINT|CMD) ", stages()[target], re.MULTILINE)


@pytest.mark.parametrize(
    ("revision", "base", "built"),
    [
        ("unknown", "python:3.12-slim-bookworm", True),
        ("unknown", f"python@sha256:{'a' * 64}", True),
        ("0f0f", f"python:3.12-slim-bookworm@sha256:{'a' * 64}", True),
        ("0f0f", "python:3.12-slim-bookworm", False),
        ("0f0f", "registry.example:5000/python", False),
    ],
)
def test_a_build_that_states_its_revision_names_its_base_by_digest(revision: str, base: str, *, built: bool) -> None:
    (check,) = re.findall(r"^RUN (case .*?esac)$", stages()["tools"], re.MULTILINE | re.DOTALL)
    environment = {"REVISION": revision, "BASE_IMAGE": base}

    done = subprocess.run(["sh", "-c", check], env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode == 0) is built
    assert ("--build-arg BASE_IMAGE=" in done.stderr) is not built


def test_no_compiled_file_is_checked_by_a_time_that_a_push_rounds() -> None:
    compilers = re.findall(r"-m compileall ([^\n]*)", DOCKERFILE)

    assert len(compilers) == len(IMAGES) + 1
    # With -f also what a program has compiled that ran in between.
    assert [options for options in compilers if "-f --invalidation-mode unchecked-hash" not in options] == []


def test_the_images_say_what_they_are() -> None:
    names = ("title", "description", "licenses", "version", "revision", "created", "base.name")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

    for target in IMAGES:
        labels = stages()["runtime"] + stages()[target]
        assert [name for name in names if f"org.opencontainers.image.{name}=" not in labels] == []
    assert f"ARG VERSION={version}\n" in DOCKERFILE


def test_what_the_images_copy_is_let_through_to_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]

    assert "*" in ignored
    assert sorted(f"!{source}" for source in copied) == sorted(each for each in ignored if each.startswith("!"))
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize(("image", "large"), [("gateway", set()), ("clip", {"torch"}), ("bulk", {"torch", "ray"})])
def test_an_image_holds_what_its_lock_names(image: str, large: set[str]) -> None:
    lock = (ROOT / f"requirements-{image}.txt").read_text(encoding="utf-8")
    development = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    names = re.findall(r"^([a-z0-9][^ =]*)==", lock, re.MULTILINE)
    pins = re.findall(r"^[a-z0-9][^ =]*==\S+", lock, re.MULTILINE)

    assert f"--require-hashes --requirement requirements-{image}.txt" in stages()[f"{image}-environment"]
    assert {"torch", "ray"}.intersection(names) == large
    assert "grpcio" in names
    assert [pin for pin in pins if pin not in development] == [], "what was tested is what is shipped"
