"""The retry rule: which failed requests to a NIM are repeated, how often, and when.

Embedding is idempotent, so every request may be repeated.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

from cachetools import LRUCache

from embedders.errors import EmbedderRateLimited, EmbedderUnavailable
from embedders.telemetry.timing import resting

PASSING = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Statuses of temporary failures, which are retried."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
"""The bound of the random wait before the first retry, which doubles with each one, and the largest bound."""

MAX_RETRY_AFTER_S = 3600.0

MAX_KEYS = 1000
"""Keys whose budgets are kept; the least recently used are dropped."""

T = TypeVar("T")


class Transient(Exception):
    """An attempt failed temporarily.

    Attributes:
        error: what the caller gets if there is no further attempt.
        retry_after_s: the wait that the NIM asked for; None if it did not.
    """

    def __init__(self, error: EmbedderUnavailable, *, retry_after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_s = retry_after_s


class RetryBudget:
    """Keeps retries from multiplying the load on a NIM that is down.

    It is the throttling of gRPC's retries (github.com/grpc/proposal, A6-client-retries.md, "Throttling Retry Attempts
    and Hedged RPCs"): each failed attempt takes a token, each success gives back a part of one, and there are no
    retries while half of the tokens or fewer are left. First attempts are never held back.
    """

    def __init__(self, *, max_tokens: float = 10.0, token_ratio: float = 0.1) -> None:
        """Begin with all tokens; the defaults are those of gRPC's example."""
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
        """Return a part of a token."""
        self._tokens = min(self._max_tokens, self._tokens + self._token_ratio)


LEAST_S = 0.01
"""Seconds that a request must have left to be begun. Clocks of event loops end a time-out up to a millisecond early."""


def full_jitter(attempts: int) -> float:
    """Return a random wait in seconds, up to a bound that doubles with each attempt."""
    return random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempts - 1)))  # noqa: S311 -- no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Runs attempts until one succeeds, or none is left.

    Between attempts it waits a random time up to a bound that doubles each time ("full jitter"), after the wait that
    the NIM asked for, if any. A wait that would end after `max_s` or after the callers' deadline is not begun. While it
    waits because of a key's rate limit, it rests: see embedders.telemetry.timing.

    Attributes:
        attempts: requests in all, the first one included.
        max_s: seconds from the first attempt's beginning within which retries begin and end.
        budget: shared by all calls to one NIM.
        key_budgets: of keys that have reached a rate limit, which does not affect other keys; by the keys' hashes.
        jitter: returns the random wait in seconds after so many attempts.
        clock: monotonic seconds.
        sleep: waits.
    """

    attempts: int = 3
    max_s: float = 20.0
    budget: RetryBudget = field(default_factory=RetryBudget)
    key_budgets: LRUCache[int, RetryBudget] = field(default_factory=lambda: LRUCache(MAX_KEYS))
    jitter: Callable[[int], float] = full_jitter
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
        """Return the result of the first successful attempt.

        Args:
            attempt: makes one request in at most the seconds that it is given.
            timeout_s: seconds for one attempt; a retry gets less if max_s leaves less.
            deadline_s: when the last caller stops waiting, by the clock.
            key: the caller's own key, if any.

        Raises:
            EmbedderUnavailable: the last attempt's failure.
            Exception: any other error of an attempt; it is not retried.
        """
        began_s = self.clock()
        done, left_s = 0, timeout_s
        while True:
            try:
                answer = await attempt(left_s)
            except Transient as failure:
                done += 1
                budget = self._budget(failure.error, key)
                budget.note_failure()
                wait_s = (failure.retry_after_s or 0.0) + self.jitter(done)
                late = self.clock() + wait_s + LEAST_S >= min(began_s + self.max_s, deadline_s)
                if done >= self.attempts or not budget.open or late:
                    raise failure.error from failure.__cause__
                await self._wait(wait_s, failure.error)
                left_s = began_s + self.max_s - self.clock()
                if left_s < LEAST_S:  # it slept longer than asked
                    raise failure.error from failure.__cause__
                left_s = min(timeout_s, left_s)
            else:
                self.budget.note_success()
                if (own := self.key_budgets.get(hash(key))) is not None:
                    own.note_success()
                return answer

    async def _wait(self, wait_s: float, why: EmbedderUnavailable) -> None:
        limited = isinstance(why, EmbedderRateLimited)
        with resting(self.clock() + wait_s, why) if limited else contextlib.nullcontext():
            await self.sleep(wait_s)

    def _budget(self, error: EmbedderUnavailable, key: str | None) -> RetryBudget:
        if not isinstance(error, EmbedderRateLimited):
            return self.budget
        return self.key_budgets.setdefault(hash(key), RetryBudget())


def parse_retry_after(value: str | None, *, now_s: float | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, at most an hour; None if it is invalid.

    Args:
        value: seconds, or a date as in HTTP.
        now_s: seconds since 1970; the current time by default.
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
