"""For all tests: an environment without our settings, and float comparison."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import psutil
import pytest
import structlog
import uvloop
from hypothesis import HealthCheck, settings
from numpy.typing import ArrayLike

from embedders.front.queueing import calling_client
from service.access import NOBODY, calling_account
from service.store.embedded.binary import WeaviateBinaryMissing, find_binary, install_binary

# Before anything imports torch: threads that spin while they wait for others are many times as slow beside a browser.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# Where it is set, as in many containers, each of the hundreds of processes that the tests start would compile all that
# it imports, torch among it, which takes longer than the rest of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Repeatable, and no clock decides: the machine may be busy.
settings.register_profile("vecgate", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vecgate")

MARKERS = {"e2e": ("e2e",), "explorer": ("browser", "e2e"), "helm": ("helm",)}
"""What the tests of a folder need."""


@pytest.fixture(scope="session")
def weaviate_binary() -> None:
    """Have the Weaviate server program, building it if need be: no test is skipped for want of it."""
    try:
        find_binary()
    except WeaviateBinaryMissing:
        install_binary()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every VECGATE_, OTEL_ and proxy variable out of the environment for each test."""
    for name in list(os.environ):
        if name.upper().startswith(("VECGATE_", "OTEL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _clean_context() -> None:
    """Let no name of a client or a call of one test into the log lines of the next."""
    structlog.contextvars.clear_contextvars()
    calling_account.set(NOBODY)
    calling_client.set("")


def running_below(words: str) -> set[psutil.Process]:
    """Return the processes below this one that have not ended and have these words in their command lines."""
    found = set()
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it, or nobody has waited for it yet
            if each.status() != psutil.STATUS_ZOMBIE and words in " ".join(each.cmdline()):
                found.add(each)
    return found


Started = Callable[..., set[psutil.Process]]


@pytest.fixture
def started() -> Started:
    """Return the processes that the test has started, without those that tests share, such as Weaviate."""
    before = running_below("")
    return lambda words="": running_below(words) - before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need beside Python."""
    for item in items:
        if " at 0x" in item.nodeid:
            message = f"{item.nodeid} names an address, which is another one in each worker; give ids"
            raise pytest.UsageError(message)
        for marker in MARKERS.get(item.nodeid.split("/")[1], ()):
            item.add_marker(marker)


def assert_close(actual: ArrayLike, expected: ArrayLike, tolerance: float = 1e-6) -> None:
    """Assert that floats are equal within an absolute tolerance."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let async tests run in the event loop of `vecgate serve`."""
    return {"uvloop": uvloop.new_event_loop}
