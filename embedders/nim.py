"""An embedder that asks a NIM: POST /v1/embeddings."""

import asyncio
import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from embedders import images, nim_wire
from embedders.base import Outcome
from embedders.errors import (
    AnswerInvalid,
    CallerKeyRejected,
    CredentialRejected,
    EmbedderError,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
)
from embedders.inputs import QUERY, Embedding, EmbedOptions, ImageInput, Input, Modality, TextInput, Vector
from embedders.lifetime import Lifetime
from embedders.nim_address import check_key
from embedders.nim_connection import Answer, ConnectionConfig, NimConnection
from embedders.nim_measuring import measure
from embedders.nim_profiles import AUTO, Kind, choose_profile
from embedders.nim_retries import Retries, Transient
from embedders.spec import EmbedderSpec, InputLimits
from embedders.texts import check_text
from embedders.timing import preprocessing

__all__ = ["NimConfig", "NimEmbedder"]

START_PROBE_S = 5.0
"""Seconds that starting waits for a NIM to tell its dimension; later on `check` learns it."""

READY_PAGE_BYTES = 65_536

_INPUT_AT_FAULT = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
_KEY_AT_FAULT = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN})
# A 500 is the NIM's own documented answer when inference fails; asking the same again mostly fails again.
_PASSING = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NimConfig:
    """Where a NIM is and what it serves.

    Attributes:
        name: the embedder's name.
        base_url: http or https; with or without /v1 at its end, and with a path before that where a gateway wants one.
        model: the model's name as the NIM knows it.
        profile: the name of one of nim_profiles.PROFILES, or "auto" for the one that fits the model's name.
        dimension: values in a vector of the model; None for what the profile knows, or else what the NIM answers.
        api_key: sent as a bearer token where a call brings no key of its own.
        ca_file: certificates of the only authorities that are trusted; None for the usual ones.
        proxy: an address, "environment" for those of the environment's variables, or None for none at all.
        timeout_s: seconds for one request from connecting to the answer's last byte.
        max_batch: inputs in one request; None for what the profile says.
        max_connections: requests with callers' inputs at the same time; checks have a connection of their own.
        retry_attempts: requests in all for the same inputs, when they fail in passing.
        retry_max_s: seconds within which retries begin and end.
        limits: bounds on one input.
    """

    name: str = "nim"
    base_url: str
    model: str
    profile: str = AUTO
    dimension: int | None = None
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    max_batch: int | None = None
    max_connections: int = 8
    retry_attempts: int = 3
    retry_max_s: float = 20.0
    limits: InputLimits = field(default_factory=InputLimits)


@dataclass(frozen=True, slots=True)
class _Item:
    """One input as it goes over the wire."""

    content: str
    modality: Modality
    kind: Kind


