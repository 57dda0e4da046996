"""What a picture file is made of, read from its bytes before any library parses them.

Libraries read all parts of a file before its first pixel: a few bytes each, thousands of times over, cost minutes of a
core. What may be counted at little cost is bounded here; pixels and tiles are bounded where the library tells them.
"""

import math
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from embedders.contract import InputLimits
from embedders.errors import ImageTooLarge, ImageUndecodable
from embedders.images.avif import av1_frame_sizes
from embedders.images.parts import (
    GIF,
    JPEG,
    PNG,
    SOF,
    SOS,
    TIFF_ORDER,
    Segment,
    gif_frames,
    is_webp,
    jpeg_segments,
    png_chunks,
    tiff_frames,
    webp_chunks,
)

MAX_PIXELS = 178_956_970
"""Pillow refuses pictures of more pixels, whatever the settings say."""

_MAX_SEGMENTS = 1000
"""Segments of a JPEG before its pixels."""

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


def _check_jpeg(content: bytes, limits: InputLimits) -> None:
    segments = scans = pixels = junk = 0
    for segment in jpeg_segments(content):
        pixels = max(pixels, _jpeg_pixels(content, segment))
        junk += 0 if scans else segment.skipped
        scans += segment.marker == SOS
        segments += not scans
    if junk > _MAX_JUNK:
        # Pillow skips it byte by byte.
        raise ImageTooLarge(f"the JPEG has {junk} bytes between its segments; the limit is {_MAX_JUNK}; save it anew")
    if segments > _MAX_SEGMENTS:
        # Pillow joins those of one kind, each time copying what it has so far.
        raise ImageTooLarge(
            f"the JPEG has {segments} segments before its pixels; the limit is {_MAX_SEGMENTS}; "
            "save it without metadata"
        )
    # Each scan walks over the whole picture, and a few bytes make a scan.
    if pixels and scans > (bound := max(1, _SCANS_AT_FULL_SIZE * limits.max_image_pixels // pixels)):
        raise ImageTooLarge(f"the JPEG has {scans} scans; the limit for its size is {bound}; save it anew")


def _stated_pixels(content: bytes) -> float:
    """Return the pixels that a file says it has at its beginning; those of a JPEG by what they cost."""
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
    compressed = 0
    for chunk in png_chunks(content):
        if chunk.name == b"acTL":
            check_frames(int.from_bytes(content[chunk.body : min(chunk.body + 4, chunk.end)]), limits)
        compressed += chunk.name in {b"iCCP", b"iTXt", b"zTXt"}
    if compressed > _MAX_COMPRESSED_CHUNKS:
        raise ImageTooLarge(
            f"the PNG has {compressed} profile and text chunks; the limit is {_MAX_COMPRESSED_CHUNKS}; "
            "save it without metadata"
        )


def _check_gif(content: bytes, limits: InputLimits) -> None:
    first = next(gif_frames(content), None)
    check_frames(_count(gif_frames(content)), limits)
    if first is not None and first + 8 <= len(content):
        # Pillow makes the screen as large as the frame wants it, and may paint it, before it tells its size.
        screen = struct.unpack_from("<HH", content, 6)
        left, top, width, height = struct.unpack_from("<HHHH", content, first)
        check_pixels(max(screen[0], left + width), max(screen[1], top + height), limits)


def _check_avif(content: bytes, limits: InputLimits) -> None:
    try:
        for width, height in av1_frame_sizes(content):
            check_pixels(width, height, limits)
    except (struct.error, IndexError) as error:
        raise ImageUndecodable("the AVIF is broken or cut short; send the whole file") from error


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
