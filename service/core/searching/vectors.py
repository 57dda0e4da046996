"""A query as a vector of the space that a named vector is bound to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import numpy as np

from embedders.contract import QUERY, EmbedderSpec, Embedding, ImageInput, Input, TextImageInput, TextInput, Vector
from embedders.errors import InputRejected
from embedders.texts import check_text
from service.core.embedder_pool import EmbedderPool
from service.core.objects.checks import parse_vector
from service.core.objects.vectorizing import LEAST_NORM, join
from service.domain import Collection, Move, NamedVector, Near, OwnVector, Part, ReturnFields, Scope
from service.errors import (
    InvalidRequest,
    ObjectNotFound,
    SpaceMismatch,
    Violation,
    Violations,
    collecting,
    noting,
    pair_rejection,
    rejection,
)
from service.store.base import Store

OwnVectors = Mapping[tuple[str, str], Vector]
"""Vectors that a caller supplies, checked, by the named vector that is searched and by the path of the part."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched, and with whose key.

    Attributes:
        collection: what is searched.
        scope: tenant and consistency.
        api_key: the caller's key for the NIMs of the call; None for this server's.
        key_taken: whether the reranker of the call takes the key, so that embedders need not.
        own: the caller's own vectors as far as they are checked.
    """

    collection: Collection
    scope: Scope
    api_key: str | None = None
    key_taken: bool = False
    own: OwnVectors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A query as a vector of the space of a named vector, and its embedder; None where nothing was embedded."""

    target: NamedVector
    vector: Vector
    embedder: EmbedderSpec | None


class QueryVectors:
    """Makes vectors of queries.

    Every method raises:
        InvalidRequest: an input cannot be embedded, a vector does not fit, or the vectors cancel each other out.
        ObjectNotFound: the collection has no such object.
        CollectionNotBound: the named vector is bound to no space.
        SpaceMismatch: the named vector is bound to a space that the query cannot come from.
        EmbedderError: the embedder failed.
        StoreUnavailable: the store failed.
    """

    def __init__(self, store: Store, embedders: EmbedderPool) -> None:
        self._store = store
        self._embedders = embedders

    def check_vectors(self, targets: Sequence[NamedVector], near: Near, violations: Violations) -> OwnVectors:
        """Return the caller's own vectors, and note which do not fit some named vectors.

        Those of another space are left out.
        """
        checked: dict[tuple[str, str], Vector] = {}
        for part in near.parts:
            if isinstance(own := part.content, OwnVector):
                for target in targets:
                    if not _differs(target, own):
                        with noting(violations):
                            checked[target.name, part.path] = _parse(target, own)
        return checked

    def check_texts(self, near: Near, violations: Violations) -> None:
        """Note which texts cannot be embedded, without embedding them."""
        limits = self._embedders.default.spec.limits
        for part in _all_parts(near):
            if isinstance(part.content, TextInput | TextImageInput):
                try:
                    check_text(part.content.text, limits, truncate=part.content.truncate)
                except InputRejected as error:
                    violations.extend(_rejection(part.content, error, part.path).violations)

    def take_keys(self, targets: Sequence[NamedVector], near: Near) -> bool:
        """Return whether a query is embedded by an embedder that takes callers' keys."""
        embedded = any(isinstance(each.content, TextInput | ImageInput | TextImageInput) for each in _all_parts(near))
        spaces = [each.space.id for each in targets if each.space is not None]
        return embedded and any(each.spec.caller_keys for space in spaces for each in self._embedders.of_space(space))

    async def make(self, asked: Asked, target: NamedVector, near: Near) -> QueryVector:
        """Return a query as a vector."""
        spec, vectors = await self.resolve(asked, target, _all_parts(near))
        parts = [vectors[each.path] for each in near.parts]
        joined: Vector | None
        if len(parts) == 1 and not (near.moves or near.scaled):
            joined = parts[0]
        elif near.scaled:
            _check_lengths(parts, near.path)
            joined = join([_scaled(each) for each in parts], [each.weight for each in near.parts])
        elif near.moves or target.native:
            moved = _mean(parts)
            for move in near.moves:
                moved = moved + move.share * (_goal(move, vectors, parts) - moved)
            joined = _directed(moved, scaled=not target.native)
        else:
            joined = join(parts, [1.0] * len(parts))
        if joined is None:
            message = "the vectors cancel each other out; change the inputs or weights, or search one by one"
            raise InvalidRequest([Violation(near.path, message, "INVALID_VECTOR")])
        return QueryVector(target, joined, spec)

    async def of_objects(
        self, asked: Asked, targets: Sequence[NamedVector], ids: Mapping[str, UUID]
    ) -> dict[str, Mapping[str, Vector]]:
        """Return the vectors of objects of the collection, by named vector, after one read.

        Args:
            asked: which collection.
            targets: the named vectors, which each object must have.
            ids: the objects, each by its path in the request.
        """
        names = [each.name for each in targets]
        wanted = list(dict.fromkeys(ids.values()))
        fields = ReturnFields(vectors=names)
        found = await self._store.get_objects(asked.collection.name, wanted, fields, asked.scope)
        for id_ in wanted:
            if id_ not in found:
                raise ObjectNotFound(str(id_))
        with collecting() as violations:
            for path, id_ in ids.items():
                for name in names:
                    if name not in found[id_].vectors:
                        message = f"object {id_} has no vector {name!r}; choose another object or target vector"
                        violations.append(Violation(path, message, "UNKNOWN_VECTOR"))
        return {path: found[id_].vectors for path, id_ in ids.items()}

    async def resolve(
        self, asked: Asked, target: NamedVector, parts: Sequence[Part]
    ) -> tuple[EmbedderSpec | None, dict[str, Vector]]:
        """Return the vectors of parts by their paths, and the embedder of those that are embedded, in one call.

        The embedder is None where nothing was embedded.
        """
        vectors: dict[str, Vector] = {}
        inputs: dict[str, Input] = {}
        ids: dict[str, UUID] = {}
        for part in parts:
            match part.content:
                case OwnVector():
                    known = asked.own.get((target.name, part.path))
                    vectors[part.path] = _own_vector(target, part.content) if known is None else known
                case UUID():
                    ids[part.path] = part.content
                case TextInput() | ImageInput() | TextImageInput():
                    inputs[part.path] = part.content
        if ids:
            objects = await self.of_objects(asked, [target], ids)
            vectors |= {path: each[target.name] for path, each in objects.items()}
        if not inputs:
            return None, vectors
        spec, embedded = await self._embed(asked, target, inputs)
        return spec, vectors | embedded

    async def _embed(
        self, asked: Asked, target: NamedVector, inputs: Mapping[str, Input]
    ) -> tuple[EmbedderSpec, dict[str, Vector]]:
        embedders = self._embedders.for_vector(asked.collection.name, target)
        options = QUERY if asked.api_key is None else replace(QUERY, api_key=asked.api_key)
        embedder, outcomes = await self._embedders.embed_with_first(
            embedders, list(inputs.values()), options, key_taken=asked.key_taken
        )
        rows = dict(zip(inputs, outcomes, strict=True))
        with collecting() as violations:
            for path, row in rows.items():
                if isinstance(row, InputRejected):
                    violations.extend(_rejection(inputs[path], row, path).violations)
        return embedder.spec, {path: row.vector for path, row in rows.items() if isinstance(row, Embedding)}


