"""Whether a filter fits its collection, checked before the store sees it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from service.access import calling_account
from service.core.conformance import MAX_SAFE_INT, is_date
from service.core.unknown import unknown_property
from service.domain import Collection, DataType
from service.errors import InvalidRequest, PermissionDenied, Violation, collecting, noting
from service.filters import AllOf, AnyOf, Condition, Filter, FilterValue, GeoRange, Not, Operator, Target

__all__ = ["check_filter"]

ORDERING = frozenset({Operator.GREATER, Operator.GREATER_OR_EQUAL, Operator.LESS, Operator.LESS_OR_EQUAL})
EQUALITY = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})
LISTS = frozenset({Operator.CONTAINS_ANY, Operator.CONTAINS_ALL, Operator.CONTAINS_NONE})
COMPARING = EQUALITY | ORDERING | LISTS

OPERATORS_OF_TARGET = {
    Target.PROPERTY_LENGTH: EQUALITY | ORDERING,
    Target.ID: EQUALITY | {Operator.CONTAINS_ANY, Operator.CONTAINS_NONE},
    Target.CREATION_TIME: EQUALITY | ORDERING | {Operator.CONTAINS_ANY, Operator.CONTAINS_NONE},
    Target.UPDATE_TIME: EQUALITY | ORDERING | {Operator.CONTAINS_ANY, Operator.CONTAINS_NONE},
}
OPERATORS_OF_TYPE = {
    DataType.TEXT: COMPARING | {Operator.LIKE},
    DataType.BOOLEAN: EQUALITY | LISTS,
    DataType.UUID: COMPARING,
    DataType.GEO_COORDINATES: frozenset({Operator.WITHIN_GEO_RANGE}),
}
TYPE_OF_TARGET = {
    Target.PROPERTY_LENGTH: DataType.INT,
    Target.ID: DataType.UUID,
    Target.CREATION_TIME: DataType.DATE,
    Target.UPDATE_TIME: DataType.DATE,
}


def check_filter(collection: Collection, filter_: Filter, path: str) -> Filter:
    """Return a filter with its values in the form of their properties' types.

    Args:
        collection: what it must fit.
        filter_: the filter.
        path: where it stands in the request, for the violations.

    Raises:
        InvalidRequest: an unknown property, an operator or a value that its type does not have; all are listed.
    """
    with collecting() as violations:
        return _check(collection, filter_, path, violations)


def _check(collection: Collection, filter_: Filter, path: str, violations: list[Violation]) -> Filter:
    match filter_:
        case AllOf(filters):
            return AllOf(
                tuple(
                    _check(collection, each, f"{path}.all_of.filters[{index}]", violations)
                    for index, each in enumerate(filters)
                )
            )
        case AnyOf(filters):
            return AnyOf(
                tuple(
                    _check(collection, each, f"{path}.any_of.filters[{index}]", violations)
                    for index, each in enumerate(filters)
                )
            )
        case Not(inner):
            return Not(_check(collection, inner, f"{path}.negation", violations))
        case Condition():
            return _check_condition(collection, filter_, f"{path}.condition", violations)


def _check_condition(collection: Collection, condition: Condition, path: str, violations: list[Violation]) -> Condition:
    with noting(violations):
        return _fit(collection, condition, path)
    return condition


def _fit(collection: Collection, condition: Condition, path: str) -> Condition:
    if condition.references:
        client = calling_account.get().client
        if "*" not in client.collections:
            # Where they lead is not known here, and a filter answers questions about what is there.
            raise PermissionDenied(
                f"client {client.name!r} may not filter through references: they lead to other collections"
            )
        _check_reference(collection, condition.references[0], f"{path}.references[0]")
        return condition
    data_type = TYPE_OF_TARGET.get(condition.target)
    if condition.target in (Target.PROPERTY, Target.PROPERTY_LENGTH):
        field = condition.target.name.lower()
        property_type = _find_type(collection, condition.name, f"{path}.{field}")
        data_type = data_type or property_type
    if data_type is None:
        # A type that only Weaviate can check.
        return condition
    allowed = OPERATORS_OF_TARGET.get(condition.target) or OPERATORS_OF_TYPE.get(data_type, COMPARING) | {
        Operator.IS_NULL
    }
    if condition.operator not in allowed:
        names = ", ".join(each.name for each in Operator if each in allowed)
        message = f"{condition.operator.name} does not go with a {data_type.value}; use one of: {names}"
        raise InvalidRequest([Violation(f"{path}.operator", message, "INVALID_PROPERTY")])
    try:
        return replace(condition, value=_check_operand(condition.operator, data_type, condition.value))
    except ValueError as error:
        raise InvalidRequest([Violation(f"{path}.value", str(error), "INVALID_PROPERTY")]) from None


def _check_reference(collection: Collection, name: str, where: str) -> None:
    found = collection.find_property(name)
    if found is None:
        raise InvalidRequest([_unknown(collection, where)])
    if found.data_type is not None:
        message = f"the property is of type {found.data_type.value}, not a reference; name it in property"
        raise InvalidRequest([Violation(where, message, "INVALID_PROPERTY")])


def _find_type(collection: Collection, name: str, where: str) -> DataType | None:
    """Return the type of a property's items; None for one that this version does not handle."""
    found = collection.find_property(name)
    if found is None:
        raise InvalidRequest([_unknown(collection, where)])
    if found.data_type is DataType.BLOB:
        message = "the property is a blob, which cannot be filtered by; choose another one"
        raise InvalidRequest([Violation(where, message, "INVALID_PROPERTY")])
    return None if found.data_type is None else DataType(found.data_type.value.removesuffix("[]"))


