"""The contract of every embedder; tests/contract/embedder_suite.py holds them all to it."""

from collections.abc import Sequence
from typing import Protocol

from embedders.errors import InputRejected
from embedders.inputs import Embedding, EmbedOptions, Input
from embedders.spec import EmbedderSpec

__all__ = ["Embedder", "Outcome"]

Outcome = Embedding | InputRejected
"""What became of one input: its embedding, or the (unraised) error that says why it has none."""


class Embedder(Protocol):
    """Turns inputs into unit vectors of one space.

    An embedder belongs to one event loop. Its methods may run at the same time. Whoever called `start` calls `close`.
    """

    @property
    def spec(self) -> EmbedderSpec:
        """Identity and bounds. Known once `start` has returned; of a remote model, from the beginning.

        A remote model's dimension may be 0, unknown, until a `check` has passed.
        """
        ...

    async def start(self) -> None:
        """Get ready to embed: load and warm a local model, open connections.

        A backend that is down is no reason to fail: `check` tells, and it may come back.

        Raises:
            ModelUnusable: a local model cannot be loaded.
        """
        ...

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs; the outcomes keep their order, and an input at fault fails alone.

        Takes any number of inputs; an embedder with a bound on a batch splits them. Cancelling the call drops what
        has not been started.

        Raises:
            EmbedderUnavailable: the backend does not answer, is overloaded or limits its callers.
            CredentialRejected: the backend refuses the key; CallerKeyRejected if it is that of `options`.
            ModelGone: the backend does not serve the model.
            AnswerInvalid: the backend's answer cannot be used; no vector of it is.
        """
        ...

    async def check(self) -> None:
        """Embed a short text to prove that the backend works.

        Raises:
            EmbedderError: as `embed`.
        """
        ...

    async def close(self) -> None:
        """Stop and free everything. Calls in flight fail with EmbedderUnavailable. May be called twice."""
        ...
