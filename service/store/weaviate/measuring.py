"""How long every operation of the store takes, for Prometheus and for the call that it is done for."""

import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from embedders.timing import call_times
from service.errors import StoreUnavailable
from service.metrics import STORE_FAILURES, STORE_SECONDS

__all__ = ["measured"]

Store = TypeVar("Store", bound=type)

LIFE = frozenset({"start", "close"})


def measured(store: Store) -> Store:
    """Time every operation of a store's class: its public coroutine functions but for those of its life."""
    for name, function in list(vars(store).items()):
        if not name.startswith("_") and name not in LIFE and inspect.iscoroutinefunction(function):
            setattr(store, name, _timed(name, function))
    return store


def _timed(operation: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    seconds, failures = STORE_SECONDS.labels(operation), STORE_FAILURES.labels(operation)

    @functools.wraps(function)
    async def timed(*arguments: Any, **named: Any) -> Any:
        began_s = time.perf_counter()
        try:
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
