"""Reads some of the objects that have a vector, from all over a collection: new and old, of many ids and tenants."""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from uuid import UUID

from embedders.texts import is_blank
from service.domain import (
    Collection,
    PropertyValue,
    ReturnFields,
    Scope,
    SearchOptions,
    SearchSpec,
    SortBy,
    StoredObject,
    TenantActivity,
)
from service.errors import ObjectNotFound, StoreRejected, TenantInactive, TenantNotFound
from service.store.base import Store

MAX_READ = 1000
"""Objects that are read until enough of them have the vector and its fields."""

MAX_TENANTS = 8
"""Active tenants whose objects are read, spread over all of them by name."""

PLACES = 8
"""From how many places by id objects are taken, so that those of one place do not stand for all."""

BATCH = 8
BATCH_BYTES = 16 * 1024 * 1024
"""Objects, and bytes of their texts and pictures, that are given at a time."""

NEWEST = SearchOptions(sort=(SortBy("_creationTimeUnix", descending=True),))


class Sample:
    """Some of the objects of a collection that have a vector.

    The first half are the newest ones, because ids may follow the time, and a collection that came to another model has
    its vectors in the newest objects. The others are from places that are spread over the ids.

    Attributes:
        zeros: how many of the objects in the batches so far were left out, because their vector is of zeros.
    """

    def __init__(self, store: Store, collection: Collection, vector: str, size: int) -> None:
        """Remember what to read.

        Args:
            store: where to read.
            collection: whose objects to read.
            vector: the name of the vector that they have.
            size: how many objects are wanted; more are read if some do not have what is needed.
        """
        self._store = store
        self._collection = collection
        self._vector = vector
        self._size = size
        self.zeros = 0

    async def batches(
        self, fields: ReturnFields, needed: frozenset[str] = frozenset()
    ) -> AsyncGenerator[list[StoredObject]]:
        """Yield objects with fields and the vector, a few at a time.

        Args:
            fields: which properties and images to read; an object with none of them is left out.
            needed: which of them an object must have.

        Raises:
            StoreUnavailable: the store failed.
        """
        batch: list[StoredObject] = []
        size = 0
        async with aclosing(self._listed(await self._pages())) as listing:
            async for scope, listed in listing:
                if not listed.vectors[self._vector].any():
                    self.zeros += 1
                    continue
                try:
                    # One by one, because the images of several objects could be too large for one answer.
                    read = await self._store.get_object(self._collection.name, listed.id, fields, scope)
                except (ObjectNotFound, StoreRejected):
                    continue
                if not (has := filled(read)) or not needed <= has:
                    continue
                batch.append(replace(read, vectors=listed.vectors))
                size += _size(read)
                if len(batch) == BATCH or size > BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    async def first(self) -> StoredObject | None:
        """Return an object with the vector and nothing else; None if none has it."""
        # Not one of the newest: sorting is slow in large collections, and once is enough.
        pages = [each for each in await self._pages() if not each.options.sort]
        async with aclosing(self._listed(pages)) as listing:
            async for _, each in listing:
                return each
        return None

    async def _listed(self, first: list[SearchSpec]) -> AsyncGenerator[tuple[Scope, StoredObject]]:
        """Yield objects with the vector alone, each once."""
        pages = deque(first)
        seen: set[tuple[str, UUID]] = set()
        read = 0
        while pages and read < MAX_READ:
            spec = pages.popleft()
            try:
                page = [hit.object for hit in await self._store.search(self._collection.name, spec)]
            except (TenantInactive, TenantNotFound):
                continue
            read += len(page)
            if len(page) == spec.limit and not spec.options.sort:
                pages.append(replace(spec, options=SearchOptions(after=page[-1].id)))
            for each in page:
                if (spec.scope.tenant, each.id) not in seen and self._vector in each.vectors:
                    seen.add((spec.scope.tenant, each.id))
                    yield spec.scope, each

    async def _pages(self) -> list[SearchSpec]:
        """Return the first pages to read: the newest objects of each tenant, and those at each place."""
        scopes = await self._scopes()
        fields = ReturnFields(vectors=[self._vector])
        half = self._size // 2 // max(1, len(scopes))
        newest = [SearchSpec(limit=max(1, half), fields=fields, options=NEWEST, scope=scope) for scope in scopes]
        starts = [None, *(UUID(int=place << 125) for place in range(1, PLACES))]
        # Each tenant begins at another place, for where the sample is full before all were read.
        turns = [
            (scope, starts[(turn + number) % PLACES]) for turn in range(PLACES) for number, scope in enumerate(scopes)
        ]
        return newest + [
            SearchSpec(limit=max(1, half // PLACES), fields=fields, options=SearchOptions(after=start), scope=scope)
            for scope, start in turns
        ]

    async def _scopes(self) -> list[Scope]:
        if self._collection.multi_tenancy is None:
            return [Scope()]
        found = await self._store.list_tenants(self._collection.name)
        active = [each.name for each in found if each.activity is TenantActivity.ACTIVE]
        count = min(MAX_TENANTS, len(active))
        return [Scope(active[number * len(active) // count]) for number in range(count)]


def filled(object_: StoredObject) -> frozenset[str]:
    """Return which properties and images of an object hold something to embed."""
    worded = {name for name, value in object_.properties.items() if _holds_words(value)}
    return frozenset(worded | object_.images.keys())


def _holds_words(value: PropertyValue) -> bool:
    return any(isinstance(each, str) and not is_blank(each) for each in (value if isinstance(value, list) else [value]))


def _size(object_: StoredObject) -> int:
    return sum(map(len, object_.images.values())) + sum(len(str(value)) for value in object_.properties.values())
