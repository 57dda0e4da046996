"""What every Embedder keeps. A test class inherits EmbedderSuite and has a fixture `embedder`, started, with LIMITS."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from embedders.contract import (
    DOCUMENT,
    QUERY,
    Embedder,
    Embedding,
    ImageInput,
    Input,
    InputLimits,
    Modality,
    Outcome,
    TextImageInput,
    TextInput,
    modality,
)
from embedders.errors import (
    EmbedderUnavailable,
    ImageEmpty,
    ImageTooLarge,
    ImageUndecodable,
    InputRejected,
    TextTooLong,
)
from tests.fakes.embedder import picture

LIMITS = InputLimits(max_text_bytes=2000, max_image_bytes=100_000, max_image_pixels=1_000_000)

RED = ImageInput(picture((220, 20, 20), size=(40, 30)))
BLUE = ImageInput(picture((20, 20, 220), size=(30, 40), file_format="JPEG"))
CAT = TextInput("a cat on a mat")
DOG = TextInput("two dogs in the rain")
BOTH = TextImageInput(CAT.text, RED.content)
MIXED: list[Input] = [CAT, RED, DOG, BLUE]


def readable(embedder: Embedder) -> list[Input]:
    """Return texts and pictures, and one of both, as far as an embedder reads them."""
    return [each for each in [*MIXED, BOTH] if modality(each) in embedder.spec.modalities]


def vectors(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Return the vectors of outcomes that all have one: float32, shape (outcomes, dimension)."""
    assert all(isinstance(each, Embedding) for each in outcomes), outcomes
    return np.stack([each.vector for each in outcomes if isinstance(each, Embedding)])


