"""A summary of a collection's vectors, small enough for a report, by which two states of them are compared."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embedders.contract import Vector

DIRECTIONS = 32
"""Directions that vectors are projected on."""

MAX_SUMMARY_OBJECTS = 500
"""Objects whose projections a summary has: 500 x 140 bytes are 70 kB."""


@dataclass(frozen=True, slots=True, eq=False)
class VectorSummary:
    """What is kept of the vectors of a named vector: their centre, and projections of a sample.

    All vectors are scaled to unit length first. They are projected on random directions of equal signs (Achlioptas,
    "Database-friendly random projections", 2003), which nearly keeps the distances between them. The directions are
    always the same. The sample has the objects with the smallest digests of their ids, so that an object which is in
    the sample today was most likely in that of yesterday (a bottom-k sample: Cohen and Kaplan, "Summarizing data using
    bottom-k sketches", 2007).

    Attributes:
        centre: the mean of all vectors, float32, shape (dimension,).
        digests: of the ids of the sample, ascending, uint64, shape (sample,).
        lengths: of the sample's vectors as they are stored, float32, shape (sample,).
        projections: of the sample's vectors, float32, shape (sample, DIRECTIONS).
    """

    centre: Vector
    digests: NDArray[np.uint64]
    lengths: Vector
    projections: Vector


@dataclass(slots=True)
class Summarizer:
    """Makes a summary of vectors that come page by page."""

    _count: int = 0
    _total: NDArray[np.float64] | None = None
    _digests: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    _lengths: Vector = field(default_factory=lambda: np.zeros(0, np.float32))
    _projections: Vector = field(default_factory=lambda: np.zeros((0, DIRECTIONS), np.float32))

    def add(self, ids: Sequence[UUID], vectors: Vector, lengths: Vector) -> None:
        """Look at more objects.

        Args:
            ids: theirs.
            vectors: float32, shape (objects, dimension); all of them have a direction.
            lengths: theirs, float32, shape (objects,).
        """
        scaled = vectors / lengths[:, None]
        total = scaled.sum(axis=0, dtype=np.float64)
        self._total = total if self._total is None else self._total + total
        self._count += len(ids)
        digests = np.array([_digest(each) for each in ids], np.uint64)
        full = len(self._digests) == MAX_SUMMARY_OBJECTS
        new = np.flatnonzero(digests < self._digests[-1]) if full else np.arange(len(ids))
        if not len(new):
            return
        digests = np.concatenate([self._digests, digests[new]])
        kept = np.argsort(digests)[:MAX_SUMMARY_OBJECTS]
        self._digests = digests[kept]
        self._lengths = np.concatenate([self._lengths, lengths[new]]).astype(np.float32)[kept]
        projected = scaled[new] @ _directions(vectors.shape[1])
        self._projections = np.concatenate([self._projections, projected]).astype(np.float32)[kept]

    def summary(self) -> VectorSummary | None:
        """Return the summary; None if there were no vectors."""
        if self._total is None or not self._count:
            return None
        centre = (self._total / self._count).astype(np.float32)
        return VectorSummary(centre, self._digests, self._lengths, self._projections)


def _digest(id_: UUID) -> int:
    return int.from_bytes(hashlib.blake2b(id_.bytes, digest_size=8).digest(), "little")


@lru_cache(maxsize=8)
def _directions(dimension: int) -> Vector:
    """Return the directions, float32, shape (dimension, DIRECTIONS): the same in every release and on every machine."""
    bits = hashlib.shake_128(b"vecgate summary").digest(dimension * DIRECTIONS // 8)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8)).astype(np.float32) * 2 - 1
    directions: Vector = (signs / np.sqrt(DIRECTIONS)).reshape(dimension, DIRECTIONS).astype(np.float32)
    return directions
