"""Leaving a broken backend alone: after some failures it is not asked for a while, then probed before it is trusted."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass

from embedders.base import EmbedderWrapper
from embedders.contract import Embedder, Embedding, EmbedOptions, Health, Input, Outcome
from embedders.errors import (
    CallerKeyRejected,
    CredentialRejected,
    EmbedderError,
    EmbedderOverloaded,
    EmbedderRateLimited,
    EmbedderUnavailable,
    ModelGone,
)
from embedders.telemetry.metrics import BREAKER_OPEN, BREAKER_OPENED

SILENT_S = 0.5
"""Seconds without an answer that count as a failure; a caller in more of a hurry says nothing of the backend."""


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


class BreakerEmbedder(EmbedderWrapper):
    """Passes calls on while the embedder behind it works, and knows whether it does.

    Closed: calls pass, and failures in a row are counted. Open: calls fail at once with what went wrong. Once the time
    to cool down is over, the next call lets the backend be probed in the background, and fails like the others until
    the probe has succeeded: a backend that hangs shall cost nobody's time. The time to cool down is forgotten after as
    many successes as failures open the breaker, so that a backend that comes and goes is asked ever less.

    Calls with keys of their own count neither way, because a backend may refuse a key in any words that it likes.
    """

    def __init__(self, inner: Embedder, rules: BreakerRules, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Wrap `inner`, whose life this embedder takes over; `now_s` stands in for time.monotonic."""
        super().__init__(inner)
        self._rules = rules
        self._now_s = now_s
        self._health = Health()
        self._fault: EmbedderError | None = None
        self._failures = 0
        self._successes = 0
        self._cool_down_s = rules.cool_down_s
        self._probe_at_s = 0.0
        self._checks = 0
        self._probe: asyncio.Task[None] | None = None

    @property
    def health(self) -> Health:
        """Whether the inner embedder works."""
        return self._health

    @property
    def open(self) -> bool:
        """Whether calls fail without being passed on."""
        return self._fault is not None

    async def start(self) -> None:
        """Start the inner embedder.

        Raises:
            ModelUnusable: a local model cannot be loaded.
        """
        await super().start()
        BREAKER_OPEN.labels(self.spec.name).set(0)
        BREAKER_OPENED.labels(self.spec.name)

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs, or fail at once while the breaker is open.

        Raises:
            EmbedderError: as the inner embedder, now or when it was last asked.
        """
        own_key = options.api_key is not None
        # That this server's key is refused is no trouble of those who bring one.
        if self._fault is not None and not (own_key and isinstance(self._fault, CredentialRejected)):
            self._probe_if_due()
            raise self._refusal(self._fault)
        try:
            outcomes = await self._inner.embed(inputs, options)
        except (EmbedderOverloaded, EmbedderRateLimited, CallerKeyRejected):
            raise  # busy is not broken, and neither is what wants another key from a caller
        except EmbedderError as error:
            # Once it is open, calls from before tell nothing new; they shall not make the backend wait for its probe.
            if self._fault is None and not own_key:
                self._note_failure(error, at_once=isinstance(error, (CredentialRejected, ModelGone)))
            raise
        # Inputs that are refused before anybody asks the backend say nothing of it.
        if not own_key and any(isinstance(each, Embedding) for each in outcomes):
            self._note_success()
        return outcomes

    def note_silence(self, since_s: float) -> None:
        """Count a call that was given up as a failure, unless others have been answered since it came."""
        waited_s = self._now_s() - since_s
        if self._fault is None and waited_s >= SILENT_S and self._health.last_success_s < since_s:
            self._note_failure(EmbedderUnavailable(f"it gave no answer in {waited_s:.1f} s"), at_once=False)

    async def check(self) -> None:
        """Check the inner embedder; the breaker then closes or opens.

        Raises:
            EmbedderUnavailable: the check took too long.
            EmbedderError: as the inner embedder.
        """
        self._checks += 1
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
        except Exception as error:
            fault = f"its check failed with {type(error).__name__}; see the server's log"
            self._note_failure(EmbedderUnavailable(fault), at_once=True)
            raise
        else:
            self._note_success()
        finally:
            self._checks -= 1

    async def close(self) -> None:
        """Close the inner embedder. May be called twice."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        await super().close()

    def _probe_if_due(self) -> None:
        """Begin to probe the backend if it is time and nobody does yet."""
        if self._checks or self._now_s() < self._probe_at_s or not (self._probe is None or self._probe.done()):
            return

        async def probe() -> None:
            # What goes wrong is noted, and the next check of the server's own tells it again.
            with contextlib.suppress(Exception):
                await self.check()

        # In a context of its own: it is no part of the call that happened to come.
        self._probe = asyncio.get_running_loop().create_task(probe(), context=Context())

    def _note_failure(self, error: EmbedderError, *, at_once: bool) -> None:
        self._health.fault = str(error)
        self._failures += 1
        self._successes = 0
        if self._fault is not None:
            self._cool_down_s = min(2 * self._cool_down_s, self._rules.max_cool_down_s)
        if self._fault is not None or at_once or self._failures >= self._rules.max_failures:
            if self._fault is None:
                self._health.outages += 1
                BREAKER_OPENED.labels(self.spec.name).inc()
            self._fault = error
            self._probe_at_s = self._now_s() + self._cool_down_s
            BREAKER_OPEN.labels(self.spec.name).set(1)

    def _note_success(self) -> None:
        self._health.fault = None
        self._health.last_success_s = self._now_s()
        if self._fault is not None:
            self._fault = None
            BREAKER_OPEN.labels(self.spec.name).set(0)
        self._failures = 0
        self._successes += 1
        if self._successes >= self._rules.max_failures:
            self._cool_down_s = self._rules.cool_down_s

    def _refusal(self, fault: EmbedderError) -> EmbedderError:
        """Return the fault anew; one that may pass says when the backend is asked again."""
        refusal = fault.anew()
        if isinstance(refusal, EmbedderUnavailable):
            refusal.retry_after_s = max(self._probe_at_s - self._now_s(), 0.1)
        return refusal
