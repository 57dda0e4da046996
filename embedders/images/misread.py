"""Pictures that Pillow cannot read, or would show differently from a browser: rejected by name, or corrected.

- Forms that are not supported, and forms of which Pillow would read wrong pixels, are rejected by name.
- Shades of grey with more than 8 bits, or with a sign, are scaled to 8 bits. 16 bits and less without a sign keep
  their black and their white. Other numbers mean anything: their least is black, their greatest white.
- Transparent pixels are laid on white, as a browser shows them on a white page.
"""

import io
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, ExifTags, Image, ImagePalette, PngImagePlugin, TiffImagePlugin

from embedders.errors import ImageUndecodable
from embedders.images.structure import BROKEN, GIF, JPEG, PNG, SOF, TIFF_ORDER, is_webp, jpeg_segments

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

_STRIP_PIXELS = 1_000_000
"""Pixels that are worked on at a time, so that no third copy of a large picture is made."""

_PNG_DEPTH = 24
"""Where a PNG tells the bits of a sample."""

Box = tuple[int, int, int, int]

_SIGNED, _UNSIGNED = 2, 1
_SIXTEEN_BITS = 16
_MAX_BYTE = 255
_NO_DATA = 42113
"""GDAL's tag for the number of places without a value."""

_NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}


def unread_form(content: bytes) -> str | None:
    """Return the error text for a file that no library reads; None if its form is unknown."""
    if is_heic(content):
        return (
            "the file is HEIC, which is not supported; convert it to JPEG or PNG, for example with `heif-convert`, or "
            "set the phone's camera to the most compatible format"
        )
    for signature, name in _SIGNATURES.items():
        if content.startswith(signature):
            return f"the file is {name}, which is not supported; convert it to JPEG or PNG"
    if not (content.startswith(_READ) or is_webp(content)):
        return None
    with suppress(Exception):  # broken bytes raise any error in Pillow
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
        return "the PNG is in the form of Apple's devices (CgBI), which is not supported; save it again as PNG"
    return BROKEN


def is_heic(content: bytes) -> bool:
    """Return whether a file is a HEIC by its brands: the first one, or another one beside a general one."""
    if content[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(content[:4]), 256)
    brands = {content[at : at + 4] for at in (8, *range(16, end, 4))}
    return content[8:12] in _HEIC_BRANDS or (bool(brands & _HEIC_BRANDS) and not brands & {b"avif", b"avis"})