def _rejection(refused: Input, error: InputRejected, path: str) -> InvalidRequest:
    return pair_rejection(error, path) if isinstance(refused, TextImageInput) else rejection(error, path)


def _all_parts(near: Near) -> list[Part]:
    """Return the parts, and those of the moves."""
    return [*near.parts, *(part for move in near.moves for part in move.parts)]


def _own_vector(target: NamedVector, own: OwnVector) -> Vector:
    if _differs(target, own) and target.space is not None:
        raise SpaceMismatch(
            vector=target.name,
            bound=target.space.id,
            given=own.space,
            bound_dimension=target.space.dimension,
            given_dimension=len(own.data) // 4,
        )
    return _parse(target, own)


def _differs(target: NamedVector, own: OwnVector) -> bool:
    """Return whether a vector comes from another space than the target's, as its caller says."""
    return bool(own.space) and target.space is not None and own.space != target.space.id


def _parse(target: NamedVector, own: OwnVector) -> Vector:
    dimension = (target.space.dimension or None) if target.space else None
    own = own.by_target.get(target.name, own)
    return parse_vector(own.data, dimension, own.path)


def _goal(move: Move, vectors: Mapping[str, Vector], moved: Sequence[Vector]) -> Vector:
    texts = [vectors[each.path] for each in move.parts if isinstance(each.content, TextInput)]
    objects = [vectors[each.path] for each in move.parts if isinstance(each.content, UUID)]
    _check_lengths([*moved, *texts, *objects], move.path)
    # All texts together count as much as one object, as in Weaviate.
    return _mean([*([_mean(texts)] if texts else []), *objects])


def _check_lengths(vectors: Sequence[Vector], path: str) -> None:
    # The dimensions of adopted collections are not known beforehand.
    lengths = sorted({len(each) for each in vectors})
    if len(lengths) > 1:
        message = (
            f"the vectors have {' and '.join(map(str, lengths))} values; vectors of one space have the same number"
        )
        raise InvalidRequest([Violation(path, message, "INVALID_VECTOR")])


def _mean(vectors: Sequence[Vector]) -> Vector:
    # Not scaled: Weaviate moves plain means, and scaling would change the direction of the result.
    mean: Vector = np.mean(np.asarray(vectors, np.float64), axis=0)
    return mean


def _scaled(vector: Vector) -> Vector:
    wide = vector.astype(np.float64)
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def _directed(vector: Vector, *, scaled: bool) -> Vector | None:
    """Return a vector as float32, scaled to unit length if asked for; None if it is too short to have a direction."""
    if np.linalg.norm(vector) <= LEAST_NORM:
        return None
    return _scaled(vector) if scaled else vector.astype(np.float32)
