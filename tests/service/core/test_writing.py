"""Writes that run to their end."""

import asyncio
import time
from uuid import UUID

import pytest

from service.core.objects import writing
from service.core.objects.writing import ALWAYS, Writes, keys_of
from service.domain import Scope

ONE, TWO = UUID(int=1), UUID(int=2)
SCOPE = Scope()


class Gate:
    """A write that waits until it is let through, and counts."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self.through = asyncio.Event()
        self.ended = 0
        self.failure = failure

    async def write(self) -> str:
        self.begun.set()
        await self.through.wait()
        self.ended += 1
        if self.failure is not None:
            raise self.failure
        return "written"


def begin(writes: Writes, gate: Gate, *ids: UUID) -> asyncio.Task[str]:
    return asyncio.create_task(writes.run(keys_of("Things", SCOPE, ids), gate.write))


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def leave(task: asyncio.Task[str]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_write_goes_on_without_its_caller_and_the_end_of_the_server_waits_for_it() -> None:
    writes, gate = Writes(), Gate()
    writing_ = begin(writes, gate, ONE)
    await gate.begun.wait()

    await leave(writing_)
    closing = asyncio.create_task(writes.close())
    await turns()
    waited = not closing.done()
    gate.through.set()
    await closing

    assert waited
    assert gate.ended == 1


async def test_the_end_of_the_server_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "END_S", 0.0)
    writes, gate = Writes(), Gate()
    writing_ = begin(writes, gate, ONE)
    await gate.begun.wait()

    await writes.close()

    gate.through.set()
    assert await writing_ == "written"


@pytest.mark.parametrize("failure", [None, OSError("cut")])
async def test_writes_of_one_object_take_turns_and_others_do_not_wait(failure: Exception | None) -> None:
    writes, first, second, other = Writes(), Gate(failure), Gate(), Gate()
    begun = begin(writes, first, ONE, TWO)
    await first.begun.wait()

    waiting = begin(writes, second, TWO)
    await begin_and_end(writes, other, UUID(int=3))
    assert not second.begun.is_set()
    first.through.set()
    second.through.set()

    assert await waiting == "written"
    (outcome,) = await asyncio.gather(begun, return_exceptions=True)
    assert outcome == (failure or "written")


async def test_many_writes_of_one_object_leave_room_for_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_WRITES", 2)
    writes, gates = Writes(), [Gate() for _ in range(6)]
    begun = [begin(writes, gate, ONE) for gate in gates]
    await turns()

    async with asyncio.timeout(60):
        await begin_and_end(writes, Gate(), TWO)
    running = [gate.begun.is_set() for gate in gates]
    for gate in gates:
        gate.through.set()

    assert running == [True, *[False] * 5]
    assert await asyncio.gather(*begun) == ["written"] * 6


async def test_writes_that_overlap_in_any_order_all_end_in_the_order_in_which_they_came() -> None:
    writes, gates = Writes(), [Gate() for _ in range(6)]
    three = UUID(int=3)
    orders = [(ONE, TWO), (TWO, ONE), (three, ONE, three), (TWO, three), (three,), (ONE,)]
    ended: list[int] = []

    async def write(number: int) -> None:
        gates[number].through.set()
        await begin(writes, gates[number], *orders[number])
        ended.append(number)

    async with asyncio.timeout(60):
        await asyncio.gather(*map(write, range(len(orders))))

    assert [gate.ended for gate in gates] == [1] * 6
    assert [each for each in ended if ONE in orders[each]] == [0, 1, 2, 5]


async def begin_and_end(writes: Writes, gate: Gate, *ids: UUID) -> None:
    gate.through.set()
    assert await begin(writes, gate, *ids) == "written"


async def test_a_caller_that_leaves_before_its_turn_writes_nothing_and_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "MAX_WRITES", 2)
    writes, first, second, third = Writes(), Gate(), Gate(), Gate()
    begun = begin(writes, first, ONE)
    await first.begun.wait()
    waiting = begin(writes, second, ONE)
    await turns()

    await leave(waiting)
    await begin_and_end(writes, third, TWO)
    first.through.set()

    assert await begun == "written"
    assert not second.begun.is_set()


async def test_no_more_writes_run_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_WRITES", 2)
    writes, gates = Writes(), [Gate() for _ in range(3)]
    begun = [begin(writes, gate, UUID(int=number)) for number, gate in enumerate(gates)]
    await turns()
    running = [gate.begun.is_set() for gate in gates]
    for task in begun:
        task.cancel()
    await turns()
    still = [gate.begun.is_set() for gate in gates]
    for gate in gates:
        gate.through.set()
    await writes.close()

    assert running == [True, True, False]
    assert still == running, "a write whose caller left takes its room until it ends"
    assert [gate.ended for gate in gates] == [1, 1, 0]


async def test_what_was_written_since_a_mark_and_what_failed_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    writes, cut = Writes(), Gate(OSError("cut"))
    keys = keys_of("Things", SCOPE, [ONE, TWO])
    before = writes.ended
    await begin_and_end(writes, Gate(), ONE)
    after = writes.ended

    assert writes.since(before, keys) == {ONE}
    assert writes.since(after, keys) == set()
    assert writes.since(ALWAYS, keys) == {ONE, TWO}
    assert writes.since(before, keys_of("Things", Scope("tenant"), [ONE])) == set()

    with pytest.raises(OSError, match="cut"):
        await begin_and_end(writes, cut, TWO)
    assert writes.since(writes.ended, keys) == {TWO}, "nobody knows how far it came"
    await begin_and_end(writes, Gate(), TWO)
    writes.settled(keys)
    assert writes.since(writes.ended, keys) == {TWO}, "what was cut off may come late"
    monkeypatch.setattr(writing, "LATE_S", 0.0)
    writes.settled(keys)
    assert writes.since(writes.ended, keys) == set()


async def test_the_oldest_writes_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_REMEMBERED", 2)
    writes = Writes()
    before, ids = writes.ended, [UUID(int=number) for number in range(3)]
    for id_ in ids:
        await begin_and_end(writes, Gate(), id_)

    assert writes.since(before, keys_of("Things", SCOPE, ids)) == set(ids[1:])


async def test_what_was_cut_off_is_outwaited_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LATE_S", 0.05)
    writes = Writes()
    await begin_and_end(writes, Gate(), ONE)
    began = time.monotonic()
    with pytest.raises(OSError, match="cut"):
        await begin_and_end(writes, Gate(OSError("cut")), TWO)

    assert not await writes.outwait(keys_of("Things", SCOPE, [ONE]))
    assert await writes.outwait(keys_of("Things", SCOPE, [ONE, TWO]))
    assert time.monotonic() - began >= 0.04