def check_form(image: Image.Image, content: bytes) -> None:
    """Reject a picture of which Pillow would read wrong pixels.

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
                return f"the JPEG has {bits} bits a sample, and only 8 are supported; save it with 8, or as PNG"
            if components not in (1, 3, 4):
                return f"the JPEG has {components} components, and only 1, 3 or 4 are supported; save it as RGB"
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
    return f"the BMP has {_bmp_bits(content)} bits a pixel{coding}, a form that is not supported; save it as PNG"


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
    return f"the TIFF has {form}, a form that is not supported; save it as PNG, or as TIFF in grey or RGB of 8 bits"


def _is_misread_tiff(tags: Mapping[int, Any], coding: str) -> bool:
    """Return whether Pillow reads wrong pixels of a TIFF, or fails."""
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


def strips(image: Image.Image) -> Iterator[Box]:
    """Yield the boxes of strips that make up a picture."""
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def lay_on_white(image: Image.Image) -> Image.Image:
    """Return a picture with transparent pixels as RGB, these on white."""
    ground = Image.new("RGB", image.size, "white")
    for box in strips(image):
        layer = image.crop(box)
        # Grey that is multiplied with its alpha becomes RGBA in two steps only.
        layer = (layer.convert("LA") if layer.mode == "La" else layer).convert("RGBA")
        strip = Image.new("RGBA", layer.size, "white")
        strip.alpha_composite(layer)
        ground.paste(strip, box)
    return ground


def lay_colour_on_white(image: Image.Image, content: bytes) -> None:
    """Lay the pixels of a PNG's transparent colour on white where Pillow does not compare all bits of it.

    Args:
        image: loaded, of any format.
        content: the file.

    Raises:
        Exception: any error of Pillow's decoder.
    """
    clear = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or clear is None or isinstance(clear, bytes):
        return
    depth = content[_PNG_DEPTH]
    highest = (1 << depth) - 1
    if image.mode == "L":
        # The colour is told in the file's bits, and the pixels are scaled to eight.
        image.info["transparency"] = (clear & highest) * 255 // highest
    elif image.mode == "RGB" and depth == 8:  # noqa: PLR2004
        image.info["transparency"] = tuple(each & highest for each in clear)
    elif image.mode == "RGB":
        del image.info["transparency"]
        _lay_on_white_where(image, _low_bytes(content), np.array(clear, np.uint16))


def _low_bytes(content: bytes) -> Image.Image:
    """Return the lower eight bits of an RGB PNG with 16 bits, of which Pillow reads the upper ones."""
    image = Image.open(io.BytesIO(content), formats=("PNG",))
    image.tile = [each._replace(args="RGB;16L") for each in image.tile]
    image.load()
    return image


def _lay_on_white_where(image: Image.Image, low: Image.Image, clear: np.ndarray) -> None:
    for box in strips(image):
        high_bytes, low_bytes = (np.asarray(each.crop(box)) for each in (image, low))
        found = np.all((high_bytes == clear >> 8) & (low_bytes == clear & 0xFF), axis=-1)
        if found.any():
            image.paste("white", box, Image.fromarray(found))


@dataclass(frozen=True, slots=True)
class Samples:
    """What the numbers of a grey picture are.

    Attributes:
        dtype: as which Pillow's numbers are to be read; None for Pillow's own.
        bits: of a number whose least is black and greatest white; None where the data's own range counts.
        inverted: whether the least is white.
        no_data: the number that marks a place without a value; None if there is none.
    """

    dtype: type[np.generic] | None = None
    bits: int | None = None
    inverted: bool = False
    no_data: float | None = None


def mend_reading(image: Image.Image) -> None:
    """Correct, before it is loaded, how Pillow is to read a TIFF."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags: Mapping[int, Any] = image.tag_v2
    for at, each in enumerate(image.tile):
        # libtiff gives numbers in the machine's order, which Pillow forgets of these.
        if each.codec_name == "libtiff" and isinstance(each.args, tuple) and each.args[0] in _NATIVE:
            image.tile[at] = each._replace(args=(_NATIVE[each.args[0]], *each.args[1:]))
    colours = tags.get(ExifTags.Base.ColorMap)
    if image.palette and colours and max(colours) <= _MAX_BYTE:
        # Some programs write bytes where numbers of 16 bits belong.
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def samples_of(image: Image.Image) -> Samples | None:
    """Return how to read a picture's samples, before it is loaded; None where Pillow's 8 bits are right."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return Samples(bits=_SIXTEEN_BITS) if image.mode.startswith("I;16") else None
    tags: Mapping[int, Any] = image.tag_v2
    signed = max(tags.get(ExifTags.Base.SampleFormat, (_UNSIGNED,))) == _SIGNED
    inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO
    bits = tags.get(ExifTags.Base.BitsPerSample, (1,))[0]
    if image.mode.startswith("I;16"):
        return Samples(bits=bits, inverted=inverted)
    if image.mode in {"I", "F"}:
        unsigned = image.mode == "I" and not signed
        return Samples(np.uint32 if unsigned else None, inverted=inverted, no_data=_no_data(tags))
    return Samples(np.int8, no_data=_no_data(tags)) if image.mode == "L" and signed else None


def to_eight_bits(image: Image.Image, samples: Samples) -> Image.Image:
    """Return a loaded grey picture as mode L; NaN, and the file's own value for no data, are black."""
    low, high = _range(image, samples)
    shades = Image.new("L", image.size)
    for box in strips(image):
        values = _values(image, box, samples)
        if samples.bits:
            scaled = (values >> (samples.bits - 8)).astype(np.uint8)
        else:
            with np.errstate(invalid="ignore"):
                share = (values.astype(np.float64) - low) / ((high - low) or 1)
            scaled = np.rint(np.nan_to_num(share).clip(0, 1) * 255).astype(np.uint8)
        if samples.inverted:
            scaled = 255 - scaled
        if isinstance(clear := image.info.get("transparency"), int):
            scaled[values == clear] = 255
        shades.paste(Image.fromarray(scaled), box)
    return shades


def _range(image: Image.Image, samples: Samples) -> tuple[float, float]:
    """Return the least and the greatest number."""
    low, high = np.inf, -np.inf
    for box in strips(image) if not samples.bits else ():
        values = _values(image, box, samples).astype(np.float64)
        values = values[np.isfinite(values) & (values != samples.no_data)]
        if values.size:
            low, high = min(low, values.min()), max(high, values.max())
    return (float(low), float(high)) if low <= high else (0.0, 0.0)


def _values(image: Image.Image, box: tuple[int, int, int, int], samples: Samples) -> NDArray[Any]:
    values = np.asarray(image.crop(box))
    return values if samples.dtype is None else values.view(samples.dtype)


def _no_data(tags: Mapping[int, Any]) -> float | None:
    try:
        return float(str(tags.get(_NO_DATA, "")).strip("\0 "))
    except ValueError:
        return None
