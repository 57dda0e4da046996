"""Who waits how long in a BatchingEmbedder's queue: fair shares, priorities, bounds, and callers that come back."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from embedders.contract import (
    QUERY,
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    Modality,
    Outcome,
    Priority,
    Purpose,
    TextImageInput,
    TextInput,
)
from embedders.errors import EmbedderOverloaded
from embedders.front.batching import BatchingEmbedder
from embedders.telemetry.timing import begin_times, note_deadline
from tests.embedders.front.waiting import batches, bounds, call, occupy, release, texts
from tests.embedders.suite import vectors
from tests.fakes.embedder import FakeEmbedder, picture

BULK = EmbedOptions(Purpose.DOCUMENT, Priority.BULK)


@pytest.fixture
def inner() -> FakeEmbedder:
    return FakeEmbedder(max_batch=4)


@pytest.fixture
async def embedder(inner: FakeEmbedder) -> AsyncIterator[BatchingEmbedder]:
    embedder = BatchingEmbedder(inner, bounds=bounds(10))
    await embedder.start()
    yield embedder
    await embedder.close()


async def test_a_small_call_shares_the_next_batch_with_a_large_one(
    embedder: BatchingEmbedder, inner: FakeEmbedder
) -> None:
    first = await occupy(embedder, inner)
    large = await call(embedder, texts("large", 8))
    small = await call(embedder, texts("small", 1))
    release(inner)
    await asyncio.gather(first, large, small)
    assert "small 0" in batches(inner)[1]
    np.testing.assert_array_equal(vectors(large.result()), np.stack([inner.vector(f"large {at}") for at in range(8)]))


async def test_searches_go_before_bulk_work_which_still_moves(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    first = await occupy(embedder, inner)
    bulk = [await call(embedder, texts(f"bulk {at}", 1), BULK) for at in range(2)]
    search = [await call(embedder, texts(f"search {at}", 4)) for at in range(2)]
    release(inner)
    await asyncio.gather(first, *bulk, *search)
    kinds = [batch[0].split()[0] for batch in batches(inner)[1:]]
    assert kinds == ["search", "search", "bulk"]

    inner.calls.clear()
    first = await occupy(embedder, inner)
    bulk = [await call(embedder, texts("bulk", 4), BULK)]
    searches = [await call(embedder, texts("search", 1), EmbedOptions(api_key=str(key))) for key in range(6)]
    release(inner)
    await asyncio.gather(first, *bulk, *searches)
    kinds = [batch[0].split()[0] for batch in batches(inner)[1:]]
    assert "bulk" in kinds[:4], "every fourth batch at least"
    assert kinds.count("search") == 6, "and other keys never share a batch"


@pytest.mark.parametrize(("slots", "bulk"), [(1, 1), (2, 2), (7, 7), (8, 7), (16, 14)])
async def test_bulk_work_leaves_some_of_many_slots_to_searches(slots: int, bulk: int) -> None:
    inner = FakeEmbedder(max_batch=4, slots=slots)
    inner.gate = asyncio.Event()
    embedder = BatchingEmbedder(inner, bounds=bounds(1000))
    await embedder.start()
    load = [await call(embedder, texts(f"bulk {at}", 4), BULK) for at in range(slots + 1)]
    await asyncio.sleep(0)
    at_work = inner.in_flight
    searches = [await call(embedder, texts(f"search {at}", 1)) for at in range(slots)]
    await asyncio.sleep(0.01)

    begun = batches(inner)[bulk:]
    release(inner)
    await asyncio.gather(*load, *searches)
    await embedder.close()

    assert at_work == bulk
    assert [batch[0].split()[0] for batch in begun] == ["search"] * (slots - bulk)


async def test_bulk_work_leaves_room_for_searches_and_large_bulk_calls_pass_in_pieces(
    embedder: BatchingEmbedder, inner: FakeEmbedder
) -> None:
    first = await occupy(embedder, inner)
    load = await call(embedder, texts("load", 30), BULK)
    assert embedder.waiting == 7, "three quarters of ten"
    with pytest.raises(EmbedderOverloaded):
        await embedder.embed(texts("more", 1), BULK)
    search = await call(embedder, texts("search", 3))
    release(inner)
    outcomes, _, _ = await asyncio.gather(load, first, search)
    np.testing.assert_array_equal(vectors(outcomes), np.stack([inner.vector(f"load {at}") for at in range(30)]))


async def test_the_queue_is_bounded_in_bytes_too(inner: FakeEmbedder) -> None:
    embedder = BatchingEmbedder(inner, bounds=bounds(1000, max_bytes=100))
    first = await occupy(embedder, inner)
    long = TextInput("x" * 90)
    waiting = await call(embedder, [long])
    with pytest.raises(EmbedderOverloaded, match="90 bytes wait already"):
        await embedder.embed([TextInput("y" * 20)], QUERY)
    with pytest.raises(EmbedderOverloaded, match=r"180 bytes.*send fewer at a time"):
        await embedder.embed([long, long], QUERY)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    fits = await call(embedder, [TextInput("y" * 20)])
    release(inner)
    assert len(await fits) == 1
    await first
    alone = await call(embedder, [TextInput("z" * 150)])
    assert len(await alone) == 1, "a single input always has its turn"
    await embedder.close()


async def test_both_parts_of_one_input_count_in_bytes() -> None:
    embedder = BatchingEmbedder(FakeEmbedder(modalities=frozenset(Modality)), bounds=bounds(1000, max_bytes=100))

    with pytest.raises(EmbedderOverloaded, match=r"2 inputs of 111 bytes.*send fewer at a time"):
        await embedder.embed([TextImageInput("y" * 10, b"z" * 100), TextInput("a")], QUERY)

    await embedder.close()


async def test_a_refused_caller_is_told_when_to_come_back(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    await embedder.embed(texts("a", 10), QUERY)
    first = await occupy(embedder, inner)
    waiting = await call(embedder, texts("b", 10))
    with pytest.raises(EmbedderOverloaded) as refusal:
        await embedder.embed(texts("c", 1), QUERY)
    assert 0.05 <= refusal.value.retry_after_s <= 30
    release(inner)
    await asyncio.gather(first, waiting)


async def timed(
    embedder: BatchingEmbedder, left_s: float, options: EmbedOptions = QUERY
) -> asyncio.Task[list[Outcome]]:
    """Begin a call that has so many seconds."""

    async def embed() -> list[Outcome]:
        begin_times()
        note_deadline(left_s)
        return await embedder.embed(texts("timed", 1), options)

    task = asyncio.create_task(embed())
    await asyncio.sleep(0)
    return task


async def one_slow_batch(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    """Let the embedder see a batch of a fifth of a second."""
    slow = await occupy(embedder, inner)
    await asyncio.sleep(0.2)
    release(inner)
    await slow


@pytest.mark.parametrize(
    ("waiting", "left_s", "options", "refused"),
    [
        pytest.param(8, 0.5, QUERY, True, id="too late"),
        pytest.param(8, 1000, QUERY, False, id="in time"),
        pytest.param(3, 0.5, QUERY, False, id="less than a batch waits"),
        pytest.param(6, 0.5, BULK, False, id="bulk work waits"),
    ],
)
async def test_a_call_that_would_have_its_turn_after_its_deadline_is_refused_at_once(
    embedder: BatchingEmbedder,
    inner: FakeEmbedder,
    waiting: int,
    left_s: float,
    options: EmbedOptions,
    refused: bool,  # noqa: FBT001
) -> None:
    await one_slow_batch(embedder, inner)
    first = await occupy(embedder, inner)
    before = [await call(embedder, texts(str(at), 1)) for at in range(waiting)]

    late = await timed(embedder, left_s, options)
    ended_at_once = late.done()
    release(inner)
    outcomes, *_ = await asyncio.gather(late, *before, first, return_exceptions=True)

    assert ended_at_once == refused
    if refused:
        assert isinstance(outcomes, EmbedderOverloaded)
        assert "8 inputs wait already" in str(outcomes)
        assert re.search(r"its deadline is in 0\.[0-5] s", str(outcomes))
        assert 0.05 <= outcomes.retry_after_s <= 30
    else:
        assert isinstance(outcomes, list)


async def test_an_embedder_that_was_slow_once_takes_calls_again(
    embedder: BatchingEmbedder, inner: FakeEmbedder
) -> None:
    await one_slow_batch(embedder, inner)
    inner.gate = None

    outcomes = await asyncio.gather(*[await timed(embedder, 0.1) for _ in range(4)])

    assert [len(each) for each in outcomes] == [1] * 4


async def test_texts_and_images_go_apart_where_the_backend_wants_that(inner: FakeEmbedder) -> None:
    embedder = BatchingEmbedder(inner, bounds=bounds(100), apart=True)
    image = ImageInput(picture())
    text, other, both = await asyncio.gather(
        embedder.embed([TextInput("a")], QUERY),
        embedder.embed([image], QUERY),
        embedder.embed([image, TextInput("b"), image], QUERY),
    )
    assert [sorted({type(each).__name__ for each in inputs}) for inputs, _ in inner.calls] == [
        ["TextInput"],
        ["ImageInput"],
    ]
    expected = np.stack([inner.vector(each) for each in (image.content, "b", image.content)])
    np.testing.assert_array_equal(vectors(both), expected)
    np.testing.assert_array_equal(vectors([*text, *other]), np.stack([inner.vector("a"), expected[0]]))
    await embedder.close()


async def test_a_text_and_an_image_as_one_input_wait_with_the_images() -> None:
    inner = FakeEmbedder(modalities=frozenset(Modality), max_images=2)
    embedder = BatchingEmbedder(inner, bounds=bounds(100), apart=True)
    image = ImageInput(picture())
    both = TextImageInput("a", image.content)

    outcomes = await embedder.embed([both, TextInput("a"), image, both], QUERY)
    await embedder.close()

    assert sorted([type(each).__name__ for each in inputs] for inputs, _ in inner.calls) == [
        ["TextImageInput"],
        ["TextImageInput", "ImageInput"],
        ["TextInput"],
    ]
    contents = [("a", image.content), "a", image.content, ("a", image.content)]
    np.testing.assert_array_equal(vectors(outcomes), np.stack([inner.vector(each) for each in contents]))


async def test_a_batch_has_no_more_images_than_the_backend_takes_at_once() -> None:
    inner = FakeEmbedder(max_batch=8, max_images=2)
    embedder = BatchingEmbedder(inner, bounds=bounds(100), apart=True)
    await embedder.embed([ImageInput(picture()), TextInput("a")] * 5, QUERY)
    sizes = {type(inputs[0]).__name__: [] for inputs, _ in inner.calls}
    for inputs, _ in inner.calls:
        sizes[type(inputs[0]).__name__].append(len(inputs))
    assert sizes == {"ImageInput": [2, 2, 1], "TextInput": [5]}
    await embedder.close()


async def test_callers_that_were_just_answered_are_waited_for_and_nobody_else(inner: FakeEmbedder) -> None:
    embedder = BatchingEmbedder(inner, bounds=bounds(100), max_gather_s=60.0)
    loop = asyncio.get_running_loop()

    async def caller(name: str, times: int) -> None:
        for at in range(times):
            await embedder.embed([TextInput(f"{name} {at}")], QUERY)
            await asyncio.sleep(0)

    await asyncio.gather(*(caller(name, 3) for name in "abc"))
    assert [len(batch) for batch in batches(inner)] == [3, 3, 3], "and not one, then the rest"

    inner.calls.clear()
    began = loop.time()
    await caller("alone", 2)
    assert [len(batch) for batch in batches(inner)] == [1, 1]
    assert loop.time() - began < 60, "it waits no longer than a part of the last batch's time"
    await embedder.close()


class SlowByItsClock(FakeEmbedder):
    """Each batch takes a thousand seconds of a clock that nothing else moves."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        self.now_s += 1000.0
        return await super().embed(inputs, options)


