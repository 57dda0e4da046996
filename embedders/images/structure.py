"""What a picture file is made of, read from its bytes before any library parses them.

- Its parts are walked without any library: segments, chunks and frames. A walk ends where the file ends in the middle
  of a part.
- Frames, the scans of a JPEG and the sizes that a library would take memory for are bounded here. What else makes a
  file costly is bounded by the time and memory of the process that decodes it.
- They are copied without data that no pixel depends on. Browsers show a PNG whose text has a wrong checksum, or a JPEG
  with incomplete metadata; libraries that read the whole file reject it. The copy holds the pixels, how to read them,
  and the EXIF orientation. Damaged pixels stay in the copy, for the library to find.
"""

import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, TypeVar

from embedders.contract import InputLimits
from embedders.errors import ImageTooLarge, ImageUndecodable

T = TypeVar("T")

JPEG, PNG, GIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a")
TIFF_ORDER = {b"II": "<", b"MM": ">"}
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

# A marker with a meaning outside of entropy-coded data: there 0xFF is followed by zero or a restart marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_FIRST_WITH_BODY = 0xC0
_BIG_TIFF = 43

BROKEN = "the picture is broken or cut short; send the whole file"

MAX_PIXELS = 178_956_970
"""Pillow rejects pictures with more pixels, regardless of the settings."""

_SCANS_AT_FULL_SIZE = 20
"""Scans of a JPEG of the greatest size allowed; a smaller one may have more. Encoders make about 10."""

_MAX_COUNTED = 100_000
"""Frames at which counting ends."""

_LARGE_PIXELS = 4_000_000
"""Pixels that take a tenth of a second and more to read."""

_JPEG_SPEED = 4
"""How many times as fast a JPEG is read as others of its size, scaled down while it is decoded."""

_SEGMENTS_TO_SIZE = 100
"""Segments of a JPEG among which its size is looked for."""

END_OF_JPEG = b"\xff\xd9"

_EXIF, _JFIF, _ADOBE = b"Exif\0\0", b"JFIF", b"Adobe"
_LEAST_JFIF, _LEAST_ADOBE = 14, 12
"""Bytes of these segments' bodies; libjpeg takes no notice of shorter ones."""

