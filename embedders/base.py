"""What embedders are built on: passing on to an inner embedder, and ending calls when one is closed."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from embedders.contract import Embedder, EmbedderSpec, Health, WatchedEmbedder
from embedders.errors import EmbedderUnavailable

T = TypeVar("T")


class EmbedderWrapper:
    """Passes on to an inner embedder all but `embed`, which each subclass does in its own way.

    It takes over the inner embedder's life: starting and closing it starts and closes that one.

    Attributes:
        specified_by: the embedder whose spec this one has, so that no call walks through all wrappers for it.
    """

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self.specified_by: Embedder = inner.specified_by if isinstance(inner, EmbedderWrapper) else inner

    @property
    def spec(self) -> EmbedderSpec:
        """The inner embedder's."""
        return self.specified_by.spec

    async def start(self) -> None:
        """Start the inner embedder.

        Raises:
            ModelUnusable: a local model cannot be loaded.
        """
        await self._inner.start()

    async def check(self) -> None:
        """Check the inner embedder.

        Raises:
            EmbedderError: as the inner embedder.
        """
        await self._inner.check()

    async def close(self) -> None:
        """Close the inner embedder. May be called twice."""
        await self._inner.close()


class WatchedWrapper(EmbedderWrapper):
    """Passes on what an inner embedder knows of its health, too."""

    _inner: WatchedEmbedder

    def __init__(self, inner: WatchedEmbedder) -> None:
        super().__init__(inner)

    @property
    def health(self) -> Health:
        """The inner embedder's."""
        return self._inner.health

    def note_silence(self, since_s: float) -> None:
        """Tell the inner embedder."""
        self._inner.note_silence(since_s)


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
