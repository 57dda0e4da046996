"""Binding of a vector that another client made: stored vectors prove which embedder made them, and of which fields.

Some objects are embedded again as the binding would, and compared with their stored vectors. The bounds come from
measurements with the bundled model over 40 objects, each a picture and its title:

- The model against itself: cosine 1.0000 for every object. In another precision, a model stays over 0.999.
- Another model: between -0.09 and 0.09.
- Other weights: 0.9989 at most for a twentieth more of one field, 0.9957 for a tenth, 0.99 for three twentieths. Large
  CLIP models, whose vectors of a picture and its title have a cosine of 0.25, give 0.988 for a tenth.
- Another of the fields: 0.65 at most. One field instead of the mean of both: 0.94 at most.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from itertools import product
from uuid import UUID

import numpy as np

from embedders.contract import EmbedOptions, Vector
from embedders.errors import EmbedderError
from embedders.texts import is_blank
from service.core.collections.changes import VectorDraft, field_faults, joint_faults
from service.core.embedder_pool import EmbedderPool
from service.core.objects.vectorizing import BULK_DOCUMENTS, Candidate, Vectorizer, join, vector_fields
from service.domain import (
    TEXTS,
    Collection,
    Distance,
    NamedVector,
    PropertyValue,
    ReturnFields,
    Scope,
    SearchOptions,
    SearchSpec,
    Space,
    StoredObject,
    TenantActivity,
    WeightedField,
    some_of,
    unknown_vector,
)
from service.errors import (
    BindingUnproven,
    InvalidRequest,
    ObjectNotFound,
    StoreRejected,
    TenantInactive,
    TenantNotFound,
    Violation,
    collecting,
)
from service.store.base import Store

MIN_COSINE = 0.995
"""What counts as the same vector."""

MIN_SHARE = 0.9
"""The share of the compared objects whose vectors must be the same: objects may have been changed without them."""

MIN_COMPARED = 10
"""Fewer objects prove nothing."""

MAX_COMPARED = 40
"""More objects prove nothing else."""

MAX_READ = 1000
"""Objects that are read until enough of them have the vector and its fields."""

MAX_TENANTS = 8
"""Active tenants whose objects are compared, spread over all of them by name."""

CONTRARY = 0.5
"""A lower median says that another model made the vectors, or of something else; nobody's word changes that."""

MAX_LENGTH_ERROR = 0.01
"""By how much stored vectors may differ from unit length where the distance depends on the length."""

PLACES = 8
"""From how many places by id objects are taken, so that the oldest and newest are compared, too."""

PAGE = 5
"""Objects that are read at a place, before it is the next one's turn."""

BATCH = 8
BATCH_BYTES = 16 * 1024 * 1024
"""Objects, and bytes of their texts and pictures, that are embedded at a time."""

MAX_GUESSES = 10
"""Properties that are tried on their own where a proof fails."""

MODULE = "multi2vec-nvidia"
"""The module of a native vector."""

ASKED = ""
"""The name of the vector as the binding would make it, among guesses, which have the names of properties."""

TOGETHER = "+"
"""The name of the guess that all fields are one input; no property has it."""

IF_SURE = "; if you are sure all the same, set without_proof"


@dataclass(frozen=True, slots=True)
class BindingWish:
    """How a caller wants a vector to be bound.

    Attributes:
        draft: the vector's name, empty for the only one of its collection; its fields; the embedder that made it.
        trusted: whether the caller's word counts where stored vectors prove too little.
        replace: whether to replace an earlier binding.
    """

    draft: VectorDraft
    trusted: bool = False
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """How near the vectors that a binding would make come to the stored ones.

    Attributes:
        compared: objects that were compared.
        matching: those whose vectors are the same.
        least: the least cosine; 0 if none was compared.
        median: the median of the cosines; 0 if none was compared.
    """

    compared: int = 0
    matching: int = 0
    least: float = 0.0
    median: float = 0.0

    def __str__(self) -> str:
        if not self.compared:
            return "no stored vector could be compared"
        return (
            f"of {self.compared} stored vectors, {self.matching} are as this embedder makes them (cosine {MIN_COSINE} "
            f"or more; least {self.least:.4f}, median {self.median:.4f})"
        )


@dataclass(frozen=True, slots=True)
class _Compared:
    """An object's stored vector, and what is made of its fields now, by guess."""

    filled: frozenset[str]
    stored: Vector
    made: Mapping[str, Vector]

    def cosine(self, guess: str = ASKED) -> float:
        return _cosine(self.stored, self.made[guess])


