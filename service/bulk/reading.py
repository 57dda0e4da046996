"""The first stage: rows of a fragment become objects that fit the collection, with ids that stay the same."""

import pickle
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from time import perf_counter
from typing import Any
from uuid import UUID

import pyarrow as pa

from service.bulk.fetching import Fetched, Fetching, Web
from service.bulk.rows import Row, to_table
from service.core.objects.checks import DraftObject, content_id
from service.domain import Collection, StoredObject, hash_image
from service.errors import ImageUnreachable
from service.sources.errors import InvalidSource, RowRefused
from service.sources.fragments import read
from service.sources.mapping import NewObject, Plan
from service.sources.rows import Row as SourceRow

UNREADABLE, REFUSED = "SOURCE_UNREADABLE", "ROW_REFUSED"
"""Why a fragment, or a row, is not stored that becomes no object."""
ROWS, ROWS_BYTES = 64, 8 * 1024 * 1024
"""Rows, and bytes of their pictures, that go to the next stage at a time."""

_Draft = tuple[Row, NewObject | None, SourceRow]
"""A row, its object if it becomes one, and where it comes from."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows become objects.

    Attributes:
        plan: which column is what.
        collection: what objects fit.
        tenant: whose they are; part of ids that come from the content.
        web: from where pictures that rows refer to are fetched.
    """

    plan: Plan
    collection: Collection
    tenant: str
    web: Web

    def of_vectors(self, names: Container[str]) -> "Reading":
        """Return the same, but of references stored alone fetch only pictures that these named vectors are made of."""
        needed = {
            name: made
            for name, vectors in self.plan.references.items()
            if (made := [each for each in vectors if each in names])
        }
        return replace(self, plan=replace(self.plan, references=needed))

    def rows(self, fragment: str, sources: Iterable[SourceRow]) -> Iterator[Row]:
        """Yield rows of a fragment with their objects, or with why they become none.

        Raises:
            InvalidSource: a picture that one refers to cannot be read now, but perhaps later, or here.
        """
        with Fetching(self.web) as fetching:
            drafts = (self._draft(fragment, number, each) for number, each in enumerate(sources))
            for (row, new, where), fetched in fetching.ahead(map(self._with_uris, drafts)):
                if new is not None:
                    self._complete(row, new, fetched, where)
                yield row

    def _draft(self, fragment: str, number: int, source: SourceRow) -> _Draft:
        row = Row(fragment, number, source.where)
        try:
            return row, self.plan.object(source), source
        except RowRefused as error:
            row.reject(REFUSED, ": ".join(filter(None, (error.column, error.reason, error.detail))))
            return row, None, source

    def _with_uris(self, draft: _Draft) -> tuple[_Draft, Mapping[str, str], int]:
        """Return a row with the URIs of what is to be fetched for it, and the bytes of its own pictures."""
        _, new, source = draft
        if new is None:
            return draft, {}, 0
        uris = self.plan.uris(new)
        if uris and not self.web.origins:
            # Rows are not rejected for this: an entry in the ledger would keep them so once there is a list.
            raise InvalidSource(
                source.location,
                f"{source.spot}: it refers to a picture on the web, and no origin is listed; set "
                "VECGATE_FETCH__ORIGINS_FILE",
            )
        return draft, uris, sum(len(each) for each in new.images.values() if isinstance(each, bytes))

    def _complete(self, row: Row, new: NewObject, fetched: Fetched, source: SourceRow) -> None:
        """Give a row its object with the pictures that it refers to."""
        for name, each in fetched.items():
            if isinstance(each, ImageUnreachable) and not each.of_image:
                raise InvalidSource(source.location, f"{source.spot}: the picture cannot be fetched: {each}")
            if not isinstance(each, bytes):
                # With gRPC and metrics, which reading needs for nothing else.
                from service.core.pictures import fault_at  # noqa: PLC0415
                from service.error_table import reason_for  # noqa: PLC0415

                error = fault_at(each, name)
                row.reject(reason_for(error), str(error))
                return
        found = {name: each for name, each in fetched.items() if isinstance(each, bytes)}
        images = {name: found[name] if isinstance(each, str) else each for name, each in new.images.items()}
        row.object = self._stored(new, images)
        row.pictures = {name: each for name, each in found.items() if name not in images}
        row.id = row.object.id.bytes

    def _stored(self, new: NewObject, images: dict[str, bytes]) -> StoredObject:
        id_ = UUID(new.id) if new.id else self._content_id(new, images)
        hashes = {name: hash_image(each) for name, each in images.items() if name in self.collection.hashes}
        return StoredObject(id_, dict(new.properties), images, dict(new.vectors), hashes)

    def _content_id(self, new: NewObject, images: Mapping[str, bytes]) -> UUID:
        """Return the id that the service gives an object of this content."""
        vectors = {name: each.astype("<f4").tobytes() for name, each in new.vectors.items()}
        return content_id(
            self.collection.name, DraftObject("", "", _json(new.properties), images, vectors), self.tenant
        )


def read_fragment(items: pa.Table, reading: Reading) -> Iterator[pa.Table]:
    """Yield the rows of fragments, and after those of each fragment one that says how many they were.

    One that cannot be read to its end ends with the reason instead.
    """
    for item in items.to_pylist():
        fragment = item["name"]
        end = Row(fragment, 0, end=True)
        try:
            for rows in _batches(fragment, pickle.loads(item["fragment"]), reading):  # noqa: S301 -- the driver's
                end.number += len(rows)
                yield to_table(rows)
        except InvalidSource as error:
            end.reject(UNREADABLE, error.reason)
        yield to_table([end])


def _batches(name: str, fragment: Any, reading: Reading) -> Iterator[list[Row]]:
    """Yield the rows of a fragment, a few at a time, each with the time that it took."""
    batch: list[Row] = []
    size = 0
    start_s = perf_counter()
    for row in reading.rows(name, chain.from_iterable(read(fragment, reading.plan.columns))):
        row.seconds["read"], start_s = (now_s := perf_counter()) - start_s, now_s
        images = {} if row.object is None else row.object.images
        size += sum(map(len, (*images.values(), *row.pictures.values())))
        batch.append(row)
        if len(batch) == ROWS or size > ROWS_BYTES:
            yield batch
            batch, size, start_s = [], 0, perf_counter()
    if batch:
        yield batch


def _json(value: Any) -> Any:
    """Return a value as the API has it: all numbers are floats there, and ids are made of that."""
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case Mapping():
            return {name: _json(each) for name, each in value.items()}
        case list():
            return [_json(each) for each in value]
    return value
