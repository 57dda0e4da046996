"""NimEmbedder against models that tell queries from passages, and against models of unknown dimension."""

from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest

from embedders.contract import DOCUMENT, QUERY, ImageInput, TextInput
from embedders.errors import AnswerInvalid, EmbedderUnavailable, InputRejected, ModelGone
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.embedders.suite import CAT, DOG, LIMITS, MIXED, RED, EmbedderSuite, vectors
from tests.fakes.embedder import picture
from tests.fakes.nim import FakeNim, Fault

VL = "nvidia/llama-nemotron-embed-vl-1b-v2"
UNKNOWN = "somebody/multimodal"


@pytest.fixture
async def nim() -> AsyncIterator[FakeNim]:
    async with FakeNim(model=VL, vl=True, max_words=300) as nim:
        yield nim


@pytest.fixture
def config(nim: FakeNim) -> NimConfig:
    return NimConfig(base_url=nim.base_url, model=VL, dimension=nim.dimension, limits=LIMITS, retry_attempts=1)


@pytest.fixture
async def embedder(config: NimConfig) -> AsyncIterator[NimEmbedder]:
    embedder = NimEmbedder(config)
    await embedder.start()
    yield embedder
    await embedder.close()


class TestContract(EmbedderSuite):
    """The contract."""


async def test_searches_embed_as_query_and_imports_as_passage(nim: FakeNim, embedder: NimEmbedder) -> None:
    query = vectors(await embedder.embed([CAT], QUERY))
    passage = vectors(await embedder.embed([CAT], DOCUMENT))

    np.testing.assert_allclose(query[0], nim.vector(f"query: {CAT.text}"), atol=1e-6)
    np.testing.assert_allclose(passage[0], nim.vector(f"passage: {CAT.text}"), atol=1e-6)


async def test_an_import_of_texts_and_pictures_is_one_request(nim: FakeNim, embedder: NimEmbedder) -> None:
    await embedder.embed(MIXED, DOCUMENT)

    (request,) = nim.requests
    assert request["input_type"] == "passage"
    assert request["modality"] == ["text", "image", "text", "image"]
    assert request["truncate"] == "NONE"
    assert request["encoding_format"] == "base64"


async def test_a_search_by_words_and_pictures_keeps_its_order_over_two_requests(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    outcomes = vectors(await embedder.embed(MIXED, QUERY))

    assert sorted((request["input_type"], len(request["input"])) for request in nim.requests) == [
        ("passage", 2),
        ("query", 2),
    ]
    expected = [nim.vector(each.content if isinstance(each, ImageInput) else f"query: {each.text}") for each in MIXED]
    np.testing.assert_allclose(outcomes, np.stack(expected), atol=1e-6)


async def test_a_text_that_is_too_long_fails_alone_unless_it_may_be_cut(nim: FakeNim, embedder: NimEmbedder) -> None:
    long = "cat " * 301
    cut, bad, good = await embedder.embed([TextInput(long, truncate=True), TextInput(long), CAT], DOCUMENT)

    assert len(vectors([cut, good])) == 2
    assert isinstance(bad, InputRejected)
    assert "2048 tokens" in str(bad)
    assert "truncated" in str(bad)


async def test_a_text_goes_as_it_is_because_the_request_says_that_it_is_one(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    await embedder.embed([TextInput("one\ntwo data:image/png;base64,AAAA")], QUERY)

    assert nim.requests[0]["input"] == ["one\ntwo data:image/png;base64,AAAA"]


async def test_a_batch_is_that_of_the_profile(nim: FakeNim, embedder: NimEmbedder) -> None:
    await embedder.embed([TextInput(f"text {number}") for number in range(31)], DOCUMENT)

    assert sorted(len(request["input"]) for request in nim.requests) == [1, 30]


async def test_vectors_of_nothing_but_zeros_are_refused(nim: FakeNim, embedder: NimEmbedder) -> None:
    def blank(answer: dict[str, list[dict[str, object]]]) -> None:
        answer["data"][0]["embedding"] = [0.0] * nim.dimension

    nim.faults.append(Fault(change=blank))
    with pytest.raises(AnswerInvalid, match="zeros"):
        await embedder.embed([CAT, DOG], QUERY)


async def test_the_wrong_profile_is_told_from_wrong_inputs(nim: FakeNim, config: NimConfig) -> None:
    embedder = NimEmbedder(replace(config, profile="nvclip"))
    await embedder.start()
    try:
        with pytest.raises(AnswerInvalid, match=r"input_type or truncate: unknown.*profile nvclip"):
            await embedder.embed([CAT] * 64, QUERY)
        assert len(nim.requests) == 2
        with pytest.raises(AnswerInvalid, match="even a plain image"):
            await embedder.embed([RED, RED], QUERY)
    finally:
        await embedder.close()


async def test_the_profile_knows_the_dimension_unless_it_is_set(config: NimConfig) -> None:
    assert NimEmbedder(replace(config, dimension=None)).spec.dimension == 2048
    assert NimEmbedder(replace(config, dimension=None, model="nvidia/nvclip")).spec.dimension == 1024
    assert NimEmbedder(config).spec.dimension == 16


async def test_a_dimension_that_the_profile_knows_is_checked(nim: FakeNim, config: NimConfig) -> None:
    embedder = NimEmbedder(replace(config, dimension=None))
    await embedder.start()
    try:
        with pytest.raises(AnswerInvalid, match="16 values; 2048 are expected"):
            await embedder.check()
    finally:
        await embedder.close()


async def test_starting_learns_a_dimension_that_nobody_knows_and_holds_the_nim_to_it() -> None:
    async with FakeNim(model=UNKNOWN, dimension=24) as nim:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, model=UNKNOWN))
        assert embedder.spec.dimension == 0
        await embedder.start()
        try:
            assert embedder.spec.dimension == 24
            assert vectors(await embedder.embed(MIXED, QUERY)).shape == (4, 24)
            nim.dimension = 25
            with pytest.raises(AnswerInvalid, match="25 values; 24 are expected"):
                await embedder.embed([CAT], QUERY)
        finally:
            await embedder.close()


