"""Values of a source as values of properties: which types fit which, and the conversion of each."""

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from service.domain.collections import MAX_SAFE_INT, DataType, Property
from service.domain.objects import ObjectValue, PropertyValue
from service.sources.errors import Unfit
from service.sources.schema import ARRAYS, NOTHING, Column

ELEMENTS = {array: element for element, array in ARRAYS.items()}
"""The type of a list's values, by that of the list."""
UUID_BYTES = 16
MINUTE = timedelta(minutes=1)
TAKEN = {
    DataType.TEXT: {DataType.TEXT, DataType.INT, DataType.DATE, DataType.UUID},
    DataType.INT: {DataType.INT, DataType.NUMBER},
    DataType.NUMBER: {DataType.NUMBER, DataType.INT},
    DataType.BOOLEAN: {DataType.BOOLEAN},
    DataType.DATE: {DataType.DATE, DataType.TEXT},
    DataType.UUID: {DataType.UUID, DataType.TEXT, DataType.BLOB},
    DataType.BLOB: {DataType.BLOB, DataType.TEXT},
    DataType.BLOB_HASH: {DataType.BLOB, DataType.TEXT},
}
"""The types of columns that a property takes, by its own type."""
TRUTH = {"true": True, "false": False, "1": True, "0": False}


def misfit(column: Column, wanted: Property) -> str:
    """Return why a property cannot take a column's values; empty if it can."""
    kind = wanted.data_type
    if kind is None or not wanted.handled:
        return f"the property {wanted.name!r} has a type that cannot be imported"
    if column.words == NOTHING or (column.words == f"list<{NOTHING}>" and kind in ELEMENTS):
        return ""
    if kind in {DataType.OBJECT, DataType.OBJECT_ARRAY} and column.type is kind:
        return _nested_misfit(column, wanted)
    fits = False
    if column.loose:
        fits = kind in TAKEN
    elif kind is DataType.GEO_COORDINATES:
        fits = column.type is DataType.OBJECT and {each.name for each in column.nested} == {"latitude", "longitude"}
    elif kind in ELEMENTS and column.type in ELEMENTS:
        fits = ELEMENTS[column.type] in TAKEN.get(ELEMENTS[kind], ())
    elif kind in TAKEN:
        fits = column.type in TAKEN[kind]
    return "" if fits else f"the property {wanted.name!r} is {kind.value}, the column {column.words}"


def _nested_misfit(column: Column, wanted: Property) -> str:
    known = {each.name: each for each in wanted.nested}
    for each in column.nested:
        if each.name not in known:
            return f"the property {wanted.name!r} has no nested property {each.name!r}"
        if reason := misfit(each, known[each.name]):
            return reason
    return ""


def converted(value: Any, wanted: Property) -> PropertyValue:
    """Return a value as a property takes it; None for none, NaN among them.

    Raises:
        Unfit: the property does not take it.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    match wanted.data_type:
        case DataType.OBJECT:
            return _object(value, wanted)
        case DataType.GEO_COORDINATES:
            if not isinstance(value, Mapping):
                raise Unfit("it is not a place: an object with latitude and longitude", value)
            return {name: _number(value.get(name)) for name in ("latitude", "longitude")}
        case kind if kind in ELEMENTS:
            if not isinstance(value, list | tuple):
                raise Unfit("it is not a list", value)
            each_wanted = Property(wanted.name, ELEMENTS[kind], nested=wanted.nested)
            found: Any = [converted(each, each_wanted) for each in value]
            if None in found:
                raise Unfit("a list has a missing value in it")
            return found  # type: ignore[no-any-return]
        case kind if kind in CONVERSIONS:
            converted_value: PropertyValue = CONVERSIONS[kind](value)
            return converted_value
    raise Unfit("the property has a type that cannot be imported")


def _object(value: Any, wanted: Property) -> ObjectValue:
    if not isinstance(value, Mapping):
        raise Unfit("it is not an object", value)
    known = {each.name: each for each in wanted.nested}
    unknown = value.keys() - known.keys()
    if unknown:
        raise Unfit(f"there is no nested property {min(unknown)!r}")
    found = {name: converted(each, known[name]) for name, each in value.items()}
    return ObjectValue({name: each for name, each in found.items() if each is not None})


def _text(value: Any) -> str:
    match value:
        case str():
            return _encodable(value)
        case bool():
            raise Unfit("it is not a text", value)
        case datetime() | date():
            return _date(value)
        case int() | UUID():
            return str(value)
    raise Unfit("it is not a text", value)


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Unfit("it has half of a character, which no text in UTF-8 has", f"at {error.start}") from error
    return value


def _whole(value: Any) -> int:
    try:
        whole = None if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or (whole != value and not isinstance(value, str)):
        raise Unfit("it is not a whole number", value)
    if abs(whole) > MAX_SAFE_INT:
        raise Unfit("it is beyond 2^53, which a property does not hold exactly", whole)
    return whole


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Unfit("it is not a finite number", value)
    return number


def _boolean(value: Any) -> bool:
    found = value if isinstance(value, bool) else TRUTH.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise Unfit("it is not true or false", value)
    return found


def _date(value: Any) -> str:
    """Return a date in RFC 3339 form; one without a zone is in UTC, one without a time at midnight."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise Unfit("it is not a date in ISO 8601 form", value) from error
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time(), UTC)
    if not isinstance(value, datetime):
        raise Unfit("it is not a date", value)
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    offset = moment.utcoffset() or timedelta()
    if offset % MINUTE:
        # The local mean times of the 19th century have seconds, which RFC 3339 has not.
        whole = -(-offset // MINUTE) * MINUTE
        try:
            moment = moment.replace(tzinfo=timezone(whole)) + (whole - offset)
        except (OverflowError, ValueError) as error:
            raise Unfit("in a zone of whole minutes it has no such date", value) from error
    return moment.isoformat()


def _uuid(value: Any) -> str:
    try:
        if isinstance(value, bytes) and len(value) == UUID_BYTES:
            return str(UUID(bytes=value))
        return str(value if isinstance(value, UUID) else UUID(value))
    except (ValueError, TypeError, AttributeError) as error:
        raise Unfit("it is not a UUID", value) from error


CONVERSIONS: dict[DataType, Any] = {
    DataType.TEXT: _text,
    DataType.INT: _whole,
    DataType.NUMBER: _number,
    DataType.BOOLEAN: _boolean,
    DataType.DATE: _date,
    DataType.UUID: _uuid,
}


def as_key(value: Any) -> str:
    """Return a value of the column of ids, or of tenants, as text.

    Raises:
        Unfit: it is not one value, or empty, or no text.
    """
    match value:
        case None | "":
            raise Unfit("it has no value")
        case bool() | float() | Decimal() | list() | dict():
            raise Unfit("it is not a text, a whole number or a UUID", value)
        case bytes():
            return _uuid(value)
    return _encodable(str(value))
