"""Checks the bounds of a request on the wire, before it is parsed: a parsed message may take many times its bytes.

One walk over protobuf's encoding counts the elements of every list and measures every string, by the table in `bounds`.
It skips the content of fields: its time grows with the number of fields, not with the bytes of images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from service.errors import InvalidRequest, Violation
from service.rpc.shared.bounds import NAME_BYTES, Bound, RequestLimits, list_bounds, max_fields, string_bounds

MAX_DEPTH = 100
"""Messages within messages; protobuf's parser takes no more."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_SFIXED64: FIXED64,
    FieldDescriptor.TYPE_FLOAT: FIXED32,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
    FieldDescriptor.TYPE_SFIXED32: FIXED32,
    FieldDescriptor.TYPE_STRING: LENGTH,
    FieldDescriptor.TYPE_BYTES: LENGTH,
    FieldDescriptor.TYPE_MESSAGE: LENGTH,
}
"""Types that are not varints."""
WIDTHS = {VARINT: 1, FIXED32: 4, FIXED64: 8}
"""The fewest bytes of a number."""
NOT_LAST = bytes(range(128, 256))
"""The bytes of a varint, except the last."""
FEW_BYTES = 128
"""Lengths and tags from here on take several bytes."""
LONGEST_VARINT = 5
"""Bytes of a tag or a length."""
LONGEST_NUMBER = 10
"""Bytes of any other varint."""
STRUCT = "google.protobuf.Struct"
VALUES_OF_STRUCT = frozenset({"Struct.fields", "ListValue.values"})
TEXT_OF_STRUCT = "Value.string_value"

Rules = dict[int, "_Rule"]


@dataclass(slots=True)
class _Rule:
    """The bounds of a field.

    Attributes:
        path: the field's path in error messages.
        bytes: the bound on its bytes, or on those of one element; None for no bound.
        counter: the place of the counter of its elements; None if it is not a list.
        width: of a list of numbers, the fewest bytes of one number; 0 for other fields.
        inner: the rules of its message; None if it holds no message.
    """

    path: str
    bytes: Bound | None = None
    counter: int | None = None
    width: int = 0
    inner: Rules | None = None


