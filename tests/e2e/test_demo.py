"""`vecgate demo` as a program: the real server in it, over a store and an embedder in memory."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from service.cli.demo import _addresses
from service.settings import Settings
from tests.e2e.serving import tiny_model
from tests.fakes.clients import key_of, write_clients
from tests.fakes.embedder import picture
from tests.fakes.weaviate import variables_at_ports
from tests.service.web.test_server import write_certificate

ROOT = Path(__file__).parents[2]
# The store is kept in the data folder as the real one is. SLOW_START keeps the start waiting; SPACE is the model's.
DRIVER = """
import asyncio, os, pickle, sys
from pathlib import Path
from service import app, one_server as server
from service.cli import app as command
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.store import FakeStore

class KeptStore(FakeStore):
    def __init__(self, settings):
        super().__init__()
        self.file = Path(settings.data_dir) / "store"
        if self.file.exists():
            self.__dict__ |= pickle.loads(self.file.read_bytes())

    async def close(self):
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_bytes(pickle.dumps(self.__dict__))
        sys.stderr.write("the store has been closed\\n")

class NoWeaviate:
    def __init__(self, settings):
        self.client_settings = settings

    async def start(self):
        print("starting the store", file=sys.stderr, flush=True)
        if "SLOW_START" in os.environ:
            await asyncio.sleep(60)

    async def stop(self):
        pass

