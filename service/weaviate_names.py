"""Parameters of a collection in the API's messages, such as those of an index, by Weaviate's own names and words."""

from collections.abc import Callable, Collection, Mapping, MutableSequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

# Where Weaviate's name is not the field's in camel case. A field without a name is not one of Weaviate's.
NAMES = {
    "max_posting_size_kb": "maxPostingSizeKB",
    "flat_quantizer": "",
    "default_ttl_seconds": "defaultTtl",
}

# Where Weaviate's word is not the value's name in lower case, without the enum's prefix.
WORDS = {
    "DELETION_STRATEGY_NO_AUTOMATED_RESOLUTION": "NoAutomatedResolution",
    "DELETION_STRATEGY_DELETE_ON_CONFLICT": "DeleteOnConflict",
    "DELETION_STRATEGY_TIME_BASED_RESOLUTION": "TimeBasedResolution",
    "PRODUCT_ENCODER_DISTRIBUTION_LOG_NORMAL": "log-normal",
}

INT_BITS = {FieldDescriptor.CPPTYPE_INT32: 32, FieldDescriptor.CPPTYPE_INT64: 64}
INDEXING = ("tokenization", "indexFilterable", "indexSearchable", "indexRangeFilters")
"""Weaviate's names for how a property is indexed."""

Check = Callable[[str, Any, Any], None]
"""Takes the path, the descriptor and the value of a field that is set."""


def parameters_from_pb(
    message: Message, only: Collection[str] = (), *, path: str = "", check: Check | None = None
) -> dict[str, Any]:
    """Return the fields that are set by Weaviate's names.

    Args:
        message: the parameters; messages in it become dictionaries.
        only: the names to return; empty for all.
        path: where the message is in its request.
        check: is called with each field that holds no message.
    """
    parameters: dict[str, Any] = {}
    for field, value in message.ListFields():
        name, where = _name(field), f"{path}.{field.name}"
        if not name or (only and name not in only):
            continue
        if field.message_type is not None:
            parameters[name] = parameters_from_pb(value, path=where, check=check)
            continue
        if check is not None:
            check(where, field, value)
        if field.enum_type is not None:
            parameters[name] = _words(field.enum_type).get(value, "")
        else:
            parameters[name] = list(value) if isinstance(value, MutableSequence) else value
    return parameters


def parameters_to_pb(parameters: Mapping[str, Any], message: Message) -> None:
    """Set the fields of a message to Weaviate's parameters; parameters that have no field are left out."""
    for field in message.DESCRIPTOR.fields:
        value = parameters.get(_name(field))
        if value is None:
            continue
        if field.message_type is not None:
            if isinstance(value, Mapping):
                inner = getattr(message, field.name)
                inner.SetInParent()
                parameters_to_pb(value, inner)
        elif isinstance(value, list):
            getattr(message, field.name).extend(map(str, value))
        elif field.enum_type is not None:
            numbers = {word: number for number, word in _words(field.enum_type).items()}
            setattr(message, field.name, numbers.get(value, 0))
        elif (bits := INT_BITS.get(field.cpp_type)) is not None:
            # Weaviate's JSON may write whole numbers as 1e+12.
            most = 2 ** (bits - 1) - 1
            setattr(message, field.name, max(-most - 1, min(int(value), most)))
        else:
            setattr(message, field.name, value)


def _name(field: Any) -> str:
    name: str = NAMES.get(field.name, field.json_name)
    return name


def _words(enum: Any) -> dict[int, str]:
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return {value.number: WORDS.get(value.name, value.name.removeprefix(prefix).lower()) for value in enum.values}
