"""Parquet: row groups as fragments, read in batches of bounded size."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.domain.collections import DataType
from service.sources.errors import InvalidSource
from service.sources.rows import BATCH_BYTES, BATCH_ROWS, Row
from service.sources.schema import ARRAYS, NOTHING, Column, Schema
from service.sources.storage import Entry, open_file

KIND = "parquet"
SPACE_KEY = "vecgate.space"
"""In the metadata of a file or of a column: the space of vectors."""
FRAGMENT_BYTES = 2**26
"""Row groups that are smaller together are one fragment."""
MAX_FOOTER_VALUES = 2**22
"""Of each list in a footer. A damaged one may claim any number."""
MAX_FOOTER_TEXT_BYTES = 2**26
_PART = re.compile(r"row groups (\d+)-(\d+)")


def parts(entry: Entry) -> list[str]:
    """Return the parts of a file: ranges of row groups.

    Raises:
        InvalidSource: it is not Parquet, or damaged.
    """
    with _opened(entry) as file:
        sizes = [_group(file, each).total_byte_size for each in range(file.metadata.num_row_groups)]
    found: list[str] = []
    start = total = 0
    for at, size in enumerate(sizes):
        total += size
        if total >= FRAGMENT_BYTES or at == len(sizes) - 1:
            found.append(f"row groups {start}-{at}")
            start, total = at + 1, 0
    return found


def schema(entry: Entry) -> Schema:
    """Return a file's columns.

    Raises:
        InvalidSource: it is not Parquet, or damaged.
    """
    with _opened(entry) as file:
        arrow = file.schema_arrow
        told = {**(file.metadata.metadata or {}), **(arrow.metadata or {})}
        space = _text(told.get(SPACE_KEY.encode()))
        columns = tuple(_column(arrow.field(at), space) for at in range(len(arrow.names)))
        return Schema(KIND, columns)


def read(entry: Entry, part: str, columns: Sequence[str] | None) -> Iterator[list[Row]]:
    """Yield the rows of a part, with the named columns.

    Raises:
        InvalidSource: it is damaged.
    """
    found = _PART.fullmatch(part)
    if found is None:
        raise InvalidSource(entry.location, f"{part!r} is not a range of row groups")
    with _opened(entry, for_rows=True) as file:
        number = sum(_group(file, each).num_rows for each in range(int(found[1])))
        for at in range(int(found[1]), int(found[2]) + 1):
            group = _group(file, at)
            row_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
            count = max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes))
            names = None if columns is None else list(columns)
            try:
                # Threads would read several column chunks at the same time, whole.
                for batch in file.iter_batches(count, row_groups=[at], columns=names, use_threads=False):
                    yield _rows(entry.location, batch, number)
                    number += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                reason = f"row group {at} cannot be read from row {number + 1} on: {_first_line(error)}"
                raise InvalidSource(entry.location, reason) from error


@contextmanager
def _opened(entry: Entry, *, for_rows: bool = False) -> Iterator[pq.ParquetFile]:
    options: dict[str, Any] = {
        # A column chunk may be larger than memory: it is read in pieces, none ahead.
        "pre_buffer": False,
        "buffer_size": 2**20,
        # As Spark and Impala write times.
        "coerce_int96_timestamp_unit": "us",
        "thrift_string_size_limit": MAX_FOOTER_TEXT_BYTES,
        "thrift_container_size_limit": MAX_FOOTER_VALUES,
    }
    with open_file(entry) as raw:
        try:
            file = pq.ParquetFile(raw, **options)
            if for_rows:
                # One picture may stand for a million rows, which would be as many copies of it.
                columns = _dictionaries(file)
                file = pq.ParquetFile(raw, metadata=file.metadata, read_dictionary=columns, **options)
        except (pa.ArrowException, OSError) as error:
            raise InvalidSource(entry.location, f"it is not Parquet, or damaged: {_first_line(error)}") from error
        twice = {each for each in file.schema_arrow.names if file.schema_arrow.names.count(each) > 1}
        if twice:
            raise InvalidSource(entry.location, f"it has two columns of the name {min(twice)!r}")
        yield file


def _dictionaries(file: pq.ParquetFile) -> list[str]:
    """Return the columns of bytes and texts that have a dictionary, by their paths; not those in lists."""
    found = set()
    for group in range(file.metadata.num_row_groups):
        for at, column in enumerate(file.schema):
            chunk = _group(file, group).column(at)
            if column.max_repetition_level == 0 and chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page:
                found.add(chunk.path_in_schema)
    return sorted(found)


def _group(file: pq.ParquetFile, at: int) -> Any:
    return file.metadata.row_group(at)


def _rows(location: str, batch: pa.RecordBatch, before: int) -> list[Row]:
    names = batch.schema.names
    columns = [_values(batch.column(at)) for at in range(len(names))]
    rows = [Row(location, before + at + 1) for at in range(batch.num_rows)]
    for name, values in zip(names, columns, strict=True):
        for row, value in zip(rows, values, strict=True):
            if isinstance(value, _Unreadable):
                row.fault, row.detail = "a value cannot be read", f"{name}: {value}"
            else:
                row.values[name] = value
    return rows


class _Unreadable(str):
    """Why Python has no such value."""

    __slots__ = ()


def _values(column: pa.Array) -> list[Any]:
    """Return the values of a column; rows with one entry of a dictionary share its value."""
    if (exact := _in_microseconds(column.type)) != column.type:
        column = column.cast(exact, safe=False)
    if pa.types.is_dictionary(column.type):
        words = _values(column.dictionary)
        return [None if each is None else words[each] for each in column.indices.to_pylist()]
    if pa.types.is_struct(column.type):
        names = [each.name for each in column.type]
        fields = zip(*map(_values, column.flatten()), strict=True) if names else [()] * len(column)
        return [
            None if null else _struct(names, values)
            for null, values in zip(column.is_null().to_pylist(), fields, strict=True)
        ]
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # such as the year 20000, or a text that is not UTF-8
        return [_value(each) for each in column]


def _struct(names: list[str], values: tuple[Any, ...]) -> Any:
    unreadable = (each for each in values if isinstance(each, _Unreadable))
    return next(unreadable, None) or dict(zip(names, values, strict=True))


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return _Unreadable(_first_line(error))


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """Return a type with times in microseconds, the finest that Python has."""
    types = pa.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_struct(kind):
        return pa.struct([each.with_type(_in_microseconds(each.type)) for each in kind])
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    return kind


def _column(field: pa.Field, space: str = "") -> Column:
    """Return the column of an Arrow field."""
    kind = field.type
    words = str(kind)
    told = field.metadata or {}
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_picture(kind):
        return Column(field.name, DataType.BLOB, words)
    if pa.types.is_struct(kind):
        nested = tuple(_column(each) for each in kind)
        return Column(field.name, DataType.OBJECT, words, nested)
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or _is_view(kind):
        inner = _column(kind.value_field)
        words = f"list<{NOTHING}>" if inner.words == NOTHING else words
        array = DataType.TEXT_ARRAY if inner.words == NOTHING else ARRAYS.get(inner.type) if inner.type else None
        length = kind.list_size if types.is_fixed_size_list(kind) else None
        of_space = _text(told.get(SPACE_KEY.encode())) or space if array is DataType.NUMBER_ARRAY else ""
        return Column(field.name, array, words, inner.nested, length=length, space=of_space)
    return Column(field.name, _type(kind), NOTHING if types.is_null(kind) else words)


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _is_picture(kind: pa.DataType) -> bool:
    """Whether it is the struct in which Hugging Face's data sets keep pictures."""
    if not pa.types.is_struct(kind) or {each.name for each in kind} != {"bytes", "path"}:
        return False
    return _type(kind.field("bytes").type) is DataType.BLOB


def _type(kind: pa.DataType) -> DataType | None:
    types = pa.types
    if isinstance(kind, pa.UuidType):
        return DataType.UUID
    tests = {
        DataType.TEXT: (types.is_string, types.is_large_string, types.is_string_view),
        DataType.BOOLEAN: (types.is_boolean,),
        DataType.INT: (types.is_integer,),
        DataType.NUMBER: (types.is_floating, types.is_decimal),
        DataType.DATE: (types.is_timestamp, types.is_date),
        DataType.BLOB: (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view),
    }
    return next((each for each, among in tests.items() if any(test(kind) for test in among)), None)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
