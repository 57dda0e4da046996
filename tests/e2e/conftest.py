import asyncio
from collections.abc import Iterator

import pytest

from service.settings import WeaviateSettings
from service.store.embedded.binary import WeaviateBinaryMissing, find_binary, install_binary
from service.store.embedded.server import EmbeddedWeaviate
from tests.fakes.weaviate import at_ports


@pytest.fixture(scope="session")
def weaviate_binary() -> None:
    """Have the Weaviate server program, building it if need be: no test is skipped for want of it."""
    try:
        find_binary()
    except WeaviateBinaryMissing:
        install_binary()


@pytest.fixture(scope="session")
def weaviate(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedWeaviate]:
    """Run a real Weaviate on free ports for all tests."""
    settings = WeaviateSettings(embedded=True, data_dir=tmp_path_factory.mktemp("weaviate"), **at_ports(0, 0))
    server = EmbeddedWeaviate(settings, supervised=False)
    with asyncio.Runner() as runner:
        runner.run(server.start())
        try:
            yield server
        finally:
            runner.run(server.stop())


@pytest.fixture(scope="session")
def weaviate_settings(weaviate: EmbeddedWeaviate) -> WeaviateSettings:
    """Return settings that point at the running Weaviate as an external one."""
    return weaviate.client_settings
