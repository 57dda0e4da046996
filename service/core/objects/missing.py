"""Counts the objects that lack named vectors, part by part: the store keeps no such number."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from service.domain import ReturnFields, Scope, SearchOptions, SearchSpec
from service.store.base import NO_TENANT, Store

ENOUGH_S = 1.0
"""After so many seconds a part ends, so that a caller sees progress and no call holds the store for long."""


@dataclass(slots=True)
class MissingCount:
    """What a part of a collection lacks.

    Attributes:
        seen: how many objects were read.
        missing: how many of them lack a named vector, by its name.
        last: the last of them, after which the next part begins; None if this was the last part.
    """

    seen: int
    missing: dict[str, int]
    last: UUID | None = None


class MissingVectors:
    """Counts the objects that lack named vectors.

    Args:
        store: where the objects are.
        page_size: objects that are read at a time.
        now_s: stands in for time.monotonic.
    """

    def __init__(self, store: Store, *, page_size: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._page_size = page_size
        self._now_s = now_s

    async def count(self, name: str, *, most: int, after: UUID | None = None, scope: Scope = NO_TENANT) -> MissingCount:
        """Read objects by id until they are enough or a second is over, at least one page.

        Args:
            name: the collection.
            most: objects to read.
            after: the object after which to begin; None to begin with the first.
            scope: whose objects, and how many replicas must answer.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            InvalidRequest: a missing or superfluous tenant.
            StoreUnavailable: the store failed.
        """
        began_s = self._now_s()
        collection = await self._store.get_collection(name, fresh=False)
        names = [each.name for each in collection.vectors]
        count = MissingCount(0, dict.fromkeys(names, 0), after)
        while True:
            size = min(self._page_size, most - count.seen)
            options = SearchOptions(after=count.last)
            spec = SearchSpec(limit=size, fields=ReturnFields(vectors=names), options=options, scope=scope)
            page = [hit.object for hit in await self._store.search(collection.name, spec)]
            count.seen += len(page)
            for each in names:
                count.missing[each] += sum(each not in object_.vectors for object_ in page)
            if len(page) < size:
                count.last = None
                return count
            count.last = page[-1].id
            if count.seen == most or self._now_s() - began_s >= ENOUGH_S:
                return count
