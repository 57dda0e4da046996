"""The connections to a NIM: a bounded pool, TLS and keys; the outcome of each request, counted and traced."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import certifi
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

NOT_URGENT = "u=7"
"""The least urgency of the header Priority (RFC 9218), for background work. A Vecgate reads it, and some proxies."""


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

    def __init__(self, config: ConnectionConfig) -> None:
        """Make one without opening anything.

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
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the pool; connections open when they are needed."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._config.max_connections,
                keepalive_timeout=KEEP_ALIVE_S,
                ssl=True if self._tls is None else self._tls,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=HEADERS,
                timeout=aiohttp.ClientTimeout(),  # none: each request has its own
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy,
                trust_env=False,
                auto_decompress=False,
            )

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        if self._session is not None:
            await self._session.close()

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
        urgent: bool = True,
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
            urgent: whether somebody waits for the answer; a Vecgate, or a proxy, lets others go first if not.

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
                headers = tracing.outgoing()
                if (key := self._config.api_key if api_key is None else api_key) is not None:
                    headers["Authorization"] = f"Bearer {key}"
                if not urgent:
                    headers["Priority"] = NOT_URGENT
                answer = await self._exchange(method, path, content, headers, max_bytes=max_bytes, timeout_s=timeout_s)
                status = f"{answer.status // 100}xx"
                span.set_attribute("http.response.status_code", answer.status)
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    tracing.fail(span, str(answer.status))
                return answer
        finally:
            NIM_ANSWERS.labels(self._config.name, status).inc()

    async def _exchange(
        self,
        method: str,
        path: str,
        content: Sequence[bytes] | None,
        headers: dict[str, str],
        *,
        max_bytes: int,
        timeout_s: float,
    ) -> Answer:
        if self._session is None:
            raise EmbedderUnavailable(f"{self._config.name} is not started")
        body = None
        if content is not None:
            headers["Content-Type"] = "application/json"
            size = sum(map(len, content))
            headers["Content-Length"] = str(size)
            body = b"".join(content) if size <= PIECE_BYTES else _pieces(content)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(
                    method, self._root + path, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                return await _read(response, max_bytes)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _failure(error, timeout_s) from error


async def _pieces(content: Sequence[bytes]) -> AsyncIterator[bytes]:
    for each in content:
        for start in range(0, len(each), PIECE_BYTES):
            yield each[start : start + PIECE_BYTES]


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> Answer:
    status, fine = response.status, response.status == HTTPStatus.OK
    retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
    # Not decompressed, because a few compressed bytes may expand to any size.
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    if fine and not plain:
        raise AnswerInvalid("the NIM compressed its answer, though asked not to")
    body = bytearray()
    if plain:
        # A refusal is read to its end so that the connection can be reused.
        async for chunk in response.content.iter_any():
            body += chunk
            if not fine and len(body) >= MAX_REFUSAL_BYTES:
                break
            if len(body) > max_bytes:
                raise AnswerInvalid(f"the NIM's answer has more than {max_bytes} bytes")
    return Answer(status, retry_after_s, bytes(body))


def _failure(error: Exception, timeout_s: float) -> Exception:
    """Return the error for a request without an answer. aiohttp's messages may hold an address."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return EmbedderUnavailable(
                "the NIM's certificate is not trusted; set ca_file to its authority's certificate"
            )
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return EmbedderUnavailable("the TLS handshake with the NIM failed; check base_url")
        case aiohttp.ClientHttpProxyError(status=HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
            return EmbedderUnavailable("the proxy in front of the NIM rejects the user or password; correct proxy")
        case aiohttp.ClientResponseError() if not isinstance(error, aiohttp.ClientHttpProxyError):
            return AnswerInvalid("the answer is not HTTP; check base_url")
        case TimeoutError():
            what = f"the NIM did not answer within {timeout_s:g} s"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            what = "the proxy in front of the NIM cannot be reached or refuses the connection"
        case aiohttp.ClientConnectorError():
            what = "the NIM cannot be reached"
        case _:
            what = f"the connection to the NIM broke: {type(error).__name__}"
    return Transient(EmbedderUnavailable(what))


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or certifi.where())
    except (OSError, ValueError) as error:
        raise ValueError("ca_file cannot be read or holds no certificates in PEM form") from error
