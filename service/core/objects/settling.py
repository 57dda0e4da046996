"""Settling writes that failed: their objects are looked for, and entered where their index lacks them."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from functools import partial

import structlog

from service.core.objects.indexing import IndexEntries
from service.core.objects.writing import Key, Writes
from service.domain import ReturnFields, Scope
from service.errors import ServiceError, StoreUnavailable
from service.store.base import Store

log = structlog.get_logger(__name__)

PAUSE_S = 2.0
"""Seconds between looks for failed writes. Whoever wrote sends again sooner, and then there is nothing to settle."""

PAGE = 100


class Settler:
    """Settles failed writes in the background.

    A write that was cut off may have replaced an object that was found before by one without an entry in its index; its
    caller need not send it again. Belongs to one event loop.
    """

    def __init__(self, store: Store, writes: Writes) -> None:
        self._store = store
        self._writes = writes
        self._entries = IndexEntries(store)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="settle-writes")

    async def close(self) -> None:
        """End. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            for page in _pages(self._writes.doubted()):
                if not self._store.available:
                    break
                try:
                    await self._writes.run(page, partial(self._settle, page))
                    self._writes.settled(page)
                except StoreUnavailable as error:
                    log.info("writes_unsettled", collection=page[0][0], reason=str(error))
                except Exception:
                    log.exception("writes_unsettled", collection=page[0][0])

    async def _settle(self, keys: list[Key]) -> None:
        """Look for objects of one collection and tenant.

        Raises:
            StoreUnavailable: the store failed; they are looked for again.
        """
        name, scope = keys[0][0], Scope(keys[0][1])
        try:
            collection = await self._store.get_collection(name)
            fields = ReturnFields(vectors=[each.name for each in collection.vectors])
            found = await self._store.get_objects(name, [key[2] for key in keys], fields, scope)
            for vector in collection.vectors:
                having = {id_: each.vectors[vector.name] for id_, each in found.items() if vector.name in each.vectors}
                mending = await self._entries.mend(name, vector, having, scope)
                # One that cannot be entered is left alone; one whose entering was cut off is tried again.
                for error in mending.failures.values():
                    if isinstance(error, StoreUnavailable):
                        raise error
        except StoreUnavailable:
            raise
        except ServiceError as error:
            # Such as a collection that is gone: nothing of it is there to be found.
            log.debug("nothing_to_settle", collection=name, error=type(error).__qualname__)


def _pages(keys: Iterable[Key]) -> Iterator[list[Key]]:
    """Yield keys in pages, each of one collection and tenant."""
    scopes: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        scopes.setdefault(key[:2], []).append(key)
    for each in scopes.values():
        yield from (each[start : start + PAGE] for start in range(0, len(each), PAGE))
