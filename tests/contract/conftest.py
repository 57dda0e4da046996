"""Fixtures of the contract tests."""

from pathlib import Path

import pytest

from tests.fakes.tiny_clip import write_tiny_clip


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny CLIP model of random weights."""
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip")
