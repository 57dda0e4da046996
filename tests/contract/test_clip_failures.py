"""What goes wrong in ClipEmbedder's threads costs one call, and no hang."""

import asyncio
from typing import Any

import numpy as np
import pytest

from embedders.clip import ClipEmbedder
from embedders.errors import AnswerInvalid, EmbedderUnavailable, InputRejected
from embedders.inputs import QUERY, Embedding
from tests.contract.embedder_suite import CAT, DOG, MIXED, vectors


async def test_a_forward_pass_that_raises_fails_its_call_and_not_the_next(
    embedder: ClipEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(embedder._model, "encode_texts", lambda _: 1 / 0)
        with pytest.raises(EmbedderUnavailable, match="ZeroDivisionError"):
            await embedder.embed(MIXED, QUERY)
    assert len(vectors(await embedder.embed(MIXED, QUERY))) == 4


async def test_a_dead_worker_gives_an_error_and_no_hang(embedder: ClipEmbedder) -> None:
    embedder._worker.shutdown()
    with pytest.raises(EmbedderUnavailable):
        await asyncio.wait_for(embedder.embed([CAT], QUERY), 10)


async def test_an_input_whose_vector_is_not_finite_fails_alone(
    embedder: ClipEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert embedder._model is not None
    encode = embedder._model.encode_texts

    def spoil(texts: Any) -> Any:
        rows = encode(texts).copy()
        rows[0] = np.nan
        return rows

    monkeypatch.setattr(embedder._model, "encode_texts", spoil)
    bad, good = await embedder.embed([CAT, DOG], QUERY)
    assert isinstance(bad, InputRejected)
    assert isinstance(good, Embedding)
    with pytest.raises(AnswerInvalid):
        await embedder.embed([CAT], QUERY)