cake, dog = (1, 0), (0, 1)
known = {"birthday party": cake, "birthday cake": cake, picture(): cake, "dog": dog, picture((9, 9, 9)): dog}
server.EmbeddedWeaviate, server.WeaviateStore = NoWeaviate, KeptStore
server.build_embedders = lambda *_, **__: [
    FakeEmbedder(dimension=2, known=known, space=os.environ.get("SPACE", "fake"))
]
command(["demo", sys.argv[1]])
"""
READY = "Ctrl-C ends the server; the data stays."

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cake.png").write_bytes(picture())
    (tmp_path / "dog.png").write_bytes(picture((9, 9, 9)))
    (tmp_path / "pictures.csv").write_text("file,name\ncake.png,birthday cake\ndog.png,dog\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    with ExitStack() as ends:

        def begin(*program: str, **environment: str) -> subprocess.Popen[str]:
            settings = {
                "VECGATE_SERVER__PORT": "0",
                "VECGATE_WEB__PORT": "0",
                "VECGATE_WEAVIATE__DATA_DIR": str(folder / "data"),
                "VECGATE_SERVER__DRAIN_DELAY_S": "0",
            }
            path = f"{ROOT}{os.pathsep}{ROOT / 'protos'}"
            running = subprocess.Popen(
                [sys.executable, *(program or ("-c", DRIVER)), str(folder)],
                env=os.environ | settings | {"PYTHONPATH": path} | environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            ends.enter_context(running)
            ends.callback(end, running)
            return running

        yield begin


def end(running: "subprocess.Popen[str]") -> None:
    """Ask a demo to end; one that does not is killed, and the test that started it fails."""
    running.terminate()
    try:
        running.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        running.kill()
        raise


def read_until(stream: "IO[str] | None", text: str) -> None:
    assert stream is not None
    assert any(text in line for line in stream)


def read_until_ready(running: "subprocess.Popen[str]") -> list[str]:
    assert running.stdout is not None
    lines: list[str] = []
    for line in running.stdout:
        lines.append(line.rstrip("\n"))
        if lines[-1] == READY:
            return lines
    raise AssertionError(f"the demo ended: {lines} {running.communicate()[1]}")


def page_of(lines: list[str]) -> str:
    """Return the address of the page that a demo tells, which leads there."""
    (url,) = re.findall(r"^Open (\S+) in a browser", lines[-2])
    with urllib.request.urlopen(url, timeout=120) as answer:
        assert answer.headers["content-type"].startswith("text/html")
        assert "<title>" in answer.read().decode()
    return str(url)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_the_demo_imports_searches_says_what_next_and_ends_cleanly(start: Start, folder: Path, number: int) -> None:
    running = start()

    lines = read_until_ready(running)
    url = page_of(lines)
    running.send_signal(number)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)

    assert "Pictures: 2 stored, 0 failed" in lines
    (web,) = [line for line in lines if line.startswith("  HTTP  ")]
    assert re.search(r" http://127\.0\.0\.1:[1-9]\d+, in JSON and as a NIM answers$", web)
    page = web.split()[1].rstrip(",") + "/"
    assert url == page
    assert lines[lines.index("Vecgate is ready.") + 1] == f"  explorer       {page}"
    assert lines[-2] == f"Open {page} in a browser to search and look around."
    assert errors.startswith(f"starting Vecgate at {page} with its model")
    assert 'Search for the words "birthday party":' in lines
    assert "Search for pictures like the first of them, cake.png:" in lines
    assert not any("▄" in line or line.startswith("1 birthday cake ") for line in lines), "no pictures on a pipe"
    assert any(str(folder / "data") in line and "make clean-data" in line for line in lines)
    commands = lines[lines.index("Try next, in another terminal:") + 1 :]
    assert "search 'red heart' --collection Pictures" in commands[0]
    assert "from vecgate.client import Client" in commands[1]
    assert commands[2].strip().startswith("curl -H 'content-type: application/json' -d '{")
    assert running.returncode == 0
    assert errors.count("the store has been closed") == 1


def test_signals_during_a_slow_start_end_the_demo(start: Start) -> None:
    running = start(SLOW_START="1")
    read_until(running.stderr, "starting the store")

    for _ in range(3):
        running.send_signal(signal.SIGTERM)
    output, errors = running.communicate(timeout=120)

    assert (running.returncode, output) == (0, ""), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("pause_s", [0, 0.2])
def test_a_signal_at_any_moment_of_the_import_ends_the_demo(start: Start, pause_s: float) -> None:
    running = start()
    read_until(running.stderr, "starting the store")

    time.sleep(pause_s)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)

    assert running.returncode == 0, errors
    assert "Traceback" not in errors
    assert errors.count("the store has been closed") == 1


def test_the_commands_to_try_next_work_as_printed(start: Start) -> None:
    lines = read_until_ready(start())
    _, python, curl = (line.strip() for line in lines[lines.index("Try next, in another terminal:") + 1 :][:3])

    by_python, by_curl = (
        subprocess.run(
            command,
            shell=True,
            env=os.environ | {"PYTHONPATH": "protos"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in (python, curl)
    )

    assert by_python == "dog.png cake.png\n"
    hits = json.loads(by_curl)["hits"]
    assert [hit["object"]["properties"]["path"] for hit in hits] == ["dog.png", "cake.png"]


def test_the_demo_shows_the_pictures_that_it_finds_where_they_are_wanted_and_its_page_behind_a_prefix(
    start: Start,
) -> None:
    lines = read_until_ready(start(VECGATE_PICTURES="always", VECGATE_WEB__PATH_PREFIX="/pictures"))

    assert len([line for line in lines if line.startswith("1 birthday cake ")]) == 2
    assert any("▄" in line for line in lines)
    assert page_of(lines).endswith("/pictures/")


@pytest.mark.parametrize(
    ("settings", "web"),
    [
        ({"VECGATE_WEB__EXPLORER": "false"}, r"http://127\.0\.0\.1:\d+, in JSON and as a NIM answers"),
        ({"VECGATE_WEB__ENABLED": "false"}, "off"),
    ],
)
def test_a_page_that_is_off_is_not_told_to_be_opened(start: Start, settings: dict[str, str], web: str) -> None:
    lines = read_until_ready(start(**settings))

    assert "  explorer       off" in lines
    assert any(re.fullmatch(f"  HTTP           {web}", line) for line in lines)
    assert not any(line.startswith("Open ") for line in lines)
    (command,) = (line.split()[0] for line in lines if "vecgate.v1.SearchService/SearchObjects" in line)
    assert command == ("grpcurl" if web == "off" else "curl")


@pytest.mark.parametrize(
    ("settings", "page"),
    [
        ({}, "http://127.0.0.1:8070/"),
        ({"web": {"port": 9000, "path_prefix": "/a/b"}}, "http://127.0.0.1:9000/a/b/"),
        ({"web": {"host": "0.0.0.0"}, "server": {"allow_plaintext": True}}, "http://127.0.0.1:8070/"),
        ({"server": {"tls_cert_file": __file__, "tls_key_file": __file__}}, "https://127.0.0.1:8070/"),
        ({"web": {"explorer": False}}, None),
        ({"web": {"enabled": False}}, None),
    ],
)
def test_the_address_of_the_page_follows_the_settings(settings: dict[str, Any], page: str | None) -> None:
    assert _addresses(Settings(**settings)).explorer == page


def test_a_server_that_cannot_start_ends_the_demo_with_its_code(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        running = start(VECGATE_WEB__PORT=str(other.getsockname()[1]))
        output, errors = running.communicate(timeout=120)

    assert (running.returncode, output) == (1, "")
    assert "VECGATE_WEB__PORT" in errors
    assert "Traceback" not in errors


def test_an_import_that_fails_ends_the_demo_and_its_server(start: Start, folder: Path) -> None:
    first = start()
    read_until_ready(first)
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=120)
    (folder / "pictures.csv").write_text("file,title\ncake.png,1\n", encoding="utf-8")

    running = start()
    _, errors = running.communicate(timeout=120)

    assert running.returncode != 0
    assert "error: " in errors
    assert errors.count("the store has been closed") == 1


def test_a_killed_demo_leaves_no_process(start: Start) -> None:
    running = start()
    read_until_ready(running)
    children = psutil.Process(running.pid).children(recursive=True)

    running.kill()
    running.wait(timeout=120)

    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_a_killed_demo_with_its_own_weaviate_and_model_leaves_no_process_and_no_file(
    weaviate_binary: None, start: Start, tmp_path: Path
) -> None:
    # Sockets have short paths.
    with tempfile.TemporaryDirectory() as files:
        model = tiny_model(tmp_path / "model")
        running = start("-m", "service", "demo", TMPDIR=files, **model, **variables_at_ports(0, 0))
        read_until_ready(running)
        children = psutil.Process(running.pid).children(recursive=True)
        names = " ".join(str(each.cmdline()) for each in children)

        running.kill()
        running.wait(timeout=120)
        left = psutil.wait_procs(children, timeout=120)[1]

        assert "weaviate" in names
        assert "model_process" in names
        assert left == []
        assert not list(Path(files).iterdir())


def test_the_demo_ends_even_if_nobody_reads_the_output_any_more(start: Start, folder: Path) -> None:
    running = start()
    read_until_ready(running)
    assert running.stdout is not None
    assert running.stderr is not None

    running.stdout.close()
    running.stderr.close()
    running.send_signal(signal.SIGHUP)
    running.wait(timeout=120)

    assert (folder / "data" / "store").exists(), "the store was closed"


def test_wrong_settings_end_the_demo_before_anything_starts(start: Start) -> None:
    running = start(VECGATE_SERVER__PORT="many")

    _, errors = running.communicate(timeout=120)

    assert running.returncode == 2
    assert "VECGATE_SERVER__PORT" in errors


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, str]:
    """Settings by which callers need TLS and a key."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    certificate = write_certificate(secrets)
    clients = write_clients(secrets / "clients.toml", me='permissions = ["admin", "write", "search"]')
    return {
        "VECGATE_SERVER__TLS_CERT_FILE": str(certificate["tls_cert_file"]),
        "VECGATE_SERVER__TLS_KEY_FILE": str(certificate["tls_key_file"]),
        "VECGATE_AUTH__CLIENTS_FILE": str(clients),
        "VECGATE_CA_FILE": str(secrets / "authority.pem"),
        "VECGATE_API_KEY": key_of("me"),
    }


