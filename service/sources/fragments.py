"""What there is to read, in fragments: units of work that may be read anywhere, in any order, and again."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.sources import parquet, pictures, tars, text
from service.sources.errors import InvalidSource
from service.sources.rows import Row
from service.sources.schema import Schema, merged
from service.sources.storage import Entry, find, look_at

SUFFIXES = {
    ".parquet": parquet.KIND,
    ".parq": parquet.KIND,
    ".pq": parquet.KIND,
    ".tar": tars.KIND,
    ".tar.gz": tars.KIND,
    ".tgz": tars.KIND,
    ".csv": text.CSV,
    ".jsonl": text.JSONL,
    ".ndjson": text.JSONL,
}
FILES_AT_ONCE = 16
"""Files that are looked into at the same time."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a source.

    Attributes:
        location: the file, or for pictures the folder: a URL or an absolute path.
        kind: parquet, webdataset, csv, jsonl or pictures.
        part: which part of it: row groups, bytes, or pictures by name; empty for all.
        identity: another text whenever the content is another one.
    """

    location: str
    kind: str
    part: str
    identity: str


def kind_of(location: str) -> str:
    """Return the kind of a file by its name; empty if it is unknown."""
    name = location.rpartition("/")[2].lower()
    if name.endswith(tuple(pictures.SUFFIXES)):
        return pictures.KIND
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), "")


def fragments(locations: Sequence[str]) -> list[Fragment]:
    """Return the fragments of files, folders and patterns, on disks, object stores and web servers.

    Where a folder holds tables, their rows are what is read, and pictures only where rows refer to them; else each of
    its pictures is a row. Files of other kinds are passed over, and tables whose names begin with _ or a dot.

    Raises:
        InvalidSource: there is nothing, it cannot be read, or there are several kinds of it.
    """
    found = [each for location in locations for each in _fragments(location)]
    kinds = sorted({each.kind for each in found})
    if len(kinds) > 1:
        raise InvalidSource(", ".join(locations), f"there are several kinds of files ({', '.join(kinds)}); name one")
    if not found:
        raise InvalidSource(", ".join(locations), "there are no rows")
    return list(dict.fromkeys(found))


def schema(found: Sequence[Fragment]) -> Schema:
    """Return the columns of fragments: of all Parquet and CSV files, and of the first rows of the first other file.

    Raises:
        InvalidSource: a file cannot be read, or two files have different types for one column.
    """
    first = found[0]
    if first.kind == pictures.KIND:
        return pictures.SCHEMA
    locations = list(dict.fromkeys(each.location for each in found))
    if first.kind not in {parquet.KIND, text.CSV}:
        locations = locations[:1]

    def of_file(location: str) -> Schema:
        entry = look_at(location)
        if first.kind == parquet.KIND:
            return parquet.schema(entry)
        return tars.schema(entry) if first.kind == tars.KIND else text.schema(first.kind, entry)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        schemas = list(pool.map(of_file, locations))
    columns = schemas[0].columns
    for location, each in zip(locations[1:], schemas[1:], strict=True):
        columns = merged(location, (columns, each.columns))
    return Schema(first.kind, columns)


def read(fragment: Fragment, columns: Sequence[str] | None = None) -> Iterator[list[Row]]:
    """Yield the rows of a fragment in batches of about 32 MiB and at most 1000 rows.

    Args:
        fragment: what to read.
        columns: the names of the columns to read; None for all.

    Raises:
        InvalidSource: it cannot be read, or has changed since it was found.
    """
    if fragment.kind == pictures.KIND:
        return pictures.read(fragment.location, fragment.part, fragment.identity, columns)
    entry = look_at(fragment.location)
    if entry.identity != fragment.identity:
        raise InvalidSource(fragment.location, "it has changed since it was found; run the command again")
    if fragment.kind == parquet.KIND:
        return parquet.read(entry, fragment.part, columns)
    if fragment.kind == tars.KIND:
        return tars.read(entry, columns)
    return text.read(fragment.kind, entry, fragment.part, columns)


def _fragments(location: str) -> list[Fragment]:
    folder, entries = find(location)
    alone = len(entries) == 1
    tables = [(kind, each) for each in entries if (kind := _table_kind(each, named=alone))]
    if tables:
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            parts = pool.map(_parts, tables)
            return [
                Fragment(entry.location, kind, part, entry.identity)
                for (kind, entry), some in zip(tables, parts, strict=True)
                for part in some
            ]
    images = [each for each in entries if kind_of(each.location) == pictures.KIND]
    if not images:
        known = ", ".join(sorted(SUFFIXES))
        raise InvalidSource(location, f"there are no tables ({known}) and no pictures")
    return [Fragment(folder, pictures.KIND, part, identity) for part, identity in pictures.parts(folder, images)]


def _table_kind(entry: Entry, *, named: bool) -> str:
    name = entry.location.rpartition("/")[2]
    kind = kind_of(entry.location)
    hidden = name.startswith(("_", ".")) and not named
    return "" if hidden or kind == pictures.KIND else kind


def _parts(table: tuple[str, Entry]) -> list[str]:
    kind, entry = table
    if kind == parquet.KIND:
        return parquet.parts(entry)
    return [""] if kind == tars.KIND else text.parts(kind, entry)
