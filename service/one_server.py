"""One server in one process: builds everything from the settings, starts it and stops it, in the right order."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from service.access import Authenticator
from service.access.ledger import Ledger
from service.core.embedder_pool import EmbedderPool
from service.core.pictures import Pictures
from service.core.reranker_pool import RerankerPool
from service.process import collector
from service.process.addresses import check_address
from service.process.tracing import Tracing
from service.rpc.connect.application import ConnectApplication
from service.rpc.server.server import GrpcServer
from service.rpc.shared.bounds import RequestLimits
from service.settings import NimConnectionSettings, Settings
from service.store.embedded.server import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore
from service.web.server import WebServer
from service.wiring import build_decoders, build_embedders, build_fetcher, build_rerankers, replicas


@dataclass(frozen=True, slots=True)
class Shared:
    """What several server processes share.

    Attributes:
        ledger: what clients have used of their quotas.
        models: folders with the sockets of the processes that run local models, by embedder.
    """

    ledger: Ledger
    models: Mapping[str, Path]


ALONE = Shared(Ledger(), {})

_log = structlog.get_logger()


async def start_server(
    settings: Settings, ends: AsyncExitStack, end: "asyncio.Future[None]", *, shared: Shared = ALONE
) -> dict[str, Any]:
    """Start everything.

    Args:
        settings: of the service.
        ends: gets the callbacks that stop it, in reverse order: the embedded Weaviate stops last.
        end: done once the service is to stop; this never does it.
        shared: what the process has in common with others.

    Returns:
        What serves, and where.
    """
    del end
    # Wrong settings of an embedder, and taken addresses, are reported before anything runs.
    authenticator = Authenticator(settings.auth, shared.ledger)
    decoders = build_decoders(settings)
    embedders = EmbedderPool(build_embedders(settings, decoders, models=shared.models), replicas=replicas(settings))
    rerankers = RerankerPool(build_rerankers(settings, decoders))
    fetcher = build_fetcher(settings)
    web = _web_server(settings, authenticator, embedders) if settings.web.enabled else None
    tracing = Tracing()
    ends.push_async_callback(tracing.close)
    where = settings.weaviate
    weaviate = None
    if where.embedded:
        check_address(settings.server)
        weaviate = EmbeddedWeaviate(where)
        ends.push_async_callback(weaviate.stop)
    ends.push_async_callback(decoders.close)
    for pool in (embedders, rerankers):
        ends.push_async_callback(pool.close)
    # Loading a local model takes as long as all the rest.
    async with _beside(embedders.start()):
        if weaviate is not None:
            await weaviate.start()
            where = weaviate.client_settings
        store = WeaviateStore(where)
        await ends.enter_async_context(fetcher)
        pictures = Pictures(fetcher, max_image_bytes=settings.limits.max_image_bytes)
        server = _grpc_server(settings, authenticator, store, embedders, rerankers, pictures=pictures)
        ends.push_async_callback(authenticator.close)
        await authenticator.start()
        ends.push_async_callback(store.close)
        await store.start()
        await rerankers.start()
    await _start_all(settings, ends, server, web)
    collector.keep()
    ends.callback(collector.release)
    return {
        "grpc": f"{settings.server.host}:{server.port}",
        "http": None if web is None else web.address,
        "weaviate": str(where.http),
        "weaviate_grpc": str(where.grpc),
        "embedders": [embedder.spec.name for embedder in embedders.all],
        "rerankers": [group.spec.name for group in rerankers.groups],
    }


async def _start_all(settings: Settings, ends: AsyncExitStack, server: GrpcServer, web: WebServer | None) -> None:
    servers: list[GrpcServer | WebServer] = [server]
    if web is not None:
        api = ConnectApplication(server.methods, settings.server.max_request_bytes, RequestLimits.of(settings.limits))
        ends.callback(api.close)
        if settings.api_over_http:
            web.calls.serve(api)
        else:
            _log.warning("no calls of the API over HTTP: set VECGATE_WEB__TLS_CLIENT_CA_FILE as well")
        servers.append(web)
    ends.push_async_callback(_stop_all, servers)
    for each in servers:
        await each.start()


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do something during the block, and wait for it; what fails first ends the other, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work)
            yield
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _web_server(settings: Settings, authenticator: Authenticator, embedders: EmbedderPool) -> WebServer:
    # Without the API the explorer has nothing to show.
    explorer = settings.web.explorer and settings.api_over_http
    own = settings.web.model_copy(update={"explorer": explorer})
    return WebServer(own, settings.server, embedders=embedders, authenticator=authenticator)


def _grpc_server(
    settings: Settings,
    authenticator: Authenticator,
    store: WeaviateStore,
    embedders: EmbedderPool,
    rerankers: RerankerPool,
    *,
    pictures: Pictures,
) -> GrpcServer:
    return GrpcServer(
        settings.server,
        RequestLimits.of(settings.limits),
        store=store,
        embedders=embedders,
        rerankers=rerankers,
        authenticator=authenticator,
        embedding=settings.embedder,
        pictures=pictures,
        allow_caller_keys=any(
            isinstance(group, NimConnectionSettings) and group.allow_caller_keys
            for group in settings.embedders.values()
        ),
    )


async def _stop_all(servers: Sequence[GrpcServer | WebServer]) -> None:
    """Stop all servers at the same time, so that their load balancers notice at the same time."""
    await asyncio.gather(*(each.stop() for each in servers))
