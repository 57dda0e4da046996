"""Reads a sample of a collection's vectors, from all over the collection, and only so much of it at a time."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import cast
from uuid import UUID

import numpy as np

from embedders.contract import Vector
from service.domain import Filter, PropertyValue, ReturnFields, Scope, SearchOptions, SearchSpec, StoredObject
from service.store.base import Store

MAX_VALUES = 20_480_000
"""Values in all vectors of a sample: 5,000 vectors of 4,096, which are 82 MB."""

READ_PER_POINT = 4
"""Objects that are read at most for each wanted point, as some may lack the vector."""

PLACES = 16
"""From how many places by id objects are taken at least, so that those of one place do not stand for all."""

WINDOW = 10_000
"""Objects that Weaviate reads of a filtered listing: its default of QUERY_MAXIMUM_RESULTS."""

WINDOW_PAGE = 2_500
"""Ids that are read at a time: those of all the window would keep the event loop for 120 ms."""

FIRST_PAGE, LARGEST_PAGE = 16, 250
PAGE_BYTES = 1024 * 1024
"""Objects in the first page, and at most; and about as many bytes as a page shall have. Texts can be of any length."""

MAX_TEXT_CHARS = 200
MAX_LIST_ITEMS = 10
"""What is kept of a property's value: enough for a label."""

MAX_POINT_BYTES = 2_080
"""What the values of a point take, each property an equal part: the largest map has 10 MB of values."""

FRAME = 8
"""Bytes that a number in a list takes, and a text there beside its own."""

END = 1 << 128
"""Behind the last id."""


