"""What can be said by itself of the named vectors that a search names."""

import math

from service.validation.violations import Violations
from vecgate.v1 import search_service_pb2 as pb

__all__ = ["check_targets"]

WEIGHTED = (pb.TARGET_JOIN_MANUAL_WEIGHTS, pb.TARGET_JOIN_RELATIVE_SCORE)
WITHOUT_VECTORS = (None, "bm25")


def check_targets(violations: Violations, request: pb.SearchObjectsRequest) -> None:
    """Note target vectors that a search cannot have, and joins, weights and vectors that do not go with them."""
    require = violations.require
    names = list(request.target_vectors)
    searched = request.WhichOneof("query") not in WITHOUT_VECTORS
    require(searched or not names, "target_vectors", "goes with near_* and hybrid only; leave it out")
    seen: set[str] = set()
    for index, name in enumerate(names):
        path = f"target_vectors[{index}]"
        require(name, path, "is empty; name a vector")
        require(name not in seen, path, f"{name!r} stands here twice; name each vector once")
        seen.add(name)
    join, weights = request.target_join, request.target_weights
    require(join in pb.TargetJoin.values(), "target_join", f"{join} is no TargetJoin of this version")
    require(not join or len(names) > 1, "target_join", "goes with several target vectors only; leave it out")
    if join in WEIGHTED:
        require(
            len(weights) == len(names), "target_weights", f"has {len(weights)} weights; give one for each target vector"
        )
    else:
        require(not weights, "target_weights", "goes with joins by weights only; leave it out")
    for index, weight in enumerate(weights):
        require(math.isfinite(weight), f"target_weights[{index}]", f"is {weight:g}; give a finite number")
    _check_vectors_by_target(violations, request, names)


def _check_vectors_by_target(violations: Violations, request: pb.SearchObjectsRequest, names: list[str]) -> None:
    for near, path in (
        (request.near_vector, "near_vector"),
        (request.hybrid.near_vector, "hybrid.near_vector"),
    ):
        if near.target_vectors:
            alone = not near.HasField("vector") and not near.space
            violations.require(alone, f"{path}.vector", "goes without target_vectors only; leave it and space out")
            same = set(near.target_vectors) == set(names)
            message = (
                f"has vectors for {sorted(near.target_vectors)}; give one for each of the request's target_vectors"
            )
            violations.require(same, f"{path}.target_vectors", message)
    for index, each in enumerate([*request.near_inputs.inputs, *request.hybrid.near_inputs.inputs]):
        side = "near_inputs" if request.near_inputs.inputs else "hybrid.near_inputs"
        message = "goes with near_vector and hybrid.near_vector only; give vector"
        path = f"{side}.inputs[{index}].near_vector.target_vectors"
        violations.require(not each.near_vector.target_vectors, path, message)
