"""A NIM on loopback: the documented schemas of nvclip and nemotron-vl, vectors made from a hash, faults on request."""

import asyncio
import base64
import binascii
import hashlib
import json
import re
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from embedders.contract import Vector

MAX_INPUTS = 64
VL_FIELDS = ("input_type", "modality", "truncate")
DATA_URI = re.compile(r"data:image/(jpg|jpeg|png);base64,([A-Za-z0-9+/]+=*)")
MAGIC = {"jpg": b"\xff\xd8\xff", "jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with a request.

    Attributes:
        status: answered instead of 200; the body is then a problem document unless `body` is given.
        headers: added to the answer's headers.
        body: sent instead of the answer.
        change: changes the answer's document in place before it is sent.
        gate: awaited before the answer.
        reset: the connection is cut without an answer, or behind half of the `body`.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    change: Callable[[dict[str, Any]], None] | None = None
    gate: asyncio.Event | None = None
    reset: bool = False


class _Violation(Exception):
    """A request breaks the schema."""


class FakeNim:
    """Serves POST /v1/embeddings and GET /v1/health/ready on a free port while its context is open.

    Attributes:
        faults: for the next requests to /v1/embeddings, one each; requests behind the last one are answered well.
        fault: for every request to /v1/embeddings, while it is set.
        refuses: says which items of `input` are answered with 422.
        refusal: the body of its 422.
        fails: says which items of `input` make it answer 500.
        ready: whether /v1/health/ready answers 200; else 503.
        requests: the bodies of requests to /v1/embeddings, in order.
        headers: their headers, names in lower case.
        heads: the first line and the headers of all requests, in order.
        arrived: set with every request to /v1/embeddings.
        most_at_once: the most requests that were inside at the same time.
    """

    def __init__(
        self,
        *,
        model: str = "nvidia/nvclip",
        dimension: int = 16,
        index_base: int = 0,
        floats: bool = False,
        api_key: str | None = None,
        path: str = "",
        vl: bool = False,
        max_words: int = 1000,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Make one.

        `floats` answers lists of numbers whatever was asked for, `path` stands before /v1, `vl` is for the schema of
        nemotron-vl, whose vectors are not of unit length, and `max_words` for the length of a text that it takes.
        """
        self.model = model
        self.dimension = dimension
        self.index_base = index_base
        self.floats = floats
        self.api_key = api_key
        self.path = path
        self.vl = vl
        self.max_words = max_words
        self.tls = tls
        self.faults: deque[Fault] = deque()
        self.fault: Fault | None = None
        self.refuses: Callable[[str], bool] = lambda _: False
        self.refusal: dict[str, Any] | None = None
        self.fails: Callable[[str], bool] = lambda _: False
        self.ready = True
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.heads: list[tuple[str, dict[str, str]]] = []
        self.arrived = asyncio.Event()
        self.most_at_once = 0
        self._inside = 0
        self._server: asyncio.Server | None = None
        self._port = 0
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.rise()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def rise(self) -> None:
        """Listen; after `die` on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=2**20, ssl=self.tls)
        self._port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Stop listening and cut all connections. May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    @property
    def base_url(self) -> str:
        """The address in front of /v1."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}{self.path}"

    def vector(self, content: str | bytes) -> Vector:
        """Return the vector of a text or an image file: float32, shape (dimension,), unit length."""
        kind, data = (b"t", content.encode()) if isinstance(content, str) else (b"i", content)
        seed = int.from_bytes(hashlib.sha256(kind + data).digest())
        row = np.random.default_rng(seed).standard_normal(self.dimension)
        return (row / np.linalg.norm(row)).astype(np.float32)

    def answered(self, content: str | bytes, role: str | None = None) -> Vector:
        """Return the vector as it is sent; nemotron-vl's depends on a text's role, and is not of unit length."""
        if not self.vl:
            return self.vector(content)
        return self.vector(content if isinstance(content, bytes) else f"{role}: {content}") * np.float32(7)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        self.heads.append((head[0], headers))
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        fault = Fault()
        answer: dict[str, Any]
        if (method, path) == ("GET", f"{self.path}/v1/health/ready"):
            status, answer = (200, {"object": "health.response"}) if self.ready else (503, {"message": "not ready"})
        elif (method, path) == ("POST", f"{self.path}/v1/embeddings"):
            self.headers.append(headers)
            fault = self.faults.popleft() if self.faults else self.fault or fault
            status, answer = await self._embeddings(content, headers, fault)
        else:
            status, answer = 404, {"status": 404, "title": "Not Found", "detail": f"{path} not found"}
        body = fault.body if fault.body is not None else json.dumps(answer).encode()
        if fault.reset:
            if fault.body is not None:
                writer.write(_head(status, len(body), fault.headers) + body[: len(body) // 2])
                await writer.drain()
            return False
        writer.write(_head(status, len(body), fault.headers) + body)
        await writer.drain()
        return True

    async def _embeddings(self, content: bytes, headers: dict[str, str], fault: Fault) -> tuple[int, dict[str, Any]]:
        request = json.loads(content)
        self.requests.append(request)
        self.arrived.set()
        self._inside += 1
        self.most_at_once = max(self.most_at_once, self._inside)
        try:
            if fault.gate is not None:
                await fault.gate.wait()
        finally:
            self._inside -= 1
        if fault.status != 200:
            return fault.status, {"status": fault.status, "title": "injected"}
        if self.api_key is not None and headers.get("authorization") != f"Bearer {self.api_key}":
            return 401, {"status": 401, "title": "Unauthorized"}
        try:
            answer = self._answer(request)
            if any(map(self.fails, request["input"])):
                return 500, {"status": 500, "title": "Internal Server Error", "detail": "inference failed"}
        except _Violation as violation:
            return 422, self.refusal or {"detail": [{"msg": str(violation)}]}
        if fault.change is not None:
            fault.change(answer)
        return 200, answer

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        allowed = {"input", "model", "encoding_format", *(VL_FIELDS if self.vl else ())}
        if extra := request.keys() - allowed:
            raise _Violation(f"Extra inputs are not permitted: {sorted(extra)}")
        if request.get("model") != self.model:
            raise _Violation("model: unknown")
        encoding = request.get("encoding_format", "float")
        if encoding not in ("float", "base64"):
            raise _Violation("encoding_format: unknown")
        items = request.get("input")
        items = [items] if isinstance(items, str) else items
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_INPUTS:
            raise _Violation(f"input: 1 to {MAX_INPUTS} items")
        contents = [self._content(item) for item in items]
        if self.vl:
            self._check_vl(request, contents)
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": self.index_base + at,
                    "embedding": self._encode(self.answered(content, request.get("input_type")), encoding),
                }
                for at, content in enumerate(contents)
            ],
            "model": self.model,
            "usage": {
                "num_images": sum(isinstance(each, bytes) for each in contents),
                "prompt_tokens": 77 * len(items),
                "total_tokens": 77 * len(items),
            },
        }

    def _check_vl(self, request: dict[str, Any], contents: list[str | bytes]) -> None:
        kinds = ["text" if isinstance(each, str) else "image" for each in contents]
        role, truncate = request.get("input_type"), request.get("truncate", "NONE")
        if role not in ("query", "passage") or truncate not in ("START", "END", "NONE"):
            raise _Violation("input_type or truncate: unknown")
        if request.get("modality") != kinds:
            raise _Violation("modality: not that of the inputs")
        if "image" in kinds and role == "query":
            raise _Violation("input_type: images are passages")
        lengths = [len(each.split()) for each in contents if isinstance(each, str)]
        if truncate == "NONE" and any(length > self.max_words for length in lengths):
            raise _Violation("input: too many tokens")

    def _content(self, item: object) -> str | bytes:
        if not isinstance(item, str) or not item or self.refuses(item):
            raise _Violation("input: not a text or an image that is taken")
        if not item.startswith("data:image"):
            if "\n" in item and not self.vl:
                raise _Violation("input: does not match ^.*$")
            return item
        uri = DATA_URI.fullmatch(item)
        try:
            content = base64.b64decode(uri[2], validate=True) if uri else b""
        except binascii.Error as error:
            raise _Violation("input: bad base64") from error
        if uri is None or not content.startswith(MAGIC[uri[1]]):
            raise _Violation("input: bad image")
        return content

    def _encode(self, vector: Vector, encoding: str) -> object:
        if self.floats or encoding == "float":
            return vector.tolist()
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _head(status: int, length: int, extra: dict[str, str]) -> bytes:
    headers = {"Content-Type": "application/json", "Content-Length": str(length), **extra}
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()
