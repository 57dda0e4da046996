"""What is done with rows, a stage after the other. Ray runs each in processes of its own, on any machine.

Embedding and writing are the service's own code, so that spaces, weights, checks and outcomes are the same.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple
from uuid import UUID

import pyarrow as pa
from obstore.exceptions import BaseError

from embedders.contract import InputLimits
from embedders.errors import AnswerInvalid, EmbedderError, EmbedderUnavailable, ImageUndecodable, InputRejected
from embedders.images.decoders import Decoders
from embedders.images.scaling import Scaling
from service.bulk.ledger import LedgerFailed
from service.bulk.loop import BackgroundLoop
from service.bulk.parquet import ParquetOutput
from service.bulk.patience import BulkStopped, patiently
from service.bulk.rows import Row, cuts, from_table, in_parts, timed, to_table
from service.core.embedder_pool import EmbedderPool
from service.core.objects.duplicates import Duplicate, DuplicateCheck, Duplicates
from service.core.objects.vectorizing import BULK_DOCUMENTS, Candidate, Vectorizer, check_native
from service.core.objects.writing import Writer, Writes
from service.domain import Collection, ReturnFields, Scope, StoredObject
from service.error_table import reason_for
from service.errors import ServiceError, SpaceMismatch, StoreRejected, StoreUnavailable, TenantNotFound, rejection
from service.settings import Settings, WeaviateSettings
from service.store.weaviate import WeaviateStore
from service.wiring import build_decoders, build_embedders, replicas

WRITE_OBJECTS = 100
"""Objects in one write; more save no time."""
WRITE_BYTES = 16 * 1024 * 1024
"""Bytes of objects in one write, unless a single object has more: Weaviate takes about 100 MB."""
PARALLEL_WRITES = 4
"""Writes of one process at the same time."""
DECODE_ATTEMPTS = 3
"""How often a picture may fail in its process for no known reason before its row is rejected."""
UNCOMPARED = "duplicates cannot be looked for"
AGAIN = (EmbedderUnavailable, AnswerInvalid)
"""What may pass: the backend is down or busy, or gave one bad answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where objects go.

    Attributes:
        collection: as it was when the run began.
        scope: the tenant.
        weaviate: where the collection is.
        patience_s: how long to wait for a store or an embedder that is down.
        output: Parquet files that objects go to, too; None for none.
        stores: whether objects go to the collection.
        duplicates: which objects are duplicates, and what to do with them; None to store all.
    """

    collection: Collection
    scope: Scope
    weaviate: WeaviateSettings
    patience_s: float
    output: ParquetOutput | None = None
    stores: bool = True
    duplicates: DuplicateCheck | None = None

    @property
    def compared(self) -> str:
        """The named vector by which duplicates are found; empty if none are looked for."""
        return "" if self.duplicates is None else self.duplicates.target_vector


class Put(NamedTuple):
    """The result of a write, by id: why objects are not stored, and what they duplicate; others are stored."""

    failures: dict[UUID, ServiceError]
    duplicates: dict[UUID, Duplicate]


class Decode:
    """Decodes pictures and scales them to what the model reads, on machines that need no GPU."""

    def __init__(self, limits: InputLimits, scaling: Scaling, fields: Sequence[str], patience_s: float) -> None:
        """Start nothing yet.

        Args:
            limits: bounds on a picture.
            scaling: what the model reads.
            fields: the properties whose pictures are embedded.
            patience_s: how long to wait while no process for pictures can be started.
        """
        self._limits, self._scaling, self._fields, self._patience_s = limits, scaling, fields, patience_s
        self._loop = BackgroundLoop()
        # One job runs while the next one is on its way.
        self._decoders = Decoders(2)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Decode the pictures of a batch.

        Raises:
            BulkStopped: no process for pictures can be started.
        """
        # Not a generator: Ray takes what one raises for a fault of Ray's.
        done = []
        for part in in_parts(table):
            rows = from_table(part)
            timed("decode", rows, lambda live: self._loop.run(self._decode(live)))
            done.append(to_table(rows))
        return pa.concat_tables(done)

    async def _decode(self, rows: Sequence[Row]) -> None:
        await asyncio.gather(*map(self._decode_row, rows))

    async def _decode_row(self, row: Row) -> None:
        assert row.object is not None, "the row is alive"
        made = dict(row.pictures)
        for name, content in {**row.object.images, **row.pictures}.items():
            if name not in self._fields:
                continue
            try:
                made[name] = await patiently(partial(self._scaled, content), EmbedderUnavailable, self._patience_s)
            except InputRejected as error:
                # Of a text, it is the picture behind it.
                where = f'images["{name}"].content' if name in row.object.images else name
                _reject(row, rejection(error, where))
                return
            except EmbedderUnavailable as error:
                raise BulkStopped(f"pictures cannot be decoded: {error}") from error
        row.pictures = made

    async def _scaled(self, content: bytes) -> bytes:
        """Return a picture in the model's size.

        Raises:
            InputRejected: it cannot be read, or fails in its process again and again.
            EmbedderUnavailable: no process can be started.
        """
        attempts = 0
        while True:
            try:
                return await self._decoders.scaled_picture(content, self._limits, self._scaling)
            except EmbedderUnavailable as error:
                # The system refuses a process, which may pass. Anything else is of this picture alone.
                if isinstance(error.__cause__, OSError):
                    raise
                attempts += 1
                if attempts == DECODE_ATTEMPTS:
                    raise ImageUndecodable(str(error)) from error


