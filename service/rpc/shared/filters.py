"""Filters of a request: one walk checks them and makes those of the domain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from service.domain import AllOf, AnyOf, Condition, Filter, FilterValue, GeoRange, Not, Operator, Target
from service.errors import Violations
from service.rpc.shared.bounds import RequestLimits
from vecgate.v1 import filter_pb2 as pb

MAX_LATITUDE = 90
MAX_LONGITUDE = 180
OPERATORS = frozenset(pb.FilterOperator.values()) - {pb.FILTER_OPERATOR_UNSPECIFIED}
OBJECT_FIELDS = {
    pb.OBJECT_FIELD_ID: Target.ID,
    pb.OBJECT_FIELD_CREATION_TIME: Target.CREATION_TIME,
    pb.OBJECT_FIELD_UPDATE_TIME: Target.UPDATE_TIME,
}


def parse_filter(message: pb.Filter, limits: RequestLimits, violations: Violations) -> Filter | None:
    """Return a filter, and note its faults; names and types are not checked, which needs the collection.

    Args:
        message: the field `filters` of the request.
        limits: how many nodes it may have, and how deeply they may be nested.
        violations: where to note faults; the filter is then None, or lacks the faulty parts.
    """
    walk = _Walk(violations, limits)
    parsed = walk.parse(message, "filters", 1)
    if walk.nodes > limits.max_filter_nodes:
        violations.add(
            "filters", f"has {walk.nodes} nodes or more, this server takes {limits.max_filter_nodes}; simplify it"
        )
    return parsed


@dataclass(slots=True)
class _Walk:
    """One walk through a filter, which ends when the bounds are passed."""

    violations: Violations
    limits: RequestLimits
    nodes: int = 0

    def parse(self, message: pb.Filter, path: str, depth: int) -> Filter | None:
        self.nodes += 1
        if self.nodes > self.limits.max_filter_nodes:
            return None
        if depth > self.limits.max_filter_depth:
            self.violations.add(path, f"is nested more than {self.limits.max_filter_depth} deep; flatten the filter")
            return None
        return self._node(message, path, depth)

    def _node(self, message: pb.Filter, path: str, depth: int) -> Filter | None:
        match message.WhichOneof("node"):
            case "all_of":
                return AllOf(self._list(message.all_of.filters, f"{path}.all_of.filters", depth))
            case "any_of":
                return AnyOf(self._list(message.any_of.filters, f"{path}.any_of.filters", depth))
            case "negation":
                inner = self.parse(message.negation, f"{path}.negation", depth + 1)
                return inner and Not(inner)
            case "condition":
                return self._condition(message.condition, f"{path}.condition")
        self.violations.add(path, "is empty; set one of all_of, any_of, negation and condition")
        return None

    def _list(self, messages: Sequence[pb.Filter], path: str, depth: int) -> tuple[Filter, ...]:
        self.violations.require(messages, path, "is empty; give 1 or more filters")
        parsed = []
        for index, each in enumerate(messages):
            if self.nodes > self.limits.max_filter_nodes:
                break
            parsed.append(self.parse(each, f"{path}[{index}]", depth + 1))
        return tuple(each for each in parsed if each is not None)

    def _condition(self, message: pb.Condition, path: str) -> Condition | None:
        self.nodes += len(message.references)
        target, name = self._target(message, path)
        known = message.operator in OPERATORS
        self.violations.require(
            known, f"{path}.operator", f"{message.operator} is not a FilterOperator of this version"
        )
        value = self._value(message, f"{path}.value")
        if target is None or not known or value is None:
            return None
        return Condition(target, Operator(message.operator), value, name, tuple(message.references))

    def _target(self, message: pb.Condition, path: str) -> tuple[Target | None, str]:
        match message.WhichOneof("target"):
            case "property":
                self.violations.require(message.property, f"{path}.property", "is empty; name a property")
                return Target.PROPERTY, message.property
            case "property_length":
                self.violations.require(message.property_length, f"{path}.property_length", "is empty; name a property")
                return Target.PROPERTY_LENGTH, message.property_length
            case "object_field":
                field = message.object_field
                self.violations.require(
                    field in OBJECT_FIELDS, f"{path}.object_field", f"{field} is not an ObjectField of this version"
                )
                return OBJECT_FIELDS.get(field), ""
        self.violations.add(path, "has no target; set one of property, property_length and object_field")
        return None, ""

    def _value(self, message: pb.Condition, path: str) -> FilterValue | None:
        kind = message.value.WhichOneof("kind")
        if kind is None:
            self.violations.add(path, "is required; give what to compare with")
            return None
        self.violations.require(
            (kind == "geo_range") == (message.operator == pb.FILTER_OPERATOR_WITHIN_GEO_RANGE),
            path,
            "WITHIN_GEO_RANGE takes a geo_range, and no other operator does",
        )
        if kind == "geo_range":
            return _parse_geo_range(message.value.geo_range, f"{path}.geo_range", self.violations)
        value: Any = getattr(message.value, kind)
        if not isinstance(value, Message):
            return value  # type: ignore[no-any-return]  # bool, int, float or str
        values: Sequence[Any] = value.values  # type: ignore[attr-defined]  # the lists of FilterValue all have it
        self.violations.require(values, f"{path}.{kind}.values", "is empty; give 1 or more values")
        self.nodes += len(values)
        return list(values)


def _parse_geo_range(geo: pb.GeoRange, path: str, violations: Violations) -> GeoRange:
    # NaN is within no bounds.
    for name, degrees, most in (
        ("latitude", geo.latitude, MAX_LATITUDE),
        ("longitude", geo.longitude, MAX_LONGITUDE),
    ):
        violations.require(abs(degrees) <= most, f"{path}.{name}", f"must be -{most} to {most} degrees")
    fits = 0 < geo.distance_m < float("inf")
    violations.require(fits, f"{path}.distance_m", "must be a finite number of metres above 0")
    return GeoRange(geo.latitude, geo.longitude, geo.distance_m)
