"""For all tests: an environment without our settings, and float comparison."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import uvloop
from hypothesis import HealthCheck, settings
from numpy.typing import ArrayLike

# Repeatable, and no clock decides: the machine may be busy.
settings.register_profile("vecgate", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vecgate")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every VECGATE_, OTEL_ and proxy variable out of the environment for each test."""
    for name in list(os.environ):
        if name.upper().startswith(("VECGATE_", "OTEL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need beside Python, and say which of them share a worker.

    All of tests/e2e run in one worker, against one Weaviate; of the others, those of a file.
    """
    for item in items:
        if " at 0x" in item.nodeid:
            message = f"{item.nodeid} names an address, which is another one in each worker; give ids"
            raise pytest.UsageError(message)
        kind = item.path.relative_to(Path(__file__).parent).parts[0]
        if kind in {"e2e", "helm"}:
            item.add_marker(kind)
        item.add_marker(pytest.mark.xdist_group("e2e" if kind == "e2e" else item.path.as_posix()))


def assert_close(actual: ArrayLike, expected: ArrayLike, tolerance: float = 1e-6) -> None:
    """Assert that floats are equal within an absolute tolerance."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let async tests run in the event loop of `vecgate serve`."""
    return {"uvloop": uvloop.new_event_loop}
