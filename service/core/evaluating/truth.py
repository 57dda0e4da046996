"""How much of what exact search finds an index finds, and what reading all vectors shows of them."""

import asyncio
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from embedders.contract import Vector
from service.core.evaluating.exact import Nearest, every_object, rows_of
from service.core.evaluating.queries import QuerySet
from service.core.evaluating.searching import Run
from service.core.evaluating.statistics import Values
from service.core.evaluating.summary import Summarizer, VectorSummary
from service.core.evaluating.task import Stage, Task
from service.domain import NamedVector, ReturnFields, StoredObject
from service.store.base import Store

MAX_LENGTH_ERROR = 0.01
"""By how much a vector's length may differ from 1."""

HUB_SHARE, HUB_TIMES, HUB_LEAST = 0.05, 10, 10
"""A hub is among the nearest of more than 5 % of the queries, ten times as often as if all were it equally, and of at
least 10 queries: of few queries, 5 % are less than one."""

READ_AT_ONCE = 50
"""Objects whose vectors are read at a time."""


@dataclass(slots=True)
class VectorCounts:
    """What reading all objects shows of a named vector.

    Attributes:
        objects: objects that were read.
        missing: those that lack it.
        zero: those in which it has no direction: only zeros, too small for a length, or not a number.
        other_length: those in which it has another number of values than the queries' vectors.
        doubled: those whose vector another object has, too.
        off_length: those whose vector has not unit length.
        hubs: those that are among the nearest of so many queries that they stand in the way of others.
        gap: how far the centre of the queries' vectors is from that of the objects', all scaled to unit length; None
            where the queries are such vectors themselves.
        gap_error: the standard error of gap, at most.
        space: the space of the named vector; empty if unknown.
        summary: of all its vectors, for a later comparison; None if there were none.
    """

    space: str = ""
    objects: int = 0
    missing: int = 0
    zero: int = 0
    other_length: int = 0
    doubled: int = 0
    off_length: int = 0
    hubs: int = 0
    gap: float | None = None
    gap_error: float = 0.0
    summary: VectorSummary | None = None
    _summarizer: Summarizer = field(default_factory=Summarizer)
    _hashes: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, page: Sequence[StoredObject], name: str, ids: Sequence[UUID], rows: Vector) -> None:
        """Count the objects of a page.

        Args:
            page: the objects.
            name: the named vector.
            ids: those that have vectors as long as the queries', with a direction.
            rows: float32, shape (ids, dimension): these vectors.
        """
        dimension, having = rows.shape[1], set(ids)
        for each in page:
            vector = each.vectors.get(name)
            self.objects += 1
            if vector is None:
                self.missing += 1
            elif len(vector) != dimension:
                self.other_length += 1
            elif each.id not in having:
                self.zero += 1
            else:
                self._hashes.append(hash(vector.tobytes()))
        lengths = np.linalg.norm(rows, axis=1)
        self.off_length += int((np.abs(lengths - 1) > MAX_LENGTH_ERROR).sum())
        self._summarizer.add(ids, rows, lengths)

    def end(self, nearest: Nearest, queries: Vector | None) -> None:
        """Count what only all of them show, after the last page.

        Args:
            nearest: the nearest objects of all queries.
            queries: float32, shape (queries, dimension): their vectors if they were embedded, otherwise None.
        """
        _, counts = np.unique(np.frombuffer(self._hashes, np.int64), return_counts=True)
        self.doubled = int(counts[counts > 1].sum())
        count, limit = nearest.ids.shape
        often = Counter(id_ for row in nearest.ids for id_ in row if id_ is not None)
        fair = count * limit / max(1, len(self._hashes))
        most = max(HUB_SHARE * count, HUB_TIMES * fair)
        self.hubs = sum(each > most and each >= HUB_LEAST for each in often.values())
        self.summary = self._summarizer.summary()
        if queries is not None and self.summary is not None:
            self._measure_gap(queries, self.summary.centre)

    def _measure_gap(self, queries: Vector, centre: Vector) -> None:
        scaled = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        across = scaled.mean(axis=0) - centre
        self.gap = float(np.linalg.norm(across))
        along = scaled @ (across / (self.gap or 1))
        # The variance of unit vectors is what their centre lacks of length 1, in all directions together.
        of_objects = max(0.0, 1 - float(centre @ centre)) / len(self._hashes)
        self.gap_error = float(np.sqrt(along.var() / len(queries) + of_objects))


