"""What can be said of a request to ObjectService by itself."""

from service.validation.scope import check_scope
from service.validation.violations import RequestLimits, Violations, check_count
from vecgate.v1 import object_service_pb2 as object_pb

__all__ = ["check_get_object", "check_import_objects"]


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
    """Check a GetObjectRequest, but for its id.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    violations.require(request.id, "id", "is required; give the object's UUID")
    violations.raise_if_any()
