"""Pictures in a folder, some of them a fragment."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

from embedders.images import formats
from service.domain.collections import DataType
from service.domain.keys import normal_path
from service.sources.errors import InvalidSource
from service.sources.rows import MAX_VALUE_BYTES, Row, in_batches
from service.sources.schema import Column, Schema
from service.sources.storage import Entry, look_at, read_entry

KIND = "pictures"
FILE, IMAGE = "file", "image"
SUFFIXES = frozenset(suffix for suffixes in formats.SUFFIXES.values() for suffix in suffixes)
# Where a fragment ends depends on the names around it alone, so that one more picture changes one fragment.
USUAL_FILES = 256
MAX_FILES = 1024
SCHEMA = Schema(KIND, (Column(FILE, DataType.TEXT, "text"), Column(IMAGE, DataType.BLOB, "bytes")))


def parts(folder: str, entries: Iterable[Entry]) -> list[tuple[str, str]]:
    """Return pictures in parts, each with its identity."""
    found = []
    some: list[Entry] = []
    for entry in entries:
        some.append(entry)
        name = entry.location[len(folder) + 1 :]
        if len(some) == MAX_FILES or not crc32(name.encode(errors="surrogateescape")) % USUAL_FILES:
            found.append(_part(folder, some))
            some = []
    return [*found, _part(folder, some)] if some else found


def _part(folder: str, entries: Sequence[Entry]) -> tuple[str, str]:
    names = [each.location[len(folder) + 1 :] for each in entries]
    return json.dumps(names), _identity([each.identity for each in entries])


def _identity(identities: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(identities).encode()).hexdigest()


def read(folder: str, part: str, identity: str, columns: Sequence[str] | None) -> Iterator[list[Row]]:
    """Yield a row for each picture of a part, with the columns `file`, its path in the folder, and `image`.

    Raises:
        InvalidSource: a picture cannot be read now, but perhaps later, or one of them was changed, which is told at
            the end.
    """

    def rows() -> Iterator[Row]:
        names = json.loads(part)
        identities = []
        for number, name in enumerate(names, start=1):
            row = Row(folder, number, {FILE: normal_path(name)}, normal_path(name))
            if columns is None or IMAGE in columns:
                try:
                    entry = look_at(f"{folder}/{name}")
                    identities.append(entry.identity)
                    row.values[IMAGE] = read_entry(entry, MAX_VALUE_BYTES)
                except InvalidSource as error:
                    if not error.final:
                        raise InvalidSource(folder, f"{normal_path(name)}: {error.reason}") from error
                    row.fault, row.detail = "the file cannot be read", error.reason
            yield row
        # One that is missing was refused as a row.
        if len(identities) == len(names) and _identity(identities) != identity:
            raise InvalidSource(folder, "a picture has changed since it was found; run the command again")

    return in_batches(rows())