class IndexTruth:
    """What exact search finds, against which indexes are measured.

    Attributes:
        counts: what reading showed, by named vector.
    """

    def __init__(self, store: Store, task: Task) -> None:
        self.counts: dict[str, VectorCounts] = {}
        self._store = store
        self._task = task
        self._collection, self._scope = task.collection.name, task.scope
        self._nearest: dict[str, Nearest] = {}

    async def read(self, targets: Sequence[NamedVector], queries: QuerySet, limit: int, total: int) -> None:
        """Read all vectors, and remember the nearest ones of each query.

        Args:
            targets: the named vectors.
            queries: the queries.
            limit: how many nearest objects count.
            total: about how many objects there are, for the caller.

        Raises:
            StoreUnavailable: the store failed.
        """
        own = [each.object if queries.by_objects else None for each in queries.queries]
        for each in targets:
            assert each.distance is not None
            vectors = queries.vectors[each.name]
            # Scaling the vectors of the most queries takes longer than the event loop may be kept.
            self._nearest[each.name] = await asyncio.to_thread(Nearest, each.distance, vectors, limit, own)
            self.counts[each.name] = VectorCounts(each.space_id)
        done, fields = 0, ReturnFields(vectors=list(self._nearest))
        async for page in every_object(self._store, self._collection, fields, self._scope):
            await asyncio.to_thread(self._add, page, queries.vectors)
            done += len(page)
            await self._task.tell(Stage.READING, done, max(done, total))
        for name, counts in self.counts.items():
            embedded = None if queries.by_objects else queries.vectors[name]
            await asyncio.to_thread(counts.end, self._nearest[name], embedded)

    def _add(self, page: Sequence[StoredObject], queries: Mapping[str, Vector]) -> None:
        for name, nearest in self._nearest.items():
            ids, rows = rows_of(page, name, queries[name].shape[1])
            if ids:
                nearest.add(ids, rows)
            self.counts[name].add(page, name, ids, rows)

    def has_any(self, name: str) -> bool:
        """Return whether anything can be found in a named vector: whether objects have it, with a direction."""
        return bool(np.isfinite(self._nearest[name].distances).any())

    async def recall(self, run: Run) -> Values:
        """Return for each query of a run the share of the exactly nearest objects that it found.

        Another object that is as near as the farthest of these counts as well.

        Returns:
            float64, shape (rows,).

        Raises:
            StoreUnavailable: the store failed.
        """
        # Of the most queries and hits, each of these takes more than the event loop may be kept.
        others = await asyncio.to_thread(self._others, run)
        vectors = await self._vectors(run.target.name, list({id_ for ids in others for id_ in ids}))
        return await asyncio.to_thread(self._shares, run, others, vectors)

    def _others(self, run: Run) -> list[list[UUID]]:
        """Return for each query what it found beside the nearest objects."""
        nearest = self._nearest[run.target.name].ids
        true = [set(nearest[row]) for row in run.rows]
        return [[id_ for id_ in ids if id_ not in near] for ids, near in zip(run.ids, true, strict=True)]

    def _shares(self, run: Run, others: Sequence[Sequence[UUID]], vectors: Mapping[UUID, Vector]) -> Values:
        nearest = self._nearest[run.target.name]
        values = np.ones(len(run.rows))
        for place, row in enumerate(run.rows):
            wanted = int(np.isfinite(nearest.distances[row]).sum())
            if wanted:
                right = len(run.ids[place]) - len(others[place])
                right += sum(nearest.within(row, vectors[id_]) for id_ in others[place] if id_ in vectors)
                values[place] = min(1.0, right / wanted)
        return values

    async def _vectors(self, name: str, ids: Sequence[UUID]) -> dict[UUID, Vector]:
        found: dict[UUID, Vector] = {}
        for start in range(0, len(ids), READ_AT_ONCE):
            some = ids[start : start + READ_AT_ONCE]
            fields = ReturnFields(vectors=[name])
            read = await self._store.get_objects(self._collection, some, fields, self._scope)
            found |= {id_: each.vectors[name] for id_, each in read.items() if name in each.vectors}
        return found
