"""What goes into an embedder and what comes out of it."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Embedding", "ImageInput", "Input", "Modality", "Purpose", "TextInput", "Vector"]

Vector = NDArray[np.float32]
"""One vector: float32, shape (dimension,)."""


class Modality(Enum):
    """A kind of input."""

    TEXT = "text"
    IMAGE = "image"


class Purpose(Enum):
    """What a vector is for. Models with one role for both ignore it."""

    QUERY = "query"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class TextInput:
    """A text, and whether it may be cut to the length that the model reads."""

    text: str
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An encoded picture: the bytes of a file."""

    content: bytes


Input = TextInput | ImageInput


@dataclass(frozen=True, slots=True)
class Embedding:
    """An input's vector and what happened to the input.

    Attributes:
        vector: float32, shape (dimension,), unit length.
        token_count: tokens of a text with the model's start and end tokens, after truncation; None for images and where
            the backend does not say.
        truncated: whether a text was cut.
    """

    vector: Vector
    token_count: int | None = None
    truncated: bool = False
