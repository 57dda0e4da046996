"""The connections to a NIM: a bounded pool, TLS and keys; the outcome of each request, counted and traced.

httpx's own transport costs 2 to 4 ms of CPU a request under load, aiohttp's a fraction of it, so aiohttp carries the
requests below httpx's API. They go to the transport itself: httpx's client above it would follow redirects, keep
cookies and log addresses, and costs another quarter of a millisecond for what must not happen here.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from embedders.errors import AnswerInvalid, EmbedderUnavailable
from embedders.nim.address import check_key, parse_base_url, resolve_proxy
from embedders.nim.retries import Transient, parse_retry_after
from embedders.telemetry import tracing
from embedders.telemetry.metrics import NIM_ANSWERS, NIM_RETRIES

KEEP_ALIVE_S = 3.0
"""Servers in front of NIMs close idle connections after 5 s or more; a request on a closed one is lost."""

MAX_REFUSAL_BYTES = 65_536

PIECE_BYTES = 131_072
"""Larger bodies are sent in pieces of this size, between which the event loop gets a turn."""

HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "vecgate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig:
    """How to reach a NIM.

    Attributes:
        name: the embedder's, for the metrics.
        base_url: http or https; with or without /v1 at its end, and with a path before that if a gateway needs one.
        api_key: sent as a bearer token unless the call has its own key.
        ca_file: certificates, in PEM form, of the only trusted authorities; None for the usual ones.
        proxy: an address, "environment" for the environment variables, or None for no proxy.
        max_connections: connections at the same time.
    """

    name: str = "nim"
    base_url: str
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    max_connections: int = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """A NIM's answer: with the whole body of a 200, or the first bytes of another body."""

    status: int
    retry_after_s: float | None
    body: bytes


