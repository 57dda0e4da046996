"""BreakerEmbedder keeps the contract, leaves a broken backend alone, and finds out when it works again."""

import asyncio
from collections.abc import AsyncIterator
from unittest.mock import ANY

import pytest

from embedders.contract import NOT_CHECKED, QUERY, EmbedOptions, ImageInput, TextInput
from embedders.errors import (
    AnswerInvalid,
    CredentialRejected,
    EmbedderError,
    EmbedderOverloaded,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
)
from embedders.front.breaker import BreakerEmbedder, BreakerReranker, BreakerRules
from embedders.reranking import RERANK, Passage
from tests.embedders.suite import LIMITS, EmbedderSuite
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.reranker import FakeReranker

A = [TextInput("a")]
OWN_KEY = EmbedOptions(api_key="key")
RULES = BreakerRules(max_failures=3, cool_down_s=10, max_cool_down_s=35)


class TestContract(EmbedderSuite):
    """The contract."""

    @pytest.fixture
    def embedder(self) -> BreakerEmbedder:
        return BreakerEmbedder(FakeEmbedder(limits=LIMITS, max_text_tokens=12, max_batch=4), BreakerRules())


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inner() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
async def breaker(inner: FakeEmbedder, clock: Clock) -> AsyncIterator[BreakerEmbedder]:
    breaker = BreakerEmbedder(inner, RULES, now_s=clock)
    yield breaker
    await breaker.close()


async def fail(breaker: BreakerEmbedder, times: int = 1, options: EmbedOptions = QUERY) -> EmbedderError:
    for _ in range(times):
        with pytest.raises(EmbedderError) as failure:
            await breaker.embed(A, options)
    return failure.value


async def pass_by(breaker: BreakerEmbedder) -> EmbedderError:
    """Make the call that lets the backend be probed, which fails itself, and see the probe through."""
    refusal = await fail(breaker)
    assert breaker._probe is not None
    await asyncio.wait([breaker._probe])
    return refusal


async def test_it_opens_after_failures_in_a_row_and_then_fails_without_asking(
    breaker: BreakerEmbedder, inner: FakeEmbedder
) -> None:
    inner.failure = EmbedderUnavailable("down")
    await fail(breaker, 2)
    inner.failure = None
    await breaker.embed(A, QUERY)
    inner.failure = EmbedderUnavailable("down again")
    await fail(breaker, 3)
    assert breaker.open
    calls = len(inner.calls)

    refusal = await fail(breaker)

    assert isinstance(refusal, EmbedderUnavailable)
    assert str(refusal) == "down again"
    assert refusal.retry_after_s == 10
    assert len(inner.calls) == calls


@pytest.mark.parametrize("fault", [ModelGone("gone"), CredentialRejected("no")])
async def test_what_does_not_pass_by_itself_opens_it_at_once_and_keeps_its_name(
    breaker: BreakerEmbedder, inner: FakeEmbedder, fault: EmbedderError
) -> None:
    inner.failure = fault
    await fail(breaker)
    inner.failure = None
    assert type(await fail(breaker)) is type(fault)


@pytest.mark.parametrize("fault", [EmbedderOverloaded("full"), EmbedderRateLimited("slow down")])
async def test_busy_is_not_broken(breaker: BreakerEmbedder, inner: FakeEmbedder, fault: EmbedderError) -> None:
    inner.failure = fault
    await fail(breaker, 10)
    assert not breaker.open


@pytest.mark.parametrize("fault", [CredentialRejected("no"), ModelGone("not found for account"), AnswerInvalid("?")])
async def test_what_becomes_of_calls_with_a_key_of_their_own_is_nobody_else_s_trouble(
    breaker: BreakerEmbedder, inner: FakeEmbedder, fault: EmbedderError
) -> None:
    await breaker.check()
    inner.failure = fault

    await fail(breaker, 10, OWN_KEY)

    assert not breaker.open
    assert breaker.health.fault is None


async def test_a_call_with_a_key_of_its_own_does_not_make_up_for_this_server_s(
    breaker: BreakerEmbedder, inner: FakeEmbedder
) -> None:
    inner.failure = CredentialRejected("no")
    await fail(breaker)
    inner.failure = None

    outcomes = await breaker.embed(A, OWN_KEY)

    assert len(outcomes) == 1
    assert breaker.open
    assert breaker.health.fault == "no"


async def test_its_health_is_that_of_the_last_call_or_check(breaker: BreakerEmbedder, inner: FakeEmbedder) -> None:
    seen = [breaker.health.fault]
    for failure in (None, EmbedderUnavailable("down"), EmbedderRateLimited("busy"), None):
        inner.failure = failure
        if failure is None:
            await breaker.embed(A, QUERY)
        else:
            await fail(breaker)
        seen.append(breaker.health.fault)

    assert seen == ["it has not been checked yet", None, "down", "down", None]


