"""Pictures are scaled to a model's size exactly as open_clip does it, which needs torch."""

import io
import random
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedders.contract import InputLimits
from embedders.errors import ImageUndecodable
from embedders.images.decoding import decode, without_far_ends
from embedders.images.scaling import Scaling, scaled

transform = pytest.importorskip("open_clip.transform")

LIMITS = InputLimits()
MODES = ["shortest", "longest", "squash"]
TARGETS: list[Any] = [224, (37, 37), (32, 48), (49, 32), (1, 5)]
SIZES = [
    (224, 224),  # equal
    (223, 224),
    (225, 224),
    (448, 224),
    (1, 1),
    (5, 3),
    (100, 100),  # smaller
    (640, 480),
    (479, 641),  # odd
    (1001, 333),
    (300, 19),  # narrow
    (17, 290),
    (2000, 3),  # hugely narrow
    (2, 1500),
    (1, 900),
]
_RANDOM = random.Random(19)
SIZES += [(_RANDOM.randint(1, 500), _RANDOM.randint(1, 500)) for _ in range(12)]


@cache
def noise(size: tuple[int, int]) -> bytes:
    """Return a PNG, in which each pixel differs from its neighbours."""
    rng = np.random.default_rng(size[0] * 10_000 + size[1])
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def by_open_clip(content: bytes, preprocessing: dict[str, Any]) -> np.ndarray | None:
    """Return what open_clip's transform gives before it becomes a tensor; None if it fails."""
    image = decode(content, LIMITS)
    if preprocessing["resize_mode"] == "shortest":
        image = without_far_ends(image)
    steps = transform.image_transform_v2(transform.PreprocessCfg(**preprocessing), is_train=False).transforms
    assert [type(each).__name__ for each in steps[-2:]] == ["MaybeToTensor", "Normalize"]
    try:
        for step in steps[:-2]:
            image = step(image)
    except ValueError:
        return None
    return np.asarray(image)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_not_a_bit_differs_from_open_clip(target: Any, mode: str, interpolation: str) -> None:
    preprocessing = asdict(
        transform.PreprocessCfg(size=target, resize_mode=mode, interpolation=interpolation, fill_color=127)
    )
    scaling = Scaling.of(preprocessing)
    for size in SIZES:
        content = noise(size)

        expected = by_open_clip(content, preprocessing)

        if expected is None:
            with pytest.raises(ImageUndecodable, match="too narrow"):
                scaled(content, LIMITS, scaling)
            continue
        pixels = scaled(content, LIMITS, scaling)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (*scaling.size, 3)
        np.testing.assert_array_equal(pixels, expected, err_msg=str(size))


def test_what_open_clip_calls_random_is_bicubic_when_nothing_is_trained() -> None:
    preprocessing = asdict(transform.PreprocessCfg(size=30, interpolation="random", resize_mode="squash"))

    pixels = scaled(noise((50, 70)), LIMITS, Scaling.of(preprocessing))

    np.testing.assert_array_equal(pixels, by_open_clip(noise((50, 70)), preprocessing))


def test_a_large_photo_is_decoded_at_a_part_of_its_size() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4000, 3000), (200, 40, 40)).save(file, "JPEG")
    preprocessing = asdict(transform.PreprocessCfg(size=(100, 120)))

    scaling = Scaling.of(preprocessing, draft_factor=4)

    assert scaling.draft_side == 480
    np.testing.assert_array_equal(scaled(file.getvalue(), LIMITS, scaling)[50, 60], (200, 40, 40))
