"""The parent of several server processes: it holds their addresses, starts what they share, and replaces who dies."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import structlog

from embedders.clip.processes import ModelProcesses
from service.access.ledger import SharedLedger
from service.process.addresses import hold
from service.process.shared_metrics import forget_metrics
from service.settings import InvalidSettings, ServerSettings, Settings, WebSettings
from service.store.embedded.server import EmbeddedWeaviate
from service.wiring import local_models
from service.workers.link import Assignment, WorkerLink, WorkersFailed

log = structlog.get_logger(__name__)

PROGRAM = "from service.app import run_worker; run_worker()"
BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S = 60.0
"""A worker that lives so long is replaced at once when it dies."""
MAX_EARLY_DEATHS = 5
"""A worker that dies so many times in a row before it serves will not serve."""
END_S = 30.0
"""Seconds that a worker may take to end, beyond those for its calls."""


async def start_workers(settings: Settings, ends: AsyncExitStack, end: "asyncio.Future[None]") -> dict[str, Any]:
    """Start what the workers share, and the workers.

    Args:
        settings: of the service.
        ends: gets the callbacks that stop it, in reverse order: the embedded Weaviate stops last.
        end: done once the service is to stop; fails if the workers do.

    Returns:
        What serves, and where.
    """
    groups: list[ServerSettings | WebSettings] = [settings.server]
    if settings.web.enabled:
        groups.append(settings.web)
    for group in groups:
        held = ends.enter_context(hold(group))
        settings = _with(settings, group, port=held.getsockname()[1])
    folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="vecgate-")))
    supervisor = Supervisor(settings.server, folder, end)
    models = {config.name: ModelProcesses(config) for config in local_models(settings)}
    for each in models.values():
        ends.push_async_callback(each.close)
    weaviate = EmbeddedWeaviate(settings.weaviate) if settings.weaviate.embedded else None
    if weaviate is not None:
        ends.push_async_callback(weaviate.stop)
    ends.push_async_callback(supervisor.stop)
    # They load their modules while Weaviate and the models start.
    supervisor.start()
    await _all([*([] if weaviate is None else [weaviate.start()]), *(each.start() for each in models.values())])
    if weaviate is not None:
        settings = settings.model_copy(update={"weaviate": weaviate.client_settings})
    share = settings.embedder.cache_bytes // settings.server.workers
    settings = _with(settings, settings.embedder, cache_bytes=share)
    return await supervisor.serve(Assignment(settings, {name: each.folder for name, each in models.items()}))


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do several things at the same time; what fails first ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _with(settings: Settings, group: Any, **changes: Any) -> Settings:
    """Return settings with changes to one group of them."""
    (name,) = (each for each in Settings.model_fields if getattr(settings, each) is group)
    return settings.model_copy(update={name: group.model_copy(update=changes)})


class Supervisor:
    """Keeps the workers running.

    Args:
        server: how many workers, and how long they may take to end.
        folder: of the files that the workers share.
        end: fails if the workers do.
    """

    def __init__(self, server: ServerSettings, folder: Path, end: "asyncio.Future[None]") -> None:
        self._server = server
        self._folder = folder
        self._end = end
        self._ledger = SharedLedger(folder / "quotas", workers=server.workers)
        self._assignment: Assignment | None = None
        self._known = asyncio.Event()
        self._all_serve = asyncio.Event()
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._workers: dict[int, Process] = {}
        self._serving: dict[int, dict[str, Any]] = {}

    def start(self) -> None:
        """Start the workers; they wait for what to serve."""
        self._keepers = [
            asyncio.create_task(self._keep(number), name=f"worker-{number}")
            for number in range(1, self._server.workers + 1)
        ]

    async def serve(self, what: Assignment) -> dict[str, Any]:
        """Tell the workers what to serve, and return what serves once all of them do."""
        self._assignment = what
        self._known.set()
        await self._all_serve.wait()
        return {**self._serving[1], "workers": len(self._serving)}

    async def stop(self) -> None:
        """Let all workers drain at the same time, and wait for their end."""
        self._stopping.set()
        self._known.set()
        for worker in self._workers.values():
            _send(worker, signal.SIGTERM)
        if not self._keepers:
            return
        calls_s = self._server.drain_delay_s + self._server.drain_grace_s
        _, left = await asyncio.wait(self._keepers, timeout=calls_s + END_S)
        if left:
            log.warning("workers_killed", workers=[keeper.get_name() for keeper in left])
            for worker in self._workers.values():
                _send(worker, signal.SIGKILL)
            await asyncio.wait(left)

    async def _keep(self, number: int) -> None:
        """Run a worker, and another one in its place whenever it dies."""
        loop = asyncio.get_running_loop()
        deaths = early = 0
        try:
            while not self._stopping.is_set():
                began = loop.time()
                said, code = await self._run(number)
                if self._stopping.is_set():
                    return
                deaths = 1 if loop.time() - began > STEADY_S else deaths + 1
                early = 0 if "serving" in said else early + 1
                back_off_s = BACK_OFF_S[min(deaths, len(BACK_OFF_S)) - 1]
                log.error("worker_died", worker=number, **_cause(code, said), restart_in_s=back_off_s)
                self._give_up(number, code, said, early)
                with suppress(TimeoutError):
                    async with asyncio.timeout(back_off_s):
                        await self._stopping.wait()
        except Exception as error:  # noqa: BLE001 -- a worker that nobody keeps would be missed by nobody
            self._fail(WorkersFailed(str(error) or repr(error)) if isinstance(error, OSError) else error)

    async def _run(self, number: int) -> tuple[dict[str, Any], int]:
        """Run a worker to its end; return what it said of its start, and its exit code."""
        ours, theirs = socket.socketpair()
        link = WorkerLink(ours)
        try:
            with theirs:
                worker = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-c", PROGRAM, str(number), str(self._folder)),
                    stdin=theirs.fileno(),
                    # What is in the working folder may have the names of our packages.
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    # A Ctrl-C in the terminal is for the parent, which lets the workers drain.
                    start_new_session=True,
                )
            self._workers[number] = worker
            await self._known.wait()
            if self._stopping.is_set() or self._assignment is None:
                _send(worker, signal.SIGTERM)
                return {}, await worker.wait()
            said = await link.tell(self._assignment)
            if "serving" in said:
                self._serving[number] = said["serving"]
                if len(self._serving) == self._server.workers:
                    self._all_serve.set()
            return said, await worker.wait()
        finally:
            link.close()
            self._workers.pop(number, None)
            self._serving.pop(number, None)
            self._ledger.forget(number)
            forget_metrics(self._folder, number)

    def _give_up(self, number: int, code: int, said: dict[str, Any], early: int) -> None:
        """End the server if a worker cannot start: at the first start, or when no other worker serves."""
        if "fault" in said and not self._all_serve.is_set():
            self._fail(InvalidSettings(said["fault"]) if said["is_setting"] else WorkersFailed(said["fault"]))
        elif early >= MAX_EARLY_DEATHS and not (self._all_serve.is_set() and self._serving):
            what = " ".join(f"{name} {value}" for name, value in _cause(code, said).items())
            self._fail(WorkersFailed(f"worker {number} died {early} times before it served; the last time: {what}"))

    def _fail(self, error: Exception) -> None:
        if not self._end.done():
            self._end.set_exception(error)


def _cause(code: int, said: dict[str, Any]) -> dict[str, Any]:
    """Return why a worker ended, for people."""
    if "fault" in said:
        return {"reason": said["fault"]}
    return {"signal": signal.Signals(-code).name} if code < 0 else {"code": code}


def _send(worker: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        worker.send_signal(number)
