"""Searches by vector that find nothing although objects have such vectors: the log says so, with what mends it."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import monotonic

import structlog

from service.domain import ReturnFields, Scope, SearchOptions, SearchSpec, TargetVectors
from service.errors import ServiceError
from service.process.metrics import UNSEEN_OBJECTS
from service.store.base import Store

log = structlog.get_logger(__name__)

AGAIN_S = 600.0
"""Seconds until a named vector that was looked at may be looked at again. Empty collections are often searched."""

LOOK_S = 2.0
"""Seconds after which a look is given up, so that a store that hangs does not keep others from being looked at."""

PAUSE_S = 15.0
"""Seconds until a second look, before the log says anything: an hfresh index of 1.39 needs about 10 s after a start."""

FIRST = 20
"""Objects, in the order of their ids, of which one should have the vector."""

MAX_REMEMBERED = 1000
"""Named vectors of which the last look is remembered; the oldest are forgotten first."""


class UnseenObjects:
    """Looks for objects that a search should have found. Belongs to one event loop.

    A search by vector without conditions finds the nearest objects, however far they are. If it finds none, no object
    has such a vector, or the index has lost its entries: Weaviate 1.39.0 to 1.39.3 loses that of an only object in two
    restarts. The answer is the same, so only the log can tell. No search waits for a look.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Remember where the objects are.

        Args:
            store: where they are.
            clock: tells the seconds between looks.
            sleep: waits for so many seconds.
        """
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self._looked: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def close(self) -> None:
        """Stop looking. May be called twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def look(self, name: str, spec: SearchSpec) -> None:
        """Warn in the log, some time later, if a search that found nothing should have found something.

        Only one search is looked into at a time; others are passed over.

        Args:
            name: the collection's own name.
            spec: what was searched for.
        """
        if not isinstance(spec.query, TargetVectors) or len(spec.query.vectors) != 1 or not _unconditional(spec):
            return
        if self._task is not None and not self._task.done():
            return
        (vector,) = spec.query.vectors
        key = (name, spec.scope.tenant, vector)
        now = self._clock()
        if now - self._looked.get(key, -AGAIN_S) < AGAIN_S:
            return
        self._looked[key] = now
        self._looked.move_to_end(key)
        if len(self._looked) > MAX_REMEMBERED:
            self._looked.popitem(last=False)
        self._task = asyncio.create_task(self._look(name, vector, spec.scope), name="look-for-unseen")

    async def _look(self, name: str, vector: str, scope: Scope) -> None:
        try:
            if not await self._has_unseen(name, vector, scope):
                return
            await self._sleep(PAUSE_S)
            unseen = await self._has_unseen(name, vector, scope)
        except (ServiceError, TimeoutError) as error:
            log.debug("search_not_looked_into", collection=name, error=type(error).__qualname__)
            return
        except Exception:
            log.exception("search_not_looked_into", collection=name)
            return
        if unseen:
            UNSEEN_OBJECTS.inc()
            where = "COLLECTION --tenant TENANT" if scope.tenant else "COLLECTION"
            log.warning(
                "search_finds_no_object",
                collection=name,
                # What mends it needs the tenant's name.
                tenant=scope.tenant,
                vector=vector,
                reason=f"objects have the vector, and its index has lost them; `vecgate objects backfill {where} "
                "--verify` enters them again",
            )

    async def _has_unseen(self, name: str, vector: str, scope: Scope) -> bool:
        async with asyncio.timeout(LOOK_S):
            listing = SearchSpec(limit=FIRST, fields=ReturnFields(vectors=[vector]), scope=scope)
            hits = await self._store.search(name, listing)
            own = next((hit.object.vectors[vector] for hit in hits if vector in hit.object.vectors), None)
            if own is None:
                return False
            # The object may have been stored after the search.
            again = SearchSpec(TargetVectors({vector: own}), limit=1, scope=scope)
            return not await self._store.search(name, again)


def _unconditional(spec: SearchSpec) -> bool:
    """Return whether a search takes any object, however far it is."""
    shaped = replace(SearchOptions(), times=spec.options.times, explain_score=spec.options.explain_score)
    return not spec.offset and spec.limit > 0 and spec.options == shaped
