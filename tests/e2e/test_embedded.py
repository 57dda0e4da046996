import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import structlog
from pydantic import SecretStr

from service.domain import ReturnFields, SearchSpec
from service.process.ports import free_ports
from service.settings import WeaviateSettings
from service.store.embedded import server
from service.store.embedded.binary import WeaviateBinaryMissing
from service.store.embedded.server import EmbeddedWeaviate, EmbeddedWeaviateFailed
from service.store.weaviate import WeaviateStore
from tests.fakes.weaviate import at_ports
from tests.service.store.store_suite import at, make_collection, make_object

pytestmark = pytest.mark.usefixtures("weaviate_binary")

OWNER = """
import asyncio, sys
from pathlib import Path
from service.settings import WeaviateSettings
from service.store.embedded.server import EmbeddedWeaviate
from tests.fakes.weaviate import at_ports

async def main():
    weaviate = EmbeddedWeaviate(WeaviateSettings(data_dir=Path(sys.argv[1]), api_key="key", **at_ports(0, 0)))
    await weaviate.start()
    print("\\nstarted", weaviate.pid, weaviate.http_port, weaviate.grpc_port, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def _settings(folder: Path, **changes: object) -> WeaviateSettings:
    settings = WeaviateSettings(embedded=True, data_dir=folder, **at_ports(0, 0))
    return settings.model_copy(update=changes)


@contextlib.asynccontextmanager
async def _running(settings: WeaviateSettings) -> AsyncIterator[EmbeddedWeaviate]:
    weaviate = EmbeddedWeaviate(settings)
    await weaviate.start()
    try:
        yield weaviate
    finally:
        await weaviate.stop()


@contextlib.asynccontextmanager
async def _connected(settings: WeaviateSettings) -> AsyncIterator[WeaviateStore]:
    store = WeaviateStore(settings)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def _wait_until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


async def test_data_outlives_restarts_on_other_ports(tmp_path: Path) -> None:
    async with _running(_settings(tmp_path)) as first, _connected(first.client_settings) as store:
        await store.create_collection(make_collection("Pictures"))
        await store.put_objects("Pictures", [make_object(1, text="kept")])
        before = await store.get_collection("Pictures")
        ports = (first.http_port, first.grpc_port)
        pid = first.pid
    assert pid is not None
    assert not _alive(pid)
    assert not (tmp_path / "weaviate.pid").exists()
    async with _running(_settings(tmp_path)) as second, _connected(second.client_settings) as store:
        assert (second.http_port, second.grpc_port) != ports
        assert await store.get_collection("Pictures") == before
        found = await store.get_object("Pictures", UUID(int=1), ReturnFields(properties=["text"]))
        assert found.properties == {"text": "kept"}
    # Weaviate 1.39.0 to 1.39.3 loses the only vector of an index when it compacts, which shows at the second restart.
    async with _running(_settings(tmp_path)) as third, _connected(third.client_settings) as store:
        hits = await store.search("Pictures", SearchSpec(at("main", 1, 2, 3), 1))
        assert [hit.object.id for hit in hits] == [UUID(int=1)]


@contextlib.asynccontextmanager
async def _killed_owner(folder: Path, before_start: str = "") -> AsyncIterator[tuple[WeaviateSettings, int]]:
    """Yield settings of a Weaviate with an object, and its process id, as soon as its owner has been killed."""
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", before_start + OWNER, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    line = b""
    while not line.startswith(b"started"):
        line = await owner.stdout.readline()
        assert line, "the owner ended before its Weaviate was ready"
    pid, http_port, grpc_port = map(int, line.split()[1:])
    settings = _settings(folder, **at_ports(http_port, grpc_port), api_key=SecretStr("key"))
    try:
        async with _connected(EmbeddedWeaviate(settings).client_settings) as store:
            await store.create_collection(make_collection("Pictures"))
            await store.put_objects("Pictures", [make_object(1)])
        owner.kill()
        await owner.wait()
        yield settings, pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system ends a child with its parent")
async def test_a_killed_vecgate_leaves_no_weaviate_which_has_written_its_index_down(tmp_path: Path) -> None:
    async with _killed_owner(tmp_path) as (settings, pid):
        await _wait_until(lambda: not _alive(pid))

    near = SearchSpec(at("main", 1, 2, 3), 1)
    async with _running(settings) as weaviate, _connected(weaviate.client_settings) as store:
        found = await store.search("Pictures", near)
    assert [hit.object.id for hit in found] == [UUID(int=1)]


async def test_a_weaviate_that_a_killed_vecgate_left_is_ended_and_its_data_kept(tmp_path: Path) -> None:
    # As on a system that does not end a child with its parent.
    leaving = "import service.store.embedded.server as server; server.ending_with_this = list\n"
    async with _killed_owner(tmp_path, leaving) as (settings, pid):
        assert _alive(pid), "the child outlives its owner"
        async with _running(settings) as weaviate, _connected(weaviate.client_settings) as store:
            assert not _alive(pid)
            assert weaviate.pid != pid
            assert await store.count_objects("Pictures") == 1


async def test_a_process_that_only_has_the_noted_id_is_left_alone(tmp_path: Path) -> None:
    innocent = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        created = psutil.Process(innocent.pid).create_time()
        for noted in (
            {"pid": innocent.pid, "create_time": created, "command": ["weaviate-server"]},
            {"pid": innocent.pid, "create_time": created - 100, "command": ["sleep", "60"]},
        ):
            (tmp_path / "weaviate.pid").write_text(json.dumps(noted))
            async with _running(_settings(tmp_path)):
                assert _alive(innocent.pid)
    finally:
        innocent.kill()
        await innocent.wait()


async def test_a_second_vecgate_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with _running(_settings(tmp_path)) as first:
        with pytest.raises(EmbeddedWeaviateFailed) as caught:
            await EmbeddedWeaviate(_settings(tmp_path)).start()
        assert str(tmp_path) in str(caught.value)
        assert f"process {os.getpid()}" in str(caught.value)
        assert "VECGATE_WEAVIATE__DATA_DIR" in str(caught.value)
        assert first.pid is not None
        assert _alive(first.pid)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("setting", ["http_url", "grpc_url"])
async def test_a_taken_port_is_named_with_its_setting(tmp_path: Path, setting: str, host: str) -> None:
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedWeaviateFailed, match=rf"port {port} of VECGATE_WEAVIATE__{setting.upper()}"):
            await EmbeddedWeaviate(
                _settings(tmp_path, **(at_ports(0, 0) | {setting: at_ports(port, port)[setting]}))
            ).start()


async def test_a_start_that_failed_holds_nothing(tmp_path: Path) -> None:
    http_port, grpc_port = free_ports(1, 1)
    weaviate = EmbeddedWeaviate(_settings(tmp_path, **at_ports(http_port, grpc_port)))
    with socket.create_server(("127.0.0.1", http_port)), pytest.raises(EmbeddedWeaviateFailed):
        await weaviate.start()
    await weaviate.start()
    assert (weaviate.http_port, weaviate.grpc_port) == (http_port, grpc_port)
    await weaviate.stop()


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(EmbeddedWeaviateFailed, match=r"file/data.*VECGATE_WEAVIATE__DATA_DIR"):
        await EmbeddedWeaviate(_settings(file / "data")).start()


async def test_a_missing_program_is_named_with_the_ways_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(WeaviateBinaryMissing, match=r"make weaviate.*vecgate weaviate install"):
        await EmbeddedWeaviate(_settings(tmp_path)).start()
    with pytest.raises(WeaviateBinaryMissing, match="VECGATE_WEAVIATE__BINARY"):
        await EmbeddedWeaviate(_settings(tmp_path, binary=tmp_path / "nothing")).start()


async def test_a_program_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho first; echo the disk is on fire >&2; exit 3\n")
    program.chmod(0o755)
    weaviate = EmbeddedWeaviate(_settings(tmp_path / "data", binary=program))
    with pytest.raises(EmbeddedWeaviateFailed, match=r"(?s)code 3.*weaviate\.log.*the disk is on fire"):
        await weaviate.start()
    await weaviate.stop()


async def test_a_child_that_dies_is_restarted_on_the_same_ports_and_the_store_recovers(tmp_path: Path) -> None:
    async with _running(_settings(tmp_path)) as weaviate, _connected(weaviate.client_settings) as store:
        await store.create_collection(make_collection("Pictures"))
        await store.put_objects("Pictures", [make_object(1)])
        for _ in range(2):
            pid = weaviate.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await _wait_until(lambda: not store.available)
            await _wait_until(lambda: store.available)
            assert weaviate.pid not in (pid, None)
            assert await store.count_objects("Pictures") == 1


async def test_a_child_that_cannot_be_noted_is_ended_and_another_one_runs_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BACK_OFF_S", (0.1,))
    others = psutil.Process().children(recursive=True)
    with structlog.testing.capture_logs() as lines:
        async with _running(_settings(tmp_path)) as weaviate:
            note, first = tmp_path / "weaviate.pid", weaviate.pid
            assert first is not None
            note.unlink()
            note.mkdir()  # as little can be written to it as to a file on a full disk
            os.kill(first, signal.SIGKILL)
            await _wait_until(lambda: [each["event"] for each in lines].count("embedded weaviate does not start") > 1)
            note.rmdir()
            await _wait_until(lambda: [each["event"] for each in lines].count("embedded weaviate started") > 1)
            assert len(set(psutil.Process().children(recursive=True)) - set(others)) == 1
    assert set(psutil.Process().children(recursive=True)) <= set(others)
    (reason, *_) = (each["reason"] for each in lines if each["event"] == "embedded weaviate does not start")
    assert str(tmp_path) in reason
    assert "VECGATE_WEAVIATE__DATA_DIR" in reason


async def test_a_full_disk_is_named_with_its_folder_and_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    weaviate = EmbeddedWeaviate(_settings(tmp_path))
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", write)
        with pytest.raises(EmbeddedWeaviateFailed, match=f"{tmp_path} cannot be written: No space left.*make room"):
            await weaviate.start()
    await weaviate.start()
    await weaviate.stop()


async def test_stopping_leaves_no_process_and_may_be_done_twice(tmp_path: Path) -> None:
    others = psutil.Process().children(recursive=True)
    weaviate = EmbeddedWeaviate(_settings(tmp_path))
    await weaviate.stop()
    await weaviate.start()
    pid = weaviate.pid
    assert pid is not None
    await weaviate.stop()
    await weaviate.stop()
    assert not _alive(pid)
    assert weaviate.pid is None
    assert set(psutil.Process().children(recursive=True)) <= set(others)


async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    weaviate = EmbeddedWeaviate(_settings(tmp_path))
    start = asyncio.create_task(weaviate.start())
    await _wait_until(lambda: weaviate.pid is not None)
    pid = weaviate.pid
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert pid is not None
    assert not _alive(pid)
    async with _running(_settings(tmp_path)):
        pass


async def _cancelled_stop(weaviate: EmbeddedWeaviate) -> int:
    """Start a server, cancel its stop once that has begun, and return the server's process id."""
    await weaviate.start()
    pid = weaviate.pid
    assert pid is not None
    stop = asyncio.create_task(weaviate.stop())
    await asyncio.sleep(0)
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop
    return pid


