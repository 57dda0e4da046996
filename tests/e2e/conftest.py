from collections.abc import Iterator

import pytest

from service.settings import WeaviateSettings
from service.store.embedded.server import EmbeddedWeaviate
from tests.e2e.serving import running_weaviate


@pytest.fixture(scope="session")
def weaviate(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedWeaviate]:
    """Run a real Weaviate on free ports for all tests."""
    with running_weaviate(tmp_path_factory.mktemp("weaviate")) as server:
        yield server


@pytest.fixture(scope="session")
def weaviate_settings(weaviate: EmbeddedWeaviate) -> WeaviateSettings:
    """Return settings that point at the running Weaviate as an external one."""
    return weaviate.client_settings
