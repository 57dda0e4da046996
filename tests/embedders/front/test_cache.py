"""CachingEmbedder keeps the contract, and embeds nothing twice."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from embedders.contract import (
    DOCUMENT,
    QUERY,
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    Modality,
    Priority,
    TextImageInput,
    TextInput,
)
from embedders.errors import EmbedderOverloaded, EmbedderRateLimited, EmbedderUnavailable, InputRejected
from embedders.front.cache import ENTRY_OVERHEAD_BYTES, CachingEmbedder, VectorCache
from tests.embedders.suite import LIMITS, EmbedderSuite, vectors
from tests.fakes.embedder import FakeEmbedder, picture

A, B, C = (TextInput(each) for each in "abc")
ENTRY_BYTES = 8 * 4 + ENTRY_OVERHEAD_BYTES


class TestContract(EmbedderSuite):
    """The contract."""

    @pytest.fixture
    def embedder(self) -> CachingEmbedder:
        return CachingEmbedder(FakeEmbedder(limits=LIMITS, max_text_tokens=12, max_batch=4), VectorCache(10_000))


@pytest.fixture
def inner() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def embedder(inner: FakeEmbedder) -> CachingEmbedder:
    return CachingEmbedder(inner, VectorCache(100_000))


def asked(inner: FakeEmbedder) -> list[list[Input]]:
    return [inputs for inputs, _ in inner.calls]


async def test_what_is_known_is_not_embedded_again_and_the_order_is_kept(
    embedder: CachingEmbedder, inner: FakeEmbedder
) -> None:
    image = ImageInput(picture())
    await embedder.embed([A, image], QUERY)
    outcomes = await embedder.embed([B, image, A, B], QUERY)
    assert asked(inner) == [[A, image], [B]]
    expected = [inner.vector(each) for each in ("b", image.content, "a", "b")]
    np.testing.assert_array_equal(vectors(outcomes), np.stack(expected))


async def test_a_text_and_an_image_as_one_input_are_none_of_their_parts() -> None:
    inner = FakeEmbedder(modalities=frozenset(Modality))
    embedder, content = CachingEmbedder(inner, VectorCache(100_000)), picture()
    both = TextImageInput("a", content)
    different: list[Input] = [
        both,
        A,
        ImageInput(content),
        replace(both, truncate=True),
        replace(both, text="ab"),
        replace(both, content=picture((1, 2, 3))),
        # The same bytes, divided in another way.
        TextImageInput(f"a{content[:1].decode('latin-1')}", content[1:]),
    ]

    await embedder.embed(different, DOCUMENT)
    await embedder.embed([both, replace(both, truncate=True)], DOCUMENT)
    await embedder.embed([both], QUERY)

    assert asked(inner) == [different, [both]]


async def test_the_same_bytes_as_text_and_image_or_for_another_purpose_are_other_things(
    embedder: CachingEmbedder, inner: FakeEmbedder
) -> None:
    content = picture()
    for each, options in (
        (A, QUERY),
        (A, DOCUMENT),
        (TextInput("a", truncate=True), QUERY),
        (TextInput("a", truncate=True, at_start=True), QUERY),
        (ImageInput(content), QUERY),
    ):
        await embedder.embed([each], options)
    assert len(inner.calls) == 5
    await embedder.embed([A], EmbedOptions(priority=Priority.BULK))
    assert len(inner.calls) == 5, "urgency changes no vector"


async def test_spaces_that_share_a_cache_do_not_share_vectors() -> None:
    cache = VectorCache(100_000)
    one, other, twin = FakeEmbedder(space="one"), FakeEmbedder(space="other"), FakeEmbedder(space="one")
    for inner in (one, other, twin):
        await CachingEmbedder(inner, cache).embed([A], QUERY)
    assert (len(one.calls), len(other.calls), len(twin.calls)) == (1, 1, 0)


async def test_a_caller_s_own_key_neither_fills_nor_reads_the_cache(
    embedder: CachingEmbedder, inner: FakeEmbedder
) -> None:
    for key in ("one", "one", "other"):
        await embedder.embed([A], EmbedOptions(api_key=key))
    await embedder.embed([A], QUERY)
    assert len(inner.calls) == 4


async def test_what_has_to_be_fresh_is_embedded_again(embedder: CachingEmbedder, inner: FakeEmbedder) -> None:
    for options in (QUERY, EmbedOptions(fresh=True)):
        await embedder.embed([A], options)
    assert len(inner.calls) == 2


async def test_what_it_answers_by_itself_says_nothing_of_the_embedder(
    embedder: CachingEmbedder, inner: FakeEmbedder
) -> None:
    await embedder.embed([A], QUERY)
    inner.failure = EmbedderUnavailable("down")
    with pytest.raises(EmbedderUnavailable):
        await embedder.check()

    await embedder.embed([A], QUERY)

    assert embedder.health.fault == "down"


async def test_the_least_recently_used_vectors_are_dropped_at_the_bound(inner: FakeEmbedder) -> None:
    embedder = CachingEmbedder(inner, VectorCache(2 * ENTRY_BYTES))
    for each in (A, B, A, C, A, B):
        await embedder.embed([each], QUERY)
    assert asked(inner) == [[A], [B], [C], [B]]


async def test_a_vector_larger_than_the_cache_is_not_kept(inner: FakeEmbedder) -> None:
    embedder = CachingEmbedder(inner, VectorCache(ENTRY_BYTES - 1))
    for _ in range(2):
        assert len(vectors(await embedder.embed([A], QUERY))) == 1
    assert len(inner.calls) == 2


async def test_a_cached_vector_cannot_be_changed_by_who_got_it(embedder: CachingEmbedder) -> None:
    (first,) = await embedder.embed([A], QUERY)
    assert isinstance(first, Embedding)
    (second,) = await embedder.embed([A], QUERY)
    assert isinstance(second, Embedding)
    np.testing.assert_array_equal(second.vector, first.vector)
    for each in (first, second):
        with pytest.raises(ValueError, match="read-only"):
            each.vector[:] = 0


async def test_a_vector_that_several_callers_get_at_once_cannot_be_changed_by_one(embedder: CachingEmbedder) -> None:
    first, second = await asyncio.gather(embedder.embed([A], QUERY), embedder.embed([A, A], QUERY))
    for outcome in (*first, *second):
        assert isinstance(outcome, Embedding)
        with pytest.raises(ValueError, match="read-only"):
            outcome.vector[0] = 2


async def test_refused_inputs_are_not_kept(inner: FakeEmbedder) -> None:
    embedder = CachingEmbedder(inner, VectorCache(100_000))
    for _ in range(2):
        bad, good = await embedder.embed([TextInput(" "), A], QUERY)
        assert isinstance(bad, InputRejected)
        assert isinstance(good, Embedding)
    assert asked(inner)[1] == [TextInput(" ")]


async def test_what_another_call_is_embedding_is_waited_for(embedder: CachingEmbedder, inner: FakeEmbedder) -> None:
    inner.gate = asyncio.Event()
    calls = [asyncio.create_task(embedder.embed(each, QUERY)) for each in ([A, B], [B], [B, C, A])]
    for _ in range(3):
        await asyncio.sleep(0)
    inner.gate.set()
    results = await asyncio.gather(*calls)
    assert asked(inner) == [[A, B], [C]]
    np.testing.assert_array_equal(vectors(results[2]), np.stack([inner.vector(each) for each in "bca"]))


async def test_who_waits_along_gets_its_answer_when_the_first_caller_goes(
    embedder: CachingEmbedder, inner: FakeEmbedder
) -> None:
    inner.gate = asyncio.Event()
    first = asyncio.create_task(embedder.embed([A], QUERY))
    await asyncio.sleep(0)
    second = asyncio.create_task(embedder.embed([A], QUERY))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    inner.gate.set()
    assert len(vectors(await second)) == 1
    assert len(inner.calls) == 1


async def test_who_waits_along_keeps_the_work_going_while_its_own_inputs_are_embedded(
    embedder: CachingEmbedder, inner: FakeEmbedder
) -> None:
    inner.gate = asyncio.Event()
    first = asyncio.create_task(embedder.embed([A], QUERY))
    await inner.entered.wait()
    second = asyncio.create_task(embedder.embed([A, B], QUERY))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    inner.gate.set()
    await asyncio.wait([second])
    assert not second.cancelled()
    np.testing.assert_array_equal(vectors(second.result()), np.stack([inner.vector("a"), inner.vector("b")]))
    assert asked(inner) == [[A], [B]]


async def test_the_work_ends_when_the_last_one_who_waits_goes_and_begins_anew_for_the_next(
    embedder: CachingEmbedder, inner: FakeEmbedder
) -> None:
    inner.gate = asyncio.Event()
    calls = [asyncio.create_task(embedder.embed([A], QUERY)) for _ in range(2)]
    await inner.entered.wait()
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    inner.gate.set()
    assert len(vectors(await embedder.embed([A], QUERY))) == 1
    assert len(inner.calls) == 2
    assert inner.in_flight == 0
    assert not embedder._in_flight


async def test_a_failure_reaches_all_who_wait_and_is_not_kept(embedder: CachingEmbedder, inner: FakeEmbedder) -> None:
    inner.failure = EmbedderUnavailable("down")
    results = await asyncio.gather(*(embedder.embed([A], QUERY) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, EmbedderUnavailable) for each in results)
    inner.failure = None
    assert len(vectors(await embedder.embed([A], QUERY))) == 1


async def test_a_call_that_can_wait_longer_than_the_one_it_waited_along_with_goes_by_itself(
    embedder: CachingEmbedder, inner: FakeEmbedder
) -> None:
    inner.gate = asyncio.Event()
    hurried = asyncio.create_task(embedder.embed([A], QUERY))
    await inner.entered.wait()
    patient = asyncio.create_task(embedder.embed([A], QUERY))
    await asyncio.sleep(0)
    inner.failure = EmbedderRateLimited("not within your deadline", retry_after_s=2)
    inner.gate.set()
    with pytest.raises(EmbedderRateLimited):
        await hurried
    inner.failure = None

    assert len(vectors(await patient)) == 1


async def test_a_call_that_waited_along_with_one_too_large_for_the_queue_goes_by_itself(
    embedder: CachingEmbedder, inner: FakeEmbedder
) -> None:
    inner.gate = asyncio.Event()
    inner.failure = EmbedderOverloaded("full")
    large = asyncio.create_task(embedder.embed([A, B], QUERY))
    await asyncio.sleep(0)
    small = asyncio.create_task(embedder.embed([A], QUERY))
    await inner.entered.wait()
    inner.gate.set()
    with pytest.raises(EmbedderOverloaded):
        await large
    inner.failure = None
    assert len(vectors(await small)) == 1