async def test_nothing_is_embedded_until_a_check_has_learnt_the_dimension() -> None:
    async with FakeNim(model=UNKNOWN, dimension=24) as nim:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, model=UNKNOWN, retry_attempts=1))
        await nim.die()
        await embedder.start()
        try:
            assert embedder.spec.dimension == 0
            with pytest.raises(EmbedderUnavailable, match="dimension"):
                await embedder.embed([CAT], QUERY)
            await nim.rise()
            await embedder.check()
            assert embedder.spec.dimension == 24
            assert vectors(await embedder.embed([CAT], QUERY)).shape == (1, 24)
        finally:
            await embedder.close()


@pytest.mark.parametrize(
    ("refusal", "error", "words"),
    [
        ({"detail": "Model nvidia/x is not loaded"}, ModelGone, "is not loaded"),
        (
            {"title": "Bad", "detail": "Function abc: DEGRADED function cannot be invoked"},
            EmbedderUnavailable,
            "DEGRADED",
        ),
        ({"error": {"message": "Extra inputs are not permitted"}}, AnswerInvalid, "Extra inputs"),
        (
            {"detail": [{"loc": ["body", "model"], "msg": "Input should be 'x'"}]},
            ModelGone,
            "body.model: Input should be 'x'",
        ),
        ({}, AnswerInvalid, "with status 422; check"),
    ],
)
async def test_what_the_nim_says_of_an_input_of_ours_reaches_the_operator(
    nim: FakeNim, embedder: NimEmbedder, refusal: dict[str, object], error: type[Exception], words: str
) -> None:
    nim.refuses, nim.refusal = (lambda _: True), refusal or {"nothing": 1}

    with pytest.raises(error) as failure:
        await embedder.embed([CAT] * 20, QUERY)

    assert type(failure.value) is error
    assert words in str(failure.value)
    assert "mat" not in str(failure.value)
    assert len(nim.requests) == 2


async def test_pictures_that_the_nim_takes_none_of_are_told_from_bad_ones(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.refuses = lambda item: item.startswith("data:image")
    pictures = [ImageInput(picture((number, 0, 0))) for number in range(20)]

    with pytest.raises(AnswerInvalid, match="even a plain image"):
        await embedder.embed(pictures, DOCUMENT)

    assert len(nim.requests) == 2
