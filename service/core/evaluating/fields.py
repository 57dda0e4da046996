"""What other weights of an object's fields would give: the fields of a sample are embedded apart, and combined."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import numpy as np

from embedders.contract import EmbedOptions, Priority, Purpose, Vector
from service.core.embedder_pool import EmbedderPool
from service.core.evaluating.exact import LARGEST_PAGE, Nearest
from service.core.evaluating.task import Stage, Task
from service.core.objects.backfilling import read_candidates
from service.core.objects.vectorizing import (
    Candidate,
    Piece,
    Vectorizer,
    combine,
    count_inputs,
    vector_fields,
    with_weights,
)
from service.core.pictures import Pictures
from service.core.projecting.sample import SampleOf, read_sample
from service.domain import NamedVector, ReturnFields
from service.errors import InvalidRequest, Violation
from service.store.base import Store

READ_AT_ONCE = 32
"""Objects that are read and embedded at a time, after which the caller hears how far it is."""

MAX_FIELD_SAMPLE = 5000
"""Objects of a sample."""

MAX_FIELD_INPUTS = 20_000
"""Texts and images of all objects of a sample together."""

MAX_FIELD_VALUES = 20_480_000
"""Values in the vectors of all these together: 82 MB."""


@dataclass(slots=True, eq=False)
class FieldSample:
    """A sample of objects, each text and image of which is embedded by itself.

    Attributes:
        vector: the named vector that is made of them.
        size: how many objects were chosen.
        ids: those that could be embedded, by ascending id, so that answers do not come before others as near.
        names: for each what answers call it; None where it has no such value.
        pieces: for each its texts and images.
        failed: how many others could not be embedded.
        reason: why one of these could not.
        empty: how many others have nothing in these fields.
        embedded: how many inputs were embedded.
        embedding_s: how long embedding took, in seconds.
        without: for weights that were searched with how many of the objects get no vector by them.
    """

    vector: NamedVector
    size: int
    ids: list[UUID] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    pieces: list[list[Piece]] = field(default_factory=list)
    failed: int = 0
    reason: str = ""
    empty: int = 0
    embedded: int = 0
    embedding_s: float = 0.0
    without: dict[tuple[tuple[str, float], ...], int] = field(default_factory=dict)

    def combined(self, weights: Mapping[str, float]) -> tuple[list[int], Vector]:
        """Return the vectors that imports would make with some weights.

        Args:
            weights: of each field; empty for the present ones.

        Returns:
            The places of the objects that have one; float32, shape (places, dimension).
        """
        vector = with_weights(self.vector, weights) if weights else self.vector
        of_field = vector.field_weights
        made = {
            place: combine(
                vector, [each.vector for each in pieces], [of_field[each.field] * each.share for each in pieces]
            )
            for place, pieces in enumerate(self.pieces)
        }
        having = {place: each for place, each in made.items() if not isinstance(each, str)}
        dimension = self.pieces[0][0].vector.size
        rows = np.stack(list(having.values())) if having else np.zeros((0, dimension), np.float32)
        return list(having), rows

    async def search(
        self, weights: Mapping[str, float], queries: Vector, limit: int
    ) -> tuple[list[list[UUID]], list[list[str]]]:
        """Return for each query the nearest objects, the nearest one first, and what answers call these.

        It notes how many objects get no vector. All of it is done in threads, part by part: the largest searches take
        seconds, and one whose caller has left ends after a part.

        Args:
            weights: see combined.
            queries: float32, shape (queries, dimension).
            limit: how many.
        """
        assert self.vector.distance is not None
        places, rows = await asyncio.to_thread(self.combined, weights)
        self.without[tuple(weights.items())] = len(self.pieces) - len(places)
        nearest = Nearest(self.vector.distance, queries, limit, [None] * len(queries))
        for start in range(0, len(places), LARGEST_PAGE):
            ids = [self.ids[place] for place in places[start : start + LARGEST_PAGE]]
            await asyncio.to_thread(nearest.add, ids, rows[start : start + LARGEST_PAGE])
        return await asyncio.to_thread(self._named, nearest)

    def _named(self, nearest: Nearest) -> tuple[list[list[UUID]], list[list[str]]]:
        """Return the nearest objects of each query and their names, each once."""
        name_of = dict(zip(self.ids, self.names, strict=True))
        found = [
            [ids[column] for column in np.argsort(distances, kind="stable") if ids[column] is not None]
            for ids, distances in zip(nearest.ids, nearest.distances, strict=True)
        ]
        names = ([name_of[each] for each in ids] for ids in found)
        return found, [list(dict.fromkeys(name for name in some if name is not None)) for some in names]


class FieldSampler:
    """Reads a sample of objects, and embeds their fields after everything that waits for an answer.

    Args:
        store: where objects are.
        embedders: what embeds them.
        pictures: fetches images of which only the URI is stored.
        task: the evaluation.
    """

    def __init__(self, store: Store, embedders: EmbedderPool, pictures: Pictures, task: Task) -> None:
        self._store = store
        self._vectorizer = Vectorizer(embedders, pictures)
        self._task = task

    async def read(
        self, vector: NamedVector, answers: Sequence[UUID], size: int, total: int, answer_property: str
    ) -> FieldSample:
        """Return the objects that are answers, and others from all over the collection.

        Args:
            vector: the named vector whose fields to embed.
            answers: the objects that are answers.
            size: how many objects to take.
            total: how many the collection or tenant has.
            answer_property: the property whose values name answers; empty for ids.

        Raises:
            InvalidRequest: there are more answers than objects to take, more texts and images than may be embedded, or
                no object can be embedded.
            CollectionNotBound: the named vector is bound to no space.
            SpaceMismatch: no embedder has its space.
            EmbedderError: the embedders failed.
            StoreRejected: an object is too large to be read.
            StoreUnavailable: the store failed.
        """
        if len(answers) > size:
            more = f"at least {len(answers)}, or " if len(answers) <= MAX_FIELD_SAMPLE else ""
            message = (
                f"give {more}fewer queries: {len(answers)} objects are answers, all of which the sample must have, and "
                f"it is {size}, of at most {MAX_FIELD_SAMPLE}"
            )
            raise InvalidRequest([Violation("field_sample_size", message)])
        collection, scope = self._task.collection.name, self._task.scope
        # Whether they have the vector does not matter, because all are embedded again.
        others = await read_sample(self._store, SampleOf(collection, "", size, scope=scope), total)
        ids = sorted(list(dict.fromkeys([*answers, *others.ids]))[:size])
        sample = FieldSample(vector, len(ids))
        begun, inputs = time.perf_counter(), 0
        for start in range(0, len(ids), READ_AT_ONCE):
            inputs += await self._embed(sample, ids[start : start + READ_AT_ONCE], answer_property, inputs)
            await self._task.tell(Stage.EMBEDDING, min(start + READ_AT_ONCE, len(ids)), len(ids))
        sample.embedding_s = time.perf_counter() - begun
        if not sample.ids:
            message = f"no object can be embedded again: {sample.reason or 'none has anything in these fields'}"
            raise InvalidRequest([Violation("field_sample_size", message)])
        return sample

    async def _embed(self, sample: FieldSample, ids: Sequence[UUID], answer_property: str, before: int) -> int:
        """Add some objects to a sample, before which others had some inputs, and return how many inputs these have."""
        vector, task = sample.vector, self._task
        fields = vector_fields(replace(task.collection, vectors=(vector,)))
        named = [answer_property] if answer_property else []
        fields = ReturnFields([*dict.fromkeys([*fields.properties, *named])], fields.images)
        candidates = await read_candidates(self._store, task.collection.name, ids, fields, task.scope)
        inputs = sum(count_inputs(vector, each) for each in candidates)
        dimension = vector.space.dimension if vector.space else 0
        if before + inputs > MAX_FIELD_INPUTS or (before + inputs) * dimension > MAX_FIELD_VALUES:
            message = (
                f"take fewer objects: {sample.size} have more than {MAX_FIELD_INPUTS} texts and images in these "
                f"fields, or more than {MAX_FIELD_VALUES} values in the vectors of these"
            )
            raise InvalidRequest([Violation("field_sample_size", message)])
        options = EmbedOptions(Purpose.DOCUMENT, Priority.BULK, task.api_key)
        made = await self._vectorizer.embed_pieces(task.collection.name, vector, candidates, options)
        for candidate, pieces in zip(candidates, made, strict=True):
            _add(sample, candidate, pieces, answer_property)
        return inputs


def _add(sample: FieldSample, candidate: Candidate, pieces: list[Piece], answer_property: str) -> None:
    object_ = candidate.object
    sample.embedded += len(pieces)
    if candidate.error is not None:
        sample.failed += 1
        sample.reason = sample.reason or str(candidate.error)
    elif not pieces:
        sample.empty += 1
    else:
        value = object_.properties.get(answer_property) if answer_property else object_.id
        sample.ids.append(object_.id)
        sample.names.append(None if value is None else str(value))
        sample.pieces.append(pieces)
