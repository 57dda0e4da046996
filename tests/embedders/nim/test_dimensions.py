"""Vectors of a dimension that is asked for: sent, checked, scaled, and a space of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from embedders.contract import DOCUMENT, QUERY
from embedders.errors import AnswerInvalid, ModelUnusable
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.embedders.nim.starting import start_learnt
from tests.embedders.suite import CAT, DOG, LIMITS, RED, EmbedderSuite, vectors
from tests.fakes.nim import FakeNim, Fault

VL = "nvidia/llama-nemotron-embed-vl-1b-v2"


@asynccontextmanager
async def running(nim: FakeNim, dimensions: int | None, model: str | None = None) -> AsyncIterator[NimEmbedder]:
    config = NimConfig(base_url=nim.base_url, model=model, dimensions=dimensions, limits=LIMITS, retry_attempts=1)
    embedder = NimEmbedder(config)
    await start_learnt(embedder, nim)
    try:
        yield embedder
    finally:
        await embedder.close()


class TestContract(EmbedderSuite):
    """The contract."""

    @pytest.fixture
    async def embedder(self) -> AsyncIterator[NimEmbedder]:
        async with FakeNim(model=VL) as nim, running(nim, 8) as embedder:
            yield embedder


@pytest.mark.parametrize("model", [VL, "nvidia/Nemotron-3.5-Embed-8B-BF16"])
async def test_the_first_values_scaled_to_unit_length_are_the_vector(model: str) -> None:
    async with FakeNim(model=model) as nim, running(nim, 8) as short, running(nim, None) as whole:
        rows = vectors(await short.embed([CAT, RED], DOCUMENT))
        full = vectors(await whole.embed([CAT, RED], DOCUMENT))

        assert (short.spec.space, short.spec.dimension) == (f"{model}@8", 8)
        assert (whole.spec.space, whole.spec.dimension) == (model, 16)
        assert [request.get("dimensions") for request in nim.requests] == [8, None]
        cut = full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True)
        np.testing.assert_allclose(rows, cut, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


async def test_the_models_own_dimension_is_a_space_of_its_own_too_when_it_is_asked_for() -> None:
    async with FakeNim(model=VL) as nim, running(nim, 16) as embedder:
        rows = vectors(await embedder.embed([CAT], DOCUMENT))

        assert embedder.spec.space == f"{VL}@16"
        np.testing.assert_allclose(rows[0], nim.vector(CAT.text, "passage"), atol=1e-6)


@pytest.mark.parametrize("model", [VL, None])
async def test_the_dimension_is_known_before_the_nim_has_answered(model: str | None) -> None:
    async with FakeNim(model=VL) as nim:
        await nim.die()
        async with running(nim, 8, model) as embedder:
            spec = embedder.spec
            await nim.rise()
            await embedder.check()
            then = embedder.spec

    assert (spec.dimension, spec.learnt, spec.space) == (8, False, f"{VL}@8" if model else "")
    assert (then.dimension, then.learnt, then.space) == (8, True, f"{VL}@8")


@pytest.mark.parametrize("dimensions", [384, 512, 768, 1024, 2048])
async def test_each_documented_value_is_taken(dimensions: int) -> None:
    async with (
        FakeNim(model="nvidia/llama-nemotron-embed-1b-v2", dimension=2048) as nim,
        running(nim, dimensions) as it,
    ):
        assert vectors(await it.embed([CAT], QUERY)).shape == (1, dimensions)


async def test_a_value_that_the_nim_refuses_is_told_with_its_words_and_blames_no_input() -> None:
    async with FakeNim(model=VL) as nim, running(nim, 17) as embedder:
        with pytest.raises(ModelUnusable, match=r"17 is not among those of the model.*set dimensions to what"):
            await embedder.check()
        with pytest.raises(ModelUnusable, match="17"):
            await embedder.embed([CAT, DOG], QUERY)


async def test_an_answer_of_another_length_is_refused() -> None:
    def whole(answer: dict[str, list[dict[str, object]]]) -> None:
        for each in answer["data"]:
            each["embedding"] = [1.0] * 16

    async with FakeNim(model=VL) as nim:
        nim.fault = Fault(change=whole)
        async with running(nim, 8) as embedder:
            with pytest.raises(AnswerInvalid, match="a vector of 16 values, though dimensions asks for 8"):
                await embedder.embed([CAT], QUERY)


async def test_a_model_without_them_is_told_when_its_name_is_learnt() -> None:
    async with FakeNim(model="nvidia/nemotron-3-embed-1b") as nim, running(nim, 8) as embedder:
        with pytest.raises(ModelUnusable, match=r"serves nvidia/nemotron-3-embed-1b: dimensions is 8;.*profile text"):
            await embedder.check()
