"""The circuit breaker: after several failures a backend gets no calls for a while, then a probe decides."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Protocol

from embedders.base import EmbedderWrapper
from embedders.contract import Embedder, Embedding, EmbedOptions, Health, Input, Outcome
from embedders.errors import (
    CallerKeyRejected,
    CredentialRejected,
    EmbedderError,
    EmbedderOverloaded,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
)
from embedders.reranking import Passage, RankOutcome, Reranker, RerankerSpec, RerankOptions
from embedders.telemetry.metrics import BREAKER_OPEN, BREAKER_OPENED

SILENT_S = 0.5
"""Seconds without an answer that count as a failure; a call given up sooner says nothing about the backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When the circuit breaker opens, and when it probes the backend.

    Attributes:
        max_failures: failures in a row that open the breaker. A rejected key, a missing model and a failed check open
            it at once.
        cool_down_s: seconds until the first probe; doubled after each probe that fails.
        max_cool_down_s: the longest time between two probes.
        check_timeout_s: seconds that a check may take.
    """

    max_failures: int = 5
    cool_down_s: float = 1.0
    max_cool_down_s: float = 30.0
    check_timeout_s: float = 30.0


class Backend(Protocol):
    """What a breaker stands in front of."""

    @property
    def spec(self) -> "Named":
        """What it says of itself."""
        ...

    async def start(self) -> None:
        """Get ready."""
        ...

    async def check(self) -> None:
        """Prove that it works, or raise an EmbedderError."""
        ...

    async def close(self) -> None:
        """Stop; may be called twice."""
        ...


class Watched(Backend, Protocol):
    """A backend that knows whether it works: an embedder or a reranker."""

    @property
    def health(self) -> Health:
        """Whether it works."""
        ...

    def note_silence(self, since_s: float) -> None:
        """Record that a call which began then, by time.monotonic, was given up."""
        ...


class Named(Protocol):
    """What has a name."""

    @property
    def name(self) -> str:
        """The name, for the metrics."""
        ...


class Breaker:
    """Passes calls on while a backend works, and knows whether it does.

    Closed: calls pass, and failures in a row are counted. Open: calls fail at once with the last fault. After the
    cool-down, the next call starts a probe in the background, and calls keep failing until it has succeeded, so that a
    backend that hangs costs no caller any time. The cool-down is reset after as many successes as failures open the
    breaker, so that an unstable backend is probed less and less often.

    Calls with callers' own keys do not count, because a backend may reject a key with any answer.

    Attributes:
        health: whether the backend works.
    """

    def __init__(self, inner: Backend, rules: BreakerRules, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Wrap `inner`, whose life the breaker takes over; `now_s` stands in for time.monotonic."""
        self._inner = inner
        self._rules = rules
        self._now_s = now_s
        self.health = Health()
        self._fault: EmbedderError | None = None
        self._failures = 0
        self._successes = 0
        self._cool_down_s = rules.cool_down_s
        self._probe_at_s = 0.0
        self._checks = 0
        self._probe: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether calls fail without being passed on."""
        return self._fault is not None

    async def start(self) -> None:
        """Start the backend.

        Raises:
            ModelUnusable: a local model cannot be loaded.
        """
        await self._inner.start()
        BREAKER_OPEN.labels(self._name).set(0)
        BREAKER_OPENED.labels(self._name)

    def _admit(self, *, own_key: bool) -> None:
        """Let a call pass, or fail it at once while the breaker is open.

        Args:
            own_key: whether the caller's own key is sent.

        Raises:
            EmbedderError: as the backend when it was last asked.
        """
        # A rejected key of this server does not affect callers with their own keys.
        if self._fault is not None and not (own_key and isinstance(self._fault, CredentialRejected)):
            self._probe_if_due()
            raise self._refusal(self._fault)

    def _note_error(self, error: EmbedderError, *, own_key: bool) -> None:
        """Count a call that the backend failed."""
        if isinstance(error, EmbedderOverloaded | EmbedderRateLimited | CallerKeyRejected | InputRejected):
            return  # busy is not broken, and what is wrong with a caller's key or input says nothing about the backend
        # While the breaker is open, failures of earlier calls say nothing new, and must not delay the probe.
        if self._fault is None and not own_key:
            self._note_failure(error, at_once=isinstance(error, CredentialRejected | ModelGone))

    def note_silence(self, since_s: float) -> None:
        """Count a call that was given up as a failure, unless the backend has answered others since it began."""
        waited_s = self._now_s() - since_s
        if self._fault is None and waited_s >= SILENT_S and self.health.last_success_s < since_s:
            self._note_failure(EmbedderUnavailable(f"it did not answer within {waited_s:.1f} s"), at_once=False)

    async def check(self) -> None:
        """Check the backend; the breaker then closes or opens.

        Raises:
            EmbedderUnavailable: the check took too long.
            EmbedderError: as the backend.
        """
        self._checks += 1
        began_s = self._now_s()
        try:
            async with asyncio.timeout(self._rules.check_timeout_s):
                await self._inner.check()
        except (EmbedderOverloaded, EmbedderRateLimited) as error:
            # The answer does not tell whether the fault is over; a probe with each call would keep the backend busy.
            self._probe_at_s = self._now_s() + max(error.retry_after_s, self._cool_down_s)
            raise
        except EmbedderError as error:
            self._note_failure(error, at_once=True)
            raise
        except TimeoutError as error:
            late = EmbedderUnavailable(f"it did not answer a check within {self._rules.check_timeout_s:g} s")
            # A backend that answered calls meanwhile works, and is busy.
            if self.health.last_success_s < began_s:
                self._note_failure(late, at_once=True)
            raise late from error
        except Exception as error:
            fault = f"its check failed with {type(error).__name__}; see the server's log"
            self._note_failure(EmbedderUnavailable(fault), at_once=True)
            raise
        else:
            self._note_success()
        finally:
            self._checks -= 1

    async def close(self) -> None:
        """Close the backend. May be called twice."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        await self._inner.close()

    @property
    def _name(self) -> str:
        return self._inner.spec.name

    def _probe_if_due(self) -> None:
        """Start a probe if the cool-down is over and no check is running."""
        if self._checks or self._now_s() < self._probe_at_s or not (self._probe is None or self._probe.done()):
            return

        async def probe() -> None:
            # A failure is recorded, and the server's next periodic check reports it.
            with contextlib.suppress(Exception):
                await self.check()

        # An empty context: the probe is not a part of the call that triggered it.
        self._probe = asyncio.get_running_loop().create_task(probe(), context=Context())

    def _note_failure(self, error: EmbedderError, *, at_once: bool) -> None:
        self.health.fault = str(error)
        self._failures += 1
        self._successes = 0
        if self._fault is not None:
            self._cool_down_s = min(2 * self._cool_down_s, self._rules.max_cool_down_s)
        if self._fault is not None or at_once or self._failures >= self._rules.max_failures:
            if self._fault is None:
                self.health.outages += 1
                BREAKER_OPENED.labels(self._name).inc()
            self._fault = error
            self._probe_at_s = self._now_s() + self._cool_down_s
            BREAKER_OPEN.labels(self._name).set(1)

    def _note_success(self) -> None:
        self.health.fault = None
        self.health.last_success_s = self._now_s()
        if self._fault is not None:
            self._fault = None
            BREAKER_OPEN.labels(self._name).set(0)
        self._failures = 0
        self._successes += 1
        if self._successes >= self._rules.max_failures:
            self._cool_down_s = self._rules.cool_down_s

    def _refusal(self, fault: EmbedderError) -> EmbedderError:
        """Return a copy of the fault; if it is temporary, with the time of the next probe."""
        refusal = fault.for_caller()
        if isinstance(refusal, EmbedderUnavailable):
            refusal.retry_after_s = max(self._probe_at_s - self._now_s(), 0.1)
        return refusal