def _check_operand(operator: Operator, data_type: DataType, value: FilterValue) -> FilterValue:
    """Return a value in the form of its type; a ValueError says what is wrong without repeating the value."""
    if operator is Operator.WITHIN_GEO_RANGE:
        if not isinstance(value, GeoRange):
            raise ValueError(f"is {_kind(value)}, the comparison takes a geo_range")
        return value
    if operator is Operator.IS_NULL:
        return _check_value(DataType.BOOLEAN, value)
    if operator not in LISTS:
        return _check_value(data_type, value)
    if not isinstance(value, list):
        raise ValueError(f"is one value, {operator.name} takes a list")  # noqa: TRY004 -- one kind of error for all faults
    items, faults = [], []
    found: Sequence[bool | int | float | str] = value
    for index, item in enumerate(found):
        try:
            items.append(_check_value(data_type, item))
        except ValueError as error:
            faults.append(f"item {index} {error}")
    if faults:
        raise ValueError("; ".join(faults))
    return items  # type: ignore[return-value]  # a list of one type, as the property says


def _check_value(data_type: DataType, value: FilterValue) -> bool | int | float | str:
    match value:
        case bool():
            if data_type is DataType.BOOLEAN:
                return value
        case int() | float():
            if data_type is DataType.NUMBER or (data_type is DataType.INT and isinstance(value, int)):
                return _check_number(data_type, value)
        case str():
            if data_type in (DataType.TEXT, DataType.DATE, DataType.UUID):
                return _check_text(data_type, value)
    raise ValueError(f"is {_kind(value)}, the comparison takes a {data_type.value}")


def _check_number(data_type: DataType, value: float) -> int | float:
    if not math.isfinite(value):
        raise ValueError("is not finite")
    if isinstance(value, int) and abs(value) > MAX_SAFE_INT:
        raise ValueError("is beyond 2^53; larger whole numbers lose digits")
    return float(value) if data_type is DataType.NUMBER else value


def _check_text(data_type: DataType, value: str) -> str:
    if data_type is DataType.DATE and not is_date(value):
        raise ValueError('is no RFC 3339 date with time and zone, such as "2026-01-31T08:00:00Z"')
    if data_type is not DataType.UUID:
        return value
    try:
        return str(UUID(value))
    except ValueError:
        raise ValueError("is no UUID") from None


def _kind(value: FilterValue) -> str:
    if isinstance(value, GeoRange):
        return "a geo_range"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a text", list: "a list"}
    return names[type(value)]


def _unknown(collection: Collection, where: str) -> Violation:
    names = (each.name for each in collection.properties if each.data_type is not DataType.BLOB)
    return unknown_property(collection, where, names)
