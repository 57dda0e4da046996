"""How the vectors of an object's fields become one: Vecgate's way, and that of Weaviate's multi2vec-nvidia."""

from collections.abc import Sequence

import numpy as np

from embedders.contract import Vector

LEAST_NORM = 1e-6
"""What is shorter has no direction."""


def shares_of_the_module(weights: Sequence[float], by_field: Sequence[float]) -> Sequence[float]:
    """Return the shares that multi2vec-nvidia gives an object's vectors, which it counts off against its weights.

    It looks at no names: where an object lacks a field, those behind it get the shares of others. More vectors than
    weights, as lists of texts make them, are an error of the module's; what it does not make goes by the fields.

    Source: modules/multi2vec-nvidia/vectorizer/vectorizer.go of Weaviate 1.39.

    Args:
        weights: those of all fields in the module's order; empty where it has none.
        by_field: for each vector the weight of its own field; texts before images, each by the alphabet.

    Returns:
        One share for each vector, as float32 of a sum of 1 over all fields; empty where the module has no weights.
    """
    if not weights:
        return ()
    counted = np.asarray(weights if len(by_field) <= len(weights) else by_field, np.float32)
    total = np.float32(0)
    for weight in counted:
        total += weight
    return list(counted[: len(by_field)] * (np.float32(1) / total)) if total else [0.0] * len(by_field)


def join_as_the_module(vectors: Sequence[Vector], shares: Sequence[float]) -> Vector | None:
    """Return what multi2vec-nvidia makes of an object's vectors, to the bit: their weighted sum by their number.

    It is not scaled.

    Source: usecases/vectorizer/combine.go of Weaviate 1.39.

    Args:
        vectors: float32, shape (dimension,) each; texts before images, each by the alphabet; at least one.
        shares: see shares_of_the_module; empty for none.

    Returns:
        float32, shape (dimension,), or None if the vectors cancel each other out.
    """
    sums = np.zeros_like(vectors[0])
    if not shares:
        for vector in vectors:
            sums += vector
    for vector, share in zip(vectors, shares, strict=False):
        sums += vector * np.float32(share)
    joined: Vector = sums / np.float32(len(vectors))
    return joined if float(np.linalg.norm(joined)) > LEAST_NORM else None


def join(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector | None:
    """Return the weighted mean of unit vectors, scaled to unit length.

    multi2vec-nvidia does not scale it (see join_as_the_module); the direction is the same.

    Args:
        vectors: float32, shape (dimension,) each, unit length; at least one.
        weights: one positive share for each.

    Returns:
        float32, shape (dimension,), or None if the vectors cancel each other out.
    """
    if len(vectors) == 1:
        return vectors[0]
    shares = np.asarray(weights, np.float64) / sum(weights)
    mean = shares @ np.asarray(vectors, np.float64)
    norm = float(np.linalg.norm(mean))
    return (mean / norm).astype(np.float32) if norm > LEAST_NORM else None
