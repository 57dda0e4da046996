"""`vecgate demo` as a program, with a server in memory in place of the real one."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
# A signal is handled between any two steps of the program: the driver can send one at the worst of them, when
# subprocess has just taken the lock under which it waits, once the server listens.
DRIVER = """
import os, signal, subprocess, sys
from service.cli import app, demo
demo.SERVE = (sys.executable, "-m", "tests.fakes.server")

class Lock:
    def __init__(self, lock):
        self.lock = lock
        self.left = int(os.environ.get("SIGNAL_WHILE_LOCKED", 0))
    def acquire(self, *options):
        taken = self.lock.acquire(*options)
        if taken and self.left and demo._listens(f"127.0.0.1:{os.environ['VECGATE_SERVER__PORT']}"):
            self.left -= 1
            os.kill(os.getpid(), signal.SIGTERM)
        return taken
    def release(self):
        self.lock.release()
    def __enter__(self):
        self.acquire()
    def __exit__(self, *_):
        self.release()

class Popen(subprocess.Popen):
    def __init__(self, *options, **more):
        super().__init__(*options, **more)
        self._waitpid_lock = Lock(self._waitpid_lock)

demo.subprocess.Popen = Popen
app(["demo", sys.argv[1]])
"""
READY = "Ctrl-C ends the server; the data stays."

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cake.png", "dog.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "pictures.csv").write_text("file,name\ncake.png,birthday cake\ndog.png,dog\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    with ExitStack() as ends:

        def begin(**environment: str) -> subprocess.Popen[str]:
            settings = {
                "VECGATE_SERVER__PORT": "0",
                "VECGATE_WEB__PORT": "0",
                "VECGATE_WEAVIATE__DATA_DIR": str(folder / "data"),
            }
            path = f"{ROOT}{os.pathsep}{ROOT / 'protos'}"
            running = subprocess.Popen(
                [sys.executable, "-c", DRIVER, str(folder)],
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
    """Ask a demo to end; one that does not is killed with its server, and the test that started it fails."""
    running.terminate()
    try:
        running.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        for each in (*psutil.Process(running.pid).children(), running):
            each.kill()
        raise


def read_until_ready(running: "subprocess.Popen[str]") -> list[str]:
    assert running.stdout is not None
    lines: list[str] = []
    for line in running.stdout:
        lines.append(line.rstrip("\n"))
        if lines[-1] == READY:
            return lines
    raise AssertionError(f"the demo ended: {lines} {running.communicate()[1]}")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_the_demo_imports_searches_says_what_next_and_ends_cleanly(start: Start, folder: Path, number: int) -> None:
    running = start()

    lines = read_until_ready(running)
    running.send_signal(number)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)

    assert "Pictures: 2 stored, 0 failed" in lines
    (web,) = [line for line in lines if line.startswith("  HTTP  ")]
    assert re.search(r" http://127\.0\.0\.1:[1-9]\d+, as a NIM answers$", web)
    assert 'Search for the words "birthday party":' in lines
    assert "Search for pictures like the first of them, cake.png:" in lines
    assert any(str(folder / "data") in line and "make clean-data" in line for line in lines)
    commands = lines[lines.index("Try next, in another terminal:") + 1 :]
    assert "search 'red heart' --collection Pictures" in commands[0]
    assert "from vecgate.client import Client" in commands[1]
    assert commands[2].strip().startswith("grpcurl -plaintext -d '{")
    assert running.returncode == 0
    assert errors.count("the fake has drained") == 1


@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_at_any_moment_of_the_wait_for_the_server_ends_the_demo(start: Start, times: int) -> None:
    running = start(SIGNAL_WHILE_LOCKED=str(times))

    _, errors = running.communicate(timeout=30)

    assert running.returncode == 0, errors
    assert errors.count("the fake has drained") == 1


def test_the_commands_to_try_next_work_as_printed(start: Start) -> None:
    lines = read_until_ready(start())
    _, python, grpcurl = (line.strip() for line in lines[lines.index("Try next, in another terminal:") + 1 :][:3])

    answer = subprocess.run(
        python,
        shell=True,
        env=os.environ | {"PYTHONPATH": "protos"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert answer.stdout == "cake.png dog.png\n"
    assert grpcurl.endswith("vecgate.v1.SearchService/SearchObjects")


def test_a_server_that_cannot_start_ends_the_demo_with_its_code(start: Start) -> None:
    running = start(FAKE_EXIT_CODE="5")

    output, errors = running.communicate(timeout=30)

    assert running.returncode == 5
    assert output == ""
    assert "the fake cannot start" in errors
    assert "the server ended with exit code 5 before it was ready" in errors


def test_a_server_that_dies_later_ends_the_demo(start: Start) -> None:
    running = start()
    read_until_ready(running)

    (child,) = psutil.Process(running.pid).children()
    child.kill()
    _, errors = running.communicate(timeout=30)

    assert running.returncode == 1
    assert "the server ended with exit code -9" in errors


def test_the_server_ends_with_the_demo_even_if_nobody_reads_the_output_any_more(start: Start) -> None:
    running = start()
    read_until_ready(running)
    (child,) = psutil.Process(running.pid).children()
    assert running.stdout is not None
    assert running.stderr is not None

    running.stdout.close()
    running.stderr.close()
    running.send_signal(signal.SIGHUP)
    running.wait(timeout=30)

    assert not child.is_running()


def test_wrong_settings_end_the_demo_before_anything_starts(start: Start) -> None:
    running = start(VECGATE_SERVER__PORT="many")

    _, errors = running.communicate(timeout=30)

    assert running.returncode == 2
    assert "VECGATE_SERVER__PORT" in errors


def test_a_second_run_over_kept_data_imports_nothing(start: Start) -> None:
    first = start()
    first_lines = read_until_ready(first)
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=30)

    second_lines = read_until_ready(start())

    assert "Pictures: 2 stored, 0 failed" in first_lines
    assert "Pictures: all 2 sample pictures are there from an earlier run; nothing to import" in second_lines


def test_a_run_over_data_that_changed_imports_again(start: Start, folder: Path) -> None:
    first = start()
    read_until_ready(first)
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=30)
    (folder / "pictures.csv").write_text("file,name\ncake.png,cheese cake\ndog.png,dog\n", encoding="utf-8")

    assert "Pictures: 2 stored, 0 failed" in read_until_ready(start())


def test_a_port_that_answers_already_is_not_filled_with_samples(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        running = start(VECGATE_SERVER__PORT=str(other.getsockname()[1]))
        output, errors = running.communicate(timeout=30)

    assert (running.returncode, output) == (1, "")
    assert "VECGATE_SERVER__PORT" in errors
    assert errors.count("\n") == 1
