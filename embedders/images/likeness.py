"""From which cosine on two pictures are near-duplicates, which differs from model to model.

It is measured: known pictures are changed as people change them when they pass them on, and embedded. At the threshold
most of these copies are found, and nearly all pairs of different pictures lie below.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedders.contract import InputLimits, Vector
from embedders.errors import InputRejected
from embedders.images.decoding import decode

CUT = 0.03
"""The share of a picture that is cut off at each of its edges."""

LEAST_SIDE = 224
"""Pixels to which a picture is made smaller at most, as models read no more of it."""

MISSED = 0.1
"""The share of copies that may lie below the threshold."""

CONFUSED = 0.01
"""The share of pictures whose nearest different picture may lie above it."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which cosine on pictures are near-duplicates.

    Attributes:
        min_cosine: the threshold.
        found: the share of the copies that it finds.
        confused: the share of the pictures for which it also finds a different one.
        pictures: how many it is measured with.
    """

    min_cosine: float
    found: float
    confused: float
    pictures: int


def with_copies(pictures: Iterable[bytes], limits: InputLimits) -> Iterator[list[bytes]]:
    """Yield each picture with its copies; those that cannot be read are left out."""
    for each in pictures:
        try:
            yield [each, *copies(each, limits)]
        except (InputRejected, MemoryError):
            continue


def copies(content: bytes, limits: InputLimits) -> list[bytes]:
    """Return a picture as JPEG in three ways: compressed, at half its size, and with its edges cut off.

    Raises:
        InputRejected: it cannot be decoded, or is too large.
    """
    picture = decode(content, limits)
    width, height = picture.size
    across, down = round(width * CUT), round(height * CUT)
    scale = max(0.5, min(1, LEAST_SIDE / min(width, height)))
    half = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    cut = picture.crop((across, down, width - across, height - down))
    return [_jpeg(picture, 60), _jpeg(half, 85), _jpeg(cut, 85)]


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def find_threshold(originals: Sequence[Vector], copied: Sequence[Sequence[Vector]]) -> Threshold:
    """Return the threshold of a model.

    Args:
        originals: vectors of at least two pictures, each of shape (dimension,).
        copied: the vectors of each picture's copies.

    Raises:
        ValueError: there are fewer than two pictures.
    """
    if len(originals) < 2:  # noqa: PLR2004 -- a pair
        raise ValueError("a threshold needs at least two pictures")
    rows = _unit(originals)
    near = np.concatenate([_unit(each) @ row for row, each in zip(rows, copied, strict=True)])
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -1)
    # Pictures as near to each other as most copies are to theirs are duplicates already, and say nothing of others.
    far = np.where(cosines < np.median(near), cosines, -1).max(axis=1)
    least = float(max(np.quantile(near, MISSED), np.quantile(far, 1 - CONFUSED)))
    return Threshold(least, float((near >= least).mean()), float((far >= least).mean()), len(rows))


def _unit(vectors: Sequence[Vector]) -> NDArray[np.float64]:
    rows = np.stack(vectors).astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
