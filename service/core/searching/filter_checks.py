"""Checks whether a filter fits its collection, before the store gets it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import UUID

from service.access import calling_account
from service.core.objects.checks import is_date
from service.domain import (
    BLOBS,
    MAX_SAFE_INT,
    OBJECTS,
    TEXTS,
    AllOf,
    AnyOf,
    Collection,
    Condition,
    DataType,
    Filter,
    FilterValue,
    GeoRange,
    Not,
    Operator,
    Property,
    Target,
    unknown_property,
)
from service.errors import InvalidRequest, PermissionDenied, Violation, Violations, collecting, noting

ORDERING = frozenset({Operator.GREATER, Operator.GREATER_OR_EQUAL, Operator.LESS, Operator.LESS_OR_EQUAL})
EQUALITY = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})
LISTS = frozenset({Operator.CONTAINS_ANY, Operator.CONTAINS_ALL, Operator.CONTAINS_NONE})
NULL = frozenset({Operator.IS_NULL})
COMPARING = EQUALITY | ORDERING | LISTS

OPERATORS_OF_TARGET = {
    Target.PROPERTY_LENGTH: EQUALITY | ORDERING,
    Target.ID: EQUALITY | {Operator.CONTAINS_ANY, Operator.CONTAINS_NONE},
    Target.CREATION_TIME: EQUALITY | ORDERING | {Operator.CONTAINS_ANY, Operator.CONTAINS_NONE},
    Target.UPDATE_TIME: EQUALITY | ORDERING | {Operator.CONTAINS_ANY, Operator.CONTAINS_NONE},
}
OPERATORS_OF_TYPE = {
    DataType.TEXT: COMPARING | NULL | {Operator.LIKE},
    DataType.BOOLEAN: EQUALITY | LISTS | NULL,
    # Weaviate keeps no null state of geo coordinates: IS_NULL finds nothing.
    DataType.GEO_COORDINATES: frozenset({Operator.WITHIN_GEO_RANGE}),
}
SWITCHES = {
    Target.PROPERTY_LENGTH: ("indexPropertyLength", "property_length"),
    Target.CREATION_TIME: ("indexTimestamps", "object_field"),
    Target.UPDATE_TIME: ("indexTimestamps", "object_field"),
}
"""The option of the inverted index that a target needs, by Weaviate's name, and the field that asks for it."""

EARLIEST = datetime(1677, 9, 21, 0, 12, 44, tzinfo=UTC)
LATEST = datetime(2262, 4, 11, 23, 47, 16, tzinfo=UTC)
"""The first and the last second in Weaviate's index of dates."""

WITH_LENGTH = frozenset(each for each in DataType if each is DataType.TEXT or each.value.endswith("[]")) - OBJECTS
NOTHING_LINKED: Mapping[str, Collection] = MappingProxyType({})

TYPE_OF_TARGET = {
    Target.PROPERTY_LENGTH: DataType.INT,
    Target.ID: DataType.UUID,
    Target.CREATION_TIME: DataType.DATE,
    Target.UPDATE_TIME: DataType.DATE,
}


def check_filter(collection: Collection, filter_: Filter, linked: Mapping[str, Collection] = NOTHING_LINKED) -> Filter:
    """Return a filter with its values in the form of their properties' types.

    Args:
        collection: what it must fit.
        filter_: the filter, of the request's field `filters`.
        linked: the collections that its references lead to, by name; the store checks other references.

    Raises:
        InvalidRequest: an unknown property, an operator or a value that its type does not have; all are listed.
        PermissionDenied: the client may not filter through references.
    """
    with collecting() as violations:
        return _Check(linked, violations).check(collection, filter_, "filters")


