"""Messages of every kind that the API's protocol allows, most of them nonsense: strategies for hypothesis."""

from collections.abc import Callable
from typing import Any

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.fakes.embedder import picture
from vecgate.v1 import (
    admin_service_pb2,
    collection_service_pb2,
    embedding_service_pb2,
    evaluation_service_pb2,
    object_service_pb2,
    search_service_pb2,
)

SERVICES = (
    admin_service_pb2,
    collection_service_pb2,
    embedding_service_pb2,
    evaluation_service_pb2,
    object_service_pb2,
    search_service_pb2,
)
METHODS: list[MethodDescriptor] = [
    method
    for module in SERVICES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
"""Every method of the API."""

MAX_DEPTH = 6
WORDS = (
    "", "Pictures", "pictures", "title", "image", "tags", "year", "taken", "place", "default", "fake", "a cat", "*",
    "\0", "../x", "é", "\U0001f600", "x" * 300, "00000000-0000-0000-0000-000000000001", "2024-01-01T00:00:00Z",
    "nan", "-1",
)  # fmt: skip
"""Words among which are the names of the collection that tests make, so that not all is refused at the door."""

HINTS = {
    "collection": ("Pictures", "Pictures", "Pictures", "Other"),
    "id": ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"),
    "name": ("Other", "title", "default"),
    "page_size": (0, 1),
    "limit": (0, 1, 10),
}
"""What fields of these names mostly hold, and they mostly are there: what lies behind the door is of interest, too."""

TEXTS = st.one_of(st.sampled_from(WORDS), st.text(max_size=20))
BYTES = st.one_of(
    st.sampled_from((b"", picture(), picture()[:40], b"\0" * 32, b"\0\0\x80?" * 8, b"\0\0\xc0\x7f" * 8)),
    st.binary(max_size=64),
)
EDGES = {bits: (0, 1, -1, 2, 7, 100, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))) for bits in (32, 64)}


def _integers(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    edges = [edge for edge in EDGES[bits] if signed or edge >= 0]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.sampled_from(edges), st.integers(low, high))


SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_DOUBLE: st.one_of(st.sampled_from((0.0, 0.5, 1.0, -1.0, 1e308)), st.floats()),
    FieldDescriptor.TYPE_FLOAT: st.one_of(st.sampled_from((0.0, 0.5, 1.0, -1.0)), st.floats(width=32)),
    FieldDescriptor.TYPE_INT32: _integers(32),
    FieldDescriptor.TYPE_INT64: _integers(64),
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_UINT32: _integers(32, signed=False),
    FieldDescriptor.TYPE_UINT64: _integers(64, signed=False),
}

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def _value(content: Any) -> struct_pb2.Value:
    made = struct_pb2.Value()
    match content:
        case None:
            made.null_value = struct_pb2.NULL_VALUE
        case bool():
            made.bool_value = content
        case float():
            made.number_value = content
        case str():
            made.string_value = content
        case list():
            made.list_value.values.extend(map(_value, content))
        case dict():
            made.struct_value.CopyFrom(_struct(content))
    return made


def _struct(content: dict[str, Any]) -> struct_pb2.Struct:
    return struct_pb2.Struct(fields={name: _value(each) for name, each in content.items()})


WELL_KNOWN: dict[str, st.SearchStrategy[Message]] = {
    "google.protobuf.Struct": st.dictionaries(TEXTS, JSON, max_size=4).map(_struct),
    "google.protobuf.Value": JSON.map(_value),
    "google.protobuf.Timestamp": st.builds(timestamp_pb2.Timestamp, seconds=_integers(64), nanos=_integers(32)),
}


@st.composite
def messages(draw: st.DrawFn, kind: Any, depth: int = 0) -> Any:
    """Draw a message of a kind, a descriptor; deep ones end empty."""
    if (known := WELL_KNOWN.get(kind.full_name)) is not None:
        return draw(known)
    message = GetMessageClass(kind)()
    if depth == MAX_DEPTH:
        return message
    single = [each for each in kind.fields if each.containing_oneof is None]
    some = draw(st.sampled_from((1, 2, 8)))
    chosen = [draw(st.sampled_from([None, *oneof.fields])) for oneof in kind.oneofs]
    kept = [each for each in single if draw(st.integers(1, 8)) <= (6 if each.name in HINTS else some)]
    for field in [*kept, *(each for each in chosen if each is not None)]:
        _fill(draw, message, field, depth)
    return message


@st.composite
def mutants(draw: st.DrawFn, sound: Message) -> Any:
    """Draw a sound message with up to three changes, anywhere in it."""
    message = type(sound)()
    message.CopyFrom(sound)
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        place: Any = message
        while inner := [each for field, each in place.ListFields() if _plain(field)]:
            chosen = draw(st.sampled_from([None, *inner]))
            if chosen is None:
                break
            place = chosen if isinstance(chosen, Message) else draw(st.sampled_from(list(chosen)))
        if place.DESCRIPTOR.full_name in WELL_KNOWN or not place.DESCRIPTOR.fields:
            place.CopyFrom(draw(messages(place.DESCRIPTOR)))
            continue
        field = draw(st.sampled_from(list(place.DESCRIPTOR.fields)))
        place.ClearField(field.name)
        if draw(st.integers(0, 4)):
            _fill(draw, place, field, MAX_DEPTH - 2)
    return message


def _plain(field: FieldDescriptor) -> bool:
    """Whether a field holds messages that can be changed where they are."""
    return field.message_type is not None and not field.message_type.GetOptions().map_entry


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        key, value = nested.fields_by_name["key"], nested.fields_by_name["value"]
        for name in draw(st.lists(_one(key, depth), max_size=2)):
            made = draw(_one(value, depth))
            target = getattr(message, field.name)
            if value.message_type is None:
                target[name] = made
            else:
                target[name].CopyFrom(made)
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(_one(field, depth), max_size=3)))
    elif nested is not None:
        getattr(message, field.name).CopyFrom(draw(_one(field, depth)))
    else:
        setattr(message, field.name, draw(_one(field, depth)))


def _one(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, depth + 1)
    if field.enum_type is not None:
        known = [each.number for each in field.enum_type.values]
        return st.sampled_from([*known, *known, 999])
    hinted = [each for each in HINTS.get(field.name, ()) if isinstance(each, str) == (field.type == field.TYPE_STRING)]
    if hinted:
        return st.one_of(*[st.sampled_from(hinted)] * 4, SCALARS[field.type])
    return SCALARS[field.type]


def bodies(model: str) -> st.SearchStrategy[Any]:
    """Draw what may come as the JSON of a request for embeddings."""
    either: Callable[..., st.SearchStrategy[Any]] = st.one_of
    fields = {
        "model": either(st.just(model), JSON),
        "input": either(TEXTS, st.lists(either(TEXTS, JSON), max_size=4), JSON),
        "encoding_format": either(st.sampled_from(("float", "base64")), JSON),
        "dimensions": either(st.just(8), JSON),
        "input_type": either(st.sampled_from(("query", "passage")), JSON),
        "truncate": either(st.sampled_from(("NONE", "END")), JSON),
        "user": JSON,
        "extra": JSON,
    }
    needed = {name: fields.pop(name) for name in ("model", "input")}
    return either(st.fixed_dictionaries(needed, optional=fields), JSON)
