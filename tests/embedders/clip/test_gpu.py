"""ClipEmbedder on GPUs: its vectors are near those of a CPU, whatever the precision and the number of devices."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest

from embedders.clip import ClipConfig, ClipEmbedder, loading
from embedders.clip.loading import GPU_SLOTS, LEAST_PARITY, load
from embedders.clip.reading import Text
from embedders.clip.sizing import BatchSizer
from embedders.contract import DOCUMENT, ImageInput, Input, TextInput
from embedders.errors import EmbedderUnavailable, ModelUnusable
from tests.embedders.suite import vectors
from tests.fakes.embedder import picture

pytestmark = pytest.mark.gpu

MIB = 2**20
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


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("fp16", LEAST_PARITY), ("bf16", LEAST_PARITY)])
def test_cuda_graphs_give_the_vectors_of_a_cpu_whatever_the_number_and_length_of_the_inputs(
    config: ClipConfig, precision: Any, least: float
) -> None:
    cpu = load(config)
    texts = [
        each
        for each in cpu.reader.texts([TextInput(" ".join(["dog"] * number)) for number in (1, 12, 3, 7, 2, 5, 9)])
        if isinstance(each, Text)
    ]
    pixels = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    expected = cpu.replica.encode_texts(texts), cpu.replica.encode_pictures(pixels)

    plain, graphs = (
        load(replace(config, device="cuda:0", precision=precision, max_batch=6, graphs=graphs)).replica
        for graphs in (False, True)
    )

    assert graphs.held_bytes > plain.held_bytes
    for count in (1, 2, 3, 4, 5, 6, 7, 1):  # seven at once go as without graphs
        actual = graphs.encode_texts(texts[:count]), graphs.encode_pictures(pixels[:count])
        for mine, others in zip(actual, expected, strict=True):
            assert ((mine * others[:count]).sum(axis=1) >= least).all()


def test_two_threads_that_share_graphs_get_each_their_own_vectors(config: ClipConfig) -> None:
    replica = load(replace(config, device="cuda:0", precision="fp32", max_batch=8, graphs=True)).replica
    pixels = np.random.default_rng(2).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    expected = np.concatenate([replica.encode_pictures(pixels[at : at + 8]) for at in range(0, 64, 8)])

    with ThreadPoolExecutor(2) as threads:
        for _ in range(50):
            rows = threads.map(lambda at: replica.encode_pictures(pixels[at : at + 8]), range(0, 64, 8))
            np.testing.assert_allclose(np.concatenate([*rows]), expected, atol=1e-5)


@contextmanager
def memory(more_bytes: int) -> Iterator[None]:
    """Let this process take only so many more bytes of the GPU's memory."""
    import torch

    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more_bytes) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_that_a_gpu_has_no_memory_for_is_halved_and_nothing_is_lost(config: ClipConfig) -> None:
    replica = load(replace(config, device="cuda:0", precision="fp32")).replica
    pixels = np.random.default_rng(3).integers(0, 256, (16_384, 32, 32, 3), dtype=np.uint8)
    expected = np.concatenate([replica.encode_pictures(each) for each in np.array_split(pixels, 64)])
    sizer = BatchSizer(len(pixels))

    with memory(300 * MIB):
        rows = sizer.run(lambda some: replica.encode_pictures(np.stack(some)), list(pixels), pixels[0])

    assert sizer.size < len(pixels)
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_a_model_for_which_a_gpu_has_no_room_is_refused_before_it_takes_any(
    config: ClipConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_weights_bytes", lambda _: 2**60)

    with pytest.raises(ModelUnusable, match=r"GiB on cuda:0 to load, and .* are free"):
        load(replace(config, device="cuda:0"))


def test_graphs_for_which_a_gpu_has_no_room_are_refused_with_what_to_do(config: ClipConfig) -> None:
    big = replace(config, device="cuda:0", precision="fp32", max_batch=4096, graphs=True)
    load(replace(big, max_batch=1))  # what CUDA's libraries take once is taken

    with (
        memory(100 * MIB),
        pytest.raises(ModelUnusable, match=r"CUDA graphs cannot be recorded .* set its graphs to false"),
    ):
        load(big)


async def test_a_killed_model_leaves_no_memory_taken_and_comes_back(config: ClipConfig) -> None:
    import torch

    before = torch.cuda.mem_get_info(0)[0]
    async with started(config, device="cuda:0") as gpu:
        held = before - torch.cuda.mem_get_info(0)[0]
        children = psutil.Process().children(recursive=True)
        (process,) = [each for each in children if any("model_process" in word for word in each.cmdline())]

        process.kill()
        async with asyncio.timeout(10):
            while torch.cuda.mem_get_info(0)[0] < before - held // 2:
                await asyncio.sleep(0.01)

        async with asyncio.timeout(90):
            while True:
                try:
                    assert len(vectors(await gpu.embed(TEXTS, DOCUMENT))) == len(TEXTS)
                    break
                except EmbedderUnavailable:
                    await asyncio.sleep(0.1)
    assert held > 0