def test_the_demo_calls_a_server_with_tls_and_keys_by_what_is_given_before_the_command(
    start: Start, guarded: dict[str, str]
) -> None:
    lines = read_until_ready(start(**guarded))

    title = "Try next, in another terminal, with the key and the options before the command that you gave here:"
    commands = lines[lines.index(title) + 1 : lines.index("", lines.index(title))]
    assert "Pictures: 2 stored, 0 failed" in lines
    assert lines[-2].startswith("Open https://127.0.0.1:")
    assert len(commands) == 1
    environment = os.environ | guarded
    found = subprocess.run(commands[0], shell=True, capture_output=True, check=False, text=True, env=environment)
    assert "birthday cake" in found.stdout, found.stderr


@pytest.mark.parametrize(
    ("left_out", "hint"),
    [
        ("VECGATE_CA_FILE", "vecgate --ca-file FILE demo"),
        ("VECGATE_API_KEY", "VECGATE_API_KEY, or vecgate --api-key-file"),
    ],
)
def test_a_demo_that_its_own_server_would_refuse_says_what_it_needs(
    start: Start, guarded: dict[str, str], left_out: str, hint: str
) -> None:
    running = start(**{name: value for name, value in guarded.items() if name != left_out})

    _, errors = running.communicate(timeout=120)

    assert running.returncode == 2
    assert hint in errors


def test_a_second_run_over_kept_data_imports_nothing(start: Start) -> None:
    first = start()
    first_lines = read_until_ready(first)
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=120)

    second_lines = read_until_ready(start())

    assert "Pictures: 2 stored, 0 failed" in first_lines
    assert "Pictures: all 2 sample pictures are there from an earlier run; nothing to import" in second_lines


def test_a_run_over_data_that_changed_imports_again(start: Start, folder: Path) -> None:
    first = start()
    read_until_ready(first)
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=120)
    (folder / "pictures.csv").write_text("file,name\ncake.png,cheese cake\ndog.png,dog\n", encoding="utf-8")

    assert "Pictures: 2 stored, 0 failed" in read_until_ready(start())


def test_a_run_over_data_of_another_model_says_how_to_begin_again(start: Start, folder: Path) -> None:
    first = start()
    read_until_ready(first)
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=120)

    second = start(SPACE="other")
    _, errors = second.communicate(timeout=120)

    assert second.returncode == 1, errors
    assert f"remove {folder / 'data'} (make clean-data), and start again" in errors


def test_a_port_that_answers_already_is_not_filled_with_samples(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        running = start(VECGATE_SERVER__PORT=str(other.getsockname()[1]))
        output, errors = running.communicate(timeout=120)

    assert (running.returncode, output) == (1, "")
    assert "VECGATE_SERVER__PORT" in errors
    assert errors.count("\n") == 1
