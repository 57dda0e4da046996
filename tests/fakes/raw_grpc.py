"""A gRPC client of plain HTTP/2 frames (RFC 9113) that leaves undone what libraries do: end messages, read, answer."""

import asyncio
import struct
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
FRAME_BYTES = 16384
FIRST_WINDOW = 65535


class RawClient:
    """A connection. It obeys the server's flow control, opens no window of its own, and answers no ping.

    Attributes:
        ended: streams that the server has ended.
        closed: whether the server has closed the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ended: set[int] = set()
        self.closed = False
        self._reader, self._writer = reader, writer
        self._window, self._windows, self._first = FIRST_WINDOW, dict[int, int](), FIRST_WINDOW
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, port: int) -> Self:
        """Open a connection to this machine."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE)
        client = cls(reader, writer)
        client._send(SETTINGS, 0, 0, b"")
        return client

    async def close(self) -> None:
        """Close the connection."""
        self._reading.cancel()
        self._writer.close()

    def call(self, stream: int, method: str) -> None:
        """Begin a call; streams have odd numbers that grow."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "x")]
        fields += [("content-type", "application/grpc"), ("te", "trailers")]
        # Literals without indexing (RFC 7541, 6.2.2); none is as long as 127 bytes.
        block = b"".join(b"\0%c%s%c%s" % (len(n), n.encode(), len(v), v.encode()) for n, v in fields)
        self._windows[stream] = self._first
        self._send(HEADERS, END_HEADERS, stream, block)

    async def message(self, stream: int, content: bytes, *, whole: bool = True) -> int:
        """Send a message, or all but its last byte, as far as the server takes it; return the bytes sent."""
        sent = 0
        rest = memoryview(b"\0" + struct.pack(">I", len(content)) + (content if whole else content[:-1]))
        while rest and not self.closed and stream not in self.ended:
            room = min(self._window, self._windows[stream], FRAME_BYTES)
            if room <= 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            piece, rest = rest[:room], rest[room:]
            sent += len(piece)
            self._window -= len(piece)
            self._windows[stream] -= len(piece)
            self._send(DATA, END_STREAM if whole and not rest else 0, stream, piece)
            await self._writer.drain()
        return sent

    def _send(self, kind: int, flags: int, stream: int, payload: bytes | memoryview) -> None:
        self._writer.write(struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream))
        self._writer.write(payload)

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                self._take(head[3], head[4], int.from_bytes(head[5:]), payload)
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True
            self._changed.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case 4 if not flags & ACK:
                for at in range(0, len(payload), 6):
                    name, value = struct.unpack_from(">HI", payload, at)
                    if name == 4:  # SETTINGS_INITIAL_WINDOW_SIZE
                        self._windows = {each: room + value - self._first for each, room in self._windows.items()}
                        self._first = value
                self._send(SETTINGS, ACK, 0, b"")
            case 8 if stream:
                self._windows[stream] = self._windows.get(stream, self._first) + int.from_bytes(payload)
            case 8:
                self._window += int.from_bytes(payload)
            case 1 | 3 if kind == RST_STREAM or flags & END_STREAM:
                self.ended.add(stream)
