"""Forms of pictures that are refused by name: those that nothing here reads, and those that would be read wrongly."""

import io
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from PIL import BmpImagePlugin, ExifTags, Image, TiffImagePlugin

from embedders.errors import ImageUndecodable
from embedders.images.parts import GIF, JPEG, PNG, SOF, TIFF_ORDER, is_webp, jpeg_segments

BROKEN = "the picture is broken or cut short; send the whole file"

_PHOTOMETRICS = {
    0: "grey whose 0 is white",
    1: "grey",
    2: "RGB",
    3: "a palette",
    4: "a mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELAB",
    9: "ICC LAB",
    10: "ITU LAB",
    32803: "a camera's raw colours",
    32844: "LogL",
    32845: "LogLuv",
    34892: "a camera's linear raw",
}
_KINDS = {2: "signed ", 3: "floating-point ", 4: "undefined ", 5: "complex ", 6: "complex "}
_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 2, 3, 5, 6, 8
_LOWEST_BITS_FIRST = 2
_COLOURS = {_RGB: 3, _CMYK: 4}
_STRAIGHT_ALPHA = 2
_SEPARATE = 2
_YCBCR_SUBSAMPLING, _INK_SET = 530, 332
_CMYK_INKS = 1
_TIFF_CODINGS = frozenset(TiffImagePlugin.COMPRESSION_INFO) - {50001}
"""But for WebP, for which libtiff is rarely built."""

_BIG_TIFF = (b"+\0", b"\0+")
_OLD_BMP = 12
"""Bytes of OS/2's header."""

_BMP_CODINGS = {1: "runs of 8 bits", 2: "runs of 4 bits", 3: "masks", 4: "JPEG", 5: "PNG", 6: "masks with alpha"}

_SIGNATURES = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"\0\0\1\0": "ICO",
    b"IIU\0": "camera raw",
    b"FUJIFILM": "camera raw",
}
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_READ = (JPEG, PNG, *GIF, b"BM", *TIFF_ORDER)


def unread_form(content: bytes) -> str | None:
    """Return what to tell of a file that no library reads; None where it is nothing that is known."""
    if is_heic(content):
        return (
            "the file is HEIC, which is not read; convert it to JPEG or PNG, for example with `heif-convert`, or set "
            "the phone's camera to the most compatible format"
        )
    for signature, name in _SIGNATURES.items():
        if content.startswith(signature):
            return f"the file is {name}, which is not read; convert it to JPEG or PNG"
    if not (content.startswith(_READ) or is_webp(content)):
        return None
    with suppress(Exception):  # Pillow's parsers raise whatever broken bytes lead them to
        return _refused(content)
    return BROKEN


def _refused(content: bytes) -> str:
    if content.startswith(JPEG):
        return _jpeg_form(content)
    if content[:2] in TIFF_ORDER:
        return _refused_tiff(_directory(content))
    if content.startswith(b"BM"):
        return _refused_bmp(content)
    if content[12:16] == b"CgBI":
        return "the PNG is in the form of Apple's devices (CgBI), which is not read; save it anew as PNG"
    return BROKEN


def is_heic(content: bytes) -> bool:
    """Return whether a file says that it is a HEIC: by its first brand, or by another one beside a general one."""
    if content[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(content[:4]), 256)
    brands = {content[at : at + 4] for at in (8, *range(16, end, 4))}
    return content[8:12] in _HEIC_BRANDS or (bool(brands & _HEIC_BRANDS) and not brands & {b"avif", b"avis"})


