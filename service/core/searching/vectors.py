"""A query as a vector of the space that a named vector is bound to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from uuid import UUID

import numpy as np

from embedders.contract import QUERY, EmbedderSpec, Embedding, ImageInput, Input, TextInput, Vector
from embedders.errors import InputRejected
from embedders.texts import check_text
from service.core.embedder_pool import EmbedderPool
from service.core.objects.checks import parse_vector
from service.core.objects.joining import LEAST_NORM, join
from service.core.searching.queries import Move, NearImage, NearInputs, NearObject, NearText, NearVector, Query
from service.core.searching.sources import Source, vector_source
from service.domain import Collection, Keywords, NamedVector, ReturnFields, Scope
from service.errors import InvalidRequest, ObjectNotFound, SpaceMismatch, Violation, collecting, noting, rejection
from service.store.base import Store


@dataclass(frozen=True, slots=True)
class Asked:
    """Where a query is asked, and with whose key for the embedder's backend; None for this server's."""

    collection: Collection
    scope: Scope
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A query as a vector of the space of a named vector, and its embedder; None where nothing was embedded."""

    target: NamedVector
    vector: Vector
    embedder: EmbedderSpec | None


class QueryVectors:
    """Makes vectors of queries.

    Every method raises:
        InvalidRequest: an input cannot be embedded, a vector does not fit, or there is no direction left.
        ObjectNotFound: the collection has no such object.
        CollectionNotBound: the named vector is bound to no space.
        SpaceMismatch: the named vector is bound to a space that the query cannot come from.
        EmbedderError: the embedder failed.
        StoreUnavailable: the store failed.
    """

    def __init__(self, store: Store, embedders: EmbedderPool) -> None:
        self._store = store
        self._embedders = embedders

    def check_vectors(self, targets: Sequence[NamedVector], query: Query) -> None:
        """Check the caller's own vectors for some named vectors.

        Raises:
            InvalidRequest: a vector cannot be; all violations are listed.
        """
        with collecting() as violations:
            for target, (path, content) in product(targets, _contents(query)):
                if isinstance(content, NearVector) and not _differs(target, content):
                    with noting(violations):
                        _parse(target, content, path)

    def check_texts(self, query: Query) -> None:
        """Check texts for what can be said of them without embedding them.

        Raises:
            InvalidRequest: a text cannot be embedded; all violations are listed.
        """
        limits = self._embedders.default.spec.limits
        with collecting() as violations:
            for path, content in _contents(query):
                if isinstance(content, TextInput):
                    try:
                        check_text(content.text, limits, truncate=content.truncate)
                    except InputRejected as error:
                        violations.extend(rejection(error, path).violations)

    async def make(self, asked: Asked, target: NamedVector, source: Source) -> QueryVector:
        """Return a query as a vector."""
        spec, vector = await self._make(asked, target, source)
        return QueryVector(target, vector, spec)

    async def _make(self, asked: Asked, target: NamedVector, source: Source) -> tuple[EmbedderSpec | None, Vector]:
        match source.near:
            case NearVector():
                return None, _own_vector(target, source.near, source.path)
            case NearImage(content):
                path = f"{source.path}.image.content"
                spec, vectors = await self._embed(asked, target, {path: ImageInput(content)})
                return spec, vectors[path]
            case NearText():
                return await self._of_texts(asked, target, source.near, source)
            case NearInputs():
                return await self._of_inputs(asked, target, source.near, source.path)

    async def of_object(self, asked: Asked, targets: Sequence[NamedVector], id_: UUID, path: str) -> dict[str, Vector]:
        """Return vectors of an object of the collection."""
        names = [each.name for each in targets]
        fields = ReturnFields(vectors=names)
        found = await self._store.get_object(asked.collection.name, id_, fields, asked.scope)
        for name in names:
            if name not in found.vectors:
                raise InvalidRequest([_without_vector(id_, name, path)])
        return {name: found.vectors[name] for name in names}

    async def _of_texts(
        self, asked: Asked, target: NamedVector, near: NearText, source: Source
    ) -> tuple[EmbedderSpec | None, Vector]:
        paths = source.text_paths(len(near.concepts))
        moves = {f"{source.path}.{name}": each for name, each in near.moves()}
        texts = dict(zip(paths, near.concepts, strict=True))
        for path, move in moves.items():
            texts.update((f"{path}.concepts[{index}]", each) for index, each in enumerate(move.concepts))
        inputs = {path: TextInput(text, near.truncate) for path, text in texts.items()}
        spec, vectors = await self._embed(asked, target, inputs)
        of_concepts = [vectors[path] for path in paths]
        if moves or target.native:
            moved = _mean(of_concepts)
            for path, move in moves.items():
                goal = await self._goal(asked, target, move, path, vectors)
                share = move.force / 2 if path.endswith("move_to") else -move.force / 2
                moved = moved + share * (goal - moved)
            joined = _directed(moved, scaled=not target.native)
        else:
            joined = join(of_concepts, [1.0] * len(of_concepts))
        if joined is None:
            message = "the vectors of these texts cancel each other out; search for them one by one"
            raise InvalidRequest([Violation(f"{source.path}.concepts", message, "INVALID_VECTOR")])
        return spec, joined

    async def _goal(
        self, asked: Asked, target: NamedVector, move: Move, path: str, vectors: Mapping[str, Vector]
    ) -> Vector:
        places = {f"{path}.objects[{index}]": id_ for index, id_ in enumerate(move.objects)}
        objects = await self._of_objects(asked, target, places)
        # All concepts count as much as one object, as in Weaviate.
        concepts = [vectors[f"{path}.concepts[{index}]"] for index in range(len(move.concepts))]
        parts = [*([_mean(concepts)] if concepts else []), *objects.values()]
        _check_lengths([*parts, *vectors.values()], path)
        return _mean(parts)

    async def _of_objects(self, asked: Asked, target: NamedVector, places: Mapping[str, UUID]) -> dict[str, Vector]:
        """Return the vectors of objects, which are given by their paths in the request, after one read."""
        if not places:
            return {}
        fields = ReturnFields(vectors=[target.name])
        ids = list(dict.fromkeys(places.values()))
        found = await self._store.get_objects(asked.collection.name, ids, fields, asked.scope)
        for id_ in ids:
            if id_ not in found:
                raise ObjectNotFound(str(id_))
        with collecting() as violations:
            violations += [
                _without_vector(id_, target.name, path)
                for path, id_ in places.items()
                if target.name not in found[id_].vectors
            ]
        return {path: found[id_].vectors[target.name] for path, id_ in places.items()}

    async def _of_inputs(
        self, asked: Asked, target: NamedVector, near: NearInputs, path: str
    ) -> tuple[EmbedderSpec | None, Vector]:
        inputs: dict[str, Input] = {}
        objects: dict[str, UUID] = {}
        made: list[Vector | str] = []
        for index, (content, _) in enumerate(near.inputs):
            where = f"{path}.inputs[{index}]"
            match content:
                case NearVector():
                    made.append(_own_vector(target, content, f"{where}.near_vector"))
                case NearObject(id_):
                    objects[f"{where}.near_object.id"] = id_
                    made.append(f"{where}.near_object.id")
                case str():
                    inputs[f"{where}.text"] = TextInput(content, near.truncate)
                    made.append(f"{where}.text")
                case NearImage():
                    inputs[f"{where}.image.content"] = ImageInput(content.content)
                    made.append(f"{where}.image.content")
        of_objects = await self._of_objects(asked, target, objects)
        spec, vectors = await self._embed(asked, target, inputs) if inputs else (None, {})
        vectors = {**vectors, **of_objects}
        parts = [vectors[each] if isinstance(each, str) else each for each in made]
        _check_lengths(parts, f"{path}.inputs")
        joined = join([_scaled(each) for each in parts], [weight for _, weight in near.inputs])
        if joined is None:
            message = "the vectors of these inputs cancel each other out; change their weights"
            raise InvalidRequest([Violation(f"{path}.inputs", message, "INVALID_VECTOR")])
        return spec, joined

    async def _embed(
        self, asked: Asked, target: NamedVector, inputs: Mapping[str, Input]
    ) -> tuple[EmbedderSpec, dict[str, Vector]]:
        """Embed inputs, given by their paths in the request, in one call."""
        embedders = self._embedders.for_vector(asked.collection.name, target)
        options = replace(QUERY, api_key=asked.api_key)
        embedder, outcomes = await self._embedders.embed_with_first(embedders, list(inputs.values()), options)
        rows = dict(zip(inputs, outcomes, strict=True))
        refused = [rejection(row, path).violations[0] for path, row in rows.items() if isinstance(row, InputRejected)]
        if refused:
            raise InvalidRequest(refused)
        return embedder.spec, {path: row.vector for path, row in rows.items() if isinstance(row, Embedding)}


