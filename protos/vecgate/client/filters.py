"""Filters as Python expressions."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import numpy as np

from vecgate.client.values import MAX_EXACT_INT, date_to_text, exact, from_numpy, several
from vecgate.v1 import filter_pb2 as pb

Scalar = bool | int | float | str | datetime | UUID | np.generic


def all_of(*filters: pb.Filter) -> pb.Filter:
    """Return a filter for what matches all of these."""
    return pb.Filter(all_of=pb.FilterList(filters=filters))


def any_of(*filters: pb.Filter) -> pb.Filter:
    """Return a filter for what matches at least one of these."""
    return pb.Filter(any_of=pb.FilterList(filters=filters))


def negate(filter_: pb.Filter) -> pb.Filter:
    """Return a filter for what does not match this one."""
    return pb.Filter(negation=filter_)


def where(
    property_: str = "",
    *,
    length: bool = False,
    object_field: pb.ObjectField.ValueType = pb.OBJECT_FIELD_UNSPECIFIED,
) -> "Where":
    """Return the left side of a condition; its operators and methods make filters.

    Args:
        property_: a property's name.
        length: whether to compare its length.
        object_field: the id or a time of the object instead of a property.

    Example:
        recent = all_of(where("year") >= 2020, where("title").like("sun*"))
    """
    if object_field:
        return Where(pb.Condition(object_field=object_field))
    return Where(pb.Condition(property_length=property_) if length else pb.Condition(property=property_))


class Where:
    """The left side of a condition. Every method returns a filter; dates may be `datetime`, ids `UUID`.

    Join filters with `all_of` and `any_of`: of `a and b`, `a or b` and `1 <= a <= 2`, Python keeps one side alone.

    Raises:
        TypeError: no property has values of this type, or the values are of several types.
        ValueError: a date has no time zone, a whole number is not exact as a double, or a list is empty.
    """

    # Operators make filters; they do not compare two of these.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, target: pb.Condition) -> None:
        self._target = target

    def equal(self, value: Scalar) -> pb.Filter:
        """Equal to the value."""
        return self._with(pb.FILTER_OPERATOR_EQUAL, _scalar(value))

    def not_equal(self, value: Scalar) -> pb.Filter:
        """Not equal to the value."""
        return self._with(pb.FILTER_OPERATOR_NOT_EQUAL, _scalar(value))

    def __eq__(self, value: Scalar) -> pb.Filter:  # type: ignore[override]  # a filter, as of the other operators
        return self.equal(value)

    def __ne__(self, value: Scalar) -> pb.Filter:  # type: ignore[override]
        return self.not_equal(value)

    def __gt__(self, value: Scalar) -> pb.Filter:
        return self._with(pb.FILTER_OPERATOR_GREATER, _scalar(value))

    def __ge__(self, value: Scalar) -> pb.Filter:
        return self._with(pb.FILTER_OPERATOR_GREATER_OR_EQUAL, _scalar(value))

    def __lt__(self, value: Scalar) -> pb.Filter:
        return self._with(pb.FILTER_OPERATOR_LESS, _scalar(value))

    def __le__(self, value: Scalar) -> pb.Filter:
        return self._with(pb.FILTER_OPERATOR_LESS_OR_EQUAL, _scalar(value))

    def like(self, pattern: str) -> pb.Filter:
        """Has a word that matches the pattern: ? is one character, * any number of them."""
        return self._with(pb.FILTER_OPERATOR_LIKE, _scalar(pattern))

    def contains_any(self, values: Scalar | Iterable[Scalar]) -> pb.Filter:
        """Has at least one of the values."""
        return self._with(pb.FILTER_OPERATOR_CONTAINS_ANY, _several(values))

    def contains_all(self, values: Scalar | Iterable[Scalar]) -> pb.Filter:
        """Has all of the values."""
        return self._with(pb.FILTER_OPERATOR_CONTAINS_ALL, _several(values))

    def contains_none(self, values: Scalar | Iterable[Scalar]) -> pb.Filter:
        """Has none of the values."""
        return self._with(pb.FILTER_OPERATOR_CONTAINS_NONE, _several(values))

    def is_null(self, *, null: bool = True) -> pb.Filter:
        """Has no value or an empty one; with `null=False`, has a value."""
        return self._with(pb.FILTER_OPERATOR_IS_NULL, pb.FilterValue(boolean=null))

    def within_geo_range(self, latitude: float, longitude: float, distance_m: float) -> pb.Filter:
        """Lies within a circle."""
        geo = pb.GeoRange(latitude=latitude, longitude=longitude, distance_m=distance_m)
        return self._with(pb.FILTER_OPERATOR_WITHIN_GEO_RANGE, pb.FilterValue(geo_range=geo))

    def _with(self, operator: pb.FilterOperator.ValueType, value: pb.FilterValue) -> pb.Filter:
        condition = pb.Condition(operator=operator, value=value)
        condition.MergeFrom(self._target)
        return pb.Filter(condition=condition)


def _scalar(value: Scalar) -> pb.FilterValue:
    kind, plain = _kind_of(value)
    message = pb.FilterValue()
    setattr(message, kind, plain)
    return message


def _several(values: Scalar | Iterable[Scalar]) -> pb.FilterValue:
    items = [_kind_of(each) for each in several(values)]
    kinds = {kind for kind, _ in items}
    if kinds == {"integer", "number"}:
        kinds = {"number"}
    if not kinds:
        raise ValueError("there is nothing to compare with; give 1 or more values")
    if len(kinds) > 1:
        raise TypeError(f"the values are of several types ({', '.join(sorted(kinds))}); give values of one type")
    (kind,) = kinds
    message = pb.FilterValue()
    getattr(message, f"{kind}s").values.extend(plain for _, plain in items)
    return message


def _kind_of(value: Scalar) -> tuple[str, bool | int | float | str]:
    """Return the field of a FilterValue for a value, and the value in the type of that field."""
    match from_numpy(value):
        case bool() as truth:
            return "boolean", truth
        case int() as whole:
            return ("integer", whole) if abs(whole) <= MAX_EXACT_INT else ("number", exact(whole))
        case float() as number:
            return "number", number
        case datetime() as moment:
            return "text", date_to_text(moment)
        case str() | UUID() as text:
            return "text", str(text)
    raise TypeError(
        f"{type(value).__name__} cannot be compared with; give bool, int, float, str, UUID or datetime, "
        "and for None use is_null()"
    )
