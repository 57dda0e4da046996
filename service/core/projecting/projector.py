"""Maps of collections: objects as points, and inputs among them."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import numpy as np
from cachetools import TTLCache

from embedders.contract import EmbedderSpec, Vector
from service.core.embedder_pool import EmbedderPool
from service.core.objects.writing import Writes, keys_of
from service.core.projecting.axes import Axes, principal_axes
from service.core.projecting.neighbours import check_umap, neighbour_map
from service.core.projecting.sample import SampleOf, read_sample
from service.core.searching.checks import check_options
from service.core.searching.references import linked_collections
from service.core.searching.vectors import Asked, QueryVectors
from service.domain import (
    BLOBS,
    OBJECTS,
    Collection,
    DataType,
    Distance,
    Filter,
    NamedVector,
    Near,
    Projection,
    ProjectionMethod,
    PropertyValue,
    Scope,
    SearchOptions,
    some_of,
    unknown_property,
    unknown_vector,
)
from service.errors import (
    CollectionNotFound,
    InvalidRequest,
    Overloaded,
    VectorRemoved,
    Violation,
    Violations,
    collecting,
    noting,
)
from service.store.base import Store

MAX_CACHED_BYTES = 96 * 1024 * 1024
"""Bytes of the vectors in the maps that are kept: those of four maps of 5,000 vectors of 1,024 values."""

CACHED_S = 300.0
"""Seconds for which a map is kept."""

MAX_WAITING_MAPS = 8
"""Calls that wait for their turn, for each method."""

NEAREST = 10
"""Objects that are named as the nearest ones of an input, and between which UMAP's inputs are placed."""

FEWEST = 3
"""Objects that UMAP needs; fewer are on a line, which PCA draws."""

