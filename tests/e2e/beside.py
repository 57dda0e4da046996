"""Vecgate beside a client of Weaviate's own, on one real Weaviate."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import weaviate
from weaviate import WeaviateAsyncClient
from weaviate.classes.init import AdditionalConfig, Auth

from embedders.contract import Embedder
from embedders.reranking import WatchedReranker
from service.core.embedder_pool import EmbedderPool
from service.core.reranker_pool import RerankerPool
from service.rpc.server.server import GrpcServer
from service.rpc.shared.bounds import RequestLimits
from service.settings import LimitSettings, ServerSettings, WeaviateSettings
from service.store.weaviate import WeaviateStore
from tests.fakes.embedder import watched


def direct_client(settings: WeaviateSettings, **headers: str) -> WeaviateAsyncClient:
    """Return a client of Weaviate's own, not connected yet."""
    assert settings.api_key is not None
    return weaviate.use_async_with_custom(
        http_host=settings.http.host,
        http_port=settings.http.port,
        http_secure=False,
        grpc_host=settings.grpc.host,
        grpc_port=settings.grpc.port,
        grpc_secure=False,
        headers=headers,
        auth_credentials=Auth.api_key(settings.api_key.get_secret_value()),
        additional_config=AdditionalConfig(),
        skip_init_checks=True,
    )


@asynccontextmanager
async def served(
    settings: WeaviateSettings, *embedders: Embedder, rerankers: Sequence[WatchedReranker] = ()
) -> AsyncIterator[str]:
    """Run Vecgate, and give its address."""
    async with AsyncExitStack() as stack:
        store = WeaviateStore(settings)
        pool = EmbedderPool([watched(each) for each in embedders], check_interval_s=60)
        stack.push_async_callback(store.close)
        await store.start()
        stack.push_async_callback(pool.close)
        await pool.start()
        await pool.first_checks()
        reranking = RerankerPool([[each] for each in rerankers], check_interval_s=60)
        stack.push_async_callback(reranking.close)
        await reranking.start()
        await reranking.first_checks()
        limits = RequestLimits.of(LimitSettings())
        server = GrpcServer(ServerSettings(port=0), limits, store=store, embedders=pool, rerankers=reranking)
        stack.push_async_callback(server.stop)
        await server.start()
        yield f"127.0.0.1:{server.port}"


@asynccontextmanager
async def beside(
    settings: WeaviateSettings, *embedders: Embedder, rerankers: Sequence[WatchedReranker] = ()
) -> AsyncIterator[tuple[grpc.aio.Channel, WeaviateAsyncClient]]:
    """Run Vecgate, and give a channel to it and a client of Weaviate's own."""
    async with (
        served(settings, *embedders, rerankers=rerankers) as address,
        direct_client(settings) as direct,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield channel, direct
