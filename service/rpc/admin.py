"""AdminService: the state of the server for operators, from the values of its metrics."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import chain, pairwise
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from embedders.contract import WatchedEmbedder
from embedders.front.queueing import MAX_QUEUED_BYTES
from service.access import Authenticator
from service.access.quotas import Account
from service.core.embedder_pool import EmbedderPool
from service.core.reranker_pool import MAX_WAITING_CALLS, RerankerGroup, RerankerPool
from service.errors import ServiceError
from service.process.metrics import exposed
from service.process.shared_metrics import living_workers
from service.settings import EmbedderSettings, ServerSettings
from service.store.base import Store
from vecgate.v1 import admin_service_pb2 as pb
from vecgate.v1 import admin_service_pb2_grpc as pb_grpc

Context = grpc.aio.ServicerContext[Any, Any]

STATE_AFTER_S = 1.0
"""How long Weaviate may take to tell its state; what else is known is worth more than the rest of it."""

ENDED = ("vecgate_grpc_calls_total", "vecgate_http_requests_total")
"""The metrics that count what ended, by client."""

TOO_MUCH = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED.name, "429"})
"""How calls and requests end for which a client's quota has no room."""


class AdminServicer(pb_grpc.AdminServiceServicer):
    """Answers AdminService."""

    def __init__(
        self,
        store: Store,
        embedders: EmbedderPool,
        rerankers: RerankerPool,
        authenticator: Authenticator,
        *,
        server: ServerSettings,
        embedding: EmbedderSettings,
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._rerankers = rerankers
        self._authenticator = authenticator
        self._server = server
        self._embedding = embedding

    async def GetServerStatus(self, request: pb.GetServerStatusRequest, context: Context) -> pb.GetServerStatusResponse:
        """Return what waits, what runs and what fails at this moment, and what was done since the start."""
        state = await self._store_state()
        found = Measured(await exposed())
        processes, ended = self._server.workers, found.by_label(ENDED, "client")
        return pb.GetServerStatusResponse(
            release=version("vecgate"),
            calls_in_flight=found.whole("vecgate_grpc_calls_in_flight"),
            http_requests_in_flight=found.whole("vecgate_http_requests_in_flight"),
            store_available=self._store.available,
            embedders=[self._embedder(found, each) for each in self._embedders.all],
            clients=[_client(ended.get(each.client.name, ()), each) for each in self._authenticator.accounts()],
            rerankers=[_reranker(found, each, processes) for each in self._rerankers.groups],
            start_time=_timestamp(found.value("process_start_time_seconds")),
            observe_time=_timestamp(datetime.now(UTC).timestamp()),
            workers=living_workers(),
            max_calls=processes * self._server.max_calls,
            cpu_time=_duration(found.value("process_cpu_seconds_total")),
            resident_bytes=found.whole("process_resident_memory_bytes"),
            cache_bytes=found.whole("vecgate_embedder_cache_bytes"),
            max_cache_bytes=processes * self._embedding.cache_bytes,
            store=_with_operations(found, state),
            methods=[
                pb.MethodStatus(name=name, seconds=found.histogram(metric, **{label: name}))
                for metric, label in (
                    ("vecgate_grpc_call_seconds", "method"),
                    ("vecgate_http_request_seconds", "route"),
                )
                for name in found.labels(f"{metric}_count", label)
            ],
            failures=[
                pb.FailureCount(reason=each.labels["reason"], blame=each.labels["blame"], count=int(each.value))
                for each in found.samples("vecgate_failures_total")
            ],
        )

    async def _store_state(self) -> pb.StoreStatus:
        """Return what Weaviate says of itself, or why it says nothing."""
        try:
            async with asyncio.timeout(STATE_AFTER_S):
                state = await self._store.state()
        except ServiceError as error:
            return pb.StoreStatus(fault=str(error))
        except TimeoutError:
            return pb.StoreStatus(fault=f"Weaviate did not tell its state within {STATE_AFTER_S:g} s")
        nodes = [pb.StoreNode(name=each.name, status=each.status, version=each.version) for each in state.nodes]
        return pb.StoreStatus(version=state.version, nodes=nodes)

    def _embedder(self, found: "Measured", embedder: WatchedEmbedder) -> pb.EmbedderStatus:
        spec, processes = embedder.spec, self._server.workers

        def whole(metric: str, **labels: str) -> int:
            return found.whole(f"vecgate_embedder_{metric}", embedder=spec.name, **labels)

        def histogram(metric: str) -> pb.Histogram:
            return found.histogram(f"vecgate_embedder_{metric}", embedder=spec.name)

        return pb.EmbedderStatus(
            name=spec.name,
            fault=self._embedders.fault(embedder) or "",
            breaker_open=bool(whole("breaker_open")),
            queued_inputs=whole("queued_inputs"),
            queued_bytes=whole("queued_bytes"),
            oldest_wait=_duration(found.value("vecgate_embedder_queue_age_seconds", embedder=spec.name)),
            running_batches=whole("running_batches"),
            max_queued_inputs=processes * self._embedding.max_queued_inputs,
            max_queued_bytes=processes * MAX_QUEUED_BYTES,
            batch_slots=processes * spec.slots,
            max_batch=spec.max_batch,
            breaker_openings=whole("breaker_opened_total"),
            embedded_inputs=whole("inputs_total", outcome="embedded"),
            rejected_inputs=whole("inputs_total", outcome="rejected"),
            failed_inputs=whole("inputs_total", outcome="failed"),
            refused_calls=whole("refused_calls_total"),
            cache_hits=whole("cache_lookups_total", result="hit"),
            cache_joins=whole("cache_lookups_total", result="joined"),
            cache_misses=whole("cache_lookups_total", result="miss"),
            queue_seconds=histogram("queue_seconds"),
            preprocess_seconds=histogram("preprocess_seconds"),
            backend_seconds=histogram("backend_seconds"),
            batch_fill=histogram("batch_fill_ratio"),
        )


def _reranker(found: "Measured", group: RerankerGroup, workers: int) -> pb.RerankerStatus:
    name, members = group.spec.name, frozenset(each.spec.name for each in group.members)

    def passages(outcome: str) -> int:
        return found.whole("vecgate_reranker_passages_total", reranker=members, outcome=outcome)

    return pb.RerankerStatus(
        name=name,
        fault=group.fault or "",
        breaker_open=all(found.value("vecgate_embedder_breaker_open", embedder=each) for each in members),
        waiting_calls=found.whole("vecgate_reranker_waiting_calls", reranker=name),
        running_calls=found.whole("vecgate_reranker_running_calls", reranker=name),
        max_waiting_calls=workers * MAX_WAITING_CALLS,
        call_slots=workers * sum(each.spec.slots for each in group.members),
        scored_passages=passages("scored"),
        rejected_passages=passages("rejected"),
        failed_passages=passages("failed"),
        seconds=found.histogram("vecgate_reranker_seconds", reranker=members),
    )


def _client(ended: Sequence[Sample], account: Account) -> pb.ClientStatus:
    client, quota = account.client, account.client.quota
    used_inputs, used_bytes = account.used_up()
    return pb.ClientStatus(
        name=client.name,
        inputs_in_flight=account.inputs_in_flight,
        retry_delay=_duration(delay_s) if (delay_s := account.retry_after_s()) else None,
        calls=int(sum(each.value for each in ended)),
        refused_calls=int(sum(each.value for each in ended if each.labels["code"] in TOO_MUCH)),
        inputs=account.inputs,
        request_bytes=account.request_bytes,
        max_inputs_per_second=quota.inputs_per_second,
        max_bytes_per_second=quota.bytes_per_second,
        max_inputs_in_flight=quota.max_inputs_in_flight,
        used_inputs=used_inputs,
        used_bytes=used_bytes,
    )


def _with_operations(found: "Measured", state: pb.StoreStatus) -> pb.StoreStatus:
    """Add what Weaviate was asked for."""
    for name in found.labels("vecgate_store_seconds_count", "operation"):
        seconds = found.histogram("vecgate_store_seconds", operation=name)
        if seconds.count:
            failures = found.whole("vecgate_store_failures_total", operation=name)
            state.operations.add(name=name, seconds=seconds, failures=failures)
    return state


Label = str | frozenset[str]
"""The value of a label, or several, any of which fits."""


class Measured:
    """The values of all metrics at one moment."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        # Once for all values: the registry would ask every metric for each of them.
        for metric in registry.collect():
            for sample in metric.samples:
                self._samples[sample.name].append(sample)

    def samples(self, name: str, **labels: Label) -> list[Sample]:
        """Return the samples of a name that have certain labels, whatever others they have."""
        wanted = {label: {value} if isinstance(value, str) else value for label, value in labels.items()}
        return [
            each
            for each in self._samples[name]
            if all(each.labels[label] in values for label, values in wanted.items())
        ]

    def value(self, name: str, **labels: Label) -> float:
        """Return the sum of samples; 0 if there is none yet."""
        return sum(each.value for each in self.samples(name, **labels))

    def whole(self, name: str, **labels: Label) -> int:
        """Return the sum of samples that are whole numbers."""
        return int(self.value(name, **labels))

    def by_label(self, names: Iterable[str], label: str) -> dict[str, list[Sample]]:
        """Return the samples of several names by the value of a label, in one walk for all values."""
        found: dict[str, list[Sample]] = defaultdict(list)
        for each in chain.from_iterable(self._samples[name] for name in names):
            found[each.labels[label]].append(each)
        return found

    def labels(self, name: str, label: str) -> Iterable[str]:
        """Return the values that a label has, sorted."""
        return sorted({each.labels[label] for each in self._samples[name]})

    def histogram(self, name: str, **labels: Label) -> pb.Histogram:
        """Return the sum of histograms."""
        up_to: dict[float, float] = defaultdict(float)
        for each in self.samples(f"{name}_bucket", **labels):
            up_to[float(each.labels["le"])] += each.value
        bounds = sorted(up_to)
        # Prometheus counts all values up to a bound, and has one for infinity.
        counts = [0, *(int(up_to[bound]) for bound in bounds)]
        return pb.Histogram(
            count=self.whole(f"{name}_count", **labels),
            sum=self.value(f"{name}_sum", **labels),
            bounds=bounds[:-1],
            bucket_counts=[after - before for before, after in pairwise(counts)],
        )


def _timestamp(seconds: float) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return message


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
