"""Which options of a search go together."""

import math

from service.validation.search_near import check_id
from service.validation.violations import Violations
from vecgate.v1 import search_service_pb2 as pb

__all__ = ["check_search_options"]

NEAR = frozenset({"near_text", "near_image", "near_vector", "near_object", "near_inputs"})


def check_search_options(violations: Violations, request: pb.SearchObjectsRequest) -> None:
    """Note thresholds, limits, cursors and orders that are out of bounds or do not go with the query."""
    _check_thresholds(violations, request)
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
    # NaN is within no bounds.
    require(not certain or 0 <= request.certainty <= 1, "certainty", f"is {request.certainty:g}; give 0 to 1")
    require(not math.isnan(request.distance), "distance", "is not a number")
