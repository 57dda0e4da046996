"""When a failed request is repeated, and when not; no clock but a made-up one runs here."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from embedders.errors import AnswerInvalid, EmbedderRateLimited, EmbedderUnavailable
from embedders.nim.retries import MAX_KEYS, Retries, RetryBudget, Transient, parse_retry_after
from embedders.telemetry.timing import Rest, begin_times

NOON = 1_800_000_000.0


@dataclass
class Clock:
    """Time that passes only by sleeping and by attempts that take a while."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def doubling(attempts: int) -> float:
    """Return 1, 2, 4 ... seconds."""
    return float(2 ** (attempts - 1))


def no_wait(_attempts: int) -> float:
    return 0.0


def failing(
    clock: Clock, *errors: Exception | None, takes_s: float = 0.0
) -> tuple[Callable[[float], "asyncio.Future[str]"], list[float]]:
    """Return attempts that raise these errors in turn, None for success, and the time limits that they were given."""
    limits: list[float] = []
    left = list(errors)

    async def attempt(limit_s: float) -> str:
        limits.append(limit_s)
        clock.now += takes_s
        error = left.pop(0)
        if error is not None:
            raise error
        return "done"

    return attempt, limits  # type: ignore[return-value]


def down(retry_after_s: float | None = None) -> Transient:
    return Transient(EmbedderUnavailable("down"), retry_after_s=retry_after_s)


def retries(clock: Clock, *, jitter: Callable[[int], float] = doubling, **changes: object) -> Retries:
    return Retries(clock=clock, sleep=clock.sleep, jitter=jitter, **changes)  # type: ignore[arg-type]


async def test_a_failure_that_passes_is_repeated_after_waits_that_grow() -> None:
    clock = Clock()
    attempt, limits = failing(clock, down(), down(), None)

    assert await retries(clock).run(attempt, timeout_s=5) == "done"
    assert clock.slept == [1, 2]
    assert limits == [5, 5, 5]


async def test_the_last_failure_is_what_the_caller_gets_with_its_cause() -> None:
    clock = Clock()
    last = Transient(EmbedderRateLimited("busy", retry_after_s=7))
    last.__cause__ = OSError("reset")
    attempt, limits = failing(clock, down(), down(), last)

    with pytest.raises(EmbedderRateLimited, match="busy") as failure:
        await retries(clock).run(attempt, timeout_s=5)

    assert len(limits) == 3
    assert isinstance(failure.value.__cause__, OSError)


async def test_one_attempt_means_no_retry() -> None:
    clock = Clock()
    attempt, limits = failing(clock, down())

    with pytest.raises(EmbedderUnavailable):
        await retries(clock, attempts=1).run(attempt, timeout_s=5)

    assert (len(limits), clock.slept) == (1, [])


async def test_what_does_not_pass_by_itself_is_not_repeated() -> None:
    clock = Clock()
    attempt, limits = failing(clock, AnswerInvalid("nonsense"))

    with pytest.raises(AnswerInvalid):
        await retries(clock).run(attempt, timeout_s=5)

    assert (len(limits), clock.slept) == (1, [])


async def test_the_other_sides_wait_comes_first_and_jitter_after_it() -> None:
    clock = Clock()
    attempt, _ = failing(clock, down(7), down(), None)

    await retries(clock).run(attempt, timeout_s=5)

    assert clock.slept == [7 + 1, 2]


async def test_a_wait_that_would_pass_the_bound_is_not_begun() -> None:
    clock = Clock()
    attempt, limits = failing(clock, down(19), down())

    with pytest.raises(EmbedderUnavailable):
        await retries(clock, max_s=20).run(attempt, timeout_s=5)

    assert (len(limits), clock.slept) == (1, [])


async def test_an_attempt_that_spent_the_time_is_the_last_one() -> None:
    clock = Clock()
    attempt, limits = failing(clock, down(), down(), takes_s=30)

    with pytest.raises(EmbedderUnavailable):
        await retries(clock, max_s=20).run(attempt, timeout_s=30)

    assert limits == [30]


async def test_a_retry_gets_no_more_time_than_is_left() -> None:
    clock = Clock()
    attempt, limits = failing(clock, down(), down(), down(), takes_s=8)

    with pytest.raises(EmbedderUnavailable):
        await retries(clock, max_s=20).run(attempt, timeout_s=15)

    assert limits == [15, 20 - 8 - 1, 20 - 8 - 1 - 8 - 2]


async def test_a_wait_that_would_pass_the_callers_deadline_is_not_begun() -> None:
    clock = Clock(now=100)
    attempt, limits = failing(clock, down(3), down(3))

    with pytest.raises(EmbedderUnavailable):
        await retries(clock).run(attempt, timeout_s=5, deadline_s=104)

    assert (len(limits), clock.slept) == (1, [])


