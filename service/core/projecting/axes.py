"""Principal component analysis: the two axes along which vectors differ most.

numpy's own decomposition of 5,000 vectors of 1,024 values takes many seconds and cannot be stopped. Only two axes are
wanted, so a few random directions are multiplied by the vectors until they lie along the first axes (subspace
iteration): each round is two products of matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedders.contract import Vector

AXES = 2
DIRECTIONS = 16
"""Directions that are followed: more than the two wanted ones, so that close axes are told apart in fewer rounds."""

MAX_ROUNDS = 200
"""Rounds after which vectors have no clear axes: they differ as much along many others."""

STEADY = 1e-10
"""Axes are found when another round changes the square of a sine between old and new ones by less than this."""


class Stopped(Exception):
    """The caller does not want the result any more."""


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """The two axes along which vectors differ most.

    Attributes:
        directions: float32, shape (2, dimension), of unit length and at right angles; zeros where there is no axis.
        explained: the share of the variance along each, 0 to 1.
    """

    directions: Vector
    explained: tuple[float, float]


def principal_axes(centred: Vector, stopped: Callable[[], bool] = lambda: False) -> Axes:
    """Return the first two principal axes of vectors.

    Args:
        centred: float32, shape (vectors, dimension), with a mean of zero.
        stopped: whether the result is not wanted any more; asked once a round.

    Raises:
        Stopped: it is not.
    """
    count, dimension = centred.shape
    total = float(np.einsum("ij,ij->", centred, centred, dtype=np.float64, casting="safe"))
    followed = min(DIRECTIONS, count, dimension)
    directions, along = np.zeros((AXES, dimension), np.float32), np.zeros(AXES)
    if not total or not followed:
        return Axes(directions, (0.0, 0.0))
    # The seed is fixed, so that a map looks the same the next time.
    basis = _orthogonal(np.random.default_rng(0).standard_normal((dimension, followed)))
    found = basis[:, :AXES]
    for _ in range(MAX_ROUNDS):
        if stopped():
            raise Stopped
        images = centred @ basis.astype(np.float32)
        basis = _orthogonal((centred.T @ images).astype(np.float64))
        images = (centred @ basis.astype(np.float32)).astype(np.float64)
        # Within the followed directions, the exact axes.
        squares, turns = np.linalg.eigh(images.T @ images)
        basis = basis @ turns[:, ::-1]
        along, before, found = squares[::-1][:AXES], found, basis[:, :AXES]
        if found.shape[1] - np.square(before.T @ found).sum() < STEADY:
            break
    axes = found * np.where(_largest(found) < 0, -1, 1)
    directions[: axes.shape[1]] = axes.T
    shares = [*np.clip(along / total, 0, 1).tolist(), 0.0][:AXES]
    return Axes(directions, (shares[0], shares[1]))


def _orthogonal(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.qr(columns)[0]


def _largest(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return of each column the value that is farthest from zero: an axis has no sign of its own, and so gets one."""
    largest: NDArray[np.float64] = np.take_along_axis(columns, np.abs(columns).argmax(axis=0)[None], axis=0)[0]
    return largest
