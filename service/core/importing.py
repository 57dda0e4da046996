"""Importing: objects are checked, embedded chunk by chunk in as few batches as possible, and written.

While one chunk is written the next one is embedded, so a call holds at most two chunks of vectors.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

import numpy as np

from embedders.base import Embedder, Outcome
from embedders.errors import EmbedderError, InputRejected
from embedders.inputs import Embedding, EmbedOptions, ImageInput, Input, Priority, Purpose, TextInput, Vector
from embedders.spec import EmbedderSpec
from service.core.conformance import DraftObject, check_object
from service.core.embed import EmbedderPool
from service.domain import Collection, NamedVector, Scope, StoredObject
from service.errors import CollectionNotBound, InvalidRequest, ServiceError, Violation, rejection
from service.metrics import IMPORT_OBJECTS, IMPORT_VECTORS
from service.store.base import NO_TENANT, Store

__all__ = ["ImportOutcome", "ImportReport", "Importer", "VectorOrigin", "VectorReport"]

LEAST_NORM = 1e-6
IMPORT = EmbedOptions(Purpose.DOCUMENT, Priority.BULK)


class VectorOrigin(Enum):
    """Where a named vector of an imported object came from."""

    COMPUTED = "computed"
    SUPPLIED = "supplied"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class VectorReport:
    """Where one named vector of an imported object came from.

    Attributes:
        name: the named vector.
        origin: where it came from.
        embedder: what made it; empty when nothing did.
        truncated: whether a text in it was cut.
        error: why it is missing although the object has fields for it: its embedders failed.
    """

    name: str
    origin: VectorOrigin
    embedder: str = ""
    truncated: bool = False
    error: EmbedderError | None = None


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """What became of one object: stored with these vectors, or refused with an error."""

    id: str
    vectors: tuple[VectorReport, ...] = ()
    error: ServiceError | EmbedderError | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """One outcome for each object, in order, and the embedders that made vectors."""

    outcomes: list[ImportOutcome]
    embedders: list[EmbedderSpec]


class _Field(NamedTuple):
    """One input of an object: where it stands in the request, and its share in a vector."""

    path: str
    input: Input
    weight: float


@dataclass(slots=True)
class _Plan:
    """What is to be embedded in one space, by whom, and what became of it.

    Attributes:
        embedders: those that may; afterwards the one that did.
        inputs: what to embed, by where it stands in the request.
        outcomes: by the same.
        error: why there are none.
    """

    embedders: list[Embedder]
    inputs: dict[str, Input] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    error: EmbedderError | None = None


@dataclass(slots=True)
class _Candidate:
    """An object on its way into the store."""

    index: int
    object: StoredObject
    size: int
    reports: list[VectorReport] = field(default_factory=list)
    error: ServiceError | EmbedderError | None = None


class Importer:
    """Imports objects.

    Args:
        store: where objects go.
        embedders: what makes their vectors.
        max_chunk_objects: objects in one write.
        max_chunk_bytes: bytes in one write, unless a single object has more.
    """

    def __init__(self, store: Store, embedders: EmbedderPool, *, max_chunk_objects: int, max_chunk_bytes: int) -> None:
        self._store = store
        self._embedders = embedders
        self._max_chunk_objects = max_chunk_objects
        self._max_chunk_bytes = max_chunk_bytes

    async def import_objects(
        self,
        name: str,
        drafts: Sequence[DraftObject],
        *,
        truncate: bool,
        scope: Scope = NO_TENANT,
        api_key: str | None = None,
    ) -> ImportReport:
        """Check, embed and store objects; each succeeds or fails alone.

        Args:
            name: the collection.
            drafts: the objects.
            truncate: whether texts may be cut to what the model reads.
            scope: the tenant that they go to, and how many replicas must take them.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            InvalidRequest: a tenant is missing, or given where the collection has none.
            CollectionNotBound: a named vector is bound to no space.
            SpaceMismatch: a named vector to compute is bound to a space that no embedder has.
            EmbedderError: the embedders of all spaces failed; some objects may be stored. While those of one space
                work, objects are stored without the other vectors, and objects that would have none fail alone.
            StoreUnavailable: the store failed as a whole; some objects may be stored.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name))
        for vector in collection.vectors:
            if vector.space is None:
                raise CollectionNotBound(name, vector.name)
        outcomes = [ImportOutcome(draft.id) for draft in drafts]
        used: dict[str, EmbedderSpec] = {}
        options = replace(IMPORT, api_key=api_key)
        writing: asyncio.Task[None] | None = None
        try:
            for chunk in self._chunks(self._check(collection, drafts, scope.tenant, outcomes)):
                await self._embed_chunk(collection, chunk, options, truncate=truncate, used=used)
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write_chunk(name, scope, chunk, outcomes))
            if writing is not None:
                await writing
        finally:
            if writing is not None and not writing.done():
                writing.cancel()
                with contextlib.suppress(asyncio.CancelledError, ServiceError):
                    await writing
        _count(outcomes)
        return ImportReport(outcomes, list(used.values()))

    def _check(
        self, collection: Collection, drafts: Sequence[DraftObject], tenant: str, outcomes: list[ImportOutcome]
    ) -> Iterator[_Candidate]:
        """Yield the objects that fit the collection; the others' outcomes are their violations."""
        first_index: dict[str, int] = {}
        for index, draft in enumerate(drafts):
            path = f"objects[{index}]"
            try:
                checked = check_object(collection, draft, path, tenant)
            except InvalidRequest as error:
                outcomes[index] = ImportOutcome(draft.id, error=error)
                continue
            outcomes[index] = ImportOutcome(id_ := str(checked.id))
            first = first_index.setdefault(id_, index)
            if first == index:
                yield _Candidate(index, checked, draft.size())
            else:
                message = f"is the id of objects[{first}] too; give each object of a call its own id"
                duplicate = InvalidRequest([Violation(f"{path}.id", message, "DUPLICATE_ID")])
                outcomes[index] = ImportOutcome(id_, error=duplicate)

    def _chunks(self, candidates: Iterator[_Candidate]) -> Iterator[list[_Candidate]]:
        chunk: list[_Candidate] = []
        size = 0
        for candidate in candidates:
            full = len(chunk) == self._max_chunk_objects or size + candidate.size > self._max_chunk_bytes
            if chunk and full:
                yield chunk
                chunk, size = [], 0
            chunk.append(candidate)
            size += candidate.size
        if chunk:
            yield chunk

    async def _embed_chunk(
        self,
        collection: Collection,
        chunk: list[_Candidate],
        options: EmbedOptions,
        *,
        truncate: bool,
        used: dict[str, EmbedderSpec],
    ) -> None:
        """Give the objects of a chunk their vectors, with one call to an embedder of each space."""
        plans: dict[str, _Plan] = {}
        todo: list[tuple[_Candidate, NamedVector, list[_Field], _Plan]] = []
        for candidate in chunk:
            for vector in collection.vectors:
                if vector.name in candidate.object.vectors:
                    candidate.reports.append(VectorReport(vector.name, VectorOrigin.SUPPLIED))
                    continue
                fields = list(_fields(vector, candidate, truncate=truncate))
                if not fields:
                    candidate.reports.append(VectorReport(vector.name, VectorOrigin.MISSING))
                    continue
                embedders = self._embedders.for_vector(collection.name, vector)
                plan = plans.setdefault(embedders[0].spec.space, _Plan(embedders))
                plan.inputs.update((each.path, each.input) for each in fields)
                todo.append((candidate, vector, fields, plan))
        await asyncio.gather(*(self._carry_out(plan, options) for plan in plans.values()))
        failed = [plan.error for plan in plans.values() if plan.error is not None]
        if failed and len(failed) == len(plans):
            raise failed[0]
        used.update((plan.embedders[0].spec.name, plan.embedders[0].spec) for plan in plans.values() if not plan.error)
        for candidate, vector, fields, plan in todo:
            if plan.error is None:
                _attach(candidate, vector, fields, plan.outcomes, plan.embedders[0].spec.name)
            else:
                candidate.reports.append(VectorReport(vector.name, VectorOrigin.MISSING, error=plan.error))
        for candidate in chunk:
            missing = [report.error for report in candidate.reports if report.error is not None]
            if missing and not candidate.object.vectors and candidate.error is None:
                candidate.error = missing[0]

    async def _carry_out(self, plan: "_Plan", options: EmbedOptions) -> None:
        try:
            embedder, rows = await self._embedders.embed_with_first(plan.embedders, list(plan.inputs.values()), options)
        except EmbedderError as error:
            plan.error = error
        else:
            plan.embedders = [embedder]
            plan.outcomes = dict(zip(plan.inputs, rows, strict=True))

    async def _write_chunk(
        self, name: str, scope: Scope, chunk: list[_Candidate], outcomes: list[ImportOutcome]
    ) -> None:
        ready = [candidate for candidate in chunk if candidate.error is None]
        refusals = await self._store.put_objects(name, [each.object for each in ready], scope) if ready else []
        for candidate, refusal in zip(ready, refusals, strict=True):
            candidate.error = refusal
        for candidate in chunk:
            reports = () if candidate.error else tuple(sorted(candidate.reports, key=lambda report: report.name))
            outcomes[candidate.index] = ImportOutcome(str(candidate.object.id), reports, candidate.error)


