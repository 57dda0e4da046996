"""Whoever stored a text, named a thing or wrote a message: the operator's terminal shows it and does not obey it."""

import ast
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from click.testing import Result
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner

from service.cli import app, output
from tests.fakes.server import FakeVecgate, serving
from tests.fakes.statuses import failure
from tests.service.conftest import PNG
from vecgate.client import Client, Object
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import tenant_pb2 as tenant_pb

EVIL = (
    "\x1b[31mred\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b]52;c;cHduZWQ=\x07\x1bPq\x1b\\\r\x08\x7f"
    "\x9b2J\x9d52;c;x\x9c\u202egnp\u2066x\u2028error: forged\nerror: forged [red]x[/red] :smile:"
)
"""Colour, title, link, clipboard, screen, overwriting, direction, lines, and rich's own markup."""

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
STYLE = re.compile(r"\x1b\[[0-9;]*m")
ID = str(UUID(int=7))
CLI = sorted((Path(__file__).parents[3] / "service" / "cli").glob("*.py"))


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        running.add_collection(EVIL, title=property_pb.DATA_TYPE_TEXT, image=property_pb.DATA_TYPE_BLOB)
        collection = running.collections[EVIL]
        collection.description = EVIL
        collection.properties.add(name=EVIL, data_type=property_pb.DATA_TYPE_TEXT, description=EVIL)
        collection.vectors.add(name=EVIL, model=EVIL, space=EVIL, embedder=EVIL, text_fields=[{"name": EVIL}])
        collection.multi_tenancy.enabled = True
        running.tenants[EVIL] = {EVIL: tenant_pb.Tenant(name=EVIL)}
        running.embedder.name = running.embedder.model = running.embedder.health_detail = EVIL
        with Client(running.address) as client:
            assert all(each.stored for each in client.import_objects(EVIL, Object({"title": EVIL, EVIL: EVIL}, id=ID)))
        yield running


Run = Callable[..., Result]


@pytest.fixture(params=["pipe", "terminal"])
def run(fake: FakeVecgate, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    if request.param == "terminal":
        monkeypatch.setattr(output, "to_terminal", lambda: True)
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments, **more: CliRunner().invoke(app, ["--address", fake.address, *arguments], **more)


def assert_harmless(result: Result) -> None:
    shown = STYLE.sub("", result.output)
    assert CONTROL.findall(shown) == []
    assert not re.search("^error: forged", shown, re.MULTILINE)
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("collections", "list"),
        ("collections", "show", EVIL),
        ("objects", "list", EVIL),
        ("objects", "update", EVIL, ID, "--set", f"title={EVIL}"),
        ("objects", "backfill", EVIL),
        ("objects", "delete", EVIL, ID),
        ("objects", "delete", EVIL, "--where", f"title={EVIL}"),
        ("tenants", "list", EVIL),
        ("tenants", "delete", EVIL, EVIL),
        ("collections", "delete", EVIL),
        ("search", EVIL, "--collection", EVIL),
        ("search", EVIL),
        ("embed", EVIL),
        ("weaviate-config", EVIL, "--base-url", "http://x"),
        ("objects", "list", f"no {EVIL}"),
        ("import", EVIL, "--collection", EVIL),
        ("collections", "create", EVIL, "--property", EVIL),
    ],
    ids=lambda arguments: " ".join(arguments)[:30].encode("unicode_escape").decode(),
)
def test_no_command_lets_a_text_control_the_terminal(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, input="y\n")

    assert_harmless(result)


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (("status",), "ListEmbedders"),
        (("objects", "list", EVIL), "ListObjects"),
        (("search", "x", "--collection", EVIL), "SearchObjects"),
        (("objects", "get", EVIL, ID), "GetObject"),
        (("collections", "delete", EVIL, "--yes"), "DeleteCollection"),
    ],
)
def test_a_servers_message_is_one_line(fake: FakeVecgate, run: Run, arguments: tuple[str, ...], method: str) -> None:
    fake.failing[method] = [failure(grpc.StatusCode.INTERNAL, EVIL, EVIL, request_id=EVIL)] * 5

    result = run(*arguments)

    assert_harmless(result)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("objects", "get", EVIL, ID), ("objects", "list", EVIL, "--json")])
def test_json_is_harmless_and_holds_the_values(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert_harmless(result)
    assert json.loads(result.stdout)["properties"] == {"title": EVIL, EVIL: EVIL}


def test_names_of_files_and_reasons_of_failures_are_harmless(fake: FakeVecgate, tmp_path: Path) -> None:
    name = EVIL.replace("/", "")[:100]
    (tmp_path / f"{name}.png").write_bytes(PNG)
    (tmp_path / f"{name}.heic").write_bytes(PNG)
    (tmp_path / "table.csv").write_text(f'file,title\n"{name}.jpg","a"\n', encoding="utf-8")
    fake.add_collection("Pictures", image=property_pb.DATA_TYPE_BLOB, title=property_pb.DATA_TYPE_TEXT)
    fake.refuse = lambda _: failure(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_EMPTY", EVIL)

    result = CliRunner().invoke(app, ["--address", fake.address, "import", str(tmp_path), "--collection", "Pictures"])

    assert_harmless(result)
    assert result.stdout.count(r"\x1b[31mred\x1b]0;title\x07") == 5


def test_a_progress_bar_shows_what_it_is_about_as_it_is() -> None:
    written = io.StringIO()
    with Progress(output.Doing(), console=Console(file=written, force_terminal=False)) as progress:
        progress.add_task(f"importing into {EVIL}", total=1)

    assert CONTROL.findall(written.getvalue()) == []
    assert "[red]x[/red]" in written.getvalue()


def test_nothing_but_the_one_module_prints() -> None:
    printing = re.compile(r"(typer|click)\.(echo|secho|confirm|prompt)|sys\.std(out|err).*|print|Console|TextColumn")
    called = [
        f"{path.name}: {ast.unparse(node.func)}"
        for path in CLI
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and path.name != "output.py"
    ]

    assert len(called) > 100
    assert [each for each in called if printing.fullmatch(each.partition(": ")[2])] == []


def test_a_table_on_a_pipe_has_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("a", "b"), [(EVIL, "x"), ("y", EVIL)])

    assert capsys.readouterr().out.count("\n") == 3
