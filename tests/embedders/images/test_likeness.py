"""The threshold of near-duplicates: how pictures are changed to measure it, and where it lies."""

import io

import numpy as np
import pytest
from PIL import Image

from embedders.contract import InputLimits
from embedders.errors import InputRejected
from embedders.images.likeness import copies, find_threshold, with_copies
from tests.fakes.embedder import picture

RANDOM = np.random.default_rng(3)


def vectors(count: int, dimension: int = 64) -> np.ndarray:
    return RANDOM.standard_normal((count, dimension)).astype(np.float32)


def near(rows: np.ndarray, noise: float) -> np.ndarray:
    """Return three copies of each row."""
    return rows[:, None] + noise * RANDOM.standard_normal((len(rows), 3, rows.shape[1])).astype(np.float32)


def test_a_picture_is_changed_in_three_ways_into_jpegs_of_the_expected_sizes() -> None:
    changed = [Image.open(io.BytesIO(each)) for each in copies(picture(size=(800, 400)), InputLimits())]

    assert [each.format for each in changed] == ["JPEG"] * 3
    assert [each.size for each in changed] == [(800, 400), (448, 224), (752, 376)]


def test_the_smallest_picture_can_be_changed() -> None:
    sizes = [Image.open(io.BytesIO(each)).size for each in copies(picture(size=(1, 1)), InputLimits())]

    assert sizes == [(1, 1)] * 3


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(InputRejected):
        copies(b"no picture", InputLimits())


def test_each_picture_that_can_be_read_comes_before_its_copies() -> None:
    red, blue = picture((255, 0, 0)), picture((0, 0, 255))

    found = list(with_copies([red, b"no picture", blue], InputLimits()))

    assert [(each[0], len(each)) for each in found] == [(red, 4), (blue, 4)]


def test_the_threshold_finds_copies_and_lies_above_different_pictures() -> None:
    rows = vectors(40)

    found = find_threshold(rows, near(rows, 0.1))

    assert found.found >= 0.89
    assert (found.confused, found.pictures) == (0, 40)
    assert 0.9 < found.min_cosine < 1


def test_duplicates_among_the_pictures_do_not_raise_the_threshold() -> None:
    rows = vectors(40)
    clean = find_threshold(rows, near(rows, 0.1)).min_cosine
    doubled = np.concatenate([rows, rows[:10]])

    assert find_threshold(doubled, near(doubled, 0.1)).min_cosine == pytest.approx(clean, abs=0.005)


def test_where_a_model_cannot_tell_copies_the_threshold_spares_different_pictures() -> None:
    rows = vectors(100, dimension=8)

    found = find_threshold(rows, near(rows, 1.0))

    assert found.confused <= 0.02
    assert found.found < 0.9


def test_one_picture_is_too_few() -> None:
    rows = vectors(1)

    with pytest.raises(ValueError, match="two pictures"):
        find_threshold(rows, near(rows, 0.1))
