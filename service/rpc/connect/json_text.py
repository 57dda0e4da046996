"""Reads JSON of any size without keeping other threads waiting, and without more memory than its fields may take."""

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

from service.errors import InvalidRequest, Violation

LONG_BYTES = 64 * 1024
"""A string with more bytes, such as a picture, is cut out of the text before Python's parser reads it: the parser keeps
the interpreter from the first byte to the last."""

QUOTES_OF_A_FIELD = 4
"""Quotes that a field may have: around its name and its value. Of texts with more, such as programs, there are few."""

BACKSLASH = 0x5C
WINDOW = 4096
"""Bytes that are searched for backslashes at a time."""
_MARK = secrets.token_hex(8)
"""Begins what stands for a long string; nobody else can know it."""

_MARKED = re.compile(rf"{_MARK}(\d+)")


class JsonText:
    """A JSON text whose long strings are read when they are needed.

    Args:
        content: the text.
        max_fields: members of objects and items of lists that it may have.

    Attributes:
        value: what the text says; each long string is a mark that `long` takes.

    Raises:
        InvalidRequest: it is not JSON in UTF-8, has too many fields, or a name twice in one object.
    """

    def __init__(self, content: bytes, max_fields: int) -> None:
        self._content = content
        self._long: list[tuple[int, int]] = []
        try:
            outline = self._outline(max_fields).decode()
            self.value: Any = json.loads(outline, object_pairs_hook=_members, parse_constant=_refuse)
        except json.JSONDecodeError as error:
            place = "" if self._long else f", at character {error.pos + 1}"
            raise _invalid(f"is not JSON: {error.msg}{place}") from None
        except UnicodeDecodeError:
            raise _invalid("is not encoded in UTF-8") from None
        except RecursionError:
            raise _invalid("has more levels than a message can have") from None
        except ValueError:
            raise _invalid("has a number of too many digits") from None

    def long(self, text: str) -> bytes | None:
        """Return the bytes of the long string that a mark stands for; None for other strings."""
        found = _MARKED.fullmatch(text) if self._long else None
        if found is None:
            return None
        begin, end = self._long[int(found[1])]
        return self._content[begin:end]

    def _outline(self, max_fields: int) -> bytes:
        """Return the text with marks instead of its long strings."""
        content = self._content
        if len(content) <= LONG_BYTES:
            return content
        if content.count(b'"') > QUOTES_OF_A_FIELD * max_fields:
            raise _too_many(max_fields)
        fields = _parts(content, 0, len(content))
        pieces: list[bytes] = []
        at = 0
        for begin, end in _strings(content):
            if fields > max_fields:
                fields -= _parts(content, begin, end)
            if end - begin > LONG_BYTES and content.find(b"\\", begin, end) < 0:
                pieces += (content[at:begin], f"{_MARK}{len(self._long)}".encode())
                self._long.append((begin, end))
                at = end
        if fields > max_fields:
            raise _too_many(max_fields)
        return b"".join((*pieces, content[at:]))


def _strings(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each string begins and ends, without its quotes."""
    at = 0
    while (begin := content.find(b'"', at) + 1) > 0:
        end = content.find(b'"', begin)
        while end > 0 and _is_escaped(content, end):
            end = content.find(b'"', end + 1)
        if end < 0:
            return  # the parser says so
        yield begin, end
        at = end + 1


def _is_escaped(content: bytes, at: int) -> bool:
    """Return whether a quote is part of its string: an odd number of backslashes is before it."""
    begin = at
    while begin and content[begin - 1] == BACKSLASH:
        window = content[max(0, begin - WINDOW) : begin]
        begin -= len(window) - len(window.rstrip(b"\\"))
    return (at - begin) % 2 == 1


def _parts(content: bytes, begin: int, end: int) -> int:
    """Return at least how many members and items there are between two places: each is behind one of these."""
    return sum(content.count(each, begin, end) for each in (b",", b"{", b"["))


def _members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        seen: set[str] = set()
        twice = next(name for name, _ in members if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InvalidRequest([Violation(twice[:200], "is there twice in one object; leave one out")])
    return found


def _refuse(constant: str) -> None:
    raise _invalid(f"has {constant}, which JSON has not; where a number may be that, write it as a string")


def _invalid(what: str) -> InvalidRequest:
    return InvalidRequest([Violation("", f"the request {what}")])


def _too_many(max_fields: int) -> InvalidRequest:
    message = f"has more than {max_fields} fields, those of messages in it, too; split it into several calls"
    return InvalidRequest([Violation("", message, "BATCH_TOO_LARGE")])
