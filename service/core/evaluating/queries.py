"""The queries of an evaluation, with their vectors: sampled objects, their captions, or the caller's own."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embedders.contract import (
    Embedding,
    EmbedOptions,
    Input,
    Outcome,
    Priority,
    Purpose,
    TextImageInput,
    TextInput,
    Vector,
)
from embedders.errors import InputRejected
from embedders.texts import cut_text, is_blank
from service.core.embedder_pool import EmbedderPool
from service.core.evaluating.exact import has_direction
from service.core.evaluating.task import Stage, Task
from service.core.projecting.sample import SampleOf, read_sample
from service.domain import (
    CaptionQueries,
    NamedVector,
    ObjectQueries,
    ReturnFields,
    StoredObject,
    WrittenQueries,
)
from service.errors import InvalidRequest, Violation, collecting, pair_rejection, rejection
from service.store.base import Store

READ_AT_ONCE = 50
"""Objects that are read at a time, with all their vectors."""

EMBEDDED_AT_ONCE = 64
"""Inputs of one call of an embedder, after which the caller hears how far it is."""

MAX_QUERY_VALUES = 20_480_000
"""Values in the vectors of all queries together: 82 MB."""

MAX_WORDS_BYTES = 64 * 1024
"""Bytes of a caption, as of the words of a search; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query.

    Attributes:
        id: what the results call it: that of its object, or the caller's own.
        text: its words; empty for a picture alone, and for a query by an object's vector.
        object: the stored object that it comes from; None where it comes from the caller.
        answers: how good each answer is, by name; empty where no answers are known.
    """

    id: str
    text: str = ""
    object: UUID | None = None
    answers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class QuerySet:
    """Queries and their vectors.

    Attributes:
        queries: the queries.
        vectors: float32, shape (queries, dimension), by named vector.
        by_objects: whether they are searches by objects' own vectors, where an object is no hit of itself.
        answered: whether their answers are known.
        answer_property: the property whose values name the answers; empty for the ids of objects.
        embedded: how many inputs were embedded for them.
        embedding_s: how long that took, in seconds.
    """

    queries: Sequence[Query]
    vectors: Mapping[str, Vector]
    by_objects: bool = False
    answered: bool = False
    answer_property: str = ""
    embedded: int = 0
    embedding_s: float = 0.0


@dataclass(slots=True)
class _Work:
    """What embedding took."""

    inputs: int = 0
    seconds: float = 0.0


class QueryMaker:
    """Makes the queries of an evaluation, with a vector for each of some named vectors.

    Args:
        store: where objects are.
        embedders: what embeds queries.
        task: the evaluation.
        targets: the named vectors.
        objects: how many objects the collection or tenant has.
    """

    def __init__(
        self, store: Store, embedders: EmbedderPool, task: Task, targets: Sequence[NamedVector], objects: int
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._task = task
        self._targets = targets
        self._objects = objects

    async def make(self, wanted: ObjectQueries | CaptionQueries | WrittenQueries) -> QuerySet:
        """Return the queries.

        Raises:
            InvalidRequest: no object has what the queries are made of, or an input of the caller cannot be embedded.
            CollectionNotBound: a named vector is bound to no space, and texts or images are to be embedded for it.
            SpaceMismatch: no embedder has the space of a named vector.
            EmbedderError: an embedder failed.
            StoreUnavailable: the store failed.
        """
        match wanted:
            case ObjectQueries():
                return await self._of_objects(wanted)
            case CaptionQueries():
                return await self._of_captions(wanted)
            case WrittenQueries():
                return await self._written(wanted)

    async def _of_objects(self, wanted: ObjectQueries) -> QuerySet:
        names = [each.name for each in self._targets]
        queries: list[Query] = []
        rows: dict[str, list[Vector]] = {name: [] for name in names}
        values = 0
        fields = ReturnFields(vectors=names)
        async for page in self._sample(wanted.size, fields):
            for each in page:
                if all(name in each.vectors and has_direction(each.vectors[name]) for name in names):
                    queries.append(Query(str(each.id), object=each.id))
                    values += sum(each.vectors[name].size for name in names)
                    _check_size(values)
                    for name in names:
                        rows[name].append(each.vectors[name])
        _check_any(queries, "objects.sample_size", f"has the vectors {', '.join(names)}; fill them with a backfill")
        vectors = {name: await _stacked(found) for name, found in rows.items()}
        return QuerySet(queries, vectors, by_objects=True)

    async def _of_captions(self, wanted: CaptionQueries) -> QuerySet:
        queries: list[Query] = []
        fields = ReturnFields(properties=[wanted.property])
        async for page in self._sample(wanted.size, fields):
            for each in page:
                text = each.properties.get(wanted.property)
                if isinstance(text, str) and not is_blank(text):
                    words = cut_text(text, MAX_WORDS_BYTES)
                    queries.append(Query(str(each.id), words, each.id, {str(each.id): 1}))
        _check_any(queries, "captions.property", f"has a text in {wanted.property!r}; name another property")
        inputs: list[Input] = [TextInput(each.text, truncate=True) for each in queries]
        rows, refused, work = await self._embed(inputs)
        kept = [row for row in range(len(queries)) if row not in refused]
        _check_any(kept, "captions.property", f"has a text in {wanted.property!r} that the model reads")
        return QuerySet(
            [queries[row] for row in kept],
            await self._stack(rows, kept),
            answered=True,
            embedded=work.inputs,
            embedding_s=work.seconds,
        )

    async def _written(self, wanted: WrittenQueries) -> QuerySet:
        queries = [Query(each.id, _text_of(each.content), None, each.answers) for each in wanted.queries]
        contents = [each.content for each in wanted.queries]
        rows, refused, work = await self._embed(contents)
        with collecting() as violations:
            for row, error in refused.items():
                asked = wanted.queries[row]
                paired = isinstance(asked.content, TextImageInput)
                refusal = pair_rejection(error, asked.path) if paired else rejection(error, asked.path)
                violations.extend(refusal.violations)
        return QuerySet(
            queries,
            await self._stack(rows, range(len(queries))),
            answered=bool(wanted.queries[0].answers),
            answer_property=wanted.answer_property,
            embedded=work.inputs,
            embedding_s=work.seconds,
        )

    async def _sample(self, size: int, fields: ReturnFields) -> AsyncIterator[list[StoredObject]]:
        """Yield objects from all over a collection that have a named vector, with some fields."""
        name, scope = self._task.collection.name, self._task.scope
        wanted = SampleOf(name, self._targets[0].name, size, scope=scope)
        sample = await read_sample(self._store, wanted, self._objects)
        for start in range(0, len(sample.ids), READ_AT_ONCE):
            some = sample.ids[start : start + READ_AT_ONCE]
            found = await self._store.get_objects(name, some, fields, scope)
            await self._task.tell(Stage.SAMPLING, start + len(some), len(sample.ids))
            yield list(found.values())

    async def _embed(
        self, inputs: Sequence[Input]
    ) -> tuple[dict[str, dict[int, Vector]], dict[int, InputRejected], _Work]:
        """Return the vectors of inputs by space and row, why others have none, and what it took."""
        options = EmbedOptions(Purpose.QUERY, Priority.BULK, self._task.api_key)
        spaces: dict[str, dict[int, Vector]] = {}
        refused: dict[int, InputRejected] = {}
        work = _Work()
        values = 0
        for target in self._targets:
            space = target.space_id
            if space not in spaces:
                embedders = self._embedders.for_vector(self._task.collection.name, target)
                rows = spaces[space] = {}
                begun = time.perf_counter()
                for start in range(0, len(inputs), EMBEDDED_AT_ONCE):
                    some = inputs[start : start + EMBEDDED_AT_ONCE]
                    _, outcomes = await self._embedders.embed_with_first(embedders, some, options)
                    values += _sort(start, outcomes, rows, refused)
                    _check_size(values)
                    work.inputs += len(some)
                    await self._task.tell(Stage.EMBEDDING, work.inputs, len(inputs) * len(self._targets))
                work.seconds += time.perf_counter() - begun
        return spaces, refused, work

    async def _stack(self, spaces: Mapping[str, Mapping[int, Vector]], kept: Sequence[int]) -> dict[str, Vector]:
        """Return by named vector the vectors of some rows; named vectors of one space share them."""
        stacked = {space: await _stacked([rows[row] for row in kept]) for space, rows in spaces.items()}
        return {each.name: stacked[each.space_id] for each in self._targets}


def query_digests(queries: Sequence[Query]) -> NDArray[np.uint64]:
    """Return a digest of the id and the words of each query, by which a later evaluation finds the same ones.

    Returns:
        uint64, shape (queries,).
    """
    made = (hashlib.blake2b(f"{each.id}\0{each.text}".encode(), digest_size=8).digest() for each in queries)
    return np.frombuffer(b"".join(made), "<u8").astype(np.uint64)


def query_digest(wanted: ObjectQueries | CaptionQueries | WrittenQueries) -> bytes:
    """Return a digest of what queries are fixed to: equal ones can be compared.

    It takes all pictures of the caller's own queries, so it may take longer than the event loop may be kept.

    Returns:
        Of captions that of their property, of the caller's own queries that of all of them with their answers, in
        their order; nothing for sampled objects, which are fixed to nothing.
    """
    match wanted:
        case ObjectQueries():
            return b""
        case CaptionQueries():
            parts: Iterable[object] = (wanted.property,)
        case WrittenQueries():
            parts = (
                part
                for each in wanted.queries
                for part in (each.id, _text_of(each.content), _picture_of(each.content), sorted(each.answers.items()))
            )
            parts = chain((wanted.answer_property,), parts)
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        # With its length, a part ends where it ends.
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.digest()


def _text_of(content: Input) -> str:
    return content.text if isinstance(content, TextInput | TextImageInput) else ""


def _picture_of(content: Input) -> bytes:
    return b"" if isinstance(content, TextInput) else content.content


def _sort(
    start: int, outcomes: Sequence[Outcome], vectors: dict[int, Vector], refused: dict[int, InputRejected]
) -> int:
    """Sort the results of inputs; return how many values there are in their vectors."""
    values = 0
    for row, outcome in enumerate(outcomes, start):
        if isinstance(outcome, Embedding):
            vectors[row] = outcome.vector
            values += outcome.vector.size
        else:
            refused[row] = outcome
    return values


def _check_size(values: int) -> None:
    if values > MAX_QUERY_VALUES:
        message = f"have more than {MAX_QUERY_VALUES} values in their vectors; take fewer queries or vectors"
        raise InvalidRequest([Violation("queries", message)])


async def _stacked(rows: Sequence[Vector]) -> Vector:
    # Of the most queries, this takes longer than the event loop may be kept.
    return await asyncio.to_thread(np.stack, rows, dtype=np.float32)


def _check_any(found: Sequence[object], path: str, what: str) -> None:
    if not found:
        raise InvalidRequest([Violation(path, f"no object was found that {what}")])
