"""What the pools of embedders and of rerankers have in common: start, end, and checks of idle members."""

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from embedders.contract import NOT_CHECKED, Health
from embedders.errors import EmbedderError
from embedders.front.breaker import Backend

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S = 10.0
"""Seconds between checks of a member without a successful call: a broken one is noticed before most callers do."""


class Watched(Backend, Protocol):
    """A backend that knows whether it works."""

    @property
    def health(self) -> Health:
        """Whether it works."""
        ...


Member = TypeVar("Member", bound=Watched)


class BackendPool(Generic[Member]):
    """Starts, checks and closes its members.

    Args:
        members: what it holds.
        check_interval_s: seconds between checks of a member that had no successful call meanwhile.
    """

    def __init__(self, members: Sequence[Member], *, check_interval_s: float = CHECK_INTERVAL_S) -> None:
        self._members = list(members)
        self._check_interval_s = check_interval_s
        self._reported: dict[int, bool] = {}
        self._monitors: list[asyncio.Task[None]] = []
        self._unchecked = set(map(id, self._members))
        self._all_checked = asyncio.Event()

    async def start(self) -> None:
        """Start all members at the same time, and check them in the background, at once and whenever they are idle.

        It waits for local models to be loaded, and for no other machine: until a remote member's first check has
        ended, its health says so.

        Raises:
            ModelUnusable: a local model cannot be loaded; the others are not waited for.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for member in self._members:
                    group.create_task(member.start())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        for member in self._members:
            self._report(member)
        # One task for each member, so that a check that hangs does not delay the others.
        self._monitors = [
            asyncio.create_task(self._check_forever(member), name=f"checks-{member.spec.name}")
            for member in self._members
        ]

    async def first_checks(self) -> None:
        """Wait until every member has been checked once."""
        if self._unchecked:
            await self._all_checked.wait()

    async def close(self) -> None:
        """Stop checking and close all members."""
        for monitor in self._monitors:
            monitor.cancel()
        await asyncio.gather(*self._monitors, return_exceptions=True)
        # A member that cannot be closed must not keep the others open.
        async with contextlib.AsyncExitStack() as ends:
            for member in self._members:
                ends.push_async_callback(member.close)

    @property
    def all(self) -> Sequence[Member]:
        """All members, in their order."""
        return self._members

    def fault(self, member: Member) -> str | None:
        """Return why a member does not work, or None if it works."""
        return member.health.fault

    @abstractmethod
    def _note(self, member: Member, fault: str | None) -> None:
        """Log and count that a member works again, or does not work any more."""

    async def _check_forever(self, member: Member) -> None:
        while True:
            idle_s = time.monotonic() - member.health.last_success_s
            if id(member) in self._unchecked or idle_s >= self._check_interval_s:
                await self._check(member)
            await asyncio.sleep(self._check_interval_s)

    async def _check(self, member: Member) -> None:
        try:
            await member.check()
        except EmbedderError:
            pass  # its health has the fault
        except Exception:
            log.exception("check_crashed", backend=member.spec.name)
        self._report(member)
        self._unchecked.discard(id(member))
        if not self._unchecked:
            self._all_checked.set()

    def _report(self, member: Member) -> None:
        """Update the log and the metrics if a member's health has changed."""
        fault = member.health.fault
        works = fault is None
        if fault == NOT_CHECKED or self._reported.get(id(member)) == works:
            return
        self._reported[id(member)] = works
        self._note(member, fault)
