"""Inputs of the check: texts and pictures, no two of which are equal, so that nothing is answered from memory."""

import io
import itertools
import random
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from vecgate.v1.input_pb2 import Image as PbImage
from vecgate.v1.input_pb2 import Input as PbInput

WORDS = ("red", "green", "blue", "old", "big", "dog", "cat", "house", "car", "tree", "boat", "ball", "shoe", "horse")
TEXT_WORDS = 8
VARIANTS = 6
"""Different pictures of a size; the others are copies of them with another comment."""

PNG_HEADER_BYTES = 33
"""Signature and first part of a PNG file, behind which others may be put."""


class Inputs:
    """Makes inputs of one kind: `texts`, `png` (of the model's size, so that nothing is scaled), or JPEG WIDTHxHEIGHT.

    Attributes:
        kind: their kind.
    """

    def __init__(self, kind: str, *, side: int, seed: int = 0) -> None:
        """Prepare inputs for a model that reads `side` x `side` pixels; other seeds give other inputs."""
        self.kind = kind
        self._random = random.Random(seed)
        self._numbers = itertools.count(seed * 1_000_000_000)
        size = (side, side) if kind == "png" else tuple(map(int, kind.split("x"))) if kind != "texts" else None
        self._files = [] if size is None else [_picture(size, number) for number in range(VARIANTS)]

    def one(self) -> str | bytes:
        """Return a new text, or the bytes of a new picture."""
        number = next(self._numbers)
        if self.kind == "texts":
            return " ".join([*self._random.choices(WORDS, k=TEXT_WORDS - 1), f"{number}"])
        file = self._files[number % VARIANTS]
        return _commented_png(file, number) if self.kind == "png" else _commented_jpeg(file, number)

    def messages(self) -> Iterator[PbInput]:
        """Yield new inputs in the API's form."""
        while True:
            each = self.one()
            yield PbInput(text=each) if isinstance(each, str) else PbInput(image=PbImage(content=each))

    @property
    def input_bytes(self) -> int:
        """Bytes of the largest input."""
        return max((len(each) for each in self._files), default=100)


def _picture(size: Sequence[int], seed: int) -> bytes:
    """Return a picture that is as hard to decode as a photograph: large shapes and a little noise."""
    width, height = size
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = rng.integers(-6, 7, (height, width, 1), dtype=np.int16)
    image = Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
    file = io.BytesIO()
    if width == height:
        image.save(file, "PNG", compress_level=1)
    else:
        image.save(file, "JPEG", quality=90)
    return file.getvalue()


def _commented_jpeg(file: bytes, number: int) -> bytes:
    comment = f"{number}".encode()
    return file[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + file[2:]


def _commented_png(file: bytes, number: int) -> bytes:
    content = b"tEXt" + f"Comment\0{number}".encode()
    part = (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")
    return file[:PNG_HEADER_BYTES] + part + file[PNG_HEADER_BYTES:]
