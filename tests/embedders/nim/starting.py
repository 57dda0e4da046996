"""Starting an embedder so that a test sees its own requests only."""

from contextlib import suppress

from embedders.contract import Embedder
from embedders.errors import EmbedderError
from tests.fakes.nim import FakeNim


async def start_learnt(embedder: Embedder, nim: FakeNim) -> None:
    """Start an embedder, let it learn what the NIM serves if the NIM answers, and forget these requests."""
    await embedder.start()
    with suppress(EmbedderError):
        await embedder.check()
    nim.forget()
