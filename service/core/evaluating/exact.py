"""Exact search: the nearest objects of some queries among all of a collection, which is read page by page.

Weaviate searches an HNSW index exactly only where a filter lets few objects through. So all vectors are read and
compared with all queries here. In memory are the queries, their nearest objects so far, and one page.
"""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embedders.contract import Vector
from service.core.projecting.sample import bytes_of
from service.domain import Distance, ReturnFields, Scope, SearchOptions, SearchSpec, StoredObject
from service.store.base import Store

FIRST_PAGE, LARGEST_PAGE = 16, 500
PAGE_BYTES = 2 * 1024 * 1024
"""Objects in the first page, and at most; and about as many bytes of vectors and properties as a page shall have."""

TOLERANCE = 2e-6
"""Distances that differ by less, as a share of 1 or of the distance, are the same: Weaviate adds in another order."""


class Nearest:
    """The nearest objects of queries, among vectors that come page by page.

    Attributes:
        ids: the nearest ones of each query so far, in no order; None where there are fewer.
        distances: theirs, float64, shape (queries, count); infinite where there are fewer.
    """

    def __init__(self, distance: Distance, queries: Vector, count: int, own: Sequence[UUID | None]) -> None:
        """Begin without any object.

        Args:
            distance: the measure.
            queries: float32, shape (queries, dimension).
            count: how many nearest objects of each are wanted.
            own: for each query the object whose vector it is, which does not count; None for none.
        """
        self._distance = distance
        self._queries = _prepared(distance, queries)
        self._count = count
        self._own = {id_: row for row, id_ in enumerate(own) if id_ is not None}
        self.distances: NDArray[np.float64] = np.full((len(queries), count), np.inf)
        self.ids: NDArray[np.object_] = np.full((len(queries), count), None, object)

    def add(self, ids: Sequence[UUID], vectors: Vector) -> None:
        """Look at more objects.

        Args:
            ids: theirs.
            vectors: float32, shape (objects, dimension).
        """
        distances = self.between(vectors)
        for column, id_ in enumerate(ids):
            if id_ in self._own:
                distances[self._own[id_], column] = np.inf
        names = np.empty(len(ids), object)
        names[:] = ids
        # The more objects have been seen, the fewer queries find a nearer one in a page.
        rows = np.flatnonzero((distances < self.distances.max(axis=1, keepdims=True)).any(axis=1))
        distances = distances[rows]
        all_ids = np.hstack([self.ids[rows], np.broadcast_to(names, distances.shape)])
        all_distances = np.hstack([self.distances[rows], distances])
        nearest = np.argpartition(all_distances, self._count - 1, axis=1)[:, : self._count]
        kept = np.take_along_axis(all_distances, nearest, axis=1)
        kept_ids = np.take_along_axis(all_ids, nearest, axis=1)
        kept_ids[np.isinf(kept)] = None
        self.ids[rows], self.distances[rows] = kept_ids, kept

    def between(self, vectors: Vector) -> NDArray[np.float64]:
        """Return the distance of each query to each vector.

        Args:
            vectors: float32, shape (vectors, dimension).

        Returns:
            float64, shape (queries, vectors).
        """
        return _measured(self._distance, self._queries, _prepared(self._distance, vectors))

    def within(self, row: int, vector: Vector) -> bool:
        """Return whether a vector is as near to a query as the farthest of its nearest objects."""
        queries, others = self._queries[row : row + 1], _prepared(self._distance, vector[None])
        distance = float(_measured(self._distance, queries, others)[0, 0])
        farthest = float(self.distances[row].max())
        return distance <= farthest + TOLERANCE * max(1.0, abs(farthest))


def _prepared(distance: Distance, vectors: Vector) -> Vector:
    if distance is not Distance.COSINE:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    scaled: Vector = (vectors / lengths).astype(np.float32)
    return scaled


def _measured(distance: Distance, queries: Vector, vectors: Vector) -> NDArray[np.float64]:
    match distance:
        case Distance.COSINE:
            return 1 - (queries @ vectors.T).astype(np.float64)
        case Distance.DOT:
            return -(queries @ vectors.T).astype(np.float64)
        case Distance.L2_SQUARED:
            # In double precision, because what is left of the squares may be small.
            wide, others = queries.astype(np.float64), vectors.astype(np.float64)
            squares = np.square(wide).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
            differences: NDArray[np.float64] = np.maximum(squares - 2 * wide @ others.T, 0)
            return differences
        case Distance.MANHATTAN:
            return np.stack([np.abs(vectors - each).sum(axis=1, dtype=np.float64) for each in queries])
        case Distance.HAMMING:
            return np.stack([(vectors != each).sum(axis=1).astype(np.float64) for each in queries])


async def every_object(
    store: Store, collection: str, fields: ReturnFields, scope: Scope
) -> AsyncIterator[list[StoredObject]]:
    """Yield all objects of a collection or tenant with some parts of them, page by page, by ascending id.

    Raises:
        InvalidRequest: a missing or superfluous tenant.
        StoreUnavailable: the store failed.
    """
    after, size = None, FIRST_PAGE
    while True:
        spec = SearchSpec(None, size, fields=fields, options=SearchOptions(after=after), scope=scope)
        page = [hit.object for hit in await store.search(collection, spec)]
        if page:
            yield page
        if len(page) < size:
            return
        after = page[-1].id
        size = _next_size(size, page)


def _next_size(size: int, page: Sequence[StoredObject]) -> int:
    """Return how many objects the next page may have, to be about as long as a page shall be.

    It grows step by step, because the objects of the next page may be longer than those of this one.
    """
    longest = max(map(_bytes_of, page))
    return max(1, min(LARGEST_PAGE, 4 * size, PAGE_BYTES // max(1, longest)))


def _bytes_of(object_: StoredObject) -> int:
    vectors = sum(each.nbytes for each in object_.vectors.values())
    return vectors + sum(map(bytes_of, object_.properties.values()))


def has_direction(vector: Vector) -> bool:
    """Return whether a vector has a length in float32. Other clients may have stored zeros, or what is not a number."""
    return 0 < float(np.linalg.norm(vector)) < math.inf


def rows_of(page: Sequence[StoredObject], vector: str, dimension: int) -> tuple[list[UUID], Vector]:
    """Return the ids and the vectors of those objects that have a named vector with a direction.

    Returns:
        The ids; float32, shape (ids, dimension).
    """
    having: Mapping[UUID, Vector] = {
        each.id: each.vectors[vector]
        for each in page
        if vector in each.vectors and each.vectors[vector].shape == (dimension,) and has_direction(each.vectors[vector])
    }
    rows = np.stack(list(having.values())) if having else np.zeros((0, dimension), np.float32)
    return list(having), rows
