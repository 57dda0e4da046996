"""Importing: objects are checked, embedded in chunks with as few batches as possible, and written.

While one chunk is written the next one is embedded, so a call holds at most two chunks of vectors.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple
from uuid import UUID

import structlog

from embedders.contract import EmbedderSpec
from embedders.errors import EmbedderError, InputRejected
from service.core.embedder_pool import EmbedderPool
from service.core.objects.checks import CHECK_IN_THREAD_BYTES, DraftObject, check_object
from service.core.objects.duplicates import Duplicate, DuplicateCheck, Duplicates, check_wanted
from service.core.objects.vectorizing import (
    BULK_DOCUMENTS,
    Candidate,
    Vectorizer,
    VectorOrigin,
    VectorReport,
    check_bound,
    check_native,
    vector_fields,
)
from service.core.objects.writing import ALWAYS, Writer, Writes
from service.core.pacing import Pace
from service.core.pictures import NO_PICTURES, Pictures
from service.domain import Collection, ReturnFields, Scope, StoredObject
from service.errors import (
    CollectionNotBound,
    InvalidRequest,
    ServiceError,
    StoreRejected,
    TenantInactive,
    TenantNotFound,
    Violation,
)
from service.process.holding import hold
from service.process.metrics import IMPORT_OBJECTS, IMPORT_VECTORS
from service.store.base import NO_TENANT, Store

log = structlog.get_logger(__name__)

MAX_CHUNK_OBJECTS = 100
"""Objects in one write; more save no time."""
MAX_CHUNK_BYTES = 16 * 1024 * 1024
"""Bytes of objects in one write, unless a single object has more; a call holds two writes."""
LOOK_AGAIN_S = 0.2
"""Seconds after which a collection is read again before vectors that callers made are written."""
MAX_CHUNK_VALUES = 5000
"""Values in one write, unless a single object has more: Weaviate's client needs some microseconds for each."""


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """The result of one object: stored with these vectors, refused with an error, or left out as a duplicate.

    Attributes:
        id: the object's.
        vectors: where each named vector came from, if it is stored.
        error: why it is not stored.
        duplicate: the object that it duplicates, if that was asked for.
        skipped: whether it is not stored for that reason.
    """

    id: str
    vectors: tuple[VectorReport, ...] = ()
    error: ServiceError | EmbedderError | None = None
    duplicate: Duplicate | None = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class ImportReport:
    """One outcome for each object, in order, and the embedders that made vectors."""

    outcomes: list[ImportOutcome]
    embedders: list[EmbedderSpec]


@dataclass(slots=True)
class _Candidate(Candidate):
    """An object of an import: its place in the call, its approximate bytes and values, and its fetched bytes."""

    index: int = 0
    size: int = 0
    values: int = 0
    fetched: int = 0


class _Call(NamedTuple):
    """A call.

    Attributes:
        collection: where its objects go.
        looked_s: when that collection was read.
        outcomes: one for each object.
        duplicates: which objects are duplicates, and what to do with them; None to store all.
    """

    collection: Collection
    looked_s: float
    scope: Scope
    outcomes: list[ImportOutcome]
    duplicates: DuplicateCheck | None


class _Known(NamedTuple):
    """The objects of a chunk as they were stored, and a mark of when they were read."""

    stored: Mapping[UUID, StoredObject]
    mark: int


