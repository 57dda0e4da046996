"""Shades of grey with more than 8 bits, or with a sign, scaled to 8 bits.

16 bits and less without a sign have a black and a white of their own, and keep them. Other numbers mean anything: their
least is black, their greatest white.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImagePalette, TiffImagePlugin

from embedders.images.white import strips

_SIGNED, _UNSIGNED = 2, 1
_WHITE_IS_ZERO = 0
_SIXTEEN_BITS = 16
_MAX_BYTE = 255
_NO_DATA = 42113
"""GDAL's tag for the number of places without a value."""

_NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}


@dataclass(frozen=True, slots=True)
class Samples:
    """What the numbers of a grey picture are.

    Attributes:
        dtype: as which Pillow's numbers are to be read; None for Pillow's own.
        bits: of a number whose least is black and greatest white; None where the data's own range counts.
        inverted: whether the least is white.
        no_data: a number that stands for none; None if there is no such one.
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
    """Return what the numbers of a picture are, before it is loaded; None where Pillow's 8 bits are right."""
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
