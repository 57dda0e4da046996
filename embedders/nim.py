"""An embedder that asks a NIM: POST /v1/embeddings."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx

from embedders import images, nim_wire
from embedders.base import Outcome
from embedders.errors import (
    AnswerInvalid,
    CredentialRejected,
    EmbedderError,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
)
from embedders.inputs import Embedding, EmbedOptions, ImageInput, Input, TextInput, Vector
from embedders.lifetime import Lifetime
from embedders.spec import EmbedderSpec, InputLimits
from embedders.texts import check_text

__all__ = ["NimConfig", "NimEmbedder"]

MAX_RETRY_AFTER_S = 3600.0

_INPUT_AT_FAULT = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NimConfig:
    """Where a NIM is and what it serves.

    Attributes:
        name: the embedder's name.
        base_url: http or https; with or without /v1 at its end, and with a path before that where a proxy wants one.
        model: the model's name as the NIM knows it.
        dimension: values in a vector of the model.
        space: the vector space; the model's name unless said otherwise.
        api_key: sent as a bearer token.
        timeout_s: seconds for one request from connecting to the answer's last byte.
        max_batch: inputs in one request, 1 to 64.
        max_connections: requests at the same time.
        limits: bounds on one input.
    """

    name: str = "nim"
    base_url: str
    model: str
    dimension: int
    space: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    max_batch: int = nim_wire.MAX_INPUTS
    max_connections: int = 8
    limits: InputLimits = field(default_factory=InputLimits)


class NimEmbedder:
    """Embeds on a NIM, with one pool of connections."""

    def __init__(self, config: NimConfig, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Make one; `transport` stands in for the network.

        Raises:
            ValueError: base_url is no http or https address, max_batch is out of bounds, or api_key fits no header.
        """
        if not 1 <= config.max_batch <= nim_wire.MAX_INPUTS:
            raise ValueError(
                f"max_batch is {config.max_batch}; a NIM takes 1 to {nim_wire.MAX_INPUTS} inputs a request"
            )
        if config.api_key and not (config.api_key.isascii() and config.api_key.isprintable()):
            raise ValueError("api_key has characters that no key has, such as a line end")
        self._config = config
        self._root = _root(config.base_url)
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(config.max_connections)
        self._life = Lifetime(config.name)
        self._spec = EmbedderSpec(
            name=config.name,
            model=config.model,
            space=config.space or config.model,
            dimension=config.dimension,
            limits=config.limits,
            max_batch=config.max_batch,
            slots=config.max_connections,
        )

    @property
    def spec(self) -> EmbedderSpec:
        """Identity and bounds, known from the beginning."""
        return self._spec

    async def start(self) -> None:
        """Make the pool of connections; they open when they are needed."""
        if self._client is not None:
            return
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._config.api_key:
            headers["Authorization"] = f"Bearer {self._config.api_key}"
        count = self._config.max_connections
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=self._config.timeout_s,
            limits=httpx.Limits(max_connections=count, max_keepalive_connections=count),
            transport=self._transport,
            trust_env=False,
            follow_redirects=False,
        )

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs in requests of at most max_batch, some at the same time; `options` mean nothing to nvclip.

        Raises:
            EmbedderUnavailable: no connection, no answer in time, or a 5xx answer; EmbedderRateLimited for 429.
            CredentialRejected: the NIM answers 401 or 403.
            ModelGone: the NIM answers 404 or 410.
            AnswerInvalid: the answer holds something else than one unit vector for each input.
        """
        del options
        return await self._life.run(self._embed(inputs))

    async def check(self) -> None:
        """Ask whether the NIM is ready, then embed a short text.

        Raises:
            EmbedderError: as `embed`; AnswerInvalid also when the NIM refuses a plain text.
        """
        await self._life.run(self._check())

    async def close(self) -> None:
        """Fail the calls in flight and close the connections. May be called twice."""
        await self._life.end()
        if self._client is not None:
            await self._client.aclose()

    async def _embed(self, inputs: Sequence[Input]) -> list[Outcome]:
        size = self._config.max_batch
        try:
            async with asyncio.TaskGroup() as group:
                batches = [
                    group.create_task(self._embed_batch(inputs[start : start + size]))
                    for start in range(0, len(inputs), size)
                ]
        except BaseExceptionGroup as errors:
            # Whatever came first cancelled the others, so it tells it all.
            raise errors.exceptions[0] from None
        return [outcome for batch in batches for outcome in batch.result()]

    async def _check(self) -> None:
        status, _, _ = await self._send("GET", "/v1/health/ready", max_bytes=65_536)
        # Some gateways have no such page; the text then tells alone.
        if status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise self._failure(status, None)
        (outcome,) = await self._embed([TextInput("ready")])
        if isinstance(outcome, InputRejected):
            raise AnswerInvalid(f"the NIM refuses a plain text; check that it serves the model {self._config.model}")

    async def _embed_batch(self, inputs: Sequence[Input]) -> list[Outcome]:
        async with self._slots:
            if any(isinstance(each, ImageInput) for each in inputs):
                items = await asyncio.to_thread(self._items, inputs)
            else:
                items = self._items(inputs)
            valid = [item for item in items if isinstance(item, str)]
            vectors = iter(await self._vectors(valid) if valid else [])
        outcomes: list[Outcome] = []
        for item in items:
            outcome = next(vectors) if isinstance(item, str) else item
            outcomes.append(outcome if isinstance(outcome, InputRejected) else Embedding(outcome))
        return outcomes

    def _items(self, inputs: Sequence[Input]) -> list[str | InputRejected]:
        return [self._item(each) for each in inputs]

    def _item(self, each: Input) -> str | InputRejected:
        limits = self._config.limits
        try:
            if isinstance(each, ImageInput):
                return nim_wire.image_item(*images.as_nim_image(each.content, limits))
            check_text(each.text, limits)
            return nim_wire.text_item(each.text)
        except InputRejected as error:
            return error

    async def _vectors(self, items: Sequence[str]) -> list[Vector | InputRejected]:
        """Embed items in one request; when the NIM refuses it, find the items at fault by halving it."""
        count, dimension = len(items), self._config.dimension
        status, retry_after, body = await self._send(
            "POST",
            "/v1/embeddings",
            nim_wire.embeddings_request(self._config.model, items),
            max_bytes=nim_wire.max_answer_bytes(count, dimension),
        )
        if status == HTTPStatus.OK:
            return list(nim_wire.read_embeddings(body, count=count, dimension=dimension))
        if status not in _INPUT_AT_FAULT:
            raise self._failure(status, retry_after)
        if count == 1:
            return [
                InputRejected(
                    f"the NIM refuses the input with status {status}; "
                    "send a shorter text, or a smaller JPEG or PNG image"
                )
            ]
        half = count // 2
        return [*await self._vectors(items[:half]), *await self._vectors(items[half:])]

    async def _send(
        self, method: str, path: str, content: dict[str, Any] | None = None, *, max_bytes: int
    ) -> tuple[int, str | None, bytes]:
        """Return status, Retry-After and, for status 200 only, the body."""
        if self._client is None:
            raise EmbedderUnavailable(f"the embedder {self._config.name} is not started")
        try:
            async with (
                asyncio.timeout(self._config.timeout_s),
                self._client.stream(method, self._root + path, json=content) as response,
            ):
                body = await _read(response, max_bytes) if response.status_code == HTTPStatus.OK else b""
                return response.status_code, response.headers.get("Retry-After"), body
        except (TimeoutError, httpx.TimeoutException) as error:
            raise EmbedderUnavailable(f"the NIM gave no answer in {self._config.timeout_s:g} s") from error
        except httpx.ConnectError as error:
            raise EmbedderUnavailable("the NIM cannot be reached") from error
        except httpx.HTTPError as error:
            raise EmbedderUnavailable(f"the connection to the NIM broke: {type(error).__name__}") from error

    def _failure(self, status: int, retry_after: str | None) -> EmbedderError:
        message = f"the NIM answered with status {status}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return CredentialRejected(f"{message}: it refuses this server's key; set a valid one")
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return ModelGone(f"{message}: it does not serve the model {self._config.model}")
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return EmbedderRateLimited(f"{message}: too many calls", retry_after_s=_seconds(retry_after))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
            return EmbedderUnavailable(message, retry_after_s=_seconds(retry_after))
        return AnswerInvalid(f"{message}, which is none that a NIM gives; check its address")


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    # Read as sent, because a few compressed bytes could unfold to any size.
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise AnswerInvalid("the NIM compressed its answer, though asked not to")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise AnswerInvalid(f"the NIM's answer has more than {max_bytes} bytes")
    return bytes(body)


def _root(base_url: str) -> str:
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL as error:
        raise ValueError("base_url is no address; it looks like http://host:8000") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("base_url is no http or https address; it looks like http://host:8000")
    return str(url).rstrip("/").removesuffix("/v1").rstrip("/")


def _seconds(retry_after: str | None) -> float:
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return 1.0
    return seconds if 0 < seconds <= MAX_RETRY_AFTER_S else 1.0
