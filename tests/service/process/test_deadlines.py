"""Deadlines end their blocks as asyncio.timeout does, with one timer for all."""

import asyncio

import pytest

from service.process.deadlines import Deadline, Deadlines

LONG_S = 3600.0
SOON_S = 0.005


@pytest.fixture
def deadlines() -> Deadlines:
    return Deadlines()


async def wait_within(deadline: Deadline) -> None:
    with deadline:
        await asyncio.Event().wait()


@pytest.mark.parametrize("seconds", [SOON_S, 0.0, -1.0])
async def test_a_block_ends_with_a_timeout_when_its_time_is_over(deadlines: Deadlines, seconds: float) -> None:
    deadline = deadlines.after(seconds)

    with pytest.raises(TimeoutError):
        await wait_within(deadline)

    assert deadline.expired
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("order", [(SOON_S, LONG_S), (LONG_S, SOON_S)])
async def test_only_what_is_late_ends_whichever_began_first(deadlines: Deadlines, order: tuple[float, float]) -> None:
    tasks = {each: asyncio.create_task(wait_within(deadlines.after(each))) for each in order}

    await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
    ended = {each for each, task in tasks.items() if task.done()}
    tasks[LONG_S].cancel()

    assert ended == {SOON_S}
    with pytest.raises(TimeoutError):
        await tasks[SOON_S]
    with pytest.raises(asyncio.CancelledError):
        await tasks[LONG_S]


async def test_every_deadline_is_kept_after_others(deadlines: Deadlines) -> None:
    ended = await asyncio.gather(
        *(wait_within(deadlines.after(SOON_S * number)) for number in (4, 2, 1, 3)), return_exceptions=True
    )

    assert [type(each) for each in ended] == [TimeoutError] * 4


async def test_a_block_with_more_time_goes_on(deadlines: Deadlines) -> None:
    with deadlines.after(SOON_S) as deadline:
        deadline.extend(LONG_S)
        with pytest.raises(TimeoutError):
            await wait_within(deadlines.after(2 * SOON_S))

    assert not deadline.expired


async def test_a_block_that_has_ended_is_left_alone(deadlines: Deadlines) -> None:
    with deadlines.after(SOON_S) as deadline:
        pass

    with pytest.raises(TimeoutError):
        await wait_within(deadlines.after(2 * SOON_S))

    assert not deadline.expired


async def test_whoever_else_cancels_the_task_is_heard(deadlines: Deadlines) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        with deadlines.after(SOON_S):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    task = asyncio.create_task(work())
    await begun.wait()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_of_nested_blocks_the_one_that_is_late_ends(deadlines: Deadlines) -> None:
    with deadlines.after(LONG_S) as outer, pytest.raises(TimeoutError):
        await wait_within(deadlines.after(SOON_S))

    assert not outer.expired


async def test_an_error_of_the_block_is_kept(deadlines: Deadlines) -> None:
    with pytest.raises(ZeroDivisionError), deadlines.after(LONG_S):
        raise ZeroDivisionError


async def test_all_deadlines_share_one_timer_of_the_event_loop(
    deadlines: Deadlines, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, timers = asyncio.get_running_loop(), []
    call_at = loop.call_at

    def counted(*args: object) -> asyncio.TimerHandle:
        timers.append(args)
        return call_at(*args)  # type: ignore[arg-type]

    class Counting:
        def __getattr__(self, name: str) -> object:
            return counted if name == "call_at" else getattr(loop, name)

    monkeypatch.setattr("service.process.deadlines.asyncio.get_running_loop", Counting)
    for _ in range(100):
        with deadlines.after(LONG_S) as deadline:
            deadline.extend(LONG_S)
    monkeypatch.undo()

    assert len(timers) == 1
