"""Pictures in the size that a model reads, as open_clip's image transform gives them, without torch.

The same steps in the same library, so not a bit differs: torchvision's rules for sizes are a few lines, and both scale
with Pillow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedders.contract import InputLimits
from embedders.errors import ImageUndecodable
from embedders.images.decoding import decode, without_far_ends

Size = tuple[int, int]
"""Height and width."""

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a model wants its pictures, in open_clip's words.

    Attributes:
        size: height and width.
        resize_mode: which side gets the model's size: the shortest, and the rest is cut off; the longest, and the rest
            is filled; or both, which squashes the picture.
        interpolation: how pixels are computed.
        fill_color: of the rest.
        draft_side: see embedders.images.decoding.decode; 0 for none.
    """

    size: Size
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill_color: int = 0
    draft_side: int = 0

    @classmethod
    def of(cls, preprocessing: Mapping[str, Any], *, draft_factor: int = 0) -> Self:
        """Return what open_clip's configuration of a model's preprocessing says.

        Args:
            preprocessing: `preprocess_cfg` of the model's visual part.
            draft_factor: large JPEGs are decoded scaled down to no less than so many times the size; 0: at full size.
        """
        size = preprocessing["size"]
        height, width = (size, size) if isinstance(size, int) else size
        return cls(
            (height, width),
            preprocessing["resize_mode"],
            # It takes anything else for bicubic, too.
            "bilinear" if preprocessing["interpolation"] == "bilinear" else "bicubic",
            preprocessing["fill_color"],
            draft_factor * max(height, width),
        )


def scaled(content: bytes, limits: InputLimits, scaling: Scaling) -> NDArray[np.uint8]:
    """Decode a picture and scale it to what a model reads.

    Returns:
        RGB, uint8, shape (height, width, 3), read-only.

    Raises:
        InputRejected: see embedders.images.decoding.decode; or the picture is too narrow to be scaled.
    """
    image = decode(content, limits, draft_side=scaling.draft_side)
    if scaling.resize_mode == "shortest":
        image = without_far_ends(image)
    return np.asarray(_fitted(image, scaling))


def _fitted(image: Image.Image, scaling: Scaling) -> Image.Image:
    """Scale a picture of mode RGB and cut or fill it to the model's size.

    Raises:
        ImageUndecodable: it is too narrow to be scaled.
    """
    height, width = _scaled_size((image.height, image.width), scaling)
    if not (height and width):
        raise ImageUndecodable("the picture is too narrow to be scaled to what the model reads; crop it")
    # open_clip has no other filter where the shortest side goes to a size that is not square.
    square = scaling.size[0] == scaling.size[1]
    bicubic = scaling.resize_mode == "shortest" and not square
    if (width, height) != image.size:
        image = image.resize((width, height), _FILTERS["bicubic" if bicubic else scaling.interpolation])
    if (height, width) == scaling.size:
        return image
    ground = Image.new("RGB", scaling.size[::-1], (scaling.fill_color,) * 3)
    ground.paste(image, (_start(width, scaling.size[1]), _start(height, scaling.size[0])))
    return ground


def _scaled_size(source: Size, scaling: Scaling) -> Size:
    """Return the size that a picture is scaled to."""
    if scaling.resize_mode == "squash":
        return scaling.size
    height, width = source
    if scaling.resize_mode == "shortest" and scaling.size[0] == scaling.size[1]:
        # torchvision rounds the longer side down; open_clip's own resizing rounds to the nearest.
        side = scaling.size[0]
        return (int(side * height / width), side) if width <= height else (side, int(side * width / height))
    ratios = height / scaling.size[0], width / scaling.size[1]
    ratio = min(ratios) if scaling.resize_mode == "shortest" else max(ratios)
    return round(height / ratio), round(width / ratio)


def _start(length: int, wanted: int) -> int:
    """Return where a side begins in one of the wanted length: below 0 if its ends are cut off."""
    return (wanted - length) // 2 if length < wanted else -round((length - wanted) / 2)
