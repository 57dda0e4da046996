"""What every simulated NIM has: HTTP on loopback, its pages, keys, injected faults, and a record of broken rules."""

import asyncio
import json
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


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


class Refusal(Exception):
    """A request is refused.

    Attributes:
        status: of the answer.
        broken: whether the request breaks a rule that the client can know; if not, its user or operator is at fault.
    """

    def __init__(self, words: str, status: int = 400, *, broken: bool = True) -> None:
        super().__init__(words)
        self.status = status
        self.broken = broken


class SimulatedNim(ABC):
    """Serves one POST path and a NIM's pages on a free port while its context is open.

    A request that breaks the NIM's documented rules is answered as documented, and recorded. The end of the context
    raises what was recorded, so that the test fails; a test that breaks a rule on purpose calls `forgive`.

    Attributes:
        model: the served id.
        faults: for the next posts, one each; posts behind the last one are answered well.
        fault: for every post, while it is set.
        ready: whether /v1/health/ready answers 200; else 503.
        listed: the ids in /v1/models; by default the served one. None: there is no such page.
        requests: the bodies of the posts, in order.
        headers: their headers, names in lower case.
        heads: the first line and the headers of all requests, in order.
        violations: what broke a rule, in words.
        arrived: set with every post.
        most_at_once: the most posts that were inside at the same time.
    """

    post_path: str
    """The path of the posts, such as /v1/embeddings."""

    def __init__(
        self, model: str, *, api_key: str | None = None, path: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        """Make one; `path` stands before /v1, and `api_key` is needed for posts."""
        self.model = model
        self.api_key = api_key
        self.path = path
        self.tls = tls
        self.faults: deque[Fault] = deque()
        self.fault: Fault | None = None
        self.ready = True
        self.listed: list[str] | None = [model]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.heads: list[tuple[str, dict[str, str]]] = []
        self.violations: list[str] = []
        self.arrived = asyncio.Event()
        self.most_at_once = 0
        self._inside = 0
        self._server: asyncio.Server | None = None
        self._port = 0
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.rise()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.die()
        if error is None and self.violations:
            raise AssertionError(f"requests broke the rules of {self.model}: {'; '.join(self.forgive())}")

    def forgive(self) -> list[str]:
        """Return the broken rules, and forget them."""
        violations, self.violations = self.violations, []
        return violations

    def forget(self) -> None:
        """Forget the requests so far, such as those by which a client learns the model at its start."""
        self.requests.clear()
        self.headers.clear()
        self.heads.clear()
        self.arrived.clear()

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

    def become(self, model: str) -> None:
        """Serve another model from now on."""
        self.model, self.listed = model, [model]

    @property
    def base_url(self) -> str:
        """The address in front of /v1."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}{self.path}"

    @abstractmethod
    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a post.

        Raises:
            Refusal: the request is refused.
        """

    def refusal_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return the body of a refusal: by default one field with the words."""
        return {"error": str(refusal)}

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
        if (method, path) == ("POST", self.path + self.post_path):
            self.headers.append(headers)
            fault = self.faults.popleft() if self.faults else self.fault or fault
            status, answer = await self._post(content, headers, fault)
        else:
            page = path.removeprefix(self.path) if method == "GET" and path.startswith(self.path) else ""
            status, answer = self._page(page)
        body = fault.body if fault.body is not None else json.dumps(answer).encode()
        if fault.reset:
            if fault.body is not None:
                writer.write(_head(status, len(body), fault.headers) + body[: len(body) // 2])
                await writer.drain()
            return False
        writer.write(_head(status, len(body), fault.headers) + body)
        await writer.drain()
        return True

    def _page(self, page: str) -> tuple[int, dict[str, Any]]:
        """Return the answer to a GET."""
        if page == "/v1/health/ready":
            message = "Service is ready." if self.ready else "Service is not ready."
            return (200 if self.ready else 503), {
                "object": "health.response",
                "message": message,
                "ready": self.ready,
            }
        pages: dict[str, dict[str, Any]] = {
            "/v1/health/live": {"object": "health.response", "message": "Service is live.", "live": True},
            "/v1/metadata": {
                "version": "2.4.0",
                "modelInfo": [{"shortName": self.model.rpartition("/")[2], "modelUrl": ""}],
            },
            "/v1/version": {"release": "2.4.0", "api": "2.4.0"},
        }
        if self.listed is not None:
            models = [{"id": each, "object": "model", "created": 0, "owned_by": "system"} for each in self.listed]
            pages["/v1/models"] = {"object": "list", "data": models}
        if page in pages:
            return 200, pages[page]
        return 404, {"status": 404, "title": "Not Found", "detail": f"{page} not found"}

    async def _post(self, content: bytes, headers: dict[str, str], fault: Fault) -> tuple[int, dict[str, Any]]:
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
            answer = self.answer(request)
        except Refusal as refusal:
            if refusal.broken:
                self.violations.append(str(refusal))
            return refusal.status, self.refusal_body(refusal)
        if fault.change is not None:
            fault.change(answer)
        return 200, answer


def _head(status: int, length: int, extra: dict[str, str]) -> bytes:
    headers = {"Content-Type": "application/json", "Content-Length": str(length), **extra}
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()
