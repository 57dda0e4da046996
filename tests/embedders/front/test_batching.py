"""BatchingEmbedder keeps the contract over every embedder, and coalesces, bounds and drops as it says."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from embedders import factory
from embedders.clip import ClipConfig
from embedders.contract import (
    DOCUMENT,
    QUERY,
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    Modality,
    Outcome,
    TextImageInput,
    TextInput,
)
from embedders.errors import (
    AnswerInvalid,
    EmbedderOverloaded,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelUnusable,
)
from embedders.factory import build_embedder
from embedders.front.batching import BatchingEmbedder
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.embedders.front.waiting import batches, bounds, call, occupy, release, texts
from tests.embedders.suite import LIMITS, EmbedderSuite, vectors
from tests.fakes.embedder import TEXT_ONLY, FakeEmbedder, picture
from tests.fakes.models import in_process
from tests.fakes.nim import FakeNim


class TestFakeItself(EmbedderSuite):
    """The fake that other tests rely on keeps the contract, too."""

    @pytest.fixture
    def embedder(self) -> FakeEmbedder:
        return FakeEmbedder(limits=LIMITS, max_text_tokens=12, max_batch=4)


class TestFakeThatReadsPairs(EmbedderSuite):
    """The fake keeps the contract when it reads a text and an image as one input."""

    @pytest.fixture
    def embedder(self) -> FakeEmbedder:
        return FakeEmbedder(limits=LIMITS, max_batch=4, modalities=frozenset(Modality))


class TestOverFake(EmbedderSuite):
    """The contract, over an embedder in memory."""

    @pytest.fixture
    async def embedder(self) -> AsyncIterator[BatchingEmbedder]:
        inner = FakeEmbedder(limits=LIMITS, max_text_tokens=12, max_batch=4, slots=2, modalities=frozenset(Modality))
        embedder = BatchingEmbedder(inner, bounds=bounds(1000))
        await embedder.start()
        yield embedder
        await embedder.close()


class TestOverNim(EmbedderSuite):
    """The contract, over a NIM."""

    @pytest.fixture
    async def embedder(self) -> AsyncIterator[BatchingEmbedder]:
        async with FakeNim() as nim:
            config = NimConfig(base_url=nim.base_url, model=nim.model, limits=LIMITS)
            embedder = BatchingEmbedder(NimEmbedder(config), bounds=bounds(1000))
            await embedder.start()
            await embedder.check()
            yield embedder
            await embedder.close()


class TestOverClip(EmbedderSuite):
    """The contract, over a local model."""

    @pytest.fixture
    async def embedder(self, tiny_clip: Path) -> AsyncIterator[BatchingEmbedder]:
        config = ClipConfig(model=str(tiny_clip), device="cpu", max_batch=4, limits=LIMITS)
        clip = in_process(config)
        embedder = BatchingEmbedder(clip, bounds=bounds(1000), apart=True, reading=clip, max_gather_s=0.005)
        await embedder.start()
        yield embedder
        await embedder.close()


@pytest.fixture
def inner() -> FakeEmbedder:
    return FakeEmbedder(max_batch=4)


@pytest.fixture
async def embedder(inner: FakeEmbedder) -> AsyncIterator[BatchingEmbedder]:
    embedder = BatchingEmbedder(inner, bounds=bounds(10))
    await embedder.start()
    yield embedder
    await embedder.close()


async def test_inputs_that_wait_share_a_batch(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    first = await occupy(embedder, inner)
    waiting = [await call(embedder, texts(name, 2)) for name in "ab"]
    release(inner)
    await asyncio.gather(first, *waiting)
    assert batches(inner) == [["first 0"], ["a 0", "a 1", "b 0", "b 1"]]
    for name, task in zip("ab", waiting, strict=True):
        expected = np.stack([inner.vector(f"{name} {at}") for at in range(2)])
        np.testing.assert_array_equal(vectors(task.result()), expected)


async def test_calls_of_the_same_moment_share_a_batch(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    await asyncio.gather(*(embedder.embed(texts(name, 1), QUERY) for name in "abcd"))
    assert batches(inner) == [["a 0", "b 0", "c 0", "d 0"]]


async def test_a_batch_has_at_most_what_the_backend_takes(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    outcomes = await embedder.embed(texts("a", 10), QUERY)
    assert [len(batch) for batch in batches(inner)] == [4, 4, 2]
    np.testing.assert_array_equal(vectors(outcomes), np.stack([inner.vector(f"a {at}") for at in range(10)]))


async def test_the_backend_has_as_many_batches_at_once_as_there_are_slots() -> None:
    inner = FakeEmbedder(max_batch=4, slots=3)
    embedder = BatchingEmbedder(inner, bounds=bounds(100))
    inner.gate = asyncio.Event()
    task = await call(embedder, texts("a", 40))
    await inner.entered.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert inner.in_flight == 3
    release(inner)
    assert len(vectors(await task)) == 40
    await embedder.close()


async def test_purposes_do_not_mix_in_a_batch_and_keep_their_turn(
    embedder: BatchingEmbedder, inner: FakeEmbedder
) -> None:
    first = await occupy(embedder, inner)
    waiting = [
        await call(embedder, texts("a", 1), DOCUMENT),
        await call(embedder, texts("b", 1), QUERY),
        await call(embedder, texts("c", 1), DOCUMENT),
    ]
    release(inner)
    await asyncio.gather(first, *waiting)
    assert batches(inner)[1:] == [["a 0", "c 0"], ["b 0"]]
    assert [options for _, options in inner.calls[1:]] == [DOCUMENT, QUERY]


async def test_a_full_queue_refuses_a_call_whole_and_takes_calls_again_later(
    embedder: BatchingEmbedder, inner: FakeEmbedder
) -> None:
    first = await occupy(embedder, inner)
    waiting = await call(embedder, texts("a", 8))
    with pytest.raises(EmbedderOverloaded, match=r"8 inputs of 24 bytes wait already; at most 10"):
        await embedder.embed(texts("b", 3), DOCUMENT)
    fits = await call(embedder, texts("c", 2))
    release(inner)
    await asyncio.gather(first, waiting, fits)
    assert len(await embedder.embed(texts("b", 3), DOCUMENT)) == 3


async def test_a_call_larger_than_the_queue_is_refused_and_told_so(embedder: BatchingEmbedder) -> None:
    with pytest.raises(EmbedderOverloaded, match=r"11 inputs of 34 bytes; at most 10 inputs .* send fewer at a time"):
        await embedder.embed(texts("a", 11), QUERY)


async def test_inputs_of_a_cancelled_caller_never_reach_the_backend_and_leave_room(
    embedder: BatchingEmbedder, inner: FakeEmbedder
) -> None:
    first = await occupy(embedder, inner)
    gone = await call(embedder, texts("gone", 10))
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    stays = await call(embedder, texts("stays", 10))
    release(inner)
    await asyncio.gather(first, stays)
    assert not any(text.startswith("gone") for batch in batches(inner) for text in batch)


async def test_a_batch_is_cancelled_once_nobody_waits_for_it(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    first = await occupy(embedder, inner)
    waiting = await call(embedder, texts("a", 1))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await inner.entered.wait()
    assert inner.in_flight == 1
    assert batches(inner)[-1] == ["a 0"]
    release(inner)
    assert len(await waiting) == 1


async def test_a_batch_goes_on_while_somebody_waits_for_it(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    inner.gate = asyncio.Event()
    gone = asyncio.create_task(embedder.embed(texts("gone", 1), QUERY))
    stays = asyncio.create_task(embedder.embed(texts("stays", 1), QUERY))
    await inner.entered.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    release(inner)
    assert len(vectors(await stays)) == 1
    assert batches(inner) == [["gone 0", "stays 0"]]


async def test_a_failed_batch_fails_its_callers_only(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    inner.failure = EmbedderRateLimited("too many", retry_after_s=9)
    inner.gate = asyncio.Event()
    hit = [asyncio.create_task(embedder.embed(texts(name, 2), QUERY)) for name in "ab"]
    await inner.entered.wait()
    inner.entered.clear()
    spared = await call(embedder, texts("c", 4))
    release(inner)
    errors = await asyncio.gather(*hit, return_exceptions=True)
    inner.failure = None
    assert all(isinstance(each, EmbedderRateLimited) and each.retry_after_s == 9 for each in errors)
    assert errors[0] is not errors[1]
    assert len(vectors(await spared)) == 4


async def test_what_else_waits_for_a_failed_call_is_dropped(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    inner.failure = EmbedderUnavailable("down")
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed(texts("a", 10), QUERY)
    inner.failure = None
    assert len(await embedder.embed(texts("b", 10), QUERY)) == 10
    assert [batch for batch in batches(inner) if "a 9" in batch] == []


async def test_an_unexpected_exception_reaches_the_caller_and_later_calls_work(
    embedder: BatchingEmbedder, inner: FakeEmbedder
) -> None:
    inner.failure = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        await embedder.embed(texts("a", 1), QUERY)
    inner.failure = None
    assert len(await embedder.embed(texts("a", 1), QUERY)) == 1


async def test_a_backend_that_answers_too_few_outcomes_is_caught(
    embedder: BatchingEmbedder, inner: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def embed(_: Sequence[Input], __: EmbedOptions) -> list[Outcome]:
        return []

    monkeypatch.setattr(inner, "embed", embed)
    with pytest.raises(AnswerInvalid):
        await embedder.embed(texts("a", 2), QUERY)


async def test_a_backend_that_cannot_even_begin_leaves_nobody_waiting(
    embedder: BatchingEmbedder, inner: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inner, "embed", None)
    with pytest.raises(TypeError):
        await embedder.embed(texts("a", 2), QUERY)
    monkeypatch.undo()
    assert len(await embedder.embed(texts("a", 2), QUERY)) == 2


async def test_calls_before_the_start_of_a_local_model_are_refused(tiny_clip: Path) -> None:
    embedder = BatchingEmbedder(in_process(ClipConfig(model=str(tiny_clip))), bounds=bounds(9))
    with pytest.raises(EmbedderUnavailable, match="not started"):
        await embedder.embed(texts("a", 1), QUERY)
    await embedder.close()


async def test_a_batch_that_cancels_itself_is_unavailable(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    inner.failure = asyncio.CancelledError()  # type: ignore[assignment] # what no backend should raise
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed(texts("a", 2), QUERY)


async def test_what_the_model_does_not_read_is_refused_at_once_however_much_waits_and_the_rest_is_embedded() -> None:
    inner = FakeEmbedder(modalities=TEXT_ONLY)
    embedder = BatchingEmbedder(inner, bounds=bounds(1))
    first = await occupy(embedder, inner)
    waiting = await call(embedder, texts("a", 1))
    image, both = ImageInput(b"no picture, which nobody looks at"), TextImageInput("a", b"")

    alone = await embedder.embed([image, both], QUERY)
    reached = len(inner.calls)
    with pytest.raises(EmbedderOverloaded):
        await embedder.embed([image, TextInput("b")], QUERY)
    release(inner)
    await asyncio.gather(first, waiting)
    mixed = await embedder.embed([both, TextInput("b"), image], QUERY)
    await embedder.close()

    assert reached == 1
    assert [str(each) for each in alone] == [
        "the model fake/model of embedder fake reads texts only, not pictures",
        "the model fake/model of embedder fake reads texts only, not text and picture as one input",
    ]
    assert [type(each) for each in mixed] == [InputRejected, Embedding, InputRejected]
    assert batches(inner)[-1] == ["b"]


async def test_a_closed_embedder_is_unavailable_for_what_it_would_refuse_too() -> None:
    embedder = BatchingEmbedder(FakeEmbedder(modalities=TEXT_ONLY), bounds=bounds(1))
    await embedder.close()

    with pytest.raises(EmbedderUnavailable):
        await embedder.embed([ImageInput(picture())], QUERY)


async def test_the_backend_itself_judges_inputs_while_its_dimension_is_unknown() -> None:
    inner = FakeEmbedder(modalities=TEXT_ONLY, dimension=0)
    inner.failure = EmbedderUnavailable("the model is not known yet")
    embedder = BatchingEmbedder(inner, bounds=bounds(1))

    with pytest.raises(EmbedderUnavailable, match="not known yet"):
        await embedder.embed([ImageInput(picture())], QUERY)

    await embedder.close()


async def test_bad_inputs_fail_alone_across_calls_of_one_batch(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    bad, good = await asyncio.gather(embedder.embed([TextInput(" ")], QUERY), embedder.embed(texts("a", 2), QUERY))
    assert isinstance(bad[0], InputRejected)
    assert all(isinstance(each, Embedding) for each in good)
    assert len(inner.calls) == 1


async def test_a_check_does_not_wait_behind_the_queue(embedder: BatchingEmbedder, inner: FakeEmbedder) -> None:
    first = await occupy(embedder, inner)
    waiting = await call(embedder, texts("a", 10))
    check = asyncio.create_task(embedder.check())
    await inner.entered.wait()
    assert batches(inner)[-1] == ["check"]
    release(inner)
    await asyncio.gather(first, waiting, check)


async def test_closing_fails_calls_in_the_queue_and_in_the_backend_and_closes_it(
    embedder: BatchingEmbedder, inner: FakeEmbedder
) -> None:
    first = await occupy(embedder, inner)
    waiting = await call(embedder, texts("a", 10))
    await embedder.close()
    for each in (first, waiting):
        with pytest.raises(EmbedderUnavailable, match="closed"):
            await each
    assert inner.closed
    assert inner.in_flight == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_nim_is_built_behind_a_queue() -> None:
    async with FakeNim() as nim:
        config = NimConfig(base_url=nim.base_url, model=nim.model)
        embedder = build_embedder(config, bounds=bounds(5))
        await embedder.start()
        assert len(await embedder.embed(texts("a", 5), QUERY)) == 5
        with pytest.raises(EmbedderOverloaded):
            await embedder.embed(texts("a", 6), QUERY)
        await embedder.close()


async def test_a_local_model_is_built_behind_a_queue(tiny_clip: Path) -> None:
    embedder = build_embedder(ClipConfig(model=str(tiny_clip), device="cpu"), bounds=bounds(5))
    await embedder.start()
    assert len(await embedder.embed(texts("a", 5), QUERY)) == 5
    await embedder.close()


def test_a_local_model_without_torch_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "find_spec", lambda package: None if package == "torch" else object())
    with pytest.raises(ModelUnusable, match=r"torch.*pip install 'vecgate\[clip\]'"):
        build_embedder(ClipConfig(), bounds=bounds(5))
