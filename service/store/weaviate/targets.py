"""Named vectors to search as the client takes them."""

from typing import Any

from weaviate.classes.query import TargetVectors as ClientTargets

from service.domain import TargetJoin, TargetVectors
from service.errors import InvalidRequest, Violation
from service.store.weaviate.vector_schema import NAMELESS

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


def near_to_weaviate(targets: TargetVectors, *, nameless: bool = False) -> dict[str, Any]:
    """Return the arguments of the client's near_vector that say what to search, and with what.

    Args:
        targets: what to search.
        nameless: whether one of them is the vector without a name.

    Raises:
        InvalidRequest: it is, and it is not the only one.
    """
    return {"near_vector": _vectors(targets), "target_vector": _target(targets, nameless=nameless)}


def hybrid_to_weaviate(targets: TargetVectors, *, nameless: bool = False) -> dict[str, Any]:
    """Return the arguments of the client's hybrid that say what to search, and with what; see near_to_weaviate."""
    if not targets.vectors:
        return {}
    target = {"target_vector": _target(targets, nameless=nameless)}
    return target if targets.words_only else target | {"vector": _vectors(targets)}


def _vectors(targets: TargetVectors) -> Any:
    lists = {name: vector.tolist() for name, vector in targets.vectors.items()}
    return lists if len(lists) > 1 else next(iter(lists.values()))


def _target(targets: TargetVectors, *, nameless: bool) -> Any:
    names = list(targets.vectors)
    if nameless and len(names) > 1:
        message = f"Weaviate searches the vector {NAMELESS!r}, which has no name there, by itself alone; name no other"
        raise InvalidRequest([Violation("target_vectors", message)])
    if len(names) == 1:
        return None if nameless else names[0]
    if targets.join in WEIGHTED_JOINS:
        return WEIGHTED_JOINS[targets.join](dict(targets.weights))
    return JOINS[targets.join](names)
