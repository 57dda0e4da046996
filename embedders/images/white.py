"""Transparent pixels laid on white, as a browser shows them on a white page."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

_STRIP_PIXELS = 1_000_000
"""Pixels that are worked on at a time, so that no third copy of a large picture is made."""

_PNG_DEPTH = 24
"""Where a PNG tells the bits of a sample."""

Box = tuple[int, int, int, int]


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
        Exception: whatever Pillow's decoder raises.
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
