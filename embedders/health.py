"""Whether an embedder works, and what is told of it by those who call it."""

import math
from dataclasses import dataclass
from typing import Protocol

from embedders.base import Embedder

__all__ = ["NOT_CHECKED", "Health", "WatchedEmbedder"]

NOT_CHECKED = "it has not been checked yet"


@dataclass(slots=True)
class Health:
    """Whether an embedder works, from the last call or check that it answered itself, or did not.

    Attributes:
        fault: why it does not, in words; None when it does.
        last_success_s: when the last success was, by time.monotonic.
        outages: how often it has come to be left alone.
    """

    fault: str | None = NOT_CHECKED
    last_success_s: float = -math.inf
    outages: int = 0


class WatchedEmbedder(Embedder, Protocol):
    """An embedder that knows whether it works."""

    @property
    def health(self) -> Health:
        """Whether it works; what a cache answers and calls with callers' own keys say nothing of it."""
        ...

    def note_silence(self, since_s: float) -> None:
        """Hear that a call of that time, by time.monotonic, was given up; another embedder may still answer."""
        ...
