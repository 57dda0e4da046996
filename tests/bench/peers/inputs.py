"""What all systems embed: the same files."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.serving import WORDS

SIZES = {"640 x 480": (640, 480), "3 megapixels": (2048, 1536)}
COUNTS = {"text": 256, "32 texts": 16, "640 x 480": 96, "3 megapixels": 12}
"""More than callers at the same time, so that no two calls in flight bring the same."""
TEXTS = {"text": 1, "32 texts": 32}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files by kind: `.txt` with a text a line, or `.jpg`."""

    files: dict[str, list[Path]]

    def of(self, what: str) -> list[Sequence[str] | bytes]:
        """Return what each file of a kind holds: texts, or an image file."""
        return [
            file.read_text(encoding="utf-8").splitlines() if file.suffix == ".txt" else file.read_bytes()
            for file in self.files[what]
        ]

    @staticmethod
    def items(what: str) -> int:
        """Return how many inputs a call of a kind brings."""
        return TEXTS.get(what, 1)


def write_inputs(folder: Path, *, few: bool = False) -> Inputs:
    """Write all files; with `few`, only some of each kind."""
    folder.mkdir()
    rng = random.Random(7)
    noise = np.random.default_rng(7)
    files: dict[str, list[Path]] = {what: [] for what in COUNTS}
    for what, count in COUNTS.items():
        for number in range(min(count, 16) if few else count):
            path = folder / f"{what.replace(' ', '-')}-{number}{'.txt' if what in TEXTS else '.jpg'}"
            if what in TEXTS:
                lines = [" ".join(rng.choice(WORDS) for _ in range(8)) for _ in range(TEXTS[what])]
                path.write_text("\n".join(lines), encoding="utf-8")
            else:
                small = Image.fromarray(noise.integers(0, 256, (60, 80, 3), dtype=np.uint8))
                file = io.BytesIO()
                small.resize(SIZES[what], Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
                path.write_bytes(file.getvalue())
            files[what].append(path)
    return Inputs(files)
