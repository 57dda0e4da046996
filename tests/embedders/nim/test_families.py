"""NimEmbedder against every family of NIMs: their rules, which the simulated NIM checks, and what refusals mean."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from embedders.contract import DOCUMENT, QUERY, ImageInput, Input, Modality, TextImageInput, TextInput, modality
from embedders.errors import AnswerInvalid, EmbedderUnavailable, InputRejected, ModelGone
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.embedders.nim.starting import start_learnt
from tests.embedders.suite import BOTH, CAT, DOG, LIMITS, MIXED, RED, EmbedderSuite, vectors
from tests.fakes.embedder import picture
from tests.fakes.nim import Content, FakeNim, FakePair, Fault

VL = "nvidia/llama-nemotron-embed-vl-1b-v2"
NEMOTRON = "nvidia/Nemotron-3.5-Embed-1B-BF16"
TEXTS = "nvidia/nv-embedqa-e5-v5"
FAMILIES = [
    "nvidia/nvclip",
    NEMOTRON,
    "nvidia/nemotron-3.5-embed-8b",
    VL,
    "nvidia/llama-3.2-nemoretriever-1b-vlm-embed-v1",
    "nvidia/llama-nemotron-embed-1b-v2",
    "nvidia/nemotron-3-embed-1b",
    TEXTS,
    "baai/bge-m3",
    "somebody/multimodal",
]
URL = "data:image/png;base64,AAAA"


@pytest.fixture
def model() -> str:
    """The served id; a class or a test may have another one."""
    return VL


@pytest.fixture
async def nim(model: str) -> AsyncIterator[FakeNim]:
    async with FakeNim(model=model, max_words=300) as nim:
        yield nim


@pytest.fixture
def config(nim: FakeNim) -> NimConfig:
    return NimConfig(base_url=nim.base_url, limits=LIMITS, retry_attempts=1)


@pytest.fixture
async def embedder(nim: FakeNim, config: NimConfig) -> AsyncIterator[NimEmbedder]:
    embedder = NimEmbedder(config)
    await start_learnt(embedder, nim)
    yield embedder
    await embedder.close()


def content(each: Input) -> Content:
    """Return an input as the simulated NIM knows it."""
    match each:
        case TextInput():
            return each.text
        case ImageInput():
            return each.content
        case TextImageInput():
            return FakePair(each.text, each.content)


def assert_near(actual: np.ndarray, *expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, np.stack(expected), atol=1e-6)


@pytest.mark.parametrize("model", FAMILIES)
class TestContract(EmbedderSuite):
    """The contract, for each family; none of its requests may break a rule."""


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("options", [QUERY, DOCUMENT])
async def test_each_input_has_the_vector_of_its_content_in_its_role(
    nim: FakeNim, embedder: NimEmbedder, options: Any
) -> None:
    inputs = [each for each in [*MIXED, BOTH] if modality(each) in embedder.spec.modalities]

    outcomes = vectors(await embedder.embed(inputs, options))

    roles = [
        ("query" if options is QUERY and isinstance(each, TextInput) else "passage") if nim.family.retriever else None
        for each in inputs
    ]
    expected = [nim.vector(content(each), role) for each, role in zip(inputs, roles, strict=True)]
    assert_near(outcomes, *expected)


@pytest.mark.parametrize("model", [VL, NEMOTRON])
async def test_an_import_of_texts_pictures_and_both_is_one_request(nim: FakeNim, embedder: NimEmbedder) -> None:
    await embedder.embed([*MIXED, BOTH], DOCUMENT)

    (request,) = nim.requests
    assert request["input_type"] == "passage"
    assert request["modality"] == ["text", "image", "text", "image", "text_image"]
    assert request["truncate"] == "NONE"
    assert request["encoding_format"] == "base64"
    text, _, url = request["input"][4].partition("\n")
    assert text == BOTH.text
    assert url.startswith("data:image/png;base64,")


async def test_a_search_by_words_and_pictures_is_two_requests(nim: FakeNim, embedder: NimEmbedder) -> None:
    await embedder.embed([*MIXED, BOTH], QUERY)

    assert sorted((request["input_type"], request["modality"]) for request in nim.requests) == [
        ("passage", ["image", "image", "text_image"]),
        ("query", "text"),
    ]


@pytest.mark.parametrize("model", ["nvidia/nemotron-3-embed-1b", TEXTS, "baai/bge-m3"])
async def test_a_picture_for_a_model_that_reads_texts_only_is_refused_at_once_by_name(
    nim: FakeNim, embedder: NimEmbedder, model: str
) -> None:
    bad, both = await embedder.embed([RED, BOTH], DOCUMENT)

    assert embedder.spec.modalities == {Modality.TEXT}
    assert [type(each) for each in (bad, both)] == [InputRejected, InputRejected]
    assert model in str(bad)
    assert nim.requests == []


@pytest.mark.parametrize("too_long", [400, 422])
@pytest.mark.parametrize("release", ["1.x", "2.x", "hosted"])
@pytest.mark.parametrize("model", [VL, TEXTS])
async def test_a_text_that_is_too_long_fails_alone_unless_it_may_be_cut_and_the_nims_bound_is_told(
    model: str, release: Literal["1.x", "2.x", "hosted"], too_long: int
) -> None:
    long = "cat " * 301
    inputs = [TextInput(long, truncate=True), TextInput(long), CAT]
    async with FakeNim(model=model, max_words=300, too_long=too_long, release=release) as nim:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, limits=LIMITS, retry_attempts=1))
        await start_learnt(embedder, nim)
        try:
            cut, bad, good = await embedder.embed(inputs, DOCUMENT)
        finally:
            await embedder.close()

        assert_near(
            vectors([cut, good]), nim.vector(("cat " * 300).strip(), "passage"), nim.vector(CAT.text, "passage")
        )
    assert isinstance(bad, InputRejected)
    assert "at most 300 tokens" in str(bad)
    assert "truncated" in str(bad)


@pytest.mark.parametrize("model", [VL, TEXTS])
async def test_a_text_is_cut_at_the_end_that_the_caller_names(model: str) -> None:
    long = "dog " + "cat " * 300
    inputs = [TextInput(long, truncate=True, at_start=True), TextInput(long, truncate=True)]
    async with FakeNim(model=model, max_words=300) as nim:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, limits=LIMITS, retry_attempts=1))
        await embedder.start()
        try:
            outcomes = await embedder.embed(inputs, DOCUMENT)
        finally:
            await embedder.close()

        expected = (("cat " * 300).strip(), ("dog " + "cat " * 299).strip())
        assert_near(vectors(outcomes), *(nim.vector(text, "passage") for text in expected))


async def test_the_documented_bound_is_told_where_the_nim_tells_none(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.said = {"error": "too long"}

    (bad,) = await embedder.embed([TextInput("cat " * 301)], DOCUMENT)

    assert "at most 2048 tokens" in str(bad)


@pytest.mark.parametrize("model", [VL, NEMOTRON, TEXTS])
async def test_a_text_goes_as_it_is_because_the_request_says_that_it_is_one(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    text = f"one\n<img src='{URL}'> two"

    assert_near(vectors(await embedder.embed([TextInput(text)], QUERY)), nim.vector(text, "query"))

    assert nim.requests[0]["input"] == [text]


@pytest.mark.parametrize("model", ["nvidia/nvclip", "somebody/multimodal"])
@pytest.mark.parametrize("text", [URL, f"see {URL}", f"![]({URL.upper()})", f"a\n{URL} {URL}"])
async def test_no_text_is_a_picture_for_a_nim_that_is_not_told_what_it_gets(
    nim: FakeNim, embedder: NimEmbedder, text: str
) -> None:
    broken = text.replace("\n", " ").replace("data:", "data: ").replace("DATA:", "DATA: ")

    assert_near(vectors(await embedder.embed([TextInput(text)], QUERY)), nim.vector(broken))


async def test_a_data_url_in_the_text_of_a_picture_is_no_second_picture(nim: FakeNim, embedder: NimEmbedder) -> None:
    pair = TextImageInput(f"see {URL}", RED.content)

    rows = vectors(await embedder.embed([pair], DOCUMENT))

    broken = f"see {URL.replace(':image', ': image')}"
    assert_near(rows, nim.vector(FakePair(broken, RED.content), "passage"))


@pytest.mark.parametrize("model", [TEXTS, "baai/bge-m3"])
async def test_a_release_that_does_not_know_modality_is_not_told_it(model: str) -> None:
    async with FakeNim(model=model, release="1.x") as nim:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, retry_attempts=1))
        await start_learnt(embedder, nim)
        try:
            await embedder.embed([TextInput(f"see {URL}")], QUERY)
        finally:
            await embedder.close()

        (request,) = nim.requests
        assert "modality" not in request
        assert request["input_type"] == "query"
        assert request["input"] == ["see data: image/png;base64,AAAA"]


@pytest.mark.parametrize(("model", "batch"), [("nvidia/nvclip", 64), (NEMOTRON, 16), (VL, 32), (TEXTS, 32)])
async def test_a_batch_is_that_of_the_profile(nim: FakeNim, embedder: NimEmbedder, batch: int) -> None:
    assert embedder.spec.max_batch == batch

    await embedder.embed([TextInput(f"text {number}") for number in range(batch + 1)], DOCUMENT)

    assert sorted(len(request["input"]) for request in nim.requests) == [1, batch]


async def test_a_fault_of_a_text_with_a_picture_is_told_with_both_fixes(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.refuses = lambda item: "data:image" in item

    good, bad = await embedder.embed([CAT, BOTH], DOCUMENT)

    assert len(vectors([good])) == 1
    assert "shorter text" in str(bad)
    assert "smaller JPEG or PNG image" in str(bad)


async def test_vectors_of_nothing_but_zeros_are_refused(nim: FakeNim, embedder: NimEmbedder) -> None:
    def blank(answer: dict[str, list[dict[str, object]]]) -> None:
        answer["data"][0]["embedding"] = [0.0] * nim.dimension

    nim.faults.append(Fault(change=blank))
    with pytest.raises(AnswerInvalid, match="zeros"):
        await embedder.embed([CAT, DOG], QUERY)


@pytest.mark.parametrize("model", [TEXTS])
async def test_the_wrong_profile_is_told_from_wrong_inputs(nim: FakeNim, config: NimConfig) -> None:
    embedder = NimEmbedder(replace(config, profile="nvclip"))
    await embedder.start()
    try:
        with pytest.raises(AnswerInvalid, match=r"input_type: query or passage is required.*profile nvclip"):
            await embedder.embed([CAT] * 64, QUERY)
    finally:
        await embedder.close()

    assert set(nim.forgive()) == {"input_type: query or passage is required"}


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
        ({}, AnswerInvalid, "with status 400; check"),
    ],
)
async def test_what_the_nim_says_of_an_input_of_ours_reaches_the_operator(
    nim: FakeNim, embedder: NimEmbedder, refusal: dict[str, object], error: type[Exception], words: str
) -> None:
    nim.refuses, nim.said = (lambda _: True), refusal or {"nothing": 1}

    with pytest.raises(error) as failure:
        await embedder.embed([CAT] * 20, QUERY)

    assert type(failure.value) is error
    assert words in str(failure.value)
    assert "mat" not in str(failure.value)
    assert len(nim.requests) == 2


@pytest.mark.parametrize(("inputs", "what"), [([RED] * 20, "image"), ([BOTH] * 3, "text with an image")])
async def test_pictures_that_the_nim_takes_none_of_are_told_from_bad_ones(
    nim: FakeNim, embedder: NimEmbedder, inputs: list[Input], what: str
) -> None:
    nim.refuses = lambda item: "data:image" in item

    with pytest.raises(AnswerInvalid, match=f"even a plain {what} with"):
        await embedder.embed(inputs, DOCUMENT)

    assert len(nim.requests) == 2


@pytest.mark.parametrize("file_format", ["WEBP", "GIF", "BMP", "JPEG"])
async def test_a_picture_beside_a_text_goes_as_jpeg_or_png(
    nim: FakeNim, embedder: NimEmbedder, file_format: str
) -> None:
    pair = TextImageInput("a cat", picture(file_format=file_format))

    assert len(vectors(await embedder.embed([pair], DOCUMENT))) == 1
