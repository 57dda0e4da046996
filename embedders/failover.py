"""Asking the next embedder of the same space when one fails."""

from collections.abc import Awaitable, Callable, Sequence

from embedders.base import Outcome
from embedders.errors import CredentialRejected, EmbedderError
from embedders.health import WatchedEmbedder
from embedders.inputs import EmbedOptions, Input
from embedders.metrics import FAILOVERS

__all__ = ["embed_with_first"]

Embed = Callable[[WatchedEmbedder, Sequence[Input], EmbedOptions], Awaitable[list[Outcome]]]


async def embed_with_first(
    embedders: Sequence[WatchedEmbedder], inputs: Sequence[Input], options: EmbedOptions, *, embed: Embed
) -> tuple[WatchedEmbedder, list[Outcome]]:
    """Embed inputs with the first embedder that works, and return it with the outcomes.

    A key that a caller brought and that was refused ends it: the caller shall learn of it, and not be served by others.

    Args:
        embedders: of one space, in order of preference; at least one.
        inputs: what to embed.
        options: how to.
        embed: calls an embedder.

    Raises:
        EmbedderError: all failed; this is the first one's.
    """
    first: EmbedderError | None = None
    for at, embedder in enumerate(embedders):
        try:
            return embedder, await embed(embedder, inputs, options)
        except EmbedderError as error:
            if isinstance(error, CredentialRejected) and options.api_key is not None:
                raise
            first = first or error
            if at + 1 < len(embedders):
                FAILOVERS.labels(embedder.spec.name, embedders[at + 1].spec.name).inc()
    assert first is not None
    raise first
