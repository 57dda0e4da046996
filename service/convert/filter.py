"""Filters as the domain has them; their form has been checked."""

from typing import Any

from service.filters import AllOf, AnyOf, Condition, Filter, FilterValue, GeoRange, Not, Operator, Target
from vecgate.v1 import filter_pb2 as pb

__all__ = ["filter_from_pb"]

OBJECT_FIELDS = {
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
            target, name = OBJECT_FIELDS[message.object_field], ""
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
