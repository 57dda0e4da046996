"""What can be said of a property by itself."""

import re
from collections.abc import Iterable

from service.validation.violations import Violations
from vecgate.v1 import collection_service_pb2 as collection_pb

__all__ = ["TEXTS", "check_property"]

PROPERTY_NAME = re.compile(r"[_a-z][_0-9A-Za-z]{0,230}")
NESTED_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,230}")
RESERVED_NAMES = frozenset({"id", "_id", "_additional", "vector"})
MAX_DEPTH = 10

TEXTS = (collection_pb.DATA_TYPE_TEXT, collection_pb.DATA_TYPE_TEXT_ARRAY)
OBJECTS = (collection_pb.DATA_TYPE_OBJECT, collection_pb.DATA_TYPE_OBJECT_ARRAY)
RANGES = (collection_pb.DATA_TYPE_INT, collection_pb.DATA_TYPE_NUMBER, collection_pb.DATA_TYPE_DATE)
NOT_NESTED = (collection_pb.DATA_TYPE_BLOB, collection_pb.DATA_TYPE_GEO_COORDINATES)
# Each call of values() makes a list.
DATA_TYPES = frozenset(collection_pb.DataType.values())
TOKENIZATIONS = frozenset(collection_pb.Tokenization.values())
NAME_RULE = (
    "must be a small letter or underscore, then up to 230 letters, digits or underscores, and not one of "
    f"Weaviate's own: {', '.join(sorted(RESERVED_NAMES))}"
)
NESTED_NAME_RULE = "must be a letter or underscore, then up to 230 letters, digits or underscores"


def check_property(
    violations: Violations, each: collection_pb.Property, path: str, *, typed: bool, depth: int = 0
) -> None:
    """Note what a property cannot be.

    Args:
        violations: where to.
        each: the property.
        path: where it stands in the request.
        typed: whether it must have a type; one that is there already has one.
        depth: how many objects it is within.
    """
    if depth:
        good, message = NESTED_NAME.fullmatch(each.name) is not None, NESTED_NAME_RULE
    else:
        good = PROPERTY_NAME.fullmatch(each.name) is not None and each.name not in RESERVED_NAMES
        message = NAME_RULE
    violations.require(good, f"{path}.name", message)
    known = each.data_type in DATA_TYPES
    said = each.data_type != collection_pb.DATA_TYPE_UNSPECIFIED
    message = "is required; give one of the DataType values, such as DATA_TYPE_TEXT"
    violations.require(known and (said or not typed), f"{path}.data_type", message)
    if depth:
        fits = each.data_type not in NOT_NESTED
        violations.require(fits, f"{path}.data_type", "objects hold no blobs and no places")
    if known and said:
        _check_indexing(violations, each, path)
    _check_nested(violations, each, path, typed=typed, depth=depth)


def _check_indexing(violations: Violations, each: collection_pb.Property, path: str) -> None:
    known = each.tokenization in TOKENIZATIONS
    violations.require(known, f"{path}.tokenization", f"{each.tokenization} is no Tokenization that this server knows")
    if each.data_type not in TEXTS:
        cut = each.tokenization != collection_pb.TOKENIZATION_UNSPECIFIED
        violations.require(not cut, f"{path}.tokenization", "is for texts only; leave it out")
        violations.require(not each.index_searchable, f"{path}.index_searchable", "is for texts only; leave it out")
    ranges = each.data_type in RANGES or not each.index_range_filters
    violations.require(ranges, f"{path}.index_range_filters", "is for int, number and date only; leave it out")


def _check_nested(violations: Violations, each: collection_pb.Property, path: str, *, typed: bool, depth: int) -> None:
    where = f"{path}.nested_properties"
    if each.data_type not in OBJECTS:
        stray = each.nested_properties and (typed or each.data_type != collection_pb.DATA_TYPE_UNSPECIFIED)
        violations.require(not stray, where, "is for objects and object arrays only; leave it out")
        if stray:
            return
    elif not each.nested_properties:
        violations.add(where, "is empty; an object has at least one property")
    if depth == MAX_DEPTH:
        violations.require(not each.nested_properties, where, f"is more than {MAX_DEPTH} levels deep")
        return
    for index, inner in enumerate(each.nested_properties):
        check_property(violations, inner, f"{where}[{index}]", typed=typed, depth=depth + 1)
    violations.require_unique(_names(each.nested_properties), where)


def _names(properties: Iterable[collection_pb.Property]) -> list[str]:
    return [each.name for each in properties]
