"""Vectors of objects: kept, supplied, or computed with as few calls of embedders as possible.

How the vectors of several fields become one is at the end: Vecgate's own way, and that of Weaviate's multi2vec-nvidia.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple
from uuid import UUID

import numpy as np

from embedders.contract import (
    EmbedderSpec,
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    Outcome,
    Priority,
    Purpose,
    TextImageInput,
    TextInput,
    Vector,
    WatchedEmbedder,
)
from embedders.errors import EmbedderError, EmbedderUnavailable, InputRejected
from embedders.texts import is_blank
from service.core.embedder_pool import EmbedderPool
from service.core.pictures import NO_PICTURES, Pictures, fault_at
from service.domain import Collection, NamedVector, PropertyValue, ReturnFields, StoredObject, WeightedField, some_of
from service.errors import (
    CollectionNotBound,
    ImageFault,
    ImageNotStored,
    InvalidRequest,
    ServiceError,
    SpaceMismatch,
    Violation,
    rejection,
)

BULK_DOCUMENTS = EmbedOptions(Purpose.DOCUMENT, Priority.BULK)

SEPARATOR = "\n"
"""Between the texts of fields that are embedded together."""

LEAST_NORM = 1e-6
"""A shorter vector has no direction."""


class VectorOrigin(Enum):
    """Where a named vector of an object came from."""

    COMPUTED = "computed"
    SUPPLIED = "supplied"
    KEPT = "kept"
    MISSING = "missing"


Absence = EmbedderError | SpaceMismatch | ImageNotStored
"""Why a vector cannot be made."""


@dataclass(frozen=True, slots=True)
class VectorReport:
    """Where one named vector of an object came from.

    Attributes:
        name: the named vector.
        origin: where it came from.
        embedder: the embedder that computed it, or empty.
        truncated: whether a text was cut.
        error: why it is missing although the object has fields for it: its embedders failed, or there are none, or only
            the hash of an image is stored.
    """

    name: str
    origin: VectorOrigin
    embedder: str = ""
    truncated: bool = False
    error: Absence | None = None


class _Field(NamedTuple):
    """One input of an object.

    Attributes:
        path: where it is in the request; of several fields together, the named vector.
        input: what to embed.
        weight: how much it counts.
        text_path: where the longest text of several fields together is.
        image_path: where their image is.
        uri: of an image of which only the URI is stored, and which the input still lacks.
        name: the property; empty for several fields together.
    """

    path: str
    input: Input
    weight: float
    text_path: str = ""
    image_path: str = ""
    uri: str = ""
    name: str = ""


class Piece(NamedTuple):
    """A text or an image of an object, embedded by itself.

    Attributes:
        field: the property that it is in.
        share: how much of the field's weight it has: of several texts, each has the same.
        vector: float32, shape (dimension,).
    """

    field: str
    share: float
    vector: Vector


@dataclass(slots=True)
class _Plan:
    """What to embed in one space, with which embedders, and the outcomes.

    Attributes:
        embedders: the embedders of the space; afterwards the one that was used.
        inputs: what to embed, by path in the request.
        uris: of images that inputs still lack, by the paths of the inputs.
        outcomes: the outcomes, by path.
        error: why there are no outcomes; known from the start if this server has no embedder of the space.
        embedded: whether an embedder was asked, and answered.
    """

    embedders: Sequence[WatchedEmbedder] = ()
    inputs: dict[str, Input] = field(default_factory=dict)
    uris: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, Outcome | ImageFault] = field(default_factory=dict)
    error: EmbedderError | SpaceMismatch | None = None
    embedded: bool = False


@dataclass(slots=True)
class Candidate:
    """An object on its way into the store.

    Attributes:
        path: where it is in the request.
        object: the object, first with the supplied vectors; kept and computed ones are added.
        replaces: whether it replaces the stored object; if not, a stored vector without inputs is kept.
        reports: where each named vector came from.
        error: why it cannot be stored.
    """

    path: str
    object: StoredObject
    replaces: bool = True
    reports: list[VectorReport] = field(default_factory=list)
    error: ServiceError | EmbedderError | None = None

    def give(self, name: str, vector: Vector) -> None:
        """Add a named vector."""
        self.object = replace(self.object, vectors={**self.object.vectors, name: vector})


class _Part(NamedTuple):
    """A named vector of an object to compute."""

    candidate: Candidate
    vector: NamedVector
    fields: list[_Field]
    plan: _Plan


def foremost(errors: Sequence[Absence]) -> Absence:
    """Return the error to report: a failure of an embedder, which may pass, before others."""
    return next((each for each in errors if isinstance(each, EmbedderError)), errors[0])


def check_bound(collection: Collection) -> None:
    """Check that every named vector of a collection is bound to a space.

    Raises:
        CollectionNotBound: one is not.
    """
    for vector in collection.vectors:
        if vector.space is None:
            raise CollectionNotBound(collection.name, vector.name)


def check_native(collection: Collection, candidate: Candidate) -> None:
    """Refuse an object without any field for a native vector, which Weaviate's module fills.

    Weaviate refuses it too, but may have stored it by then, or may keep the vector of the earlier object.
    """
    bare = {each.name for each in candidate.reports if each.origin is VectorOrigin.MISSING and each.error is None}
    for vector in collection.vectors:
        if vector.native and vector.name in bare:
            names = some_of(vector.field_names)
            message = f"is filled by Weaviate's module, which needs at least one of: {names}; set one of them"
            _refuse(candidate, [Violation(f'{candidate.path}.vectors["{vector.name}"]', message)])


def vector_fields(collection: Collection) -> ReturnFields:
    """Return the fields to read of an object to compare what its vectors were made of."""
    texts = {each.name: None for vector in collection.vectors for each in vector.text_fields}
    pictures = {each.name: None for vector in collection.vectors for each in vector.image_fields}
    uris = {name: None for name in pictures if name not in collection.blobs}
    images = [name for name in pictures if name not in collection.hashes and name not in uris]
    hashes = [name for name in pictures if name in collection.hashes]
    return ReturnFields(list(texts | uris), images, [vector.name for vector in collection.vectors], hashes=hashes)


class Vectorizer:
    """Gives objects their vectors."""

    def __init__(self, embedders: EmbedderPool, pictures: Pictures = NO_PICTURES) -> None:
        self._embedders = embedders
        self._pictures = pictures

    async def fill(
        self,
        collection: Collection,
        chunk: Sequence[Candidate],
        options: EmbedOptions,
        *,
        truncate: bool,
        stored: Mapping[UUID, StoredObject],
        used: dict[str, EmbedderSpec],
        again: bool = False,
        partly: bool = False,
    ) -> None:
        """Give objects the vectors that they lack, with one call of an embedder for each space.

        Args:
            collection: whose named vectors to fill.
            chunk: the objects; each gets a report for each named vector, or an error.
            options: for the embedders.
            truncate: whether texts may be cut to what the model reads.
            stored: the stored objects, by id; their vectors are kept where no field of a vector has changed.
            used: gets the embedders that were used, by name.
            again: whether to compute these vectors too, and keep them only if no embedder works.
            partly: whether to raise no error as long as one of the objects can be stored.

        Raises:
            SpaceMismatch: all named vectors to compute are bound to spaces that no embedder has.
            EmbedderError: the embedders of all spaces failed.
        """
        plans, todo = self._plan(collection, chunk, {} if again else stored, truncate=truncate)
        await asyncio.gather(*(self._carry_out(plan, options) for plan in plans.values()))
        used.update((plan.embedders[0].spec.name, plan.embedders[0].spec) for plan in plans.values() if plan.embedded)
        for candidate, vector, fields, plan in todo:
            if plan.error is None:
                _attach(candidate, vector, fields, plan.outcomes, plan.embedders[0].spec.name)
            elif (kept := _kept(vector, candidate.object, stored)) is not None:
                candidate.give(vector.name, kept)
                candidate.reports.append(VectorReport(vector.name, VectorOrigin.KEPT))
            else:
                candidate.reports.append(VectorReport(vector.name, VectorOrigin.MISSING, error=plan.error))
        for candidate in chunk:
            missing = [report.error for report in candidate.reports if report.error is not None]
            if missing and not candidate.object.vectors and candidate.error is None:
                candidate.error = foremost(missing)
        failed = [plan.error for plan in plans.values() if plan.error is not None]
        useful = partly and any(candidate.error is None for candidate in chunk)
        if failed and len(failed) == len(plans) and not useful:
            raise foremost(failed)

    async def embed_pieces(
        self, collection: str, vector: NamedVector, chunk: Sequence[Candidate], options: EmbedOptions
    ) -> list[list[Piece]]:
        """Return the texts and images of objects, each embedded by itself; texts are cut to what the model reads.

        Args:
            collection: the collection's name.
            vector: the named vector whose fields to embed, each of which is an input of its own.
            chunk: the objects; one with a field that cannot be embedded gets an error.
            options: for the embedders.

        Returns:
            For each object its pieces in the order in which `combine` takes them; none of one with an error.

        Raises:
            CollectionNotBound: the named vector is bound to no space.
            SpaceMismatch: no embedder has its space.
            EmbedderError: the embedders failed.
        """
        plan = _Plan(self._embedders.for_vector(collection, vector))
        # With the weight 1 of each field, a piece's weight is its share.
        equal = with_weights(vector, dict.fromkeys(vector.field_names, 1.0))
        fields = [list(_fields(equal, each, truncate=True)) for each in chunk]
        plan.inputs.update((each.path, each.input) for some in fields for each in some)
        plan.uris.update((each.path, each.uri) for some in fields for each in some if each.uri)
        await self._carry_out(plan, options)
        if plan.error is not None:
            raise plan.error
        return [
            [Piece(each.name, each.weight, made.vector) for each, made in _embedded(candidate, some, plan.outcomes)]
            for candidate, some in zip(chunk, fields, strict=True)
        ]

    def _plan(
        self, collection: Collection, chunk: Sequence[Candidate], stored: Mapping[UUID, StoredObject], *, truncate: bool
    ) -> tuple[dict[str, _Plan], list[_Part]]:
        """Return what to embed, by space, and the vectors to compute; report on the vectors that need no embedding."""
        plans: dict[str, _Plan] = {}
        todo: list[_Part] = []
        for candidate in chunk:
            for vector in collection.vectors:
                if vector.name in candidate.object.vectors:
                    candidate.reports.append(VectorReport(vector.name, VectorOrigin.SUPPLIED))
                    continue
                fields = _inputs(vector, candidate, truncate=truncate)
                kept = _kept(vector, candidate.object, stored)
                if kept is not None and (fields or not candidate.replaces):
                    candidate.give(vector.name, kept)
                    candidate.reports.append(VectorReport(vector.name, VectorOrigin.KEPT))
                    continue
                if (lost := _hash_alone(vector, candidate.object)) is not None:
                    error = ImageNotStored(vector.name, lost)
                    candidate.reports.append(VectorReport(vector.name, VectorOrigin.MISSING, error=error))
                    continue
                if not fields:
                    candidate.reports.append(VectorReport(vector.name, VectorOrigin.MISSING))
                    continue
                plan = self._plan_for(collection.name, vector, plans)
                plan.inputs.update((each.path, each.input) for each in fields)
                plan.uris.update((each.path, each.uri) for each in fields if each.uri)
                todo.append(_Part(candidate, vector, fields, plan))
        return plans, todo

    def _plan_for(self, collection: str, vector: NamedVector, plans: dict[str, _Plan]) -> _Plan:
        """Return the plan for the space of a named vector, after adding it if needed."""
        assert vector.space is not None, "a named vector without a space is refused before"
        try:
            embedders = self._embedders.for_vector(collection, vector)
        except (SpaceMismatch, EmbedderUnavailable) as error:
            # Weaviate cannot delete a named vector, so writes must work after its model is gone.
            return plans.setdefault(f"{vector.space.id} {vector.space.dimension}", _Plan(error=error))
        return plans.setdefault(vector.space.id, _Plan(embedders))

    async def _carry_out(self, plan: _Plan, options: EmbedOptions) -> None:
        if plan.error is not None:
            return
        try:
            whole = {path: each for path, each in plan.inputs.items() if path not in plan.uris}
            if whole:
                await self._embed(plan, whole, options)
            # Closed here, because an embedder that fails ends the plan, but not the call.
            async with aclosing(self._pictures.in_parts(plan.uris)) as parts:
                async for part in parts:
                    plan.outcomes.update((path, each) for path, each in part.items() if not isinstance(each, bytes))
                    contents = {path: each for path, each in part.items() if isinstance(each, bytes)}
                    inputs = {path: _with_content(plan.inputs[path], each) for path, each in contents.items()}
                    if inputs:
                        await self._embed(plan, inputs, options)
        except EmbedderError as error:
            plan.error, plan.embedded = error, False

    async def _embed(self, plan: _Plan, inputs: Mapping[str, Input], options: EmbedOptions) -> None:
        """Embed some inputs of a plan, all of them with one embedder."""
        embedder, rows = await self._embedders.embed_with_first(plan.embedders, list(inputs.values()), options)
        plan.embedders, plan.embedded = [embedder], True
        plan.outcomes.update(zip(inputs, rows, strict=True))


def _with_content(lacking: Input, content: bytes) -> Input:
    """Return an input that lacks its image, with the image."""
    assert not isinstance(lacking, TextInput), "a text lacks no image"
    return replace(lacking, content=content)


def _kept(vector: NamedVector, object_: StoredObject, stored: Mapping[UUID, StoredObject]) -> Vector | None:
    """Return the stored vector of an object if none of the vector's fields has changed."""
    before = stored.get(object_.id)
    if before is None or vector.space is None:
        return None
    found = before.vectors.get(vector.name)
    if found is None or (vector.space.dimension and found.shape != (vector.space.dimension,)):
        return None
    return found if same_inputs(vector, before, object_) else None


