"""Connections to one origin: to addresses that were resolved once, checked, and are connected to as they are.

A name that is checked and then resolved again could lead elsewhere the second time. Here the one answer of the name
server is checked and used, and no socket is made for any other address.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult

from service.errors import ImageUriNotAllowed
from service.fetching.addresses import may_call
from service.fetching.origins import Origin

CONNECT_TIMEOUT_S = 10.0
MAX_ORIGIN_CONNECTIONS = 16
"""Connections to an origin, and pictures that are being fetched from it at the same time."""
KEEP_ALIVE_S = 3.0
"""Many servers close idle connections after 5 s."""
HEADERS = {"Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity", "User-Agent": "vecgate"}

LOOKUPS = ThreadPoolExecutor(4, thread_name_prefix="lookup")
"""Threads of their own: a name server that does not answer must not keep those that the rest of the server needs."""

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host's name."""


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name, as the system resolves it.

    Raises:
        OSError: it has none.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(LOOKUPS, ask)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def check_address(text: str, origin: Origin) -> None:
    """Check that an address may be called for an origin.

    Raises:
        ImageUriNotAllowed: it may not.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # such as one with an interface: fe80::1%eth0
        address = None
    if address is None or not may_call(address, private=origin.private_addresses):
        raise ImageUriNotAllowed(
            f"the host of origin {origin.name!r} has an address that is private or reserved; its operator can allow "
            "private ones with private_addresses"
        )


def open_session(origin: Origin, lookup: Lookup = look_up) -> aiohttp.ClientSession:
    """Return a session with connections of its own, which are used for this origin only.

    Raises:
        ValueError: ca_file holds no certificates.
    """
    connector = aiohttp.TCPConnector(
        limit=MAX_ORIGIN_CONNECTIONS,
        keepalive_timeout=KEEP_ALIVE_S,
        resolver=_Resolver(origin, lookup),
        use_dns_cache=False,
        socket_factory=lambda info: _socket(origin, info),
        ssl=_tls(origin.ca_file) if origin.root.scheme == "https" else True,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers=HEADERS,
        timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S),  # the whole is timed by the fetcher
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
    )


class _Resolver(AbstractResolver):
    """Resolves names, and refuses one of which any address may not be called."""

    def __init__(self, origin: Origin, lookup: Lookup) -> None:
        self._origin = origin
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            ImageUriNotAllowed: one of them may not be called.
            OSError: there are none.
        """
        del family
        addresses = await self._lookup(host, port)
        for each in addresses:
            check_address(each, self._origin)
        return [
            ResolveResult(
                hostname=host,
                host=each,
                port=port,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for each in addresses
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _socket(origin: Origin, info: tuple[Any, ...]) -> socket.socket:
    """Return a socket to connect to an address, whichever way the address was found."""
    family, kind, protocol, _, address = info
    check_address(address[0], origin)
    return socket.socket(family, kind, protocol)


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or certifi.where())
    except (OSError, ValueError) as error:
        raise ValueError(f"{ca_file} cannot be read or holds no certificates in PEM form") from error
