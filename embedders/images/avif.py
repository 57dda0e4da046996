"""The size of the frames in an AVIF, which may differ from the size that the file states.

Libraries trust the stated size of the picture, but decode the frames at their real size: 2 kB that state 16 x 16 may
hold a frame of 16,000 x 16,000 pixels. A frame's size is in AV1's sequence header (AV1 bitstream specification, 5.5).
What cannot be parsed is an error, because a frame that is overlooked here is decoded all the same.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

_MAX_BOXES = 10_000
"""Boxes and units that are looked at in one place; encoders write some dozens."""

_SEQUENCE_HEADER = 1
_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_IN_FILE, _IN_DATA_BOX = 0, 1

Span = tuple[int, int]


def av1_frame_sizes(content: bytes) -> Iterator[Span]:
    """Yield width and height of every sequence of frames in an AVIF file.

    Raises:
        struct.error, IndexError: the file ends in the middle of something, or has more parts than the limit.
    """
    for kind, body in _boxes(content, (0, len(content))):
        if kind == b"meta":
            for data in _coded_items(content, (body[0] + 4, body[1])):
                yield from _sizes(data)
        elif kind in _CONTAINERS:
            for data in _first_samples(content, body, depth=1):
                yield from _sizes(data)


def _boxes(content: bytes, within: Span) -> Iterator[tuple[bytes, Span]]:
    """Yield the boxes of ISO's base media file format: their kind, and where their body is."""
    start, end = within
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", content, start)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", content, start + 8), 16
        last = end if size == 0 else min(end, start + size)
        if last < start + head:
            return
        yield kind, (start + head, last)
        start = last
    raise IndexError("more boxes than the limit")


def _coded_items(content: bytes, meta: Span) -> Iterator[bytes]:
    """Yield the bytes of each item that is coded in AV1."""
    found = dict(_boxes(content, meta))
    if not {b"iinf", b"iloc"} <= found.keys():
        return
    coded = set(_coded_ids(content, found[b"iinf"]))
    data_box = found.get(b"idat", (0, 0))[0]
    budget = len(content)
    for item, method, extents in _locations(content, found[b"iloc"]):
        if item not in coded:
            continue
        base = data_box if method == _IN_DATA_BOX else 0
        parts = [content[base + at : base + at + length if length else None] for at, length in extents]
        # Extents may name the same bytes again and again; what is more than the file holds is not looked at.
        budget -= sum(map(len, parts))
        if budget < 0:
            raise IndexError("more data than the file has")
        yield b"".join(parts)


def _coded_ids(content: bytes, iinf: Span) -> Iterator[int]:
    start = iinf[0] + (6 if content[iinf[0]] == 0 else 8)
    for kind, (at, _) in _boxes(content, (start, iinf[1])):
        if kind == b"infe":
            # Version 2 has ids of two bytes, version 3 of four.
            item, _, coding = struct.unpack_from(">HH4s" if content[at] == 2 else ">IH4s", content, at + 4)  # noqa: PLR2004
            if coding == b"av01":
                yield item


def _locations(content: bytes, iloc: Span) -> Iterator[tuple[int, int, Sequence[Span]]]:
    """Yield of each item its id, how its place is told, and its extents: offset and length."""
    at = iloc[0]
    version = content[at]
    sizes = content[at + 4], content[at + 5]
    offset_size, length_size, base_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
    index_size = sizes[1] & 15 if version else 0
    id_size = 4 if version == 2 else 2  # noqa: PLR2004 -- a version
    at += 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(content[at - size : at])

    items = number(id_size)
    if items > _MAX_BOXES:
        raise IndexError("more items than the limit")
    for _ in range(items):
        item = number(id_size)
        method = number(2) & 15 if version else _IN_FILE
        number(2)
        base = number(base_size)
        extents = []
        for _ in range(number(2)):
            number(index_size)
            extents.append((base + number(offset_size), number(length_size)))
        yield item, method, extents


def _first_samples(content: bytes, within: Span, depth: int) -> Iterator[bytes]:
    """Yield the first sample of each track."""
    starts: list[int] = []
    lengths: list[int] = []
    for kind, body in _boxes(content, within):
        if kind in _CONTAINERS:
            if depth == len(_CONTAINERS):
                raise IndexError("more nested boxes than the limit")
            yield from _first_samples(content, body, depth + 1)
        elif kind in {b"stco", b"co64"}:
            starts += struct.unpack_from(">I" if kind == b"stco" else ">Q", content, body[0] + 8)
        elif kind == b"stsz":
            (of_all,) = struct.unpack_from(">I", content, body[0] + 4)
            lengths += [of_all] if of_all else struct.unpack_from(">I", content, body[0] + 12)
    for start, length in zip(starts, lengths, strict=False):
        yield content[start : start + length]


def _sizes(data: bytes) -> Iterator[Span]:
    """Yield the frame size of each sequence header among AV1's units."""
    for kind, unit in _units(data):
        if kind == _SEQUENCE_HEADER:
            yield _frame_size(unit)


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind of each unit, and the beginning of its body."""
    at = 0
    for _ in range(_MAX_BOXES):
        if at >= len(data):
            return
        head = data[at]
        at += 2 if head & 4 else 1
        size = len(data) - at
        if head & 2:
            size, shift, more = 0, 0, True
            while more:
                size |= (data[at] & 0x7F) << shift
                more = data[at] >= 0x80 and shift < 49  # noqa: PLR2004 -- at most eight bytes of seven bits
                shift += 7
                at += 1
        yield head >> 3 & 15, data[at : at + min(size, 256)]
        at += size
    raise IndexError("more units than the limit")


def _frame_size(header: bytes) -> Span:
    bits = iter(f"{int.from_bytes(header):0{8 * len(header)}b}")

    def number(count: int) -> int:
        digits = "".join(islice(bits, count))
        if len(digits) < count:
            raise IndexError("the sequence header ends too early")
        return int(digits, 2)

    number(4)  # profile, still picture
    if number(1):  # a header reduced to what a still picture needs
        number(5)
    else:
        _skip_operating_points(number)
    width_bits, height_bits = number(4) + 1, number(4) + 1
    return number(width_bits) + 1, number(height_bits) + 1


def _skip_operating_points(number: Callable[[int], int]) -> None:
    delay_bits = 0
    if number(1):  # timing
        number(64)
        if number(1):  # equal intervals: an Exp-Golomb number
            zeros = 0
            while not number(1):
                zeros += 1
            number(min(zeros, 32))
        if number(1):  # decoder model
            delay_bits = number(5) + 1
            number(42)
    display_delays = number(1)
    for _ in range(number(5) + 1):
        number(12)
        if number(5) > 7:  # noqa: PLR2004 -- levels above 3.3 come with a tier
            number(1)
        if delay_bits and number(1):
            number(2 * delay_bits + 1)
        if display_delays and number(1):
            number(4)
