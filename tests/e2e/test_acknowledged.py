"""An object that was acknowledged is there once and found by its own vector, whatever was cut, killed or repeated.

FAULT_RUNS=20 make test PYTEST_ARGS="tests/e2e/test_acknowledged.py --timeout 0" tries each fault 20 times.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from service.errors import ServiceError
from service.store.embedded.binary import find_binary
from service.store.weaviate import store
from service.store.weaviate.objects import Objects
from service.store.weaviate.writing import confirm
from tests.e2e.faults import RUNS, Fault, Inside, Outside, Site, import_through, inside, outside
from tests.fakes.proxy import Fault as Cut

log = logging.getLogger(__name__)

DISK_MIB = 64

Step = Callable[[], Awaitable[None]]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inside]:
    async with inside(tmp_path_factory.mktemp("inside")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def program(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Outside]:
    async with outside(tmp_path_factory.mktemp("outside")) as running:
        yield running


def passing(begin: Step, end: Step, seconds: float, after: float = 0.0) -> Fault:
    """Return a fault that begins so many seconds after the import, and ends by itself after so many more.

    One that begins with the import is there before its first call.
    """

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        async def come_and_go() -> None:
            if after:
                await asyncio.sleep(after)
                await begin()
            await asyncio.sleep(seconds)
            await end()

        if not after:
            await begin()
        coming = asyncio.create_task(come_and_go())
        yield
        await coming

    return fault


async def nothing() -> None:
    pass


async def assert_nothing_is_lost(site: Site, fault: Fault, *, call_s: tuple[float, ...] = (20.0,)) -> None:
    for run in range(RUNS):
        tally = await import_through(site, fault, call_s=call_s)
        log.warning("run %s: %s refused, %s", run, tally.refused, tally.faults)
        assert tally.faults == {}


CUTS = {
    "answers of gRPC reset at once": ("grpc", Cut("reset", after=400), 0.8),
    "answers of gRPC reset later": ("grpc", Cut("reset", after=3000), 0.8),
    "requests of gRPC reset": ("grpc", Cut("reset", requests=True, after=3000), 0.8),
    "gRPC reset while Weaviate works": ("grpc", Cut("reset", requests=True, after=9000, wait_s=0.01), 0.8),
    "answers of gRPC half-closed": ("grpc", Cut("half_close", after=300), 0.8),
    "requests of gRPC half-closed": ("grpc", Cut("half_close", requests=True, after=3000), 0.8),
    "HTTP reset": ("http", Cut("reset", after=300), 0.8),
    "HTTP half-closed": ("http", Cut("half_close", after=300), 0.8),
    "answers of gRPC lost": ("grpc", Cut("silence"), 4.0),
    "requests of gRPC lost": ("grpc", Cut("silence", requests=True), 4.0),
}


@pytest.mark.parametrize("name", CUTS)
async def test_nothing_is_lost_when_connections_are_cut(site: Inside, name: str) -> None:
    way, fault, seconds = CUTS[name]
    proxy = site.grpc if way == "grpc" else site.http
    faults = 0

    async def begin() -> None:
        nonlocal faults
        faults, proxy.fault = proxy.faults, fault

    async def end() -> None:
        # However slow the machine is: a fault that befalls nothing shows nothing.
        async with asyncio.timeout(60):
            while proxy.faults == faults:
                await asyncio.sleep(0.01)
        proxy.fault = None
        proxy.cut()

    await assert_nothing_is_lost(site, passing(begin, end, seconds))


@pytest.mark.parametrize("ends", ["by its deadline", "by cancellation"])
async def test_nothing_is_lost_when_callers_leave(site: Inside, ends: str) -> None:
    """What is 12 to 60 ms here ends a call anywhere from its first question to Weaviate to its last."""
    call_s = tuple(0.012 + 0.006 * number for number in range(9))
    site.cancels = ends == "by cancellation"
    await assert_nothing_is_lost(site, passing(nothing, nothing, 0), call_s=call_s)
    site.cancels = False


def stopping(pid_of: Callable[[], int | None], seconds: float) -> Fault:
    """Return a fault that stops a process for so many seconds."""

    async def send(number: signal.Signals) -> None:
        pid = pid_of()
        assert pid is not None
        os.kill(pid, number)

    return passing(lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT), seconds, after=0.05)


@pytest.mark.parametrize("seconds", [0.5, 5.0])
async def test_nothing_is_lost_when_weaviate_is_stopped_for_a_while(site: Inside, seconds: float) -> None:
    await assert_nothing_is_lost(site, stopping(lambda: site.weaviate.pid, seconds))


@pytest.mark.parametrize("seconds", [0.5, 5.0])
async def test_nothing_is_lost_when_vecgate_is_stopped_for_a_while(program: Outside, seconds: float) -> None:
    await assert_nothing_is_lost(program, stopping(lambda: program.serving.process.pid, seconds))


async def test_nothing_is_lost_when_weaviate_is_killed(site: Inside) -> None:
    async def kill() -> None:
        pid = site.weaviate.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await site.restarted(pid)

    await assert_nothing_is_lost(site, passing(kill, nothing, 0, after=0.1))


async def test_what_another_weaviate_confirms_is_not_acknowledged(
    site: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed: list[set[UUID]] = []

    async def kill_and_confirm(within: Objects, ids: Sequence[UUID]) -> dict[UUID, ServiceError]:
        confirmed.append(set(ids))
        if len(confirmed) == 1:
            pid = site.weaviate.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await site.restarted(pid)
        return await confirm(within, ids)

    monkeypatch.setattr(store, "confirm", kill_and_confirm)

    tally = await import_through(site, passing(nothing, nothing, 0))

    assert confirmed.count(confirmed[0]) > 1, "they are sent again"
    assert not tally.lost


async def test_nothing_is_lost_when_vecgate_is_killed(program: Outside) -> None:
    await assert_nothing_is_lost(program, passing(program.kill, nothing, 0, after=0.1))


async def test_nothing_is_lost_when_weaviate_takes_no_writes_for_a_while(site: Inside) -> None:
    fault = passing(lambda: site.set_shards("READONLY"), lambda: site.set_shards("READY"), 1.0)
    await assert_nothing_is_lost(site, fault)


@contextmanager
def disk_of_its_own(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount a small disk at a folder, and give a Weaviate program that sees it, and a file on it."""
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={DISK_MIB}m none {folder} && echo mounted && exec sleep 3600"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as room:
        try:
            assert room.stdout is not None
            assert room.stdout.readline() == b"mounted\n"
            enter = f"nsenter --user --mount --preserve-credentials --target {room.pid}"
            program = folder.with_suffix(".sh")
            program.write_text(f'#!/bin/sh\nexec {enter} {find_binary()} "$@"\n')
            program.chmod(0o700)
            yield program, Path(f"/proc/{room.pid}/root{folder}/filling")
        finally:
            room.kill()


async def test_nothing_is_lost_when_weaviates_disk_was_full(weaviate_binary: None, tmp_path: Path) -> None:
    """Weaviate 1.39 has to be started again then: its index's log fails for ever after one write that failed."""
    with disk_of_its_own(tmp_path / "data") as (binary, filling):
        async with inside(tmp_path, binary) as site:

            async def make_room() -> None:
                await asyncio.to_thread(filling.unlink)
                pid = site.weaviate.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                await site.restarted(pid)
                await site.set_shards("READY")

            await assert_nothing_is_lost(site, passing(lambda: asyncio.to_thread(fill, filling), make_room, 1.0))


def fill(filling: Path) -> None:
    """Write a file until there is no room for more."""
    with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
