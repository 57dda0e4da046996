"""Messages in JSON, as protobuf defines it: camelCase names, bytes as base64, 64-bit integers as strings."""

import asyncio
import binascii
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import EncodeError, Message

from service.errors import InvalidRequest, Violation
from service.rpc.connect.json_text import LONG_BYTES, JsonText
from service.rpc.shared.bounds import MAX_PROPERTIES_BYTES

IN_THREAD_BYTES = 16 * 1024
"""Longer messages are converted in a thread, so that other calls do not wait."""

AT_ONCE = 1024 * 1024
"""Characters of base64 that are decoded at a time, so that other threads have their turn; a multiple of 4."""

MESSAGE_CHARS = 300
"""Characters of protobuf's own message that an error repeats."""

WELL_KNOWN = "google.protobuf."
"""Messages with JSON of their own."""

CONTROLS = bytes(range(0x20))
"""Characters that JSON has in no string."""

URL_SAFE = bytes.maketrans(b"-_", b"+/")

_UNKNOWN = re.compile(r'has no field named "(?P<name>[^"]{1,200})" at "(?P<path>[^"]{1,400})"')
_FAILED = re.compile(r"Failed to parse (?P<name>\w{1,100}) field: ")
_PLACE = re.compile(r" at (?P<path>[A-Z]\w*(?:\.\w+|\[\d+\]){1,40})")


@dataclass(frozen=True, slots=True)
class JsonMessage:
    """A message in JSON that is not read yet.

    Attributes:
        content: the JSON.
        kind: the message's class.
    """

    content: bytes
    kind: type[Message]


