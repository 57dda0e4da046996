"""Large JPEGs may be decoded scaled down, with an error that nobody sees and that is bounded here."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedders.contract import InputLimits
from embedders.images.decoding import decode

LIMITS = InputLimits()
SAMPLES = sorted((Path(__file__).parents[2] / "data" / "pictures").glob("*.png"))[::120]
SIDE = 224


def photo(sample: Path, size: tuple[int, int], quality: int = 90) -> bytes:
    """Return a JPEG as large as a camera's, and as noisy, made from a sample picture."""
    rng = np.random.default_rng(int.from_bytes(sample.name.encode()[:4], "big"))
    with Image.open(sample) as drawing:
        layer = drawing.convert("RGBA")
    ground = Image.new("RGBA", layer.size, (90, 120, 60))
    ground.alpha_composite(layer)
    pixels = np.asarray(ground.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    noisy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=quality)
    return file.getvalue()


def seen(image: Image.Image) -> np.ndarray:
    """Return what a model of 224 pixels sees: the shorter side scaled by antialiased bicubic, the centre cut out."""
    scale = SIDE / min(image.size)
    width, height = (int(side * scale + 0.5) for side in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    small = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + SIDE, top + SIDE))
    return np.asarray(small, dtype=np.int16)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda each: each.stem)
@pytest.mark.parametrize(("factor", "worst"), [(4, 1), (2, 3)])
def test_a_drafted_photo_differs_by_no_more_than_documented(sample: Path, factor: int, worst: int) -> None:
    content = photo(sample, (2688, 2016))

    drafted = decode(content, LIMITS, draft_side=factor * SIDE)

    assert min(drafted.size) == (1008 if factor == 4 else 504)
    difference = np.abs(seen(drafted) - seen(decode(content, LIMITS)))
    assert difference.max() <= worst
    assert difference.mean() < 0.5


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((800, 600), 600, (800, 600)),
        ((800, 600), 301, (800, 600)),
        ((800, 600), 300, (400, 300)),
        ((800, 600), 150, (200, 150)),
        ((600, 800), 75, (75, 100)),
        ((800, 600), 1, (100, 75)),
        ((801, 601), 150, (201, 151)),
        ((3000, 40), 10, (750, 10)),
    ],
)
def test_the_shorter_side_keeps_what_is_asked_for(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "JPEG")

    assert decode(file.getvalue(), LIMITS, draft_side=side).size == expected


def test_below_the_size_not_a_bit_changes() -> None:
    content = photo(SAMPLES[0], (1791, 900))
    whole = np.asarray(decode(content, LIMITS))

    for side in (4 * SIDE, 0, None):
        np.testing.assert_array_equal(np.asarray(decode(content, LIMITS, draft_side=side)), whole)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_other_formats_are_decoded_at_their_own_size(file_format: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (800, 600), "red").save(file, file_format)

    assert decode(file.getvalue(), LIMITS, draft_side=10).size == (800, 600)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_photos_keep_their_colours(mode: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (800, 800), (200, 40, 40)).convert(mode).save(file, "JPEG", quality=95)

    drafted, whole = (decode(file.getvalue(), LIMITS, draft_side=side).getpixel((20, 20)) for side in (100, None))

    assert drafted == whole


def test_a_drafted_photo_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (800, 600), "red").save(file, "JPEG", exif=exif)

    assert decode(file.getvalue(), LIMITS, draft_side=150).size == (150, 200)
