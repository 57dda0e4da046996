"""What can be said of the vector side of a search by itself."""

import math

from service.validation.violations import RequestLimits, Violations, check_count, check_id
from vecgate.v1 import search_service_pb2 as search_pb

__all__ = ["check_near"]


def check_near(
    violations: Violations,
    message: search_pb.SearchObjectsRequest | search_pb.Hybrid,
    field: str | None,
    prefix: str,
    limits: RequestLimits,
) -> None:
    """Note what is wrong with the vector side in the field of that name; its path begins with `prefix`."""
    path = f"{prefix}{field}"
    match field:
        case "near_text":
            _check_near_text(violations, message.near_text, path, limits)
        case "near_image":
            violations.require(message.near_image.HasField("image"), f"{path}.image", "is required")
        case "near_vector":
            given = message.near_vector.HasField("vector") or message.near_vector.target_vectors
            violations.require(given, f"{path}.vector", "is required")
        case "near_object" if isinstance(message, search_pb.SearchObjectsRequest):
            check_id(violations, message.near_object.id, f"{path}.id")
        case "near_inputs":
            check_count(violations, len(message.near_inputs.inputs), limits.max_inputs, f"{path}.inputs", "inputs")
            for index, each in enumerate(message.near_inputs.inputs[: limits.max_inputs]):
                _check_input(violations, each, f"{path}.inputs[{index}]")


def _check_near_text(violations: Violations, text: search_pb.NearText, path: str, limits: RequestLimits) -> None:
    check_count(violations, len(text.concepts), limits.max_inputs, f"{path}.concepts", "texts")
    if text.HasField("move_to"):
        _check_move(violations, text.move_to, 1, f"{path}.move_to", limits)
    if text.HasField("move_away"):
        _check_move(violations, text.move_away, math.inf, f"{path}.move_away", limits)


def _check_move(
    violations: Violations, move: search_pb.Move, most_force: float, path: str, limits: RequestLimits
) -> None:
    bounds = "0 to 1" if most_force == 1 else "a finite number of 0 or more"
    fits = math.isfinite(move.force) and 0 <= move.force <= most_force
    violations.require(fits, f"{path}.force", f"is {move.force:g}; give {bounds}")
    violations.require(move.concepts or move.objects, path, "has nothing to go by; give concepts or objects")
    for name, items in (("concepts", move.concepts), ("objects", move.objects)):
        if items:
            check_count(violations, len(items), limits.max_inputs, f"{path}.{name}", name)
    for index, text in enumerate(move.objects[: limits.max_inputs]):
        check_id(violations, text, f"{path}.objects[{index}]")


def _check_input(violations: Violations, each: search_pb.WeightedInput, path: str) -> None:
    match each.WhichOneof("content"):
        case None:
            violations.add(path, "is empty; set text, image, near_vector or near_object")
        case "near_vector":
            violations.require(each.near_vector.HasField("vector"), f"{path}.near_vector.vector", "is required")
        case "near_object":
            check_id(violations, each.near_object.id, f"{path}.near_object.id")
    fits = not each.HasField("weight") or 0 < each.weight < math.inf
    violations.require(fits, f"{path}.weight", f"is {each.weight:g}; give a finite number of more than 0")