class BreakerEmbedder(Breaker, EmbedderWrapper):
    """A breaker in front of an embedder."""

    _inner: Embedder

    def __init__(self, inner: Embedder, rules: BreakerRules, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Wrap `inner`, whose life this embedder takes over; `now_s` stands in for time.monotonic."""
        EmbedderWrapper.__init__(self, inner)
        Breaker.__init__(self, inner, rules, now_s=now_s)

    async def start(self) -> None:
        """Start the embedder.

        Raises:
            ModelUnusable: a local model cannot be loaded.
        """
        await super().start()
        if self.spec.weights_digest is not None:
            # A local model has embedded something as it started.
            self._note_success()

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs, or fail at once while the breaker is open.

        Raises:
            EmbedderError: as the inner embedder, now or when it was last asked.
        """
        own_key = options.api_key is not None
        self._admit(own_key=own_key)
        try:
            outcomes = await self._inner.embed(inputs, options)
        except EmbedderError as error:
            self._note_error(error, own_key=own_key)
            raise
        # Inputs that are rejected before the backend is asked say nothing about it.
        if not own_key and any(isinstance(each, Embedding) for each in outcomes):
            self._note_success()
        return outcomes


class BreakerReranker(Breaker):
    """A breaker in front of a reranker."""

    _inner: Reranker

    @property
    def spec(self) -> RerankerSpec:
        """The inner reranker's."""
        return self._inner.spec

    async def rerank(self, query: str, passages: Sequence[Passage], options: RerankOptions) -> list[RankOutcome]:
        """Score passages, or fail at once while the breaker is open.

        Raises:
            EmbedderError: as the inner reranker, now or when it was last asked.
        """
        own_key = options.api_key is not None
        self._admit(own_key=own_key)
        try:
            outcomes = await self._inner.rerank(query, passages, options)
        except EmbedderError as error:
            self._note_error(error, own_key=own_key)
            raise
        if not own_key and any(isinstance(each, float) for each in outcomes):
            self._note_success()
        return outcomes
