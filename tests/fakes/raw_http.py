"""A caller of the HTTP endpoint that sends what it is told, byte by byte if need be."""

import asyncio
import json
import re
from typing import Any

from tests.fakes.embedder import picture
from tests.fakes.web import MODEL, Web, data_uri

A_BODY = json.dumps({"model": MODEL, "input": ["a cat", data_uri(picture())], "encoding_format": "float"}).encode()


class Connection:
    """A connection that sends what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        """Send as long as the server takes it."""
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
        except ConnectionError:
            pass

    async def answer(self) -> tuple[int, Any]:
        """Return the next answer's status and body; status 0 for a connection that is closed without one."""
        try:
            head = "HTTP/1.1 100 "
            while head.startswith("HTTP/1.1 100 "):
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"(?i)content-length: (\d+)", head)
            assert length is not None, head
            return int(head.split()[1]), json.loads(await self.reader.readexactly(int(length[1])))
        except (ConnectionError, asyncio.IncompleteReadError):
            return 0, None

    async def end(self) -> bool:
        """Return whether the server closes the connection, reading what else it sends."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError:
            pass
        return True


async def connect(web: Web) -> Connection:
    return Connection(*await asyncio.open_connection("127.0.0.1", web.server.port))


def post(body: bytes, **headers: object) -> bytes:
    fields = {
        "host": "x",
        "content-length": len(body),
        **{name.replace("_", "-"): each for name, each in headers.items()},
    }
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
    return b"POST /v1/embeddings HTTP/1.1\r\n" + "".join(lines).encode() + b"\r\n" + body


async def assert_serves(web: Web) -> None:
    async with asyncio.timeout(60):
        connection = await connect(web)
        await connection.send(post(A_BODY))
        status, body = await connection.answer()
        connection.writer.close()
    assert status == 200
    assert len(body["data"]) == 2