_WEBP_PARTS = frozenset({b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
_COEFFICIENTS = 64
_MAX_COMPONENTS = 4
_FILLING = bytes(each for at in range(80) if (each := pow(3, at, 257)) not in (0xFF, 0x100))
"""Bytes in an irregular order that no decoder synchronises with, without those that begin a marker."""


class Segment(NamedTuple):
    """A segment of a JPEG.

    Attributes:
        marker: its kind; 0 for the end of a file that ends without a marker for it.
        start: where its marker is.
        end: where it ends, which may be behind the end of the file; a scan's entropy-coded data follow.
    """

    marker: int
    start: int
    end: int


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


@_until_cut
def jpeg_segments(content: bytes) -> Iterator[Segment]:
    """Yield each segment, up to the end of the first picture."""
    position = 2
    while True:
        found = _JPEG_MARKER.search(content, position)
        if found is None:
            yield Segment(0, len(content), len(content))
            return
        marker = found[1][0]
        if marker == EOI:
            yield Segment(EOI, found.start(), found.end())
            return
        position = found.end()
        if marker < _FIRST_WITH_BODY or marker == SOI:
            continue
        (length,) = struct.unpack_from(">H", content, position)
        yield Segment(marker, found.start(), position + length)
        position += length


@_until_cut
def png_chunks(content: bytes) -> Iterator[Chunk]:
    """Yield each chunk up to the second frame."""
    position, pixels_begun = 8, False
    while True:
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
    while True:
        name, length = struct.unpack_from("<4sI", content, position)
        yield Chunk(name, position, position + 8, position + 8 + length)
        position += 8 + length + length % 2


@_until_cut
def gif_frames(content: bytes) -> Iterator[int]:
    """Yield the place of each frame."""
    position = 13 + _colours(content[10])
    while (kind := content[position]) != ord(";"):
        position += 1
        if kind == ord(","):
            yield position
            position += 10 + _colours(content[position + 8])
        elif kind == ord("!"):
            position += 1
        else:
            continue
        while size := content[position]:
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


def is_large(content: bytes) -> bool:
    """Return whether reading a picture takes long, by the first bytes of its file: a hint, not a check.

    Formats whose size is not stated there count as large.
    """
    with suppress(struct.error):
        return _stated_pixels(content) > _LARGE_PIXELS
    return False


def check_structure(content: bytes, limits: InputLimits) -> None:
    """Reject a file with too many frames, scans or pixels.

    Raises:
        ImageTooLarge: it has more than `limits` or the bounds of this module allow.
    """
    if content.startswith(JPEG):
        _check_jpeg(content, limits)
    elif content.startswith(PNG):
        _check_png(content, limits)
    elif content.startswith(GIF):
        _check_gif(content, limits)
    elif content[:2] in TIFF_ORDER:
        check_frames(_count(tiff_frames(content)), limits)
    elif is_webp(content):
        _check_webp(content, limits)


def check_pixels(width: int, height: int, limits: InputLimits) -> None:
    """Reject a picture with too many pixels.

    Raises:
        ImageTooLarge: there are more than limits.max_image_pixels, or than Pillow takes.
    """
    bound = min(limits.max_image_pixels, MAX_PIXELS)
    if width * height > bound:
        raise ImageTooLarge(
            f"the image has {width} x {height} = {width * height} pixels; the limit is {bound}; scale it down"
        )


def check_frames(frames: int, limits: InputLimits) -> None:
    """Reject an animation or a document with too many frames or pages.

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


def _check_jpeg(content: bytes, limits: InputLimits) -> None:
    scans = pixels = 0
    for segment in jpeg_segments(content):
        pixels = max(pixels, _jpeg_pixels(content, segment))
        scans += segment.marker == SOS
    # Each scan walks over the whole picture, and a few bytes make a scan.
    if pixels and scans > (bound := max(1, _SCANS_AT_FULL_SIZE * limits.max_image_pixels // pixels)):
        raise ImageTooLarge(f"the JPEG has {scans} scans; the limit for its size is {bound}; save it again")


def _stated_pixels(content: bytes) -> float:
    """Return the pixels that a file states at its beginning; for a JPEG, weighted by its cost."""
    width, height = 0, 0
    if content.startswith(JPEG):
        sizes = (_jpeg_pixels(content, each) for each in islice(jpeg_segments(content), _SEGMENTS_TO_SIZE))
        return next(filter(None, sizes), math.inf) / _JPEG_SPEED
    if content.startswith(PNG):
        width, height = struct.unpack_from(">II", content, 16)
    elif content.startswith(GIF):
        width, height = struct.unpack_from("<HH", content, 6)
    elif content.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", content, 18)
    elif is_webp(content):
        width, height = _webp_size(content)
    elif content[:2] in TIFF_ORDER or content[4:8] == b"ftyp":
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


def _jpeg_pixels(content: bytes, segment: Segment) -> int:
    """Return the pixels that a segment promises."""
    if segment.marker not in SOF:
        return 0
    size = content[segment.start + 5 : segment.start + 9]
    return int.from_bytes(size[:2]) * int.from_bytes(size[2:])


def _check_png(content: bytes, limits: InputLimits) -> None:
    for chunk in png_chunks(content):
        if chunk.name == b"acTL":
            check_frames(int.from_bytes(content[chunk.body : min(chunk.body + 4, chunk.end)]), limits)


def _check_gif(content: bytes, limits: InputLimits) -> None:
    first = next(gif_frames(content), None)
    check_frames(_count(gif_frames(content)), limits)
    if first is not None and first + 8 <= len(content):
        # Pillow makes the screen as large as the frame wants it, and may paint it, before it tells its size.
        screen = struct.unpack_from("<HH", content, 6)
        left, top, width, height = struct.unpack_from("<HHHH", content, first)
        check_pixels(max(screen[0], left + width), max(screen[1], top + height), limits)


def _check_webp(content: bytes, limits: InputLimits) -> None:
    frames = 0
    for chunk in webp_chunks(content):
        if chunk.name == b"VP8X":
            # libwebp takes memory for two canvases before it tells their size.
            sizes = (content[chunk.body + at : chunk.body + at + 3] for at in (4, 7))
            width, height = (int.from_bytes(size, "little") + 1 for size in sizes)
            check_pixels(width, height, limits)
        frames += chunk.name == b"ANMF"
    check_frames(frames, limits)


def plain_copy(content: bytes) -> bytes:
    """Return a JPEG, PNG or WebP without metadata other than EXIF; a file of another format as it is."""
    if content.startswith(JPEG):
        return _plain_jpeg(content)
    if content.startswith(PNG):
        return _plain_png(content)
    if is_webp(content):
        return _plain_webp(content)
    return content


def _plain_jpeg(content: bytes) -> bytes:
    kept = [content[:2]]
    for segment in jpeg_segments(content):
        if segment.marker == SOS:
            return b"".join([*kept, content[segment.start :]])
        if _shapes_pixels(segment.marker, content[segment.start + 4 : segment.end]):
            kept.append(content[segment.start : segment.end])
    return content


def _shapes_pixels(marker: int, body: bytes) -> bool:
    """Return whether a segment of a JPEG says how its pixels are read, or which side is up."""
    if marker == 0xE0:  # noqa: PLR2004 -- APP0
        return body.startswith(_JFIF) and len(body) >= _LEAST_JFIF
    if marker == 0xE1:  # noqa: PLR2004 -- APP1
        return body.startswith(_EXIF)
    if marker == 0xEE:  # noqa: PLR2004 -- APP14
        return body.startswith(_ADOBE) and len(body) >= _LEAST_ADOBE
    # Neither another application's nor a comment.
    return not 0xE0 <= marker <= 0xEF and marker != 0xFE  # noqa: PLR2004


def jpeg_endings(plain: bytes) -> tuple[bytes, bytes] | None:
    """Return two copies of a JPEG without an end, with different endings; None if it has an end, or is not a JPEG.

    If both decode to the same pixels, no pixel is missing: otherwise a decoder would read the ending as pixels.

    Raises:
        ImageUndecodable: scans are missing.
    """
    segments = list(jpeg_segments(plain)) if plain.startswith(JPEG) else []
    if not segments or segments[-1].marker == EOI:
        return None
    if not _has_all_scans(plain, segments):
        raise ImageUndecodable(BROKEN)
    # Files are filled up with zeros where a disk was full. A single zero may be a picture's.
    body = plain.rstrip(b"\0") if plain.endswith(b"\0\0") else plain
    if body.endswith(b"\xff"):
        body += b"\0"
    # Each bit of one filling differs from the other's, so that missing data decode differently. Restart
    # markers are among them, because a decoder that waits for one reads nothing before it.
    first, second = (
        b"".join(filling + bytes([0xFF, 0xD0 + number]) for number in range(8))
        for filling in (_FILLING, bytes(~each & 0xFF for each in _FILLING))
    )
    return body + first + END_OF_JPEG, body + second + END_OF_JPEG


def _has_all_scans(plain: bytes, segments: list[Segment]) -> bool:
    """Return whether the scans of a JPEG bring every coefficient of every component to its last bit."""
    # Of each component and coefficient, the lowest bit that a scan has brought so far.
    bits: dict[int, list[int]] = {}
    for segment in segments:
        body = plain[segment.start + 4 : segment.end]
        if segment.marker in SOF and not bits:
            bits = {each: [1] * _COEFFICIENTS for each in body[6::3]}
        elif segment.marker == SOS and body:
            count = body[0]
            if count > _MAX_COMPONENTS or len(body) < 4 + 2 * count:
                return False
            first, last, shift = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
            for component in body[1 : 1 + 2 * count : 2]:
                if component in bits:
                    bits[component][first : last + 1] = [shift] * (min(last, _COEFFICIENTS - 1) - first + 1)
    return bool(bits) and not any(map(any, bits.values()))


def _plain_png(content: bytes) -> bytes:
    kept: list[bytes] = []
    pixels: list[Chunk] = []
    ended = False
    for chunk in png_chunks(content):
        ended = ended or (bool(pixels) and chunk.name != b"IDAT")
        if chunk.name == b"IDAT":
            # Decoders take those that follow the first one without a gap.
            pixels += [] if ended else [chunk]
        elif _is_needed(chunk, before_pixels=not ended) and (chunk.name[:1].isupper() or _is_sound(content, chunk)):
            kept.append(content[chunk.start : chunk.end + 4])
    if not pixels:
        return content
    # Their own checksum, which decoders look at, tells more than that of each chunk.
    data = b"".join(content[each.body : each.end] for each in pixels)
    return b"".join([PNG, *kept, _chunk(b"IDAT", data), _chunk(b"IEND", b"")])


def _is_needed(chunk: Chunk, *, before_pixels: bool) -> bool:
    """Return whether pixels, or which side of them is up, depend on a chunk."""
    # A capital says that the picture cannot be read without it. A decoder looks at the checksums of these itself.
    return chunk.name == b"eXIf" or (before_pixels and (chunk.name == b"tRNS" or chunk.name[:1].isupper()))


def _is_sound(content: bytes, chunk: Chunk) -> bool:
    """Return whether a PNG's chunk is whole and has the checksum that it tells."""
    stored = content[chunk.end : chunk.end + 4]
    return stored == struct.pack(">I", zlib.crc32(memoryview(content)[chunk.start + 4 : chunk.end]))


def _chunk(name: bytes, body: bytes) -> bytes:
    return b"".join([struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))])


def _plain_webp(content: bytes) -> bytes:
    kept = b"".join(_webp_parts(content))
    return b"".join([b"RIFF", struct.pack("<I", len(kept) + 4), b"WEBP", kept])


def _webp_parts(content: bytes) -> Iterator[bytes]:
    for chunk in webp_chunks(content):
        if chunk.name in _WEBP_PARTS or (chunk.name == b"EXIF" and chunk.end <= len(content)):
            part = content[chunk.start : chunk.end]
            yield part + b"\0" if len(part) % 2 else part