class Embed:
    """Gives objects their vectors, with the embedders of the settings."""

    def __init__(self, settings: Settings, target: Target, *, truncate: bool) -> None:
        """Load local models, and connect to NIMs."""
        self._target, self._truncate = target, truncate
        self._collection = target.collection.bound_part
        self._loop = BackgroundLoop()
        self._pool = EmbedderPool(build_embedders(settings, build_decoders(settings)), replicas=replicas(settings))
        self._vectorizer = Vectorizer(self._pool)
        self._loop.run(self._start())

    def __call__(self, table: pa.Table) -> pa.Table:
        """Embed a batch.

        Raises:
            BulkStopped: the embedders cannot.
        """
        rows = from_table(table)
        timed("embed", rows, lambda live: self._loop.run(self._embed(live)))
        return to_table(rows)

    async def _start(self) -> None:
        await self._pool.start()
        await self._pool.first_checks()

    async def _embed(self, rows: Sequence[Row]) -> None:
        # Without this vector a row would be stored and compared with nothing.
        compared = self._target.compared

        async def attempt() -> list[Candidate]:
            candidates = [_candidate(row) for row in rows]
            await self._vectorizer.fill(
                self._collection, candidates, BULK_DOCUMENTS, truncate=self._truncate, stored={}, used={}
            )
            for each in candidates:
                for report in each.reports:
                    if isinstance(report.error, EmbedderError):
                        raise report.error
                    if isinstance(report.error, SpaceMismatch) and report.name == compared:
                        raise BulkStopped(f"{UNCOMPARED}: {report.error}")
            return candidates

        try:
            candidates = await patiently(attempt, AGAIN, self._target.patience_s)
        except (EmbedderError, ServiceError) as error:
            raise BulkStopped(f"the embedder does not work: {error}") from error
        for row, candidate in zip(rows, candidates, strict=True):
            row.pictures = {}
            check_native(self._collection, candidate)
            if candidate.error is not None:
                _reject(row, candidate.error)
            elif row.object is not None:
                row.object = replace(row.object, vectors=candidate.object.vectors)


