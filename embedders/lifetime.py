"""Closing an embedder while calls run."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from embedders.errors import EmbedderUnavailable

T = TypeVar("T")


class Lifetime:
    """Runs an embedder's calls, so that closing the embedder ends them."""

    def __init__(self, name: str) -> None:
        """Begin the life of the embedder `name`."""
        self._name = name
        self._closed = False
        self._calls: set[asyncio.Task[Any]] = set()

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call.

        Raises:
            EmbedderUnavailable: the embedder is closed, or was while the call ran.
        """
        if self._closed:
            call.close()
            raise self._over()
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._closed and not (caller and caller.cancelling()):
                raise self._over() from None
            raise
        finally:
            self._calls.discard(task)

    async def end(self) -> None:
        """Cancel the calls that run, wait for them, and refuse later ones. May be called twice."""
        self._closed = True
        calls = list(self._calls)
        for task in calls:
            task.cancel()
        if calls:
            await asyncio.wait(calls)

    def _over(self) -> EmbedderUnavailable:
        return EmbedderUnavailable(f"the embedder {self._name} is closed")
