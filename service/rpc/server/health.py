"""grpc.health.v1, kept true: a name for each of our services, "" for all of them together, and one for the process."""

import asyncio
import contextlib
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from service.core.embedder_pool import EmbedderPool
from service.store.base import Store

ADMIN = "vecgate.v1.AdminService"
EMBEDDING = "vecgate.v1.EmbeddingService"
COLLECTION = "vecgate.v1.CollectionService"
OBJECT = "vecgate.v1.ObjectService"
SEARCH = "vecgate.v1.SearchService"
LIVENESS = "liveness"
"""The process answers, whatever Weaviate and the embedders do: a restart would mend none of those."""

MAX_NAME_LENGTH = 1024
"""Of a service that somebody watches: a watch keeps the name as long as it lasts."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class _HealthServicer(health_aio.HealthServicer):  # type: ignore[misc]  # untyped
    """Bounds the watches, which never end by themselves.

    Args:
        max_watches: those at the same time.
    """

    def __init__(self, max_watches: int) -> None:
        super().__init__()
        self._max_watches = max_watches
        self._watches = 0

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        """Tell the health now and whenever it changes."""
        if len(request.service) > MAX_NAME_LENGTH:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service has so long a name")
        if self._watches >= self._max_watches:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._max_watches} callers watch the health, and no more may: ask with Check, or set "
                "VECGATE_SERVER__MAX_CALLS",
            )
        self._watches += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches -= 1


class HealthReporter:
    """Publishes what the store and the embedders say of themselves.

    Args:
        store: what CollectionService, ObjectService and SearchService need.
        embedders: at least one of which EmbeddingService, ObjectService and SearchService need.
        max_watches: callers that may watch at the same time.
        interval_s: seconds between looks.
    """

    def __init__(self, store: Store, embedders: EmbedderPool, *, max_watches: int, interval_s: float = 0.25) -> None:
        self.servicer = _HealthServicer(max_watches)
        self._store = store
        self._embedders = embedders
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Publish now, and go on publishing in the background."""
        await self.servicer.set(LIVENESS, SERVING)
        await self._publish()
        self._task = asyncio.create_task(self._publish_forever(), name="health-reports")

    async def drain(self) -> None:
        """Report NOT_SERVING for everything but the process itself from now on."""
        await self.close()
        # Not the servicer's own graceful shutdown, which would call the process dead while it finishes its calls.
        for name in (ADMIN, EMBEDDING, COLLECTION, OBJECT, SEARCH, ""):
            await self.servicer.set(name, NOT_SERVING)

    async def close(self) -> None:
        """Stop publishing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _publish_forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._publish()

    async def _publish(self) -> None:
        store = self._store.available
        embedder = self._embedders.working
        for name, serving in {
            ADMIN: True,
            EMBEDDING: embedder,
            COLLECTION: store,
            OBJECT: store and embedder,
            SEARCH: store and embedder,
            "": store and embedder,
        }.items():
            await self.servicer.set(name, SERVING if serving else NOT_SERVING)
