"""A real Chromium, and a real server with real Weaviate, the bundled model and sample pictures behind its page."""

import hashlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from service.store.embedded.server import EmbeddedWeaviate
from tests.e2e.serving import Serving, running_weaviate, serving
from tests.explorer.chromium import launched
from tests.explorer.gestures import DESK
from tests.explorer.loopback import served_page
from tests.explorer.samples import store_samples
from tests.explorer.scripts import Scripts, build_scripts
from tests.explorer.watching import Watch
from tests.fakes.weaviate import variables_of

PATIENCE_MS = 60_000
"""Milliseconds that a step may take on a busy machine; what is longer than a step has a patience of its own."""

NewPage = Callable[..., Awaitable[Page]]
"""Opens a page of a server: its URL, and options of the browser's context, as `color_scheme` or `viewport`."""

expect.set_options(timeout=PATIENCE_MS)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(name: str, obj: object) -> None:
    """Let all tests share one event loop, because they share the browser."""
    if name.startswith("test_") and inspect.iscoroutinefunction(obj):
        pytest.mark.asyncio(loop_scope="session")(obj)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Run a Chromium without a window."""
    async with launched() as running:
        yield running


@pytest.fixture(scope="session")
def weaviate(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedWeaviate]:
    """Run a real Weaviate on free ports, which all servers behind the page share."""
    with running_weaviate(tmp_path_factory.mktemp("weaviate")) as server:
        yield server


@pytest.fixture(scope="session")
def gallery(weaviate: EmbeddedWeaviate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Run a server with the bundled model and sample pictures in the collection Pictures, as after `make run`."""
    with serving(tmp_path_factory.mktemp("gallery"), **variables_of(weaviate.client_settings)) as server:
        with server.client() as client:
            store_samples(client)
        yield server


@dataclass(frozen=True)
class Guarded:
    """A server that knows its callers, over the same pictures.

    Attributes:
        server: the server.
        keys: of its clients: admin may do all, reader may search in Pictures, frugal and anna have a quota of one
            input, and importer one of eight a second.
        friend: the URL of a page of another origin, which may call the server.
    """

    server: Serving
    keys: Mapping[str, str]
    friend: str


CLIENTS = """
[clients.admin]
keys_sha256 = ["{admin}"]
permissions = ["embed", "search", "write", "admin"]

[clients.reader]
keys_sha256 = ["{reader}"]
permissions = ["embed", "search"]
collections = ["Pictures"]

[clients.frugal]
keys_sha256 = ["{frugal}"]
permissions = ["embed", "search"]
quota = {{inputs_per_second = 0.01}}

[clients.anna]
keys_sha256 = ["{anna}"]
permissions = ["embed", "search"]
quota = {{inputs_per_second = 0.01}}

[clients.importer]
keys_sha256 = ["{importer}"]
permissions = ["embed", "search", "write", "admin"]
quota = {{inputs_per_second = 8}}
"""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guarded(
    gallery: Serving, weaviate: EmbeddedWeaviate, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    """Run a server that knows its callers."""
    folder = tmp_path_factory.mktemp("guarded")
    names = ("admin", "reader", "frugal", "anna", "importer")
    keys = {name: f"key of {name}".replace(" ", "-") for name in names}
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items()}
    (folder / "clients.toml").write_text(CLIENTS.format(**digests), encoding="utf-8")
    async with served_page("<title>another site</title>") as friend:
        settings = {
            "VECGATE_AUTH__CLIENTS_FILE": str(folder / "clients.toml"),
            "VECGATE_WEB__CORS_ORIGINS": friend,
            # So small that a folder takes several calls.
            "VECGATE_LIMITS__MAX_OBJECTS": "5",
            **variables_of(weaviate.client_settings),
        }
        with serving(folder, **settings) as server:
            server.wait_for("serving")
            yield Guarded(server, keys, friend)


@pytest.fixture(scope="session")
def scripts() -> Scripts:
    """Build what tests run in pages."""
    return build_scripts()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Fail the test if one of its pages did what it must not do; `watch.expect` lets a message pass."""
    watching = Watch()
    yield watching
    assert not watching.unexpected, "\n".join(watching.unexpected)


@pytest_asyncio.fixture(loop_scope="session")
async def new_page(browser: Browser, watch: Watch) -> AsyncIterator[NewPage]:
    """Give what opens pages, each with a context, and so a memory, of its own; relative URLs are the server's."""
    async with AsyncExitStack() as ends:

        async def opened(url: str, **options: Any) -> Page:
            settings = {"viewport": DESK, "color_scheme": "light", "reduced_motion": "reduce", **options}
            context = await browser.new_context(base_url=f"{url.rstrip('/')}/", **settings)
            ends.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            parts = urlsplit(url)
            await watch.follow(context, f"{parts.scheme}://{parts.netloc}")
            return await context.new_page()

        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def page(gallery: Serving, new_page: NewPage) -> Page:
    """Give a page of the gallery on a desk; `await page.goto("#/search")` opens it."""
    return await new_page(gallery.url)
