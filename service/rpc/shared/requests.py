"""What several requests share: the scope, the output fields, ids and counts."""

import re
from uuid import UUID

from service.core.objects.checks import parse_id
from service.domain import Consistency, ReturnNames, Scope
from service.errors import Violations, noting
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import output_fields_pb2
from vecgate.v1 import scope_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb

ScopedRequest = (
    object_pb.ImportObjectsRequest
    | object_pb.GetObjectRequest
    | object_pb.ListObjectsRequest
    | object_pb.BackfillVectorsRequest
    | object_pb.UpdateObjectRequest
    | object_pb.DeleteObjectRequest
    | object_pb.DeleteObjectsRequest
    | search_pb.SearchObjectsRequest
)
"""A request about objects of a collection."""

# Weaviate's own rule for the names of tenants.
TENANT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


LEVELS: dict[int, Consistency | None] = {
    pb.CONSISTENCY_UNSPECIFIED: None,
    pb.CONSISTENCY_ONE: Consistency.ONE,
    pb.CONSISTENCY_QUORUM: Consistency.QUORUM,
    pb.CONSISTENCY_ALL: Consistency.ALL,
}


def parse_scope(violations: Violations, request: ScopedRequest) -> Scope:
    """Return the scope of a request, and note what is wrong with it, and a missing collection."""
    violations.require(request.collection, "collection", "is required; name a collection")
    scope = request.scope
    fits = not scope.tenant or TENANT_NAME.fullmatch(scope.tenant)
    violations.require(fits, "scope.tenant", "must be 1 to 64 of A-Z, a-z, 0-9, _ and -")
    known = scope.consistency in LEVELS
    violations.require(known, "scope.consistency", f"{scope.consistency} is not a Consistency of this version")
    return Scope(scope.tenant, LEVELS.get(scope.consistency))


def output_from_pb(message: output_fields_pb2.OutputFields) -> ReturnNames:
    """Return which parts of objects a request returns."""
    return ReturnNames(tuple(message.properties), tuple(message.images), tuple(message.vectors))


def check_name(name: str, path: str) -> None:
    """Check that a collection is named.

    Raises:
        InvalidRequest: it is not.
    """
    violations = Violations()
    violations.require(name, path, "is required; name a collection")
    violations.raise_if_any()


def check_id(violations: Violations, text: str, path: str) -> UUID:
    """Return the id of an object; note one that is missing, or is not a UUID, and return the nil UUID for it."""
    violations.require(text, path, "is required; give the UUID of an object")
    with noting(violations):
        if text:
            return parse_id(text, path)
    return UUID(int=0)
