"""What clients use up of their quotas."""

import asyncio

import pytest

from service.access import Account, Client, Permission
from service.access.clients import Quota
from service.errors import QuotaExceeded
from tests.conftest import assert_close


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def account(clock: Clock, **quota: float) -> Account:
    return Account(Client("a", frozenset(Permission), quota=Quota.model_validate(quota)), clock)


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_quota_of_inputs_means_the_same_for_batches_of_any_size(size: int) -> None:
    clock = Clock()
    limited = account(clock, inputs_per_second=10)
    embedded = 0
    while clock.now_s < 1100:
        try:
            limited.begin_call()
        except QuotaExceeded as error:
            assert error.quota == "inputs_per_second"
            clock.now_s += error.retry_after_s + 0.001
        else:
            async with limited.embedding(size):
                embedded += size
    assert 10_000 <= embedded <= 10_000 + 10 + 1000


def test_bytes_are_counted_by_themselves() -> None:
    clock = Clock()
    limited = account(clock, bytes_per_second=1000)
    limited.begin_call()
    limited.receive(6000)
    with pytest.raises(QuotaExceeded) as caught:
        limited.begin_call()
    assert (caught.value.quota, caught.value.client) == ("bytes_per_second", "a")
    assert_close(caught.value.retry_after_s, 5.0)
    clock.now_s += 5.01
    limited.begin_call()


async def test_no_call_begins_while_too_many_inputs_are_in_flight() -> None:
    limited = account(Clock(), max_inputs_in_flight=5)
    async with limited.embedding(4):
        limited.begin_call()
        async with limited.embedding(1):
            with pytest.raises(QuotaExceeded) as caught:
                limited.begin_call()
            assert caught.value.quota == "max_inputs_in_flight"
        limited.begin_call()
    assert limited.inputs_in_flight == 0


async def test_what_began_at_the_same_time_waits_for_room_in_the_order_in_which_it_came() -> None:
    limited = account(Clock(), max_inputs_in_flight=5)
    order: list[int] = []
    most = 0

    async def embed(inputs: int) -> None:
        nonlocal most
        async with limited.embedding(inputs):
            order.append(inputs)
            most = max(most, limited.inputs_in_flight)
            await asyncio.sleep(0)

    gone = asyncio.ensure_future(embed(6))
    tasks = [asyncio.ensure_future(embed(inputs)) for inputs in (3, 2, 1, 5, 4, 1)]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(*tasks)

    assert order == [6, 3, 2, 1, 5, 4, 1]
    assert most == 6, "one call alone may have more"
    assert limited.inputs_in_flight == 0


async def test_a_caller_that_leaves_while_it_waits_holds_nothing() -> None:
    limited = account(Clock(), max_inputs_in_flight=5)

    async def embed() -> None:
        async with limited.embedding(5):
            pass

    async with limited.embedding(5):
        waiting = asyncio.ensure_future(embed())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
    assert limited.inputs_in_flight == 0
    await embed()
