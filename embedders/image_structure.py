"""What a picture file is made of, read from its bytes before any library parses them.

Libraries read all parts of a file before its first pixel: a few bytes each, thousands of times over, cost minutes of a
core. What may be counted at little cost is bounded here; pixels and tiles are bounded where the library tells them.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from embedders.avif_structure import av1_frame_sizes
from embedders.errors import ImageTooLarge, ImageUndecodable
from embedders.spec import InputLimits

__all__ = ["MAX_PIXELS", "check_frames", "check_pixels", "check_structure", "is_large"]

T = TypeVar("T")

MAX_PIXELS = 178_956_970
"""Pillow refuses pictures of more pixels, whatever the settings say."""

_FREE_PARTS = 1000
"""Parts of a file, such as chunks and segments, that are always allowed."""

_BYTES_FOR_A_PART = 32
"""Bytes that allow one part more; encoders write parts of hundreds of bytes and more."""

_MAX_COMPRESSED_CHUNKS = 64
"""Compressed profiles and texts of a PNG: Pillow unpacks each one, 1 MB of zeros from 1 kB in 2 ms."""

_SCANS_AT_FULL_SIZE = 20
"""Scans of a JPEG of the greatest size allowed; a smaller one may have more. Encoders make about 10."""

_MAX_JUNK = 65_536
"""Bytes between the segments of a JPEG, where none belong and a few pad."""

_MAX_COUNTED = 100_000
"""Frames at which counting ends."""

_LARGE_PIXELS = 4_000_000
"""Pixels that take a tenth of a second and more to read."""

_JPEG_SPEED = 4
"""How many times as fast a JPEG is read as others of its size, scaled down while it is decoded."""

_SEGMENTS_TO_SIZE = 100
"""Segments of a JPEG among which its size is looked for."""

# A marker with a meaning outside of entropy-coded data: there 0xFF is followed by zero or a restart marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_FIRST_WITH_BODY = 0xC0
_TIFF_ORDER = {b"II": "<", b"MM": ">"}
_BIG_TIFF = 43
_AVIF_BRANDS = frozenset({b"avif", b"avis", b"mif1", b"msf1"})


def is_large(content: bytes) -> bool:
    """Return whether reading a picture takes long, by what the first bytes of its file say; a hint, and no check.

    Formats that do not tell their size there count as large, if they can be large at all.
    """
    with suppress(struct.error):
        return _stated_pixels(content) > _LARGE_PIXELS
    return False


def check_structure(content: bytes, limits: InputLimits) -> None:
    """Refuse a file whose frames, parts or scans are too many.

    Raises:
        ImageTooLarge: it has more than `limits` or the bounds of this module allow.
        ImageUndecodable: it is an AVIF whose frames cannot be found.
    """
    if content.startswith(b"\xff\xd8\xff"):
        _check_jpeg(content, limits)
    elif content.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(content, limits)
    elif content.startswith((b"GIF87a", b"GIF89a")):
        _check_gif(content, limits)
    elif content[:2] in _TIFF_ORDER:
        check_frames(_count(_tiff_frames(content)), limits)
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        _check_webp(content, limits)
    elif content[4:8] == b"ftyp" and content[8:12] in _AVIF_BRANDS:
        _check_avif(content, limits)


def check_pixels(width: int, height: int, limits: InputLimits) -> None:
    """Refuse a picture of too many pixels.

    Raises:
        ImageTooLarge: there are more than limits.max_image_pixels, or than Pillow takes.
    """
    bound = min(limits.max_image_pixels, MAX_PIXELS)
    if width * height > bound:
        raise ImageTooLarge(
            f"the image has {width} x {height} = {width * height} pixels; the limit is {bound}; scale it down"
        )


def check_frames(frames: int, limits: InputLimits) -> None:
    """Refuse an animation or a file of pages with too many of them.

    Raises:
        ImageTooLarge: there are more than limits.max_image_frames.
    """
    if frames > limits.max_image_frames:
        count = frames if frames <= _MAX_COUNTED else f"more than {_MAX_COUNTED}"
        raise ImageTooLarge(
            f"the image has {count} frames; the limit is {limits.max_image_frames}; send the first one alone"
        )


def _count(frames: Iterator[object]) -> int:
    return sum(1 for _ in islice(frames, _MAX_COUNTED + 1))


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


def _check_jpeg(content: bytes, limits: InputLimits) -> None:
    segments = scans = pixels = junk = 0
    for marker, size, skipped in _jpeg_segments(content):
        pixels = max(pixels, size)
        junk += 0 if scans else skipped
        scans += marker == _SOS
        segments += not scans
    if junk > _MAX_JUNK:
        # Pillow skips it byte by byte.
        raise ImageTooLarge(f"the JPEG has {junk} bytes between its segments; the limit is {_MAX_JUNK}; save it anew")
    if segments > _FREE_PARTS:
        # Pillow joins those of one kind, each time copying what it has so far.
        raise ImageTooLarge(
            f"the JPEG has {segments} segments before its pixels; the limit is {_FREE_PARTS}; save it without metadata"
        )
    # Each scan walks over the whole picture, and a few bytes make a scan.
    if pixels and scans > (bound := max(1, _SCANS_AT_FULL_SIZE * limits.max_image_pixels // pixels)):
        raise ImageTooLarge(f"the JPEG has {scans} scans; the limit for its size is {bound}; save it anew")


def _stated_pixels(content: bytes) -> float:
    """Return the pixels that a file says it has at its beginning; those of a JPEG by what they cost."""
    width, height = 0, 0
    if content.startswith(b"\xff\xd8\xff"):
        sizes = (pixels for _, pixels, _ in islice(_jpeg_segments(content), _SEGMENTS_TO_SIZE) if pixels)
        return next(sizes, math.inf) / _JPEG_SPEED
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", content, 16)
    elif content.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", content, 6)
    elif content.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", content, 18)
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        width, height = _webp_size(content)
    elif content[:2] in _TIFF_ORDER or content[4:8] == b"ftyp":
        return math.inf
    return abs(width * height)


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


@_until_cut
def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment, the pixels that it promises, and the bytes without meaning before it."""
    position = end = 2
    for _ in _parts(content):
        found = _JPEG_MARKER.search(content, position)
        if found is None or (marker := found[1][0]) == _EOI:
            yield _EOI, 0, (found.start() if found else len(content)) - end
            return
        position = found.end()
        if marker < _FIRST_WITH_BODY or marker == _SOI:
            continue
        (length,) = struct.unpack_from(">H", content, position)
        height, width = struct.unpack_from(">HH", content, position + 3) if marker in _SOF else (0, 0)
        yield marker, height * width, found.start() - end
        end = position = position + length


