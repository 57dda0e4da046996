"""Rows, and the batches that bound what is in memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.domain.keys import as_text
from service.sources.errors import InvalidSource

MAX_VALUE_BYTES = 2**27
"""Of one value of a row, such as a picture; a row with a larger one is refused."""
SAMPLE_ROWS = 1000
"""The first rows of a JSONL or a tar, of which its types are learnt."""
BATCH_ROWS = 1000
BATCH_BYTES = 2**25


@dataclass(slots=True)
class Row:
    """A row of a source.

    Attributes:
        location: the file that it is in.
        number: its number there, from 1; of a picture in a folder, its number in the fragment.
        values: Python values by column: None, bool, int, float, Decimal, str, bytes, datetime, date, UUID, and lists
            and dicts of these.
        place: where it is in the file, for people, such as "row 12".
        fault: why it cannot be used; empty if it can.
        detail: what else is known of the fault.
    """

    location: str
    number: int
    values: dict[str, Any] = field(default_factory=dict)
    place: str = ""
    fault: str = ""
    detail: str = ""

    @property
    def spot(self) -> str:
        """Where it is in the file, for people."""
        return self.place or f"row {self.number}"

    @property
    def where(self) -> str:
        """Where it is, for people, with the file's name."""
        return as_text(f"{self.location.rpartition('/')[2]}, {self.spot}")


def in_batches(rows: Iterable[Row], columns: Sequence[str] | None = None) -> Iterator[list[Row]]:
    """Yield rows in lists of about BATCH_BYTES and at most BATCH_ROWS; those before a fault of the file, too.

    Args:
        rows: the rows.
        columns: the names of the columns to keep; None for all.

    Raises:
        InvalidSource: there are no more rows, because the file is damaged.
    """
    batch: list[Row] = []
    size = 0
    fault: InvalidSource | None = None
    try:
        for row in rows:
            if columns is not None:
                row.values = {name: row.values[name] for name in columns if name in row.values}
            batch.append(row)
            size += size_of(row.values)
            if size >= BATCH_BYTES or len(batch) >= BATCH_ROWS:
                yield batch
                batch, size = [], 0
    except InvalidSource as error:
        fault = error
    if batch:
        yield batch
    if fault is not None:
        raise fault


def first_rows(batches: Iterable[list[Row]]) -> list[Row]:
    """Return the first rows without a fault, by which types are learnt.

    Raises:
        InvalidSource: there are none, because the file is damaged.
    """
    found: list[Row] = []
    try:
        for batch in batches:
            found += (row for row in batch if not row.fault)
            if len(found) >= SAMPLE_ROWS:
                break
    except InvalidSource:
        if not found:
            raise
    return found[:SAMPLE_ROWS]


def size_of(value: Any) -> int:
    """Return about how many bytes a value takes."""
    match value:
        case str() | bytes():
            return len(value)
        case list():
            return sum(map(size_of, value))
        case Mapping():
            return sum(map(size_of, value.values()))
    return 8
