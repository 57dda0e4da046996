"""Fetches pictures: few at a time from each origin, with bounds on bytes, time and redirects."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from embedders.errors import ImageTooLarge
from service.errors import ImageNotServed, ImageUnreachable, ImageUriNotAllowed
from service.fetching.connecting import MAX_ORIGIN_CONNECTIONS, Lookup, check_address, look_up, open_session
from service.fetching.origins import Origin, find_origin
from service.fetching.uris import Location, parse_uri
from service.settings import InvalidSettings

MAX_PICTURE_BYTES = 20 * 1024 * 1024
FETCH_TIMEOUT_S = 30.0
"""Seconds for one picture, with its redirects, once it is its turn."""
MAX_REDIRECTS = 3

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})

Count = Callable[[int], None]
"""Is told of every part of a body before it is kept: its bytes. What it raises ends the fetch."""


class Fetcher:
    """Fetches pictures from listed origins, and sends nothing to any other place. Belongs to one event loop.

    Args:
        origins: where pictures may be fetched from; of none, every URI is refused.
        lookup: returns the addresses of a host's name.
    """

    def __init__(self, origins: Sequence[Origin] = (), *, lookup: Lookup = look_up) -> None:
        self._origins = tuple(origins)
        self._lookup = lookup
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        # One for each origin, so that a slow one holds back no other, and as many as it has connections.
        self._turns = {each.name: asyncio.Semaphore(MAX_ORIGIN_CONNECTIONS) for each in self._origins}

    async def __aenter__(self) -> Self:
        """Get ready; connections open when they are needed.

        Raises:
            InvalidSettings: a file of certificates holds none.
        """
        try:
            for each in self._origins:
                self._sessions[each.name] = open_session(each, self._lookup)
        except ValueError as error:
            await self.close()
            raise InvalidSettings(str(error)) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        sessions, self._sessions = self._sessions, {}
        await asyncio.gather(*(each.close() for each in sessions.values()))

    async def fetch(self, uri: str, *, max_bytes: int = MAX_PICTURE_BYTES, count: Count | None = None) -> bytes:
        """Return the bytes that a URI leads to; whether they are a picture is not checked.

        Args:
            uri: of http or https, of a listed origin.
            max_bytes: the most bytes of the body.
            count: is told of the bytes as they arrive.

        Raises:
            ImageUriNotAllowed: the URI, or one that it redirects to, is not listed, or its host's address may not be
                called. Nothing is sent there.
            ImageTooLarge: there are more bytes.
            ImageNotServed: the origin answers, but not with the bytes.
            ImageUnreachable: the origin does not answer, or not in time, or does not take its credentials; it may
                later.
        """
        location = parse_uri(uri)
        origin = find_origin(self._origins, location)
        async with self._turns[origin.name]:
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    return await self._follow(location, max_bytes, count)
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                raise _failure(error, origin.name) from error

    async def _follow(self, location: Location, max_bytes: int, count: Count | None) -> bytes:
        """Fetch a location, or what it redirects to within its origin."""
        for _ in range(MAX_REDIRECTS + 1):
            origin = find_origin(self._origins, location)
            if _is_address(location.host):
                # No resolver is asked for it.
                check_address(location.host, origin)
            answer = await self._ask(origin, location, max_bytes, count)
            if isinstance(answer, bytes):
                return answer
            if answer.origin != location.origin:
                raise ImageUriNotAllowed(f"origin {origin.name!r} redirects to another origin, which is not followed")
            location = answer
        raise ImageNotServed(f"origin {origin.name!r} redirects more than {MAX_REDIRECTS} times")

    async def _ask(self, origin: Origin, location: Location, max_bytes: int, count: Count | None) -> bytes | Location:
        """Return the body of an answer, or where it redirects to."""
        try:
            authorization = origin.authorization()
        except InvalidSettings as error:
            raise ImageUnreachable(f"the credentials of origin {origin.name!r} cannot be read") from error
        headers = {} if authorization is None else {"Authorization": authorization}
        session = self._sessions.get(origin.name)
        if session is None:
            raise ImageUnreachable("the fetcher is closed")
        url = URL(str(location), encoded=True)
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status in REDIRECTS:
                response.close()
                return _target(location, response.headers.get("Location"), origin.name)
            _check_answer(response, origin.name, max_bytes, authorized=authorization is not None)
            parts, size = [], 0
            async for part in response.content.iter_any():
                size += len(part)
                if size > max_bytes:
                    response.close()
                    raise _too_large(max_bytes)
                if count is not None:
                    count(len(part))
                parts.append(part)
        if not size:
            raise ImageNotServed(f"origin {origin.name!r} answers without any bytes")
        return b"".join(parts)


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdecimal()


def _target(location: Location, target: str | None, name: str) -> Location:
    """Return where an answer redirects to."""
    if target is None:
        raise ImageNotServed(f"origin {name!r} redirects without saying where to")
    try:
        return parse_uri(urljoin(str(location), target))
    except ValueError:
        raise ImageNotServed(f"origin {name!r} redirects to what is no URI") from None


def _check_answer(response: aiohttp.ClientResponse, name: str, max_bytes: int, *, authorized: bool) -> None:
    status = response.status
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in PASSING:
        # The other ones say that the origin is down or busy, with all of its pictures.
        of_image = status == HTTPStatus.INTERNAL_SERVER_ERROR
        raise ImageUnreachable(f"origin {name!r} answers with status {status}", of_image=of_image)
    if status == HTTPStatus.UNAUTHORIZED and authorized:
        raise ImageUnreachable(f"origin {name!r} does not take its credentials (status {status}); renew them")
    if status != HTTPStatus.OK:
        raise ImageNotServed(f"origin {name!r} answers with status {status}")
    # Not decompressed, because a few compressed bytes may expand to any size.
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ImageNotServed(f"origin {name!r} compresses its answer, though asked not to")
    if (response.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"the image behind the URI has more than {max_bytes} bytes; the most is {max_bytes}")


def _failure(error: Exception, name: str) -> Exception:
    """Return the error for a request without an answer. aiohttp's messages hold the address."""
    match error:
        case TimeoutError():
            what = f"origin {name!r} did not send the image in time"
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            what = f"the certificate of origin {name!r} is not trusted; its operator can set ca_file"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            what = f"the TLS handshake with origin {name!r} failed"
        case aiohttp.ClientConnectorDNSError():
            what = f"the host of origin {name!r} has no address"
        case aiohttp.ClientConnectorError():
            what = f"origin {name!r} cannot be reached"
        case aiohttp.ClientResponseError():
            return ImageNotServed(f"the answer of origin {name!r} is not HTTP")
        case _:
            what = f"the connection to origin {name!r} broke: {type(error).__name__}"
    return ImageUnreachable(what)
