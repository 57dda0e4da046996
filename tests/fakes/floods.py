"""Requests full of one thing: for every list and every string of a message, as many or as much as fit into some bytes.

They are bytes made by the messages' descriptors alone, to be appended to a request that goes well: both are merged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import count

from google.protobuf.descriptor import Descriptor, FieldDescriptor

MAX_PATH = 9
"""Fields within fields in which lists and strings are looked for."""
LEVELS = 25
"""How deep what is nested is nested."""
SPREAD = 50
"""Elements of each of many lists."""
NUMBERS = {FieldDescriptor.TYPE_DOUBLE: (1, 8), FieldDescriptor.TYPE_FLOAT: (5, 4)}
"""Wire type and bytes of numbers that are no varints."""
LONG = {"long": b"a", "long and wide": "\U0001f600".encode(), "long controls": b"\1"}
Path = tuple[FieldDescriptor, ...]


@dataclass(frozen=True)
class Flood:
    """One kind of flood.

    Attributes:
        path: the field's, from the request down.
        form: what it is full of.
    """

    path: Path
    form: str

    def __str__(self) -> str:
        """Return the path in words, and the form."""
        return f"{'.'.join(each.name for each in self.path)}: {self.form}"

    @property
    def is_long(self) -> bool:
        """Whether it is one long string."""
        return self.form in LONG

    @property
    def field(self) -> str:
        """The message and the field, as the table of bounds has them; in a Struct, the field that holds it."""
        holders = [each for each in self.path if each.message_type is not None and each.message_type.name == "Struct"]
        field = holders[0] if holders and not self.is_long else self.path[-1]
        assert field.containing_type is not None
        return f"{field.containing_type.name}.{field.name}"

    def content(self, size: int, most: int | None = None) -> bytes:
        """Return about so many bytes of it, and no more than so many elements, if it is of elements."""
        *around, field = self.path
        if self.form in LONG:
            piece = LONG[self.form]
            return _within(around, _delimited(field, piece * (size // len(piece))))
        if self.form == "packed":
            width = NUMBERS.get(field.type, (0, 1))[1]
            return _within(around, _delimited(field, b"\1" * (min(size // width, most or size) * width)))
        if self.form == "nested":
            cycle = _cycle(self.path)
            nest = reduce(lambda inner, _: _within(cycle, inner), range(LEVELS), b"")
            return _within(around, _many(lambda _: _delimited(field, nest), size, most))
        if self.form == "spread":
            lists = max(at for at, each in enumerate(around) if each.is_repeated)
            inner = b"".join(map(self._element, range(SPREAD)))
            parent = _within(around[lists:], inner)
            return _within(around[:lists], _many(lambda _: parent, size, most and most // SPREAD))
        return _within(around, _many(self._element, size, most))

    def _element(self, number: int) -> bytes:
        field = self.path[-1]
        name = f"{number:x}".encode() if self.form in ("distinct", "spread") else b"a"
        if self.form == "empty" or field.type == FieldDescriptor.TYPE_BYTES:
            return _delimited(field, b"")
        if field.type == FieldDescriptor.TYPE_STRING:
            return _delimited(field, name)
        if field.message_type is None:
            kind, width = NUMBERS.get(field.type, (0, 1))
            return _varint(field.number << 3 | kind) + b"\1" * width
        texts = [each for each in field.message_type.fields if each.type == FieldDescriptor.TYPE_STRING]
        return _delimited(field, _delimited(texts[0], name) if texts else b"")


def floods_of(message: Descriptor, path: Path = ()) -> Iterator[Flood]:
    """Yield all floods of a request."""
    kinds = [each.message_type for each in path]
    for field in message.fields if len(path) < MAX_PATH else ():
        here = (*path, field)
        if field.is_repeated:
            forms = (
                ["equal", "packed"]
                if field.message_type is None and field.type not in LENGTHS
                else ["empty", "distinct"]
            )
            yield from (Flood(here, form) for form in forms)
            if any(each.is_repeated for each in path):
                yield Flood(here, "spread")
        if field.type in LENGTHS:
            yield from (Flood(here, form) for form in LONG)
        if field.message_type in kinds:
            yield Flood(here, "nested")
        elif field.message_type is not None:
            yield from floods_of(field.message_type, here)


LENGTHS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def _cycle(path: Path) -> Path:
    """Return the fields that lead from a message to one of its kind."""
    kinds = [each.message_type for each in path]
    return path[kinds.index(kinds[-1]) + 1 :]


def _within(path: tuple[FieldDescriptor, ...] | list[FieldDescriptor], inner: bytes) -> bytes:
    return reduce(lambda content, field: _delimited(field, content), reversed(path), inner)


def _many(element: Callable[[int], bytes], size: int, most: int | None) -> bytes:
    """Return elements until they have so many bytes, or are so many."""
    first, pieces = element(0), []
    if element(1) == first:
        return first * min(size // len(first), most or size)
    for number in count() if most is None else range(most):
        pieces.append(element(number))
        size -= len(pieces[-1])
        if size <= 0:
            break
    return b"".join(pieces)


def _delimited(field: FieldDescriptor, content: bytes) -> bytes:
    return _varint(field.number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    pieces = []
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*pieces, value])
