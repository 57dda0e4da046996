"""Pictures are read before they join a batch: a slow one delays nobody else, and what nobody wants goes no further."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from embedders.contract import (
    QUERY,
    SEPARATE,
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
from embedders.errors import EmbedderOverloaded, EmbedderUnavailable, ImageUndecodable, InputRejected
from embedders.front import batching, queueing, read_ahead
from embedders.front.batching import BatchingEmbedder
from embedders.telemetry.timing import begin_times
from tests.embedders.front.waiting import bounds, call
from tests.embedders.suite import vectors
from tests.fakes.embedder import FakeEmbedder, picture

BULK = EmbedOptions(Purpose.DOCUMENT, Priority.BULK)
LARGE = ImageInput(picture((1, 2, 3)))


class FakeModel(FakeEmbedder):
    """A model in memory that reads pictures apart, and texts that begin with "slow".

    Attributes:
        readers: pictures to read at the same time.
        large_readers: large ones to read beside them.
        slow_text_readers: texts to read beside them.
        slow: inputs whose reading waits for the event.
        read_inputs: the inputs whose reading has begun, in order.
    """

    def __init__(
        self,
        *,
        readers: int = 2,
        max_batch: int = 4,
        slots: int = 1,
        modalities: frozenset[Modality] = SEPARATE,
    ) -> None:
        super().__init__(max_batch=max_batch, slots=slots, modalities=modalities)
        self.readers = readers
        self.large_readers = self.slow_text_readers = 1
        self.slow: dict[Input, asyncio.Event] = {}
        self.read_inputs: list[Input] = []

    def is_slow(self, text: str) -> bool:
        return text.startswith("slow")

    async def read(self, each: Input) -> Any:
        self.read_inputs.append(each)
        await self.slow[each].wait() if each in self.slow else await asyncio.sleep(0)
        content = each.content if isinstance(each, ImageInput) else b""
        if content == b"crash":
            raise ZeroDivisionError
        return ImageUndecodable("broken") if content == b"broken" else each

    async def embed_read(self, inputs: Sequence[Any], options: EmbedOptions) -> list[Outcome]:
        return await self.embed(inputs, options)


@pytest.fixture(autouse=True)
def small_large_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take one picture for large that is not, because those cost time."""
    monkeypatch.setattr(batching, "is_large", lambda content: content == LARGE.content)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
async def embedder(model: FakeModel) -> AsyncIterator[BatchingEmbedder]:
    embedder = BatchingEmbedder(model, bounds=bounds(1000), apart=True, reading=model)
    await embedder.start()
    yield embedder
    await embedder.close()


