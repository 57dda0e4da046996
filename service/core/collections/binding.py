"""Binding of a vector that another client made: stored vectors prove which embedder made them, and of which fields.

Some objects are embedded again as the binding would, and compared with their stored vectors. The bounds come from
measurements with the bundled model over 40 objects, each a picture and its title:

- The model against itself: cosine 1.0000 for every object. In another precision, a model stays over 0.999.
- Another model: between -0.09 and 0.09.
- Other weights: 0.9989 at most for a twentieth more of one field, 0.9957 for a tenth, 0.99 for three twentieths. Large
  CLIP models, whose vectors of a picture and its title have a cosine of 0.25, give 0.988 for a tenth.
- Another of the fields: 0.65 at most. One field instead of the mean of both: 0.94 at most.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

import numpy as np

from embedders.contract import EmbedOptions, Vector
from embedders.errors import EmbedderError
from service.core.collections.changes import VectorDraft, field_faults, joint_faults
from service.core.collections.sampling import Sample, filled
from service.core.embedder_pool import EmbedderPool
from service.core.objects.vectorizing import BULK_DOCUMENTS, Candidate, Vectorizer, join, vector_fields
from service.domain import Collection, Distance, NamedVector, Space, unknown_vector
from service.errors import BindingUnproven, InvalidRequest, Violation, collecting
from service.store.base import Store

MIN_COSINE = 0.995
"""What counts as the same vector."""

MIN_SHARE = 0.9
"""The share of the compared objects whose vectors must be the same: objects may have been changed without them."""

MIN_COMPARED = 10
"""Fewer objects prove nothing."""

MIN_SHOWN = 3
"""Fewer objects with a field prove nothing of the field, and fewer with several of them nothing of the weights."""

MAX_COMPARED = 40
"""More objects prove nothing else."""

CONTRARY = 0.5
"""A lower median says that another model made the vectors, or of something else; nobody's word changes that."""

MAX_LENGTH_ERROR = 0.01
"""By how much stored vectors may differ from unit length where the distance depends on the length."""

MODULE = "multi2vec-nvidia"
"""The module of a native vector."""

ASKED = ""
"""The name of the vector as the binding would make it, among guesses, which have the names of properties."""

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
        zeros: stored vectors of zeros, which have no direction and were left out.
    """

    compared: int = 0
    matching: int = 0
    least: float = 0.0
    median: float = 0.0
    zeros: int = 0

    def __str__(self) -> str:
        zeros = f" ({self.zeros} of zeros were left out)" if self.zeros else ""
        if not self.compared:
            return f"no stored vector could be compared{zeros}"
        return (
            f"of {self.compared} stored vectors{zeros}, {self.matching} are as this embedder makes them (cosine "
            f"{MIN_COSINE} or more; least {self.least:.4f}, median {self.median:.4f})"
        )


@dataclass(frozen=True, slots=True)
class _Compared:
    """An object's stored vector, and what is made of its fields now, by guess."""

    filled: frozenset[str]
    stored: Vector
    made: Mapping[str, Vector]

    def cosine(self) -> float:
        return _cosine(self.stored, self.made[ASKED])


@dataclass(frozen=True, slots=True)
class _Group:
    """Those of the compared objects that prove one thing, how many of them it needs, and how many match."""

    kind: str
    needed: int
    size: int
    matching: int

    @property
    def differs(self) -> bool:
        return self.matching < MIN_SHARE * self.size


