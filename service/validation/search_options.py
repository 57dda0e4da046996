"""Which options of a search go together."""

import math

from embedders.texts import is_blank
from service.validation.violations import Violations, check_id
from vecgate.v1 import search_service_pb2 as pb

__all__ = ["check_search_options"]

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