def _count(outcomes: Sequence[ImportOutcome]) -> None:
    """Count what became of the objects of an import, for Prometheus."""
    for outcome in outcomes:
        what = "stored" if outcome.error is None else "failed"
        if isinstance(outcome.error, InvalidRequest | InputRejected):
            what = "rejected"
        IMPORT_OBJECTS.labels(what).inc()
        for report in outcome.vectors:
            absent = report.origin is VectorOrigin.MISSING and report.error is None
            IMPORT_VECTORS.labels("absent" if absent else report.origin.value).inc()


def _fields(vector: NamedVector, candidate: _Candidate, *, truncate: bool) -> Iterator[_Field]:
    """Yield an object's inputs for a named vector; blank texts and absent fields take no part."""
    path = f"objects[{candidate.index}]"
    for image in vector.image_fields:
        if (content := candidate.object.images.get(image.name)) is not None:
            yield _Field(f'{path}.images["{image.name}"].content', ImageInput(content), image.weight)
    for text in vector.text_fields:
        where = f'{path}.properties["{text.name}"]'
        match candidate.object.properties.get(text.name):
            case str() as value if value.strip():
                yield _Field(where, TextInput(value, truncate), text.weight)
            case list() as values:
                items = [(i, each) for i, each in enumerate(values) if isinstance(each, str) and each.strip()]
                for index, item in items:
                    yield _Field(f"{where}[{index}]", TextInput(item, truncate), text.weight / len(items))