def same_inputs(vector: NamedVector, one: StoredObject, other: StoredObject) -> bool:
    """Return whether the fields of a named vector have the same texts and images in two objects."""
    same_texts = all(
        _worded(one.properties.get(each.name)) == _worded(other.properties.get(each.name))
        for each in vector.text_fields
    )
    return same_texts and all(_picture(one, each.name) == _picture(other, each.name) for each in vector.image_fields)


def has_inputs(vector: NamedVector, object_: StoredObject) -> bool:
    """Return whether an object has a text or an image in the fields of a named vector."""
    texts = any(_worded(object_.properties.get(each.name)) for each in vector.text_fields)
    return texts or any(_picture(object_, each.name) for each in vector.image_fields)


def _picture(object_: StoredObject, name: str) -> PropertyValue | bytes:
    """Return what an image is compared by: its hash or its URI where only that is stored."""
    return object_.hashes.get(name) or object_.images.get(name) or object_.properties.get(name)


def _hash_alone(vector: NamedVector, object_: StoredObject) -> str | None:
    """Return the name of a field of a vector of which only the hash is known, so that it cannot be embedded."""
    names = (each.name for each in vector.image_fields)
    return next((name for name in names if name in object_.hashes and name not in object_.images), None)


def _worded(value: PropertyValue) -> list[str]:
    """Return the texts of a value that are embedded."""
    texts = value if isinstance(value, list) else [value]
    return [each for each in texts if isinstance(each, str) and not is_blank(each)]


