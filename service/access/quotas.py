"""How much of its quota a client has used."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from service.access.clients import EVERYBODY, Client, Quota
from service.access.ledger import Ledger, Row
from service.errors import QuotaExceeded

BURST_S = 1.0
"""Seconds' worth of quota that an idle client may use at once."""


class _Bucket:
    """A token bucket that may go into debt: a client without debt gets all that it asks for and pays for it afterwards.

    Libraries always refuse more than the bucket holds. Here a batch counts as much as its inputs one by one.

    Args:
        state: tokens that are used up, and when that was last looked at.
        rate: tokens a second.
        clock: seconds, never going back, and the same in all processes.
    """

    def __init__(self, state: "memoryview[float]", rate: float, clock: Callable[[], float]) -> None:
        self._state = state
        self._rate = rate
        self._clock = clock

    def used(self) -> float:
        """Return the tokens that are used up now."""
        now_s = self._clock()
        used, seen_s = self._state
        self._state[0] = used = max(0.0, used - (now_s - seen_s) * self._rate)
        self._state[1] = now_s
        return float(used)

    def debt_s(self) -> float:
        """Return the seconds until the debt is paid; 0 or less without debt."""
        return self.used() / self._rate - BURST_S

    def take(self, tokens: float) -> None:
        """Take tokens, even if the bucket has fewer."""
        self._state[0] = self.used() + tokens


class Account:
    """What one client uses; belongs to one event loop.

    Args:
        client: whose quota counts.
        clock: seconds, never going back, and the same in all processes.
        row: what the client has used; by default nothing yet, in this process alone.

    Attributes:
        client: the client as it is now.
    """

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic, row: Row | None = None) -> None:
        quota = client.quota
        self.client = client
        self._row = row = Ledger().row(client.name) if row is None else row
        self._inputs = None if quota.inputs_per_second is None else _Bucket(row.inputs, quota.inputs_per_second, clock)
        self._bytes = None if quota.bytes_per_second is None else _Bucket(row.bytes, quota.bytes_per_second, clock)
        self._bounded = quota != Quota()
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()

    @property
    def inputs_in_flight(self) -> int:
        """The client's inputs that wait for an embedder or that it is embedding."""
        return self._row.inputs_in_flight

    @property
    def inputs(self) -> int:
        """All inputs of the client since the server was started, or since its quota was changed."""
        return self._row.all_inputs

    @property
    def request_bytes(self) -> int:
        """All bytes of its requests, likewise."""
        return self._row.all_bytes

    def used_up(self) -> tuple[float, float]:
        """Return how many inputs and bytes of its quota are used up now; 0 of what has no bound."""
        with self._row.locked():
            inputs, size = (0.0 if bucket is None else bucket.used() for bucket in (self._inputs, self._bytes))
        return inputs, size

    def begin_call(self) -> None:
        """Begin a call.

        Raises:
            QuotaExceeded: the client has used up its quota; nothing is charged.
        """
        quota = self.client.quota
        if not self._bounded:
            return
        with self._row.locked():
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
        with self._row.locked():
            return max(0.0, *(bucket.debt_s() for bucket in (self._inputs, self._bytes) if bucket is not None), 0.0)

    def receive(self, size: int) -> None:
        """Charge the bytes of a request."""
        self._row.count(size=size)
        if self._bytes is not None:
            with self._row.locked():
                self._bytes.take(size)

    @asynccontextmanager
    async def embedding(self, inputs: int) -> AsyncIterator[None]:
        """Charge inputs, which are in flight inside the block; calls that began at the same time wait for room."""
        self._row.count(inputs=inputs)
        if self._inputs is not None:
            with self._row.locked():
                self._inputs.take(inputs)
        if (most := self.client.quota.max_inputs_in_flight) is None:
            self._row.add_in_flight(inputs)
        else:
            await self._wait_for_room(inputs, most)
        try:
            yield
        finally:
            self._row.add_in_flight(-inputs)
            self._released.set()

    async def _wait_for_room(self, inputs: int, most: int) -> None:
        # In order, so that small calls cannot overtake a large one forever, not even in another process.
        async with self._turn:
            try:
                while not (self._row.take_turn() and self._fits(inputs, most)):
                    self._released.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._row.look_every_s):
                            await self._released.wait()
            finally:
                self._row.end_turn()

    def _fits(self, inputs: int, most: int) -> bool:
        """Take room for inputs, and return whether there was some."""
        with self._row.locked():
            in_flight = self.inputs_in_flight
            # A call alone may have any number: a batch counts the same as its inputs one by one.
            if in_flight and in_flight + inputs > most:
                return False
            self._row.add_in_flight(inputs)
            return True


NOBODY = Account(EVERYBODY)
"""The account of unidentified callers; it has no bounds."""

calling_account: ContextVar[Account] = ContextVar("calling_account", default=NOBODY)
"""The account of the client that makes the current call."""
