"""A text that the tokenizer cannot be done with costs its own place, and neither its neighbours nor other callers."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedders.clip import ClipConfig, ClipEmbedder
from embedders.contract import QUERY, Embedder, Embedding, Input, InputLimits, TextInput
from embedders.errors import EmbedderUnavailable, InputRejected
from embedders.factory import build_embedder
from embedders.front.queueing import QueueBounds
from embedders.images.decoders import Decoders
from tests.embedders.conftest import Decoding
from tests.embedders.suite import vectors
from tests.embedders.test_cleaning import CAFE, SLOW
from tests.fakes.models import ServedModels, in_process

DOG = TextInput("a dog")
LATE = TextInput(SLOW["repeated mojibake"](32_000))
IN_TIME = TextInput("a \u0301&amp;amp; " * 60, truncate=True)


@pytest.fixture
def long_texts(config: ClipConfig) -> ClipConfig:
    return replace(config, limits=InputLimits())


@pytest.fixture
async def alone(long_texts: ClipConfig) -> AsyncIterator[ClipEmbedder]:
    embedder = in_process(long_texts)
    await embedder.start()
    yield embedder
    await embedder.close()


@pytest.fixture
async def queued(long_texts: ClipConfig, served: ServedModels) -> AsyncIterator[Embedder]:
    embedder = build_embedder(served(long_texts), bounds=QueueBounds(max_inputs=4000, max_bytes=2**28))
    await embedder.start()
    yield embedder
    await embedder.close()


@pytest.fixture(params=["alone", "queued"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    found: Embedder = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("make", SLOW.values(), ids=SLOW)
async def test_a_text_that_takes_too_long_fails_alone_and_says_why(
    queued: Embedder, make: Callable[[int], str]
) -> None:
    before, bad, after = await queued.embed([DOG, TextInput(make(32_000)), IN_TIME], QUERY)

    assert isinstance(bad, InputRejected)
    assert "send plain text" in str(bad)
    assert isinstance(before, Embedding)
    assert isinstance(after, Embedding)


async def test_texts_read_apart_have_the_vectors_of_those_that_are_not(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[Input] = [
        TextInput(text, truncate=True) for text in (CAFE[:60], "AT&T &amp; co", "a dog", "\u6771\u4eac")
    ]
    expected = await embedder.embed(texts, QUERY)

    monkeypatch.setattr("embedders.clip.embedder.is_slow", lambda _: True)
    outcomes = await embedder.embed(texts, QUERY)

    np.testing.assert_allclose(vectors(outcomes), vectors(expected), atol=1e-6, rtol=0)
    assert [(each.token_count, each.truncated) for each in outcomes if isinstance(each, Embedding)] == [
        (each.token_count, each.truncated) for each in expected if isinstance(each, Embedding)
    ]


async def test_others_are_answered_while_texts_are_cleaned(queued: Embedder) -> None:
    cleaned = asyncio.create_task(queued.embed([LATE] * 500, QUERY))
    await asyncio.sleep(0)

    for _ in range(3):
        assert isinstance((await queued.embed([DOG], QUERY))[0], Embedding)

    assert not cleaned.done()
    cleaned.cancel()


async def test_a_slow_text_waits_for_its_turn_and_not_for_a_whole_call(queued: Embedder) -> None:
    cleaned = asyncio.create_task(queued.embed([LATE] * 500, QUERY))
    await asyncio.sleep(0)

    assert isinstance((await queued.embed([IN_TIME], QUERY))[0], Embedding)

    assert not cleaned.done()
    cleaned.cancel()


async def test_nothing_is_cleaned_for_a_caller_that_left(queued: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 0

    async def count(decoders: Decoders, text: str, form: str) -> str:
        nonlocal begun
        begun += text == LATE.text
        return await clean(decoders, text, form)

    clean = Decoders.clean
    monkeypatch.setattr(Decoders, "clean", count)
    call = asyncio.create_task(queued.embed([LATE] * 500, QUERY))
    async with asyncio.timeout(60):
        while not begun:
            await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait([call])
    begun_for_the_caller = begun

    # Whatever had begun ends first.
    for _ in range(4):
        await queued.embed([IN_TIME], QUERY)

    assert begun_for_the_caller < 500
    assert begun == begun_for_the_caller


async def test_processes_begin_when_they_are_needed_and_end_with_the_embedder(
    alone: ClipEmbedder, decoding: Decoding
) -> None:
    await alone.embed([DOG], QUERY)
    assert not decoding()

    await alone.embed([IN_TIME] * 10, QUERY)
    assert decoding()

    await alone.close()
    assert not decoding()


async def test_a_process_that_dies_is_replaced(alone: ClipEmbedder, decoding: Decoding) -> None:
    await alone.embed([IN_TIME] * 2, QUERY)
    for each in decoding():
        each.kill()
    async with asyncio.timeout(60):
        while decoding():
            await asyncio.sleep(0.05)

    outcomes = await alone.embed([IN_TIME] * 4, QUERY)

    assert all(isinstance(each, Embedding) for each in outcomes)


async def test_that_no_process_can_be_started_is_not_blamed_on_the_text(
    alone: ClipEmbedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(EmbedderUnavailable, match=r"no process .* can be started"):
        await alone.embed([IN_TIME], QUERY)
