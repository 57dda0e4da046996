"""One system's searches: what they find, and how long each takes."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from service.core.evaluating.queries import Query, QuerySet
from service.core.evaluating.statistics import Values
from service.core.evaluating.task import Task
from service.core.reranker_pool import RerankerPool
from service.core.searching.reranking import HitReranker
from service.domain import (
    Blend,
    Distance,
    Hit,
    Keywords,
    NamedVector,
    Reranking,
    ReturnFields,
    SearchSpec,
    System,
    TargetVectors,
)
from service.store.base import Store

RERANKED = 50
"""Hits that a reranker sorts, as in a search that asks for no other number."""

SAME = 1e-5
"""Nearer objects may have the same vector as another one, and take its place."""


@dataclass(slots=True, eq=False)
class Run:
    """What a system found.

    Attributes:
        system: the system.
        target: the named vector that it searches.
        rows: which queries were asked, by their places in the set.
        ids: for each the objects that were found, best first, without its own one where that is no hit.
        names: for each the names of what was found, as answers have them, each once; empty where none are known.
        lost: objects that were not found by their own vectors.
        seconds: float64, shape (rows,): how long each search took.
    """

    system: System
    target: NamedVector
    rows: Sequence[int]
    ids: list[list[UUID]] = field(default_factory=list)
    names: list[list[str]] = field(default_factory=list)
    lost: list[UUID | None] = field(default_factory=list)
    seconds: Values = field(default_factory=lambda: np.zeros(0))

    def forget(self, shown: int) -> None:
        """Keep only so many hits of each query, when all of them have been measured."""
        self.ids = [ids[:shown] for ids in self.ids]
        self.names = []


class SystemRunner:
    """Runs the searches of systems one after the other, so that they take little of what others need.

    Args:
        store: where to search.
        rerankers: those of the server.
        task: the evaluation.
    """

    def __init__(self, store: Store, rerankers: RerankerPool, task: Task) -> None:
        self._store = store
        self._reranker = HitReranker(store, rerankers)
        self._task = task

    async def run(self, run: Run, queries: QuerySet, limit: int, searched: Callable[[], Awaitable[None]]) -> Run:
        """Search by the queries of a run, and return it with what was found.

        Args:
            run: which system and which queries; it is filled.
            queries: all queries.
            limit: hits that count.
            searched: called after each search.

        Raises:
            EmbedderError: the reranker failed.
            StoreUnavailable: the store failed.
        """
        seconds = np.zeros(len(run.rows))
        if len(run.rows):
            # The first search after a change may wait for data from the disk.
            await self._search(run, queries, run.rows[0], limit)
        for place, row in enumerate(run.rows):
            begun = time.perf_counter()
            hits = await self._search(run, queries, row, limit)
            seconds[place] = time.perf_counter() - begun
            _keep(run, queries.queries[row], hits, queries, limit)
            await searched()
        run.seconds = seconds
        return run

    async def _search(self, run: Run, queries: QuerySet, row: int, limit: int) -> list[Hit]:
        system, query = run.system, queries.queries[row]
        names = list(system.weights) or [run.target.name]
        vectors = {name: queries.vectors[name][row] for name in names}
        targets = TargetVectors(vectors, system.join, system.weights)
        found = targets if system.alpha is None else Blend(Keywords(query.text), system.alpha, targets=targets)
        fields = ReturnFields(properties=[queries.answer_property] if queries.answer_property else [])
        spec = SearchSpec(found, limit + queries.by_objects, fields=fields, scope=self._task.scope)
        if not system.reranker:
            return await self._store.search(self._task.collection.name, spec)
        reranking = Reranking(
            system.reranker, query.text, system.rerank_property, system.rerank_image_property, max(RERANKED, limit)
        )
        hits, _ = await self._reranker.search(self._task.collection.name, spec, reranking, self._task.api_key)
        return hits


def _keep(run: Run, query: Query, hits: Sequence[Hit], queries: QuerySet, limit: int) -> None:
    """Note what a query found."""
    found = [hit.object.id for hit in hits]
    # A search by an object's own vector finds the object first, unless the index has lost it or others have the same
    # vector. By the dot product, longer vectors may come first.
    expected = queries.by_objects and run.target.distance is not Distance.DOT
    farthest = hits[-1].distance if hits and hits[-1].distance is not None else 0.0
    if expected and query.object not in found and (len(hits) <= limit or farthest > SAME):
        run.lost.append(query.object)
    kept = [hit for hit in hits if not (queries.by_objects and hit.object.id == query.object)][:limit]
    run.ids.append([hit.object.id for hit in kept])
    if queries.answered:
        names = (_name_of(hit, queries.answer_property) for hit in kept)
        run.names.append(list(dict.fromkeys(name for name in names if name is not None)))


def _name_of(hit: Hit, property_: str) -> str | None:
    """Return how answers name a hit."""
    if not property_:
        return str(hit.object.id)
    value = hit.object.properties.get(property_)
    return None if value is None else str(value)
