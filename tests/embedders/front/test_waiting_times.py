"""How long calls wait for their last input, by a clock that only the simulated backend moves.

Beside the queue's own rule are simulated: equal parts of all waiting calls in each batch, and one call after the other.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean

import pytest

from embedders.contract import QUERY, TextInput
from embedders.front.queueing import QueuedCall, WaitingQueue, calling_client

SIZE = 32
BATCH_S = 1.0


@dataclass(eq=False)
class Arrival:
    """A call that comes to the queue; `left` counts its inputs that have no outcome yet."""

    at_s: float
    inputs: int
    client: str = ""
    left: int = field(init=False)
    ended_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.inputs

    @property
    def waited_s(self) -> float:
        return self.ended_s - self.at_s


class Rule:
    """The queue's own rule."""

    def __init__(self) -> None:
        self._queue = WaitingQueue()
        self._arrivals: dict[QueuedCall, Arrival] = {}

    def add(self, arrival: Arrival) -> None:
        calling_client.set(arrival.client)
        done = asyncio.get_running_loop().create_future()
        call = QueuedCall([TextInput("a cat")] * arrival.inputs, range(arrival.inputs), done)
        self._queue.add(QUERY, call)
        self._arrivals[call] = arrival

    def take(self) -> list[Arrival]:
        if not self._queue.inputs:
            return []
        return [self._arrivals[call] for call, _ in self._queue.take(SIZE)[1]]


class EqualParts:
    """Each batch has equal parts of all calls."""

    def __init__(self) -> None:
        self._waiting: deque[list[Arrival]] = deque()

    def add(self, arrival: Arrival) -> None:
        self._waiting.append([arrival] * arrival.inputs)

    def take(self) -> list[Arrival]:
        taken: list[Arrival] = []
        while self._waiting and len(taken) < SIZE:
            call = self._waiting.popleft()
            taken.append(call.pop())
            if call:
                self._waiting.append(call)
        return taken


class OneAfterTheOther:
    """The calls go in the order in which they came."""

    def __init__(self) -> None:
        self._inputs: deque[Arrival] = deque()

    def add(self, arrival: Arrival) -> None:
        self._inputs.extend([arrival] * arrival.inputs)

    def take(self) -> list[Arrival]:
        return [self._inputs.popleft() for _ in range(min(SIZE, len(self._inputs)))]


AnyRule = Rule | EqualParts | OneAfterTheOther


def simulate(rule: AnyRule, arrivals: Sequence[Arrival]) -> list[float]:
    """Return how many seconds each call waits for its last outcome, at a backend with a second for each batch."""
    coming = deque(sorted(arrivals, key=lambda each: each.at_s))
    now_s = 0.0
    while True:
        while coming and coming[0].at_s <= now_s:
            rule.add(coming.popleft())
        batch = rule.take()
        if not batch:
            if not coming:
                return [each.waited_s for each in arrivals]
            now_s = coming[0].at_s
            continue
        now_s += BATCH_S
        for each in batch:
            each.left -= 1
            each.ended_s = now_s


def mixed(seed: int) -> list[Arrival]:
    """Return calls of one input and of many that keep the backend busy for three quarters of the time."""
    rng = random.Random(seed)
    arrivals, inputs = [], 0
    while inputs < 200 * SIZE:
        size = rng.choice([1] * 20 + [8] * 4 + [32] * 4 + [100])
        arrivals.append(Arrival(rng.uniform(0, 200 / 0.75), size))
        inputs += size
    return arrivals


async def test_large_calls_of_one_moment_wait_no_longer_than_one_after_the_other() -> None:
    waits = {
        rule: simulate(rule(), [Arrival(0, 32) for _ in range(4)]) for rule in (Rule, OneAfterTheOther, EqualParts)
    }

    assert waits[Rule] == waits[OneAfterTheOther] == [1, 2, 3, 4]
    assert waits[EqualParts] == [4, 4, 4, 4]


@pytest.mark.parametrize("seed", range(10))
async def test_calls_wait_less_than_with_equal_parts_and_large_ones_no_longer_at_the_worst(seed: int) -> None:
    ours, equal = (simulate(rule(), mixed(seed)) for rule in (Rule, EqualParts))

    assert mean(ours) < 0.95 * mean(equal)
    assert max(ours) < max(equal)


@pytest.mark.parametrize("large", [32, 100, 1000])
@pytest.mark.parametrize("number", [1, 4, 20])
async def test_a_small_call_never_waits_for_large_ones(large: int, number: int) -> None:
    small = Arrival(0.5, 1)

    simulate(Rule(), [*(Arrival(0, large) for _ in range(number)), small])

    assert small.ended_s == 2 * BATCH_S, "in the first batch that begins after it came"


async def test_no_call_waits_for_ever_behind_small_ones_that_never_end() -> None:
    large, ends_s = Arrival(0, 100), 400
    small = [Arrival(0, 1) for _ in range(40)] + [Arrival(at, 1) for at in range(1, ends_s) for _ in range(SIZE)]

    simulate(Rule(), [large, *small])

    assert large.ended_s < ends_s, "while small ones fill every batch"


async def test_a_clients_many_calls_do_not_delay_another_clients_large_one() -> None:
    modest = Arrival(0, 4 * SIZE, client="modest")

    simulate(Rule(), [*(Arrival(0, 1, client="greedy") for _ in range(1000)), modest])

    assert modest.waited_s == 8 * BATCH_S, "half of each batch"
