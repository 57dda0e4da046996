"""Whose objects a request is about, and how many replicas must answer."""

import re

from service.domain import Consistency, Scope
from service.rpc.shared.violations import Violations
from vecgate.v1 import object_service_pb2 as object_pb
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


def check_scope(violations: Violations, request: ScopedRequest) -> None:
    """Note a request that names no collection, a tenant that cannot be, or a consistency that this version lacks."""
    violations.require(request.collection, "collection", "is required; name a collection")
    fits = not request.tenant or TENANT_NAME.fullmatch(request.tenant)
    violations.require(fits, "tenant", "is no tenant's name; give 1 to 64 of A-Z, a-z, 0-9, _ and -")
    known = request.consistency in pb.Consistency.values()
    violations.require(known, "consistency", f"{request.consistency} is no Consistency of this version")


LEVELS: dict[int, Consistency | None] = {
    pb.CONSISTENCY_UNSPECIFIED: None,
    pb.CONSISTENCY_ONE: Consistency.ONE,
    pb.CONSISTENCY_QUORUM: Consistency.QUORUM,
    pb.CONSISTENCY_ALL: Consistency.ALL,
}


def scope_from_pb(tenant: str, consistency: "pb.Consistency.ValueType") -> Scope:
    """Return whose objects a request is about."""
    return Scope(tenant, LEVELS.get(consistency))
