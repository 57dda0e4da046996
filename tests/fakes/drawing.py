"""One small drawing in many forms, and what a careful viewer shows of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedders.contract import InputLimits
from embedders.images.decoding import decode

HEIGHT, WIDTH = 37, 45
Numbers = NDArray[Any]

_down, _right = np.mgrid[0:HEIGHT, 0:WIDTH]
GREY: Numbers = ((_right * 255 // (WIDTH - 1) + _down * 60 // HEIGHT) % 256).astype(np.uint8)
GREY[0, :2] = 0, 255
RGB: Numbers = np.stack([GREY, GREY[::-1], 255 - GREY[:, ::-1]], axis=-1)
ALPHA: Numbers = np.full((HEIGHT, WIDTH), 128, np.uint8)
ALPHA[:, :20] = 255
ALPHA[:5] = 0
PALETTE: Numbers = np.random.default_rng(7).integers(0, 256, (256, 3))


def on_white(colours: Numbers, alpha: Numbers) -> Numbers:
    """Return what shows of colours with an alpha of 0 to 255 on white."""
    share = alpha.astype(float) / 255
    share = share[..., None] if colours.ndim == 3 else share
    return np.round(colours * share + 255 * (1 - share))


def difference(content: bytes, truth: Numbers | Image.Image) -> int:
    """Return by how many of 255 levels the worst sample of what is decoded differs from the truth, grey or RGB."""
    expected = np.asarray(truth).astype(int)
    expected = np.repeat(expected[..., None], 3, axis=2) if expected.ndim == 2 else expected
    decoded = np.asarray(decode(content, InputLimits())).astype(int)
    assert decoded.shape == expected.shape
    return int(np.abs(decoded - expected).max())