WITHOUT_LABELS = BLOBS | OBJECTS | {DataType.GEO_COORDINATES}
"""Types that give no label and no colour."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class PlacedInput:
    """Where an input is, and the indexes of its nearest objects, the nearest one first."""

    x: float
    y: float
    nearest: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectMap:
    """Objects as points.

    Attributes:
        target: the named vector.
        ids: the objects, by ascending id.
        points: float32, shape (ids, 2), with a mean of zero.
        values: of each property one value for each id, None where an object has none.
        total: how many objects there are that count.
        missing: how many objects were read that lack the named vector.
        explained: the share of the variance along each axis; None where axes have no such share.
    """

    target: NamedVector
    ids: Sequence[UUID]
    points: Vector
    values: dict[str, list[PropertyValue]]
    total: int
    missing: int
    explained: tuple[float, float] | None


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionResult:
    """A map, how it was made, the inputs on it, and the embedder of the inputs; None without inputs."""

    map: ObjectMap
    method: ProjectionMethod
    inputs: Sequence[PlacedInput] = ()
    embedder: EmbedderSpec | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """A map with what places inputs on it.

    Attributes:
        map: the map.
        collection: what its collection was like.
        scope: whose objects it has.
        mark: which writes had ended before it was read.
        mean: float32, shape (dimension,): the mean of the vectors, after scaling.
        centred: float32, shape (ids, dimension): the vectors without their mean.
        axes: of PCA.
    """

    map: ObjectMap
    collection: Collection
    scope: Scope
    mark: int
    mean: Vector
    centred: Vector
    axes: Axes | None


def _size_of(made: _Made) -> int:
    return made.centred.nbytes


class Projector:
    """Makes maps.

    Args:
        store: where objects are.
        embedders: what embeds inputs.
        writes: which objects were written.
    """

    def __init__(self, store: Store, embedders: EmbedderPool, writes: Writes) -> None:
        self._store = store
        self._embedders = embedders
        self._writes = writes
        self._vectors = QueryVectors(store, embedders)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="maps")
        self._turns = {each: asyncio.Lock() for each in ProjectionMethod}
        self._waiting = dict.fromkeys(ProjectionMethod, 0)
        self._made: TTLCache[object, _Made] = TTLCache(MAX_CACHED_BYTES, CACHED_S, time.monotonic, _size_of)

    def close(self) -> None:
        """Stop the thread that computes; no call is in flight."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def project(self, projection: Projection, api_key: str | None = None) -> ProjectionResult:
        """Return a map of a collection.

        Args:
            projection: what to draw.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            InvalidRequest: a missing or superfluous tenant, an unknown name, a filter that does not fit, an input that
                cannot be embedded.
            CollectionNotBound: there are inputs, and the named vector is bound to no space.
            SpaceMismatch: there are inputs, and no embedder of this server has the named vector's space.
            PackageMissing: the method is not installed.
            Overloaded: too many calls wait for their maps.
            EmbedderError: the embedder failed.
            StoreUnavailable: the store failed.
        """
        collection = self._embedders.resolve(await self._store.get_collection(projection.collection, fresh=False))
        try:
            return await self._project(collection, projection, api_key)
        except (CollectionNotFound, VectorRemoved) as error:
            now = self._embedders.resolve(await self._store.get_collection(projection.collection))
            if now.name == collection.name and not isinstance(error, VectorRemoved):
                raise
            # What was seen a moment ago has changed.
            return await self._project(now, projection, api_key)

    async def _project(self, collection: Collection, projection: Projection, api_key: str | None) -> ProjectionResult:
        target, filters = await self._check(collection, projection)
        if projection.method is ProjectionMethod.UMAP:
            check_umap()
        embedder, rows = None, np.zeros((0, 0), np.float32)
        if projection.inputs:
            asked = Asked(collection, projection.scope, api_key)
            embedder, vectors = await self._vectors.resolve(asked, target, projection.inputs)
            rows = np.stack([vectors[each.path] for each in projection.inputs])
        made = await self._map(collection, target, projection, filters)
        if len(rows) and len(made.centred) and rows.shape[1] != len(made.mean):
            # Of adopted collections the schema does not tell the dimension.
            message = f"the embedder's vectors have {rows.shape[1]} values, and the stored ones {len(made.mean)}"
            raise InvalidRequest([Violation("inputs", message, "INVALID_VECTOR")])
        placed = await self._compute(lambda _: _place(made, rows)) if len(rows) else []
        return ProjectionResult(made.map, projection.method, placed, embedder)

    async def _check(self, collection: Collection, projection: Projection) -> tuple[NamedVector, Filter | None]:
        """Return the named vector, and the filters in the types of the collection.

        Raises:
            InvalidRequest: something does not fit the collection; all violations are listed.
        """
        filters = projection.filters
        linked = {} if filters is None else await linked_collections(self._store, collection, filters)
        with collecting() as violations:
            options = check_options(collection, SearchOptions(filters), linked, violations)
            _check_properties(collection, projection.properties, violations)
            target = None
            with noting(violations):
                target = self._target(collection, projection.vector)
            if violations and projection.inputs:
                self._vectors.check_texts(Near("inputs", projection.inputs), violations)
        assert target is not None
        return target, options.filters

    def _target(self, collection: Collection, name: str) -> NamedVector:
        found = collection.find_vector(name) if name else self._embedders.default_vector(collection)
        if found is None:
            rule = "has no such named vector; it has" if name else "has no default_vector; choose among"
            raise InvalidRequest([unknown_vector(collection, "target_vector", rule)])
        if found.multi:
            message = f"{found.name!r} has several vectors for an object, which this version does not project"
            raise InvalidRequest([Violation("target_vector", message)])
        return found

    async def _map(
        self, collection: Collection, target: NamedVector, projection: Projection, filters: Filter | None
    ) -> _Made:
        scope = projection.scope
        wanted = SampleOf(collection.name, target.name, projection.size, projection.properties, filters, scope)
        # A filter may hold lists, which have no hash.
        key = (projection.method, repr(wanted))
        total = await self._store.count_objects(collection.name, scope, filters)
        if (known := self._known(key, collection, total)) is not None:
            return known
        method = projection.method
        if self._waiting[method] >= MAX_WAITING_MAPS:
            raise Overloaded(f"{MAX_WAITING_MAPS} calls wait for a map by {method.name}: try again later")
        self._waiting[method] += 1
        try:
            await self._turns[method].acquire()
        finally:
            self._waiting[method] -= 1
        try:
            # Another call may have made the same map meanwhile.
            if (known := self._known(key, collection, total)) is None:
                known = await self._make(collection, target, method, wanted, total)
                # A map may be too large to be kept.
                with suppress(ValueError):
                    self._made[key] = known
        finally:
            self._turns[method].release()
        return known

    def _known(self, key: object, collection: Collection, total: int) -> _Made | None:
        """Return a map that is kept and still right, as far as this server can know."""
        made = self._made.get(key)
        if made is None:
            return None
        changed = made.collection != collection or made.map.total != total
        if not changed and made.mark != self._writes.ended:
            keys = keys_of(collection.name, made.scope, made.map.ids)
            changed = bool(self._writes.since(made.mark, keys))
        if changed:
            self._made.pop(key, None)
            return None
        return made

    async def _make(
        self, collection: Collection, target: NamedVector, method: ProjectionMethod, wanted: SampleOf, total: int
    ) -> _Made:
        mark = self._writes.ended
        sample = await read_sample(self._store, wanted, total)
        scaled = target.distance is Distance.COSINE
        mean = await self._compute(lambda _: _centre(sample.vectors, scaled=scaled))
        axes = None
        if method is ProjectionMethod.PCA or len(sample.ids) < FEWEST:
            axes = await self._compute(lambda stopped: principal_axes(sample.vectors, stopped))
            points = await self._compute(lambda _: sample.vectors @ axes.directions.T)
        else:
            points = await neighbour_map(sample.vectors)
        drawn = ObjectMap(
            target, sample.ids, points, sample.values, total, sample.missing, None if axes is None else axes.explained
        )
        return _Made(drawn, collection, wanted.scope, mark, mean, sample.vectors, axes)

    async def _compute(self, work: Callable[[Callable[[], bool]], Result]) -> Result:
        """Compute something in the thread, which is told when the caller has left."""
        left = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, left.is_set)
        finally:
            left.set()