def bound_vector(collection: Collection, wish: BindingWish) -> NamedVector:
    """Return the vector of a collection that is to be bound, with the fields and the space that it is to have.

    Raises:
        InvalidRequest: it cannot be bound so; all violations are listed.
    """
    wanted = wish.draft.vector
    name = wanted.name or (collection.vectors[0].name if len(collection.vectors) == 1 else "")
    present = collection.find_vector(name)
    if present is None:
        rule = "has no such vector; it has" if wanted.name else "has several vectors, or none; name one of"
        raise InvalidRequest([unknown_vector(collection, "vector.name", rule)])
    bound = replace(
        present,
        space=wanted.space,
        image_fields=wanted.image_fields,
        text_fields=wanted.text_fields,
        joint=wanted.joint,
        weighted=wanted.weighted,
    )
    with collecting() as violations:
        violations.extend(field_faults(collection, bound, "vector"))
        violations.extend(joint_faults(bound, "vector"))
        if (fault := _fault(present, bound, wish)) is not None:
            violations.add("vector.name", f"{name!r} {fault}")
    return bound


def _fault(present: NamedVector, bound: NamedVector, wish: BindingWish) -> str | None:
    """Return why a vector cannot be bound, or None."""
    module = MODULE if present.native else present.module
    if module:
        return f"is filled by Weaviate's module {module}; only vectors that clients supply can be bound"
    if present.multi:
        return "has several vectors for an object, which Vecgate does not make; choose another vector"
    if present.space is None or bound == present:
        return None
    if not present.binding:
        return f"is bound to the space {present.space.id!r} for good; add a named vector instead"
    if not wish.replace:
        return f"is bound already, to the space {present.space.id!r}; to bind it differently, set replace"
    return None