def check_form(image: Image.Image, content: bytes) -> None:
    """Refuse a picture of which Pillow would make other pixels than it has.

    Raises:
        ImageUndecodable: it is a TIFF or a BMP of such a form.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if _is_misread_tiff(image.tag_v2, str(image.info.get("compression"))):
            raise ImageUndecodable(_refused_tiff(image.tag_v2))
    elif isinstance(image, BmpImagePlugin.BmpImageFile) and image.tile:
        # A palette of black and white alone, or of all greys, makes Pillow forget how many bits a pixel has.
        args = image.tile[0].args
        expected = {"1": 1, "L": 8}.get(str(args[0])) if isinstance(args, tuple) else None
        if expected and expected != _bmp_bits(content):
            raise ImageUndecodable(_refused_bmp(content))


def _jpeg_form(content: bytes) -> str:
    for segment in jpeg_segments(content):
        if segment.marker in SOF:
            bits, components = content[segment.start + 4], content[segment.start + 9]
            if bits != 8:  # noqa: PLR2004
                return f"the JPEG has {bits} bits a sample, and only 8 are read; save it with 8, or as PNG"
            if components not in (1, 3, 4):
                return f"the JPEG has {components} components, and only 1, 3 or 4 are read; save it as RGB"
            break
    return BROKEN


def _bmp_bits(content: bytes) -> int:
    (size,) = struct.unpack_from("<I", content, 14)
    (bits,) = struct.unpack_from("<H", content, 24 if size == _OLD_BMP else 28)
    return int(bits)


def _refused_bmp(content: bytes) -> str:
    (size,) = struct.unpack_from("<I", content, 14)
    (compression,) = struct.unpack_from("<I", content, 30) if size != _OLD_BMP else (0,)
    coding = f" and is coded as {_BMP_CODINGS.get(compression, compression)}" if compression else ""
    return f"the BMP has {_bmp_bits(content)} bits a pixel{coding}, a form that is not read; save it as PNG"


def _directory(content: bytes) -> Mapping[int, Any]:
    """Return the tags of a TIFF's first picture."""
    file = io.BytesIO(content)
    directory = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if content[2:4] in _BIG_TIFF else 8])
    file.seek(directory.next)
    directory.load(file)
    return directory


def _refused_tiff(tags: Mapping[int, Any]) -> str:
    samples = tags.get(ExifTags.Base.SamplesPerPixel, 1)
    bits = tags.get(ExifTags.Base.BitsPerSample, (1,))[0]
    kind = _KINDS.get(tags.get(ExifTags.Base.SampleFormat, (1,))[0], "")
    meaning = tags.get(ExifTags.Base.PhotometricInterpretation)
    form = f"{samples} {kind}sample{'' if samples == 1 else 's'} of {bits} bits a pixel"
    form += f" as {_PHOTOMETRICS.get(meaning, meaning)}" if meaning is not None else " and does not say what they mean"
    if samples != 1 and tags.get(ExifTags.Base.PlanarConfiguration) == _SEPARATE:
        form += ", in separate planes"
    if (coding := tags.get(ExifTags.Base.Compression, 1)) not in _TIFF_CODINGS:
        form += f", in compression {coding}"
    return f"the TIFF has {form}, a form that is not read; save it as PNG, or as TIFF in grey or RGB of 8 bits"


def _is_misread_tiff(tags: Mapping[int, Any], coding: str) -> bool:
    """Return whether Pillow makes other pixels of a TIFF than it has, or fails."""
    meaning = tags.get(ExifTags.Base.PhotometricInterpretation)
    separate = tags.get(ExifTags.Base.PlanarConfiguration) == _SEPARATE
    if meaning in (None, _LAB) or coding == "webp":
        return True
    if meaning == _CMYK and tags.get(_INK_SET, _CMYK_INKS) != _CMYK_INKS:
        return True
    samples = tags.get(ExifTags.Base.SamplesPerPixel, 1)
    if meaning == _YCBCR and samples > 1 and coding not in {"jpeg", "tiff_jpeg"}:
        return separate or tags.get(_YCBCR_SUBSAMPLING) != (1, 1)
    bits = tags.get(ExifTags.Base.BitsPerSample, (1,))
    if (
        coding == "raw"
        and tags.get(ExifTags.Base.FillOrder) == _LOWEST_BITS_FIRST
        and (
            (separate and samples > 1)
            or (meaning == _PALETTE and bits[0] < 8)  # noqa: PLR2004
            or (meaning == _WHITE_IS_ZERO and bits[0] == 8)  # noqa: PLR2004
        )
    ):
        return True
    return separate and samples > 1 and _has_misread_planes(tags, coding)


def _has_misread_planes(tags: Mapping[int, Any], coding: str) -> bool:
    extra = tags.get(ExifTags.Base.ExtraSamples, ())
    colours = _COLOURS.get(tags.get(ExifTags.Base.PhotometricInterpretation, 0), 0)
    if tags.get(ExifTags.Base.SamplesPerPixel) != colours + len(extra) or (len(extra) > 1 and any(extra)):
        return True
    of_bytes = set(tags.get(ExifTags.Base.BitsPerSample, ())) == {8}
    return coding == "raw" and not (of_bytes and extra in ((), (_STRAIGHT_ALPHA,)))
