"""The service's metrics for Prometheus; those of the embedders are in embedders/telemetry/metrics.py.

Label values are bounded: existing methods and routes, the clients of the configuration, and the first MAX_EVALUATED
named vectors of collections and tenants that are evaluated.
"""

import asyncio
import platform
from collections.abc import Container, Mapping
from importlib.metadata import version
from math import nan

from prometheus_client import (
    GC_COLLECTOR,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)

from embedders.front.queueing import calling_client
from embedders.telemetry.metrics import SECONDS, ReadGauge, read_gauges
from service.process.shared_metrics import all_metrics

# Several processes cannot show these together, so one does not show them either.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY.unregister(GC_COLLECTOR)

SHOW_EVERY_S = 1.0

MAX_EVALUATED = 300
"""Named vectors of collections and tenants whose evaluations a process shows, deleted ones included: several processes
keep labels."""

ANONYMOUS = "anonymous"
"""The client of calls without a key."""

CALLS = Counter(
    "vecgate_grpc_calls_total",
    "Calls of Vecgate's API that ended, by gRPC status code and by the client that its key names.",
    ["method", "code", "client"],
)
CALL_SECONDS = Histogram(
    "vecgate_grpc_call_seconds", "Duration of gRPC calls of Vecgate's API.", ["method"], buckets=SECONDS
)
IN_FLIGHT = Gauge(
    "vecgate_grpc_calls_in_flight",
    "Calls of Vecgate's API whose response has not been taken yet.",
    multiprocess_mode="livesum",
)
REQUESTS = Counter(
    "vecgate_http_requests_total",
    "HTTP requests that ended, by status code (499: the caller left) and by the client that its key names.",
    ["route", "code", "client"],
)
REQUEST_SECONDS = Histogram("vecgate_http_request_seconds", "Duration of HTTP requests.", ["route"], buckets=SECONDS)
HTTP_IN_FLIGHT = Gauge(
    "vecgate_http_requests_in_flight", "HTTP requests that are being answered.", multiprocess_mode="livesum"
)
FAILURES = Counter(
    "vecgate_failures_total",
    "Calls and requests that failed, by reason, such as EMBEDDING_SPACE_MISMATCH, and by who is to blame.",
    ["reason", "blame"],
)
EMBEDDER_UP = Gauge(
    "vecgate_embedder_up",
    "1 if an embedder's last call or check succeeded, else 0.",
    ["embedder", "space"],
    multiprocess_mode="livemin",
)
RERANKER_UP = Gauge(
    "vecgate_reranker_up",
    "1 if a reranker's last call or check succeeded, else 0.",
    ["reranker"],
    multiprocess_mode="livemin",
)
KEPT_ORDERS = Counter(
    "vecgate_reranker_kept_orders_total",
    "Searches whose hits kept their first order because the reranker failed, which their callers allowed.",
    ["reranker"],
)
STORE_UP = Gauge(
    "vecgate_store_up", "1 while Weaviate answers on both of its ports, else 0.", multiprocess_mode="livemin"
)
STORE_SECONDS = Histogram(
    "vecgate_store_seconds", "Duration of calls to Weaviate, by operation.", ["operation"], buckets=SECONDS
)
STORE_FAILURES = Counter("vecgate_store_failures_total", "Calls that Weaviate did not answer in time.", ["operation"])
UNSEEN_OBJECTS = Counter(
    "vecgate_unseen_objects_total",
    "Searches by vector that found nothing although objects have such vectors: Weaviate has lost them from an index. "
    "The log's search_finds_no_object says which; each server process counts each named vector of a tenant once in 10 "
    "minutes.",
)
IMPORT_OBJECTS = Counter(
    "vecgate_import_objects_total",
    "Objects of finished imports: stored, skipped (duplicates), rejected (invalid), or failed (an embedder or Weaviate "
    "failed).",
    ["outcome"],
)
IMPORT_VECTORS = Counter(
    "vecgate_import_vectors_total",
    "Named vectors of stored objects: computed, supplied, absent (the object has no fields for it), or missing because "
    "embedders failed.",
    ["origin"],
)
EVALUATION_FAULTS = Gauge(
    "vecgate_evaluation_faults",
    "Faults that the last evaluation of a named vector found, by kind, such as VECTORS_MISSING. DRIFT is a change for "
    "the worse since an earlier one.",
    ["collection", "tenant", "vector", "kind"],
    multiprocess_mode="mostrecent",
)
EVALUATION_RECALL = Gauge(
    "vecgate_evaluation_index_recall_ratio",
    "The index recall that the last evaluation of a named vector measured, of its first way to search that vector.",
    ["collection", "tenant", "vector"],
    multiprocess_mode="mostrecent",
)
EVALUATION_TIME = Gauge(
    "vecgate_evaluation_time_seconds",
    "When the last evaluation of a named vector that this server made ended, in seconds since 1970.",
    ["collection", "tenant", "vector"],
    multiprocess_mode="mostrecent",
)
FETCHES = Counter(
    "vecgate_image_fetches_total",
    "Images named by URI whose fetch ended: fetched, not_allowed (no listed origin, or an address that may not be "
    "called), not_served (the origin has none), unreachable (the origin does not answer), or too_large.",
    ["outcome"],
)
FETCHED_BYTES = Counter("vecgate_image_fetched_bytes_total", "Bytes of fetched images.")
FETCH_SECONDS = Histogram(
    "vecgate_image_fetch_seconds",
    "Duration of fetches of images, without those that are not_allowed, with the wait for a free connection to the "
    "origin and with redirects.",
    buckets=SECONDS,
)
BUILD = Info("vecgate_build", "1, with the release of Vecgate and the Python that runs it.")
BUILD.info({"version": version("vecgate"), "python": platform.python_version()})

