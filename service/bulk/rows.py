"""Rows on their way through the pipeline, and their form between two stages: tables of Arrow."""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from service.core.objects.duplicates import Duplicate
from service.domain import StoredObject

STAGES = ("read", "decode", "embed", "write")
"""What is done with a row, one after the other."""
PART_BYTES = 64 * 1024 * 1024
"""Bytes of the objects that a stage has in hand at a time, unless a single one has more."""

DUPLICATE_OF = pa.struct(
    [("id", pa.binary()), ("cosine", pa.float64()), ("same_content", pa.bool_()), ("skipped", pa.bool_())]
)
SCHEMA = pa.schema(
    [
        ("fragment", pa.string()),
        ("number", pa.int64()),
        ("place", pa.string()),
        ("end", pa.bool_()),
        ("id", pa.binary()),
        ("object", pa.large_binary()),
        ("pictures", pa.large_binary()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("outage", pa.bool_()),
        ("duplicate_of", DUPLICATE_OF),
        *((f"{stage}_s", pa.float64()) for stage in STAGES),
    ]
)


@dataclass(slots=True)
class Row:
    """A row of the input.

    Attributes:
        fragment: the name of its fragment in the ledger.
        number: its number in the fragment, from 0.
        place: where it is in its file, for people.
        end: whether this is no row, but says that the fragment ends after so many rows.
        id: of the object that it becomes, 16 bytes; empty if it becomes none.
        object: what to store, first without computed vectors; None once it is stored.
        pictures: what is embedded but not stored, by property: pictures in the size that the model reads, where the
            embedder does not read them itself, and those of which only the reference is stored.
        reason: why it is not stored, as the name of an ErrorReason; empty if nothing is wrong.
        message: the same in words.
        outage: whether Weaviate did not answer when it was written first.
        seconds: how long it took, by stage.
        duplicate_of: the object that it duplicates, if that was asked for.
    """

    fragment: str
    number: int
    place: str = ""
    end: bool = False
    id: bytes = b""
    object: StoredObject | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    reason: str = ""
    message: str = ""
    outage: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    duplicate_of: Duplicate | None = None

    @property
    def live(self) -> bool:
        """Whether there is still an object to be made of it."""
        return self.object is not None and not self.reason

    @property
    def size(self) -> int:
        """About how many bytes its object has in a write, where pictures are Base64."""
        if (it := self.object) is None:
            return 0
        texts = sum(len(str(value)) for value in it.properties.values())
        vectors = sum(each.nbytes for each in it.vectors.values())
        return texts + sum(map(len, it.images.values())) * 4 // 3 + vectors

    def reject(self, reason: str, message: str) -> None:
        """Note why it is not stored, and let go of its content."""
        self.reason, self.message, self.object, self.pictures = reason, message, None, {}

    def duplicates(self, other: Duplicate) -> None:
        """Note what it duplicates, and let go of its content if it is left out."""
        self.duplicate_of = other
        if other.skipped:
            self.object, self.pictures = None, {}


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table."""
    columns: dict[str, list[Any]] = {
        "fragment": [each.fragment for each in rows],
        "number": [each.number for each in rows],
        "place": [each.place for each in rows],
        "end": [each.end for each in rows],
        "id": [each.id for each in rows],
        "object": [None if each.object is None else pickle.dumps(each.object, 5) for each in rows],
        "pictures": [pickle.dumps(each.pictures, 5) if each.pictures else None for each in rows],
        "reason": [each.reason for each in rows],
        "message": [each.message for each in rows],
        "outage": [each.outage for each in rows],
        "duplicate_of": [
            each.duplicate_of and asdict(each.duplicate_of) | {"id": each.duplicate_of.id.bytes} for each in rows
        ],
        **{f"{stage}_s": [each.seconds.get(stage, 0.0) for each in rows] for stage in STAGES},
    }
    return pa.table(columns, SCHEMA)


def from_table(table: pa.Table) -> list[Row]:
    """Return the rows of a table that `to_table` made."""
    objects, pictures = _unpickled(table["object"]), _unpickled(table["pictures"])
    return [
        Row(
            each["fragment"],
            each["number"],
            each["place"],
            each["end"],
            each["id"],
            object_,
            some or {},
            each["reason"],
            each["message"],
            each["outage"],
            {stage: each[f"{stage}_s"] for stage in STAGES},
            (found := each["duplicate_of"]) and Duplicate(**found | {"id": UUID(bytes=found["id"])}),
        )
        for each, object_, some in zip(
            table.drop_columns(["object", "pictures"]).to_pylist(), objects, pictures, strict=True
        )
    ]


def _unpickled(column: pa.ChunkedArray) -> list[Any]:
    """Return what `to_table` pickled, read where it lies: pictures are most of a row, and a copy costs."""
    return [pickle.loads(each.as_buffer()) if each.is_valid else None for each in column]  # noqa: S301 -- by to_table


def cuts(sizes: Sequence[int], most: int, max_bytes: int) -> Iterator[slice]:
    """Yield slices of at most so many items, and so many bytes unless a single item has more.

    Args:
        sizes: the bytes of each item.
        most: items of a slice.
        max_bytes: bytes of a slice.
    """
    start = total = 0
    for place, size in enumerate(sizes):
        if place > start and (place - start == most or total + size > max_bytes):
            yield slice(start, place)
            start, total = place, 0
        total += size
    yield slice(start, len(sizes))


def in_parts(table: pa.Table) -> Iterator[pa.Table]:
    """Yield a batch in parts whose objects fit in memory: Ray makes batches by rows, whatever they weigh."""
    lengths = [pc.fill_null(pc.binary_length(table[name]), 0) for name in ("object", "pictures")]
    sizes = pc.add(*lengths).to_pylist()
    for part in cuts(sizes, len(sizes), PART_BYTES):
        yield table.slice(part.start, part.stop - part.start)


def timed(stage: str, rows: Sequence[Row], work: Callable[[list[Row]], None]) -> None:
    """Do the work of a stage with those rows that are still alive, and note how long it took.

    Args:
        stage: one of STAGES.
        rows: a batch.
        work: changes rows.
    """
    live = [each for each in rows if each.live]
    if not live:
        return
    start_s = perf_counter()
    work(live)
    each_s = (perf_counter() - start_s) / len(live)
    for each in live:
        each.seconds[stage] = each.seconds.get(stage, 0.0) + each_s