def _inputs(vector: NamedVector, candidate: Candidate, *, truncate: bool) -> list[_Field]:
    """Return an object's inputs for a named vector: one for each field, or one of all fields together."""
    fields = list(_fields(vector, candidate, truncate=truncate))
    if not vector.joint or len(fields) < 2:  # noqa: PLR2004 -- one field alone is an input of its own
        return fields
    texts = {each.path: each.input.text for each in fields if isinstance(each.input, TextInput)}
    images = {each.path: each.input.content for each in fields if isinstance(each.input, ImageInput)}
    text, longest = SEPARATOR.join(texts.values()), max(texts, key=lambda path: len(texts[path]))
    where = f'{candidate.path}.vectors["{vector.name}"]'
    for path, content in images.items():
        uri = next(each.uri for each in fields if each.path == path)
        return [_Field(where, TextImageInput(text, content, truncate), 1.0, longest, path, uri)]
    return [_Field(where, TextInput(text, truncate), 1.0, longest)]


def _fields(vector: NamedVector, candidate: Candidate, *, truncate: bool) -> Iterator[_Field]:
    """Yield an object's fields for a named vector, without blank texts and absent fields.

    Texts come before images. Each come as the named vector lists them, if they are embedded together, and otherwise by
    the alphabet, as multi2vec-nvidia takes them.
    """
    path = candidate.path
    in_order = list[WeightedField] if vector.joint else _by_name
    for text in in_order(vector.text_fields):
        where = f'{path}.properties["{text.name}"]'
        match candidate.object.properties.get(text.name):
            case str() as value if not is_blank(value):
                yield _Field(where, TextInput(value, truncate), text.weight, name=text.name)
            case list() as values:
                items = [(i, each) for i, each in enumerate(values) if isinstance(each, str) and not is_blank(each)]
                for index, item in items:
                    share = text.weight / len(items)
                    yield _Field(f"{where}[{index}]", TextInput(item, truncate), share, name=text.name)
    for image in in_order(vector.image_fields):
        if (content := candidate.object.images.get(image.name)) is not None:
            where = f'{path}.images["{image.name}"].content'
            yield _Field(where, ImageInput(content), image.weight, name=image.name)
        match candidate.object.properties.get(image.name):
            case str() as uri if uri:
                where = f'{path}.properties["{image.name}"]'
                yield _Field(where, ImageInput(b""), image.weight, uri=uri, name=image.name)