def _attach(
    candidate: _Candidate,
    vector: NamedVector,
    fields: Sequence[_Field],
    outcomes: Mapping[str, Outcome],
    embedder: str,
) -> None:
    """Give an object a named vector made of its fields, or the errors of its fields."""
    parts = [(each, outcomes[each.path]) for each in fields]
    rejected = [rejection(outcome, each.path) for each, outcome in parts if isinstance(outcome, InputRejected)]
    if rejected:
        earlier = candidate.error.violations if isinstance(candidate.error, InvalidRequest) else ()
        found = [violation for error in rejected for violation in error.violations if violation not in earlier]
        candidate.error = InvalidRequest([*earlier, *found])
        return
    embeddings = [(each.weight, outcome) for each, outcome in parts if isinstance(outcome, Embedding)]
    joined = join([embedding.vector for _, embedding in embeddings], [weight for weight, _ in embeddings])
    if joined is None:
        message = "its fields' vectors cancel each other out, so it has no direction; change the weights or the fields"
        violation = Violation(f'objects[{candidate.index}].vectors["{vector.name}"]', message, "INVALID_VECTOR")
        candidate.error = InvalidRequest([violation])
        return
    candidate.object = replace(candidate.object, vectors={**candidate.object.vectors, vector.name: joined})
    truncated = any(embedding.truncated for _, embedding in embeddings)
    candidate.reports.append(VectorReport(vector.name, VectorOrigin.COMPUTED, embedder, truncated))


def join(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector | None:
    """Return the weighted mean of unit vectors, scaled to unit length.

    multi2vec-nvidia divides the weighted sum by the number of vectors and does not scale it; the direction is the same.

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
