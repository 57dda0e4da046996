"""An HTTP server over embedders in memory, in the test's event loop or in a thread of its own."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from embedders.contract import Embedder
from service.access import Authenticator
from service.core.embedder_pool import EmbedderPool
from service.settings import AuthSettings, ServerSettings, WebSettings
from service.web.bounds import WebBounds
from service.web.server import WebServer
from tests.fakes.embedder import FakeEmbedder, watched

MODEL = "fake/model"


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    """Return an image as a request has it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Web:
    """A running server and what is behind it."""

    server: WebServer
    pool: EmbedderPool
    embedder: FakeEmbedder

    @property
    def url(self) -> str:
        """The address in front of /v1."""
        return self.server.address


@asynccontextmanager
async def running_web(
    *embedders: FakeEmbedder,
    wrapped: Embedder | None = None,
    drain: ServerSettings | None = None,
    auth: AuthSettings | None = None,
    **settings: object,
) -> AsyncIterator[Web]:
    """Run a server; `wrapped` stands in front of the only embedder; `settings` may be bounds and those of TLS, too."""
    fakes = embedders or (FakeEmbedder(),)
    pool = EmbedderPool(fakes if wrapped is None else (watched(wrapped),), check_interval_s=3600)
    await pool.start()
    await pool.first_checks()
    bounds = {name: settings.pop(name) for name in [*settings] if name in WebBounds.__dataclass_fields__}
    shared = {name: settings.pop(name) for name in [*settings] if name not in WebSettings.model_fields}
    server = WebServer(
        WebSettings.model_validate({"port": 0, **settings}),
        (drain or ServerSettings(drain_grace_s=5)).model_copy(update=shared),
        embedders=pool,
        authenticator=Authenticator(auth or AuthSettings()),
        bounds=WebBounds(**bounds),  # type: ignore[arg-type]
    )
    await server.start()
    try:
        yield Web(server, pool, fakes[0])
    finally:
        await server.stop()
        await pool.close()


@contextmanager
def web_in_thread(embedder: FakeEmbedder, **settings: object) -> Iterator[Web]:
    """Run a server with an event loop of its own, for callers that block or that count their loop's tasks."""
    ready = threading.Event()
    made: list[Web] = []
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        end = asyncio.Event()
        ends.append((asyncio.get_running_loop(), end))
        async with running_web(embedder, **settings) as web:
            made.append(web)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield made[0]
    finally:
        loop, end = ends[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
        assert not thread.is_alive()
