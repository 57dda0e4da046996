"""Weaviate as a child process: started, watched, restarted and ended by us."""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import psutil
import structlog
from pydantic import SecretStr

from embedders.children import ending_with_this
from service.errors import ServiceError
from service.process.ports import answers_ready, find_port_fault, free_ports, listens
from service.settings import WeaviateSettings, read_secret, variable
from service.store.embedded.binary import find_binary

HOST = "127.0.0.1"
DATA_DIR = variable("weaviate", "data_dir")
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.1
PORT_ATTEMPTS = 3
BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S = 60.0
CLOCK_SLACK_S = 2.0
PRIVATE = 0o700
SWITCHES = {
    "RUNTIME_REINDEX_ENABLED": "true",
    "ENABLE_EXPERIMENTAL_ALTER_SCHEMA_DROP_VECTOR_INDEX_ENDPOINT": "true",
    "OBJECTS_TTL_DELETE_SCHEDULE": "@every 1m",
}
"""What Weaviate has off by default: changes of properties' indexes, removal of named vectors, objects that expire."""
MAX_LOG_BYTES = 10 * 1024 * 1024
LOG_TAIL_LINES = 8
# All that a program needs of our environment; the rest may hold secrets, or settings of another Weaviate.
PASSED_ON = ("GOGC", "GOMAXPROCS", "GOMEMLIMIT", "HOME", "LANG", "LIMIT_RESOURCES", "PATH", "TMPDIR", "TZ")

_log = structlog.get_logger()


class EmbeddedWeaviateFailed(ServiceError):
    """Weaviate cannot be run beside us; the message says why and which setting helps."""