async def test_a_caller_alone_is_never_made_to_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = SlowByItsClock(max_batch=4)
    monkeypatch.setattr("embedders.front.batching.time", inner)
    embedder = BatchingEmbedder(inner, bounds=bounds(100), max_gather_s=60.0)

    async with asyncio.timeout(60):
        for count in (4, 2, 1, 6, 1):
            await embedder.embed(texts(str(count), count), QUERY)
    await embedder.close()

    assert [len(batch) for batch in batches(inner)] == [4, 2, 1, 4, 2, 1]


async def test_a_thousand_random_calls_leave_nothing_behind(inner: FakeEmbedder) -> None:
    rng = random.Random(5)
    inner = FakeEmbedder(max_batch=7, slots=3)
    embedder = BatchingEmbedder(inner, bounds=bounds(200, max_bytes=20_000), apart=True)
    image = ImageInput(picture())
    answered = 0

    async def caller(number: int) -> None:
        nonlocal answered
        inputs: list[Input] = [
            image if rng.random() < 0.2 else TextInput(f"{number} {at}") for at in range(rng.randint(0, 30))
        ]
        options = EmbedOptions(rng.choice(list(Purpose)), rng.choice(list(Priority)))
        task = asyncio.ensure_future(embedder.embed(inputs, options))
        if rng.random() < 0.3:
            for _ in range(rng.randint(0, 5)):
                await asyncio.sleep(0)
            task.cancel()
        try:
            outcomes = await task
        except (asyncio.CancelledError, EmbedderOverloaded):
            return
        expected = [inner.vector(each.text if isinstance(each, TextInput) else each.content) for each in inputs]
        assert len(outcomes) == len(inputs)
        for outcome, vector in zip(outcomes, expected, strict=True):
            assert isinstance(outcome, Embedding)
            np.testing.assert_array_equal(outcome.vector, vector)
        answered += 1

    for start in range(0, 1000, 20):
        await asyncio.gather(*(caller(number) for number in range(start, start + 20)))
    assert answered > 300
    assert embedder.waiting == 0
    assert all(slots.queue.bytes == 0 and not slots.queue._lines for slots in embedder._slots.values())
    while any(slots.running for slots in embedder._slots.values()):
        await asyncio.sleep(0)
    await embedder.close()
