"""The parent of several server processes, with tiny processes in their place."""

import asyncio
import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest
import structlog
from pydantic import SecretStr

from service.process.addresses import AddressTaken, check_address
from service.settings import EmbedderSettings, InvalidSettings, NimSettings, ServerSettings, Settings, WebSettings
from service.workers import supervisor
from service.workers.link import Assignment, WorkersFailed
from service.workers.supervisor import Supervisor
from tests.conftest import Started

ROOT = Path(__file__).parents[3]

TINY = """
import json, os, signal, socket, struct, sys, time
number, folder = int(sys.argv[1]), sys.argv[2]
parent = socket.socket(fileno=0)
def told():
    size, = struct.unpack("!Q", parent.recv(8, socket.MSG_WAITALL))
    return parent.recv(size, socket.MSG_WAITALL)
def serve():
    told()
    with open(os.path.join(folder, f"{number}.is"), "w") as file:
        file.write(str(os.getpid()))
    parent.sendall(json.dumps({"serving": {"grpc": "here"}}).encode() + b"\\n")
    signal.pause()
"""
SERVE = "serve()"
DIE = "told(); os.kill(os.getpid(), signal.SIGABRT)"
REFUSE = 'told(); parent.sendall(json.dumps({"fault": "no such key", "is_setting": True}).encode() + b"\\n")'
DIE_AFTER_THE_FIRST = f"""
if number == 1 and os.path.exists(os.path.join(folder, "1.is")):
    {DIE}
{SERVE}
"""
IGNORE_SIGTERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN); serve()"
NEVER_ASKED = "time.sleep(100)"


Start = Callable[[str], AbstractAsyncContextManager["Running"]]


class Running:
    """A supervisor with two tiny workers."""

    def __init__(self, folder: Path) -> None:
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.settings = Settings(server=ServerSettings(workers=2, drain_grace_s=0.1))
        self.supervisor = Supervisor(self.settings.server, folder, self.end)
        self._folder = folder
        self.assignment = Assignment(self.settings, {})

    def pid(self, number: int) -> int:
        """Return the process id of a worker that has served; 0 if none has."""
        file = self._folder / f"{number}.is"
        return int(file.read_text() or "0") if file.exists() else 0


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Started) -> Start:
    monkeypatch.setattr(supervisor, "BACK_OFF_S", (0.0, 0.01))
    monkeypatch.setattr(supervisor, "END_S", 0.5)

    @asynccontextmanager
    async def start(program: str) -> AsyncIterator[Running]:
        monkeypatch.setattr(supervisor, "PROGRAM", TINY + program)
        made = Running(tmp_path)
        made.supervisor.start()
        try:
            # Of a test that starts several processes one after the other on a busy machine.
            async with asyncio.timeout(240):
                yield made
        finally:
            await made.supervisor.stop()
        assert not started()

    return start


async def test_the_start_ends_when_all_workers_serve(running: Start) -> None:
    async with running(SERVE) as made:
        serving = await made.supervisor.serve(made.assignment)

        assert serving == {"grpc": "here", "workers": 2}
        assert made.pid(1) != made.pid(2)


async def test_a_killed_worker_is_replaced_and_the_other_one_stays(running: Start) -> None:
    async with running(SERVE) as made:
        await made.supervisor.serve(made.assignment)
        first, second = made.pid(1), made.pid(2)

        os.kill(first, signal.SIGKILL)
        while made.pid(1) in {first, 0}:
            await asyncio.sleep(0.01)

        assert made.pid(2) == second
        assert psutil.pid_exists(second)
        assert not made.end.done()


async def test_a_worker_that_keeps_dying_at_the_start_ends_the_server_with_its_signal(running: Start) -> None:
    async with running(DIE) as made:
        serving = asyncio.create_task(made.supervisor.serve(made.assignment))

        with pytest.raises(WorkersFailed, match=r"worker [12] died 5 times before it served.*SIGABRT"):
            await made.end
        serving.cancel()


