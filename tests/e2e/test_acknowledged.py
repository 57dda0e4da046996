"""An object that was acknowledged is there once and found by its own vector, whatever was cut, killed or repeated.

FAULT_RUNS=20 make test PYTEST_ARGS="tests/e2e/test_acknowledged.py --timeout 0" tries each fault 20 times.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.e2e.faults import COUNT, RUNS, Fault, Site, import_through, running_site
from tests.fakes.proxy import Fault as Cut

log = logging.getLogger(__name__)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("faulty")) as running:
        yield running


def cut(way: str, fault: Cut, seconds: float = 0.8) -> Fault:
    """Return a fault of the connections to Weaviate."""

    @asynccontextmanager
    async def cutting(site: Site) -> AsyncIterator[None]:
        proxy = site.grpc if way == "grpc" else site.http

        async def relent() -> None:
            await asyncio.sleep(seconds)
            proxy.fault = None
            proxy.cut()

        proxy.fault = fault
        relenting = asyncio.create_task(relent())
        yield
        await relenting

    return cutting


@asynccontextmanager
async def nothing(site: Site) -> AsyncIterator[None]:
    yield


async def assert_nothing_is_lost(site: Site, fault: Fault, *, call_s: tuple[float, ...] = (20.0,)) -> None:
    for run in range(RUNS):
        tally = await import_through(site, fault, call_s=call_s)
        log.warning("run %s: %s of %s refused once, %s", run, tally.refused, COUNT, tally.faults)
        assert tally.faults == {}


CUTS = {
    "answers of gRPC reset at once": ("grpc", Cut("reset", after=400)),
    "answers of gRPC reset later": ("grpc", Cut("reset", after=3000)),
    "requests of gRPC reset": ("grpc", Cut("reset", requests=True, after=3000)),
    "gRPC reset while Weaviate works": ("grpc", Cut("reset", requests=True, after=9000, wait_s=0.01)),
    "answers of gRPC half-closed": ("grpc", Cut("half_close", after=300)),
    "requests of gRPC half-closed": ("grpc", Cut("half_close", requests=True, after=3000)),
    "HTTP reset": ("http", Cut("reset", after=300)),
    "HTTP half-closed": ("http", Cut("half_close", after=300)),
}


@pytest.mark.parametrize("name", CUTS)
async def test_nothing_is_lost_when_connections_are_cut(site: Site, name: str) -> None:
    way, fault = CUTS[name]
    await assert_nothing_is_lost(site, cut(way, fault))
    assert (site.grpc if way == "grpc" else site.http).faults > 0


@pytest.mark.parametrize("lost", ["answers", "requests"])
async def test_nothing_is_lost_when_weaviate_is_not_heard_for_a_while(site: Site, lost: str) -> None:
    await assert_nothing_is_lost(site, cut("grpc", Cut("silence", requests=lost == "requests"), seconds=4))
