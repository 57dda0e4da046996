"""What can be said of a request to ObjectService by itself, and page tokens."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID

from service.domain import Filter
from service.errors import InvalidRequest, Violation, noting
from service.rpc.shared.filters import parse_filter
from service.rpc.shared.scope import check_scope
from service.rpc.shared.violations import RequestLimits, Violations, check_count, check_id
from vecgate.v1 import object_service_pb2 as object_pb


def check_import_objects(request: object_pb.ImportObjectsRequest, limits: RequestLimits) -> None:
    """Check an ImportObjectsRequest, but for its objects, which fail alone.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    check_count(violations, len(request.objects), limits.max_objects, "objects", "objects")
    violations.raise_if_any()


def check_get_object(request: object_pb.GetObjectRequest) -> None:
    """Check a GetObjectRequest, but for its id, which is checked with the names that need the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    violations.require(request.id, "id", "is required; give the object's UUID")
    violations.raise_if_any()


def check_delete_object(request: object_pb.DeleteObjectRequest) -> None:
    """Check a DeleteObjectRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    check_id(violations, request.id, "id")
    violations.raise_if_any()


def check_list_objects(request: object_pb.ListObjectsRequest, limits: RequestLimits) -> None:
    """Check a ListObjectsRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    fits = 0 <= request.page_size <= limits.max_hits
    violations.require(fits, "page_size", f"is {request.page_size}; give 0 (for 100) to {limits.max_hits}")
    with noting(violations.found):
        decode_page_token(request.page_token)
    violations.raise_if_any()


def parse_delete_objects(request: object_pb.DeleteObjectsRequest, limits: RequestLimits) -> Filter:
    """Return which objects a DeleteObjectsRequest is about, not checked against the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    filters = None
    if request.HasField("filters"):
        filters = parse_filter(request.filters, "filters", limits, violations)
    else:
        violations.add("filters", "is required; say which objects to delete, or delete the collection")
    violations.raise_if_any()
    assert filters is not None, "a filter without violations is whole"
    return filters


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
    """Check a BackfillVectorsRequest, but for the names, which need the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    with noting(violations.found):
        decode_page_token(request.page_token)
    violations.raise_if_any()


def encode_page_token(last: UUID) -> str:
    """Return the token of the page after one that ends with an object."""
    return urlsafe_b64encode(last.bytes).decode("ascii").rstrip("=")


def decode_page_token(token: str) -> UUID | None:
    """Return the id that a page comes after; None for the first page.

    Raises:
        InvalidRequest: the token is none of this server's.
    """
    try:
        return UUID(bytes=urlsafe_b64decode(f"{token}==")) if token else None
    except ValueError:
        message = "is no next_page_token of this server; leave it empty for the first page"
        raise InvalidRequest([Violation("page_token", message)]) from None
