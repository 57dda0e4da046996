"""NimEmbedder through proxies: only when told, with the proxy's own password, and through a tunnel for TLS."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
import trustme

from embedders.contract import QUERY
from embedders.errors import EmbedderUnavailable, ModelGone
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.embedders.suite import CAT, vectors
from tests.fakes.nim import FakeNim

BASIC = f"Basic {base64.b64encode(b'user:pass word').decode()}"


@asynccontextmanager
async def running(config: NimConfig) -> AsyncIterator[NimEmbedder]:
    embedder = NimEmbedder(config)
    await embedder.start()
    try:
        yield embedder
    finally:
        await embedder.close()


def config_of(nim: FakeNim, **changes: object) -> NimConfig:
    config = NimConfig(base_url=nim.base_url, model=nim.model, api_key="nvapi-ours", retry_attempts=1)
    return replace(config, **changes)  # type: ignore[arg-type]


class Tunnel:
    """A proxy that takes CONNECT, and remembers the heads of what it was asked for."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[str] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        writer.write(self.answer)
        if b" 200 " in self.answer:
            host, _, port = head.split()[1].rpartition(":")
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@pytest.fixture
async def tls_nim(tmp_path: Path) -> AsyncIterator[tuple[FakeNim, Path]]:
    """Return a NIM behind TLS, and the file of its authority."""
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with FakeNim(tls=context) as nim:
        yield nim, file


async def test_a_proxy_gets_whole_addresses_and_its_own_password_with_each_request(nim: FakeNim) -> None:
    told = f"http://user:pass%20word@{nim.base_url.removeprefix('http://')}"
    config = config_of(nim, base_url="http://nim.example.com", proxy=told)
    async with running(config) as embedder:
        nim.forget()
        for _ in range(2):
            # The fake is a NIM, so as a proxy it knows no page of that name.
            with pytest.raises(ModelGone):
                await embedder.embed([CAT], QUERY)

    pages = ["GET http://nim.example.com/v1/models ", "POST http://nim.example.com/v1/embeddings "]
    assert len(nim.heads) == 4  # the model is asked for with each call until it is known
    for at, (line, headers) in enumerate(nim.heads):
        assert line.startswith(pages[at % 2])
        assert headers["proxy-authorization"] == BASIC
        assert headers["authorization"] == "Bearer nvapi-ours"
    assert "pass" not in repr(config)


async def test_tls_goes_through_a_tunnel_that_sees_no_key(tls_nim: tuple[FakeNim, Path]) -> None:
    nim, file = tls_nim
    async with Tunnel() as tunnel:
        config = config_of(nim, ca_file=file, proxy=f"http://user:pass%20word@{tunnel.address}")
        async with running(config) as embedder:
            for _ in range(2):
                assert len(vectors(await embedder.embed([CAT], QUERY))) == 1

    (head,) = tunnel.heads
    assert head.startswith(f"CONNECT {nim.base_url.removeprefix('https://')} ")
    assert f"Proxy-Authorization: {BASIC}" in head
    assert "nvapi" not in head


async def test_a_tunnel_that_is_refused_is_unavailable(tls_nim: tuple[FakeNim, Path]) -> None:
    nim, file = tls_nim
    async with Tunnel(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as tunnel:
        config = config_of(nim, ca_file=file, proxy=f"http://{tunnel.address}", retry_attempts=3)
        async with running(config) as embedder:
            tunnel.heads.clear()
            with pytest.raises(EmbedderUnavailable, match="correct proxy"):
                await embedder.embed([CAT], QUERY)

    assert len(tunnel.heads) == 1


async def test_a_proxy_that_is_not_there_is_unavailable(nim: FakeNim) -> None:
    async with running(config_of(nim, proxy="http://127.0.0.1:9")) as embedder:
        with pytest.raises(EmbedderUnavailable, match="proxy"):
            await embedder.embed([CAT], QUERY)

    assert nim.requests == []


async def test_the_environments_proxy_is_used_only_when_told(nim: FakeNim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with running(config_of(nim)) as embedder:
        assert len(vectors(await embedder.embed([CAT], QUERY))) == 1

    async with running(config_of(nim, proxy="environment")) as embedder:
        with pytest.raises(EmbedderUnavailable, match="proxy"):
            await embedder.embed([CAT], QUERY)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with running(config_of(nim, proxy="environment")) as embedder:
        assert len(vectors(await embedder.embed([CAT], QUERY))) == 1
