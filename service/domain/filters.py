"""Filters: which objects of a collection count."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Target(Enum):
    """What a condition compares of an object."""

    PROPERTY = 1
    PROPERTY_LENGTH = 2
    ID = 3
    CREATION_TIME = 4
    UPDATE_TIME = 5


class Operator(Enum):
    """How a condition compares; the names and numbers are those of the API."""

    EQUAL = 1
    NOT_EQUAL = 2
    GREATER = 3
    GREATER_OR_EQUAL = 4
    LESS = 5
    LESS_OR_EQUAL = 6
    LIKE = 7
    CONTAINS_ANY = 8
    CONTAINS_ALL = 9
    CONTAINS_NONE = 10
    IS_NULL = 11
    WITHIN_GEO_RANGE = 12


@dataclass(frozen=True, slots=True)
class GeoRange:
    """A circle on the earth, in degrees and metres."""

    latitude: float
    longitude: float
    distance_m: float


FilterValue = bool | int | float | str | list[bool] | list[int] | list[float] | list[str] | GeoRange
"""What a condition compares with. Dates and UUIDs are strings."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison.

    Attributes:
        target: what is compared.
        operator: how.
        value: with what.
        name: the property, for the targets that are of one.
        references: the reference properties to go through to the object that is compared.
    """

    target: Target
    operator: Operator
    value: FilterValue
    name: str = ""
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of these hold."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these holds."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """This does not hold."""

    filter: "Filter"


Filter = AllOf | AnyOf | Not | Condition
"""Which objects count."""


def conditions(filter_: Filter | None) -> Iterator[Condition]:
    """Yield the conditions of a filter, however they are joined."""
    match filter_:
        case AllOf(parts) | AnyOf(parts):
            for each in parts:
                yield from conditions(each)
        case Not(inner):
            yield from conditions(inner)
        case Condition():
            yield filter_
