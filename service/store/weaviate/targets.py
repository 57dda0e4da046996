"""Named vectors to search as the client takes them."""

from typing import Any

from weaviate.classes.query import TargetVectors as ClientTargets

from service.searches import TargetJoin, TargetVectors

__all__ = ["hybrid_to_weaviate", "near_to_weaviate"]

JOINS = {
    None: ClientTargets.minimum,
    TargetJoin.MINIMUM: ClientTargets.minimum,
    TargetJoin.SUM: ClientTargets.sum,
    TargetJoin.AVERAGE: ClientTargets.average,
}
WEIGHTED_JOINS = {
    TargetJoin.MANUAL_WEIGHTS: ClientTargets.manual_weights,
    TargetJoin.RELATIVE_SCORE: ClientTargets.relative_score,
}


def near_to_weaviate(targets: TargetVectors) -> dict[str, Any]:
    """Return the arguments of the client's near_vector that say what to search, and with what."""
    return {"near_vector": _vectors(targets), "target_vector": _target(targets)}


def hybrid_to_weaviate(targets: TargetVectors) -> dict[str, Any]:
    """Return the arguments of the client's hybrid that say what to search, and with what."""
    return {"vector": _vectors(targets), "target_vector": _target(targets)}


def _vectors(targets: TargetVectors) -> Any:
    lists = {name: vector.tolist() for name, vector in targets.vectors.items()}
    return lists if len(lists) > 1 else next(iter(lists.values()))


def _target(targets: TargetVectors) -> Any:
    names = list(targets.vectors)
    if len(names) == 1:
        return names[0]
    if targets.join in WEIGHTED_JOINS:
        return WEIGHTED_JOINS[targets.join](dict(targets.weights))
    return JOINS[targets.join](names)
