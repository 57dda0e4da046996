"""CSV and JSONL: lines of bounded length, each a row."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NoReturn

from service.domain.collections import DataType
from service.domain.keys import separator_fault
from service.sources.errors import InvalidSource
from service.sources.rows import Row, first_rows, in_batches
from service.sources.schema import Column, Schema, column_of_value, merged
from service.sources.storage import Entry, open_file

CSV, JSONL = "csv", "jsonl"
MAX_LINE_BYTES = 2**25
"""Of a line of a table; a longer one ends the reading."""
FRAGMENT_BYTES = 2**26
"""A longer JSONL is divided into ranges of so many bytes. CSV is not: a cell may contain line ends."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)")


def parts(kind: str, entry: Entry) -> list[str]:
    """Return the parts of a file: ranges of bytes, whose ends need not be those of lines."""
    step = FRAGMENT_BYTES if kind == JSONL else max(1, entry.size)
    return [f"bytes {start}-{min(start + step, entry.size)}" for start in range(0, entry.size, step)]


def schema(kind: str, entry: Entry) -> Schema:
    """Return a file's columns: of CSV by its first line, of JSONL by its first rows.

    Raises:
        InvalidSource: it cannot be read.
    """
    if kind == CSV:
        with open_file(entry) as file:
            header = _header(entry.location, csv.reader(_texts(entry.location, file), strict=True))
        return Schema(CSV, tuple(Column(each, DataType.TEXT, "text", loose=True) for each in header))
    sample = first_rows(read(kind, entry, f"bytes 0-{entry.size}", None))
    columns = ([column_of_value(name, value) for name, value in row.values.items()] for row in sample)
    return Schema(JSONL, merged(entry.location, columns))


def read(kind: str, entry: Entry, part: str, columns: Sequence[str] | None) -> Iterator[list[Row]]:
    """Yield the rows of a part, with the named columns.

    Raises:
        InvalidSource: it cannot be read, or is not such a table.
    """
    found = _RANGE.fullmatch(part)
    if found is None:
        raise InvalidSource(entry.location, f"{part!r} is not a range of bytes")

    def rows() -> Iterator[Row]:
        with open_file(entry) as file:
            yield from _csv(entry, file) if kind == CSV else _jsonl(entry, file, int(found[1]), int(found[2]))

    return in_batches(rows(), columns)


def _csv(entry: Entry, file: BinaryIO) -> Iterator[Row]:
    reader = csv.reader(_texts(entry.location, file), strict=True)
    header = _header(entry.location, reader)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InvalidSource(entry.location, f"line {reader.line_num} is not CSV: {error}") from error
        if cells is None:
            return
        line = reader.line_num
        row = Row(entry.location, line, place=f"line {line}")
        if len(cells) != len(header):
            if not cells:
                continue
            row.fault = f"the row has more or fewer cells than the {len(header)} columns"
        else:
            row.values = {name: cell or None for name, cell in zip(header, cells, strict=True)}
        yield row


def _header(location: str, reader: Any) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise InvalidSource(location, f"line 1 is not CSV: {error}") from error
    if fault := separator_fault(header):
        raise InvalidSource(location, f"it has {fault}")
    twice = sorted({each for each in header if header.count(each) > 1})
    if not header or twice:
        raise InvalidSource(location, f"it has the column {twice[0]!r} twice" if twice else "it is empty")
    return header


def _jsonl(entry: Entry, file: BinaryIO, start: int, end: int) -> Iterator[Row]:
    if start:
        # The line that begins before the range belongs to the range before.
        file.seek(start - 1)
        _line(entry.location, file, start)
    number = 0
    while (at := file.tell()) < end:
        number += 1
        line = _line(entry.location, file, at)
        place = f"line {number}" if not start else f"line {number} after byte {start}"
        if not line.strip():
            continue
        row = Row(entry.location, number, place=place)
        try:
            values = json.loads(line.decode("utf-8-sig"), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            row.fault, row.detail = "the line is not JSON", str(error)[:200]
        else:
            if isinstance(values, dict):
                row.values = values
            else:
                row.fault = "the line is not a JSON object"
        yield row


def _texts(location: str, file: BinaryIO) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        line = _line(location, file, file.tell())
        if not line:
            return
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidSource(location, f"line {number} is not in UTF-8") from error


def _line(location: str, file: BinaryIO, at: int) -> bytes:
    line = file.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise InvalidSource(location, f"the line at byte {at} is longer than {MAX_LINE_BYTES} bytes")
    return line


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