async def test_a_stop_that_is_cancelled_before_the_server_s_end_leaves_no_process(tmp_path: Path) -> None:
    weaviate = EmbeddedWeaviate(_settings(tmp_path))
    pid = await _cancelled_stop(weaviate)

    assert not _alive(pid)
    async with _running(_settings(tmp_path)):
        pass


async def test_a_stop_that_is_cancelled_while_the_server_ends_may_be_done_again(tmp_path: Path) -> None:
    weaviate = EmbeddedWeaviate(_settings(tmp_path), supervised=False)
    pid = await _cancelled_stop(weaviate)

    await weaviate.stop()

    assert not _alive(pid)
    async with _running(_settings(tmp_path)):
        pass


async def test_the_child_hears_no_signal_of_the_terminal(tmp_path: Path) -> None:
    async with _running(_settings(tmp_path)) as weaviate:
        assert weaviate.pid is not None
        assert os.getsid(weaviate.pid) == os.getpgid(weaviate.pid) == weaviate.pid != os.getsid(0)


@pytest.mark.parametrize("mode", [None, 0o755, 0o777])
async def test_the_folder_is_nobody_else_s_also_one_that_was_there_before(tmp_path: Path, mode: int | None) -> None:
    folder = tmp_path / "data"
    if mode is not None:
        folder.mkdir()
        folder.chmod(mode)

    async with _running(_settings(folder)):
        kept = stat.S_IMODE((await asyncio.to_thread(folder.stat)).st_mode)

    assert kept == 0o700