class Prover:
    """Compares stored vectors with those that a binding would make."""

    def __init__(self, store: Store, embedders: EmbedderPool) -> None:
        self._store = store
        self._embedders = embedders
        self._vectorizer = Vectorizer(embedders)

    async def prove(
        self, collection: Collection, vector: NamedVector, *, trusted: bool, api_key: str | None = None
    ) -> Proof:
        """Return how near the vectors that a binding would make come to the stored ones.

        Args:
            collection: the collection.
            vector: the vector with the space and the fields that it would have.
            trusted: whether the caller's word counts where there is too little to compare, or where vectors differ a
                little.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            InvalidRequest: the stored vectors do not have the embedder's dimension.
            BindingUnproven: the stored vectors do not prove the binding, or they disprove it.
            EmbedderError: the embedder failed.
            StoreUnavailable: the store failed.
        """
        options = replace(BULK_DOCUMENTS, api_key=api_key)
        compared = await self._compare(collection, vector, (), MAX_COMPARED, options)
        cosines = [each.cosine() for each in compared]
        same = sum(_same(each, vector.distance) for each in compared)
        proof = Proof(len(compared), same, min(cosines, default=0.0), float(np.median(cosines)) if cosines else 0.0)
        if compared and proof.median < CONTRARY:
            hint = await self._hint(collection, vector, options)
            raise _unproven(vector, proof, hint or "another model made them, or it made them of other texts or images")
        if trusted:
            return proof
        if same < MIN_SHARE * len(compared):
            hint = _length_hint(compared, vector) or await self._hint(collection, vector, options)
            if proof.median >= MIN_COSINE:
                hint = hint or "the others were changed without their vectors, or another model made them"
            raise _unproven(vector, proof, f"{hint or 'the fields or their weights differ'}{IF_SURE}")
        if len(compared) < MIN_COMPARED:
            reason = f"a proof needs {MIN_COMPARED} objects with this vector and its fields"
            raise _unproven(vector, proof, f"{reason}{IF_SURE}")
        if (unseen := _unseen(compared, vector)) is not None:
            raise _unproven(vector, proof, f"{unseen}{IF_SURE}")
        return proof

    async def _compare(
        self,
        collection: Collection,
        vector: NamedVector,
        guesses: Sequence[NamedVector],
        most: int,
        options: EmbedOptions,
    ) -> list[_Compared]:
        """Return objects with what is made of them, as the binding would and by guesses."""
        trial = replace(collection, vectors=(replace(vector, name=ASKED), *guesses))
        found: list[_Compared] = []
        async with aclosing(self._batches(trial, vector)) as batches:
            async for batch in batches:
                chunk = [Candidate(f"objects[{each.id}]", replace(each, vectors={})) for each in batch]
                await self._vectorizer.fill(trial, chunk, options, truncate=True, stored={}, used={}, partly=True)
                found += [
                    _Compared(_filled(each), each.vectors[vector.name], candidate.object.vectors)
                    for each, candidate in zip(batch, chunk, strict=True)
                    if ASKED in candidate.object.vectors
                ]
                if len(found) >= most:
                    break
        return found[:most]

    async def _batches(self, collection: Collection, vector: NamedVector) -> AsyncGenerator[list[StoredObject]]:
        """Yield stored objects with the fields of the collection's vectors and a stored one, a few at a time.

        Raises:
            InvalidRequest: a stored vector does not have the dimension of the space.
        """
        fields = replace(vector_fields(collection), vectors=[])
        batch: list[StoredObject] = []
        size = 0
        async with aclosing(self._sample(collection, vector)) as sample:
            async for scope, listed in sample:
                _check_dimension(vector, listed.vectors[vector.name])
                if not (fields.properties or fields.images):
                    return
                try:
                    # One by one, because the images of several objects could be too large for one answer.
                    read = await self._store.get_object(collection.name, listed.id, fields, scope)
                except (ObjectNotFound, StoreRejected):
                    continue
                if not _filled(read):
                    continue
                batch.append(replace(read, vectors=listed.vectors))
                size += _size(read)
                if len(batch) == BATCH or size > BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    async def _sample(self, collection: Collection, vector: NamedVector) -> AsyncGenerator[tuple[Scope, StoredObject]]:
        """Yield objects that have a vector, from places that are spread over ids and active tenants."""
        starts = [None, *(UUID(int=place << 125) for place in range(1, PLACES))]
        cursors = [(scope, start) for start, scope in product(starts, await self._scopes(collection))]
        fields = ReturnFields(vectors=[vector.name])
        seen: set[tuple[str, UUID]] = set()
        read = 0
        while cursors and read < MAX_READ:
            scope, after = cursors.pop(0)
            spec = SearchSpec(limit=PAGE, fields=fields, options=SearchOptions(after=after), scope=scope)
            try:
                page = [hit.object for hit in await self._store.search(collection.name, spec)]
            except (TenantInactive, TenantNotFound):
                continue
            read += len(page)
            if len(page) == PAGE:
                cursors.append((scope, page[-1].id))
            for each in page:
                if (scope.tenant, each.id) not in seen and vector.name in each.vectors:
                    seen.add((scope.tenant, each.id))
                    yield scope, each

    async def _scopes(self, collection: Collection) -> list[Scope]:
        if collection.multi_tenancy is None:
            return [Scope()]
        found = await self._store.list_tenants(collection.name)
        active = [each.name for each in found if each.activity is TenantActivity.ACTIVE]
        return [Scope(name) for name in active[:: max(1, len(active) // MAX_TENANTS)][:MAX_TENANTS]]

    async def _hint(self, collection: Collection, vector: NamedVector, options: EmbedOptions) -> str:
        """Return what the stored vectors are made of, by this embedder or another one; or nothing."""
        fields = [each.name for each in (*vector.text_fields, *vector.image_fields)]
        texts = [each.name for each in collection.properties if each.data_type in TEXTS]
        images = [name for name in collection.blobs if name not in collection.hashes]
        names = list(dict.fromkeys([*fields, *texts, *images]))[:MAX_GUESSES]
        guesses = [_alone(vector, name, image=name in collection.blobs) for name in names]
        if not vector.joint and vector.text_fields and len(vector.image_fields) == 1:
            guesses.append(replace(vector, name=TOGETHER, joint=True))
        compared = await self._compare(collection, vector, guesses, MIN_COMPARED, options)
        for name in (*names, TOGETHER):
            cosines = [each.cosine(name) for each in compared if name in each.made]
            if fields != [name] and len(cosines) > len(compared) / 2 and np.median(cosines) >= MIN_COSINE:
                how = "the fields as one input" if name == TOGETHER else f"{name!r} alone"
                return f"they are as it makes them of {how}"
        whole = [
            (each.stored, [each.made[name] for name in fields]) for each in compared if each.made.keys() > {*fields}
        ]
        if len(fields) > 1 and (weights := fitted_weights(whole)) is not None:
            listed = ", ".join(f"{name}={weight:.2f}" for name, weight in zip(fields, weights, strict=True))
            return f"they are as it makes them of each field by itself with the weights {listed}"
        # A caller's own key is for the embedder that they named.
        return await self._maker(collection, vector, replace(options, api_key=None))

    async def _maker(self, collection: Collection, vector: NamedVector, options: EmbedOptions) -> str:
        """Return which other embedder of the server the stored vectors are from, or nothing."""
        for each in self._embedders.all:
            spec = each.spec
            if vector.space is None or spec.space == vector.space.id or spec.dimension != vector.space.dimension:
                continue
            other = replace(vector, space=Space(spec.space, spec.dimension, spec.model))
            with suppress(EmbedderError):
                compared = await self._compare(collection, other, (), MIN_COMPARED, options)
                if compared and np.median([one.cosine() for one in compared]) >= MIN_COSINE:
                    return f"they are as the embedder {spec.name} makes them"
        return ""


def fitted_weights(objects: Sequence[tuple[Vector, Sequence[Vector]]]) -> list[float] | None:
    """Return with which weights the vectors of some objects' fields give the objects' vectors; None if with none.

    Args:
        objects: for each an own vector, and one of each field, float32 of shape (dimension,) each.

    Returns:
        A weight for each field, with a sum of 1.
    """
    shares = []
    for stored, made in objects:
        solved = np.linalg.lstsq(np.asarray(made, np.float64).T, stored.astype(np.float64), rcond=None)[0]
        if (positive := np.clip(solved, 0, None)).any():
            shares.append(positive / positive.sum())
    if not shares:
        return None
    weights = np.median(shares, axis=0)
    if not weights.any():
        return None
    joined = [(stored, join(made, list(weights))) for stored, made in objects]
    cosines = [0.0 if vector is None else _cosine(stored, vector) for stored, vector in joined]
    return list(weights / weights.sum()) if np.median(cosines) >= MIN_COSINE else None


def _unproven(vector: NamedVector, proof: Proof, reason: str) -> BindingUnproven:
    assert vector.space is not None, "it has the space that it would be bound to"
    numbers = {name: getattr(proof, name) for name in ("compared", "matching")}
    cosines = {f"{name}_cosine": f"{getattr(proof, name):.4f}" for name in ("least", "median")}
    message = f"vector {vector.name!r} is not bound to the space {vector.space.id!r}: {proof}; {reason}"
    return BindingUnproven(message, {name: str(value) for name, value in {**numbers, **cosines}.items()})


def _check_dimension(vector: NamedVector, stored: Vector) -> None:
    assert vector.space is not None, "it has the space that it would be bound to"
    if stored.shape != (vector.space.dimension,):
        message = (
            f"makes vectors of {vector.space.dimension} values, and the stored ones of vector {vector.name!r} have "
            f"{stored.size}; name the embedder that made them"
        )
        raise InvalidRequest([Violation("vector.embedder", message, "INVALID_VECTOR")])


def _cosine(one: Vector, other: Vector) -> float:
    """Return the cosine of two vectors; 0 where one has no direction."""
    wide, others = one.astype(np.float64), other.astype(np.float64)
    length = float(np.linalg.norm(wide) * np.linalg.norm(others))
    return float(wide @ others) / length if length else 0.0


def _same(each: _Compared, distance: Distance | None) -> bool:
    return each.cosine() >= MIN_COSINE and (distance is Distance.COSINE or _has_unit_length(each))


def _has_unit_length(each: _Compared) -> bool:
    return abs(float(np.linalg.norm(each.stored.astype(np.float64))) - 1) <= MAX_LENGTH_ERROR


def _length_hint(compared: Sequence[_Compared], vector: NamedVector) -> str:
    if vector.distance is Distance.COSINE or all(_has_unit_length(each) for each in compared):
        return ""
    name = "its distance" if vector.distance is None else f"the distance {vector.distance.value}"
    return f"stored vectors do not have the length 1 as Vecgate's do, and {name} depends on the length"


def _unseen(compared: Sequence[_Compared], vector: NamedVector) -> str | None:
    """Return what the compared objects prove nothing about: a field that none has, or weights where none has two."""
    names = [each.name for each in (*vector.text_fields, *vector.image_fields)]
    absent = [name for name in names if not any(name in each.filled for each in compared)]
    if absent:
        return f"none of these objects has {some_of(absent)}"
    if len(names) > 1 and not any(len(each.filled) > 1 for each in compared):
        return "none of these objects has several of the fields, so their weights are not proven"
    return None


def _filled(object_: StoredObject) -> frozenset[str]:
    """Return which properties and images of an object hold something to embed."""
    worded = {name for name, value in object_.properties.items() if _holds_words(value)}
    return frozenset(worded | object_.images.keys())


def _holds_words(value: PropertyValue) -> bool:
    return any(isinstance(each, str) and not is_blank(each) for each in (value if isinstance(value, list) else [value]))


def _size(object_: StoredObject) -> int:
    return sum(map(len, object_.images.values())) + sum(len(str(value)) for value in object_.properties.values())


def _alone(vector: NamedVector, name: str, *, image: bool) -> NamedVector:
    """Return a vector that is made of one property alone, and has the property's name."""
    field = (WeightedField(name),)
    images, texts = (field, ()) if image else ((), field)
    return replace(vector, name=name, image_fields=images, text_fields=texts, joint=False)
