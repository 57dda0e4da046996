"""Filters of a request: checked by themselves, and made into those of the domain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from service.domain import AllOf, AnyOf, Condition, Filter, FilterValue, GeoRange, Not, Operator, Target
from service.rpc.shared.violations import RequestLimits, Violations
from vecgate.v1 import filter_pb2 as pb

MAX_LATITUDE = 90
MAX_LONGITUDE = 180
OPERATORS = frozenset(pb.FilterOperator.values()) - {pb.FILTER_OPERATOR_UNSPECIFIED}
OBJECT_FIELDS = frozenset(pb.ObjectField.values()) - {pb.OBJECT_FIELD_UNSPECIFIED}
ONE_OF_NODES = "set one of all_of, any_of, negation and condition"


def check_filter_form(violations: Violations, filter_: pb.Filter, path: str, limits: RequestLimits) -> None:
    """Note what is wrong with a filter, but for names and types, which need the collection."""
    walk = _Walk(violations, limits)
    walk.visit(filter_, path, 1)
    if walk.nodes > limits.max_filter_nodes:
        violations.add(
            path, f"has {walk.nodes} nodes or more, this server takes {limits.max_filter_nodes}; simplify it"
        )


@dataclass(slots=True)
class _Walk:
    """One way through a filter, which ends when the bounds are passed."""

    violations: Violations
    limits: RequestLimits
    nodes: int = 0

    def visit(self, filter_: pb.Filter, path: str, depth: int) -> None:
        self.nodes += 1
        if self.nodes > self.limits.max_filter_nodes:
            return
        if depth > self.limits.max_filter_depth:
            self.violations.add(path, f"is nested more than {self.limits.max_filter_depth} deep; flatten the filter")
            return
        match filter_.WhichOneof("node"):
            case "all_of":
                self._visit_list(filter_.all_of.filters, f"{path}.all_of.filters", depth)
            case "any_of":
                self._visit_list(filter_.any_of.filters, f"{path}.any_of.filters", depth)
            case "negation":
                self.visit(filter_.negation, f"{path}.negation", depth + 1)
            case "condition":
                self._visit_condition(filter_.condition, f"{path}.condition")
            case _:
                self.violations.add(path, f"is empty; {ONE_OF_NODES}")

    def _visit_list(self, filters: Sequence[pb.Filter], path: str, depth: int) -> None:
        self.violations.require(filters, path, "is empty; give 1 or more filters")
        for index, each in enumerate(filters):
            if self.nodes > self.limits.max_filter_nodes:
                return
            self.visit(each, f"{path}[{index}]", depth + 1)

    def _visit_condition(self, condition: pb.Condition, path: str) -> None:
        require = self.violations.require
        self.nodes += len(condition.references)
        match condition.WhichOneof("target"):
            case "property":
                require(condition.property, f"{path}.property", "is empty; name a property")
            case "property_length":
                require(condition.property_length, f"{path}.property_length", "is empty; name a property")
            case "object_field":
                field = condition.object_field
                require(field in OBJECT_FIELDS, f"{path}.object_field", f"{field} is no ObjectField of this version")
            case _:
                self.violations.add(path, "has no target; set one of property, property_length and object_field")
        operator = condition.operator
        require(operator in OPERATORS, f"{path}.operator", f"{operator} is no FilterOperator of this version")
        kind = condition.value.WhichOneof("kind")
        if kind is None:
            self.violations.add(f"{path}.value", "is required; give what to compare with")
            return
        within = operator == pb.FILTER_OPERATOR_WITHIN_GEO_RANGE
        require(
            (kind == "geo_range") == within,
            f"{path}.value",
            "WITHIN_GEO_RANGE takes a geo_range, and nothing else does",
        )
        chosen = getattr(condition.value, kind)
        if kind == "geo_range":
            _check_geo_range(self.violations, chosen, f"{path}.value.geo_range")
        elif isinstance(chosen, Message):
            values = chosen.values  # type: ignore[attr-defined]  # the lists of FilterValue all have it
            require(values, f"{path}.value.{kind}.values", "is empty; give 1 or more values")
            self.nodes += len(values)


def _check_geo_range(violations: Violations, geo: pb.GeoRange, path: str) -> None:
    # NaN is within no bounds.
    latitude_fits = abs(geo.latitude) <= MAX_LATITUDE
    violations.require(latitude_fits, f"{path}.latitude", f"is not within -{MAX_LATITUDE} to {MAX_LATITUDE} degrees")
    longitude_fits = abs(geo.longitude) <= MAX_LONGITUDE
    message = f"is not within -{MAX_LONGITUDE} to {MAX_LONGITUDE} degrees"
    violations.require(longitude_fits, f"{path}.longitude", message)
    distance_fits = 0 < geo.distance_m < float("inf")
    violations.require(distance_fits, f"{path}.distance_m", "is not a number of metres above 0")


TARGETS = {
    pb.OBJECT_FIELD_ID: Target.ID,
    pb.OBJECT_FIELD_CREATION_TIME: Target.CREATION_TIME,
    pb.OBJECT_FIELD_UPDATE_TIME: Target.UPDATE_TIME,
}


def filter_from_pb(message: pb.Filter) -> Filter:
    """Return a filter."""
    match message.WhichOneof("node"):
        case "all_of":
            return AllOf(tuple(filter_from_pb(each) for each in message.all_of.filters))
        case "any_of":
            return AnyOf(tuple(filter_from_pb(each) for each in message.any_of.filters))
        case "negation":
            return Not(filter_from_pb(message.negation))
    return _condition_from_pb(message.condition)


def _condition_from_pb(message: pb.Condition) -> Condition:
    match message.WhichOneof("target"):
        case "property":
            target, name = Target.PROPERTY, message.property
        case "property_length":
            target, name = Target.PROPERTY_LENGTH, message.property_length
        case _:
            target, name = TARGETS[message.object_field], ""
    value = _value_from_pb(message.value)
    return Condition(target, Operator(message.operator), value, name, tuple(message.references))


def _value_from_pb(message: pb.FilterValue) -> FilterValue:
    kind = message.WhichOneof("kind")
    if kind == "geo_range":
        geo = message.geo_range
        return GeoRange(geo.latitude, geo.longitude, geo.distance_m)
    assert kind is not None, "the form has been checked"
    value: Any = getattr(message, kind)
    return value if isinstance(value, bool | int | float | str) else list(value.values)