async def test_a_folder_of_everybody_keeps_its_mode(tmp_path: Path) -> None:
    await asyncio.to_thread(tmp_path.chmod, 0o1777)

    with structlog.testing.capture_logs() as lines:
        async with _running(_settings(tmp_path)):
            pass

    assert (await asyncio.to_thread(tmp_path.stat)).st_mode & 0o7777 == 0o1777
    assert any("others may read the data folder" in line["event"] for line in lines)


async def test_a_folder_whose_mode_cannot_be_changed_is_used_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    await asyncio.to_thread(tmp_path.chmod, 0o755)
    monkeypatch.setattr(Path, "chmod", refuse)

    with structlog.testing.capture_logs() as lines:
        async with _running(_settings(tmp_path)):
            pass

    assert any("others may read the data folder" in line["event"] for line in lines)


async def test_secrets_of_the_environment_stay_with_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__API_KEY", "secret")
    monkeypatch.setenv("PERSISTENCE_DATA_PATH", "/elsewhere")
    async with _running(_settings(tmp_path)) as weaviate:
        environment = psutil.Process(weaviate.pid).environ()
        assert not any(name.startswith("VECGATE_") for name in environment)
        assert environment["PERSISTENCE_DATA_PATH"] == str(tmp_path / "data")
        key = weaviate.client_settings.api_key
        assert key is not None
        assert key.get_secret_value() not in (tmp_path / "weaviate.log").read_text()
        assert key.get_secret_value() not in (tmp_path / "weaviate.pid").read_text()


