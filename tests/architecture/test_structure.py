"""The shape of the code: sizes, exports, and what loading the server loads."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import embedders
import service
import vecgate

ROOT = Path(__file__).parents[2]
OURS = sorted(
    path
    for folder in ("embedders", "service", "protos", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if "_pb2" not in path.name
)
MAX_FUNCTION_LINES = 60
ARTICLE = re.compile(r"\b[Aa]n? [\"'(`]?$")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_functions_are_short_and_modules_have_telling_names(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES]
    assert long == []
    assert path.stem not in VAGUE_NAMES


@pytest.mark.parametrize("path", [path for path in OURS if "tests" not in path.parts], ids=name_of)
def test_no_message_puts_a_word_that_it_does_not_know_behind_an_article(path: Path) -> None:
    messages = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.JoinedStr)
    ]
    parts = [pair for message in messages for pair in pairwise(message.values)]

    behind = [
        f"{before.value}{{{ast.unparse(after.value)}}}"
        for before, after in parts
        if isinstance(before, ast.Constant) and isinstance(after, ast.FormattedValue) and ARTICLE.search(before.value)
    ]

    assert behind == [], "a or an? Let the value bring its article, or turn the sentence round"


MODULES = [
    module.name
    for package in (embedders, service, vecgate)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if "_pb2" not in module.name and not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_everything_exported_exists(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])

    assert [each for each in exported if not hasattr(module, each)] == []


def test_loading_the_server_loads_no_torch() -> None:
    code = "import sys, service.one_server; print(sorted({'torch', 'open_clip', 'torchvision'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert answer.stdout.strip() == "[]"


def test_loading_the_client_loads_nothing_of_the_server() -> None:
    code = "import sys, vecgate.client; print(sorted({m.split('.')[0] for m in sys.modules}))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "protos"
    )

    loaded = set(ast.literal_eval(answer.stdout))
    assert {"vecgate", "grpc", "numpy"} <= loaded
    assert not loaded & {"embedders", "service", "weaviate", "httpx", "pydantic", "structlog", "torch", "typer"}
