"""Calls of one NIM, repeated after temporary failures, and the search for items that make it refuse a call."""

import asyncio
import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Generic, TypeVar

from embedders.base import Lifetime
from embedders.contract import InputLimits
from embedders.errors import CallerKeyRejected, EmbedderError, EmbedderUnavailable, InputRejected
from embedders.images.decoders import Decoders
from embedders.nim.address import check_key
from embedders.nim.connection import Answer, ConnectionConfig, NimConnection
from embedders.nim.failures import INFERENCE_FAILED, NimFailures
from embedders.nim.retries import PASSING, Retries, Transient
from embedders.telemetry.timing import call_times

START_PROBE_S = 5.0
"""Seconds that starting waits to learn the model from the NIM; later `check` learns it."""

READY_PAGE_BYTES = 65_536

MODELS_PAGE_BYTES = 1024 * 1024
"""The most bytes of a list of models: a gateway may list hundreds."""

Item = TypeVar("Item")
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class NimCallConfig:
    """The address of a NIM of any kind, and how to call it.

    Attributes:
        name: the name of the embedder or reranker.
        base_url: http or https; with or without /v1 at its end, and with a path before that if a gateway needs one.
        model: the model's name as the NIM knows it; None for the one that the NIM lists.
        api_key: sent as a bearer token unless the call has its own key.
        caller_keys: whether calls may have their own key; others' keys are not sent to this NIM.
        ca_file: certificates of the only trusted authorities; None for the usual ones.
        proxy: an address, "environment" for the environment variables, or None for no proxy.
        timeout_s: seconds for one request from connecting to the answer's last byte. A NIM works on a request for 120 s
            by default, and a batch of page images on a small GPU needs more than 30; callers' deadlines end it sooner.
        max_connections: requests with callers' inputs at the same time; checks have a separate connection.
        retry_attempts: requests in all for the same inputs, after temporary failures.
        retry_max_s: seconds within which retries begin and end.
        max_request_bytes: bytes of the inputs of one request as sent; a larger input goes alone.
        max_converted_pixels: pictures other than JPEG and PNG are scaled down to so many pixels; 0 for no bound.
        limits: bounds on one input.
        learn_at_start: whether starting waits a while for the NIM to tell its model; if not, the first check or call
            learns it.
    """

    name: str = "nim"
    base_url: str
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    caller_keys: bool = False
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    max_connections: int = 8
    retry_attempts: int = 3
    retry_max_s: float = 20.0
    max_request_bytes: int = 16 * 1024 * 1024
    max_converted_pixels: int = 2_000_000
    limits: InputLimits = field(default_factory=InputLimits)
    learn_at_start: bool = True

    @property
    def keyless(self) -> bool:
        """Whether only callers have keys."""
        return self.caller_keys and self.api_key is None


class NimCalls:
    """Sends requests to a NIM through one pool of connections.

    Args:
        config: how to reach and call the NIM.
        retries: instead of those of the configuration.
        failure: the error for an answer that is no success, by the answer and the caller's key.

    Raises:
        ValueError: an address or key is invalid, or ca_file holds no certificates.
    """

    def __init__(
        self,
        config: NimCallConfig,
        *,
        retries: Retries | None,
        failure: Callable[[Answer, str | None], EmbedderError],
    ) -> None:
        self._connection = NimConnection(
            ConnectionConfig(
                name=config.name,
                base_url=config.base_url,
                api_key=config.api_key,
                ca_file=config.ca_file,
                proxy=config.proxy,
                # One more than slots, so that checks never wait behind slow requests.
                max_connections=config.max_connections + 1,
            )
        )
        self._timeout_s = config.timeout_s
        self._retries = retries or Retries(attempts=config.retry_attempts, max_s=config.retry_max_s)
        self._failure = failure
        self._slots = asyncio.Semaphore(config.max_connections)

    def open(self) -> None:
        """Make the pool; connections open when they are needed."""
        self._connection.open()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        await self._connection.close()

    async def send(
        self,
        method: str,
        path: str,
        content: Sequence[bytes] | None = None,
        *,
        key: str | None = None,
        max_bytes: int,
        checking: bool = False,
        urgent: bool = True,
    ) -> Answer:
        """Send a request, with retries, and return the answer; checks do not take a slot.

        Args:
            method: HTTP's.
            path: behind the base URL.
            content: pieces of JSON.
            key: the caller's own, instead of the configured one.
            max_bytes: the most bytes of the body of a 200.
            checking: whether it is a check.
            urgent: whether somebody waits for the answer.

        Raises:
            EmbedderUnavailable: the NIM failed temporarily in the last attempt.
            AnswerInvalid: the answer is not HTTP, is compressed, or is too long.
        """
        tries = -1
        # Taken for each attempt, because a wait between two attempts needs no slot.
        slot = contextlib.nullcontext() if checking else self._slots

        async def attempt(timeout_s: float) -> Answer:
            nonlocal tries
            tries += 1
            async with slot:
                answer = await self._connection.ask(
                    method,
                    path,
                    content,
                    api_key=key,
                    max_bytes=max_bytes,
                    timeout_s=timeout_s,
                    tries=tries,
                    urgent=urgent,
                )
            if answer.status in PASSING:
                failure = self._failure(answer, key)
                assert isinstance(failure, EmbedderUnavailable)
                raise Transient(failure, retry_after_s=answer.retry_after_s)
            return answer

        times = call_times()
        return await self._retries.run(
            attempt,
            timeout_s=self._timeout_s,
            deadline_s=math.inf if times is None else times.deadline_s,
            key=key,
        )


