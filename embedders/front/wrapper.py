"""What each embedder in front of another one passes on."""

from embedders.contract import Embedder, EmbedderSpec, Health, WatchedEmbedder


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
