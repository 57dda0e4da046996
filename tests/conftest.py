"""For all tests: an environment without our settings, and float comparison."""

import asyncio
import os
from collections.abc import Callable

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


def assert_close(actual: ArrayLike, expected: ArrayLike, tolerance: float = 1e-6) -> None:
    """Assert that floats are equal within an absolute tolerance."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let async tests run in the event loop of `vecgate serve`."""
    return {"uvloop": uvloop.new_event_loop}