class WireCheck:
    """Checks the requests of one method.

    Args:
        message: the type of the requests.
        limits: this server's bounds.
    """

    def __init__(self, message: Descriptor, limits: RequestLimits) -> None:
        self._lists, self._strings = list_bounds(limits), string_bounds(limits)
        self._max_fields = max_fields(limits)
        self._counters: list[Bound] = []
        self._places: dict[str, int] = {}
        self._rules = self._rules_of(message, "", {})

    def check(self, content: bytes) -> None:
        """Check a request.

        Raises:
            InvalidRequest: a list has more elements or a string more bytes than it may have, the request has too many
                fields, or it cannot be parsed.
        """
        if not self.check_within(content, self._max_fields):
            message = (
                f"has more than {self._max_fields} fields, those of messages in it, too; split it into several calls"
            )
            raise InvalidRequest([Violation("", message, "BATCH_TOO_LARGE")])

    def check_within(self, content: bytes, fields: int) -> bool:
        """Check the first so many fields of a request, and return whether those are all.

        Raises:
            InvalidRequest: one of them is over a bound, or cannot be parsed.
        """
        try:
            return self._walk(content, fields)
        except IndexError:
            raise unreadable() from None

    def _walk(self, content: bytes, most: int) -> bool:
        """Walk through the fields of all messages, depth first.

        Returns:
            Whether there are at most so many fields.
        """
        rules, at, end = self._rules, 0, len(content)
        outer: list[tuple[Rules, int]] = []
        counted: dict[int, int] = {}
        # One step more than fields: the end is found after the last field.
        for _ in repeat(None, most + 1):
            while at == end:
                if not outer:
                    return True
                rules, end = outer.pop()
            tag, at, behind = _field(content, at)
            if behind > end:
                raise unreadable()
            rule = rules.get(tag)
            if rule is None or rule.inner is None:
                if rule is not None:
                    self._check(rule, counted, content, at, behind)
                at = behind
                continue
            if rule.counter is not None or rule.bytes is not None:
                self._check(rule, counted, content, at, behind)
            if len(outer) == MAX_DEPTH:
                raise unreadable()
            outer.append((rules, end))
            rules, end = rule.inner, behind
        return False

    def _check(self, rule: _Rule, counted: dict[int, int], content: bytes, at: int, behind: int) -> None:
        """Measure a string; count an element of a list, or the numbers that are packed into one field."""
        size, bound = behind - at, rule.bytes
        if bound is not None and size > bound.most:
            raise _refused(rule, f"has {size} bytes; give at most {bound.most}", bound)
        if rule.counter is not None:
            bound = self._counters[rule.counter]
            number = _numbers(content[at:behind], rule.width, bound.most) if rule.width else 1
            number += counted.get(rule.counter, 0)
            counted[rule.counter] = number
            if number > bound.most:
                message = f"has more than {bound.most} items, which is the most in one call"
                raise _refused(rule, f"{message}; leave some out, or split the call", bound)

    def _rules_of(
        self, message: Descriptor, path: str, around: Mapping[str, Rules], values: int | None = None
    ) -> Rules:
        """Return the rules of a message by tag.

        Args:
            message: the message's type.
            path: the path of the field that holds it.
            around: the rules of the messages around it, by their names, because messages may nest.
            values: the place of the counter for the values of the Struct around it, if there is one.
        """
        rules: Rules = {}
        if message.full_name not in around:
            around = {**around, message.full_name: rules}
            for field in message.fields:
                # Inside a Struct, errors name the field that holds the Struct.
                where = f"{path}.{field.name}".removeprefix(".") if values is None else path
                rule = self._rule_of(field, where, around, values)
                wire = WIRE_TYPES.get(field.type, VARINT)
                rules[field.number << 3 | wire] = rule
                if field.is_repeated and wire != LENGTH:
                    rule.width = WIDTHS[wire]
                    rules[field.number << 3 | LENGTH] = rule
        return around[message.full_name]

    def _rule_of(self, field: FieldDescriptor, path: str, around: Mapping[str, Rules], values: int | None) -> _Rule:
        inner, kind = field.message_type, field.containing_type
        assert kind is not None, "only extensions belong to no message"
        name = f"{kind.name}.{field.name}"
        rule = _Rule(path, self._strings.get(name))
        if rule.bytes is None and field.type == field.TYPE_STRING and name != TEXT_OF_STRUCT:
            rule.bytes = Bound(NAME_BYTES)
        if name in VALUES_OF_STRUCT:
            rule.counter = values
        elif field.is_repeated:
            rule.counter = self._counter_of(name)
        elif inner is not None and inner.full_name == STRUCT and values is None:
            values = self._counter_of(name)
        if inner is not None:
            rule.inner = self._rules_of(inner, path, around, values)
        return rule

    def _counter_of(self, name: str) -> int:
        """Return the place of a list's counter, which all occurrences of the list share."""
        if name not in self._places:
            self._places[name] = len(self._counters)
            self._counters.append(self._lists[name])
        return self._places[name]


def _field(content: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the field at an offset, and where its content begins and ends."""
    tag = content[at]
    at += 1
    if tag >= FEW_BYTES:
        tag, at = _varint(content, at - 1)
    kind = tag & 7
    if kind == LENGTH:
        size = content[at]
        at += 1
        if size >= FEW_BYTES:
            size, at = _varint(content, at - 1)
        return tag, at, at + size
    if kind == VARINT:
        behind = at
        while content[behind] >= FEW_BYTES:
            behind += 1
            if behind == at + LONGEST_NUMBER:
                raise unreadable()
        return tag, at, behind + 1
    if kind not in WIDTHS:
        raise unreadable()  # a group, which our messages do not use
    return tag, at, at + WIDTHS[kind]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the tag or length of several bytes at an offset, and where it ends."""
    value = 0
    for shift in range(0, 7 * LONGEST_VARINT, 7):
        value |= (content[at] & 127) << shift
        at += 1
        if content[at - 1] < FEW_BYTES:
            return value, at
    raise unreadable()


def _numbers(packed: bytes, width: int, most: int) -> int:
    """Return how many numbers a packed list has; some number over `most` for a longer list."""
    if width > 1:
        return len(packed) // width
    if len(packed) > LONGEST_NUMBER * most:
        return most + 1
    return len(packed.translate(None, NOT_LAST))


def _refused(rule: _Rule, message: str, bound: Bound) -> InvalidRequest:
    return InvalidRequest([Violation(rule.path, message, bound.reason)])


def unreadable() -> InvalidRequest:
    """Return the error for a request that cannot be parsed."""
    return InvalidRequest([Violation("", "the request cannot be parsed as the method's message")])
