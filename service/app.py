"""The service as a whole: builds everything from the settings, starts it and stops it, in the right order."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import structlog

from embedders.errors import ModelUnusable
from service.access import Authenticator
from service.core.embedder_pool import EmbedderPool
from service.core.reranker_pool import RerankerPool
from service.process.log import configure_logging
from service.process.tracing import Tracing
from service.rpc.server.server import GrpcServer, PortTaken, check_address
from service.rpc.shared.bounds import RequestLimits
from service.settings import InvalidSettings, NimConnectionSettings, Settings, masked_settings
from service.store.embedded.binary import WeaviateBinaryMissing
from service.store.embedded.server import EmbeddedWeaviate, EmbeddedWeaviateFailed
from service.store.weaviate import WeaviateStore
from service.web.server import AddressTaken, WebServer
from service.wiring import build_embedders, build_rerankers, replicas

log = structlog.get_logger(__name__)

T = TypeVar("T")

CANNOT_START = (
    AddressTaken,
    EmbeddedWeaviateFailed,
    InvalidSettings,
    ModelUnusable,
    PortTaken,
    WeaviateBinaryMissing,
)


async def run(settings: Settings, *, once_serving: Callable[[], Coroutine[Any, Any, int]] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; then drain and stop.

    Args:
        settings: of the service.
        once_serving: what to do as soon as calls are answered; a signal cancels it. If it returns another exit code
            than 0, the service stops with that code.

    Returns:
        The program's exit code: 0 after a clean end, 1 if the service could not start, 2 if a setting is invalid.
    """
    configure_logging(settings.log)
    # Objects, keys and logs are private. Weaviate, a child process, inherits this.
    os.umask(0o077)
    raise_file_limit()
    log.info("settings", **masked_settings(settings))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    code = 0
    try:
        async with AsyncExitStack() as ends:
            # A signal during a slow start ends the start; what has been started by then is ended as always.
            await _unless_stopped(stop, _start(settings, ends))
            if once_serving is not None and not stop.is_set():
                code = await _unless_stopped(stop, once_serving()) or 0
            if not code:
                await stop.wait()
            log.info("stopping")
    except CANNOT_START as error:
        log.error("cannot_start", reason=str(error))  # noqa: TRY400  # the traceback adds nothing
        return 2 if isinstance(error, InvalidSettings) else 1
    log.info("stopped")
    return code


def describe_port_fault(settings: Settings) -> str | None:
    """Return why the server cannot listen on its gRPC port; None if it can."""
    try:
        check_address(settings.server)
    except PortTaken as error:
        return str(error)
    return None


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Do something and return its result; if `stop` is set before its end, cancel it and return None."""
    working = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.wait((working,))
    return None


async def _start(settings: Settings, ends: AsyncExitStack) -> None:
    """Start everything. `ends` gets the callbacks that stop it, in reverse order: the embedded Weaviate stops last."""
    # Wrong settings of an embedder, and taken addresses, are reported before anything runs.
    authenticator = Authenticator(settings.auth)
    embedders = EmbedderPool(build_embedders(settings), replicas=replicas(settings))
    rerankers = RerankerPool(build_rerankers(settings))
    web = None
    if settings.web.enabled:
        web = WebServer(settings.web, settings.server, embedders=embedders, authenticator=authenticator)
    tracing = Tracing()
    ends.push_async_callback(tracing.close)
    where = settings.weaviate
    if where.embedded:
        check_address(settings.server)
        weaviate = EmbeddedWeaviate(where)
        ends.push_async_callback(weaviate.stop)
        await weaviate.start()
        where = weaviate.client_settings
    store = WeaviateStore(where)
    server = GrpcServer(
        settings.server,
        RequestLimits.of(settings.limits),
        store=store,
        embedders=embedders,
        rerankers=rerankers,
        authenticator=authenticator,
        allow_caller_keys=any(
            isinstance(group, NimConnectionSettings) and group.allow_caller_keys
            for group in settings.embedders.values()
        ),
    )
    servers: list[GrpcServer | WebServer] = [server] if web is None else [server, web]
    ends.push_async_callback(authenticator.close)
    await authenticator.start()
    ends.push_async_callback(store.close)
    await store.start()
    for pool in (embedders, rerankers):
        ends.push_async_callback(pool.close)
        await pool.start()
    ends.push_async_callback(_stop_all, servers)
    for each in servers:
        await each.start()
    _calm_collector()
    # Without this, libraries complain at exit about objects that were never collected.
    ends.callback(gc.unfreeze)
    log.info(
        "serving",
        grpc=f"{settings.server.host}:{server.port}",
        http=None if web is None else web.address,
        weaviate=str(where.http),
        weaviate_grpc=str(where.grpc),
        embedders=[embedder.spec.name for embedder in embedders.all],
        rerankers=[group.spec.name for group in rerankers.groups],
    )


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit: every connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has its own bound
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.debug("open_files", before=soft, limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _calm_collector() -> None:
    """Keep the garbage collector from scanning what lives as long as the process, such as torch and the stubs."""
    gc.collect()
    gc.freeze()


async def _stop_all(servers: Sequence[GrpcServer | WebServer]) -> None:
    """Stop all servers at the same time, so that their load balancers notice at the same time."""
    await asyncio.gather(*(each.stop() for each in servers))
