"""What goes on inside at this moment, for operators: the metrics' own figures, in one picture."""

from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import REGISTRY

from service.access import Authenticator
from service.core.embedder_pool import EmbedderPool
from service.store.base import Store


@dataclass(frozen=True, slots=True)
class EmbedderStatus:
    """What goes on in an embedder.

    Attributes:
        fault: why it does not work, in words; None when it does.
        breaker_open: whether it is left alone for a while.
        queued_inputs: inputs that wait for it.
        queued_bytes: their bytes.
        oldest_wait_s: how long the call that waits longest has waited.
        running_batches: batches that it works on.
    """

    name: str
    fault: str | None
    breaker_open: bool
    queued_inputs: int
    queued_bytes: int
    oldest_wait_s: float
    running_batches: int


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """What a client uses up; `retry_after_s` is 0 when it may call."""

    name: str
    inputs_in_flight: int
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What goes on in this process."""

    release: str
    calls_in_flight: int
    http_requests_in_flight: int
    store_available: bool
    embedders: tuple[EmbedderStatus, ...]
    clients: tuple[ClientStatus, ...]


def look(store: Store, embedders: EmbedderPool, authenticator: Authenticator) -> ServerStatus:
    """Return what goes on at this moment."""
    return ServerStatus(
        version("vecgate"),
        int(_figure("vecgate_grpc_calls_in_flight")),
        int(_figure("vecgate_http_requests_in_flight")),
        store.available,
        tuple(_embedder(each.spec.name, embedders.fault(each)) for each in embedders.all),
        tuple(
            ClientStatus(each.client.name, each.inputs_in_flight, each.retry_after_s())
            for each in authenticator.accounts()
        ),
    )


def _embedder(name: str, fault: str | None) -> EmbedderStatus:
    of = {"embedder": name}
    return EmbedderStatus(
        name,
        fault,
        bool(_figure("vecgate_embedder_breaker_open", of)),
        int(_figure("vecgate_embedder_queued_inputs", of)),
        int(_figure("vecgate_embedder_queued_bytes", of)),
        _figure("vecgate_embedder_queue_age_seconds", of),
        int(_figure("vecgate_embedder_running_batches", of)),
    )


def _figure(name: str, labels: dict[str, str] | None = None) -> float:
    """Return a gauge's value; one that has had none yet counts as 0."""
    return REGISTRY.get_sample_value(name, labels or {}) or 0.0