def _check_properties(collection: Collection, names: Sequence[str], violations: Violations) -> None:
    fitting = [each.name for each in collection.properties if each.handled and each.data_type not in WITHOUT_LABELS]
    for index, name in enumerate(names):
        path = f"properties[{index}]"
        if collection.find_property(name) is None:
            violations.append(unknown_property(collection, path, fitting))
        elif name not in fitting:
            message = f"is not a text, number, boolean, date or UUID; choose among: {some_of(fitting)}"
            violations.add(path, message, "INVALID_PROPERTY")
        elif name in names[:index]:
            violations.add(path, "is named twice; name each property once")


def _scale(vectors: Vector) -> None:
    """Scale rows to unit length, but for those of zeros."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64, casting="safe"))
    vectors /= np.where(lengths > 0, lengths, 1).astype(np.float32)[:, None]


def _centre(vectors: Vector, *, scaled: bool) -> Vector:
    """Scale vectors to unit length, if asked for, take away their mean, and return the mean.

    In place, because a copy of the largest sample would be another 82 MB.
    """
    if scaled:
        _scale(vectors)
    if not len(vectors):
        return np.zeros(vectors.shape[1], np.float32)
    mean: Vector = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    vectors -= mean
    return mean


def _place(made: _Made, inputs: Vector) -> list[PlacedInput]:
    """Return where inputs are: float32, shape (inputs, dimension)."""
    target = made.map.target
    if target.distance is Distance.COSINE:
        inputs = inputs.copy()
        _scale(inputs)
    if not len(made.centred):
        return [PlacedInput(0.0, 0.0, ()) for _ in inputs]
    return [_place_one(made, each - made.mean, each) for each in inputs]


def _place_one(made: _Made, vector: Vector, whole: Vector) -> PlacedInput:
    if made.map.target.distance is Distance.DOT:
        # The part of the mean is the same for all.
        farness = -(made.centred @ whole)
        distances = farness - farness.min()
    else:
        differences = made.centred - vector
        distances = np.sqrt(np.einsum("ij,ij->i", differences, differences))
    nearest = np.argsort(distances, kind="stable")[:NEAREST]
    if made.axes is not None:
        x, y = made.axes.directions @ vector
    else:
        weights = 1 / np.maximum(distances[nearest], 1e-6)
        x, y = weights @ made.map.points[nearest] / weights.sum()
    return PlacedInput(float(x), float(y), nearest.tolist())