@dataclass(frozen=True, slots=True)
class _Check:
    """One walk through a filter."""

    linked: Mapping[str, Collection]
    violations: Violations

    def check(self, collection: Collection, filter_: Filter, path: str) -> Filter:
        match filter_:
            case AllOf(filters):
                return AllOf(self._check_list(collection, filters, f"{path}.all_of.filters"))
            case AnyOf(filters):
                return AnyOf(self._check_list(collection, filters, f"{path}.any_of.filters"))
            case Not(inner):
                return Not(self.check(collection, inner, f"{path}.negation"))
            case Condition():
                with noting(self.violations):
                    return self._check_condition(collection, filter_, f"{path}.condition")
        return filter_

    def _check_list(self, collection: Collection, filters: Sequence[Filter], path: str) -> tuple[Filter, ...]:
        return tuple(self.check(collection, each, f"{path}[{index}]") for index, each in enumerate(filters))

    def _check_condition(self, collection: Collection, condition: Condition, path: str) -> Condition:
        if not condition.references:
            return _fit(collection, condition, path)
        client = calling_account.get().client
        if "*" not in client.collections:
            # A filter tells what other collections contain.
            raise PermissionDenied(
                f"client {client.name!r} may not filter through references: they lead to other collections"
            )
        end = self._follow(collection, condition.references, path)
        return condition if end is None else _fit(end, condition, path)

    def _follow(self, collection: Collection, references: Sequence[str], path: str) -> Collection | None:
        """Return the collection that a chain of references leads to; None where only the store knows it."""
        current: Collection | None = collection
        for index, name in enumerate(references):
            if current is None:
                break
            where, found = f"{path}.references[{index}]", current.find_property(name)
            if found is None:
                raise InvalidRequest([_unknown(current, where)])
            if found.data_type is not None:
                message = f"the property is of type {found.data_type.value}, not a reference; name it in property"
                raise InvalidRequest([Violation(where, message, "INVALID_PROPERTY")])
            current = self.linked.get(found.references[0]) if len(found.references) == 1 else None
        return current


def _fit(collection: Collection, condition: Condition, path: str) -> Condition:
    """Return a condition with its value in the form of the type of what it compares."""
    data_type = TYPE_OF_TARGET.get(condition.target)
    if condition.target in (Target.PROPERTY, Target.PROPERTY_LENGTH):
        property_ = _find(collection, condition, f"{path}.{condition.target.name.lower()}")
        data_type = data_type or _type_of(property_)
        _check_ordered(property_, condition, path)
    _check_indexed(collection, condition, path)
    assert data_type is not None, "a type that is not handled is refused before"
    allowed = OPERATORS_OF_TARGET.get(condition.target) or OPERATORS_OF_TYPE.get(data_type, COMPARING | NULL)
    if condition.operator not in allowed:
        names = ", ".join(each.name for each in Operator if each in allowed)
        message = f"{condition.operator.name} does not go with the type {data_type.value}; use one of: {names}"
        raise InvalidRequest([Violation(f"{path}.operator", message, "INVALID_PROPERTY")])
    try:
        value = _check_operand(condition.operator, data_type, condition.value)
        if condition.target is Target.PROPERTY_LENGTH:
            _check_length(value)
    except ValueError as error:
        raise InvalidRequest([Violation(f"{path}.value", str(error), "INVALID_PROPERTY")]) from None
    return replace(condition, value=value)


def _find(collection: Collection, condition: Condition, where: str) -> Property:
    """Return the property that a condition is about."""
    found = collection.find_property(condition.name)
    if found is None:
        raise InvalidRequest([_unknown(collection, where)])
    fault = ""
    if found.data_type is None and not found.references:
        # Weaviate never finds phone numbers by IS_NULL, and takes no other comparison.
        fault = "this version does not support the property's type in filters; choose another property"
    elif found.data_type in BLOBS:
        fault = "filters do not take blobs; choose another property"
    elif found.data_type in OBJECTS:
        fault = "filters do not take objects; choose another property"
    elif not found.filterable:
        fault = "filters need an index of the property; set its index_filterable"
    elif condition.target is Target.PROPERTY_LENGTH and found.data_type not in WITH_LENGTH:
        fault = "only texts and lists have a length; name the property in property"
    if fault:
        raise InvalidRequest([Violation(where, fault, "INVALID_PROPERTY")])
    return found