def _attach(
    candidate: Candidate,
    vector: NamedVector,
    fields: Sequence[_Field],
    outcomes: Mapping[str, Outcome | ImageFault],
    embedder: str,
) -> None:
    """Give an object a named vector made from its fields, or note the errors of its fields."""
    embeddings = _embedded(candidate, fields, outcomes)
    if not embeddings:
        return
    joined = combine(vector, [embedding.vector for _, embedding in embeddings], [each.weight for each, _ in embeddings])
    if isinstance(joined, str):
        _refuse(candidate, [Violation(f'{candidate.path}.vectors["{vector.name}"]', joined, "INVALID_VECTOR")])
        return
    candidate.give(vector.name, joined)
    truncated = any(embedding.truncated for _, embedding in embeddings)
    candidate.reports.append(VectorReport(vector.name, VectorOrigin.COMPUTED, embedder, truncated))


def _embedded(
    candidate: Candidate, fields: Sequence[_Field], outcomes: Mapping[str, Outcome | ImageFault]
) -> list[tuple[_Field, Embedding]]:
    """Return the fields of an object with what they were embedded to; none if one failed, which is noted."""
    parts = [(each, outcomes[each.path]) for each in fields]
    faults = [(each, outcome) for each, outcome in parts if isinstance(outcome, ServiceError)]
    for each, fault in faults:
        error = fault_at(fault, each.image_path or each.path)
        if isinstance(error, InvalidRequest):
            _refuse(candidate, error.violations)
        else:
            candidate.error = candidate.error or error
    if faults:
        return []
    rejected = [
        rejection(outcome, each.path, text_field=each.text_path, image_field=each.image_path)
        for each, outcome in parts
        if isinstance(outcome, InputRejected)
    ]
    if rejected:
        _refuse(candidate, [violation for error in rejected for violation in error.violations])
        return []
    return [(each, outcome) for each, outcome in parts if isinstance(outcome, Embedding)]


