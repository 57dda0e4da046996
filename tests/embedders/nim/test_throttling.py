"""A key that has had too many calls waits alone, and only for those who have the time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from embedders.contract import QUERY, Embedder, EmbedOptions, Outcome, TextInput
from embedders.errors import EmbedderOverloaded, EmbedderRateLimited
from embedders.front.batching import RESTING, BatchingEmbedder
from embedders.front.queueing import QueueBounds
from embedders.nim.embedder import NimConfig, NimEmbedder
from embedders.nim.retries import Retries
from embedders.telemetry.timing import begin_times, note_deadline
from tests.embedders.nim.starting import start_learnt
from tests.embedders.suite import CAT, vectors
from tests.fakes.nim import FakeNim, Fault

LIMITED = replace(QUERY, api_key="nvapi-limited")
BUSY = Fault(status=429, headers={"Retry-After": "30"})


@dataclass
class Sleeper:
    """Sleeps until it is woken, however long it was told to."""

    begun: list[float] = field(default_factory=list)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, seconds: float) -> None:
        self.begun.append(seconds)
        await self.woken.wait()

    async def begins(self, times: int = 1) -> None:
        while len(self.begun) < times:
            await asyncio.sleep(0.001)


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
async def bare(nim: FakeNim, sleeper: Sleeper) -> AsyncIterator[NimEmbedder]:
    """A NIM with one slot."""
    config = NimConfig(base_url=nim.base_url, model=nim.model, max_connections=1)
    embedder = NimEmbedder(config, retries=Retries(max_s=100, jitter=lambda _: 0.0, sleep=sleeper))
    await start_learnt(embedder, nim)
    yield embedder
    await embedder.close()


@pytest.fixture
async def embedder(nim: FakeNim, bare: NimEmbedder) -> AsyncIterator[BatchingEmbedder]:
    """The same behind a queue."""
    embedder = BatchingEmbedder(bare, bounds=QueueBounds(max_inputs=100, max_bytes=2**20))
    await start_learnt(embedder, nim)
    yield embedder
    await embedder.close()


def ask(
    embedder: Embedder, text: str, options: EmbedOptions = QUERY, *, within_s: float | None = None
) -> asyncio.Task[list[Outcome]]:
    async def call() -> list[Outcome]:
        begin_times()
        if within_s is not None:
            note_deadline(within_s)
        return await embedder.embed([TextInput(text)], options)

    return asyncio.create_task(call())


def texts(nim: FakeNim) -> list[list[str]]:
    return [request["input"] for request in nim.requests]


async def test_a_wait_between_two_attempts_holds_no_connection(
    nim: FakeNim, bare: NimEmbedder, sleeper: Sleeper
) -> None:
    nim.faults.append(BUSY)
    limited = ask(bare, "limited", LIMITED)
    await sleeper.begins()

    assert len(vectors(await bare.embed([CAT], QUERY))) == 1

    sleeper.woken.set()
    assert len(vectors(await limited)) == 1


async def test_a_key_that_waits_holds_no_slot_of_the_queue_and_its_later_calls_wait_with_it(
    nim: FakeNim, embedder: BatchingEmbedder, sleeper: Sleeper
) -> None:
    nim.faults.append(BUSY)
    limited = [ask(embedder, "limited", LIMITED)]
    await sleeper.begins()
    limited += [ask(embedder, f"later {number}", LIMITED) for number in range(3)]

    for number in range(3):
        assert len(vectors(await ask(embedder, f"other {number}"))) == 1

    assert texts(nim) == [["limited"], ["other 0"], ["other 1"], ["other 2"]]
    sleeper.woken.set()
    assert len(await asyncio.gather(*limited)) == 4
    assert sorted(texts(nim)[4:]) == [["later 0", "later 1", "later 2"], ["limited"]]


async def test_no_more_batches_rest_than_a_few_for_each_slot(
    nim: FakeNim, embedder: BatchingEmbedder, sleeper: Sleeper
) -> None:
    nim.faults.extend([BUSY] * 10)
    calls = []
    for number in range(RESTING):
        calls.append(ask(embedder, f"limited {number}", replace(QUERY, api_key=f"nvapi-{number}")))
        await sleeper.begins(number + 1)
    calls.append(ask(embedder, "one too many"))
    for _ in range(20):
        await asyncio.sleep(0)

    assert len(nim.requests) == RESTING
    nim.faults.clear()
    sleeper.woken.set()
    assert len(await asyncio.gather(*calls)) == RESTING + 1


@pytest.mark.parametrize("queued", [True, False])
async def test_a_caller_whose_deadline_comes_before_the_wait_ends_is_told_at_once(
    nim: FakeNim, bare: NimEmbedder, embedder: BatchingEmbedder, sleeper: Sleeper, *, queued: bool
) -> None:
    nim.faults.append(BUSY)

    with pytest.raises(EmbedderRateLimited) as failure:
        await ask(embedder if queued else bare, "limited", within_s=20)

    assert failure.value.retry_after_s == 30
    assert sleeper.begun == []


async def test_calls_of_a_resting_key_leave_room_in_the_queue_for_others(
    nim: FakeNim, embedder: BatchingEmbedder, sleeper: Sleeper
) -> None:
    nim.faults.append(BUSY)
    limited = [ask(embedder, "limited", LIMITED)]
    await sleeper.begins()
    limited += [ask(embedder, f"later {number}", LIMITED) for number in range(100)]
    await asyncio.sleep(0)

    other = await ask(embedder, "of another key")

    sleeper.woken.set()
    answers = await asyncio.gather(*limited, return_exceptions=True)
    assert len(vectors(other)) == 1
    assert sum(isinstance(each, EmbedderOverloaded) for each in answers) == 25


async def test_of_callers_that_share_a_batch_each_waits_as_long_as_it_can(
    nim: FakeNim, embedder: BatchingEmbedder, sleeper: Sleeper
) -> None:
    nim.faults.append(BUSY)
    hurried, patient, endless = (ask(embedder, str(within_s), within_s=within_s) for within_s in (20, 60, None))

    with pytest.raises(EmbedderRateLimited) as failure:
        await hurried

    assert failure.value.retry_after_s == 30
    assert texts(nim) == [["20", "60", "None"]]
    sleeper.woken.set()
    assert len(vectors([*await patient, *await endless])) == 2


async def test_calls_that_wait_for_a_resting_key_or_come_later_are_told_at_once_if_they_cannot_wait(
    nim: FakeNim, embedder: BatchingEmbedder, sleeper: Sleeper
) -> None:
    gate = asyncio.Event()
    nim.faults.append(replace(BUSY, gate=gate))
    patient = ask(embedder, "first", within_s=60)
    await nim.arrived.wait()
    waiting = [ask(embedder, "waiting", within_s=within_s) for within_s in (20, 60)]
    await asyncio.sleep(0)
    gate.set()
    await sleeper.begins()

    for call in (waiting[0], ask(embedder, "later", within_s=20)):
        with pytest.raises(EmbedderRateLimited):
            await call

    sleeper.woken.set()
    assert len(vectors([*await patient, *await waiting[1]])) == 2
    assert texts(nim) == [["first"], ["first"], ["waiting"]]


async def test_a_batch_that_rests_is_dropped_when_all_its_callers_have_gone(
    nim: FakeNim, embedder: BatchingEmbedder, sleeper: Sleeper
) -> None:
    nim.faults.append(BUSY)
    limited = ask(embedder, "limited", LIMITED)
    await sleeper.begins()

    limited.cancel()
    await asyncio.wait([limited])

    assert len(vectors(await ask(embedder, "later", LIMITED))) == 1
    assert texts(nim) == [["limited"], ["later"]]
