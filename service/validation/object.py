"""What can be said of a request to ObjectService by itself."""

from service.validation.filter import check_filter_form
from service.validation.scope import check_scope
from service.validation.violations import RequestLimits, Violations, check_count
from vecgate.v1 import object_service_pb2 as object_pb

__all__ = [
    "check_backfill_vectors",
    "check_delete_objects",
    "check_import_objects",
    "check_list_objects",
    "check_object_request",
    "check_update_object",
]


def check_import_objects(request: object_pb.ImportObjectsRequest, limits: RequestLimits) -> None:
    """Check an ImportObjectsRequest, but for its objects, which fail alone.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    check_count(violations, len(request.objects), limits.max_objects, "objects", "objects")
    violations.raise_if_any()


def check_object_request(request: object_pb.GetObjectRequest | object_pb.DeleteObjectRequest) -> None:
    """Check a request about one object, but for its id.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    violations.require(request.id, "id", "is required; give the object's UUID")
    violations.raise_if_any()


def check_list_objects(request: object_pb.ListObjectsRequest, limits: RequestLimits) -> None:
    """Check a ListObjectsRequest, but for its token.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    fits = 0 <= request.page_size <= limits.max_hits
    violations.require(fits, "page_size", f"is {request.page_size}; give 0 (for 100) to {limits.max_hits}")
    violations.raise_if_any()


def check_delete_objects(request: object_pb.DeleteObjectsRequest, limits: RequestLimits) -> None:
    """Check a DeleteObjectsRequest, but for what its filter says of the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    if request.HasField("filters"):
        check_filter_form(violations, request.filters, "filters", limits)
    else:
        violations.add("filters", "is required; say which objects to delete, or delete the collection")
    violations.raise_if_any()


def check_update_object(request: object_pb.UpdateObjectRequest) -> None:
    """Check an UpdateObjectRequest, but for what changes, which needs the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    violations.require(request.object.id, "object.id", "is required; give the object's UUID")
    violations.raise_if_any()


def check_backfill_vectors(request: object_pb.BackfillVectorsRequest) -> None:
    """Check a BackfillVectorsRequest, but for its token and the names, which need the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    violations.raise_if_any()