def pictures(name: int, number: int) -> list[Input]:
    return [ImageInput(picture((name, at // 256, at % 256))) for at in range(number)]


async def settle() -> None:
    """Let everything go on until it waits for something."""
    for _ in range(50):
        await asyncio.sleep(0)


def slow(model: FakeModel, image: Input) -> asyncio.Event:
    """Let the reading of a picture take until the event is set."""
    return model.slow.setdefault(image, asyncio.Event())


async def busy(embedder: BatchingEmbedder, model: FakeModel) -> asyncio.Task[list[Outcome]]:
    """Let the model be busy with one picture until `model.gate` is set."""
    model.gate = asyncio.Event()
    first = await call(embedder, pictures(0, 1))
    await settle()
    assert model.in_flight == 1
    return first


def owners(model: FakeModel) -> list[list[int]]:
    """Return the first argument of `pictures` for each picture of each batch."""
    names = {each: name for name in range(10) for each in pictures(name, 100)}
    return [[names[each] for each in inputs] for inputs, _ in model.calls]


async def test_a_picture_that_is_slow_to_read_delays_itself_alone(embedder: BatchingEmbedder, model: FakeModel) -> None:
    go = slow(model, pictures(1, 1)[0])
    late = await call(embedder, pictures(1, 1))

    others = [await embedder.embed(pictures(2, 3), QUERY) for _ in range(3)]
    waits = not late.done()
    go.set()

    assert waits
    assert [len(vectors(each)) for each in others] == [3, 3, 3]
    assert len(vectors(await late)) == 1


async def test_a_text_and_an_image_as_one_input_are_read_as_the_image_is() -> None:
    model = FakeModel(modalities=frozenset(Modality))
    embedder = BatchingEmbedder(model, bounds=bounds(1000), apart=True, reading=model)
    await embedder.start()
    small, large = TextImageInput("a", picture()), TextImageInput("b", LARGE.content)
    go = slow(model, large)
    late = await call(embedder, [large])

    outcomes = await embedder.embed([small], QUERY)
    waits = not late.done()
    go.set()
    outcomes += await late
    await embedder.close()

    assert waits
    assert model.read_inputs == [large, small]
    expected = [model.vector((each.text, each.content)) for each in (small, large)]
    np.testing.assert_array_equal(vectors(outcomes), np.stack(expected))


async def test_what_the_model_does_not_read_is_not_read_ahead(embedder: BatchingEmbedder, model: FakeModel) -> None:
    (bad,) = await embedder.embed([TextImageInput("a", picture())], QUERY)

    assert isinstance(bad, InputRejected)
    assert model.read_inputs == []


async def test_a_picture_whose_caller_has_gone_while_it_was_read_never_reaches_the_model(
    embedder: BatchingEmbedder, model: FakeModel
) -> None:
    first = await busy(embedder, model)
    go = slow(model, pictures(1, 1)[0])
    gone = [await call(embedder, pictures(1, 1)), await call(embedder, pictures(2, 1))]
    await settle()
    for task in gone:
        task.cancel()
    stays = await call(embedder, pictures(3, 1))
    go.set()
    await settle()
    assert model.gate is not None
    model.gate.set()

    await asyncio.gather(first, stays)

    assert owners(model) == [[0], [3]]


async def test_pictures_that_wait_for_a_reader_are_not_read_for_callers_that_have_gone(
    embedder: BatchingEmbedder, model: FakeModel
) -> None:
    held = [slow(model, each) for each in pictures(1, 2)]
    reading = await call(embedder, pictures(1, 2))
    await settle()
    gone = await call(embedder, pictures(2, 5))
    await settle()
    gone.cancel()
    for each in held:
        each.set()

    await reading

    assert model.read_inputs == pictures(1, 2)
    assert embedder.waiting == 0


async def test_readers_go_from_call_to_call(embedder: BatchingEmbedder, model: FakeModel) -> None:
    held = [slow(model, each) for each in pictures(1, 2)]
    large = await call(embedder, pictures(1, 40))
    await settle()
    small = await call(embedder, pictures(2, 1))
    for each in held:
        each.set()

    await asyncio.gather(large, small)

    assert pictures(2, 1)[0] in model.read_inputs[2:5]


async def test_no_more_is_read_than_the_next_batch_and_the_readers_hold(
    embedder: BatchingEmbedder, model: FakeModel
) -> None:
    first = await busy(embedder, model)
    load = await call(embedder, pictures(1, 60))
    await settle()
    ahead = len(model.read_inputs) - 1
    search = await call(embedder, pictures(2, 60), BULK)
    await settle()
    ahead_of_both = len(model.read_inputs) - 1
    assert model.gate is not None
    model.gate.set()

    await asyncio.gather(first, load, search)

    assert ahead == 4 + 2
    assert ahead_of_both == 4 + 2, "searches fill what may be read first"
    assert len(model.read_inputs) == 121


async def test_loads_that_have_been_read_leave_room_for_searches(embedder: BatchingEmbedder, model: FakeModel) -> None:
    first = await busy(embedder, model)
    load = await call(embedder, pictures(1, 30), BULK)
    await settle()
    searches = [await call(embedder, pictures(2 + at, 4)) for at in range(5)]
    await settle()
    assert model.gate is not None
    model.gate.set()

    await asyncio.gather(first, load, *searches)

    kinds = ["load" if batch[0] == 1 else "search" for batch in owners(model)[1:]]
    assert kinds[0] == "search"
    assert "load" in kinds[:5], "but not for ever"
    assert all(len({name == 1 for name in batch}) == 1 for batch in owners(model)), "urgencies do not mix"


async def test_large_pictures_are_read_and_embedded_beside_the_others(
    embedder: BatchingEmbedder, model: FakeModel
) -> None:
    go = slow(model, LARGE)
    large = [await call(embedder, [LARGE, TextInput("a"), *pictures(1, 1)]) for _ in range(5)]
    await settle()

    small = await embedder.embed(pictures(2, 6), QUERY)
    in_hand = model.read_inputs.count(LARGE)
    go.set()
    results = await asyncio.gather(*large)

    assert len(vectors(small)) == 6
    assert in_hand == model.large_readers
    expected = np.stack([model.vector(LARGE.content), model.vector("a"), model.vector(picture((1, 0, 0)))])
    for each in results:
        np.testing.assert_array_equal(vectors(each), expected)


async def test_a_picture_that_cannot_be_read_fails_alone(embedder: BatchingEmbedder, model: FakeModel) -> None:
    bad, good = await embedder.embed([ImageInput(b"broken"), *pictures(1, 1)], QUERY)

    assert isinstance(bad, InputRejected)
    assert isinstance(good, Embedding)
    assert owners(model) == [[1]]


async def test_a_reader_that_fails_fails_its_call_and_no_other(embedder: BatchingEmbedder) -> None:
    hit = await call(embedder, [ImageInput(b"crash"), *pictures(1, 9)])
    spared = await call(embedder, pictures(2, 2))

    with pytest.raises(ZeroDivisionError):
        await hit
    assert len(vectors(await spared)) == 2
    assert len(vectors(await embedder.embed(pictures(1, 9), QUERY))) == 9


async def test_a_free_model_waits_a_little_for_pictures_that_are_being_read(
    embedder: BatchingEmbedder, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedder.embed(pictures(0, 1), QUERY)
    model.calls.clear()
    monkeypatch.setattr(read_ahead, "READ_SHARE", 1e6)

    await asyncio.gather(*(embedder.embed(pictures(name, 1), QUERY) for name in range(1, 5)))

    assert owners(model) == [[1, 2, 3, 4]], "though only two are read at a time"


async def test_closing_fails_calls_whose_pictures_are_being_read_or_ready(
    embedder: BatchingEmbedder, model: FakeModel
) -> None:
    slow(model, pictures(1, 1)[0])
    first = await busy(embedder, model)
    calls = [first, await call(embedder, pictures(2, 1)), await call(embedder, pictures(1, 20))]
    await settle()

    await embedder.close()

    for each in calls:
        with pytest.raises(EmbedderUnavailable, match="closed"):
            await each
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Clock:
    """Monotonic seconds that only the test moves."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


async def test_a_call_s_times_tell_reading_from_waiting(
    embedder: BatchingEmbedder, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    for module in (batching, queueing, read_ahead):
        monkeypatch.setattr(module, "time", clock)
    image = pictures(1, 1)[0]
    go = slow(model, image)

    async def timed() -> tuple[float, float]:
        times = begin_times()
        await embedder.embed([image], QUERY)
        return times.preprocess_s, times.queue_s

    first = await busy(embedder, model)
    task = asyncio.create_task(timed())
    await settle()
    clock.now_s += 5
    go.set()
    await settle()
    clock.now_s += 2
    assert model.gate is not None
    model.gate.set()
    await first

    assert await task == (5, 2)


async def test_hundreds_of_random_calls_leave_nothing_behind() -> None:
    rng = random.Random(5)
    model = FakeModel(readers=3, max_batch=5, slots=2)
    embedder = BatchingEmbedder(model, bounds=bounds(200), apart=True, reading=model)
    choice = [*pictures(1, 40), TextInput("a"), LARGE, ImageInput(b"broken")]
    answered = 0

    async def caller() -> None:
        nonlocal answered
        inputs = rng.choices(choice, k=rng.randint(0, 20))
        task = asyncio.ensure_future(
            embedder.embed(inputs, EmbedOptions(rng.choice(list(Purpose)), rng.choice(list(Priority))))
        )
        if rng.random() < 0.3:
            for _ in range(rng.randint(0, 9)):
                await asyncio.sleep(0)
            task.cancel()
        try:
            outcomes = await task
        except (asyncio.CancelledError, EmbedderOverloaded):
            return
        for each, outcome in zip(inputs, outcomes, strict=True):
            content = each.content if isinstance(each, ImageInput) else each.text
            assert isinstance(outcome, InputRejected if content == b"broken" else Embedding)
            if isinstance(outcome, Embedding):
                np.testing.assert_array_equal(outcome.vector, model.vector(content))
        answered += 1

    for _ in range(20):
        await asyncio.gather(*(caller() for _ in range(20)))
    await settle()

    assert answered > 100
    assert embedder.waiting == 0
    assert all(slots.ahead is None or slots.ahead.held == 0 for slots in embedder._slots.values())
    await embedder.close()


async def test_others_have_their_turn_while_a_call_s_texts_are_looked_at(
    embedder: BatchingEmbedder, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [0]

    def is_slow(text: str) -> bool:
        looks[-1] += 1
        return text.endswith("7")

    monkeypatch.setattr(model, "is_slow", is_slow)
    texts: list[Input] = [TextInput(f"a dog {at}") for at in range(500)]
    answered = await call(embedder, texts)
    while not answered.done():
        looks.append(0)
        await asyncio.sleep(0)

    assert sum(looks) == len(texts)
    assert max(looks) <= batching.LOOKED_AT_ONCE
    assert all(isinstance(each, Embedding) for each in await answered)
