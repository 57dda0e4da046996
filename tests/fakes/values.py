"""What Weaviate makes of the values of properties, for the store in memory."""

import re
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import numpy as np

from service.domain import DataType, ObjectValue, PropertyValue

DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
MAX_EXACT_INT = 2**53


def fits(data_type: DataType, value: PropertyValue) -> bool:
    """Return whether Weaviate takes a value for a property of a type."""
    if data_type.value.endswith("[]"):
        item_type = DataType(data_type.value.removesuffix("[]"))
        return isinstance(value, list) and all(fits(item_type, each) for each in value)
    tests: dict[DataType, Callable[[Any], bool]] = {
        DataType.TEXT: lambda text: isinstance(text, str),
        DataType.DATE: lambda text: isinstance(text, str) and DATE.fullmatch(text) is not None,
        DataType.UUID: lambda text: isinstance(text, str) and _is_uuid(text),
        DataType.BOOLEAN: lambda truth: isinstance(truth, bool),
        DataType.INT: lambda number: _is_number(number) and number == int(number) and abs(number) <= MAX_EXACT_INT,
        DataType.NUMBER: lambda number: _is_number(number) and bool(np.isfinite(number)),
        DataType.GEO_COORDINATES: _is_place,
        # As the store in memory keeps it.
        DataType.BLOB_HASH: lambda text: isinstance(text, str),
        DataType.OBJECT: lambda value: isinstance(value, ObjectValue),
    }
    return data_type in tests and tests[data_type](value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_place(value: object) -> bool:
    bounds = {"latitude": 90, "longitude": 180}
    return (
        isinstance(value, dict)
        and value.keys() == bounds.keys()
        and all(_is_number(value[name]) and abs(value[name]) <= bound for name, bound in bounds.items())
    )


def _is_uuid(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def store_value(data_type: DataType | None, value: PropertyValue) -> PropertyValue:
    """Return a value as Weaviate gives it back."""
    if isinstance(value, list):
        assert data_type is not None
        item_type = DataType(data_type.value.removesuffix("[]"))
        return cast("PropertyValue", [store_value(item_type, each) for each in value])
    converters: dict[DataType | None, Callable[[Any], PropertyValue]] = {
        DataType.INT: int,
        DataType.NUMBER: float,
        DataType.UUID: _canonical_id,
        DataType.GEO_COORDINATES: lambda place: {name: float(str(np.float32(place[name]))) for name in place},
    }
    return converters[data_type](value) if data_type in converters else value


def _canonical_id(text: str) -> str:
    return str(UUID(text))
