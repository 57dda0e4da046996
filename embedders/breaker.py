"""Leaving a broken backend alone: after some failures it is not asked for a while, then probed before it is trusted."""

import asyncio
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedders.base import Embedder, Outcome
from embedders.errors import (
    CallerKeyRejected,
    CredentialRejected,
    EmbedderError,
    EmbedderOverloaded,
    EmbedderRateLimited,
    EmbedderUnavailable,
    ModelGone,
)
from embedders.inputs import Embedding, EmbedOptions, Input
from embedders.metrics import BREAKER_OPEN, BREAKER_OPENED
from embedders.spec import EmbedderSpec

__all__ = ["BreakerEmbedder", "BreakerRules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When to stop asking a backend, and when to try again.

    Attributes:
        max_failures: failures in a row that open the breaker. A refused key, a model that is gone and a failed check
            open it at once.
        cool_down_s: seconds until the first probe; doubled after each one that fails.
        max_cool_down_s: the longest time between probes.
        check_timeout_s: seconds that a check may take.
    """

    max_failures: int = 5
    cool_down_s: float = 1.0
    max_cool_down_s: float = 30.0
    check_timeout_s: float = 30.0


class BreakerEmbedder:
    """Passes calls on while the embedder behind it works.

    Closed: calls pass, and failures in a row are counted. Open: calls fail at once with what went wrong. Once the time
    to cool down is over, the next call or check probes the backend; others go on failing until the probe has
    succeeded. The time to cool down is forgotten after as many successes as failures open the breaker, so that a
    backend that comes and goes is asked ever less.
    """

    def __init__(self, inner: Embedder, rules: BreakerRules, *, now_s: Callable[[], float] | None = None) -> None:
        """Wrap `inner`, whose life this embedder takes over; `now_s` stands in for the event loop's clock."""
        self._inner = inner
        self._rules = rules
        self._now_s = now_s or (lambda: asyncio.get_running_loop().time())
        self._fault: EmbedderError | None = None
        self._failures = 0
        self._successes = 0
        self._cool_down_s = rules.cool_down_s
        self._probe_at_s = 0.0
        self._probes = 0

    @property
    def spec(self) -> EmbedderSpec:
        """The inner embedder's."""
        return self._inner.spec

    @property
    def open(self) -> bool:
        """Whether calls fail without being passed on."""
        return self._fault is not None

    async def start(self) -> None:
        """Start the inner embedder.

        Raises:
            ModelUnusable: a local model cannot be loaded.
        """
        await self._inner.start()
        BREAKER_OPEN.labels(self.spec.name).set(0)
        BREAKER_OPENED.labels(self.spec.name)

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs, or fail at once while the breaker is open.

        Raises:
            EmbedderError: as the inner embedder, now or when it was last asked.
        """
        if self._fault is not None:
            if self._probes or self._now_s() < self._probe_at_s:
                raise self._refusal(self._fault)
            try:
                await self.check()
            except asyncio.CancelledError:
                # A backend that hangs would use up every caller's time in turn.
                self._probe_at_s = self._now_s() + self._cool_down_s
                raise
        try:
            outcomes = await self._inner.embed(inputs, options)
        except (EmbedderOverloaded, EmbedderRateLimited, CallerKeyRejected):
            raise  # busy is not broken, and neither is what wants another key from a caller
        except EmbedderError as error:
            # Once it is open, calls from before tell nothing new; they shall not make the backend wait for its probe.
            if self._fault is None and not (isinstance(error, CredentialRejected) and options.api_key is not None):
                self._note_failure(error, at_once=isinstance(error, (CredentialRejected, ModelGone)))
            raise
        # Inputs that are refused before anybody asks the backend say nothing of it.
        if any(isinstance(each, Embedding) for each in outcomes):
            self._note_success()
        return outcomes

    async def check(self) -> None:
        """Check the inner embedder; the breaker then closes or opens.

        Raises:
            EmbedderUnavailable: the check took too long.
            EmbedderError: as the inner embedder.
        """
        self._probes += 1
        try:
            async with asyncio.timeout(self._rules.check_timeout_s):
                await self._inner.check()
        except (EmbedderOverloaded, EmbedderRateLimited) as error:
            # It said nothing of what was wrong; were it asked again by every call, it would stay busy.
            self._probe_at_s = self._now_s() + max(error.retry_after_s, self._cool_down_s)
            raise
        except EmbedderError as error:
            self._note_failure(error, at_once=True)
            raise
        except TimeoutError as error:
            late = EmbedderUnavailable(f"it did not answer a check within {self._rules.check_timeout_s:g} s")
            self._note_failure(late, at_once=True)
            raise late from error
        else:
            self._note_success()
        finally:
            self._probes -= 1

    async def close(self) -> None:
        """Close the inner embedder. May be called twice."""
        await self._inner.close()

    def _note_failure(self, error: EmbedderError, *, at_once: bool) -> None:
        self._failures += 1
        self._successes = 0
        if self._fault is not None:
            self._cool_down_s = min(2 * self._cool_down_s, self._rules.max_cool_down_s)
        if self._fault is not None or at_once or self._failures >= self._rules.max_failures:
            if self._fault is None:
                BREAKER_OPENED.labels(self.spec.name).inc()
            self._fault = error
            self._probe_at_s = self._now_s() + self._cool_down_s
            BREAKER_OPEN.labels(self.spec.name).set(1)

    def _note_success(self) -> None:
        if self._fault is not None:
            self._fault = None
            BREAKER_OPEN.labels(self.spec.name).set(0)
        self._failures = 0
        self._successes += 1
        if self._successes >= self._rules.max_failures:
            self._cool_down_s = self._rules.cool_down_s

    def _refusal(self, fault: EmbedderError) -> EmbedderError:
        """Return the fault anew; one that may pass says when the backend is asked again."""
        refusal = copy.copy(fault)
        refusal.__cause__ = fault
        if isinstance(refusal, EmbedderUnavailable):
            refusal.retry_after_s = max(self._probe_at_s - self._now_s(), 0.1)
        return refusal
