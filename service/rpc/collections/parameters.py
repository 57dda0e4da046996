"""Messages of parameters, such as those of an index, to and from Weaviate's own names and words."""

from collections.abc import Collection, Mapping, MutableSequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from service.domain import Parameters

# Where Weaviate's name is not the field's in camel case.
NAMES = {"max_posting_size_kb": "maxPostingSizeKB", "flat_quantizer": ""}

# Where Weaviate's words are not the value's in lower case, without the enum's prefix.
WORDS = {
    "DELETION_STRATEGY_NO_AUTOMATED_RESOLUTION": "NoAutomatedResolution",
    "DELETION_STRATEGY_DELETE_ON_CONFLICT": "DeleteOnConflict",
    "DELETION_STRATEGY_TIME_BASED_RESOLUTION": "TimeBasedResolution",
    "PRODUCT_ENCODER_DISTRIBUTION_LOG_NORMAL": "log-normal",
}


def parameters_from_pb(message: Message, only: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields that are set, all or only some, by Weaviate's names; messages within become dicts."""
    parameters: dict[str, Any] = {}
    for field, value in message.ListFields():
        name = _name(field)
        if not name or (only and name not in only):
            continue
        if field.message_type is not None:
            parameters[name] = parameters_from_pb(value)
        elif field.enum_type is not None:
            parameters[name] = _words(field.enum_type)[value]
        else:
            parameters[name] = list(value) if isinstance(value, MutableSequence) else value
    return parameters


def parameters_to_pb(parameters: Parameters, message: Message) -> None:
    """Set the fields that Weaviate says something of; what a field cannot hold is left out."""
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
        else:
            _set_scalar(message, field, value)


def _set_scalar(message: Message, field: Any, value: Any) -> None:
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64):
        # Weaviate's JSON may write whole numbers as 1e+12.
        value = int(value)
        if field.cpp_type == FieldDescriptor.CPPTYPE_INT32:
            value = max(-(2**31), min(value, 2**31 - 1))
    setattr(message, field.name, value)


def _name(field: Any) -> str:
    name: str = NAMES.get(field.name, field.json_name)
    return name


def _words(enum: Any) -> dict[int, str]:
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return {value.number: WORDS.get(value.name, value.name.removeprefix(prefix).lower()) for value in enum.values}
