"""Pictures: bounds read from the header, decoding, and the forms that backends take.

Decoding is one rule for every backend: the first frame, upright by its EXIF orientation, transparent pixels on white,
16-bit grey scaled to 8 bits. Metadata that cannot be read is as good as none; pixels that cannot be read are an error.
"""

import io
import re
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from embedders.errors import ImageEmpty, ImageTooLarge, ImageUndecodable
from embedders.spec import InputLimits

__all__ = ["FORMATS", "ImageHeader", "as_nim_image", "decode", "inspect", "without_far_ends"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are read; of several frames the first one is."""

_LONGEST = 16
"""Sides' ratio above which a picture's far ends are cropped."""

_MAX_PIXELS = 178_956_970
"""Pillow refuses pictures of more pixels, whatever the settings say."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NIM_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png"}
_UNDECODABLE = "the bytes are no JPEG, PNG, WebP, GIF, BMP or TIFF picture; send a whole file of one of these formats"
_BROKEN = "the picture is broken or cut short; send the whole file"


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a picture's header says.

    Attributes:
        format: one of FORMATS.
        width: pixels, before EXIF orientation.
        height: pixels, before EXIF orientation.
    """

    format: str
    width: int
    height: int


def inspect(content: bytes, limits: InputLimits) -> ImageHeader:
    """Check a picture's size and format without decoding it.

    Raises:
        ImageEmpty: there are no bytes.
        ImageTooLarge: more bytes or pixels than `limits` allow.
        ImageUndecodable: no picture of a supported format.
    """
    return _open(content, limits)[0]


def decode(content: bytes, limits: InputLimits) -> Image.Image:
    """Decode a picture to mode RGB, upright, its transparent pixels laid on white.

    Raises:
        ImageEmpty: there are no bytes.
        ImageTooLarge: more bytes or pixels than `limits` allow.
        ImageUndecodable: no picture of a supported format, broken, or cut short.
    """
    return _load(content, limits)[1]


def as_nim_image(content: bytes, limits: InputLimits) -> tuple[str, bytes]:
    """Return a picture's media type and bytes in a format that a NIM takes.

    JPEG and PNG files stay as they are, once a complete decode has shown that they are whole; others become PNG.

    Raises:
        ImageEmpty: there are no bytes.
        ImageTooLarge: more bytes or pixels than `limits` allow.
        ImageUndecodable: no picture of a supported format, broken, or cut short.
    """
    header, image = _load(content, limits)
    if header.format in _NIM_TYPES:
        return _NIM_TYPES[header.format], content
    file = io.BytesIO()
    image.save(file, "PNG")
    return _NIM_TYPES["PNG"], file.getvalue()


def without_far_ends(image: Image.Image) -> Image.Image:
    """Crop a picture more than 16 times as long as wide to that ratio, about its centre.

    For backends that scale the shorter side to a fixed length and then crop to a square: they drop the ends anyway, but
    would first have scaled them up to any size.
    """
    width, height = image.size
    longest = _LONGEST * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def _open(content: bytes, limits: InputLimits) -> tuple[ImageHeader, Image.Image]:
    if not content:
        raise ImageEmpty("the image has no bytes; send a picture file's content")
    if len(content) > limits.max_image_bytes:
        raise ImageTooLarge(
            f"the image has {len(content)} bytes; the limit is {limits.max_image_bytes}; send a smaller file"
        )
    bound = min(limits.max_image_pixels, _MAX_PIXELS)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        value = re.search(r"\d+", str(error))
        raise ImageTooLarge(
            f"the image has {value[0] if value else 'too many'} pixels; the limit is {bound}; scale it down"
        ) from error
    except Exception as error:  # Pillow's parsers raise whatever broken bytes lead them to
        raise ImageUndecodable(_UNDECODABLE) from error
    pixels = image.width * image.height
    if pixels > bound:
        raise ImageTooLarge(
            f"the image has {image.width} x {image.height} = {pixels} pixels; the limit is {bound}; scale it down"
        )
    # A JPEG with further pictures behind the first one calls itself MPO.
    file_format = "JPEG" if image.format == "MPO" else str(image.format)
    return ImageHeader(file_format, image.width, image.height), image


def _load(content: bytes, limits: InputLimits) -> tuple[ImageHeader, Image.Image]:
    header, image = _open(content, limits)
    try:
        image.load()
        return header, _to_rgb(_upright(image))
    except Exception as error:  # Pillow's decoders raise whatever broken bytes lead them to
        raise ImageUndecodable(_BROKEN) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 -- Pillow's metadata parsers raise whatever broken bytes lead them to
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip to white everything above 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    # Converting to the same mode would copy, which costs as much as decoding for large pictures.
    return image if image.mode == "RGB" else image.convert("RGB")
