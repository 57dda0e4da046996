"""Base classes of embedders: wrappers of another embedder, and the end of running calls when one is closed."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from embedders.contract import Embedder, EmbedderSpec, Health, WatchedEmbedder
from embedders.errors import EmbedderUnavailable

T = TypeVar("T")


class EmbedderWrapper:
    """Delegates everything except `embed` to an inner embedder, which it starts and closes.

    Attributes:
        specified_by: the embedder whose spec this one has; reading it there spares a walk through all wrappers.
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
    """Delegates health as well."""

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
    """Runs the calls of an embedder or a reranker, and ends them when it is closed."""

    def __init__(self, name: str) -> None:
        """Make one for the embedder or reranker `name`."""
        self._name = name
        self._closed = False
        self._running: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call.

        Raises:
            EmbedderUnavailable: it is closed, or was closed during the call.
        """
        if self._closed:
            call.close()
            raise self._closed_error()
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._running.add(scope)
                try:
                    return await call
                finally:
                    self._running.discard(scope)
                    if self._closed and not self._running:
                        self._idle.set()
        except TimeoutError:
            if scope.expired():
                raise self._closed_error() from None
            raise
        finally:
            # It refers to the task, whose end by an error refers to this frame: what the call held would stay.
            del scope

    async def end(self) -> None:
        """Cancel running calls, wait for them, and reject later ones. May be called twice."""
        self._closed = True
        for scope in self._running:
            # One that has expired cannot be changed any more: its call is ending.
            if not scope.expired():
                scope.reschedule(0)
        if self._running:
            await self._idle.wait()

    def _closed_error(self) -> EmbedderUnavailable:
        return EmbedderUnavailable(f"{self._name} is closed")