async def test_a_check_that_crashes_is_a_failure_told_by_its_class(
    breaker: BreakerEmbedder, inner: FakeEmbedder
) -> None:
    inner.failure = ZeroDivisionError("a secret")

    with pytest.raises(ZeroDivisionError):
        await breaker.check()

    assert breaker.health.fault == "its check failed with ZeroDivisionError; see the server's log"
    assert isinstance(await fail(breaker), EmbedderUnavailable)


async def test_calls_that_were_given_up_without_an_answer_are_failures(breaker: BreakerEmbedder, clock: Clock) -> None:
    for _ in range(RULES.max_failures):
        clock.now_s += 1.5
        breaker.note_silence(clock.now_s - 1.5)

    assert breaker.open
    assert breaker.health.fault == "it did not answer within 1.5 s"


@pytest.mark.parametrize(("waited_s", "answered_ago_s"), [(0.4, None), (1.5, 1.0)], ids=["hasty", "others-answered"])
async def test_a_call_that_was_given_up_in_haste_or_while_others_were_answered_says_nothing(
    breaker: BreakerEmbedder, clock: Clock, waited_s: float, answered_ago_s: float | None
) -> None:
    for _ in range(10):
        clock.now_s += 10
        if answered_ago_s is not None:
            await breaker.embed(A, QUERY)
            clock.now_s += answered_ago_s
        breaker.note_silence(clock.now_s - waited_s)

    assert not breaker.open


async def test_one_probe_goes_out_after_the_cool_down_and_its_success_closes_it(
    breaker: BreakerEmbedder, inner: FakeEmbedder, clock: Clock
) -> None:
    inner.failure = ModelGone("gone")
    await fail(breaker)
    inner.failure = None
    clock.now_s += 9.9
    await fail(breaker)
    clock.now_s += 0.1
    inner.gate = asyncio.Event()
    inner.calls.clear()
    inner.entered.clear()

    async with asyncio.timeout(60):
        await fail(breaker)  # at once, though the backend hangs
        await inner.entered.wait()
        await fail(breaker, 3)
    asked = list(inner.calls)
    inner.gate.set()
    await asyncio.wait([breaker._probe])

    assert asked == [([TextInput("check")], QUERY)], "a check, and none of the calls"
    assert not breaker.open
    assert len(await breaker.embed(A, QUERY)) == 1


async def test_each_failed_probe_doubles_the_time_to_the_next_up_to_the_bound(
    breaker: BreakerEmbedder, inner: FakeEmbedder, clock: Clock
) -> None:
    inner.failure = ModelGone("gone")
    await fail(breaker)
    probes = []
    for _ in range(100):
        clock.now_s += 1
        before = len(inner.calls)
        await fail(breaker)
        if breaker._probe is not None:
            await asyncio.wait([breaker._probe])
        if len(inner.calls) > before:
            probes.append(clock.now_s - 100)
    assert probes == [10, 30, 65, 100]


async def test_calls_that_fail_together_do_not_lengthen_the_time_to_cool_down(
    breaker: BreakerEmbedder, inner: FakeEmbedder
) -> None:
    inner.failure, inner.gate = EmbedderUnavailable("down"), asyncio.Event()
    calls = [asyncio.create_task(breaker.embed(A, QUERY)) for _ in range(20)]
    await asyncio.sleep(0)
    inner.gate.set()
    await asyncio.wait(calls)
    assert [type(each.exception()) for each in calls] == [EmbedderUnavailable] * 20
    refusal = await fail(breaker)
    assert isinstance(refusal, EmbedderUnavailable)
    assert refusal.retry_after_s == RULES.cool_down_s


async def test_inputs_that_are_refused_without_the_backend_say_nothing_of_it(
    breaker: BreakerEmbedder, inner: FakeEmbedder
) -> None:
    for _ in range(RULES.max_failures):
        inner.failure = None
        (outcome,) = await breaker.embed([ImageInput(b"no image")], QUERY)
        assert isinstance(outcome, InputRejected)
        inner.failure = EmbedderUnavailable("down")
        await fail(breaker)
    assert breaker.open


async def test_a_backend_that_comes_and_goes_is_asked_less_until_it_has_stayed(
    breaker: BreakerEmbedder, inner: FakeEmbedder, clock: Clock
) -> None:
    async def fall_and_rise() -> float:
        inner.failure = AnswerInvalid("nonsense")
        await fail(breaker, 3)
        inner.failure = EmbedderUnavailable("down")
        clock.now_s = breaker._probe_at_s
        await pass_by(breaker)
        waited = breaker._probe_at_s - clock.now_s
        clock.now_s = breaker._probe_at_s
        inner.failure = None
        await pass_by(breaker)
        return waited

    assert [await fall_and_rise() for _ in range(3)] == [20, 35, 35]
    for _ in range(3):
        await breaker.embed(A, QUERY)
    assert await fall_and_rise() == 20


