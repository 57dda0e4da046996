"""The HTTP server: its port, its bounds, and its end."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from service.access import Authenticator
from service.core.embedder_pool import EmbedderPool
from service.process.tls import certificates_of
from service.settings import AuthSettings, ServerSettings, WebSettings
from service.web.bounds import WebBounds
from service.web.calls import Calls
from service.web.endpoint import Endpoint
from service.web.protocol import BoundedConfig

BACKLOG = 1024
POLL_S = 0.01
DEFAULT_BOUNDS = WebBounds()


class AddressTaken(Exception):
    """The HTTP server cannot listen on its address."""


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves the process's signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class WebServer:
    """Serves the endpoint that answers as a NIM does.

    Whether it will get its port is known when it is made, before anything else is started. It listens from `start` on:
    until then connections are refused, and nobody waits for an answer.

    Attributes:
        port: that it listens on; known after start if the setting is 0.
        app: the ASGI application.
    """

    def __init__(
        self,
        settings: WebSettings,
        drain: ServerSettings,
        *,
        embedders: EmbedderPool,
        authenticator: Authenticator | None = None,
        bounds: WebBounds = DEFAULT_BOUNDS,
    ) -> None:
        """Make one.

        Args:
            settings: address and bounds of the server.
            drain: how long its end may take.
            embedders: what makes vectors.
            authenticator: who may call; None lets everybody.
            bounds: on connections and requests.

        Raises:
            AddressTaken: another program listens on the address, or it is none of this machine's.
            InvalidSettings: the certificate or its key cannot be used.
        """
        authenticator = authenticator or Authenticator(AuthSettings())
        self._endpoint = Endpoint(settings, bounds, embedders, authenticator.settings)
        self.app = Calls(self._endpoint.router, self._endpoint.name_path, settings, bounds, authenticator)
        self._drain = drain
        self._server = _Server(_configure(settings, bounds, self.app, drain))
        self._settings = settings
        self.port: int = settings.port
        self._serving: asyncio.Task[None] | None = None
        _listen(settings).close()

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        scheme = "http" if self._settings.tls_cert_file is None else "https"
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"{scheme}://{host}:{self.port}"

    async def start(self) -> None:
        """Listen, and answer requests.

        Raises:
            AddressTaken: another program was quicker to listen on the address.
        """
        listener = _listen(self._settings)
        self.port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http-server")
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """Report not ready, wait for load balancers to notice, let requests in flight finish, and stop."""
        self._endpoint.draining = True
        if self._serving is None:
            return
        await asyncio.sleep(self._drain.drain_delay_s)
        self._server.should_exit = True
        await self._serving
        if leftover := set(self._server.server_state.tasks):
            await asyncio.wait(leftover)


def _configure(settings: WebSettings, bounds: WebBounds, app: Calls, drain: ServerSettings) -> BoundedConfig:
    config = BoundedConfig(
        app,
        bounds=bounds,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # it knows callers' bytes only; what matters is in our own lines
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=bounds.idle_timeout_s,
        timeout_graceful_shutdown=drain.drain_grace_s,
    )
    config.load()
    if (certificates := certificates_of(settings)) is not None:
        config.ssl = certificates.context
    return config


def _listen(settings: WebSettings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise AddressTaken(
            f"cannot listen on {settings.host}:{settings.port} for HTTP: another program does, or the address is not "
            "this machine's; set VECGATE_WEB__PORT, VECGATE_WEB__HOST, or VECGATE_WEB__ENABLED to false"
        ) from error
    listener.setblocking(False)
    return listener
