"""Vecgate's own NIM client keeps the contract against Vecgate's endpoint, as it does against a NIM."""

from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from embedders.contract import QUERY
from embedders.errors import ModelGone
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.embedders.suite import CAT, LIMITS, MIXED, EmbedderSuite, vectors
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.web import MODEL, Web, web_in_thread


@pytest.fixture
def web() -> Iterator[Web]:
    with web_in_thread(FakeEmbedder(dimension=16, limits=LIMITS)) as running:
        yield running


@pytest.fixture
async def embedder(web: Web) -> AsyncIterator[NimEmbedder]:
    embedder = NimEmbedder(NimConfig(base_url=web.url, model=MODEL, limits=LIMITS, timeout_s=20))
    await embedder.start()
    await embedder.check()
    yield embedder
    await embedder.close()


class TestContract(EmbedderSuite):
    """The contract."""


async def test_what_comes_over_the_wire_is_the_embedder_s_own_vector_to_the_bit(
    web: Web, embedder: NimEmbedder
) -> None:
    outcomes = vectors(await embedder.embed(MIXED, QUERY))
    own = [web.embedder.vector(each.text if hasattr(each, "text") else each.content) for each in MIXED]

    np.testing.assert_array_equal(outcomes, np.stack(own))


async def test_another_model_is_gone_as_it_is_from_a_nim(web: Web) -> None:
    embedder = NimEmbedder(NimConfig(base_url=web.url, model="nvidia/other"))
    await embedder.start()
    try:
        with pytest.raises(ModelGone):
            await embedder.embed([CAT], QUERY)
    finally:
        await embedder.close()
