"""What the pools of embedders and of rerankers have in common: start, end, and checks of their members."""

import asyncio
import contextlib
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from embedders.contract import NOT_CHECKED
from embedders.errors import EmbedderError
from embedders.front.breaker import Watched

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S = 10.0
"""Seconds between checks of a member without a successful call: a broken one is noticed before most callers do."""

RECHECK_INTERVAL_S = 60.0
"""Seconds between checks of a member whose calls succeed: only a check notices that a NIM's weights have changed."""


Member = TypeVar("Member", bound=Watched)


class BackendPool(Generic[Member]):
    """Starts, checks and closes its members.

    Args:
        members: what it holds.
        check_interval_s: seconds between checks of a member that had no successful call meanwhile; others are checked
            each RECHECK_INTERVAL_S.
        now_s: stands in for time.monotonic.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        check_interval_s: float = CHECK_INTERVAL_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members = list(members)
        self._check_interval_s = check_interval_s
        self._now_s = now_s
        self._checked_s: dict[int, float] = {}
        self._reported: dict[int, bool] = {}
        self._monitors: list[asyncio.Task[None]] = []
        self._unchecked = set(map(id, self._members))
        self._all_checked = asyncio.Event()

    async def start(self) -> None:
        """Start all members at the same time, and check them in the background, at once and then again and again.

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
            now_s = self._now_s()
            idle = now_s - member.health.last_success_s >= self._check_interval_s
            if idle or now_s - self._checked_s.get(id(member), -math.inf) >= RECHECK_INTERVAL_S:
                self._checked_s[id(member)] = now_s
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
