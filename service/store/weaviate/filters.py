"""Filters as the client takes them."""

from dataclasses import replace

from weaviate.classes.query import Filter as ClientFilter
from weaviate.classes.query import GeoCoordinate
from weaviate.collections.classes.filters import _Filters, _FilterValue, _Operator

from service.domain import AllOf, AnyOf, Condition, Filter, GeoRange, Not, Operator, Target

OPERATORS = {
    Operator.EQUAL: _Operator.EQUAL,
    Operator.NOT_EQUAL: _Operator.NOT_EQUAL,
    Operator.GREATER: _Operator.GREATER_THAN,
    Operator.GREATER_OR_EQUAL: _Operator.GREATER_THAN_EQUAL,
    Operator.LESS: _Operator.LESS_THAN,
    Operator.LESS_OR_EQUAL: _Operator.LESS_THAN_EQUAL,
    Operator.LIKE: _Operator.LIKE,
    Operator.CONTAINS_ANY: _Operator.CONTAINS_ANY,
    Operator.CONTAINS_ALL: _Operator.CONTAINS_ALL,
    Operator.CONTAINS_NONE: _Operator.CONTAINS_NONE,
    Operator.IS_NULL: _Operator.IS_NULL,
}
# Weaviate keeps them with the properties, under these names.
OBJECT_FIELDS = {
    Target.ID: "_id",
    Target.CREATION_TIME: "_creationTimeUnix",
    Target.UPDATE_TIME: "_lastUpdateTimeUnix",
}


def filter_to_weaviate(filter_: Filter) -> _Filters:
    """Return a filter for the client."""
    match filter_:
        case AllOf(filters):
            return ClientFilter.all_of([filter_to_weaviate(each) for each in filters])
        case AnyOf(filters):
            return ClientFilter.any_of([filter_to_weaviate(each) for each in filters])
        case Not(inner):
            return ClientFilter.not_(filter_to_weaviate(inner))
        case Condition(operator=Operator.NOT_EQUAL, references=()):
            # Weaviate's own excludes texts with any of the words, and nulls where only range filters are indexed.
            return ClientFilter.not_(_condition_to_weaviate(replace(filter_, operator=Operator.EQUAL)))
        case Condition():
            return _condition_to_weaviate(filter_)


def _condition_to_weaviate(condition: Condition) -> _Filters:
    name = OBJECT_FIELDS.get(condition.target, condition.name)
    length = condition.target is Target.PROPERTY_LENGTH
    if condition.references:
        first, *others = condition.references
        chain = ClientFilter.by_ref(first)
        for each in others:
            chain = chain.by_ref(each)
        target = chain.by_property(name, length=length)
    else:
        target = ClientFilter.by_property(name, length=length)
    if isinstance(condition.value, GeoRange):
        place = GeoCoordinate(latitude=condition.value.latitude, longitude=condition.value.longitude)
        return target.within_geo_range(coordinate=place, distance=condition.value.distance_m)
    # The client's own methods take dates as datetime only, which has fewer digits than Weaviate.
    return _FilterValue(
        target=target._target_path(),  # noqa: SLF001
        value=condition.value,
        operator=OPERATORS[condition.operator],
    )
