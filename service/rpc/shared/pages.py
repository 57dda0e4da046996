"""How much an answer holds."""

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

CLIENTS_TAKE_BYTES = 4 * 1024 * 1024
"""So long an answer may be for gRPC's clients of every language, unless they are told otherwise."""

FRAME_BYTES = 16
"""Before a message in its list; the name of a last message is a page token about so long."""

Item = TypeVar("Item", bound=Message)


def as_many_as_fit(messages: Iterable[Item], most_bytes: int, frame_bytes: int) -> list[Item]:
    """Return the first messages, as many as an answer of so many bytes has room for, but at least one.

    One that fits in no answer is returned all the same, for gRPC to say so.
    """
    fitting: list[Item] = []
    room = most_bytes - 2 * frame_bytes
    for each in messages:
        room -= each.ByteSize() + frame_bytes
        if fitting and room < 0:
            break
        fitting.append(each)
    return fitting