@dataclass(frozen=True, slots=True)
class SampleOf:
    """What to take a sample of.

    Attributes:
        collection: the collection's own name.
        vector: the named vector that objects must have; empty where they need none, and no vectors are read.
        size: objects at most.
        properties: which properties to read.
        filters: which objects count, in the types of the collection; None for all.
        scope: whose they are, and how many replicas must answer.
    """

    collection: str
    vector: str
    size: int
    properties: tuple[str, ...] = ()
    filters: Filter | None = None
    scope: Scope = field(default_factory=Scope)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Objects of a collection, by ascending id.

    Attributes:
        ids: their ids.
        vectors: float32, shape (ids, dimension), as they are stored.
        values: of each property one value for each id, None where an object has none.
        missing: how many objects were read that lack the vector.
    """

    ids: Sequence[UUID]
    vectors: Vector
    values: dict[str, list[PropertyValue]]
    missing: int


async def read_sample(store: Store, wanted: SampleOf, total: int) -> Sample:
    """Return a sample of a collection.

    Args:
        store: where to read.
        wanted: what to take it of.
        total: how many objects there are that count.

    Raises:
        InvalidRequest: a missing or superfluous tenant.
        StoreUnavailable: the store failed.
    """
    reader = _Reader(store, wanted)
    if not total:
        pass
    elif wanted.filters is not None:
        await reader.read_filtered()
    else:
        await reader.read_from(await reader.places() if total > wanted.size else [None])
    # Copying the largest sample takes a third of a second.
    return await asyncio.to_thread(reader.sample)


class _Reader:
    """Reads objects page by page, and keeps what fits."""

    def __init__(self, store: Store, wanted: SampleOf) -> None:
        self._store = store
        self._wanted = wanted
        vectors = [wanted.vector] if wanted.vector else []
        self._fields = ReturnFields(properties=wanted.properties, vectors=vectors)
        self._kept: dict[UUID, StoredObject] = {}
        self._seen: set[UUID] = set()
        self._most = wanted.size
        self._page = FIRST_PAGE
        self._left = READ_PER_POINT * wanted.size
        self._value_bytes = MAX_POINT_BYTES // max(1, len(wanted.properties))

    async def places(self) -> list[UUID | None]:
        """Return where to begin to read: behind ids that are spread evenly from the first one to the last one.

        Ids need not be spread over all that are possible: those that are counted, or begin with the time, lie close
        together. The last one is closed in on from both sides, with an object that is there at its lower end. All
        places are multiples of a power of two, so most of them stay where they are when objects come or go at the
        ends, and the next sample has most objects of this one.
        """
        found = await self._next_id(None)
        if found is None:
            return []
        first = low = found.int
        high = END
        # To a part of a place: one that began behind the last id would give nothing.
        while (high - low) * PLACES * 8 > low - first and high - low > 1:
            middle = (low + high) // 2
            found = await self._next_id(UUID(int=middle))
            low, high = (low, middle) if found is None else (found.int, high)
        step = 1 << max(0, (high - first).bit_length() - PLACES.bit_length())
        # Listings begin behind an id, and so that of the first object is left out only if it is 0.
        return [None, *(UUID(int=place) for place in range((first // step + 1) * step, high, step))]

    async def read_from(self, places: Sequence[UUID | None]) -> None:
        """Read from each place in turn, until there is enough or nothing more."""
        pending, turn = deque(places), 0
        while pending and self._wants_more:
            turn = turn or len(pending)
            # The places of this round whose turn is still to come share what is still wanted.
            share = -(-(self._most - len(self._kept)) // turn)
            after, read, turn = pending.popleft(), 0, turn - 1
            while read < share and self._wants_more:
                limit = min(self._page, share - read)
                page = await self._list(SearchOptions(after=after), limit)
                read += len(page)
                self._keep(page)
                if len(page) < limit:
                    break
                after = page[-1].id
            else:
                pending.append(after)

    async def read_filtered(self) -> None:
        """Read objects that are spread evenly over the first ones that match, as far as the store reads."""
        wanted = self._wanted
        ids = await self._matching()
        count = min(wanted.size, len(ids))
        chosen = deque(ids[number * len(ids) // count] for number in range(count))
        while chosen and self._wants_more:
            some = [chosen.popleft() for _ in range(min(self._page, len(chosen)))]
            found = await self._store.get_objects(wanted.collection, some, self._fields, wanted.scope)
            self._keep(found.values())

    def sample(self) -> Sample:
        """Return what was read."""
        ids = sorted(self._kept)
        name = self._wanted.vector
        width = max((len(each.vectors[name]) for each in self._kept.values() if name), default=0)
        vectors = np.zeros((len(ids), width), np.float32)
        for row, id_ in zip(vectors, ids, strict=True):
            row[:] = self._kept[id_].vectors.get(name, ())
        values = {name: [self._kept[id_].properties.get(name) for id_ in ids] for name in self._wanted.properties}
        return Sample(ids, vectors, values, len(self._seen) - len(ids))

    @property
    def _wants_more(self) -> bool:
        return len(self._kept) < self._most and self._left > 0

    async def _matching(self) -> list[UUID]:
        """Return the ids of the first objects that match."""
        wanted = self._wanted
        # Where objects are written meanwhile, two pages may have the same one.
        ids: dict[UUID, None] = {}
        for offset in range(0, WINDOW, WINDOW_PAGE):
            options = SearchOptions(wanted.filters)
            spec = SearchSpec(None, WINDOW_PAGE, offset=offset, options=options, scope=wanted.scope)
            page = await self._store.search(wanted.collection, spec)
            ids.update(dict.fromkeys(hit.object.id for hit in page))
            if len(page) < WINDOW_PAGE:
                break
        return list(ids)

    async def _next_id(self, after: UUID | None) -> UUID | None:
        spec = SearchSpec(None, 1, options=SearchOptions(after=after), scope=self._wanted.scope)
        found = await self._store.search(self._wanted.collection, spec)
        return found[0].object.id if found else None

    async def _list(self, options: SearchOptions, limit: int) -> list[StoredObject]:
        spec = SearchSpec(None, limit, fields=self._fields, options=options, scope=self._wanted.scope)
        return [hit.object for hit in await self._store.search(self._wanted.collection, spec)]

    def _keep(self, page: Iterable[StoredObject]) -> None:
        """Keep what has the vector, with short values, and choose how long the next page may be."""
        name, count, size = self._wanted.vector, 0, 0
        for each in page:
            count += 1
            self._left -= 1
            size += 4 * sum(map(len, each.vectors.values())) + sum(map(bytes_of, each.properties.values()))
            vector = each.vectors.get(name)
            if vector is not None:
                self._most = min(self._most, max(1, MAX_VALUES // len(vector)))
            fits = vector is not None or not name
            if fits and len(self._kept) < self._most:
                cut = {key: _cut(value, self._value_bytes) for key, value in each.properties.items()}
                self._kept[each.id] = StoredObject(each.id, cut, vectors={} if vector is None else {name: vector})
            if not fits or each.id in self._kept:
                self._seen.add(each.id)
        if count:
            self._page = min(LARGEST_PAGE, max(1, min(4 * self._page, PAGE_BYTES * count // max(1, size))))


def bytes_of(value: PropertyValue) -> int:
    """Return about how many bytes a value has."""
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(bytes_of, value))
        case dict():
            return sum(map(bytes_of, value.values()))
    return 8


def _cut(value: PropertyValue, most_bytes: int) -> PropertyValue:
    """Return a value, or as much of it as a label needs and as fits."""
    match value:
        case str():
            return _cut_text(value, most_bytes)
        case list():
            return cast("PropertyValue", _cut_list(value, most_bytes))
    return value


def _cut_text(text: str, most_bytes: int) -> str:
    return text[:MAX_TEXT_CHARS].encode()[:most_bytes].decode(errors="ignore")


def _cut_list(items: Sequence[PropertyValue], most_bytes: int) -> list[PropertyValue]:
    """Return the first items that fit; of a text that does not fit alone, its beginning."""
    cut = [_cut_text(each, most_bytes - FRAME) if isinstance(each, str) else each for each in items[:MAX_LIST_ITEMS]]
    sizes = accumulate(FRAME + (len(each.encode()) if isinstance(each, str) else 0) for each in cut)
    return [each for each, size in zip(cut, sizes, strict=True) if size <= most_bytes]
