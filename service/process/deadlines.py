"""The deadlines of all calls in progress, with one timer of the event loop.

asyncio.timeout sets a timer for each block and one more for each change, which is a fifth of what a small call costs
the server. Most calls end long before their deadline, so one timer for the earliest deadline is enough.
"""

import asyncio
import math
from types import TracebackType
from typing import Self


class Deadlines:
    """Makes deadlines of blocks of code; belongs to one event loop."""

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf

    def after(self, seconds: float) -> "Deadline":
        """Return a context manager that works as asyncio.timeout: it ends its block after so many seconds."""
        return Deadline(self, asyncio.get_running_loop().time() + seconds)

    def add(self, deadline: "Deadline") -> None:
        """Watch a deadline whose block begins."""
        self._running.add(deadline)
        self._wake_by(deadline.ends_s)

    def remove(self, deadline: "Deadline") -> None:
        """Forget a deadline whose block has ended. The timer stays: others will need it."""
        self._running.discard(deadline)

    def _wake_by(self, when_s: float) -> None:
        if when_s < self._timer_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_s = when_s
            self._timer = asyncio.get_running_loop().call_at(when_s, self._look)

    def _look(self) -> None:
        # The clock of a loop may be a little behind its timers.
        now_s = max(asyncio.get_running_loop().time(), self._timer_s)
        self._timer, self._timer_s = None, math.inf
        earliest_s = math.inf
        for deadline in list(self._running):
            if deadline.ends_s <= now_s:
                deadline.expire()
            earliest_s = min(earliest_s, deadline.ends_s)
        if earliest_s < math.inf:
            self._wake_by(earliest_s)


class Deadline:
    """The deadline of a block, which it leaves with a TimeoutError when the time is over.

    Attributes:
        ends_s: when the time is over, by the event loop's clock; infinite once it is.
        expired: whether it is over.
    """

    __slots__ = ("_all", "_cancelling", "_task", "ends_s", "expired")

    def __init__(self, all_: Deadlines, ends_s: float) -> None:
        self._all = all_
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.ends_s = ends_s
        self.expired = False

    def extend(self, seconds: float) -> None:
        """Give the block more time."""
        self.ends_s += seconds

    def expire(self) -> None:
        """Cancel the block."""
        assert self._task is not None
        self.expired, self.ends_s = True, math.inf
        self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None, "only tasks can be cancelled"
        self._cancelling = self._task.cancelling()
        self._all.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        self._all.remove(self)
        if self.expired:
            assert task is not None
            # Somebody else may have cancelled the task, too, and must not be ignored.
            if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error
