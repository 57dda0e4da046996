"""What Weaviate measures, for the store in memory."""

from collections.abc import Callable, Container, Sequence
from uuid import UUID

import numpy as np

from embedders.contract import Vector
from service.domain import Collection, Distance, StoredObject, TargetJoin, TargetVectors


def has_vectors(object_: StoredObject, targets: TargetVectors, lost: Container[tuple[UUID, str]]) -> bool:
    """Return whether an object has what a search measures: for the minimum one of the vectors, for other joins all."""
    enough = any if targets.join in (None, TargetJoin.MINIMUM) else all
    return enough(name in object_.vectors and (object_.id, name) not in lost for name in targets.vectors)


def join_distances(collection: Collection, targets: TargetVectors, objects: Sequence[StoredObject]) -> list[float]:
    """Return how far each object is, by all of its named vectors that are searched."""
    rows = []
    for name, vector in targets.vectors.items():
        named = collection.find_vector(name)
        assert named is not None
        assert named.distance is not None
        rows.append(
            [
                measure(named.distance, each.vectors[name], vector) if name in each.vectors else np.inf
                for each in objects
            ]
        )
    table = np.array(rows)
    weights = np.array([[targets.weights.get(name, 1.0)] for name in targets.vectors])
    match targets.join:
        case TargetJoin.SUM:
            joined = table.sum(axis=0)
        case TargetJoin.AVERAGE:
            joined = table.mean(axis=0)
        case TargetJoin.MANUAL_WEIGHTS:
            joined = (weights * table).sum(axis=0)
        case TargetJoin.RELATIVE_SCORE:
            least = table.min(axis=1, keepdims=True)
            joined = (weights * (table - least) / (table.max(axis=1, keepdims=True) - least)).sum(axis=0)
        case _:
            joined = table.min(axis=0)
    return [float(each) for each in joined]


def measure(distance: Distance, one: Vector, other: Vector) -> float:
    """Return the distance between two vectors."""
    measures: dict[Distance, Callable[[Vector, Vector], float]] = {
        Distance.COSINE: lambda a, b: 1 - float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b)),
        Distance.DOT: lambda a, b: -float(a @ b),
        Distance.MANHATTAN: lambda a, b: float(np.abs(a - b).sum()),
        Distance.HAMMING: lambda a, b: float((a != b).sum()),
        Distance.L2_SQUARED: lambda a, b: float(((a - b) ** 2).sum()),
    }
    return measures[distance](one, other)
