"""What a reranker is: a query, passages, scores, and what it says of itself. Its errors are those of embedders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from embedders.contract import Health, InputLimits, Modality
from embedders.errors import InputRejected


@dataclass(frozen=True, slots=True)
class Passage:
    """What is compared with a query: a text, a picture, or both.

    Attributes:
        text: the text; a blank one is left out, and one of more than InputLimits.max_text_bytes is cut to that.
        content: the bytes of the picture's file; none without a picture.
    """

    text: str = ""
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """How to rerank the passages of a call.

    Attributes:
        truncate: whether a query and passage that are too long together are cut, the passage first; otherwise such a
            passage is rejected.
        api_key: the caller's own key for the backend; None for this server's.
    """

    truncate: bool = True
    api_key: str | None = field(default=None, repr=False)


RERANK = RerankOptions()

RankOutcome = float | InputRejected
"""The result for one passage: its score, or the (unraised) error that says why there is none.

A score says how well the passage answers the query; more is better. It is any finite number, and comparable with scores
of the same query by the same model only.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerSpec:
    """A reranker's identity and bounds. The model's name may change while the reranker lives.

    Attributes:
        name: what callers ask for.
        model: the model's name, such as "nvidia/llama-nemotron-rerank-vl-1b-v2"; empty while it is unknown.
        modalities: what a passage may be.
        limits: bounds on one text or picture.
        slots: calls that it works on at the same time.
        caller_keys: whether calls may have their own key; others' keys must not be sent to it.
    """

    name: str
    model: str
    modalities: frozenset[Modality]
    limits: InputLimits
    slots: int = 1
    caller_keys: bool = False


class Reranker(Protocol):
    """Says how well passages answer a query.

    A reranker belongs to one event loop. Its methods may run at the same time. The caller of `start` calls `close`.
    """

    @property
    def spec(self) -> RerankerSpec:
        """Identity and bounds."""
        ...

    async def start(self) -> None:
        """Get ready. A backend that is down does not make it fail: `check` reports it, and it may come back."""
        ...

    async def rerank(self, query: str, passages: Sequence[Passage], options: RerankOptions) -> list[RankOutcome]:
        """Score passages; the outcomes keep their order, and an invalid passage fails alone.

        Takes any number of passages; a reranker with a bound on a batch splits them.

        Raises:
            InputRejected: the query is invalid, or the model reads no pictures and all passages with text have one.
            EmbedderUnavailable: the backend does not answer, is overloaded or limits the rate of calls.
            CredentialRejected: the backend rejects the key; CallerKeyRejected if it is the key of `options`.
            ModelGone: the backend does not serve the model.
            AnswerInvalid: the backend's answer cannot be used, in whole or in part.
        """
        ...

    async def check(self) -> None:
        """Rerank a short text to prove that the backend works.

        Raises:
            EmbedderError: as `rerank`.
        """
        ...

    async def close(self) -> None:
        """Stop and free everything. Calls in flight fail with EmbedderUnavailable. May be called twice."""
        ...


class WatchedReranker(Reranker, Protocol):
    """A reranker that knows whether it works."""

    @property
    def health(self) -> Health:
        """Whether it works; calls with callers' own keys do not change it."""
        ...

    def note_silence(self, since_s: float) -> None:
        """Record that a call which began then, by time.monotonic, was given up."""
        ...
