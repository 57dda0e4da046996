"""ClipEmbedder on GPUs: its vectors are near those of a CPU, whatever the precision and the number of devices."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from embedders.clip import ClipConfig, ClipEmbedder
from embedders.clip.loading import GPU_SLOTS, LEAST_PARITY
from embedders.contract import DOCUMENT, ImageInput, Input, TextInput
from tests.embedders.suite import vectors
from tests.fakes.embedder import picture

pytestmark = pytest.mark.gpu

TEXTS: list[Input] = [TextInput("a red bicycle"), TextInput("ready"), TextInput("one two three four five six")]
PICTURES: list[Input] = [ImageInput(picture((at * 20, 99, 255 - at * 20), size=(40, 30 + at))) for at in range(11)]


@pytest.fixture(autouse=True)
def gpus() -> int:
    """Return how many GPUs there are, and skip where there is none."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.cuda.device_count()


@asynccontextmanager
async def started(config: ClipConfig, **changes: Any) -> AsyncIterator[ClipEmbedder]:
    embedder = ClipEmbedder(replace(config, **changes))
    await embedder.start()
    yield embedder
    await embedder.close()


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("auto", LEAST_PARITY), ("bf16", LEAST_PARITY)])
async def test_vectors_of_a_gpu_are_near_those_of_a_cpu(
    config: ClipConfig, embedder: ClipEmbedder, precision: str, least: float
) -> None:
    expected = vectors(await embedder.embed([*TEXTS, *PICTURES], DOCUMENT))

    async with started(config, device="cuda:0", precision=precision) as gpu:
        actual = vectors(await gpu.embed([*TEXTS, *PICTURES], DOCUMENT))

        assert gpu.spec.space == embedder.spec.space
        assert ((actual * expected).sum(axis=1) >= least).all()


async def test_pictures_from_many_calls_at_once_keep_their_vectors_on_their_way_through_pinned_memory(
    config: ClipConfig, embedder: ClipEmbedder
) -> None:
    expected = vectors(await embedder.embed(PICTURES, DOCUMENT))

    async with started(config, device="cuda:0", precision="fp32") as gpu:
        for _ in range(20):
            calls = await asyncio.gather(*(gpu.embed([each], DOCUMENT) for each in PICTURES))
            actual = vectors([outcome for outcomes in calls for outcome in outcomes])
            assert ((actual * expected).sum(axis=1) >= 0.99999).all()


async def test_all_gpus_share_the_work_and_give_the_same_vectors(
    config: ClipConfig, embedder: ClipEmbedder, gpus: int
) -> None:
    if gpus < 2:
        pytest.skip("there is only one CUDA device")
    expected = vectors(await embedder.embed(TEXTS, DOCUMENT))

    async with started(config, device="cuda", precision="fp32") as several:
        calls = await asyncio.gather(*(several.embed(TEXTS, DOCUMENT) for _ in range(8 * gpus)))

        assert several.spec.slots == gpus * GPU_SLOTS
        for each in calls:
            assert ((vectors(each) * expected).sum(axis=1) >= 0.99999).all()
