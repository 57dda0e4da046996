"""How long every operation of the store takes, for Prometheus, for traces and for the call that it is done for."""

import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from opentelemetry.trace import SpanKind
from weaviate import WeaviateAsyncClient

from embedders.telemetry import tracing
from embedders.telemetry.timing import call_times
from service.errors import StoreUnavailable
from service.process.metrics import STORE_FAILURES, STORE_SECONDS

Store = TypeVar("Store", bound=type)

LIFE = frozenset({"start", "close"})


def measured(store: Store) -> Store:
    """Time every operation of a store's class: its public coroutine functions but for those of its life."""
    for name, function in list(vars(store).items()):
        if not name.startswith("_") and name not in LIFE and inspect.iscoroutinefunction(function):
            setattr(store, name, _timed(name, function))
    return store


def hand_on_traces(client: WeaviateAsyncClient) -> None:
    """Let a client that is not connected yet send the present trace along with each of its calls."""
    connection: Any = client._connection  # noqa: SLF001  # it offers headers for its whole life, and none for one call
    own_headers, make_client = connection.grpc_headers, connection._make_client  # noqa: SLF001

    def grpc_headers() -> tuple[tuple[str, str], ...] | None:
        headers: tuple[tuple[str, str], ...] | None = own_headers()
        return (*(headers or ()), *tracing.outgoing().items()) or None

    def make_http_client(colour: str) -> Any:
        made = make_client(colour)
        made.event_hooks["request"].append(_add_headers)
        return made

    connection.grpc_headers, connection._make_client = grpc_headers, make_http_client  # noqa: SLF001


async def _add_headers(request: Any) -> None:
    request.headers.update(tracing.outgoing())


def _timed(operation: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    seconds, failures = STORE_SECONDS.labels(operation), STORE_FAILURES.labels(operation)

    @functools.wraps(function)
    async def timed(*arguments: Any, **named: Any) -> Any:
        began_s = time.perf_counter()
        try:
            with tracing.span(operation, _attributes(operation, arguments), kind=SpanKind.CLIENT):
                return await function(*arguments, **named)
        except StoreUnavailable:
            failures.inc()
            raise
        finally:
            took_s = time.perf_counter() - began_s
            seconds.observe(took_s)
            if (times := call_times()) is not None:
                times.store_s += took_s

    return timed


def _attributes(operation: str, arguments: tuple[Any, ...]) -> dict[str, str]:
    """Return a span's attributes; the first argument after the store is a collection, as a name or whole."""
    attributes = {"db.system.name": "weaviate", "db.operation.name": operation}
    subject = arguments[1] if len(arguments) > 1 else None
    name = subject if isinstance(subject, str) else getattr(subject, "name", None)
    return attributes | {"db.collection.name": name} if name else attributes
