"""The service as a program: it starts, serves until a signal, drains and stops."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from embedders.errors import ModelUnusable
from service.process import collector
from service.process.addresses import AddressTaken, check_address
from service.process.log import configure_logging
from service.process.shared_metrics import share_metrics
from service.settings import InvalidSettings, Settings, masked_settings
from service.store.embedded.binary import WeaviateBinaryMissing
from service.store.embedded.server import EmbeddedWeaviateFailed
from service.workers.link import ParentLink, WorkersFailed

log = structlog.get_logger(__name__)

T = TypeVar("T")


class SystemRefused(Exception):
    """The system did not give what the start needs, such as a folder for temporary files; the message says what."""


CANNOT_START = (
    AddressTaken,
    EmbeddedWeaviateFailed,
    InvalidSettings,
    ModelUnusable,
    SystemRefused,
    WeaviateBinaryMissing,
    WorkersFailed,
)

Start = Callable[[Settings, AsyncExitStack, "asyncio.Future[None]"], Coroutine[Any, Any, dict[str, Any]]]
"""Starts what serves and returns what the log says of it. The stack gets what ends it; a failure ends the future."""


def run(
    settings: Settings, *, once_serving: Callable[[], Coroutine[Any, Any, int]] | None = None
) -> Coroutine[Any, Any, int]:
    """Serve until SIGTERM or SIGINT; then drain and stop.

    Args:
        settings: of the service.
        once_serving: what to do as soon as calls are answered; a signal cancels it. If it returns another exit code
            than 0, the service stops with that code.

    Returns:
        The program's exit code: 0 after a clean end, 1 if the service could not start, 2 if a setting is invalid.

    Raises:
        ModuleNotFoundError: at once: packages of the server are not installed.
    """
    with collector.paused():
        start = _starter(settings)

    async def told(serving: dict[str, Any]) -> int:
        log.info("serving", **serving)
        return 0 if once_serving is None else await once_serving()

    async def running() -> int:
        configure_logging(settings.log)
        # Objects, keys and logs are private. Child processes inherit this.
        os.umask(0o077)
        raise_file_limit()
        log.info("settings", **masked_settings(settings))
        try:
            _check_files(settings)
            return await _serve(settings, start, told)
        except CANNOT_START as error:
            log.error("cannot_start", reason=str(error))  # noqa: TRY400  # the traceback adds nothing
            return 2 if isinstance(error, InvalidSettings) else 1

    return running()


def run_worker() -> None:
    """Be one of the server processes; the arguments of the program are its number and the folder that all share."""
    number, folder = int(sys.argv[1]), Path(sys.argv[2])
    share_metrics(folder, number)
    parent = ParentLink(folder)
    # What makes metrics is loaded now that they are shared.
    with collector.paused():
        import uvloop  # noqa: PLC0415

        from service.access.ledger import SharedLedger  # noqa: PLC0415
        from service.one_server import Shared, start_server  # noqa: PLC0415
        from service.process.metrics import show_gauges  # noqa: PLC0415

    try:
        settings, models = parent.assignment()
    except EOFError:
        return

    async def told(serving: dict[str, Any]) -> int:
        parent.tell(serving=serving)
        log.info("worker_serving")
        return 0

    async def running() -> int:
        configure_logging(settings.log, worker=number)
        shared = Shared(SharedLedger(folder / "quotas", workers=settings.server.workers, worker=number), models)
        showing = asyncio.create_task(show_gauges(), name="gauges")
        try:
            return await _serve(settings, partial(start_server, shared=shared), told)
        except CANNOT_START as error:
            parent.tell(fault=str(error), is_setting=isinstance(error, InvalidSettings))
            return 1
        finally:
            showing.cancel()

    sys.exit(uvloop.run(running()))


def _starter(settings: Settings) -> Start:
    """Return what starts the service; loads no more than that needs."""
    if settings.server.workers == 1:
        from service.one_server import start_server  # noqa: PLC0415 -- loads gRPC, Weaviate's client and more

        return start_server
    from service.workers.supervisor import start_workers  # noqa: PLC0415

    return start_workers


def _check_files(settings: Settings) -> None:
    """Raise InvalidSettings with all that is wrong with the files that settings name, before anything starts."""
    from service.wiring import read_files  # noqa: PLC0415 -- what starts the service has loaded it

    _, faults = read_files(settings)
    if faults:
        raise InvalidSettings("\n".join(faults))


async def _serve(
    settings: Settings, start: Start, once_serving: Callable[[dict[str, Any]], Coroutine[Any, Any, int]]
) -> int:
    """Start, tell `once_serving` what serves, and stop after a signal; return the exit code of `once_serving`."""
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop() -> None:
        if not end.done():
            end.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    code = 0
    async with AsyncExitStack() as ends:
        # A signal during a slow start ends the start; what has been started by then is ended as always.
        serving = await _unless_ended(end, _begun(start(settings, ends, end)))
        if serving is not None:
            code = await _unless_ended(end, once_serving(serving)) or 0
        if not code:
            await end
        log.info("stopping")
    log.info("stopped")
    return code


async def _begun(start: Coroutine[Any, Any, T]) -> T:
    try:
        return await start
    except OSError as error:
        raise SystemRefused(str(error) or repr(error)) from error


def describe_port_fault(settings: Settings) -> str | None:
    """Return why the server cannot listen on its gRPC port; None if it can."""
    try:
        check_address(settings.server)
    except AddressTaken as error:
        return str(error)
    return None


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit: every connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has its own bound
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.debug("open_files", before=soft, limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0])


async def _unless_ended(end: "asyncio.Future[None]", work: Coroutine[Any, Any, T]) -> T | None:
    """Do something and return its result; if `end` comes before, cancel it and return None."""
    working = asyncio.create_task(work)
    await asyncio.wait((working, end), return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.wait((working,))
    return None
