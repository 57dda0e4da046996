"""How much of its quota a client has used."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from service.access.clients import EVERYBODY, Client
from service.errors import QuotaExceeded

BURST_S = 1.0
"""Seconds' worth of quota that an idle client may use at once."""


class _Bucket:
    """A token bucket that may go into debt: a client without debt gets all that it asks for and pays for it afterwards.

    Libraries always refuse more than the bucket holds. Here a batch counts as much as its inputs one by one.

    Args:
        rate: tokens a second.
        clock: seconds, never going back.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._balance = rate * BURST_S
        self._seen_s = clock()

    def debt_s(self) -> float:
        """Return the seconds until the debt is paid; 0 or less without debt."""
        now_s = self._clock()
        self._balance = min(self._rate * BURST_S, self._balance + (now_s - self._seen_s) * self._rate)
        self._seen_s = now_s
        return -self._balance / self._rate

    def take(self, tokens: float) -> None:
        """Take tokens, even if the bucket has fewer."""
        self.debt_s()
        self._balance -= tokens


class Account:
    """What one client uses; belongs to one event loop.

    Args:
        client: whose quota counts.
        clock: seconds, never going back.

    Attributes:
        client: the client as it is now.
        inputs_in_flight: its inputs that wait for an embedder or that it is embedding.
    """

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        quota = client.quota
        self.client = client
        self.inputs_in_flight = 0
        self._inputs = None if quota.inputs_per_second is None else _Bucket(quota.inputs_per_second, clock)
        self._bytes = None if quota.bytes_per_second is None else _Bucket(quota.bytes_per_second, clock)
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()

    def begin_call(self) -> None:
        """Begin a call.

        Raises:
            QuotaExceeded: the client has used up its quota; nothing is charged.
        """
        quota = self.client.quota
        for bucket, name, bound in (
            (self._inputs, "inputs_per_second", quota.inputs_per_second),
            (self._bytes, "bytes_per_second", quota.bytes_per_second),
        ):
            if bucket is not None and (wait_s := bucket.debt_s()) > 0:
                raise QuotaExceeded(self.client.name, name, f"{bound:g}", retry_after_s=wait_s)
        most = quota.max_inputs_in_flight
        if most is not None and self.inputs_in_flight >= most:
            raise QuotaExceeded(self.client.name, "max_inputs_in_flight", str(most), retry_after_s=1.0)

    def retry_after_s(self) -> float:
        """Return the seconds until the client's debt is paid; 0 without debt."""
        return max(0.0, *(bucket.debt_s() for bucket in (self._inputs, self._bytes) if bucket is not None), 0.0)

    def receive(self, size: int) -> None:
        """Charge the bytes of a request."""
        if self._bytes is not None:
            self._bytes.take(size)

    @asynccontextmanager
    async def embedding(self, inputs: int) -> AsyncIterator[None]:
        """Charge inputs, which are in flight inside the block; calls that began at the same time wait for room."""
        if self._inputs is not None:
            self._inputs.take(inputs)
        # In order, so that small calls cannot overtake a large one forever.
        async with self._turn:
            while self._is_full_for(inputs):
                self._released.clear()
                await self._released.wait()
            self.inputs_in_flight += inputs
        try:
            yield
        finally:
            self.inputs_in_flight -= inputs
            self._released.set()

    def _is_full_for(self, inputs: int) -> bool:
        # A call alone may have any number: a batch counts the same as its inputs one by one.
        most = self.client.quota.max_inputs_in_flight
        return most is not None and self.inputs_in_flight > 0 and self.inputs_in_flight + inputs > most


NOBODY = Account(EVERYBODY)
"""The account of unidentified callers; it has no bounds."""

calling_account: ContextVar[Account] = ContextVar("calling_account", default=NOBODY)
"""The account of the client that makes the current call."""