def bound_vector(collection: Collection, wish: BindingWish) -> NamedVector:
    """Return the vector of a collection that is to be bound, with the fields and the space that it is to have.

    It is the present one if that is bound so already, in other words.

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
    if _means(present) == _means(bound):
        bound = present
    with collecting() as violations:
        violations.extend(field_faults(collection, bound, "vector"))
        violations.extend(joint_faults(bound, "vector"))
        if (fault := _fault(present, bound, wish)) is not None:
            violations.add("vector.name", f"{name!r} {fault}")
    return bound


def _means(vector: NamedVector) -> tuple[object, ...]:
    """Return what a binding says of how vectors are made, alike for those that make the same vectors."""
    kinds = (vector.text_fields, vector.image_fields)
    if vector.joint:
        return vector.space_id, True, *(tuple(each.name for each in fields) for fields in kinds)
    whole = sum(each.weight for fields in kinds for each in fields)
    return vector.space_id, False, *({each.name: round(each.weight / whole, 6) for each in fields} for fields in kinds)


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
        if (first := await Sample(self._store, collection, vector.name, MAX_COMPARED).first()) is not None:
            _check_dimension(vector, first.vectors[vector.name])
        compared, zeros = await self._compare(collection, vector, options)
        proof = _proof(compared, zeros, vector.distance)
        if compared and proof.median < CONTRARY:
            hint = await self._hint(collection, vector, options)
            raise _unproven(vector, proof, hint or "another model made them, or it made them of other texts or images")
        if trusted:
            return proof
        groups = _groups(compared, vector)
        if (differing := next((each for each in groups if each.differs), None)) is not None:
            hint = _length_hint(compared, vector) or await self._hint(collection, vector, options)
            if proof.median >= MIN_COSINE and differing is groups[0]:
                hint = hint or "the others were changed without their vectors, or another model made them"
            which = f"of the {differing.size} {differing.kind}, {differing.matching} are; "
            reason = f"{'' if differing is groups[0] else which}{hint or 'the fields or their weights differ'}"
            raise _unproven(vector, proof, f"{reason}{IF_SURE}")
        if (small := next((each for each in groups if each.size < each.needed), None)) is not None:
            reason = f"a proof needs {small.needed} objects {small.kind}, and has {small.size}"
            raise _unproven(vector, proof, f"{reason}{IF_SURE}")
        return proof

    async def _compare(
        self, collection: Collection, vector: NamedVector, options: EmbedOptions, most: int = MAX_COMPARED
    ) -> tuple[list[_Compared], int]:
        """Return objects with what is made of them, and how many were left out because their vector is of zeros."""
        trial = replace(collection, vectors=(replace(vector, name=ASKED),))
        return await self._make(trial, vector, options, most)

    async def _make(
        self,
        trial: Collection,
        vector: NamedVector,
        options: EmbedOptions,
        most: int,
        needed: frozenset[str] = frozenset(),
    ) -> tuple[list[_Compared], int]:
        """Return objects that have all the needed fields, with their vectors as the trial's vectors make them."""
        fields = replace(vector_fields(trial), vectors=[])
        if not (fields.properties or fields.images):
            return [], 0
        found: list[_Compared] = []
        sample = Sample(self._store, trial, vector.name, most)
        async with aclosing(sample.batches(fields, needed)) as batches:
            async for batch in batches:
                chunk = [Candidate(f"objects[{each.id}]", replace(each, vectors={})) for each in batch]
                await self._vectorizer.fill(trial, chunk, options, truncate=True, stored={}, used={}, partly=True)
                found += [
                    _Compared(filled(each), each.vectors[vector.name], candidate.object.vectors)
                    for each, candidate in zip(batch, chunk, strict=True)
                    if len(candidate.object.vectors) == len(trial.vectors)
                ]
                if len(found) >= most:
                    break
        return found[:most], sample.zeros

    async def _hint(self, collection: Collection, vector: NamedVector, options: EmbedOptions) -> str:
        """Return with which weights, or by which other embedder, the stored vectors are made; or nothing."""
        fields = vector.field_names
        if len(fields) > 1:
            trial = replace(collection, vectors=tuple(_alone(vector)))
            compared, _ = await self._make(trial, vector, options, MIN_COMPARED, frozenset(fields))
            whole = [(each.stored, [each.made[name] for name in fields]) for each in compared]
            if (weights := fitted_weights(whole)) is not None:
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
                compared, _ = await self._compare(collection, other, options, MIN_COMPARED)
                if compared and np.median([one.cosine() for one in compared]) >= MIN_COSINE:
                    return f"they are as the embedder {spec.name} makes them"
        return ""


def _proof(compared: Sequence[_Compared], zeros: int, distance: Distance | None) -> Proof:
    cosines = [each.cosine() for each in compared] or [0.0]
    matching = sum(_same(each, distance) for each in compared)
    return Proof(len(compared), matching, min(cosines), float(np.median(cosines)), zeros)


def _groups(compared: Sequence[_Compared], vector: NamedVector) -> list[_Group]:
    """Return all compared objects, those with each field, and those with several, where there are several fields.

    Objects with the rest of the fields would otherwise hide that none was made of this one.
    """
    names = vector.field_names
    groups = [("with this vector and its fields", MIN_COMPARED, list(compared))]
    if len(names) > 1:
        groups += [(f"with {name!r}", MIN_SHOWN, [each for each in compared if name in each.filled]) for name in names]
        several = [each for each in compared if len(each.filled) > 1]
        groups.append(("with several of the fields", MIN_SHOWN, several))
    return [
        _Group(kind, needed, len(objects), sum(_same(each, vector.distance) for each in objects))
        for kind, needed, objects in groups
    ]


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
    numbers = {name: getattr(proof, name) for name in ("compared", "matching", "zeros")}
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


def _alone(vector: NamedVector) -> Iterator[NamedVector]:
    """Yield for each field of a vector one that is made of it alone, and has its name."""
    for each in vector.text_fields:
        yield replace(vector, name=each.name, text_fields=(each,), image_fields=(), joint=False)
    for each in vector.image_fields:
        yield replace(vector, name=each.name, text_fields=(), image_fields=(each,), joint=False)
