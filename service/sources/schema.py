"""The columns of a source with their types, in the words of a collection's properties."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from service.domain.collections import DataType
from service.sources.errors import InvalidSource

NOTHING = "null"
"""The type of a column without a value, which fits everything."""
ARRAYS = {
    DataType.TEXT: DataType.TEXT_ARRAY,
    DataType.INT: DataType.INT_ARRAY,
    DataType.NUMBER: DataType.NUMBER_ARRAY,
    DataType.BOOLEAN: DataType.BOOLEAN_ARRAY,
    DataType.DATE: DataType.DATE_ARRAY,
    DataType.UUID: DataType.UUID_ARRAY,
    DataType.OBJECT: DataType.OBJECT_ARRAY,
}
"""The type of a list, by that of its values."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        name: its name.
        type: the type of a property that has its values unchanged; BLOB for bytes and for structs of bytes and a path,
            None if no property has them.
        words: the type in the source's words, such as "timestamp[us, tz=UTC]".
        nested: the fields of a struct, or of the structs in a list.
        loose: whether its texts stand for values of any type, as in CSV.
        length: of its lists, if they all have the same one.
        space: of vectors, the space that the file says they are in.
    """

    name: str
    type: DataType | None
    words: str
    nested: tuple["Column", ...] = ()
    loose: bool = False
    length: int | None = None
    space: str = ""


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a source.

    Attributes:
        kind: of its fragments.
        columns: in order.
    """

    kind: str
    columns: tuple[Column, ...]

    @property
    def from_bulk(self) -> bool:
        """Whether a bulk job wrote it, with ids and vectors: its vectors say their space."""
        return any(each.space for each in self.columns)

    def find(self, path: str) -> Column | None:
        """Return the column of a name, or the field of a struct by "column.field", or None."""
        return _find(self.columns, path)

    def top(self, path: str) -> str:
        """Return the name of the column that has a path's values."""
        return next(each.name for each in self.columns if each.name == path or path.startswith(f"{each.name}."))

    @property
    def names(self) -> list[str]:
        """The names of its columns."""
        return [each.name for each in self.columns]


def _find(columns: Iterable[Column], path: str) -> Column | None:
    for column in columns:
        if column.name == path:
            return column
        if path.startswith(f"{column.name}.") and column.type is DataType.OBJECT:
            return _find(column.nested, path[len(column.name) + 1 :])
    return None


def value_at(values: Mapping[str, Any], path: str) -> Any:
    """Return the value of a column, or of a field of a struct by "column.field"; None where there is none."""
    if path in values:
        return values[path]
    name, _, rest = path.partition(".")
    while rest:
        if isinstance(inner := values.get(name), Mapping):
            return value_at(inner, rest)
        more, _, rest = rest.partition(".")
        name = f"{name}.{more}"
    return None


def merged(location: str, columns: Iterable[Iterable[Column]]) -> tuple[Column, ...]:
    """Return the columns of several files or rows of one source, as one list of columns.

    Raises:
        InvalidSource: a column has one type here and another one there.
    """
    found: dict[str, Column] = {}
    for some in columns:
        for column in some:
            here = found.setdefault(column.name, column)
            both = _joined(location, here, column)
            if both is None:
                raise InvalidSource(location, f"the column {column.name!r} is {here.words} and {column.words}")
            found[column.name] = both
    return tuple(found.values())


def _joined(location: str, first: Column, second: Column) -> Column | None:
    if first == second or second.words == NOTHING:
        return first
    if first.words == NOTHING:
        return second
    types = {first.type, second.type}
    if first.type is second.type is not None:
        joined = first if first.length == second.length else replace(first, length=None)
        if first.space != second.space:
            raise InvalidSource(
                location, f"the column {first.name!r} has vectors of the spaces {first.space!r} and {second.space!r}"
            )
        return replace(joined, nested=merged(location, (first.nested, second.nested)))
    for whole, broken in ((DataType.INT, DataType.NUMBER), (DataType.INT_ARRAY, DataType.NUMBER_ARRAY)):
        if types == {whole, broken}:
            return first if first.type is broken else second
    arrays = set(ARRAYS.values())
    for empty, other in ((first, second), (second, first)):
        if empty.words == f"list<{NOTHING}>" and other.type in arrays:
            return other
    return None


SCALARS: tuple[tuple[type | tuple[type, ...], DataType, str], ...] = (
    (bool, DataType.BOOLEAN, "bool"),
    (int, DataType.INT, "int"),
    ((float, Decimal), DataType.NUMBER, "number"),
    (str, DataType.TEXT, "text"),
    (bytes, DataType.BLOB, "bytes"),
    (date, DataType.DATE, "date"),
    (UUID, DataType.UUID, "uuid"),
)


def column_of_value(name: str, value: Any) -> Column:
    """Return the column that a value of JSON, or of a member of a tar, belongs to."""
    if value is None:
        return Column(name, None, NOTHING)
    if isinstance(value, list):
        return _list_of_values(name, value)
    if isinstance(value, dict):
        nested = tuple(column_of_value(key, each) for key, each in value.items())
        return Column(name, DataType.OBJECT, "object", nested)
    for kinds, data_type, words in SCALARS:
        if isinstance(value, kinds):
            return Column(name, data_type, words)
    return Column(name, None, type(value).__name__)


def _list_of_values(name: str, value: list[Any]) -> Column:
    try:
        found = merged(name, ([column_of_value(name, each)] for each in value))
    except InvalidSource:
        return Column(name, None, "list of several types")
    if not found or found[0].words == NOTHING:
        return Column(name, DataType.TEXT_ARRAY, f"list<{NOTHING}>")
    inner = found[0]
    return Column(name, ARRAYS.get(inner.type) if inner.type else None, f"list<{inner.words}>", inner.nested)