class NimConnection:
    """One pool of connections, for one event loop. It follows no redirects and keeps no cookies."""

    def __init__(self, config: ConnectionConfig, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Make one without opening anything; `transport` stands in for the network.

        Raises:
            ValueError: an address or key is invalid, or ca_file holds no certificates.
        """
        self._config = config
        self._root = parse_base_url(config.base_url)
        self._host = urlsplit(self._root).hostname or ""
        self._proxy = resolve_proxy(config.proxy, config.base_url)
        if config.api_key is not None:
            check_key(config.api_key)
        self._tls = _tls(config.ca_file) if self._root.startswith("https:") or config.ca_file else None
        self._given = transport
        self._transport: httpx.AsyncBaseTransport | None = None
        self._urls: dict[str, httpx.URL] = {}

    def open(self) -> None:
        """Make the pool; connections open when they are needed."""
        if self._transport is None:
            self._transport = self._given or _transport(self._proxy, self._tls, self._config.max_connections)

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        if self._transport is not None:
            await self._transport.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        content: Sequence[bytes] | None = None,
        *,
        api_key: str | None = None,
        max_bytes: int,
        timeout_s: float,
        tries: int = 0,
    ) -> Answer:
        """Send one request, count and trace it, and return its answer, of any status.

        Args:
            method: HTTP's.
            path: behind the base URL.
            content: pieces of JSON.
            api_key: the caller's own key, instead of the configured one.
            max_bytes: the most bytes of the body of a 200.
            timeout_s: seconds from connecting to the answer's last byte.
            tries: earlier requests for the same inputs.

        Raises:
            Transient: no connection, no answer in time, or a broken connection.
            EmbedderUnavailable: not opened, or the TLS handshake failed.
            AnswerInvalid: the answer is not HTTP, is compressed, or is too long.
        """
        status = "none"
        attributes: dict[str, AttributeValue] = {"http.request.method": method, "server.address": self._host}
        if tries:
            NIM_RETRIES.labels(self._config.name).inc()
            attributes["http.request.resend_count"] = tries
        try:
            with tracing.span(f"{method} {path}", attributes, kind=SpanKind.CLIENT) as span:
                key = self._config.api_key if api_key is None else api_key
                answer = await self._exchange(self._request(method, path, content, key), max_bytes, timeout_s)
                status = f"{answer.status // 100}xx"
                span.set_attribute("http.response.status_code", answer.status)
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    tracing.fail(span, str(answer.status))
                return answer
        finally:
            NIM_ANSWERS.labels(self._config.name, status).inc()

    async def _exchange(self, request: httpx.Request, max_bytes: int, timeout_s: float) -> Answer:
        if self._transport is None:
            raise EmbedderUnavailable("the embedder is not started")
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._transport.handle_async_request(request)
                try:
                    return await _read(response, max_bytes)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TransportError, aiohttp.ClientError, OSError) as error:
            raise _failure(error, timeout_s) from error

    def _request(self, method: str, path: str, content: Sequence[bytes] | None, key: str | None) -> httpx.Request:
        if path not in self._urls:
            self._urls[path] = httpx.URL(self._root + path)
        headers = HEADERS | tracing.outgoing()
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        if content is None:
            return httpx.Request(method, self._urls[path], headers=headers)
        headers["Content-Type"] = "application/json"
        size = sum(map(len, content))
        if size <= PIECE_BYTES:
            return httpx.Request(method, self._urls[path], headers=headers, content=b"".join(content))
        headers["Content-Length"] = str(size)
        return httpx.Request(method, self._urls[path], headers=headers, content=_pieces(content))


async def _pieces(content: Sequence[bytes]) -> AsyncIterator[bytes]:
    for each in content:
        for start in range(0, len(each), PIECE_BYTES):
            yield each[start : start + PIECE_BYTES]


async def _read(response: httpx.Response, max_bytes: int) -> Answer:
    status, fine = response.status_code, response.status_code == HTTPStatus.OK
    retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
    # Not decompressed, because a few compressed bytes may expand to any size.
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    if fine and not plain:
        raise AnswerInvalid("the NIM compressed its answer, though asked not to")
    body = bytearray()
    if plain:
        # A refusal is read to its end so that the connection can be reused.
        async for chunk in response.aiter_raw():
            body += chunk
            if not fine and len(body) >= MAX_REFUSAL_BYTES:
                break
            if len(body) > max_bytes:
                raise AnswerInvalid(f"the NIM's answer has more than {max_bytes} bytes")
    return Answer(status, retry_after_s, bytes(body))


def _failure(error: Exception, timeout_s: float) -> Exception:
    """Return what to raise for a request that got no answer. httpx's words could hold an address, so it gets ours."""
    # The transport words aiohttp's errors in httpx's classes, a reset connection as a time-out among them.
    found = error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError | OSError) else error
    match found:
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return EmbedderUnavailable(
                "the NIM's certificate is not trusted; set nim.ca_file to its authority's certificate"
            )
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return EmbedderUnavailable("the TLS handshake with the NIM failed; check nim.base_url")
        case aiohttp.ClientHttpProxyError(status=HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
            return EmbedderUnavailable("the proxy in front of the NIM rejects the user or password; correct nim.proxy")
        case aiohttp.ClientResponseError() if not isinstance(found, aiohttp.ClientHttpProxyError):
            return AnswerInvalid("the answer is not HTTP; check nim.base_url")
        case TimeoutError() | httpx.TimeoutException():
            what = f"the NIM did not answer within {timeout_s:g} s"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError() | httpx.ProxyError():
            what = "the proxy in front of the NIM cannot be reached or refuses the connection"
        case aiohttp.ClientConnectorError() | httpx.ConnectError():
            what = "the NIM cannot be reached"
        case _:
            what = f"the connection to the NIM broke: {type(found).__name__}"
    return Transient(EmbedderUnavailable(what))


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ValueError("ca_file cannot be read or holds no certificates in PEM form") from error


def _transport(proxy: str | None, tls: ssl.SSLContext | None, max_connections: int) -> AiohttpTransport:
    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=max_connections, keepalive_timeout=KEEP_ALIVE_S, ssl=True if tls is None else tls
        )
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=proxy, trust_env=False
        )

    # The session has the context that counts; the transport would make another one.
    return AiohttpTransport(verify=tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), client=session)
