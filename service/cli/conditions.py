"""Conditions in short form, such as year>=2020."""

import operator
import re
from collections.abc import Callable, Sequence

from service.cli.output import EXIT_WRONG_USE, fail
from vecgate.client import all_of, where
from vecgate.client.filters import Where
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import filter_pb2
from vecgate.v1 import property_pb2 as property_pb

FORM = re.compile(r"\s*(\w+)\s*(>=|<=|!=|=|>|<|~)\s*(.*?)\s*", re.DOTALL)
MAKERS: dict[str, Callable[..., filter_pb2.Filter]] = {
    "=": Where.equal,
    "!=": Where.not_equal,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "~": Where.like,
}
TRUTHS = {"true": True, "false": False}
READERS: dict[property_pb.DataType.ValueType, Callable[[str], bool | int | float | str]] = {
    property_pb.DATA_TYPE_INT: int,
    property_pb.DATA_TYPE_INT_ARRAY: int,
    property_pb.DATA_TYPE_NUMBER: float,
    property_pb.DATA_TYPE_NUMBER_ARRAY: float,
    property_pb.DATA_TYPE_BOOLEAN: TRUTHS.__getitem__,
    property_pb.DATA_TYPE_BOOLEAN_ARRAY: TRUTHS.__getitem__,
}


def parse_conditions(collection: collection_pb.Collection, conditions: Sequence[str]) -> filter_pb2.Filter:
    """Return a filter of all conditions, or exit if one cannot be read."""
    types = {each.name: each.data_type for each in collection.properties}
    filters = []
    for text in conditions:
        name, sign, value = split_condition(text)
        try:
            read = READERS.get(types.get(name, property_pb.DATA_TYPE_TEXT), str)(value)
            filters.append(MAKERS[sign](where(name), read))
        except (KeyError, ValueError):
            kind = property_pb.DataType.Name(types[name]).removeprefix("DATA_TYPE_").lower()
            fail(f"--where {text!r}: {name!r} takes a value of type {kind}, not {value!r}", EXIT_WRONG_USE)
    return all_of(*filters)


def split_condition(text: str) -> tuple[str, str, str]:
    """Return a condition's name, sign and value, or exit if it cannot be read."""
    parts = FORM.fullmatch(text)
    if parts is None:
        fail(f"--where {text!r} must be NAME=VALUE, or have !=, >, >=, <, <= or ~ (like) instead of =", EXIT_WRONG_USE)
    name, sign, value = parts.groups()
    return name, sign, value