def _refuse(candidate: Candidate, violations: Sequence[Violation]) -> None:
    earlier = candidate.error.violations if isinstance(candidate.error, InvalidRequest) else ()
    candidate.error = InvalidRequest(list(dict.fromkeys([*earlier, *violations])))


def _by_name(fields: Sequence[WeightedField]) -> list[WeightedField]:
    return sorted(fields, key=lambda each: each.name)


def count_inputs(vector: NamedVector, candidate: Candidate) -> int:
    """Return how many texts and images an object has in the fields of a named vector; blank texts count, too."""
    values = (candidate.object.properties.get(name) for name in vector.field_names)
    texts = sum(len(each) if isinstance(each, list) else int(bool(each)) for each in values)
    return texts + sum(each.name in candidate.object.images for each in vector.image_fields)


def with_weights(vector: NamedVector, weights: Mapping[str, float]) -> NamedVector:
    """Return a named vector whose fields have other weights, by their names."""
    texts = tuple(replace(each, weight=weights[each.name]) for each in vector.text_fields)
    images = tuple(replace(each, weight=weights[each.name]) for each in vector.image_fields)
    return replace(vector, text_fields=texts, image_fields=images, weighted=True)


def combine(vector: NamedVector, vectors: Sequence[Vector], weights: Sequence[float]) -> Vector | str:
    """Return the vector that an object gets from its fields, or why it gets none.

    Args:
        vector: the named vector.
        vectors: float32, shape (dimension,) each; texts before images, each by the alphabet; at least one.
        weights: for each the weight of its field, or its share of that.
    """
    shares: Sequence[float] = weights
    if vector.native:
        listed = [each.weight for each in (*vector.text_fields, *vector.image_fields)] if vector.weighted else []
        shares = shares_of_the_module(listed, weights)
    if shares and not any(shares):
        return "all its fields have the weight 0; set another field, or change the weights"
    joined = join_as_the_module(vectors, shares) if vector.native else join(vectors, shares)
    if joined is None:
        return "has no direction, because the vectors of its fields cancel each other out; change the weights or fields"
    return joined


