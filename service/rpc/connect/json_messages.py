"""Messages in JSON, as protobuf defines it: camelCase names, bytes as base64, 64-bit integers as strings."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from google.protobuf import json_format
from google.protobuf.message import EncodeError, Message

from service.errors import InvalidRequest, Violation

IN_THREAD_BYTES = 64 * 1024
"""Longer messages are converted in a thread, so that other calls do not wait."""

MAX_MESSAGE = 300
"""Characters of protobuf's own message that an error repeats."""

_UNKNOWN = re.compile(r'has no field named "(?P<name>[^"]{1,200})" at "(?P<path>[\w.\[\]]{1,200})"')
_PLACE = re.compile(r" at \"?(?P<path>[A-Z]\w*(?:\.\w+|\[\d+\]){1,40})")


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
    """Converts messages between JSON and protobuf's encoding."""

    def __init__(self) -> None:
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
        if len(message.content) <= IN_THREAD_BYTES:
            return to_binary(message)
        return await asyncio.get_running_loop().run_in_executor(self._thread, to_binary, message)

    async def write(self, content: bytes, kind: type[Message]) -> bytes:
        """Return a response in JSON."""
        if len(content) <= IN_THREAD_BYTES:
            return to_json(content, kind)
        return await asyncio.get_running_loop().run_in_executor(self._thread, to_json, content, kind)


def to_json(content: bytes, kind: type[Message]) -> bytes:
    """Return a message in JSON."""
    return json_format.MessageToJson(kind.FromString(content), indent=None).encode()


def to_binary(message: JsonMessage) -> bytes:
    """Return a message in protobuf's encoding.

    Raises:
        InvalidRequest: it is not JSON, or not that of its message.
    """
    try:
        return json_format.Parse(message.content, message.kind()).SerializeToString()
    except json_format.ParseError as error:
        raise _invalid(str(error)) from None
    except (UnicodeDecodeError, EncodeError, RecursionError):
        raise InvalidRequest([Violation("", "the request is not JSON in UTF-8 of at most 100 levels")]) from None


def _invalid(text: str) -> InvalidRequest:
    """Return the error for what protobuf says of a JSON message, which may repeat megabytes of it."""
    if unknown := _UNKNOWN.search(text[:2000]):
        kind, _, path = unknown["path"].partition(".")
        field = f"{path}.{unknown['name']}".removeprefix(".")
        return InvalidRequest([Violation(field, f"is no field of {path or kind}; check its spelling")])
    place = _PLACE.search(text[-400:])
    field = place["path"].partition(".")[2] if place else ""
    return InvalidRequest([Violation(field, f"cannot be read as JSON of the method's message: {text[:MAX_MESSAGE]}")])
