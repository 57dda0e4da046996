"""1,000 hostile images and 1,000 hostile texts cost a clear error each, and their neighbours nothing."""

import resource
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from embedders.clip import ClipConfig
from embedders.contract import DOCUMENT, Embedder, Embedding, ImageInput, Input, InputLimits, TextInput
from embedders.errors import InputRejected
from embedders.factory import build_embedder
from embedders.front.queueing import QueueBounds
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.conftest import assert_close
from tests.embedders.suite import vectors
from tests.fakes.embedder import picture
from tests.fakes.hostile import hostile_images, hostile_texts
from tests.fakes.models import ServedModels
from tests.fakes.nim import FakeNim

# As a production server treats what Pillow warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning"),
    pytest.mark.timeout(120),
]

COUNT = 1000
LIMITS = InputLimits(max_text_bytes=32 * 1024, max_image_bytes=2**20, max_image_pixels=1_000_000)
# Four pictures are decoded at a time, of at most a million pixels and in at most 17 bytes each: 65 MiB. The rest is
# what allocators keep and what the threads' first use of a library takes.
MAX_GROWTH_MIB = 150
NEIGHBOURS: list[Input] = [
    TextInput("a cat on a mat"),
    ImageInput(picture((220, 20, 20), size=(40, 30))),
    TextInput("two dogs in the rain"),
    ImageInput(picture((20, 20, 220), size=(30, 40), file_format="JPEG")),
]


@pytest.fixture
async def local(config: ClipConfig, served: ServedModels) -> AsyncIterator[Embedder]:
    """The tiny model behind the queue that the service puts in front of it."""
    embedder = build_embedder(
        served(replace(config, limits=LIMITS, max_batch=32)), bounds=QueueBounds(max_inputs=256, max_bytes=2**28)
    )
    await embedder.start()
    yield embedder
    await embedder.close()


async def outcomes_of(embedder: Embedder, hostile: Sequence[Input], tolerance: float) -> Counter[str]:
    """Embed hostile inputs among their neighbours, hold both to the contract, and count what became of the former."""
    alone = vectors([(await embedder.embed([each], DOCUMENT))[0] for each in NEIGHBOURS])
    kinds: Counter[str] = Counter()
    for start in range(0, len(hostile), 24):
        some = hostile[start : start + 24]

        outcomes = await embedder.embed([*NEIGHBOURS[:2], *some, *NEIGHBOURS[2:]], DOCUMENT)

        assert_close(vectors([*outcomes[:2], *outcomes[-2:]]), alone, tolerance)
        for each in outcomes[2:-2]:
            if isinstance(each, Embedding):
                assert np.isfinite(each.vector).all()
                assert float(np.linalg.norm(each.vector)) == pytest.approx(1, abs=1e-3)
            else:
                assert isinstance(each, InputRejected)
                assert 20 < len(str(each)) < 300
            kinds[type(each).__name__] += 1
    return kinds


async def test_hostile_images_cost_the_local_model_an_error_each(local: Embedder) -> None:
    images = hostile_images(COUNT)
    await outcomes_of(local, [ImageInput(each) for each in images[:50]], 1e-6)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    kinds = await outcomes_of(local, [ImageInput(each) for each in images], 1e-6)

    assert kinds.total() == COUNT
    assert {"Embedding", "ImageUndecodable", "ImageTooLarge", "ImageEmpty"} <= kinds.keys()
    assert kinds["Embedding"] > 100
    assert kinds["ImageUndecodable"] > 300
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MAX_GROWTH_MIB


@pytest.mark.parametrize("truncate", [False, True])
async def test_hostile_texts_cost_the_local_model_an_error_each(local: Embedder, *, truncate: bool) -> None:
    texts = hostile_texts(COUNT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    kinds = await outcomes_of(local, [TextInput(each, truncate) for each in texts], 1e-6)

    assert kinds.total() == COUNT
    assert {"Embedding", "InputRejected", "TextTooLong"} == kinds.keys()
    assert kinds["Embedding"] > 100
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MAX_GROWTH_MIB


async def test_hostile_inputs_cost_a_nim_s_callers_an_error_each() -> None:
    hostile: list[Input] = [
        *(ImageInput(each) for each in hostile_images(COUNT)),
        *(TextInput(each) for each in hostile_texts(COUNT)),
    ]
    async with FakeNim() as nim:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, model=nim.model, limits=LIMITS))
        await embedder.start()
        await outcomes_of(embedder, hostile[:50], 0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            kinds = await outcomes_of(embedder, hostile, 0)
        finally:
            await embedder.close()

    assert kinds.total() == 2 * COUNT
    assert kinds["Embedding"] > 200
    assert kinds["ImageUndecodable"] > 300
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MAX_GROWTH_MIB


def test_the_hostile_inputs_are_the_same_in_every_run() -> None:
    images, texts = hostile_images(COUNT), hostile_texts(COUNT)

    assert (images, texts) == (hostile_images(COUNT), hostile_texts(COUNT))
    assert (len(images), len(texts)) == (COUNT, COUNT)
    assert max(map(len, texts)) >= 2**20