class EmbeddedWeaviate:
    """Our own Weaviate server on this machine, with its data in one folder.

    HTTP listens on 127.0.0.1. Weaviate cannot be told where its gRPC and cluster ports listen: they are open to all,
    but answer only to who knows a key. Belongs to one event loop. On Linux it ends when the loop's thread does, so that
    it does not outlive a process that is killed.

    Attributes:
        data_dir: the folder of its data, log, lock and process id.
    """

    def __init__(self, settings: WeaviateSettings, *, supervised: bool = True) -> None:
        """Remember the settings; nothing is started before start.

        Args:
            settings: data_dir, binary, the ports of the two URLs and the API key are used.
            supervised: whether a server that dies is started again.

        Raises:
            InvalidSettings: the key file cannot be read.
        """
        self.data_dir = settings.data_dir.expanduser().absolute()
        self._settings = settings
        self._supervised = supervised
        self._api_key = read_secret(settings.api_key, settings.api_key_file) or secrets.token_urlsafe(32)
        self._cluster_key = secrets.token_urlsafe(32)
        self._http_port = settings.http.port
        self._grpc_port = settings.grpc.port
        self._binary: Path | None = None
        self._lock: int | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def http_port(self) -> int:
        """Where HTTP listens; known after start if the setting is 0."""
        return self._http_port

    @property
    def grpc_port(self) -> int:
        """Where gRPC listens; known after start if the setting is 0."""
        return self._grpc_port

    @property
    def pid(self) -> int | None:
        """The server's process id; None while there is none."""
        return None if self._child is None or self._child.returncode is not None else self._child.pid

    @property
    def client_settings(self) -> WeaviateSettings:
        """Settings with which a store reaches this server; the key is in them."""
        return self._settings.model_copy(
            update={
                "embedded": False,
                "http_url": f"http://{HOST}:{self._http_port}",
                "grpc_url": f"grpc://{HOST}:{self._grpc_port}",
                "api_key": SecretStr(self._api_key),
                "api_key_file": None,
            }
        )

    async def start(self) -> None:
        """Start the server and return when both ports answer. One that a dead Vecgate left in the folder ends first.

        Raises:
            WeaviateBinaryMissing: there is no program to run.
            EmbeddedWeaviateFailed: the folder or a port is taken or unusable, or the server does not come up.
        """
        self._binary = find_binary(self._settings.binary)
        self._acquire_lock()
        try:
            await self._end_orphan()
            self._choose_ports()
            self._rotate_log()
            await self._run()
        except BaseException:
            await self.stop()
            raise
        if self._supervised:
            self._supervisor = asyncio.create_task(self._supervise(), name="weaviate-supervisor")

    async def stop(self) -> None:
        """End the server cleanly, by force after 20 s, and let go of the folder. May be called twice.

        If this is cancelled while the server ends, call it again: until then the folder is held.
        """
        try:
            if self._supervisor is not None:
                self._supervisor.cancel()
                await asyncio.wait([self._supervisor])
        finally:
            if self._child is not None:
                await _end_child(self._child)
                self._child = None
                self._pid_file.unlink(missing_ok=True)
                _log.info("embedded weaviate stopped")
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    @property
    def _pid_file(self) -> Path:
        return self.data_dir / "weaviate.pid"

    @property
    def _log_file(self) -> Path:
        return self.data_dir / "weaviate.log"

    def _acquire_lock(self) -> None:
        if self._lock is not None:
            raise EmbeddedWeaviateFailed(f"Weaviate in {self.data_dir} was started already")
        path = self.data_dir / "vecgate.lock"
        try:
            self.data_dir.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            self._keep_others_out()
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise EmbeddedWeaviateFailed(
                f"the data folder {self.data_dir} is in use by another Vecgate (process {owner}); stop that one, "
                f"or set {DATA_DIR} to another folder"
            ) from error
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(lock)
            raise self._unwritable(error) from error
        self._lock = lock

    def _unwritable(self, error: OSError) -> EmbeddedWeaviateFailed:
        return EmbeddedWeaviateFailed(
            f"the data folder {self.data_dir} cannot be written: {error.strerror}; make room, or set {DATA_DIR} to "
            "another folder"
        )

    def _keep_others_out(self) -> None:
        if not (mode := self.data_dir.stat().st_mode) & ~PRIVATE & 0o777:
            return
        # A folder such as /tmp is everybody's; of a volume of Kubernetes somebody else is the owner.
        if not mode & stat.S_ISVTX:
            with contextlib.suppress(PermissionError):
                self.data_dir.chmod(mode & ~0o077)
                return
        _log.warning(
            "others may read the data folder; name a folder that is Vecgate's own", data_dir=str(self.data_dir)
        )

    async def _end_orphan(self) -> None:
        orphan = self._find_orphan()
        if orphan is not None:
            # It may be writing its data down already; a second signal to end changes nothing.
            _log.warning("ending the weaviate that a dead vecgate left", pid=orphan.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.terminate()
                if not await _wait_gone(orphan):
                    orphan.kill()
                    await _wait_gone(orphan)
        self._pid_file.unlink(missing_ok=True)

    def _find_orphan(self) -> psutil.Process | None:
        try:
            noted = json.loads(self._pid_file.read_text(encoding="utf-8"))
            process = psutil.Process(int(noted["pid"]))
            # Process ids are used again: only the same start and the same program make it ours.
            same = (
                abs(process.create_time() - noted["create_time"]) < CLOCK_SLACK_S
                and process.cmdline() == noted["command"]
            )
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None
        return process if same else None

    def _choose_ports(self) -> None:
        wanted = [(HOST, self._settings.http.port, "http_url"), ("", self._settings.grpc.port, "grpc_url")]
        faults = [
            f"port {port} of {variable('weaviate', setting)} cannot be used ({fault}); stop the program that has "
            "it, or set another port there, or 0"
            for host, port, setting in wanted
            if port and (fault := find_port_fault(host, port))
        ]
        if faults:
            raise EmbeddedWeaviateFailed("; ".join(faults))
        free = free_ports(1, 1)
        self._http_port = self._settings.http.port or free[0]
        self._grpc_port = self._settings.grpc.port or free[1]

    def _rotate_log(self) -> None:
        if self._log_file.exists() and self._log_file.stat().st_size > MAX_LOG_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))

    async def _run(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            began = self._log_size()
            child = self._child = await self._spawn()
            if await self._wait_ready(child):
                _log.info(
                    "embedded weaviate started",
                    pid=child.pid,
                    http_port=self._http_port,
                    grpc_port=self._grpc_port,
                    data_dir=str(self.data_dir),
                )
                return
            died = child.returncode is not None
            await _end_child(child)
            # A port that was free a moment ago may be taken by now; another try takes others.
            if not died or attempt == PORT_ATTEMPTS or "address already in use" not in self._read_log(began):
                what = f"ended with code {child.returncode}" if died else f"was not ready after {READY_TIMEOUT_S:g} s"
                tail = "\n".join(self._read_log(began).splitlines()[-LOG_TAIL_LINES:])
                raise EmbeddedWeaviateFailed(f"Weaviate {what}; {self._log_file} ends with:\n{tail}")

    async def _spawn(self) -> asyncio.subprocess.Process:
        assert self._binary is not None
        command = [str(self._binary), "--scheme", "http", "--host", HOST, "--port", str(self._http_port)]
        command += ["--read-timeout=600s", "--write-timeout=600s"]
        with self._log_file.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *ending_with_this(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._make_environment(),
                # A Ctrl-C in the terminal is for us: we drain first and stop the server last.
                start_new_session=True,
            )
        noted: dict[str, Any] = {"pid": child.pid, "command": command, "ports": [self._http_port, self._grpc_port]}
        with contextlib.suppress(psutil.NoSuchProcess):
            noted["create_time"] = psutil.Process(child.pid).create_time()
        try:
            self._pid_file.write_text(json.dumps(noted), encoding="utf-8")
        except OSError as error:
            # Nobody would know of it, and the next one would find its data taken.
            await _end_child(child)
            raise self._unwritable(error) from error
        return child

    def _make_environment(self) -> dict[str, str]:
        # Weaviate wants the second port of both services right after the first when it is alone on a machine.
        gossip, raft = free_ports(2, 2, besides=(self._http_port, self._grpc_port))
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own = {
            "PERSISTENCE_DATA_PATH": str(self.data_dir / "data"),
            "GRPC_PORT": str(self._grpc_port),
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
            "AUTHENTICATION_APIKEY_ENABLED": "true",
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": self._api_key,
            "AUTHENTICATION_APIKEY_USERS": "vecgate",
            "CLUSTER_HOSTNAME": "vecgate",
            "CLUSTER_IN_LOCALHOST": "true",
            "CLUSTER_BIND_ADDR": HOST,
            "CLUSTER_ADVERTISE_ADDR": HOST,
            "CLUSTER_GOSSIP_BIND_PORT": str(gossip),
            "CLUSTER_DATA_BIND_PORT": str(gossip + 1),
            "CLUSTER_BASIC_AUTH_USERNAME": "vecgate",
            "CLUSTER_BASIC_AUTH_PASSWORD": self._cluster_key,
            "RAFT_PORT": str(raft),
            "RAFT_INTERNAL_RPC_PORT": str(raft + 1),
            "RAFT_JOIN": f"vecgate:{raft}",
            "RAFT_BOOTSTRAP_EXPECT": "1",
            # The election of the only member takes 2 s instead of 8.
            "RAFT_TIMEOUTS_MULTIPLIER": "1",
            "AUTOSCHEMA_ENABLED": "false",
            "DISABLE_TELEMETRY": "true",
            "GO_PROFILING_DISABLE": "true",
            "LOG_LEVEL": "warning",
            "QUERY_MAXIMUM_RESULTS": "100000",
        }
        return passed_on | SWITCHES | own

    async def _wait_ready(self, child: asyncio.subprocess.Process) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + READY_TIMEOUT_S
        while child.returncode is None and loop.time() < end:
            if await answers_ready(HOST, self._http_port) and await listens(HOST, self._grpc_port):
                # Another program may be what answers, if it was quicker than the child to take the port.
                return child.returncode is None
            await asyncio.sleep(POLL_S)
        return False

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        began = loop.time()
        while True:
            child = self._child
            assert child is not None
            code = await child.wait()
            failures = 0 if loop.time() - began > STEADY_S else failures
            back_off_s = BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)]
            failures += 1
            _log.error("embedded weaviate died", code=code, restart_in_s=back_off_s, log=str(self._log_file))
            await asyncio.sleep(back_off_s)
            began = loop.time()
            try:
                await self._run()
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is tried again
                _log.error("embedded weaviate does not start", reason=str(error).partition("\n")[0])

    def _log_size(self) -> int:
        return self._log_file.stat().st_size if self._log_file.exists() else 0

    def _read_log(self, start: int) -> str:
        with self._log_file.open("rb") as log:
            log.seek(max(start, self._log_size() - 64 * 1024))
            return log.read().decode(errors="replace")


async def _end_child(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await child.wait()
        except TimeoutError:
            _log.warning("embedded weaviate does not stop and is killed", pid=child.pid)
            with contextlib.suppress(ProcessLookupError):
                child.kill()
    await child.wait()


async def _wait_gone(process: psutil.Process) -> bool:
    loop = asyncio.get_running_loop()
    end = loop.time() + STOP_TIMEOUT_S
    while loop.time() < end:
        # A zombie waits for its parent, which may never ask; it holds nothing any more.
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        await asyncio.sleep(POLL_S)
    return False
