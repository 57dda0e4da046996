"""Fixtures of the contract tests."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from embedders.clip import ClipConfig, ClipEmbedder
from tests.conftest import Started
from tests.embedders.suite import LIMITS
from tests.fakes.models import ServedModels, in_process
from tests.fakes.nim import FakeNim
from tests.fakes.tiny_clip import write_tiny_clip

Decoding = Callable[[], set[psutil.Process]]


@pytest.fixture
def decoding(started: Started) -> Decoding:
    """Return the processes of this test that decode pictures and clean texts."""
    return lambda: started("decoder_process")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny CLIP model of random weights."""
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture
async def nim() -> AsyncIterator[FakeNim]:
    """Run a simulated NIM."""
    async with FakeNim() as nim:
        yield nim


@pytest.fixture
def config(tiny_clip: Path) -> ClipConfig:
    """Return a configuration of the tiny model."""
    return ClipConfig(model=str(tiny_clip), device="cpu", max_batch=4, limits=LIMITS)


@pytest.fixture(scope="session")
def served() -> Iterator[ServedModels]:
    """Return what gives a configuration to processes that run its model, which tests share."""
    models = ServedModels()
    yield models
    models.close()


@pytest.fixture
async def embedder(config: ClipConfig) -> AsyncIterator[ClipEmbedder]:
    """Run the tiny model; a module that tests another embedder has its own fixture of this name."""
    embedder = in_process(config)
    await embedder.start()
    yield embedder
    await embedder.close()