def _check_ordered(property_: Property, condition: Condition, path: str) -> None:
    """Refuse to order texts that are compared word by word: a text would fit if any of its words did."""
    texts = condition.target is Target.PROPERTY and property_.data_type in TEXTS
    if texts and condition.operator in ORDERING and property_.indexing.get("tokenization", "word") != "field":
        message = (
            f"{condition.operator.name} orders whole texts, and this property is compared word by word; "
            "set its tokenization to FIELD, or use another operator"
        )
        raise InvalidRequest([Violation(f"{path}.operator", message, "INVALID_PROPERTY")])


def _type_of(property_: Property) -> DataType | None:
    """Return the type of a property's items; None for one that this version does not handle."""
    if property_.references:
        # How many objects are referred to.
        return DataType.INT
    return None if property_.data_type is None else DataType(property_.data_type.value.removesuffix("[]"))


def _check_indexed(collection: Collection, condition: Condition, path: str) -> None:
    """Refuse what the collection's inverted index does not contain."""
    field, switch = (f"{path}.operator", "indexNullState") if condition.operator is Operator.IS_NULL else ("", "")
    if condition.target in SWITCHES:
        switch, part = SWITCHES[condition.target]
        field = f"{path}.{part}"
    if switch and not collection.inverted_index.get(switch, True):
        message = f"collection {collection.name!r} has no {switch} in its inverted index, which this needs"
        raise InvalidRequest([Violation(field, message, "INVALID_PROPERTY")])


def _check_operand(operator: Operator, data_type: DataType, value: FilterValue) -> FilterValue:
    """Return a value in the form of its type; a ValueError says what is wrong without repeating the value."""
    if operator is Operator.WITHIN_GEO_RANGE:
        if not isinstance(value, GeoRange):
            raise ValueError(f"is {_kind(value)}, the comparison takes a geo_range")
        return value
    if operator is Operator.IS_NULL:
        return _check_value(DataType.BOOLEAN, value)
    if operator not in LISTS:
        checked = _check_value(data_type, value)
        in_order = data_type is DataType.DATE and operator in ORDERING
        return _within_index(str(checked)) if in_order else checked
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
    raise ValueError(f"is {_kind(value)}, the comparison takes the type {data_type.value}")


def _check_length(value: FilterValue) -> None:
    if isinstance(value, int) and value < 0:
        raise ValueError(f"is {value}; lengths are 0 or more")


def _check_number(data_type: DataType, value: float) -> int | float:
    if not math.isfinite(value):
        raise ValueError("is not finite")
    if data_type is DataType.NUMBER and float(value) == value:
        return float(value)
    if abs(value) > MAX_SAFE_INT:
        raise ValueError("must be from -2^53 to 2^53; larger whole numbers lose digits")
    return value


def _within_index(date: str) -> str:
    """Return a date, or the nearest date of Weaviate's index, whose 64 bits of nanoseconds would wrap around."""
    moment = datetime.fromisoformat(date)
    if EARLIEST <= moment <= LATEST:
        return date
    return (EARLIEST if moment < EARLIEST else LATEST).isoformat()


def _check_text(data_type: DataType, value: str) -> str:
    if data_type is DataType.DATE and not is_date(value):
        raise ValueError('must be an RFC 3339 date with time and zone, such as "2026-01-31T08:00:00Z"')
    if data_type is not DataType.UUID:
        return value
    try:
        return str(UUID(value))
    except ValueError:
        raise ValueError("must be a UUID") from None


def _kind(value: FilterValue) -> str:
    if isinstance(value, GeoRange):
        return "a geo_range"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a text", list: "a list"}
    return names[type(value)]


def _unknown(collection: Collection, where: str) -> Violation:
    names = (each.name for each in collection.properties if each.data_type not in BLOBS)
    return unknown_property(collection, where, names)
