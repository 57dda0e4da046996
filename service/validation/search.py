"""What can be said of a request to SearchService by itself."""

import math

from embedders.texts import is_blank
from service.validation.filter import check_filter_form
from service.validation.scope import check_scope
from service.validation.search_near import check_near
from service.validation.search_options import check_search_options
from service.validation.search_targets import check_targets
from service.validation.violations import RequestLimits, Violations
from vecgate.v1 import search_service_pb2 as search_pb

__all__ = ["check_search_objects", "limit_of"]

DEFAULT_LIMIT = 10


def limit_of(request: search_pb.SearchObjectsRequest, limits: RequestLimits) -> int:
    """Return how many hits a request asks for."""
    return request.limit or min(DEFAULT_LIMIT, limits.max_hits)


def check_search_objects(request: search_pb.SearchObjectsRequest, limits: RequestLimits) -> None:
    """Check a SearchObjectsRequest, but for names, which need the collection, and inputs, which need the embedder.

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
    if request.HasField("filters"):
        check_filter_form(violations, request.filters, "filters", limits)
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