class Importer:
    """Imports objects.

    Args:
        store: where objects go.
        embedders: what makes their vectors.
        writes: runs the writes of this process.
        max_chunk_objects: objects in one write.
        max_chunk_bytes: bytes in one write, unless a single object has more.
        pictures: fetches images that are named by URI.
    """

    def __init__(
        self,
        store: Store,
        embedders: EmbedderPool,
        writes: Writes,
        *,
        pictures: Pictures = NO_PICTURES,
        max_chunk_objects: int = MAX_CHUNK_OBJECTS,
        max_chunk_bytes: int = MAX_CHUNK_BYTES,
    ) -> None:
        self._store = store
        self._writes = writes
        self._embedders = embedders
        self._pictures = pictures
        self._vectorizer = Vectorizer(embedders, pictures)
        self._writer = Writer(store, embedders, writes)
        self._duplicates = Duplicates(store)
        self._max_chunk_objects = max_chunk_objects
        self._max_chunk_bytes = max_chunk_bytes

    async def import_objects(
        self,
        name: str,
        drafts: Iterable[DraftObject],
        *,
        truncate: bool,
        embed_unchanged: bool = False,
        duplicates: DuplicateCheck | None = None,
        scope: Scope = NO_TENANT,
        api_key: str | None = None,
    ) -> ImportReport:
        """Check, embed and store objects; each succeeds or fails alone.

        Args:
            name: the collection.
            drafts: the objects, which are read as they are needed.
            truncate: whether texts may be cut to what the model reads.
            embed_unchanged: whether to embed objects again that are stored with a vector of the same texts and images.
            duplicates: which objects are duplicates, and what to do with them; None to store all.
            scope: the tenant, and how many replicas must answer.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            PermissionDenied: the client may not search, and would learn of stored objects by their duplicates.
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            TenantInactive: the tenant is not active, and calls do not activate it.
            InvalidRequest: the tenant or the named vector for duplicates is missing, or the collection has no such.
            CollectionNotBound: no named vector is bound to a space, or not the one for duplicates. Others stay.
            SpaceMismatch: all named vectors to compute are bound to spaces that no embedder has.
            EmbedderError: the embedders of all spaces failed, and no object of a chunk can be stored without them;
                objects of other chunks may be stored. Otherwise objects are stored without the vectors that cannot be
                made, and objects without any vector fail alone.
            StoreUnavailable: the store failed as a whole; some objects may be stored.
        """
        looked_s = time.monotonic()
        collection = self._embedders.resolve(await self._store.get_collection(name))
        bound = collection.bound_part
        if not bound.vectors:
            check_bound(collection)
        if duplicates is not None:
            check_wanted(collection, duplicates)
        outcomes: list[ImportOutcome] = []
        copies: dict[int, int] = {}
        used: dict[str, EmbedderSpec] = {}
        fill = partial(
            self._vectorizer.fill,
            bound,
            options=replace(BULK_DOCUMENTS, api_key=api_key),
            truncate=truncate,
            used=used,
            again=embed_unchanged,
            partly=True,
        )
        await self._carry_out(_Call(collection, looked_s, scope, outcomes, duplicates), drafts, copies, fill)
        for index, first in copies.items():
            outcomes[index] = outcomes[first]
        _count(outcomes)
        return ImportReport(outcomes, list(used.values()))

    async def _carry_out(
        self, call: _Call, drafts: Iterable[DraftObject], copies: dict[int, int], fill: Callable[..., Awaitable[None]]
    ) -> None:
        """Fetch, check, embed and write objects."""
        filled = self._pictures.filled(drafts)
        checked = self._check(call.collection, filled, call.scope.tenant, call.outcomes, copies)
        chunks = self._chunks(checked)
        # Closed here, because nothing else ends what is fetched ahead if the call fails.
        async with aclosing(filled), aclosing(checked), aclosing(chunks):
            await self._embed_and_write(call, chunks, fill)

    async def _embed_and_write(
        self, call: _Call, chunks: AsyncIterator[list[_Candidate]], fill: Callable[..., Awaitable[None]]
    ) -> None:
        """Embed each chunk while the one before is written."""
        writing: asyncio.Task[None] | None = None
        try:
            async for chunk in chunks:
                known = await self._known(call, chunk)
                await fill(chunk, stored=known.stored)
                for each in chunk:
                    check_native(call.collection, each)
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write_chunk(call, chunk, known))
            if writing is not None:
                await writing
        finally:
            if writing is not None and not writing.done():
                writing.cancel()
                with contextlib.suppress(asyncio.CancelledError, ServiceError):
                    await writing

    async def _check(
        self,
        collection: Collection,
        drafts: AsyncIterator[DraftObject],
        tenant: str,
        outcomes: list[ImportOutcome],
        copies: dict[int, int],
    ) -> AsyncGenerator[_Candidate, None]:
        """Yield the objects that fit the collection, each once.

        Args:
            collection: what they must fit.
            drafts: the objects.
            tenant: whose they are.
            outcomes: gets one for each draft; that of an object that does not fit is final.
            copies: gets the place of each object without an id that has the content of an earlier one, and the place of
                that one: they are one object.
        """
        firsts: dict[str, int] = {}
        given: set[str] = set()
        pace, bound = Pace(), collection.bound_part
        index = -1
        async for draft in drafts:
            index += 1
            await pace.step()
            size = draft.size()
            try:
                if size > CHECK_IN_THREAD_BYTES:
                    checked = await asyncio.to_thread(check_object, collection, draft, tenant)
                else:
                    checked = check_object(collection, draft, tenant)
            except ServiceError as error:
                outcomes.append(ImportOutcome(draft.id, error=error))
                hold.get()(-draft.fetched)
                continue
            if (
                unbound := next((name for name in checked.vectors if bound.find_vector(name) is None), None)
            ) is not None:
                outcomes.append(ImportOutcome(draft.id, error=CollectionNotBound(collection.name, unbound)))
                hold.get()(-draft.fetched)
                continue
            outcomes.append(ImportOutcome(id_ := str(checked.id)))
            first = firsts.setdefault(id_, index)
            if first == index:
                if draft.id:
                    given.add(id_)
                yield _Candidate(
                    draft.path, checked, index=index, size=size, values=draft.values, fetched=draft.fetched
                )
                continue
            hold.get()(-draft.fetched)
            if draft.id or id_ in given:
                message = f"is also the id of objects[{first}]; give each object of a call its own id"
                duplicate = InvalidRequest([Violation(f"{draft.path}.id", message, "DUPLICATE_ID")])
                outcomes[index] = ImportOutcome(id_, error=duplicate)
            else:
                copies[index] = first

    async def _chunks(self, candidates: AsyncIterator[_Candidate]) -> AsyncGenerator[list[_Candidate], None]:
        chunk: list[_Candidate] = []
        size = values = 0
        async for candidate in candidates:
            size, values = size + candidate.size, values + candidate.values
            full = len(chunk) == self._max_chunk_objects or size > self._max_chunk_bytes or values > MAX_CHUNK_VALUES
            if chunk and full:
                yield chunk
                chunk, size, values = [], candidate.size, candidate.values
            chunk.append(candidate)
        if chunk:
            yield chunk

    async def _known(self, call: _Call, chunk: Sequence[_Candidate]) -> _Known:
        """Return the objects of a chunk as they are stored, with the fields of their vectors if these are compared."""
        collection, scope, bound = call.collection, call.scope, call.collection.bound_part
        made = {each.name for each in bound.vectors if each.image_fields or each.text_fields}
        compared = any(made - each.object.vectors.keys() for each in chunk)
        fields = vector_fields(bound)
        if not compared:
            fields = ReturnFields(vectors=fields.vectors)
        mark = self._writes.ended
        ids = [each.object.id for each in chunk]
        try:
            return _Known(await self._store.get_objects(collection.name, ids, fields, scope), mark)
        except TenantNotFound:
            if not collection.creates_tenants:
                raise
            return _Known({}, mark)
        except TenantInactive:
            raise
        except StoreRejected as error:
            # Such as stored images that are too large to be read in one call.
            log.info("stored_objects_unread", collection=collection.name, error=type(error).__qualname__)
            if not collection.preserving and call.duplicates is None:
                return _Known({}, ALWAYS)
            # It must be known which are stored: replacing an object keeps what this version does not handle, and an
            # object that is stored is no duplicate to be left out.
            fields = ReturnFields(vectors=fields.vectors)
            return _Known(await self._store.get_objects(collection.name, ids, fields, scope), mark)

    async def _write_chunk(self, call: _Call, chunk: list[_Candidate], known: _Known) -> None:
        """Write the objects of a chunk that have no error, and note the outcomes of all."""
        check, found, failures = call.duplicates, dict[UUID, Duplicate](), dict[UUID, ServiceError]()
        ready = [candidate.object for candidate in chunk if candidate.error is None]
        skipped: set[UUID] = set()
        async with contextlib.nullcontext() if check is None else self._duplicates.turn(call.collection, call.scope):
            if check is not None:
                found = await self._duplicates.find(call.collection, check, ready, known.stored, call.scope)
                skipped = {id_ for id_, each in found.items() if each.skipped}
            failures = await self._put(call, chunk, [each for each in ready if each.id not in skipped], known)
        for candidate in chunk:
            id_ = candidate.object.id
            duplicate = found.get(id_)
            error = candidate.error or failures.get(id_)
            if duplicate is not None and duplicate.id in failures:
                # What it duplicates is not stored, so nothing says that it is one.
                error, duplicate = failures[duplicate.id] if id_ in skipped else error, None
            reports = () if error or id_ in skipped else tuple(sorted(candidate.reports, key=lambda each: each.name))
            of = None if error else duplicate
            call.outcomes[candidate.index] = ImportOutcome(
                call.outcomes[candidate.index].id, reports, error, of, skipped=error is None and id_ in skipped
            )

    async def _put(
        self, call: _Call, chunk: list[_Candidate], objects: list[StoredObject], known: _Known
    ) -> dict[UUID, ServiceError]:
        """Write objects of a chunk, and return why some are not stored or not found, by id."""
        made = any(report.origin is VectorOrigin.COMPUTED for each in chunk for report in each.reports)
        again_s = -math.inf if made else call.looked_s + LOOK_AGAIN_S
        failures = await self._writer.put(
            call.collection, objects, known.stored, known.mark, call.scope, again_s=again_s
        )
        hold.get()(-sum(each.fetched for each in chunk))
        return failures


def _count(outcomes: Sequence[ImportOutcome]) -> None:
    """Count the outcomes of an import for Prometheus."""
    objects, vectors = Counter[str](), Counter[str]()
    for outcome in outcomes:
        what = "skipped" if outcome.skipped else "stored" if outcome.error is None else "failed"
        if isinstance(outcome.error, InvalidRequest | InputRejected):
            what = "rejected"
        objects[what] += 1
        for report in outcome.vectors:
            absent = report.origin is VectorOrigin.MISSING and report.error is None
            vectors["absent" if absent else report.origin.value] += 1
    for metric, counts in ((IMPORT_OBJECTS, objects), (IMPORT_VECTORS, vectors)):
        for label, count in counts.items():
            metric.labels(label).inc(count)
