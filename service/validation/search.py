"""What can be said of a request to SearchService by itself."""

from service.validation.filter import check_filter_form
from service.validation.violations import RequestLimits, Violations, check_count
from vecgate.v1 import search_service_pb2 as search_pb

__all__ = ["check_search_objects"]


def check_search_objects(request: search_pb.SearchObjectsRequest, limits: RequestLimits) -> None:
    """Check a SearchObjectsRequest, but for names, which need the collection, and inputs, which need the embedder.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    violations.require(request.collection, "collection", "is required; name a collection")
    violations.require(request.limit >= 0, "limit", f"is {request.limit}; give 0 (for 10) to {limits.max_hits}")
    violations.require(request.offset >= 0, "offset", f"is {request.offset}; give 0 or more")
    reach = request.limit + request.offset
    violations.require(
        reach <= limits.max_hits,
        "limit",
        f"with offset is {reach}, this server returns the first {limits.max_hits} hits",
    )
    if request.HasField("filters"):
        check_filter_form(violations, request.filters, "filters", limits)
    targets = len(request.target_vectors)
    violations.require(targets <= 1, "target_vectors", f"has {targets} names; a search uses one named vector")
    match request.WhichOneof("query"):
        case "near_text":
            count = len(request.near_text.concepts)
            check_count(violations, count, limits.max_inputs, "near_text.concepts", "texts")
        case "near_image":
            violations.require(request.near_image.HasField("image"), "near_image.image", "is required")
        case "near_vector":
            violations.require(request.near_vector.HasField("vector"), "near_vector.vector", "is required")
    violations.raise_if_any()