async def test_what_listens_on_all_addresses_answers_only_to_a_key(tmp_path: Path) -> None:
    async with _running(_settings(tmp_path)) as weaviate:
        connections = psutil.Process(weaviate.pid).net_connections("inet")
        listening = {each.laddr.port: each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
        open_to_all = {port for port, ip in listening.items() if ip != "127.0.0.1"}
        assert weaviate.grpc_port in open_to_all
        assert len(open_to_all) == 2, "gRPC and the cluster's data"
        (cluster_port,) = open_to_all - {weaviate.grpc_port}
        reader, writer = await asyncio.open_connection("127.0.0.1", cluster_port)
        writer.write(b"GET /nodes/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 401 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
        async with _connected(weaviate.client_settings.model_copy(update={"api_key": None})) as stranger:
            assert not stranger.available


@pytest.mark.parametrize("at", [0, 2, 3], ids=["gossip", "raft", "raft calls"])
async def test_an_internal_port_that_is_taken_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    chosen: list[list[int]] = []
    with contextlib.ExitStack() as held:

        def choose(*lengths: int, besides: tuple[int, ...] = ()) -> list[int]:
            ports = free_ports(*lengths, besides=besides)
            if lengths == (2, 2):
                chosen.append(ports)
                if len(chosen) == 1:
                    held.enter_context(socket.create_server(("", ports[at // 2] + at % 2)))
            return ports

        monkeypatch.setattr("service.store.embedded.server.free_ports", choose)
        async with _running(_settings(tmp_path)):
            assert len(chosen) == 2
