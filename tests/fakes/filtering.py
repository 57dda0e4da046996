"""Filters in memory: which objects of tests/fakes/store.py count, as Weaviate counts them."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from service.domain import AllOf, AnyOf, Condition, Filter, Not, Operator, StoredObject, Target
from service.errors import StoreRejected

WORD = re.compile(r"[^\W_]+")
DATE = re.compile(r"\d{4}-\d\d-\d\dT")


def matches(object_: StoredObject, filter_: Filter | None) -> bool:
    """Return whether an object counts."""
    match filter_:
        case None:
            return True
        case AllOf(filters):
            return all(matches(object_, each) for each in filters)
        case AnyOf(filters):
            return any(matches(object_, each) for each in filters)
        case Not(inner):
            return not matches(object_, inner)
        case Condition():
            return _holds(object_, filter_)


def _holds(object_: StoredObject, condition: Condition) -> bool:
    held = _value_of(object_, condition)
    items = held if isinstance(held, list) else [] if held is None else [held]
    wanted: Any = condition.value
    if condition.operator is Operator.WITHIN_GEO_RANGE:
        raise StoreRejected("this store knows no places")
    if condition.operator is Operator.IS_NULL:
        return (held is None or held in ([], "")) == wanted
    return TESTS[condition.operator](items, wanted)


def _value_of(object_: StoredObject, condition: Condition) -> Any:
    if condition.references:
        raise StoreRejected("this store knows no references")
    match condition.target:
        case Target.PROPERTY:
            return object_.properties.get(condition.name)
        case Target.PROPERTY_LENGTH:
            value: Any = object_.properties.get(condition.name)
            return 0 if value is None else len(value)
        case Target.ID:
            return str(object_.id)
    raise StoreRejected("this store keeps no times")


def _has(items: list[Any], wanted: Any) -> bool:
    if isinstance(wanted, str) and not DATE.match(wanted):
        # As Weaviate's tokenization "word": all words, whatever stands between them.
        words = set(WORD.findall(wanted.lower()))
        return bool(words) and words <= {word for each in items for word in WORD.findall(each.lower())}
    return any(_ordered(each) == _ordered(wanted) for each in items)


def _ordered(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) and DATE.match(value) else value


def _like(items: list[Any], wanted: str) -> bool:
    pattern = re.escape(wanted.lower()).replace(r"\?", ".").replace(r"\*", ".*")
    return any(re.fullmatch(pattern, word) for each in items for word in WORD.findall(each.lower()))


TESTS: dict[Operator, Callable[[list[Any], Any], bool]] = {
    Operator.EQUAL: _has,
    Operator.NOT_EQUAL: lambda items, wanted: not _has(items, wanted),
    Operator.GREATER: lambda items, wanted: any(_ordered(each) > _ordered(wanted) for each in items),
    Operator.GREATER_OR_EQUAL: lambda items, wanted: any(_ordered(each) >= _ordered(wanted) for each in items),
    Operator.LESS: lambda items, wanted: any(_ordered(each) < _ordered(wanted) for each in items),
    Operator.LESS_OR_EQUAL: lambda items, wanted: any(_ordered(each) <= _ordered(wanted) for each in items),
    Operator.LIKE: _like,
    Operator.CONTAINS_ANY: lambda items, wanted: any(_has(items, each) for each in wanted),
    Operator.CONTAINS_ALL: lambda items, wanted: all(_has(items, each) for each in wanted),
    Operator.CONTAINS_NONE: lambda items, wanted: not any(_has(items, each) for each in wanted),
}