def _contents(query: Query) -> Iterator[tuple[str, TextInput | NearVector]]:
    """Yield the texts and the caller's own vectors of a query, each with its path."""
    if query is not None and not isinstance(query, NearObject | Keywords):
        yield from vector_source(query).contents()


def _own_vector(target: NamedVector, near: NearVector, path: str) -> Vector:
    if _differs(target, near) and target.space is not None:
        raise SpaceMismatch(
            vector=target.name,
            bound=target.space.id,
            given=near.space,
            bound_dimension=target.space.dimension,
            given_dimension=len(near.data) // 4,
        )
    return _parse(target, near, path)


def _without_vector(id_: UUID, name: str, path: str) -> Violation:
    message = f"object {id_} has no vector {name!r}; choose another object or target vector"
    return Violation(path, message, "UNKNOWN_VECTOR")


def _differs(target: NamedVector, near: NearVector) -> bool:
    """Return whether a vector is said to be of another space than the target's."""
    return bool(near.space) and target.space is not None and near.space != target.space.id


def _parse(target: NamedVector, near: NearVector, path: str) -> Vector:
    dimension = (target.space.dimension or None) if target.space else None
    if near.by_target:
        return parse_vector(near.by_target[target.name], dimension, f'{path}.target_vectors["{target.name}"].data')
    return parse_vector(near.data, dimension, f"{path}.vector.data")


def _check_lengths(vectors: Sequence[Vector], path: str) -> None:
    # Those of adopted collections are not known beforehand.
    lengths = sorted({len(each) for each in vectors})
    if len(lengths) > 1:
        message = f"the vectors have {' and '.join(map(str, lengths))} values; those of one space have as many"
        raise InvalidRequest([Violation(path, message, "INVALID_VECTOR")])


def _mean(vectors: Sequence[Vector]) -> Vector:
    # Not scaled: Weaviate moves plain means, and scaling them would change the direction of what is moved.
    mean: Vector = np.mean(np.asarray(vectors, np.float64), axis=0)
    return mean


def _scaled(vector: Vector) -> Vector:
    wide = vector.astype(np.float64)
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def _directed(vector: Vector, *, scaled: bool) -> Vector | None:
    """Return a vector as float32, None if it has no direction; that of a vector of the module's it does not scale."""
    if np.linalg.norm(vector) <= LEAST_NORM:
        return None
    return _scaled(vector) if scaled else vector.astype(np.float32)
