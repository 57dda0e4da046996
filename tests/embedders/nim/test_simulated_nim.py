"""The simulated NIM keeps the documented rules, so that a test of a client that breaks one fails."""

import base64
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.embedders.suite import RED
from tests.fakes.nim import FakeNim, FakePair
from tests.fakes.nim_server import Refusal

VL, TEXTS, CLIP = "nvidia/llama-nemotron-embed-vl-1b-v2", "nvidia/nv-embedqa-e5-v5", "nvidia/nvclip"
MATRYOSHKA, FIXED = "nvidia/llama-nemotron-embed-1b-v2", "nvidia/nemotron-3-embed-1b"
URL = f"data:image/png;base64,{base64.b64encode(RED.content).decode()}"
GIF = f"data:image/gif;base64,{base64.b64encode(b'GIF89a').decode()}"
WRONG_TYPE = URL.replace("png", "jpeg", 1)
QUERY, PASSAGE = {"input_type": "query"}, {"input_type": "passage"}


def ask(model: str, items: Any, **fields: Any) -> dict[str, Any]:
    nim = FakeNim(model=model, dimension=2048, max_words=5)
    return nim.answer({"model": model, "input": items, **fields})


@pytest.mark.parametrize(
    ("model", "items", "fields", "status"),
    [
        pytest.param(CLIP, ["a"] * 65, {}, 422, id="batch"),
        pytest.param(CLIP, ["a"], QUERY, 422, id="extra-field"),
        pytest.param(CLIP, ["a\nb"], {}, 422, id="line-end"),
        pytest.param(CLIP, [GIF], {}, 422, id="gif"),
        pytest.param(CLIP, [WRONG_TYPE], {}, 422, id="wrong-type"),
        pytest.param(CLIP, [f"see {URL}"], {}, 422, id="url-inside"),
        pytest.param(CLIP, [], {}, 422, id="nothing"),
        pytest.param(TEXTS, ["a"], {}, 400, id="no-role"),
        pytest.param(TEXTS, [URL], PASSAGE | {"modality": "image"}, 400, id="image-for-texts"),
        pytest.param(VL, ["a"], {"input_type": "document"}, 400, id="unknown-role"),
        pytest.param(VL, ["a"], QUERY | {"truncate": "MIDDLE"}, 400, id="truncate"),
        pytest.param(VL, ["a"], QUERY | {"embedding_type": "ternary"}, 400, id="embedding-type"),
        pytest.param(VL, [URL], QUERY | {"modality": "image"}, 400, id="image-as-query"),
        pytest.param(VL, ["a", "b"], PASSAGE | {"modality": ["text", "text", "text"]}, 400, id="modalities"),
        pytest.param(VL, ["a"], PASSAGE | {"modality": "video"}, 400, id="modality"),
        pytest.param(VL, ["a"], PASSAGE | {"modality": "image"}, 400, id="no-image"),
        pytest.param(VL, [f" \n{URL}"], PASSAGE | {"modality": "text_image"}, 400, id="blank-text"),
        pytest.param(VL, [f"{URL} {URL}"], PASSAGE | {"modality": "text_image"}, 400, id="two-images"),
        pytest.param(VL, [f"see {URL}"], PASSAGE, 400, id="modality-not-said"),
        pytest.param(VL, ["a"], PASSAGE | {"dimensions": "8"}, 400, id="dimensions-type"),
        pytest.param(MATRYOSHKA, ["a"], PASSAGE | {"dimensions": 500}, 400, id="dimensions-not-listed"),
        pytest.param(FIXED, ["a"], PASSAGE | {"dimensions": 512}, 400, id="dimensions-fixed"),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused_as_one_that_does(
    model: str, items: Any, fields: dict[str, Any], status: int
) -> None:
    with pytest.raises(Refusal) as refusal:
        ask(model, items, **fields)

    assert (refusal.value.status, refusal.value.broken) == (status, True)


@pytest.mark.parametrize(
    ("model", "items", "fields", "status"),
    [
        pytest.param(VL, ["a b c d e f"], QUERY, 400, id="too-long"),
        pytest.param(VL, ["a"], QUERY | {"model": "other"}, 404, id="model"),
        pytest.param(CLIP, ["a"], {"model": "other"}, 422, id="model-of-nvclip"),
        pytest.param(VL, ["a"], QUERY | {"dimensions": 4096}, 400, id="undocumented-dimensions"),
    ],
)
def test_what_a_client_cannot_know_is_refused_and_breaks_no_rule(
    model: str, items: Any, fields: dict[str, Any], status: int
) -> None:
    with pytest.raises(Refusal) as refusal:
        FakeNim(model=model, dimension=2048, max_words=5).answer({"model": model, "input": items, **fields})

    assert (refusal.value.status, refusal.value.broken) == (status, False)


async def test_a_broken_rule_fails_the_test_that_broke_it_unless_it_is_forgiven() -> None:
    async def post(nim: FakeNim) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as http:
            body = {"model": TEXTS, "input": ["a"]}
            async with http.post(f"{nim.base_url}/v1/embeddings", json=body) as answer:
                return answer.status, await answer.json()

    with pytest.raises(AssertionError, match="broke the rules of nvidia/nv-embedqa-e5-v5: input_type"):
        async with FakeNim(model=TEXTS) as nim:
            assert await post(nim) == (400, {"error": "input_type: query or passage is required"})

    async with FakeNim(model=TEXTS) as nim:
        await post(nim)
        assert nim.forgive() == ["input_type: query or passage is required"]


def test_spaces_are_apart_precisions_are_near_and_a_text_is_near_itself_in_other_roles_and_with_a_picture() -> None:
    def vector(model: str, content: Any, role: str | None = None, dimensions: int | None = None) -> np.ndarray:
        return FakeNim(model=model, dimension=256).vector(content, role, dimensions)

    bf16, nvfp4 = "nvidia/Nemotron-3.5-Embed-1B-BF16", "nvidia/Nemotron-3.5-Embed-1B-NVFP4"
    query = vector(bf16, "a cat", "query")

    assert query @ vector(nvfp4, "a cat", "query") > 0.98
    assert abs(query @ vector(VL, "a cat", "query")) < 0.3
    assert 0.8 < query @ vector(bf16, "a cat", "passage") < 0.999
    assert query @ vector(bf16, FakePair("a cat", RED.content), "passage") > 0.5
    assert abs(query @ vector(bf16, "a dog", "query")) < 0.3
    cut = query[:16] / np.linalg.norm(query[:16])
    np.testing.assert_allclose(vector(bf16, "a cat", "query", 16), cut, atol=1e-6)
