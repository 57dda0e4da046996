"""The first stage: rows of a fragment become objects that fit the collection, with ids that stay the same."""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from uuid import UUID

import pyarrow as pa

from service.bulk.rows import Row, to_table
from service.core.objects.checks import DraftObject, content_id
from service.domain import Collection, StoredObject, hash_image
from service.sources.errors import InvalidSource, RowRefused
from service.sources.fragments import read
from service.sources.mapping import NewObject, Plan
from service.sources.rows import Row as SourceRow

UNREADABLE, REFUSED = "SOURCE_UNREADABLE", "ROW_REFUSED"
"""Why a fragment, or a row, is not stored that becomes no object."""
ROWS, ROWS_BYTES = 64, 8 * 1024 * 1024
"""Rows, and bytes of their pictures, that go to the next stage at a time."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows become objects.

    Attributes:
        plan: which column is what.
        collection: what objects fit.
        tenant: whose they are; part of ids that come from the content.
    """

    plan: Plan
    collection: Collection
    tenant: str

    def row(self, fragment: str, number: int, source: SourceRow) -> Row:
        """Return a row of a fragment with its object, or with why it becomes none.

        Raises:
            InvalidSource: a picture that it refers to cannot be read now, but perhaps later.
        """
        row = Row(fragment, number, source.where)
        try:
            row.object = self._stored(self.plan.object(source))
        except RowRefused as error:
            row.reject(REFUSED, ": ".join(filter(None, (error.column, error.reason, error.detail))))
        else:
            row.id = row.object.id.bytes
        return row

    def _stored(self, new: NewObject) -> StoredObject:
        images = dict(new.images)
        id_ = UUID(new.id) if new.id else self._content_id(new)
        hashes = {name: hash_image(each) for name, each in images.items() if name in self.collection.hashes}
        return StoredObject(id_, dict(new.properties), images, dict(new.vectors), hashes)

    def _content_id(self, new: NewObject) -> UUID:
        """Return the id that the service gives an object of this content."""
        vectors = {name: each.astype("<f4").tobytes() for name, each in new.vectors.items()}
        return content_id(
            self.collection.name, DraftObject("", "", _json(new.properties), new.images, vectors), self.tenant
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
    count = size = 0
    start_s = perf_counter()
    for sources in read(fragment, reading.plan.columns):
        for source in sources:
            row = reading.row(name, count, source)
            row.seconds["read"], start_s = (now_s := perf_counter()) - start_s, now_s
            count += 1
            size += 0 if row.object is None else sum(map(len, row.object.images.values()))
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