async def test_a_wait_that_ends_before_the_callers_deadline_is_waited_for() -> None:
    clock = Clock(now=100)
    attempt, _ = failing(clock, down(3), None)

    assert await retries(clock).run(attempt, timeout_s=5, deadline_s=104.1) == "done"
    assert clock.slept == [4]


async def test_work_rests_while_a_key_has_had_too_many_calls_and_not_while_the_nim_is_down() -> None:
    clock, seen = Clock(), []
    times = begin_times()
    times.on_rest = lambda: seen.append(times.rest)
    busy = Transient(EmbedderRateLimited("busy"), retry_after_s=3)
    attempt, _ = failing(clock, down(), busy, None)

    await retries(clock).run(attempt, timeout_s=5)

    assert seen == [Rest(1 + 3 + 2, busy.error), None]


async def test_a_key_that_has_had_too_many_calls_takes_no_retries_from_others() -> None:
    clock = Clock()
    policy = retries(clock, jitter=no_wait)
    for _ in range(10):
        attempt, _limits = failing(clock, *[Transient(EmbedderRateLimited("busy")) for _ in range(3)])
        with pytest.raises(EmbedderRateLimited):
            await policy.run(attempt, timeout_s=5, key="limited")
    asked: dict[str | None, int] = {}
    for key in ("limited", "other", None):
        attempt, limits = failing(clock, Transient(EmbedderRateLimited("busy")), None)
        with contextlib.suppress(EmbedderRateLimited):
            await policy.run(attempt, timeout_s=5, key=key)
        asked[key] = len(limits)

    assert asked == {"limited": 1, "other": 2, None: 2}
    attempt, limits = failing(clock, down(), None)
    assert await policy.run(attempt, timeout_s=5, key="limited") == "done"


async def test_keys_that_have_had_too_many_calls_are_remembered_in_bounded_number_and_never_in_words() -> None:
    clock = Clock()
    policy = retries(clock, attempts=1)
    for number in range(MAX_KEYS + 10):
        attempt, _ = failing(clock, Transient(EmbedderRateLimited("busy")))
        with pytest.raises(EmbedderRateLimited):
            await policy.run(attempt, timeout_s=5, key=f"nvapi-{number}")

    assert len(policy.key_budgets) == MAX_KEYS
    assert "nvapi" not in repr(policy)


async def test_jitter_is_spread_over_the_whole_wait() -> None:
    waits = []
    for _ in range(200):
        clock = Clock()
        attempt, _limits = failing(clock, down(), down(), None)
        await Retries(clock=clock, sleep=clock.sleep).run(attempt, timeout_s=5)
        waits.append(clock.slept)

    for position, bound in enumerate((0.1, 0.2)):
        share = [each[position] / bound for each in waits]
        assert 0 <= min(share) < 0.2
        assert 0.8 < max(share) <= 1


async def test_a_cancelled_call_is_not_repeated() -> None:
    clock = Clock()
    attempt, limits = failing(clock, asyncio.CancelledError())  # type: ignore[arg-type]

    with pytest.raises(asyncio.CancelledError):
        await retries(clock).run(attempt, timeout_s=5)

    assert len(limits) == 1


async def test_an_outage_ends_retries_but_not_first_attempts() -> None:
    clock, budget = Clock(), RetryBudget()
    policy = retries(clock, budget=budget, jitter=no_wait)
    requests = 0
    for _ in range(100):
        attempt, limits = failing(clock, *[down() for _ in range(3)])
        with pytest.raises(EmbedderUnavailable):
            await policy.run(attempt, timeout_s=5)
        requests += len(limits)

    assert 100 <= requests < 105


async def test_successes_give_retries_back() -> None:
    clock, budget = Clock(), RetryBudget(max_tokens=4, token_ratio=0.5)
    for _ in range(10):
        budget.note_failure()
    policy = retries(clock, budget=budget)
    successes = 0
    while not budget.open:
        attempt, _ = failing(clock, None)
        await policy.run(attempt, timeout_s=5)
        successes += 1

    assert successes == 5
    # The failure itself takes a token before it is asked whether there are enough.
    for _ in range(2):
        budget.note_success()
    attempt, limits = failing(clock, down(), None)
    assert await policy.run(attempt, timeout_s=5) == "done"
    assert len(limits) == 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("999999", 3600.0),
        ("Fri, 15 Jan 2027 08:00:09 GMT", 9.0),
        ("Fri, 15 Jan 2027 07:59:00 GMT", None),
        ("Fri, 15 Jan 2027 99:59:00 GMT", None),
        ("0", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now_s=NOON) == seconds
