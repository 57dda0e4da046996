"""The table of properties beside a folder of pictures: a CSV or JSONL file with a column `file`."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from service.domain.keys import normal_path, property_name, separator_fault
from vecgate.v1 import property_pb2 as pb

FILE_COLUMN = "file"
SUFFIXES = (".csv", ".jsonl")
# The properties that every imported picture has.
RESERVED = frozenset({"image", "path"})

_KINDS: dict[type, tuple[pb.DataType.ValueType, pb.DataType.ValueType]] = {
    bool: (pb.DATA_TYPE_BOOLEAN, pb.DATA_TYPE_BOOLEAN_ARRAY),
    int: (pb.DATA_TYPE_INT, pb.DATA_TYPE_INT_ARRAY),
    float: (pb.DATA_TYPE_NUMBER, pb.DATA_TYPE_NUMBER_ARRAY),
    str: (pb.DATA_TYPE_TEXT, pb.DATA_TYPE_TEXT_ARRAY),
}
# Of an empty list: whatever list the other rows have.
_ANY_ARRAY = pb.DATA_TYPE_UNSPECIFIED


class InvalidSidecar(Exception):
    """The table cannot be used; the message lists every fault with its line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        line: its number, from 1.
        file: the picture, as it is written there.
        properties: values by property name; what is empty or null is left out.
    """

    line: int
    file: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A table of properties.

    Attributes:
        path: the file.
        types: data types by property name.
        rows: by the picture's path, as `normal_path` writes it.
        renamed: columns whose names Weaviate does not take, and the property names they get.
    """

    path: Path
    types: Mapping[str, pb.DataType.ValueType]
    rows: Mapping[str, Row]
    renamed: Mapping[str, str]


def find_sidecar(folder: Path) -> Path | None:
    """Return the only CSV or JSONL file of a folder, or None when there is none.

    Raises:
        InvalidSidecar: there are several.
    """
    found = sorted(each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES and each.is_file())
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise InvalidSidecar(f"{folder} has several tables ({names}); choose one with --properties, or --no-properties")
    return found[0] if found else None


def read_sidecar(path: Path) -> Sidecar:
    """Read a table. CSV columns are texts; JSONL columns have the type of their values.

    Raises:
        InvalidSidecar: it cannot be read, a line is not a row, a file stands there twice, or a column mixes types.
    """
    records, faults = _read(path)
    columns = list(dict.fromkeys(column for _, record in records for column in record))
    names = _property_names(columns, faults)
    rows: dict[str, Row] = {}
    for line, record in records:
        file = record.get(FILE_COLUMN)
        if not isinstance(file, str) or not file:
            faults.append((line, f"has no {FILE_COLUMN!r}"))
            continue
        key = normal_path(file)
        if key in rows:
            faults.append((line, f"names {file} a second time; line {rows[key].line} does too"))
            continue
        values = {names[column]: value for column, value in record.items() if column in names and value is not None}
        rows[key] = Row(line, file, values)
    types = {name: _column_type(name, rows.values(), faults) for name in names.values()}
    if faults:
        listed = "\n".join(f"  line {line} {text}" for line, text in sorted(faults))
        raise InvalidSidecar(f"{path} cannot be used:\n{listed}")
    return Sidecar(path, types, rows, {column: name for column, name in names.items() if column != name})


Records = list[tuple[int, dict[str, Any]]]
Faults = list[tuple[int, str]]


def _read(path: Path) -> tuple[Records, Faults]:
    faults: Faults = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            read = _read_jsonl if path.suffix.lower() == ".jsonl" else _read_csv
            return list(read(file, faults)), faults
    except UnicodeDecodeError as error:
        raise InvalidSidecar(f"{path} is not in UTF-8") from error
    except csv.Error as error:
        raise InvalidSidecar(f"{path} is not CSV: {error}") from error
    except OSError as error:
        raise InvalidSidecar(f"{path} cannot be read: {error.strerror}") from error


def _read_csv(file: Any, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file, strict=True)
    header = list(reader.fieldnames or ())
    if fault := separator_fault(header):
        faults.append((1, f"has {fault}"))
        return
    if FILE_COLUMN not in header:
        faults.append((1, f"has no column {FILE_COLUMN!r}; name another table with --properties, or --no-properties"))
        return
    faults.extend((1, f"has the column {each!r} twice") for each in sorted({c for c in header if header.count(c) > 1}))
    for record in reader:
        if None in record or None in record.values():
            faults.append((reader.line_num, f"has more or fewer cells than the {len(header)} columns"))
            continue
        yield reader.line_num, {column: value or None for column, value in record.items()}


def _read_jsonl(file: Any, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text, parse_constant=_no_number)
        except ValueError as error:
            faults.append((line, f"is not JSON: {error}"))
            continue
        if not isinstance(record, dict):
            faults.append((line, "is not a JSON object"))
            continue
        yield line, record


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _property_names(columns: list[str], faults: Faults) -> dict[str, str]:
    names: dict[str, str] = {}
    for column in columns:
        if column == FILE_COLUMN:
            continue
        name = property_name(column)
        if name in RESERVED:
            name = f"{name}_"
        if name in names.values():
            faults.append((1, f"has two columns for the property {name!r}; rename {column!r}"))
        names[column] = name
    return names


def _column_type(name: str, rows: Any, faults: Faults) -> pb.DataType.ValueType:
    kinds: dict[pb.DataType.ValueType, int] = {}
    for row in rows:
        if name in row.properties:
            kind = _value_type(row.properties[name])
            if kind is None:
                faults.append(
                    (
                        row.line,
                        f"has a value for {name!r} that is not a text, a number, a truth value, or a list of one kind",
                    )
                )
            else:
                kinds.setdefault(kind, row.line)
    found = set(kinds)
    if _ANY_ARRAY in found:
        arrays = {array for _, array in _KINDS.values()}
        found = (found - {_ANY_ARRAY}) or {pb.DATA_TYPE_TEXT_ARRAY}
        if not found <= arrays:
            faults.append((kinds[_ANY_ARRAY], f"has a list as {name!r}, other lines do not"))
    for whole, broken in zip(_KINDS[int], _KINDS[float], strict=True):
        if found == {whole, broken}:
            return broken
    if len(found) > 1:
        words = [pb.DataType.Name(each).removeprefix("DATA_TYPE_").lower() for each in kinds]
        faults.append(
            (max(kinds.values()), f"has a value for {name!r} of another type than lines before: {', '.join(words)}")
        )
    return next(iter(found), pb.DATA_TYPE_TEXT)


def _value_type(value: Any) -> pb.DataType.ValueType | None:
    if not isinstance(value, list):
        return _KINDS[type(value)][0] if type(value) in _KINDS else None
    kinds = {type(each) for each in value}
    if not kinds:
        return _ANY_ARRAY
    if kinds == {int, float}:
        kinds = {float}
    return _KINDS[kinds.pop()][1] if len(kinds) == 1 and kinds <= _KINDS.keys() else None
