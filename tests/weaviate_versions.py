"""Runs the tests that need a real Weaviate with other versions of it: `make test-weaviate`.

make test-weaviate VERSIONS="1.38.x 1.39.3" PYTEST_ARGS=tests/e2e/test_store.py
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from service.store.embedded.binary import WEAVIATE_VERSION, WeaviateBinaryMissing, install_binary

TESTED = ("1.38.14", WEAVIATE_VERSION)
"""What 1.38.x and 1.39.x stand for."""

TESTS = "tests/e2e"
UNDER_TEST = os.environ.get("WEAVIATE_UNDER_TEST", WEAVIATE_VERSION)

needs_removal = pytest.mark.skipif(
    UNDER_TEST.startswith("1.38."), reason="Weaviate 1.38 fails updates of objects after it has removed a named vector"
)


def exact(version: str) -> str:
    """Return a version of Weaviate with its patch number.

    Raises:
        SystemExit: it ends with .x, and this project knows none of that minor version.
    """
    minor, _, patch = version.rpartition(".")
    if patch != "x":
        return version
    found = next((each for each in TESTED if each.rpartition(".")[0] == minor), None)
    if found is None:
        sys.exit(
            f"no version stands for {version}; give an exact one, such as {minor}.0, or one of {', '.join(TESTED)}"
        )
    return found


def environment_with(program: Path, folder: Path) -> dict[str, str]:
    """Return an environment in which Vecgate finds this Weaviate: first on the path, and none in the cache."""
    cache, path = folder / "cache" / "vecgate", folder / "bin"
    cache.mkdir(parents=True)
    path.mkdir()
    for each in user_cache_path("vecgate").iterdir():
        if each.name != "weaviate":
            (cache / each.name).symlink_to(each)
    (path / "weaviate-server").symlink_to(program)
    return os.environ | {"XDG_CACHE_HOME": str(cache.parent), "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}


def run(version: str, arguments: Sequence[str]) -> str:
    """Run the tests with a version of Weaviate, and return what became of them."""
    try:
        program = install_binary(version=version)
    except WeaviateBinaryMissing as error:
        return str(error)
    with tempfile.TemporaryDirectory() as folder:
        tests = [sys.executable, "-m", "pytest", *arguments]
        environment = environment_with(program, Path(folder)) | {"WEAVIATE_UNDER_TEST": version}
        code = subprocess.run(tests, env=environment, check=False).returncode
    return "passed" if code == 0 else f"failed with code {code}"


def main() -> None:
    """Test each version that the command line names, and end with 1 if one of them failed."""
    arguments = shlex.split(os.environ.get("PYTEST_ARGS", "")) or [TESTS]
    outcomes = {version: run(version, arguments) for version in map(exact, sys.argv[1:] or TESTED)}
    for version, outcome in outcomes.items():
        sys.stdout.write(f"Weaviate {version}: {outcome}\n")
    sys.exit(any(outcome != "passed" for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
