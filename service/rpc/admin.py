"""AdminService: the state of the server for operators, from the values of its metrics."""

from datetime import timedelta
from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from prometheus_client import CollectorRegistry

from embedders.contract import WatchedEmbedder
from service.access import Authenticator
from service.core.embedder_pool import EmbedderPool
from service.core.reranker_pool import RerankerGroup, RerankerPool
from service.process.metrics import exposed
from service.store.base import Store
from vecgate.v1 import admin_service_pb2 as pb
from vecgate.v1 import admin_service_pb2_grpc as pb_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class AdminServicer(pb_grpc.AdminServiceServicer):
    """Answers AdminService."""

    def __init__(
        self, store: Store, embedders: EmbedderPool, rerankers: RerankerPool, authenticator: Authenticator
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._rerankers = rerankers
        self._authenticator = authenticator

    async def GetServerStatus(self, request: pb.GetServerStatusRequest, context: Context) -> pb.GetServerStatusResponse:
        """Return what waits, what runs and what fails at this moment."""
        found = await exposed()
        return pb.GetServerStatusResponse(
            release=version("vecgate"),
            calls_in_flight=int(_gauge(found, "vecgate_grpc_calls_in_flight")),
            http_requests_in_flight=int(_gauge(found, "vecgate_http_requests_in_flight")),
            store_available=self._store.available,
            embedders=[self._embedder(found, each) for each in self._embedders.all],
            clients=[
                pb.ClientStatus(
                    name=each.client.name,
                    inputs_in_flight=each.inputs_in_flight,
                    retry_delay=_duration(delay_s) if (delay_s := each.retry_after_s()) else None,
                )
                for each in self._authenticator.accounts()
            ],
            rerankers=[_reranker(found, each) for each in self._rerankers.groups],
        )

    def _embedder(self, found: CollectorRegistry, embedder: WatchedEmbedder) -> pb.EmbedderStatus:
        name = embedder.spec.name
        return pb.EmbedderStatus(
            name=name,
            fault=self._embedders.fault(embedder) or "",
            breaker_open=bool(_gauge(found, "vecgate_embedder_breaker_open", embedder=name)),
            queued_inputs=int(_gauge(found, "vecgate_embedder_queued_inputs", embedder=name)),
            queued_bytes=int(_gauge(found, "vecgate_embedder_queued_bytes", embedder=name)),
            oldest_wait=_duration(_gauge(found, "vecgate_embedder_queue_age_seconds", embedder=name)),
            running_batches=int(_gauge(found, "vecgate_embedder_running_batches", embedder=name)),
        )


def _reranker(found: CollectorRegistry, group: RerankerGroup) -> pb.RerankerStatus:
    return pb.RerankerStatus(
        name=group.spec.name,
        fault=group.fault or "",
        breaker_open=all(
            _gauge(found, "vecgate_embedder_breaker_open", embedder=each.spec.name) for each in group.members
        ),
        waiting_calls=group.waiting,
        running_calls=group.running,
    )


def _gauge(found: CollectorRegistry, name: str, **labels: str) -> float:
    """Return a gauge's value; 0 for one that has none yet."""
    return found.get_sample_value(name, labels) or 0.0


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
