"""A reranker in memory: scores by shared letters and by colours, and knobs to fail, block and watch it."""

import asyncio
import io
import time
from collections.abc import Mapping, Sequence

from PIL import Image

from embedders.contract import Health, InputLimits, Modality
from embedders.errors import EmbedderError, EmbedderOverloaded, EmbedderRateLimited, InputRejected
from embedders.reranking import RERANK, Passage, RankOutcome, RerankerSpec, RerankOptions
from embedders.texts import check_text, is_blank

ALL = frozenset({Modality.TEXT, Modality.IMAGE, Modality.TEXT_IMAGE})


class FakeReranker:
    """A deterministic Reranker: a point for each letter that a text shares with the query, and more for known pictures.

    Attributes:
        failure: what `rerank` and `check` raise while it is set.
        gate: while set to an Event that is not set, `rerank` waits for it after it has recorded the call.
        calls: the queries, passages and options of every call, in order.
        entered: set with each call.
        health: that of its last call or check, unless it was busy.
        silences: since when calls had had no answer that were given up.
        started: how often `start` was called.
        closed: how often `close` was called.
    """

    def __init__(
        self,
        *,
        name: str = "fake-rerank",
        model: str = "fake/reranker",
        modalities: frozenset[Modality] = ALL,
        limits: InputLimits | None = None,
        slots: int = 4,
        caller_keys: bool = False,
        pictures: Mapping[bytes, float] | None = None,
    ) -> None:
        """Make one; `pictures` has tenths of the points of picture files by their bytes."""
        self.spec = RerankerSpec(
            name=name,
            model=model,
            modalities=modalities,
            limits=limits or InputLimits(),
            slots=slots,
            caller_keys=caller_keys,
        )
        self._pictures = dict(pictures or {})
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.calls: list[tuple[str, list[Passage], RerankOptions]] = []
        self.entered = asyncio.Event()
        self.health = Health()
        self.silences: list[float] = []
        self.started = 0
        self.closed = 0

    async def start(self) -> None:
        """Count the call."""
        self.started += 1

    async def rerank(self, query: str, passages: Sequence[Passage], options: RerankOptions) -> list[RankOutcome]:
        """Score passages, after `gate`, or raise `failure`."""
        self.calls.append((query, list(passages), options))
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        try:
            if self.failure is not None:
                raise self.failure.with_traceback(None)
            query = check_text(query, self.spec.limits, truncate=False)
            self.health.fault, self.health.last_success_s = None, time.monotonic()
            return [self._outcome(query, each) for each in passages]
        except (EmbedderOverloaded, EmbedderRateLimited, InputRejected):
            raise
        except EmbedderError as error:
            self.health.fault = str(error)
            raise

    async def check(self) -> None:
        """Score a short text, without a record of the call."""
        await self.rerank("check", [Passage("check")], RERANK)
        self.calls.pop()

    def note_silence(self, since_s: float) -> None:
        """Keep since when."""
        self.silences.append(since_s)

    async def close(self) -> None:
        """Count the call."""
        self.closed += 1

    def _outcome(self, query: str, passage: Passage) -> RankOutcome:
        if is_blank(passage.text) and not passage.content:
            return InputRejected("the passage has neither a text nor a picture")
        if passage.content:
            try:
                Image.open(io.BytesIO(passage.content)).close()
            except OSError:
                return InputRejected("no picture")
        return float(len(set(passage.text) & set(query))) + 10 * self._pictures.get(passage.content, 0.0)
