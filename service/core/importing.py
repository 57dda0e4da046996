"""Importing: objects are checked, embedded chunk by chunk in as few batches as possible, and written.

While one chunk is written the next one is embedded, so a call holds at most two chunks of vectors.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import structlog

from embedders.errors import EmbedderError, InputRejected
from embedders.inputs import Vector
from embedders.spec import EmbedderSpec
from service.core.conformance import DraftObject, check_object
from service.core.embed import EmbedderPool
from service.core.indexing import IndexEntries, unchanged
from service.core.overwriting import overwrite
from service.core.vectorizing import (
    BULK_DOCUMENTS,
    Candidate,
    Vectorizer,
    VectorOrigin,
    VectorReport,
    check_bound,
    check_native,
    vector_fields,
)
from service.domain import Collection, ReturnFields, Scope, StoredObject
from service.errors import InvalidRequest, ServiceError, StoreRejected, TenantInactive, TenantNotFound, Violation
from service.metrics import IMPORT_OBJECTS, IMPORT_VECTORS
from service.store.base import NO_TENANT, Store

__all__ = ["ImportOutcome", "ImportReport", "Importer"]

log = structlog.get_logger(__name__)


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


@dataclass(slots=True)
class _Candidate(Candidate):
    """An object of an import: its place in the call, and roughly its bytes."""

    index: int = 0
    size: int = 0


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
        self._vectorizer = Vectorizer(embedders)
        self._entries = IndexEntries(store)
        self._max_chunk_objects = max_chunk_objects
        self._max_chunk_bytes = max_chunk_bytes

    async def import_objects(
        self,
        name: str,
        drafts: Sequence[DraftObject],
        *,
        truncate: bool,
        embed_unchanged: bool = False,
        scope: Scope = NO_TENANT,
        api_key: str | None = None,
    ) -> ImportReport:
        """Check, embed and store objects; each succeeds or fails alone.

        Args:
            name: the collection.
            drafts: the objects.
            truncate: whether texts may be cut to what the model reads.
            embed_unchanged: whether to embed anew what is stored already with a vector of the same texts and images.
            scope: the tenant that they go to, and how many replicas must take them.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            TenantInactive: the tenant is not active, and calls do not activate it.
            InvalidRequest: a tenant is missing, or given where the collection has none.
            CollectionNotBound: a named vector is bound to no space.
            SpaceMismatch: all named vectors to compute are bound to spaces that no embedder has.
            EmbedderError: the embedders of all spaces failed, and no object of a chunk can be stored without them; some
                of other chunks may be. Otherwise objects are stored without the vectors that cannot be made, and those
                that would have none fail alone.
            StoreUnavailable: the store failed as a whole; some objects may be stored.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name))
        check_bound(collection)
        outcomes = [ImportOutcome(draft.id) for draft in drafts]
        used: dict[str, EmbedderSpec] = {}
        options = replace(BULK_DOCUMENTS, api_key=api_key)
        fill = partial(
            self._vectorizer.fill, collection, truncate=truncate, used=used, anew=embed_unchanged, partly=True
        )
        writing: asyncio.Task[None] | None = None
        try:
            for chunk in self._chunks(self._check(collection, drafts, scope.tenant, outcomes)):
                stored = await self._stored(collection, chunk, scope)
                await fill(chunk, options, stored=stored)
                for each in chunk:
                    check_native(collection, each)
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write_chunk(collection, scope, chunk, stored, outcomes))
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
                yield _Candidate(path, checked, index=index, size=draft.size())
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

    async def _stored(
        self, collection: Collection, chunk: Sequence[_Candidate], scope: Scope
    ) -> dict[UUID, StoredObject]:
        """Return the objects of a chunk as they are stored, with what their vectors were made of if that matters."""
        made = {each.name for each in collection.vectors if each.image_fields or each.text_fields}
        compared = any(made - each.object.vectors.keys() for each in chunk)
        fields = vector_fields(collection.vectors)
        if not compared:
            fields = ReturnFields(vectors=fields.vectors)
        try:
            return await self._store.get_objects(collection.name, [each.object.id for each in chunk], fields, scope)
        except TenantNotFound:
            if collection.multi_tenancy is None or not collection.multi_tenancy.auto_creation:
                raise
            return {}
        except TenantInactive:
            raise
        except StoreRejected as error:
            # Such as stored pictures that are too large to be read in one call.
            log.info("stored_objects_unread", collection=collection.name, error=type(error).__qualname__)
            if not collection.unhandled:
                return {}
            # Which of them are there must be known: what this version does not handle stays.
            ids = [each.object.id for each in chunk]
            return await self._store.get_objects(collection.name, ids, ReturnFields(vectors=fields.vectors), scope)

    async def _write_chunk(
        self,
        collection: Collection,
        scope: Scope,
        chunk: list[_Candidate],
        stored: Mapping[UUID, StoredObject],
        outcomes: list[ImportOutcome],
    ) -> None:
        ready = [candidate for candidate in chunk if candidate.error is None]
        objects = [each.object for each in ready]
        failures = await overwrite(self._store, collection, objects, stored, scope) if ready else []
        for candidate, failure in zip(ready, failures, strict=True):
            candidate.error = failure
        await self._enter_lost(collection.name, scope, [each for each in ready if each.error is None], stored)
        for candidate in chunk:
            reports = () if candidate.error else tuple(sorted(candidate.reports, key=lambda report: report.name))
            outcomes[candidate.index] = ImportOutcome(str(candidate.object.id), reports, candidate.error)

    async def _enter_lost(
        self, name: str, scope: Scope, written: Sequence[_Candidate], stored: Mapping[UUID, StoredObject]
    ) -> None:
        """Enter vectors that were there before into their indexes where these lack them; the store leaves that."""
        same: dict[str, dict[UUID, Vector]] = {}
        for candidate in written:
            if (before := stored.get(candidate.object.id)) is not None:
                for vector_name, vector in unchanged(candidate.object, before).items():
                    same.setdefault(vector_name, {})[before.id] = vector
        failures: dict[UUID, ServiceError] = {}
        for vector_name, having in same.items():
            failures |= await self._entries.mend(name, vector_name, having, scope)
        for candidate in written:
            candidate.error = failures.get(candidate.object.id)


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