class JsonMessages:
    """Converts messages between JSON and protobuf's encoding.

    Args:
        max_fields: members of objects and items of lists that a request may have.
    """

    def __init__(self, max_fields: int) -> None:
        self._max_fields = max_fields
        # One thread: Python runs one thread at a time, and each busy thread delays the event loop more.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="json")

    def close(self) -> None:
        """Stop the thread; no call is in flight."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def read(self, message: JsonMessage) -> bytes:
        """Return a request in protobuf's encoding.

        Raises:
            InvalidRequest: it is not JSON, or not that of its message.
        """
        return await self._run(len(message.content), lambda: to_binary(message, self._max_fields))

    async def write(self, content: bytes, kind: type[Message]) -> bytes:
        """Return a response in JSON."""
        return await self._run(len(content), lambda: to_json(content, kind))

    async def _run(self, size: int, convert: Callable[[], bytes]) -> bytes:
        if size <= IN_THREAD_BYTES:
            return convert()
        return await asyncio.get_running_loop().run_in_executor(self._thread, convert)


def to_json(content: bytes, kind: type[Message]) -> bytes:
    """Return a message in JSON."""
    value = json_format.MessageToDict(kind.FromString(content))
    return b"".join(_pieces(value)) if len(content) > IN_THREAD_BYTES else orjson.dumps(value)


def _pieces(value: dict[str, Any]) -> Iterator[bytes]:
    """Yield an object in JSON, the items of its lists one by one: one call would keep the interpreter to its end."""
    before = b"{"
    for name, member in value.items():
        yield before + orjson.dumps(name) + b":"
        if isinstance(member, list) and member:
            yield b"[" + orjson.dumps(member[0])
            for item in member[1:]:
                yield b"," + orjson.dumps(item)
            yield b"]"
        else:
            yield orjson.dumps(member)
        before = b","
    yield b"}" if value else b"{}"


def to_binary(message: JsonMessage, max_fields: int) -> bytes:
    """Return a message in protobuf's encoding.

    Raises:
        InvalidRequest: it is not JSON, not that of its message, or has too many fields.
    """
    text, result = JsonText(message.content, max_fields), message.kind()
    if not isinstance(text.value, dict):
        raise InvalidRequest([Violation("", "the request is not a JSON object; send at least {}")])
    try:
        contents = list(_take_bytes(text, text.value, cast("Descriptor", result.DESCRIPTOR), ()))
        is_long = len(message.content) > LONG_BYTES
        json_format.ParseDict(_whole(text, text.value) if is_long else text.value, result)
        for path, content in contents:
            _put(result, path, content)
        return result.SerializeToString()
    except json_format.ParseError as error:
        raise _invalid(str(error)) from None
    except UnicodeDecodeError:
        raise InvalidRequest([Violation("", "the request is not encoded in UTF-8")]) from None
    except (EncodeError, RecursionError):
        raise InvalidRequest([Violation("", "the request has more levels than a message can have")]) from None
    except (AttributeError, TypeError):
        # What protobuf's reader says of these is about its own code.
        raise InvalidRequest([Violation("", "the request has a value of a wrong type for its field")]) from None
    except (ArithmeticError, LookupError, ValueError) as error:
        raise _invalid(str(error)) from None


class _Key(str):
    """A key of a map in a path."""

    __slots__ = ()


Path = tuple[str | int, ...]


def _take_bytes(text: JsonText, value: dict[str, Any], kind: Descriptor, path: Path) -> Iterator[tuple[Path, bytes]]:
    """Take the values of all fields of type bytes out of an object, and yield them with their paths.

    protobuf's own reader skips what is not base64, and decodes megabytes at a time.
    """
    for name, field in _fields_with_bytes(kind):
        given, where = value.get(name), (*path, field.name)
        inner = field.message_type
        if inner is None:
            if isinstance(given, str):
                del value[name]
                yield where, _decode(text.long(given) or given.encode("utf-8", "replace"), where)
            continue
        if inner.GetOptions().map_entry:
            inner = inner.fields_by_name["value"].message_type
            assert inner is not None
        for step, item in _items(given, field):
            if isinstance(item, dict):
                yield from _take_bytes(text, item, inner, (*where, *step))


def _items(given: Any, field: FieldDescriptor) -> Iterator[tuple[Path, Any]]:
    """Yield the messages that a field holds, with the steps to them; nothing if it holds something else."""
    match given:
        case list() if field.is_repeated:
            for index, item in enumerate(given):
                yield (index,), item
        case dict() if field.is_repeated:
            for key, item in given.items():
                yield (_Key(key),), item
        case dict():
            yield (), given


@cache
def _fields_with_bytes(kind: Descriptor) -> tuple[tuple[str, FieldDescriptor], ...]:
    """Return the fields of a message that are of type bytes, or hold messages with such fields, by both names."""
    found = [each for each in kind.fields if _holds_bytes(each, frozenset())]
    return tuple((name, each) for each in found for name in {each.json_name, each.name})


def _holds_bytes(field: FieldDescriptor, around: frozenset[str]) -> bool:
    if field.message_type is None:
        return field.type == FieldDescriptor.TYPE_BYTES and not field.is_repeated
    name = field.message_type.full_name
    return (
        name not in around
        and not name.startswith(WELL_KNOWN)
        and any(_holds_bytes(each, around | {name}) for each in field.message_type.fields)
    )


def _decode(packed: bytes, path: Path) -> bytes:
    """Return the bytes of base64, of either alphabet, with or without padding.

    Raises:
        InvalidRequest: it is not base64.
    """
    pieces = []
    try:
        packed = packed.rstrip(b"=") if len(packed) % 4 == 0 else packed
        for at in range(0, len(packed), AT_ONCE):
            piece = packed[at : at + AT_ONCE].translate(URL_SAFE)
            pieces.append(binascii.a2b_base64(piece + b"=" * (-len(piece) % 4), strict_mode=True))
    except ValueError:
        message = "is not base64; send the bytes in its alphabet, without line ends and without data:"
        raise InvalidRequest([Violation(_written(path), message)]) from None
    return b"".join(pieces)


def _whole(text: JsonText, value: Any, path: tuple[str, ...] = ()) -> Any:
    """Return a value with its long strings instead of their marks."""
    match value:
        case dict():
            if any(text.long(name) is not None for name in value):
                raise InvalidRequest([Violation("", "the request has a name that is too long")])
            return {name: _whole(text, each, (*path, name)) for name, each in value.items()}
        case list():
            return [_whole(text, each, path) for each in value]
        case str() if (size := len(text.long(value) or value)) > MAX_PROPERTIES_BYTES:
            # protobuf's reader keeps the interpreter for 33 ms a megabyte, and no field may have so many.
            message = f"is a text of {size} bytes; no field may have more than {MAX_PROPERTIES_BYTES}"
            raise InvalidRequest([Violation(".".join(path)[:MESSAGE_CHARS], message, "TEXT_TOO_LONG")])
        case str() if (content := text.long(value)) is not None:
            if len(content.translate(None, CONTROLS)) < len(content):
                raise InvalidRequest([Violation("", "the request is not JSON: a string has a control character")])
            return content.decode()
    return value


def _put(message: Any, path: Path, content: bytes) -> None:
    *outer, field = path
    for step in outer:
        message = message[step] if isinstance(step, int | _Key) else getattr(message, step)
    setattr(message, str(field), content)


def _written(path: Path) -> str:
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path).removeprefix(".")


def _invalid(text: str) -> InvalidRequest:
    """Return the error for what protobuf says of a JSON message, which may repeat megabytes of it."""
    if unknown := _UNKNOWN.search(text[:4000]):
        kind, _, path = unknown["path"].partition(".")
        field = f"{path}.{unknown['name']}".removeprefix(".")
        return InvalidRequest([Violation(field, f"is no field of {path or kind}; check its spelling")])
    names = []
    while failed := _FAILED.match(text):
        names.append(failed["name"])
        text = text[failed.end() :]
    place = _PLACE.search(text[-400:])
    field = place["path"].partition(".")[2] if place else ".".join(names)
    return InvalidRequest([Violation(field, f"cannot be read as JSON of the method's message: {text[:MESSAGE_CHARS]}")])
