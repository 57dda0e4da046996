"""Ports of this machine: which are free, and who answers."""

import asyncio
import contextlib
import errno
import random
import socket
from collections.abc import Collection
from pathlib import Path

ANSWER_TIMEOUT_S = 2.0

OUTGOING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Where Linux says which ports it gives to outgoing connections."""
LISTENING_PORTS = range(10_000, 60_000)
"""Ports below are often those of known services."""
ENOUGH_PORTS = 1_000
"""With fewer to choose from, two programs would often choose the same."""

_random = random.SystemRandom()


def find_port_fault(host: str, port: int) -> str | None:
    """Return why a port cannot be listened on, or None; an empty host means all addresses."""
    family = socket.AF_INET6 if not host and socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        _listen(host, port, family).close()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def free_ports(*lengths: int, besides: Collection[int] = ()) -> list[int]:
    """Return the first ports of free runs of these lengths; no port is in two runs or among the others given.

    Where the system says which ports outgoing connections get, those are left out: such a connection could take a port
    before its server listens, or while the server is started again.
    """
    choice = _ports_of_servers()
    firsts: list[int] = []
    with contextlib.ExitStack() as held:
        while len(firsts) < len(lengths):
            try:
                wanted = _random.choice(choice) if choice else 0
                first = held.enter_context(_listen("", wanted, socket.AF_INET)).getsockname()[1]
                run = range(first, first + lengths[len(firsts)])
                for port in run[1:]:
                    held.enter_context(_listen("", port, socket.AF_INET))
            except OverflowError:
                continue
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            if not any(port in besides for port in run):
                firsts.append(first)
    return firsts


def _ports_of_servers() -> range:
    """Return ports that no outgoing connection gets; none if they are unknown or too few."""
    try:
        lowest, highest = map(int, OUTGOING_PORTS.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return range(0)
    below = range(LISTENING_PORTS.start, min(lowest, LISTENING_PORTS.stop))
    above = range(max(highest + 1, LISTENING_PORTS.start), LISTENING_PORTS.stop)
    larger = max(below, above, key=len)
    return larger if len(larger) >= ENOUGH_PORTS else range(0)


async def answers_ready(host: str, port: int) -> bool:
    """Return whether a Weaviate says over HTTP that it is ready; False after 2 s."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /v1/.well-known/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                await _close(writer)
    except OSError:
        return False


async def listens(host: str, port: int) -> bool:
    """Return whether something takes connections on a port; False after 2 s."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
            await _close(writer)
    except OSError:
        return False
    return True


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _listen(host: str, port: int, family: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1)
    except OSError:
        listening.close()
        raise
    return listening
