"""Writes of objects: each runs to its end whatever becomes of its caller, and those of one object take turns.

A write that Weaviate is told to abandon stores objects without entries in the indexes of their vectors, and the same
write sent again finds nothing changed and enters nothing. So a write is not abandoned, and what may have been written
behind a caller's back is remembered, to be looked for in the indexes.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AsyncExitStack
from typing import TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from service.domain import Scope

MAX_WRITES = 16
"""Writes at the same time; more wait. Each holds what it writes, so this bounds what is held for callers that left."""

MAX_REMEMBERED = 50_000
"""Objects whose last write is remembered, some 12 MB; the oldest are forgotten first."""

END_S = 5.0

LATE_S = 5.0
"""Seconds for which the store may go on with a write that was cut off, and undo what came after it."""

ALWAYS = -1
"""A mark that every object counts as written after."""

Key = tuple[str, str, UUID]
"""An object: its collection, its tenant and its id."""

Result = TypeVar("Result")


def keys_of(collection: str, scope: Scope, ids: Iterable[UUID]) -> list[Key]:
    """Return the keys of some objects of a collection."""
    return [(collection, scope.tenant, id_) for id_ in ids]


class Writes:
    """Runs the writes of one process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(MAX_WRITES)
        self._turns: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[object]] = set()
        self._ended = 0
        self._last: OrderedDict[Key, int] = OrderedDict()
        self._failed: dict[Key, float] = {}
        self._doubts: set[Key] = set()

    @property
    def ended(self) -> int:
        """How many writes have ended so far: a mark for `since`."""
        return self._ended

    def since(self, mark: int, keys: Iterable[Key]) -> set[UUID]:
        """Return which objects were written after a mark, or by a write that failed, so that nobody knows its end."""
        return {key[2] for key in keys if key in self._failed or self._last.get(key, 0) > mark}

    async def outwait(self, keys: Iterable[Key]) -> bool:
        """Wait until what was cut off of some objects can come no more, and return whether anything was."""
        times = [self._failed[key] for key in keys if key in self._failed]
        if times:
            await asyncio.sleep(max(0.0, max(times) + LATE_S - time.monotonic()))
        return bool(times)

    def doubt(self, keys: Iterable[Key]) -> None:
        """Let a write that runs count as failed for some of its objects, though not for all."""
        self._doubts.update(keys)

    def doubted(self) -> list[Key]:
        """Return the objects of which a write failed, and none runs."""
        return [key for key in self._failed if key not in self._turns]

    def settled(self, keys: Iterable[Key]) -> None:
        """Trust objects again that were looked for, unless what was cut off may still come late."""
        late = time.monotonic() - LATE_S
        for key in keys:
            if self._failed.get(key, late) <= late:
                self._failed.pop(key, None)

    async def run(self, keys: Collection[Key], write: Callable[[], Awaitable[Result]]) -> Result:
        """Write objects once no other write of them runs, and return what the write returns.

        A caller that is cancelled while it waits for its turn writes nothing; later the write goes on without it.

        Args:
            keys: the objects.
            write: writes them; it ends by itself, soon.
        """
        async with AsyncExitStack() as turns:
            # In one order for all, so that nobody waits for somebody who waits for them.
            for key in sorted(set(keys)):
                await turns.enter_async_context(self._turns.setdefault(key, asyncio.Lock()))
            # Room comes last: those who wait for one object would keep all others out.
            await self._room.acquire()
            task = asyncio.create_task(self._run(keys, write, turns.pop_all()))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        # Not awaited itself, which would cancel it together with the caller.
        await asyncio.wait((task,))
        return task.result()

    async def close(self) -> None:
        """Wait until all writes have ended, for a few seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_S)

    async def _run(
        self, keys: Collection[Key], write: Callable[[], Awaitable[Result]], turns: AsyncExitStack
    ) -> Result:
        failed = True
        try:
            result = await write()
            failed = False
        finally:
            self._ended += 1
            self._remember(keys, failed=failed)
            self._room.release()
            await turns.aclose()
        return result

    def _end(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Its caller may have left; asyncio would complain about a failure that nobody looks at.
            task.exception()

    def _remember(self, keys: Iterable[Key], *, failed: bool) -> None:
        for key in keys:
            self._last[key] = self._ended
            self._last.move_to_end(key)
            if failed or key in self._doubts:
                self._failed[key] = time.monotonic()
        self._doubts.difference_update(keys)
        while len(self._last) > MAX_REMEMBERED:
            forgotten, _ = self._last.popitem(last=False)
            self._failed.pop(forgotten, None)
