"""What can be said of a search by itself."""

import math

from embedders.texts import is_blank
from service.domain import Filter
from service.rpc.shared.filters import parse_filter
from service.rpc.shared.scope import check_scope
from service.rpc.shared.violations import RequestLimits, Violations, check_count, check_id
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb

DEFAULT_LIMIT = 10


def limit_of(request: search_pb.SearchObjectsRequest, limits: RequestLimits) -> int:
    """Return how many hits a request asks for."""
    return request.limit or min(DEFAULT_LIMIT, limits.max_hits)


def check_search_objects(request: search_pb.SearchObjectsRequest, limits: RequestLimits) -> Filter | None:
    """Check a SearchObjectsRequest, but for names, which need the collection, and inputs, which need the embedder.

    Returns:
        Its filter.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    bounds = f"0 (for {DEFAULT_LIMIT}) to {limits.max_hits}"
    violations.require(request.limit >= 0, "limit", f"is {request.limit}; give {bounds}")
    violations.require(request.offset >= 0, "offset", f"is {request.offset}; give 0 or more")
    reach = limit_of(request, limits) + request.offset
    violations.require(
        reach <= limits.max_hits,
        "limit",
        f"with offset is {reach}, this server returns the first {limits.max_hits} hits",
    )
    filters = None
    if request.HasField("filters"):
        filters = parse_filter(request.filters, "filters", limits, violations)
    check_search_options(violations, request, limits.max_hits)
    check_targets(violations, request)
    match request.WhichOneof("query"):
        case "bm25":
            _check_bm25(violations, request.bm25, "bm25")
        case "hybrid":
            _check_hybrid(violations, request.hybrid, limits)
        case field:
            check_near(violations, request, field, "", limits)
    violations.raise_if_any()
    return filters


def _check_bm25(violations: Violations, bm25: search_pb.Bm25, path: str) -> None:
    require = violations.require
    require(not is_blank(bm25.query), f"{path}.query", "is blank; give the words to look for")
    known = bm25.operator in search_pb.KeywordOperator.values()
    require(known, f"{path}.operator", f"{bm25.operator} is no KeywordOperator of this version")
    require(bm25.minimum_match >= 0, f"{path}.minimum_match", f"is {bm25.minimum_match}; give 0 or more")
    counted = not bm25.minimum_match or bm25.operator == search_pb.KEYWORD_OPERATOR_OR
    require(counted, f"{path}.minimum_match", "goes with KEYWORD_OPERATOR_OR only; set it or leave this out")


def _check_hybrid(violations: Violations, hybrid: search_pb.Hybrid, limits: RequestLimits) -> None:
    side = hybrid.WhichOneof("vector_side")
    if hybrid.HasField("bm25"):
        _check_bm25(violations, hybrid.bm25, "hybrid.bm25")
    else:
        violations.require(
            side, "hybrid", "is empty; set bm25, or one of near_text, near_image, near_vector and near_inputs"
        )
        vector_only = not hybrid.HasField("alpha") or hybrid.alpha == 1
        violations.require(vector_only, "hybrid.alpha", "is 1 where there is no bm25; set bm25 or leave this out")
    check_near(violations, hybrid, side, "hybrid.", limits)
    # NaN is within no bounds.
    share_fits = not hybrid.HasField("alpha") or 0 <= hybrid.alpha <= 1
    violations.require(share_fits, "hybrid.alpha", f"is {hybrid.alpha:g}; give 0 (words only) to 1 (vector only)")
    known = hybrid.fusion_type in search_pb.FusionType.values()
    violations.require(known, "hybrid.fusion_type", f"{hybrid.fusion_type} is no FusionType of this version")
    distance_fits = not math.isnan(hybrid.max_vector_distance)
    violations.require(distance_fits, "hybrid.max_vector_distance", "is not a number")


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


NEAR = frozenset({"near_text", "near_image", "near_vector", "near_object", "near_inputs"})


def check_search_options(violations: Violations, request: pb.SearchObjectsRequest, max_hits: int) -> None:
    """Note thresholds, limits, cursors, orders and groups that are out of bounds or do not go with the query."""
    _check_thresholds(violations, request)
    _check_shape(violations, request, max_hits)
    query = request.WhichOneof("query")
    require = violations.require
    require(request.auto_limit >= 0, "auto_limit", f"is {request.auto_limit}; give 0 (for none) or more")
    require(query or not request.auto_limit, "auto_limit", "goes with a query only; use limit")
    if request.after:
        check_id(violations, request.after, "after")
    require(not query or not request.after, "after", "goes with listings only; use offset")
    for field, given in (
        ("offset", request.offset),
        ("filters", request.HasField("filters")),
        ("sort", len(request.sort)),
    ):
        require(not (request.after and given), "after", f"cannot be combined with {field}; leave one of them out")
    require(not query or not request.sort, "sort", "goes with listings only; hits come best first")
    for index, each in enumerate(request.sort):
        require(each.property, f"sort[{index}].property", "is required; name a property")


def _check_thresholds(violations: Violations, request: pb.SearchObjectsRequest) -> None:
    near = request.WhichOneof("query") in NEAR
    require = violations.require
    certain, distant = request.HasField("certainty"), request.HasField("distance")
    require(not (certain and distant), "certainty", "cannot be combined with distance; give one of them")
    require(near or not certain, "certainty", "goes with near_* queries only")
    require(near or not distant, "distance", "goes with near_* queries only")
    alone = len(request.target_vectors) < 2  # noqa: PLR2004 -- two make several
    require(alone or not certain, "certainty", "goes with one target vector only; give distance")
    # NaN is within no bounds.
    require(not certain or 0 <= request.certainty <= 1, "certainty", f"is {request.certainty:g}; give 0 to 1")
    require(not math.isnan(request.distance), "distance", "is not a number")


def _check_shape(violations: Violations, request: pb.SearchObjectsRequest, max_hits: int) -> None:
    query = request.WhichOneof("query")
    require = violations.require
    explained = query in ("bm25", "hybrid") or not request.return_explain_score
    require(explained, "return_explain_score", "goes with bm25 and hybrid only; leave it out")
    if request.HasField("group_by"):
        group = request.group_by
        require(query, "group_by", "goes with a query only; leave it out")
        require(group.property, "group_by.property", "is required; name a property")
        for name, count in (
            ("number_of_groups", group.number_of_groups),
            ("objects_per_group", group.objects_per_group),
        ):
            require(count > 0, f"group_by.{name}", f"is {count}; give 1 or more")
        hits = group.number_of_groups * group.objects_per_group
        require(hits <= max_hits, "group_by", f"asks for {hits} hits, this server returns {max_hits}")
        for name in ("return_times", "return_explain_score"):
            require(not getattr(request, name), name, "does not go with group_by; leave one of them out")
    if request.HasField("rerank"):
        require(query, "rerank", "goes with a query only; use sort")
        require(request.rerank.property, "rerank.property", "is required; name a property")
        require(
            not is_blank(request.rerank.query), "rerank.query", "is blank; say what the reranker shall compare with"
        )


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
