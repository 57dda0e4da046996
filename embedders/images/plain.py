"""Files without what no pixel depends on, and with what is missing but costs no pixel.

Browsers show a PNG whose text has a wrong checksum, or a JPEG whose metadata are cut short. Libraries that read all of
a file refuse it. They get a copy here that holds the pixels, what says how to read them, and the EXIF data, which say
which side is up. Damage of the pixels themselves stays in the copy, for the library to find.
"""

import struct
import zlib
from collections.abc import Iterator

from embedders.errors import ImageUndecodable
from embedders.images.forms import BROKEN
from embedders.images.parts import (
    EOI,
    JPEG,
    PNG,
    SOF,
    SOS,
    Chunk,
    Segment,
    is_webp,
    jpeg_segments,
    png_chunks,
    webp_chunks,
)

END_OF_JPEG = b"\xff\xd9"

_EXIF, _JFIF, _ADOBE = b"Exif\0\0", b"JFIF", b"Adobe"
_LEAST_JFIF, _LEAST_ADOBE = 14, 12
"""Bytes of these segments' bodies; libjpeg takes no notice of shorter ones."""

_WEBP_PARTS = frozenset({b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
_COEFFICIENTS = 64
_MAX_COMPONENTS = 4
_FILLING = bytes(each for at in range(80) if (each := pow(3, at, 257)) not in (0xFF, 0x100))
"""Bytes without an order that a decoder could fall into step with, and without those that begin a marker."""


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
    """Return a JPEG that lacks its end with two different endings; None if it has one, or is no JPEG.

    If both decode to the same pixels, nothing of these is missing: a decoder that needs more would take what comes
    behind for them.

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
    # Each bit of one filling differs from the other's, so that whatever a decoder lacks becomes something else. Restart
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
