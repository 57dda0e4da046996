"""What goes into an embedder and what comes out of it."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DOCUMENT",
    "QUERY",
    "EmbedOptions",
    "Embedding",
    "ImageInput",
    "Input",
    "Modality",
    "Priority",
    "Purpose",
    "TextInput",
    "Vector",
]

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


class Priority(Enum):
    """Who goes first when work waits: somebody who looks at a screen, or a load that takes its time."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How to embed the inputs of a call. Inputs of calls with equal options may share a batch.

    Attributes:
        purpose: what the vectors are for.
        priority: how urgent they are.
        api_key: the caller's own key for the backend; None for this server's.
        fresh: whether the backend has to be asked, though it may be known what it answered before.
    """

    purpose: Purpose = Purpose.QUERY
    priority: Priority = Priority.INTERACTIVE
    api_key: str | None = field(default=None, repr=False)
    fresh: bool = False


QUERY = EmbedOptions()
DOCUMENT = EmbedOptions(Purpose.DOCUMENT)


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