async def test_a_check_that_fails_opens_it_and_one_that_passes_closes_it(
    breaker: BreakerEmbedder, inner: FakeEmbedder
) -> None:
    inner.failure = EmbedderUnavailable("down")
    with pytest.raises(EmbedderUnavailable):
        await breaker.check()
    assert breaker.open
    inner.failure = None
    await breaker.check()
    assert len(await breaker.embed(A, QUERY)) == 1


async def test_a_check_that_takes_too_long_is_a_failure(inner: FakeEmbedder) -> None:
    breaker = BreakerEmbedder(inner, BreakerRules(check_timeout_s=0.01))
    inner.gate = asyncio.Event()
    with pytest.raises(EmbedderUnavailable, match=r"within 0\.01 s"):
        await breaker.check()
    assert breaker.open


async def test_a_check_that_waits_behind_calls_that_are_answered_is_no_failure(clock: Clock) -> None:
    class Busy(FakeEmbedder):
        async def check(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                # At the latest moment, so that the check's time is not up before, however slow the machine is.
                await breaker.embed(A, QUERY)

    breaker = BreakerEmbedder(Busy(), BreakerRules(check_timeout_s=0.01), now_s=clock)

    with pytest.raises(EmbedderUnavailable, match="did not answer a check"):
        await breaker.check()

    assert (breaker.open, breaker.health.fault) == (False, None)


async def test_a_probe_ends_with_the_embedder(breaker: BreakerEmbedder, inner: FakeEmbedder, clock: Clock) -> None:
    inner.failure = ModelGone("gone")
    await fail(breaker)
    clock.now_s += 10
    inner.gate = asyncio.Event()
    inner.entered.clear()
    await fail(breaker)
    await inner.entered.wait()

    await breaker.close()

    assert inner.in_flight == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_probe_that_meets_a_busy_backend_is_repeated_when_that_asks_for_it(
    breaker: BreakerEmbedder, inner: FakeEmbedder, clock: Clock
) -> None:
    inner.failure = ModelGone("gone")
    await fail(breaker)
    clock.now_s += 10
    inner.failure = EmbedderRateLimited("busy", retry_after_s=60)
    await pass_by(breaker)
    asked = len(inner.calls)
    for _ in range(59):
        clock.now_s += 1
        assert isinstance(await fail(breaker), ModelGone)
    assert len(inner.calls) == asked
    inner.failure = None
    clock.now_s += 1
    await pass_by(breaker)
    assert len(await breaker.embed(A, QUERY)) == 1


async def test_a_check_that_ends_during_a_probe_does_not_let_others_probe(
    breaker: BreakerEmbedder, inner: FakeEmbedder, clock: Clock
) -> None:
    inner.failure = ModelGone("gone")
    await fail(breaker)
    clock.now_s += 10
    inner.gate = asyncio.Event()
    inner.entered.clear()
    await fail(breaker)
    await inner.entered.wait()
    checking = asyncio.create_task(breaker.check())
    await asyncio.sleep(0)
    checking.cancel()
    await asyncio.wait((checking,))
    asked = len(inner.calls)

    await fail(breaker, 3)
    await asyncio.sleep(0)

    assert len(inner.calls) == asked


async def test_a_reranker_s_breaker_opens_and_closes_as_an_embedder_s(clock: Clock) -> None:
    inner = FakeReranker()
    breaker = BreakerReranker(inner, RULES, now_s=clock)
    await breaker.start()
    assert await breaker.rerank("abc", [Passage("ab"), Passage()], RERANK) == [2.0, ANY]
    assert breaker.health.fault is None
    inner.failure = EmbedderUnavailable("down")
    for _ in range(RULES.max_failures):
        with pytest.raises(EmbedderUnavailable):
            await breaker.rerank("abc", [Passage("ab")], RERANK)
    calls = len(inner.calls)

    with pytest.raises(EmbedderUnavailable, match="down"):
        await breaker.rerank("abc", [Passage("ab")], RERANK)
    assert (breaker.open, breaker.health.fault, len(inner.calls)) == (True, "down", calls)

    inner.failure = None
    await breaker.check()
    assert not breaker.open
    await breaker.close()
    assert (inner.started, inner.closed, breaker.spec) == (1, 1, inner.spec)


async def test_a_query_or_passages_that_are_refused_say_nothing_about_a_reranker(clock: Clock) -> None:
    inner = FakeReranker()
    breaker = BreakerReranker(inner, RULES, now_s=clock)

    for _ in range(2 * RULES.max_failures):
        with pytest.raises(InputRejected, match="blank"):
            await breaker.rerank(" ", [Passage("ab")], RERANK)
        await breaker.rerank("abc", [Passage()], RERANK)

    assert not breaker.open
    assert breaker.health.fault == NOT_CHECKED
    await breaker.close()
