"""WebDataset: a tar whose neighbouring members with the same name up to the first dot are a row."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from service.domain.collections import DataType
from service.domain.keys import normal_path
from service.sources.errors import InvalidSource
from service.sources.rows import MAX_VALUE_BYTES, Row, first_rows, in_batches
from service.sources.schema import Column, Schema, column_of_value, merged
from service.sources.storage import Entry, open_file

KIND = "webdataset"
KEY = "__key__"
TEXTS = frozenset({"txt", "text", "transcript", "caption"})
NUMBERS = frozenset({"cls", "cls2", "class", "count", "index", "inx", "id"})
JSONS = frozenset({"json", "jsn"})
MAX_HEADER_BYTES = 2**20
"""Of what stands before a member: long names and attributes. One gigabyte may be declared there, too."""


def schema(entry: Entry) -> Schema:
    """Return a tar's columns, by its first rows.

    Raises:
        InvalidSource: it is not a tar, or damaged.
    """
    sample = first_rows(read(entry, None))
    columns = ([column_of_value(name, value) for name, value in row.values.items()] for row in sample)
    key = Column(KEY, DataType.TEXT, "text")
    return Schema(KIND, merged(entry.location, ([key], *columns)))


def read(entry: Entry, columns: Sequence[str] | None) -> Iterator[list[Row]]:
    """Yield the rows of a tar, with the named columns: `__key__`, and one for each suffix.

    Texts (txt) and whole numbers (cls) are read as such, everything else is bytes. Of a JSON object the keys are
    columns, unless a member has that suffix.

    Raises:
        InvalidSource: it is not a tar, or damaged.
    """
    return in_batches(_rows(entry), columns)


def _rows(entry: Entry) -> Iterator[Row]:
    row: Row | None = None
    number = 0
    with open_file(entry) as raw:
        try:
            for key, suffix, content, fault in _members(entry, raw):
                if row is None or row.values[KEY] != key or suffix in row.values:
                    if row is not None:
                        yield _spread(row)
                    number += 1
                    row = Row(entry.location, number, {KEY: key}, f"key {key}")
                _add(row, suffix, content, fault)
        except InvalidSource:
            if row is not None:
                # More members of it may have followed.
                row.fault = row.fault or "the file is damaged before the end of this row"
                yield row
            raise
    if row is not None:
        yield _spread(row)


def _add(row: Row, suffix: str, content: bytes, fault: str) -> None:
    if fault:
        row.fault = row.fault or fault
        return
    try:
        row.values[suffix] = _decoded(suffix, content)
    except (ValueError, RecursionError) as error:
        row.fault, row.detail = f"the member {suffix} cannot be read", str(error)[:200]


def _members(entry: Entry, raw: BinaryIO) -> Iterator[tuple[str, str, bytes, str]]:
    """Yield key, suffix, content and fault of each member. Nothing is written anywhere, whatever names say."""
    name = ""
    source = _Bounded(cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if entry.location.endswith("gz") else raw)
    try:
        with cast(Any, tarfile.open(fileobj=cast(Any, source), mode="r:")) as tar:
            while True:
                source.bound = MAX_HEADER_BYTES
                member: tarfile.TarInfo | None = tar.next()
                if member is None:
                    return
                # The tar would keep every member of a shard.
                tar.members = []
                name = normal_path(member.name)
                if member.isdir():
                    continue
                folder, _, base = name.rpartition("/")
                stem, _, suffix = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                fault = _fault(member)
                source.bound = MAX_VALUE_BYTES
                content = b"" if fault else tar.extractfile(member).read()
                yield key, suffix.lower(), content, fault
    except (tarfile.TarError, EOFError, OSError, _TooLong, ValueError) as error:
        if isinstance(error.__cause__, InvalidSource):
            raise error.__cause__ from error
        after = f" after {name!r}" if name else ""
        raise InvalidSource(entry.location, f"it is not a tar, or damaged{after}: {str(error)[:200]}") from error


def _fault(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a member is a link"
    if not member.isreg() or member.issparse():
        return "a member is not a plain file"
    if member.size > MAX_VALUE_BYTES:
        return f"a member has more than {MAX_VALUE_BYTES} bytes"
    return ""


def _decoded(suffix: str, content: bytes) -> Any:
    last = suffix.rpartition(".")[2]
    if last in TEXTS:
        return content.decode().strip("\ufeff\n")
    if last in NUMBERS:
        return int(content)
    if last in JSONS:
        return json.loads(content)
    return content


def _spread(row: Row) -> Row:
    """Return a row with the keys of its JSON as columns in its place."""
    for suffix in JSONS & row.values.keys():
        if isinstance(inner := row.values[suffix], dict):
            others = {name: value for name, value in row.values.items() if name != suffix}
            row.values = {**inner, **others}
    return row


class _TooLong(Exception):
    """More was asked for at once than a tar in order asks for."""


class _Bounded(io.RawIOBase):
    """A file of which nothing longer than a bound is read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bound = MAX_HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.bound:
            raise _TooLong(f"{size} bytes are declared; the limit is {self.bound}")
        return self._file.read(size)

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