async def test_a_process_that_the_system_refuses_ends_the_server_with_its_reason(
    running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(supervisor.asyncio, "create_subprocess_exec", refuse)
    async with running(SERVE) as made:
        with pytest.raises(WorkersFailed, match=os.strerror(errno.EAGAIN)):
            await made.end


async def test_a_wrong_setting_that_a_worker_finds_ends_the_server_at_once(running: Start) -> None:
    async with running(REFUSE) as made:
        serving = asyncio.create_task(made.supervisor.serve(made.assignment))

        with pytest.raises(InvalidSettings, match="no such key"):
            await made.end
        serving.cancel()


async def test_while_one_worker_serves_the_server_goes_on_whatever_becomes_of_the_other(
    running: Start, tmp_path: Path
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with running(DIE_AFTER_THE_FIRST) as made:
            await made.supervisor.serve(made.assignment)
            os.kill(made.pid(1), signal.SIGKILL)
            while sum(line["event"] == "worker_died" for line in lines) <= supervisor.MAX_EARLY_DEATHS:
                await asyncio.sleep(0.01)

            assert not made.end.done()
            (tmp_path / "1.is").unlink()
            while not made.pid(1):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("program", [NEVER_ASKED, IGNORE_SIGTERM], ids=["still loading", "does not end"])
async def test_a_stop_leaves_no_worker(running: Start, program: str) -> None:
    async with running(program) as made:
        if program == IGNORE_SIGTERM:
            await made.supervisor.serve(made.assignment)


TOLD = """
size, = struct.unpack("!Q", parent.recv(8, socket.MSG_WAITALL))
with open(os.environ["TOLD"] + str(number), "wb") as file:
    file.write(parent.recv(size, socket.MSG_WAITALL))
parent.sendall(json.dumps({"serving": {}}).encode() + b"\\n")
signal.pause()
"""


async def test_workers_get_the_held_ports_and_equal_shares_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    monkeypatch.setattr(supervisor, "PROGRAM", TINY + TOLD)
    monkeypatch.setenv("TOLD", f"{tmp_path}/")
    end = asyncio.get_running_loop().create_future()
    settings = Settings(
        server=ServerSettings(port=0, workers=2),
        web=WebSettings(port=0),
        embedder=EmbedderSettings(cache_bytes=1000),
        embedders={"nim": NimSettings(api_key=SecretStr("a secret"))},
    )
    async with asyncio.timeout(60), AsyncExitStack() as ends:
        await supervisor.start_workers(settings, ends, end)
        commands = str([each.cmdline() for each in started()])
        told = [pickle.loads((tmp_path / f"{number}").read_bytes()).settings for number in (1, 2)]
        with pytest.raises(AddressTaken):
            check_address(told[0].server)
        with pytest.raises(AddressTaken):
            check_address(told[0].web)

    assert told[0] == told[1]
    assert told[0].embedder.cache_bytes == 500
    assert told[0].embedders["nim"].api_key.get_secret_value() == "a secret"
    assert "a secret" not in commands
    assert not started()


PARENT = """
import asyncio, sys
from pathlib import Path
from service.settings import ServerSettings, Settings
from service.workers import supervisor
from service.workers.link import Assignment

supervisor.PROGRAM = '''
import signal, sys
from pathlib import Path
from service.workers.link import ParentLink
parent = ParentLink(Path(sys.argv[2]))
parent.assignment()
parent.tell(serving={})
while True:
    signal.pause()
'''

async def run():
    settings = Settings(server=ServerSettings(workers=2))
    end = asyncio.get_running_loop().create_future()
    made = supervisor.Supervisor(settings.server, Path(sys.argv[1]), end)
    made.start()
    await made.serve(Assignment(settings, {}))
    print("serving", flush=True)
    await end

asyncio.run(run())
"""


def test_workers_end_when_their_parent_is_killed_and_leave_no_files(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    command = [sys.executable, "-c", PARENT, str(shared)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "serving\n"
        workers = psutil.Process(parent.pid).children()
        parent.kill()

    assert len(workers) == 2
    gone, alive = psutil.wait_procs(workers, timeout=60)
    end = time.monotonic() + 60
    while shared.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert (len(gone), alive) == (2, [])
    assert not shared.exists()
