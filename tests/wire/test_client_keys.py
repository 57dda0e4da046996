"""The file of clients' keys: what it takes, how it changes, and how keys are made and brought."""

import asyncio
from pathlib import Path

import pytest
import structlog
from click.testing import Result
from grpc import StatusCode
from typer.testing import CliRunner

from service.auth.clients import Client, Permission
from service.auth.gate import Gate
from service.auth.keys import hash_key, read_keys
from service.cli import app
from service.settings import AuthSettings, InvalidSettings
from tests.fakes.clients import ALL, bearer, clients_file
from tests.wire.conftest import start_wire, stop_wire
from vecgate.client import Client as GrpcClient
from vecgate.v1 import embedding_service_pb2 as embedding_pb


async def test_keys_that_come_and_go_count_at_once_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    file = clients_file(tmp_path)
    wire = await start_wire(gate=Gate(AuthSettings(keys_file=file)))

    async def let_in(key: str) -> bool:
        call = wire.embedding.ListEmbedders(embedding_pb.ListEmbeddersRequest(), metadata=bearer(key))
        return await call.code() is StatusCode.OK

    before = [await let_in(ALL), await let_in("key-of-a-newcomer")]
    clients_file(tmp_path, newcomer="key-of-a-newcomer")
    added = [await let_in(ALL), await let_in("key-of-a-newcomer")]
    with structlog.testing.capture_logs() as lines:
        file.write_text("[clients.broken]\nkeys = ['a-plain-key']\n")
        broken = [await let_in(ALL), await let_in("key-of-a-newcomer"), await let_in("a-plain-key")]
    clients_file(tmp_path)
    taken_back = [await let_in(ALL), await let_in("key-of-a-newcomer")]
    await stop_wire(wire)

    assert (before, added, taken_back) == ([True, False], [True, True], [True, False])
    assert broken == [True, True, False]
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert warning["setting"] == "auth.keys_file"
    assert "clients.broken" in warning["reason"]
    assert "a-plain-key" not in str(lines)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a-plain-key",
        "[clients]",
        "[clients.a]\nkeys = []\npermissions = []",
        "[clients.a]\nkeys = ['a-plain-key']\npermissions = []",
        f"[clients.a]\nkeys = ['{hash_key('a')}']\npermissions = ['everything']",
        f"[clients.a]\nkeys = ['{hash_key('a')}']\npermissions = []\ncollection = ['typo']",
        f"[clients.a]\nkeys = ['{hash_key('a')}']\npermissions = []\ncollections = []",
        f"[clients.a]\nkeys = ['{hash_key('a')}']",
        f"[clients.'a b']\nkeys = ['{hash_key('a')}']\npermissions = []",
        "".join(f"[clients.{name}]\nkeys = ['{hash_key('a')}']\npermissions = []\n" for name in "ab"),
    ],
)
def test_a_file_of_keys_that_is_none_is_told_before_anything_starts(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(content + "\n")

    with pytest.raises((InvalidSettings, ValueError), match="key file") as caught:
        Gate(AuthSettings(keys_file=file))

    assert "a-plain-key" not in str(caught.value)


def test_new_key_prints_a_key_once_and_the_section_that_lets_it_in(tmp_path: Path) -> None:
    wanted = ("--permission", "embed", "--permission", "search", "--collection", "Shop*", "--tenant", 'a"b')
    runs = [CliRunner().invoke(app, ["auth", "new-key", "team.a", *wanted]) for _ in range(2)]
    keys = [run.stdout.splitlines()[0] for run in runs]
    file = tmp_path / "keys.toml"
    file.write_text(runs[0].stdout.partition("\n")[2])

    found = read_keys(file).find(keys[0])

    assert keys[0] != keys[1]
    assert len(keys[0]) > 40
    assert found == Client(
        name="team.a",
        permissions=frozenset({Permission.EMBED, Permission.SEARCH}),
        collections=("Shop*",),
        tenants=('a"b',),
    )
    assert keys[0] not in file.read_text()
    assert read_keys(file).find(keys[1]) is None


@pytest.mark.parametrize("arguments", [("a b",), ("",), ("a", "--permission", "everything")])
def test_new_key_makes_none_for_what_the_file_would_refuse(arguments: tuple[str, ...]) -> None:
    run = CliRunner().invoke(app, ["auth", "new-key", *arguments])

    assert run.exit_code == 2
    assert "vgk_" not in run.output


async def test_commands_and_the_client_bring_their_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await start_wire(gate=Gate(AuthSettings(keys_file=clients_file(tmp_path))))
    address = f"127.0.0.1:{wire.server.port}"
    (tmp_path / "key").write_text(f"{ALL}\n")
    (tmp_path / "empty").write_text("\n")

    async def run(*arguments: str) -> Result:
        whole = ["--address", address, *arguments, "collections", "list"]
        return await asyncio.to_thread(CliRunner().invoke, app, whole)

    keyless = await run()
    by_file = await run("--api-key-file", str(tmp_path / "key"))
    empty = await run("--api-key-file", str(tmp_path / "empty"))
    monkeypatch.setenv("VECGATE_API_KEY", "another-key")
    wrong = await run()
    monkeypatch.setenv("VECGATE_API_KEY", ALL)
    by_environment = await run()
    with GrpcClient(address, api_key=ALL) as client:
        listed = await asyncio.to_thread(lambda: list(client.list_collections()))
    await stop_wire(wire)

    assert (by_file.exit_code, by_environment.exit_code, listed) == (0, 0, [])
    assert (keyless.exit_code, wrong.exit_code, empty.exit_code) == (1, 1, 2)
    assert "API_KEY_MISSING" in keyless.stderr
    assert "another-key" not in wrong.output