# Prometheus does not see the first increase of a counter that appears with it, so these exist from the start.
for _outcome in ("stored", "skipped", "rejected", "failed"):
    IMPORT_OBJECTS.labels(_outcome)
for _outcome in ("fetched", "not_allowed", "not_served", "unreachable", "too_large"):
    FETCHES.labels(_outcome)
for _origin in ("computed", "supplied", "absent", "missing"):
    IMPORT_VECTORS.labels(_origin)

TASKS = ReadGauge(
    "vecgate_tasks", "Tasks of the event loop; more than the calls need is a leak.", multiprocess_mode="livesum"
)


def _count_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0  # called outside of the event loop


TASKS.set_function(_count_tasks)

_evaluated: set[tuple[str, str, str]] = set()
_kinds: set[str] = set()
_calls: dict[tuple[str, str, str], Counter] = {}
_call_seconds: dict[str, Histogram] = {}
_requests: dict[tuple[str, int, str], Counter] = {}
_request_seconds: dict[str, Histogram] = {}


async def exposed() -> CollectorRegistry:
    """Return the metrics of the whole server, whichever of its processes is asked."""
    read_gauges()
    return await all_metrics([BUILD])


async def show_gauges() -> None:
    """Let the other processes of the server see the gauges of this one that are read."""
    while True:
        read_gauges()
        await asyncio.sleep(SHOW_EVERY_S)


def note_call(method: str, code: str, took_s: float) -> None:
    """Count and time a gRPC call of the client that makes it; the method is a path as gRPC has it."""
    client = calling_client.get() or ANONYMOUS
    # Looking up the children of a metric costs more than counting, and every call pays for it.
    key = (method, code, client)
    if (calls := _calls.get(key)) is None:
        calls = _calls[key] = CALLS.labels(method.removeprefix("/"), code, client)
        _call_seconds[method] = CALL_SECONDS.labels(method.removeprefix("/"))
    calls.inc()
    _call_seconds[method].observe(took_s)


def note_request(route: str, code: int, took_s: float) -> None:
    """Count and time an HTTP request; the route is a method and a path without the caller's values."""
    client = calling_client.get() or ANONYMOUS
    key = (route, code, client)
    if (requests := _requests.get(key)) is None:
        requests = _requests[key] = REQUESTS.labels(route, str(code), client)
        _request_seconds[route] = REQUEST_SECONDS.labels(route)
    requests.inc()
    _request_seconds[route].observe(took_s)


def note_evaluation(
    collection: str, tenant: str, vector: str, *, faults: Mapping[str, int], recall: float | None, time_s: float
) -> None:
    """Show what an evaluation found of a named vector, of the first MAX_EVALUATED ones.

    Args:
        collection: the collection's own name.
        tenant: whose objects; empty if the collection has no tenants.
        vector: the named vector.
        faults: how many there are of each kind that was looked for; others stay as they are.
        recall: the index recall; None if it was not measured.
        time_s: when it ended, in seconds since 1970.
    """
    key = (collection, tenant, vector)
    if key not in _evaluated and len(_evaluated) >= MAX_EVALUATED:
        return
    _evaluated.add(key)
    _kinds.update(faults)
    for kind, count in faults.items():
        EVALUATION_FAULTS.labels(*key, kind).set(count)
    EVALUATION_RECALL.labels(*key).set(nan if recall is None else recall)
    EVALUATION_TIME.labels(*key).set(time_s)


def forget_evaluations(collection: str, tenants: Container[str] | None = None) -> None:
    """Show no number any more for a collection that is deleted, so that no alert is about it.

    Args:
        collection: the collection's own name.
        tenants: which of its tenants are deleted; None for all of it.
    """
    for key in _evaluated:
        if key[0] == collection and (tenants is None or key[1] in tenants):
            _forget(key)


def forget_other_vectors(collection: str, vectors: Container[str]) -> None:
    """Show no number any more for named vectors that were removed.

    Args:
        collection: the collection's own name.
        vectors: the named vectors that it has.
    """
    for key in _evaluated:
        if key[0] == collection and key[2] not in vectors:
            _forget(key)


def _forget(key: tuple[str, str, str]) -> None:
    """Make numbers NaN, which no condition of an alert fits; labels of several processes cannot be taken back."""
    for kind in _kinds:
        EVALUATION_FAULTS.labels(*key, kind).set(nan)
    EVALUATION_RECALL.labels(*key).set(nan)
    EVALUATION_TIME.labels(*key).set(nan)
