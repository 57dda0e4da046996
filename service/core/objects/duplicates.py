"""Duplicates: objects of an import that equal, or nearly equal, a stored object or an earlier one of the import."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple
from uuid import UUID
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from embedders.contract import Vector
from service.access import Permission, calling_account, check_permission
from service.core.objects.vectorizing import has_inputs, same_inputs, vector_fields
from service.core.objects.writing import PARALLEL, all_of
from service.domain import (
    Collection,
    Distance,
    NamedVector,
    ReturnFields,
    Scope,
    SearchOptions,
    SearchSpec,
    StoredObject,
    TargetVectors,
    unknown_vector,
)
from service.errors import CollectionNotBound, InvalidRequest, StoreRejected, TenantNotFound, Violation
from service.store.base import Store

EQUAL_COSINE = 0.999
"""The least cosine of two vectors of the same input: models on GPUs differ a little from batch to batch."""

ROUNDING = 1e-6
"""By how much the cosine of two equal vectors may be below 1."""

NEIGHBOURS = 8
"""Nearest objects that are compared with each object of an import."""

MARGIN = 0.02
"""By how much the distance that an index measures may be off, as indexes compress vectors."""


class DuplicateAction(Enum):
    """What to do with duplicates; the names are those of the API."""

    REPORT = "report"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class DuplicateCheck:
    """What an import does with duplicates.

    Attributes:
        action: whether they are stored.
        min_cosine: the least cosine of near-duplicates; 0: only objects with the same texts and images are duplicates.
        target_vector: the named vector to compare; empty for the only one.
    """

    action: DuplicateAction
    min_cosine: float = 0.0
    target_vector: str = ""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The object that another one duplicates.

    Attributes:
        id: of that object.
        cosine: of the two vectors.
        same_content: whether the two vectors are made of the same texts and images.
        skipped: whether the other one is not to be stored for that.
    """

    id: UUID
    cosine: float
    same_content: bool
    skipped: bool = False


class _Asked(NamedTuple):
    """What is looked up, and where."""

    collection: Collection
    vector: NamedVector
    check: DuplicateCheck
    scope: Scope


class Duplicates:
    """Finds duplicates. Belongs to one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._room = asyncio.Semaphore(PARALLEL)
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def turn(self, collection: Collection, scope: Scope) -> asyncio.Lock:
        """Return the lock to hold while objects are looked up and written, so that two calls see each other's."""
        return self._turns.setdefault((collection.name, scope.tenant), asyncio.Lock())

    async def find(
        self,
        collection: Collection,
        check: DuplicateCheck,
        objects: Sequence[StoredObject],
        stored: Mapping[UUID, StoredObject],
        scope: Scope,
    ) -> dict[UUID, Duplicate]:
        """Return which objects duplicate a stored object, or an earlier one that is about to be stored.

        Args:
            collection: the collection.
            check: what counts as a duplicate.
            objects: the objects that are about to be stored, in order, with their vectors.
            stored: those of them that are stored already.
            scope: the tenant, and how many replicas must answer.

        Raises:
            StoreRejected: the store refuses to search.
            StoreUnavailable: the store failed.
        """
        vector = target_of(collection, check)
        asked = _Asked(collection, vector, check, scope)
        having = [each for each in objects if vector.name in each.vectors]
        # The write refuses vectors of another length, which have no cosine with the others.
        having = [each for each in having if len(each.vectors[vector.name]) == len(having[0].vectors[vector.name])]
        if not having:
            return {}
        ids = {each.id for each in having}
        neighbours = await all_of(self._look_up(asked, each, ids) for each in having)
        # A chunk has 100 objects, and supplied vectors may be long.
        return await asyncio.to_thread(_find_in, asked, having, neighbours, stored)

    async def _look_up(self, asked: _Asked, object_: StoredObject, ids: set[UUID]) -> Duplicate | None:
        """Return the stored object that an object duplicates, other than those that are about to be replaced."""
        # Bounds how many stored images are in memory at once.
        async with self._room:
            return await self._find_stored(asked, object_, ids)

    async def _find_stored(self, asked: _Asked, object_: StoredObject, ids: set[UUID]) -> Duplicate | None:
        collection, vector, check, scope = asked
        own = object_.vectors[vector.name]
        # Other distances have no bound that follows from a cosine.
        bound = 1 - _least(check) + MARGIN if vector.distance is Distance.COSINE else None
        spec = SearchSpec(
            TargetVectors({vector.name: own}),
            NEIGHBOURS,
            fields=ReturnFields(vectors=[vector.name]),
            options=SearchOptions(distance=bound),
            scope=scope,
        )
        try:
            hits = await self._store.search(collection.name, spec)
        except TenantNotFound:
            return None  # The write creates the tenant, or fails for the same reason.
        others = [each.object for each in hits if each.object.id not in ids]
        cosines = _cosines([own, *(each.vectors[vector.name] for each in others)])[0, 1:]
        near = [
            Duplicate(each.id, float(cosine), same_content=False)
            for each, cosine in zip(others, cosines, strict=True)
            if cosine >= _least(check)
        ]
        for each in near:
            if each.cosine >= EQUAL_COSINE and await self._same_as_stored(asked, object_, each.id):
                return replace(each, same_content=True)
        return _nearest(check, near)

    async def _same_as_stored(self, asked: _Asked, object_: StoredObject, id_: UUID) -> bool:
        collection, vector, _, scope = asked
        fields = vector_fields(replace(collection, vectors=(vector,)))
        try:
            found = await self._store.get_objects(collection.name, [id_], replace(fields, vectors=()), scope)
        except StoreRejected:
            return False  # Such as stored images that are too large to be read.
        return id_ in found and _same(vector, found[id_], object_)