class NimBackend(ABC):
    """What embeds or reranks on a NIM: how it starts, and whose keys it has.

    Args:
        config: how to reach and call the NIM.
        retries: instead of those of the configuration.
        failures: maps the NIM's failures to errors.
        decoders: read pictures; None for own ones.

    Raises:
        ValueError: an address or key is invalid, or ca_file holds no certificates.
    """

    def __init__(
        self, config: NimCallConfig, *, retries: Retries | None, failures: NimFailures, decoders: Decoders | None
    ) -> None:
        self._learn_at_start = config.learn_at_start
        self._life = Lifetime(config.name)
        self._calls = NimCalls(config, retries=retries, failure=failures.of)
        self._decoders = decoders or Decoders()
        self._own_decoders = None if decoders else self._decoders
        self._wants_key = False

    async def start(self) -> None:
        """Make the pool of connections, which open when they are needed, and learn the model if the NIM answers."""
        self._calls.open()
        if not self._learn_at_start:
            return
        with contextlib.suppress(EmbedderError, TimeoutError):
            async with asyncio.timeout(START_PROBE_S):
                with self._keys_are_the_callers():
                    await self._life.run(self._learn(None, checking=True))

    async def close(self) -> None:
        """Fail the calls in flight and close the connections. May be called twice."""
        await self._life.end()
        if self._own_decoders is not None:
            await self._own_decoders.close()
        await self._calls.close()

    @abstractmethod
    async def _learn(self, key: str | None, *, checking: bool = False) -> None:
        """Learn the model from the NIM, or hold the NIM to it.

        Raises:
            EmbedderError: the NIM fails, or does not serve what the settings say.
        """

    @contextlib.contextmanager
    def _keys_are_the_callers(self) -> Iterator[None]:
        """Count a NIM that requires a key as working if only callers have keys."""
        try:
            yield
        except CallerKeyRejected:
            # No further probe without a key, because gateways may count it against this server.
            self._wants_key = True


def check_callers_key(key: str | None) -> None:
    """Refuse a caller's key that no header carries.

    Raises:
        CallerKeyRejected: it is such a key.
    """
    if key is not None:
        try:
            check_key(key)
        except ValueError as error:
            raise CallerKeyRejected(str(error)) from error


@dataclass(frozen=True, slots=True)
class Culprits(Generic[Item, Row]):
    """Asks a NIM about items, and finds those that make it refuse or fail.

    Attributes:
        ask: sends items; returns a success or a refusal of items, and raises all other failures.
        read: the rows of a successful answer about so many items.
        require_sense: sends what no working NIM refuses, and raises the NIM's error if it is refused.
        blame: the error for an item that is refused while others are not.
    """

    ask: Callable[[Sequence[Item]], Awaitable[Answer]]
    read: Callable[[Answer, int], Awaitable[Sequence[Row]]]
    require_sense: Callable[[], Awaitable[None]]
    blame: Callable[[Item, Answer], InputRejected]

    async def rows(self, items: Sequence[Item]) -> list[Row | InputRejected]:
        """Return a row for each item, or why it has none; in one request if no item is at fault.

        Raises:
            EmbedderError: the NIM fails or refuses whatever it is asked.
        """
        answer = await self.ask(items)
        if answer.status == HTTPStatus.OK:
            return list(await self.read(answer, len(items)))
        # Before the items are tried one by one: a NIM that rejects everything would get 127 requests for 64 of them.
        await self.require_sense()
        if answer.status == INFERENCE_FAILED:
            # The NIM works, so the failure may have passed: no item is blamed before a second attempt.
            answer = await self.ask(items)
            if answer.status == HTTPStatus.OK:
                return list(await self.read(answer, len(items)))
        rows = await self._halved(items, answer)
        if answer.status == INFERENCE_FAILED and all(isinstance(row, InputRejected) for row in rows):
            # All items failed: the NIM itself may have begun to fail.
            await self.require_sense()
        return rows

    async def _halved(self, items: Sequence[Item], refusal: Answer) -> list[Row | InputRejected]:
        if len(items) == 1:
            if refusal.status == INFERENCE_FAILED:
                refusal = await self.ask(items)
                if refusal.status == HTTPStatus.OK:
                    return list(await self.read(refusal, 1))
            return [self.blame(items[0], refusal)]
        rows: list[Row | InputRejected] = []
        half = len(items) // 2
        for part in (items[:half], items[half:]):
            answer = await self.ask(part)
            if answer.status == HTTPStatus.OK:
                rows += await self.read(answer, len(part))
            else:
                rows += await self._halved(part, answer)
        return rows