def _require_pairs(embedder: Embedder) -> None:
    if Modality.TEXT_IMAGE not in embedder.spec.modalities:
        pytest.skip("the model does not read a text and an image as one input")


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine of the angle between two unit vectors."""
    return float(one @ other)


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    """Assert that vectors are equal but for the order of float32 sums."""
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)


class EmbedderSuite:
    """The contract of embedders/contract.py."""

    def test_its_spec_has_a_name_a_space_and_a_dimension(self, embedder: Embedder) -> None:
        spec = embedder.spec
        assert spec.name
        assert spec.model
        assert spec.space
        assert spec.dimension > 0
        assert spec.max_batch > 0
        assert Modality.TEXT in spec.modalities
        assert spec.limits == LIMITS

    async def test_vectors_are_float32_of_the_spec_s_dimension_and_of_unit_length(self, embedder: Embedder) -> None:
        for outcome in await embedder.embed(readable(embedder), DOCUMENT):
            assert isinstance(outcome, Embedding)
            assert outcome.vector.dtype == np.float32
            assert outcome.vector.shape == (embedder.spec.dimension,)
            assert float(np.linalg.norm(outcome.vector)) == pytest.approx(1, abs=1e-3)
            assert not outcome.truncated

    async def test_outcomes_keep_the_order_of_mixed_inputs(self, embedder: Embedder) -> None:
        inputs = readable(embedder)
        together = vectors(await embedder.embed(inputs, DOCUMENT))
        alone = [vectors(await embedder.embed([each], DOCUMENT))[0] for each in inputs]
        assert_same(together, np.stack(alone))
        for one, other in itertools.combinations(range(len(inputs)), 2):
            assert cosine(together[one], together[other]) < 0.9999

    async def test_no_inputs_give_no_outcomes(self, embedder: Embedder) -> None:
        assert await embedder.embed([], QUERY) == []

    async def test_more_inputs_than_a_batch_takes_are_split(self, embedder: Embedder) -> None:
        texts = [TextInput(f"number {number}") for number in range(2 * embedder.spec.max_batch + 1)]
        outcomes = vectors(await embedder.embed(texts, DOCUMENT))
        assert len(outcomes) == len(texts)
        (last,) = vectors(await embedder.embed(texts[-1:], DOCUMENT))
        assert_same(outcomes[-1], last)

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            pytest.param(b"", ImageEmpty, id="empty"),
            pytest.param(b"no picture at all", ImageUndecodable, id="not-an-image"),
            pytest.param(b"\x89PNG\r\n\x1a\n" + b"\xff" * 100, ImageUndecodable, id="broken"),
            pytest.param(picture(size=(64, 64), file_format="JPEG")[:-200], ImageUndecodable, id="truncated"),
            pytest.param(b"\xff" * (LIMITS.max_image_bytes + 1), ImageTooLarge, id="too-many-bytes"),
            pytest.param(picture(size=(1001, 1000)), ImageTooLarge, id="too-many-pixels"),
            pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", ImageUndecodable, id="svg"),
        ],
    )
    async def test_a_bad_image_fails_alone(
        self, embedder: Embedder, content: bytes, error: type[InputRejected]
    ) -> None:
        if Modality.IMAGE not in embedder.spec.modalities:
            pytest.skip("the model reads texts only")
        before, bad, after = await embedder.embed([CAT, ImageInput(content), RED], DOCUMENT)
        assert type(bad) is error
        assert_same(vectors([before, after]), vectors(await embedder.embed([CAT, RED], DOCUMENT)))

    @pytest.mark.parametrize(
        "text", ["", " ", "\t\n \u3000", "\ufeff", "\0", "\u200b\u200d", "\x1b \x7f", "\u3164", "\U000e0041"]
    )
    async def test_a_blank_text_fails_alone(self, embedder: Embedder, text: str) -> None:
        bad, good = await embedder.embed([TextInput(text), CAT], QUERY)
        assert isinstance(bad, InputRejected)
        assert isinstance(good, Embedding)

    async def test_a_text_of_lone_surrogates_fails_alone(self, embedder: Embedder) -> None:
        bad, good = await embedder.embed([TextInput("a \ud800 b"), CAT], QUERY)
        assert isinstance(bad, InputRejected)
        assert isinstance(good, Embedding)

    async def test_a_text_of_too_many_bytes_fails_alone_unless_it_may_be_cut(self, embedder: Embedder) -> None:
        long = "é" * (LIMITS.max_text_bytes // 2 + 1)
        bad, cut, good = await embedder.embed([TextInput(long), TextInput(long, truncate=True), CAT], QUERY)
        assert isinstance(bad, TextTooLong)
        assert str(len(long.encode())) in str(bad)
        assert str(LIMITS.max_text_bytes) in str(bad)
        assert isinstance(cut, Embedding)
        assert cut.truncated
        (first,) = await embedder.embed([TextInput(long[:-1], truncate=True)], QUERY)
        assert_same(vectors([cut]), vectors([first]))
        assert isinstance(good, Embedding)

    async def test_a_text_that_is_cut_within_a_character_loses_it_whole(self, embedder: Embedder) -> None:
        start = "cat " * (LIMITS.max_text_bytes // 4 - 1)
        cut, first = await embedder.embed(
            [TextInput(f"{start}c\U0001f408\U0001f408", True), TextInput(start + "c", True)], QUERY
        )
        assert isinstance(cut, Embedding)
        assert cut.truncated
        assert_same(vectors([cut]), vectors([first]))

    async def test_a_text_that_is_to_be_cut_at_its_start_keeps_its_end_or_is_rejected_for_that(
        self, embedder: Embedder
    ) -> None:
        end = "cat " * (LIMITS.max_text_bytes // 4)
        cut, kept, short = await embedder.embed(
            [
                TextInput(f"dog {end}", True, True),
                TextInput(end, True, True),
                replace(CAT, truncate=True, at_start=True),
            ],
            QUERY,
        )
        if isinstance(cut, Embedding):
            assert cut.truncated
            assert_same(vectors([cut]), vectors([kept]))
        for each in (cut, kept, short):
            assert isinstance(each, Embedding) or "at its start" in str(each)
        if isinstance(short, Embedding):
            assert_same(vectors([short]), vectors(await embedder.embed([CAT], QUERY)))

    @pytest.mark.parametrize("character", ["c", "é", "東"])
    async def test_a_text_far_beyond_the_bound_fails_alone_even_when_it_may_be_cut(
        self, embedder: Embedder, character: str
    ) -> None:
        most = LIMITS.max_cut_text_bytes // len(character.encode())
        longest, longer = character * most, character * (most + 1)
        cut, bad, good = await embedder.embed([TextInput(longest, True), TextInput(longer, True), CAT], QUERY)
        assert isinstance(cut, Embedding)
        assert cut.truncated
        assert isinstance(bad, TextTooLong)
        assert str(LIMITS.max_cut_text_bytes) in str(bad)
        assert isinstance(good, Embedding)

    async def test_a_text_of_too_many_tokens_fails_alone_unless_it_may_be_cut(self, embedder: Embedder) -> None:
        bound = embedder.spec.max_text_tokens
        if bound is None:
            pytest.skip("the backend does not say how many tokens it reads")
        long = "cat " * bound
        bad, cut, good = await embedder.embed([TextInput(long), TextInput(long, truncate=True), CAT], QUERY)
        assert isinstance(bad, TextTooLong)
        assert str(bound) in str(bad)
        assert str(bound + 2) in str(bad)
        assert isinstance(cut, Embedding)
        assert cut.truncated
        assert cut.token_count == bound
        assert isinstance(good, Embedding)
        assert not good.truncated
        assert good.token_count is not None
        assert good.token_count < bound

    @pytest.mark.parametrize("each", [CAT, RED, BOTH], ids=["text", "image", "text_image"])
    async def test_an_input_of_a_kind_that_the_model_does_not_read_fails_alone_and_by_name(
        self, embedder: Embedder, each: Input
    ) -> None:
        spec = embedder.spec
        if modality(each) in spec.modalities:
            pytest.skip("the model reads this kind")
        bad, good = await embedder.embed([each, CAT], QUERY)
        assert type(bad) is InputRejected
        assert spec.model in str(bad)
        assert spec.name in str(bad)
        assert isinstance(good, Embedding)

    async def test_a_text_and_an_image_as_one_input_have_a_vector_of_their_own(self, embedder: Embedder) -> None:
        _require_pairs(embedder)
        inputs: list[Input] = [BOTH, CAT, RED, replace(BOTH, text=DOG.text), replace(BOTH, content=BLUE.content)]
        both, *others = vectors(await embedder.embed(inputs, DOCUMENT))
        for other in others:
            assert cosine(both, other) < 0.9999

    async def test_what_is_wrong_with_a_part_of_one_input_fails_it_alone(self, embedder: Embedder) -> None:
        _require_pairs(embedder)
        long = "é" * (LIMITS.max_text_bytes // 2 + 1)
        inputs = [
            replace(BOTH, text=" "),
            replace(BOTH, text=long),
            replace(BOTH, content=b""),
            replace(BOTH, content=b"no picture at all"),
            replace(BOTH, text=long, truncate=True),
            BOTH,
        ]
        *bad, cut, good = await embedder.embed(inputs, DOCUMENT)
        assert [type(each) for each in bad] == [InputRejected, TextTooLong, ImageEmpty, ImageUndecodable]
        assert isinstance(cut, Embedding)
        assert cut.truncated
        assert isinstance(good, Embedding)
        assert not good.truncated

    async def test_messages_of_rejected_inputs_hold_no_content(self, embedder: Embedder) -> None:
        secret = "sesame-open-up"
        both = TextImageInput(secret, secret.encode())
        inputs: list[Input] = [TextInput(secret * 500), ImageInput(secret.encode()), both]
        for outcome in await embedder.embed(inputs, QUERY):
            assert isinstance(outcome, InputRejected)
            assert secret not in str(outcome)

    async def test_calls_at_the_same_time_get_their_own_outcomes(self, embedder: Embedder) -> None:
        calls = [[TextInput(f"call {call} text {at}") for at in range(call % 3 + 1)] for call in range(12)]
        results = await asyncio.gather(*(embedder.embed(call, QUERY) for call in calls))
        for call, outcomes in zip(calls, results, strict=True):
            assert_same(vectors(outcomes), vectors(await embedder.embed(call, QUERY)))

    async def test_both_purposes_are_served_at_the_same_time(self, embedder: Embedder) -> None:
        query, document = await asyncio.gather(embedder.embed([CAT], QUERY), embedder.embed([CAT], DOCUMENT))
        assert vectors(query).shape == vectors(document).shape

    async def test_a_cancelled_call_leaves_the_others_alone(self, embedder: Embedder) -> None:
        inputs = readable(embedder)
        cancelled = asyncio.create_task(embedder.embed(inputs * 4, DOCUMENT))
        other = asyncio.create_task(embedder.embed([CAT], DOCUMENT))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert len(vectors(await other)) == 1
        assert len(vectors(await embedder.embed(inputs, DOCUMENT))) == len(inputs)

    async def test_its_check_passes_while_the_backend_works(self, embedder: Embedder) -> None:
        await embedder.check()

    async def test_it_can_be_closed_twice_and_refuses_calls_then(self, embedder: Embedder) -> None:
        await embedder.close()
        await embedder.close()
        with pytest.raises(EmbedderUnavailable):
            await embedder.embed([CAT], QUERY)
        with pytest.raises(EmbedderUnavailable):
            await embedder.check()

    async def test_closing_ends_calls_in_flight_and_leaves_no_task(self, embedder: Embedder) -> None:
        inputs = readable(embedder) * 4
        calls = [asyncio.create_task(embedder.embed(inputs, DOCUMENT)) for _ in range(4)]
        await asyncio.sleep(0)
        await embedder.close()
        for call in calls:
            with contextlib.suppress(EmbedderUnavailable):
                assert len(await asyncio.wait_for(call, 60)) == len(inputs)
        backends = {task for task in asyncio.all_tasks() if "_serve" in repr(task.get_coro())}
        assert asyncio.all_tasks() - backends == {asyncio.current_task()}
