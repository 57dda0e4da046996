import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.projecting.axes import MAX_ROUNDS, Stopped, principal_axes
from tests.conftest import assert_close


def clouds(count: int, dimension: int, seed: int = 1) -> NDArray[np.float32]:
    """Return vectors that differ less and less from one direction to the next, with a mean of zero."""
    random = np.random.default_rng(seed)
    turned = np.linalg.qr(random.standard_normal((dimension, dimension)))[0]
    vectors = random.standard_normal((count, dimension)) * 0.8 ** np.arange(dimension) @ turned
    return (vectors - vectors.mean(axis=0)).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "dimension"), [(400, 64), (30, 200), (5, 3), (3, 40), (2, 8), (50, 2), (50, 1), (2, 1)]
)
def test_it_is_what_numpys_decomposition_gives_but_for_the_sign(count: int, dimension: int) -> None:
    vectors = clouds(count, dimension)

    axes = principal_axes(vectors)

    _, lengths, directions = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    rank = min(2, dimension, count - 1)
    expected = vectors @ directions[:rank].T
    points = vectors @ axes.directions[:rank].T
    signs = np.sign((expected * points).sum(axis=0))
    assert_close(points * signs, expected, 2e-4)
    shares = np.square(lengths[:rank]) / np.square(lengths).sum()
    assert_close(axes.explained[:rank], shares, 1e-4)
    if rank < 2:
        assert_close(axes.explained[1], 0)


def test_of_equal_vectors_and_of_none_all_points_are_the_same() -> None:
    for count in (0, 1, 7):
        axes = principal_axes(np.zeros((count, 5), np.float32))
        assert (axes.explained, axes.directions.any()) == ((0.0, 0.0), False)


def test_the_same_vectors_have_the_same_axes_with_the_same_signs() -> None:
    vectors = clouds(100, 16)

    first, other = principal_axes(vectors), principal_axes(vectors[::-1].copy())

    assert_close(first.directions, other.directions, 1e-4)
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in first.directions)


def test_it_stops_when_nobody_wants_it_any_more() -> None:
    with pytest.raises(Stopped):
        principal_axes(clouds(20, 20), lambda: True)


def test_vectors_without_clear_axes_end_after_so_many_rounds() -> None:
    # As many differ in each direction: no two axes are better than others.
    asked: list[None] = []

    def stopped() -> bool:
        asked.append(None)
        return False

    axes = principal_axes(np.concatenate([np.eye(300), -np.eye(300)]).astype(np.float32), stopped)

    assert len(asked) <= MAX_ROUNDS
    assert_close(np.linalg.norm(axes.directions, axis=1), [1, 1], 1e-5)
