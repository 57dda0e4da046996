"""The parts of a picture file, found without any library: segments, chunks and frames.

Every walk is bounded by the size of the file, and ends where the file ends in the middle of a part.
"""

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

from embedders.errors import ImageTooLarge

T = TypeVar("T")

JPEG, PNG, GIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a")
TIFF_ORDER = {b"II": "<", b"MM": ">"}
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

_FREE_PARTS = 1000
"""Parts of a file, such as chunks and segments, that are always allowed."""

_BYTES_FOR_A_PART = 32
"""Bytes that allow one part more; encoders write parts of hundreds of bytes and more."""

# A marker with a meaning outside of entropy-coded data: there 0xFF is followed by zero or a restart marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_FIRST_WITH_BODY = 0xC0
_BIG_TIFF = 43


class Segment(NamedTuple):
    """A segment of a JPEG.

    Attributes:
        marker: its kind; 0 for the end of a file that ends without a marker for it.
        start: where its marker is.
        end: where it ends, which may be behind the end of the file; a scan's entropy-coded data follow.
        skipped: bytes without meaning before it, or a scan's data.
    """

    marker: int
    start: int
    end: int
    skipped: int


class Chunk(NamedTuple):
    """A chunk of a PNG or a WebP.

    Attributes:
        name: its four letters.
        start: where it begins.
        body: where its body begins.
        end: where its body ends, which may be behind the end of the file.
    """

    name: bytes
    start: int
    body: int
    end: int


def is_webp(content: bytes) -> bool:
    """Return whether a file says that it is a WebP."""
    return content.startswith(b"RIFF") and content[8:12] == b"WEBP"


def _until_cut(walk: Callable[[bytes], Iterator[T]]) -> Callable[[bytes], Iterator[T]]:
    """End a walk where the file ends in the middle of a part; what came before it counts all the same."""

    def walk_whole_parts(content: bytes) -> Iterator[T]:
        with suppress(struct.error, IndexError):
            yield from walk(content)

    return walk_whole_parts


def _parts(content: bytes) -> Iterator[None]:
    """Yield for each part that a file may have, and then refuse it."""
    bound = _FREE_PARTS + len(content) // _BYTES_FOR_A_PART
    for _ in range(bound):
        yield
    raise ImageTooLarge(f"the image file has more than {bound} parts, the limit for its size; save it anew")


@_until_cut
def jpeg_segments(content: bytes) -> Iterator[Segment]:
    """Yield each segment, up to the end of the first picture."""
    position = end = 2
    for _ in _parts(content):
        found = _JPEG_MARKER.search(content, position)
        if found is None:
            yield Segment(0, len(content), len(content), len(content) - end)
            return
        marker = found[1][0]
        if marker == EOI:
            yield Segment(EOI, found.start(), found.end(), found.start() - end)
            return
        position = found.end()
        if marker < _FIRST_WITH_BODY or marker == SOI:
            continue
        (length,) = struct.unpack_from(">H", content, position)
        yield Segment(marker, found.start(), position + length, found.start() - end)
        end = position = position + length


@_until_cut
def png_chunks(content: bytes) -> Iterator[Chunk]:
    """Yield each chunk up to the second frame."""
    position, pixels_begun = 8, False
    for _ in _parts(content):
        length, name = struct.unpack_from(">I4s", content, position)
        if name == b"IEND" or (pixels_begun and name == b"fcTL"):
            return
        pixels_begun |= name == b"IDAT"
        yield Chunk(name, position, position + 8, position + 8 + length)
        position += 12 + length


@_until_cut
def webp_chunks(content: bytes) -> Iterator[Chunk]:
    """Yield each chunk."""
    position = 12
    for _ in _parts(content):
        name, length = struct.unpack_from("<4sI", content, position)
        yield Chunk(name, position, position + 8, position + 8 + length)
        position += 8 + length + length % 2


@_until_cut
def gif_frames(content: bytes) -> Iterator[int]:
    """Yield the place of each frame."""
    position = 13 + _colours(content[10])
    parts = _parts(content)
    while (kind := content[position]) != ord(";"):
        next(parts)
        position += 1
        if kind == ord(","):
            yield position
            position += 10 + _colours(content[position + 8])
        elif kind == ord("!"):
            position += 1
        else:
            continue
        while size := content[position]:
            next(parts)
            position += 1 + size
        position += 1


def _colours(flags: int) -> int:
    """Return the bytes of the colours that follow a GIF's flags."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


@_until_cut
def tiff_frames(content: bytes) -> Iterator[int]:
    """Yield the place of each frame; a chain that leads back to an earlier one ends there."""
    order = TIFF_ORDER[content[:2]]
    big = struct.unpack_from(order + "H", content, 2)[0] == _BIG_TIFF
    # Of an offset, of the number of entries, and the bytes of an entry.
    pointer, number, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    (offset,) = struct.unpack_from(order + pointer, content, 8 if big else 4)
    seen: set[int] = set()
    while offset and offset not in seen and offset < len(content):
        seen.add(offset)
        (entries,) = struct.unpack_from(order + number, content, offset)
        yield offset
        after = offset + struct.calcsize(order + number) + entries * entry
        if after > len(content):
            return
        (offset,) = struct.unpack_from(order + pointer, content, after)