class NimEmbedder:
    """Embeds on a NIM, with one pool of connections."""

    def __init__(
        self,
        config: NimConfig,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        retries: Retries | None = None,
    ) -> None:
        """Make one; `transport` stands in for the network, and `retries` for those of the configuration.

        Raises:
            ValueError: an address, a key, ca_file, profile or max_batch makes no sense.
        """
        self._config = config
        self._profile = choose_profile(config.profile, config.model)
        max_batch = self._profile.batch if config.max_batch is None else config.max_batch
        if not 1 <= max_batch <= self._profile.max_inputs:
            raise ValueError(
                f"max_batch is {max_batch}; a NIM of profile {self._profile.name} takes 1 to "
                f"{self._profile.max_inputs} inputs a request"
            )
        self._connection = NimConnection(
            ConnectionConfig(
                base_url=config.base_url,
                api_key=config.api_key,
                ca_file=config.ca_file,
                proxy=config.proxy,
                # One more than there are slots, so that checks never wait behind slow requests.
                max_connections=config.max_connections + 1,
            ),
            transport=transport,
        )
        self._host = urlsplit(config.base_url).hostname or ""
        self._retries = retries or Retries(attempts=config.retry_attempts, max_s=config.retry_max_s)
        self._slots = asyncio.Semaphore(config.max_connections)
        self._life = Lifetime(config.name)
        self._spec = EmbedderSpec(
            name=config.name,
            model=config.model,
            space=config.model,
            dimension=config.dimension or self._profile.dimension or 0,
            limits=config.limits,
            max_batch=max_batch,
            slots=config.max_connections,
        )

    @property
    def spec(self) -> EmbedderSpec:
        """Identity and bounds, known from the beginning, but for a dimension that has to be learnt."""
        return self._spec

    async def start(self) -> None:
        """Make the pool of connections; they open when they are needed. Ask for the dimension if nobody knows it."""
        self._connection.open()
        if not self._spec.dimension:
            with contextlib.suppress(EmbedderError, TimeoutError):
                async with asyncio.timeout(START_PROBE_S):
                    await self._life.run(self._probe())

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs in requests of at most max_batch, some at the same time.

        Raises:
            EmbedderUnavailable: no connection, no answer in time, or a 5xx answer, also after retries; or the model's
                dimension is not known yet. EmbedderRateLimited for 429.
            CredentialRejected: the NIM answers 401, 402 or 403; CallerKeyRejected if the key is the caller's.
            ModelGone: the NIM answers 404 or 410, or refuses whatever it is asked because of the model's name.
            AnswerInvalid: the answer holds something else than one vector for each input, or the NIM refuses whatever
                it is asked.
        """
        return await self._life.run(self._embed(inputs, options))

    async def check(self) -> None:
        """Ask whether the NIM is ready, then embed a short text, and learn the dimension if nobody knows it.

        Raises:
            EmbedderError: as `embed`.
        """
        await self._life.run(self._check())

    async def close(self) -> None:
        """Fail the calls in flight and close the connections. May be called twice."""
        await self._life.end()
        await self._connection.close()

    async def _embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        if not self._spec.dimension:
            raise EmbedderUnavailable(
                f"the dimension of {self._config.model} is not known yet, because the NIM has not answered a probe; "
                "wait for it, or set nim.dimension"
            )
        if options.api_key is not None:
            try:
                check_key(options.api_key)
            except ValueError as error:
                raise CallerKeyRejected(str(error)) from error
        size = self._spec.max_batch
        if len(inputs) <= size:
            return await self._embed_batch(inputs, options)
        try:
            async with asyncio.TaskGroup() as group:
                batches = [
                    group.create_task(self._embed_batch(inputs[start : start + size], options))
                    for start in range(0, len(inputs), size)
                ]
        except BaseExceptionGroup as errors:
            # Whatever came first cancelled the others, so it tells it all.
            raise errors.exceptions[0] from None
        return [outcome for batch in batches for outcome in batch.result()]

    async def _check(self) -> None:
        answer = await self._send("GET", "/v1/health/ready", None, None, READY_PAGE_BYTES)
        # Some gateways have no such page; the text then tells alone.
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise self._failure(answer, None)
        await self._probe()

    async def _probe(self) -> None:
        """Embed a short text, and learn the dimension if nobody knows it."""
        canary = _canary(Modality.TEXT, self._profile.kind(TextInput(""), QUERY))
        answer = await self._ask([canary], None)
        if answer.status != HTTPStatus.OK:
            raise self._refusal_of_all(answer, Modality.TEXT, None)
        (vector,) = self._read(answer, 1)
        if not self._spec.dimension:
            self._spec = replace(self._spec, dimension=len(vector))

    async def _embed_batch(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        async with self._slots:
            with preprocessing():
                if any(isinstance(each, ImageInput) for each in inputs):
                    items = await asyncio.to_thread(self._items, inputs, options)
                else:
                    items = self._items(inputs, options)
            outcomes: list[Outcome | None] = [None if isinstance(item, _Item) else item for item in items]
            requests: dict[Kind, list[tuple[int, _Item]]] = {}
            for at, item in enumerate(items):
                if isinstance(item, _Item):
                    requests.setdefault(item.kind, []).append((at, item))
            for request in requests.values():
                rows = await self._vectors([item for _, item in request], options.api_key)
                for (at, _), row in zip(request, rows, strict=True):
                    outcomes[at] = row if isinstance(row, InputRejected) else Embedding(row)
        return [outcome for outcome in outcomes if outcome is not None]

    def _items(self, inputs: Sequence[Input], options: EmbedOptions) -> list[_Item | InputRejected]:
        return [self._item(each, options) for each in inputs]

    def _item(self, each: Input, options: EmbedOptions) -> _Item | InputRejected:
        limits, kind = self._config.limits, self._profile.kind(each, options)
        try:
            if isinstance(each, ImageInput):
                content = nim_wire.image_item(*images.as_nim_image(each.content, limits))
                return _Item(content, Modality.IMAGE, kind)
            check_text(each.text, limits)
        except InputRejected as error:
            return error
        # Where the request says what each input is, a text may look like anything.
        content = each.text if self._profile.modalities else nim_wire.text_item(each.text)
        return _Item(content, Modality.TEXT, kind)

    async def _vectors(self, items: Sequence[_Item], key: str | None) -> list[Vector | InputRejected]:
        """Embed items of one kind in one request; when the NIM refuses it, find the items at fault."""
        answer = await self._ask(items, key)
        if answer.status == HTTPStatus.OK:
            return list(self._read(answer, len(items)))
        # Before the items are blamed one by one: a NIM that refuses everything would be asked 127 times for 64 of them.
        pictures = all(item.modality is Modality.IMAGE for item in items)
        modality = Modality.IMAGE if pictures else Modality.TEXT
        canary = await self._ask([_canary(modality, items[0].kind)], key)
        if canary.status != HTTPStatus.OK:
            raise self._refusal_of_all(canary, modality, key)
        return await self._without_culprits(items, answer, key)

    async def _without_culprits(
        self, items: Sequence[_Item], refusal: Answer, key: str | None
    ) -> list[Vector | InputRejected]:
        """Find the items at fault in a refused request by halving it."""
        if len(items) == 1:
            return [self._rejection(items[0], refusal)]
        rows: list[Vector | InputRejected] = []
        half = len(items) // 2
        for part in (items[:half], items[half:]):
            answer = await self._ask(part, key)
            if answer.status == HTTPStatus.OK:
                rows += self._read(answer, len(part))
            else:
                rows += await self._without_culprits(part, answer, key)
        return rows

    def _read(self, answer: Answer, count: int) -> Sequence[Vector]:
        dimension, unit_length = self._spec.dimension or None, self._profile.unit_length
        return list(nim_wire.read_embeddings(answer.body, count=count, dimension=dimension, unit_length=unit_length))

    async def _ask(self, items: Sequence[_Item], key: str | None) -> Answer:
        """Send items of one kind; return a 200 or a refusal of the input, and raise everything else."""
        fields = self._profile.fields(items[0].kind, [item.modality.value for item in items])
        content = nim_wire.embeddings_request(self._config.model, [item.content for item in items], fields)
        max_bytes = nim_wire.max_answer_bytes(len(items), self._spec.dimension or None)
        answer = await self._send("POST", "/v1/embeddings", content, key, max_bytes)
        if answer.status != HTTPStatus.OK and answer.status not in _INPUT_AT_FAULT:
            raise self._failure(answer, key)
        return answer

    async def _send(
        self, method: str, path: str, content: dict[str, Any] | None, key: str | None, max_bytes: int
    ) -> Answer:
        """Send a request, again where it failed in passing."""
        tries = -1

        async def attempt(timeout_s: float) -> Answer:
            nonlocal tries
            tries += 1
            asked = self._connection.ask(method, path, content, api_key=key, max_bytes=max_bytes, timeout_s=timeout_s)
            answer = await measure(
                asked, embedder=self._config.name, host=self._host, method=method, path=path, tries=tries
            )
            if answer.status in _PASSING:
                failure = self._failure(answer, key)
                assert isinstance(failure, EmbedderUnavailable)
                raise Transient(failure, retry_after_s=answer.retry_after_s)
            return answer

        return await self._retries.run(attempt, timeout_s=self._config.timeout_s)

    def _failure(self, answer: Answer, key: str | None) -> EmbedderError:
        message = f"the NIM answered with status {answer.status}"
        wait_s = answer.retry_after_s or 1.0
        if answer.status in _KEY_AT_FAULT:
            what = "no credits are left for" if answer.status == HTTPStatus.PAYMENT_REQUIRED else "it refuses"
            if key is not None:
                return CallerKeyRejected(f"{message}: {what} the key that came with the call; send a valid one")
            return CredentialRejected(f"{message}: {what} this server's key; set a valid one")
        if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return ModelGone(f"{message}: it does not serve the model {self._config.model}")
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return EmbedderRateLimited(f"{message}: too many calls", retry_after_s=wait_s)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in _PASSING:
            return EmbedderUnavailable(message, retry_after_s=wait_s)
        return AnswerInvalid(f"{message}, which is none that a NIM gives; check its address")

    def _refusal_of_all(self, answer: Answer, modality: Modality, key: str | None) -> EmbedderError:
        """Return what to raise when the NIM refuses an input of ours. Its words can hold nothing of any caller's."""
        words = nim_wire.read_refusal(answer.body)
        for secret in filter(None, (key, self._config.api_key)):
            words = words.replace(secret, "...")
        message = f"the NIM refuses even a plain {modality.value} with status {answer.status}"
        if words:
            message += f' and says "{words}"'
        if re.search(r"\bdegraded\b", words, re.IGNORECASE):
            return EmbedderUnavailable(message)
        message += f"; check that it serves the model {self._config.model} and is of profile {self._profile.name}"
        if re.search(r"\bmodel\b", words, re.IGNORECASE):
            return ModelGone(message)
        return AnswerInvalid(message)

    def _rejection(self, item: _Item, refusal: Answer) -> InputRejected:
        if item.modality is Modality.IMAGE:
            fix = "send a smaller JPEG or PNG image"
        else:
            bound = self._profile.max_text_tokens
            fix = "send a shorter text" + (f"; the model reads {bound} tokens" if bound else "")
            fix += ", or let it be truncated" if item.kind.truncate == "NONE" else ""
        return InputRejected(f"the NIM refuses the input with status {refusal.status}; {fix}")


@cache
def _canary(modality: Modality, kind: Kind) -> _Item:
    """Return an input that no working NIM refuses."""
    if modality is Modality.TEXT:
        return _Item("ready", modality, kind)
    file = io.BytesIO()
    Image.new("RGB", (224, 224), "white").save(file, "PNG")
    return _Item(nim_wire.image_item("image/png", file.getvalue()), modality, kind)
