"""Servers on loopback that record what reaches them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """An HTTP server, written by hand so that it can break every rule.

    Attributes:
        port: where it listens.
        connections: how many there have been.
        requests: the heads of the requests, in order.
        replies: what is answered, by path: the bytes, or a function that writes them. Others get a 404.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.requests: list[str] = []
        self.replies: dict[str, bytes | Reply] = {}
        self._open: set[asyncio.Task[None]] = set()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def open(self, host: str = "127.0.0.1") -> AsyncIterator["Listener"]:
        server = await asyncio.start_server(self._serve, host, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for each in list(self._open):
                each.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    self.requests.append(head)
                    reply = self.replies.get(head.split(" ")[1], answer(b"", status=404))
                    if isinstance(reply, bytes):
                        writer.write(reply)
                        await writer.drain()
                    else:
                        await reply(writer)
        finally:
            self._open.discard(task)
            writer.close()


def answer(body: bytes, *headers: str, status: int = 200) -> bytes:
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirect(to: str, status: int = 302) -> bytes:
    return answer(b"elsewhere", f"Location: {to}", status=status)


@pytest.fixture
async def site() -> AsyncIterator[Listener]:
    """Return an origin."""
    async with Listener().open() as listener:
        yield listener


@pytest.fixture
async def other() -> AsyncIterator[Listener]:
    """Return a server that must not be called."""
    async with Listener().open() as listener:
        yield listener
        assert (listener.connections, listener.requests) == (0, [])