def check_wanted(collection: Collection, check: DuplicateCheck) -> None:
    """Check that duplicates can be looked for.

    Raises:
        PermissionDenied: the client may not search, and would learn of stored objects by their duplicates.
        InvalidRequest: there is no such named vector, or none is named and there are several.
        CollectionNotBound: the named vector is bound to no space.
    """
    what = "look for duplicates in an import"
    check_permission(calling_account.get().client, frozenset({Permission.SEARCH}), what)
    target_of(collection, check)


def target_of(collection: Collection, check: DuplicateCheck) -> NamedVector:
    """Return the named vector that is compared.

    Raises:
        InvalidRequest: there is no such, or none is named and there are several.
        CollectionNotBound: it is bound to no space.
    """
    path = "duplicates.target_vector"
    if not check.target_vector:
        bound = collection.bound_part.vectors
        if len(bound) == 1:
            return bound[0]
        message = f"is required, because collection {collection.name!r} has {len(bound)} bound named vectors; name one"
        raise InvalidRequest([Violation(path, message, "INVALID_INPUT")])
    found = collection.find_vector(check.target_vector)
    if found is None:
        raise InvalidRequest([unknown_vector(collection, path)])
    if found.space is None:
        raise CollectionNotBound(collection.name, found.name)
    return found


def _find_in(
    asked: _Asked,
    objects: Sequence[StoredObject],
    neighbours: Sequence[Duplicate | None],
    stored: Mapping[UUID, StoredObject],
) -> dict[UUID, Duplicate]:
    """Return which objects duplicate their stored neighbour, or another one that is stored before or stays."""
    vector, check = asked.vector, asked.check
    cosines = _cosines([each.vectors[vector.name] for each in objects])
    found: dict[UUID, Duplicate] = {}
    kept: list[int] = []
    # Those that are stored stay in any case, so others are compared with them, whichever comes first.
    for at in sorted(range(len(objects)), key=lambda each: objects[each].id not in stored):
        object_, neighbour = objects[at], neighbours[at]
        earlier = [
            Duplicate(objects[each].id, float(cosines[at, each]), _same(vector, objects[each], object_))
            for each in kept
            if cosines[at, each] >= _least(check)
        ]
        nearest = _nearest(check, [*earlier, *([neighbour] if neighbour else [])])
        # One that is stored is replaced: an import that is repeated has the same outcomes.
        skipped = nearest is not None and check.action is DuplicateAction.SKIP and object_.id not in stored
        if nearest is not None:
            found[object_.id] = replace(nearest, skipped=skipped)
        if not skipped:
            kept.append(at)
    return found


def _least(check: DuplicateCheck) -> float:
    """Return the least cosine of what may be a duplicate: also of the same input, whatever cosine was asked for."""
    return min(check.min_cosine or EQUAL_COSINE, EQUAL_COSINE)


def _same(vector: NamedVector, one: StoredObject, other: StoredObject) -> bool:
    return has_inputs(vector, one) and same_inputs(vector, one, other)


def _nearest(check: DuplicateCheck, near: Sequence[Duplicate]) -> Duplicate | None:
    """Return the object to name: one with the same content before others, and of these the nearest."""
    least = check.min_cosine - ROUNDING if check.min_cosine else math.inf
    counting = [each for each in near if each.same_content or each.cosine >= least]
    return max(counting, key=lambda each: (each.same_content, each.cosine), default=None)


def _cosines(vectors: Sequence[Vector]) -> NDArray[np.float64]:
    """Return the cosines of all pairs of vectors: float64, shape (vectors, vectors)."""
    rows = np.stack(vectors).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T