def _check_png(content: bytes, limits: InputLimits) -> None:
    compressed = 0
    for name, frames in _png_chunks(content):
        check_frames(frames, limits)
        compressed += name in {b"iCCP", b"iTXt", b"zTXt"}
    if compressed > _MAX_COMPRESSED_CHUNKS:
        raise ImageTooLarge(
            f"the PNG has {compressed} profile and text chunks; the limit is {_MAX_COMPRESSED_CHUNKS}; "
            "save it without metadata"
        )


@_until_cut
def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the name of each chunk up to the second frame, and the frames that it promises."""
    position, pixels_begun = 8, False
    for _ in _parts(content):
        length, name = struct.unpack_from(">I4s", content, position)
        if name == b"IEND" or (pixels_begun and name == b"fcTL"):
            return
        pixels_begun |= name == b"IDAT"
        yield name, struct.unpack_from(">I", content, position + 8)[0] if name == b"acTL" else 0
        position += 12 + length


def _check_gif(content: bytes, limits: InputLimits) -> None:
    first = next(_gif_frames(content), None)
    check_frames(_count(_gif_frames(content)), limits)
    if first is not None and first + 8 <= len(content):
        # Pillow makes the screen as large as the frame wants it, and may paint it, before it tells its size.
        screen = struct.unpack_from("<HH", content, 6)
        left, top, width, height = struct.unpack_from("<HHHH", content, first)
        check_pixels(max(screen[0], left + width), max(screen[1], top + height), limits)


@_until_cut
def _gif_frames(content: bytes) -> Iterator[int]:
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
def _tiff_frames(content: bytes) -> Iterator[int]:
    """Yield the place of each frame; a chain that leads back to an earlier one ends there."""
    order = _TIFF_ORDER[content[:2]]
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


def _check_avif(content: bytes, limits: InputLimits) -> None:
    try:
        for width, height in av1_frame_sizes(content):
            check_pixels(width, height, limits)
    except (struct.error, IndexError) as error:
        raise ImageUndecodable("the AVIF is broken or cut short; send the whole file") from error


def _check_webp(content: bytes, limits: InputLimits) -> None:
    frames = 0
    for name, body in _webp_chunks(content):
        if name == b"VP8X":
            # libwebp takes memory for two canvases before it tells their size.
            width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
            check_pixels(width, height, limits)
        frames += name == b"ANMF"
    check_frames(frames, limits)


@_until_cut
def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name of each chunk, and the beginning of its body."""
    position = 12
    for _ in _parts(content):
        name, length = struct.unpack_from("<4sI", content, position)
        yield name, content[position + 8 : position + 18]
        position += 8 + length + length % 2
