"""Repeating requests that failed in passing: how often, when, and when not.

Embedding the same inputs twice does no harm, so every request may be repeated.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity
from cachetools import LRUCache
from tenacity.wait import wait_base, wait_random_exponential

from embedders.errors import EmbedderRateLimited, EmbedderUnavailable
from embedders.telemetry.timing import resting

MAX_RETRY_AFTER_S = 3600.0

MAX_KEYS = 1000
"""Keys whose budgets are remembered; those that were used least lately are forgotten."""

T = TypeVar("T")


class Transient(Exception):
    """An attempt failed in a way that the next one may not.

    Attributes:
        error: what the caller gets if there is no further attempt.
        retry_after_s: the wait that the other side asked for; None if it did not.
    """

    def __init__(self, error: EmbedderUnavailable, *, retry_after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_s = retry_after_s


class RetryBudget:
    """Keeps retries from multiplying the load on a NIM that is down.

    This is the throttling of gRPC's retries (github.com/grpc/proposal, A6-client-retries.md, "Throttling Retry Attempts
    and Hedged RPCs"): each failed attempt takes a token, each success gives back a part of one, and there are no
    retries while no more than half of the tokens are left. First attempts are never held back.
    """

    def __init__(self, *, max_tokens: float = 10.0, token_ratio: float = 0.1) -> None:
        """Begin with all tokens; the defaults are those of gRPC's own example."""
        self._max_tokens = max_tokens
        self._token_ratio = token_ratio
        self._tokens = max_tokens

    @property
    def open(self) -> bool:
        """Whether a failed attempt may be repeated."""
        return self._tokens > self._max_tokens / 2

    def note_failure(self) -> None:
        """Take a token."""
        self._tokens = max(0.0, self._tokens - 1)

    def note_success(self) -> None:
        """Give back a part of a token."""
        self._tokens = min(self._max_tokens, self._tokens + self._token_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Runs attempts until one succeeds or no further one makes sense.

    Between attempts it waits a random time up to a bound that doubles each time ("full jitter"); where the other side
    asked for a wait, that comes first. A wait that would pass `max_s` or the callers' deadline is not begun. While it
    waits because a key has had too many calls, it rests: see embedders.telemetry.timing.

    Attributes:
        attempts: requests in all, the first one included.
        max_s: seconds from the first attempt's beginning within which retries begin and end.
        budget: shared by all calls to one NIM.
        key_budgets: for keys that have had too many calls, which says nothing of others; by the keys' hashes.
        jitter: how long to wait beyond what was asked for.
        clock: seconds that only grow.
        sleep: waits.
    """

    attempts: int = 3
    max_s: float = 20.0
    budget: RetryBudget = field(default_factory=RetryBudget)
    key_budgets: LRUCache[int, RetryBudget] = field(default_factory=lambda: LRUCache(MAX_KEYS))
    jitter: wait_base = field(default_factory=lambda: wait_random_exponential(multiplier=0.1, max=5.0))
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(
        self,
        attempt: Callable[[float], Awaitable[T]],
        *,
        timeout_s: float,
        deadline_s: float = math.inf,
        key: str | None = None,
    ) -> T:
        """Return what the first successful attempt returns.

        Args:
            attempt: makes one request in at most the seconds that it is given.
            timeout_s: seconds for one attempt; a retry gets less where max_s leaves less.
            deadline_s: when nobody waits for the answer any more, by the clock.
            key: whose calls these are.

        Raises:
            EmbedderUnavailable: the last attempt's failure.
            Exception: what an attempt raises besides Transient; it is not repeated.
        """
        started, last = self.clock(), Transient(EmbedderUnavailable("no attempt"))

        def wait(state: tenacity.RetryCallState) -> float:
            return (last.retry_after_s or 0.0) + self.jitter(state)

        def stop(state: tenacity.RetryCallState) -> bool:
            if state.attempt_number >= self.attempts or not self._budget(last, key).open:
                return True
            return self.clock() + state.upcoming_sleep >= min(started + self.max_s, deadline_s)

        async def pause(seconds: float) -> None:
            limited = isinstance(last.error, EmbedderRateLimited)
            with resting(self.clock() + seconds, last.error) if limited else contextlib.nullcontext():
                await self.sleep(seconds)

        async def once() -> T:
            nonlocal last
            spent = self.clock() - started
            first = retrying.statistics["attempt_number"] == 1
            try:
                answer = await attempt(timeout_s if first else min(timeout_s, self.max_s - spent))
            except Transient as failure:
                last = failure
                self._budget(failure, key).note_failure()
                raise
            for budget in (self.budget, self.key_budgets.get(hash(key))):
                if budget is not None:
                    budget.note_success()
            return answer

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Transient), wait=wait, stop=stop, sleep=pause, reraise=True
        )
        try:
            return await retrying(once)
        except Transient as failure:
            raise failure.error from failure.__cause__

    def _budget(self, failure: Transient, key: str | None) -> RetryBudget:
        if not isinstance(failure.error, EmbedderRateLimited):
            return self.budget
        return self.key_budgets.setdefault(hash(key), RetryBudget())


def parse_retry_after(value: str | None, *, now_s: float | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, at most an hour; None if it says nothing that makes sense.

    Args:
        value: seconds, or a date as in HTTP.
        now_s: seconds since 1970; the present unless given.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
            seconds = moment.timestamp() - (time.time() if now_s is None else now_s)
        except (ValueError, OverflowError):
            return None
    return min(seconds, MAX_RETRY_AFTER_S) if 0 < seconds < math.inf else None