class Write:
    """Writes objects to Parquet, and into the collection, so that each one that counts as stored is found there."""

    def __init__(self, target: Target) -> None:
        """Connect to Weaviate."""
        self._target = target
        self._loop = BackgroundLoop()
        self._store = WeaviateStore(target.weaviate)
        self._writes = Writes()
        # It only looks up what named vectors are bound to, which needs no embedder.
        self._writer = Writer(self._store, EmbedderPool([]), self._writes)
        self._duplicates = Duplicates(self._store)
        self._room = asyncio.Semaphore(PARALLEL_WRITES)
        if target.stores:
            self._loop.run(self._store.start())

    def __call__(self, table: pa.Table) -> pa.Table:
        """Write a batch.

        Raises:
            BulkStopped: the store does not answer, or the collection is another one by now; or a file cannot be
                written.
        """
        # Not a generator: Ray takes what one raises for a fault of Ray's.
        done = []
        for part in in_parts(table):
            rows = from_table(part)
            self._write_rows(rows)
            done.append(to_table(rows))
        return pa.concat_tables(done)

    def _write_rows(self, rows: list[Row]) -> None:
        if self._target.stores:
            timed("write", rows, lambda live: self._loop.run(self._write(live)))
        if (output := self._target.output) is not None:
            try:
                timed("write", rows, lambda _: output.write(rows))
            except (BaseError, OSError, LedgerFailed) as error:
                raise BulkStopped(f"{output.location} cannot be written: {error}") from error
        for each in rows:
            each.object = None

    async def _write(self, rows: Sequence[Row]) -> None:
        # The same object twice in a batch is written once.
        firsts: dict[bytes, Row] = {}
        for row in rows:
            firsts.setdefault(row.id, row)
        chosen = list(firsts.values())
        sizes = [each.size for each in chosen]
        parts = [chosen[each] for each in cuts(sizes, WRITE_OBJECTS, WRITE_BYTES)]
        put = Put({}, {})
        for each in await asyncio.gather(*map(self._write_part, parts)):
            put.failures.update(each.failures)
            put.duplicates.update(each.duplicates)
        for row in rows:
            id_ = UUID(bytes=row.id)
            if (failure := put.failures.get(id_)) is not None:
                _reject(row, failure)
            elif (other := put.duplicates.get(id_)) is not None:
                row.duplicates(other)

    async def _write_part(self, rows: Sequence[Row]) -> Put:
        """Write some objects, again if need be, and return the result."""
        objects = {each.object.id: each.object for each in rows if each.object is not None}
        whole = Put({}, {})

        async def attempt() -> None:
            while objects:
                put = await self._put(list(objects.values()))
                _settle(objects, put, whole)
                for error in put.failures.values():
                    if isinstance(error, StoreUnavailable):
                        raise error

        async def watched() -> None:
            try:
                await attempt()
            except StoreUnavailable:
                for each in rows:
                    each.outage = True
                raise

        try:
            async with self._room:
                await patiently(watched, StoreUnavailable, self._target.patience_s)
        except ServiceError as error:
            # An object that is this large is alone in its write. The errors of a tenant are of all objects.
            if type(error) is not StoreRejected or rows[0].size <= WRITE_BYTES:
                raise BulkStopped(f"Weaviate does not take the objects: {error}") from error
            whole.failures.update(dict.fromkeys(objects, error))
        return whole

    async def _put(self, objects: Sequence[StoredObject]) -> Put:
        """Write objects, without those that are left out as duplicates."""
        collection, scope, check = self._target.collection, self._target.scope, self._target.duplicates
        found: dict[UUID, Duplicate] = {}
        async with nullcontext() if check is None else self._duplicates.turn(collection, scope):
            mark = self._writes.ended
            stored = await self._stored(objects)
            if check is not None:
                found = await self._find(check, objects, stored)
            left = [each for each in objects if each.id not in found or not found[each.id].skipped]
            if not left:
                return Put({}, found)
            failures = await self._writer.put(collection, left, stored, mark, scope, again_s=time.monotonic())
            return Put(failures, found)

    async def _find(
        self, check: DuplicateCheck, objects: Sequence[StoredObject], stored: Mapping[UUID, StoredObject]
    ) -> dict[UUID, Duplicate]:
        """Return which objects are duplicates.

        Raises:
            BulkStopped: Weaviate refuses to search.
            StoreUnavailable: it does not answer.
        """
        collection, scope = self._target.collection, self._target.scope
        try:
            return await self._duplicates.find(collection, check, objects, stored, scope)
        except StoreRejected as error:
            raise BulkStopped(f"{UNCOMPARED}: {error}") from error

    async def _stored(self, objects: Sequence[StoredObject]) -> Mapping[UUID, StoredObject]:
        """Return those of some objects that are stored, with their vectors."""
        collection, scope = self._target.collection, self._target.scope
        fields = ReturnFields(vectors=[each.name for each in collection.bound_part.vectors])
        try:
            return await self._store.get_objects(collection.name, [each.id for each in objects], fields, scope)
        except TenantNotFound:
            if not collection.creates_tenants:
                raise
            return {}


def _settle(objects: dict[UUID, StoredObject], last: Put, whole: Put) -> None:
    """Move what the last write has settled from the objects that are left to the whole result."""
    for id_ in list(objects):
        failure, other = last.failures.get(id_), last.duplicates.get(id_)
        if other is not None and other.id in last.failures:
            # What it duplicates is not stored, so nothing says that it is one.
            if other.skipped:
                continue
            other = None
        if isinstance(failure, StoreUnavailable):
            continue
        del objects[id_]
        if failure is not None:
            whole.failures[id_] = failure
        elif other is not None:
            whole.duplicates[id_] = other


def _candidate(row: Row) -> Candidate:
    """Return a row's object as what vectors are made for.

    Its pictures are in the model's size, if they were scaled. Where only a reference is stored, they take its place.
    """
    assert row.object is not None, "the row is alive"
    properties = {name: value for name, value in row.object.properties.items() if name not in row.pictures}
    images = {**row.object.images, **row.pictures}
    # A batch has rows of several fragments, and vectors go to candidates by their paths.
    return Candidate(f"{row.fragment}.row{row.number}", replace(row.object, properties=properties, images=images))


def _reject(row: Row, error: ServiceError | EmbedderError) -> None:
    row.reject(reason_for(error), str(error))