def shares_of_the_module(weights: Sequence[float], by_field: Sequence[float]) -> Sequence[float]:
    """Return the shares that multi2vec-nvidia gives an object's vectors: it matches weights to vectors by position.

    It ignores names: where an object lacks a field, the vectors after it get the shares of other fields. With more
    vectors than weights, which lists of texts cause, the module fails; here each vector has the weight of its field.

    Source: modules/multi2vec-nvidia/vectorizer/vectorizer.go of Weaviate 1.39.

    Args:
        weights: those of all fields in the module's order; empty where it has none.
        by_field: for each vector the weight of its own field; texts before images, each by the alphabet.

    Returns:
        One share for each vector, as float32 of a sum of 1 over all fields; empty where the module has no weights.
    """
    if not weights:
        return ()
    counted = np.asarray(weights if len(by_field) <= len(weights) else by_field, np.float32)
    total = np.float32(0)
    for weight in counted:
        total += weight
    return list(counted[: len(by_field)] * (np.float32(1) / total)) if total else [0.0] * len(by_field)


def join_as_the_module(vectors: Sequence[Vector], shares: Sequence[float]) -> Vector | None:
    """Return the vector that multi2vec-nvidia makes, bit by bit: the weighted sum divided by the number of vectors.

    It is not scaled to unit length.

    Source: usecases/vectorizer/combine.go of Weaviate 1.39.

    Args:
        vectors: float32, shape (dimension,) each; texts before images, each by the alphabet; at least one.
        shares: see shares_of_the_module; empty for none.

    Returns:
        float32, shape (dimension,), or None if the vectors cancel each other out.
    """
    sums = np.zeros_like(vectors[0])
    if not shares:
        for vector in vectors:
            sums += vector
    for vector, share in zip(vectors, shares, strict=False):
        sums += vector * np.float32(share)
    joined: Vector = sums / np.float32(len(vectors))
    return joined if float(np.linalg.norm(joined)) > LEAST_NORM else None


def join(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector | None:
    """Return the weighted mean of unit vectors, scaled to unit length.

    multi2vec-nvidia does not scale it (see join_as_the_module); the direction is the same.

    Args:
        vectors: float32, shape (dimension,) each, unit length; at least one.
        weights: one positive share for each.

    Returns:
        float32, shape (dimension,), or None if the vectors cancel each other out.
    """
    if len(vectors) == 1:
        return vectors[0]
    shares = np.asarray(weights, np.float64) / sum(weights)
    mean = shares @ np.asarray(vectors, np.float64)
    norm = float(np.linalg.norm(mean))
    return (mean / norm).astype(np.float32) if norm > LEAST_NORM else None
