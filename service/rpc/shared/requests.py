"""What the requests and responses of several services share: scope, output fields, ids, callers' keys, embedders."""

import re
from typing import Any
from uuid import UUID

import grpc

from embedders.contract import EmbedderSpec
from embedders.nim.address import check_key
from service.access import CALLER_KEY
from service.core.objects.checks import parse_id
from service.domain import Consistency, ReturnNames, Scope
from service.errors import InvalidRequest, Violation, Violations, noting
from vecgate.v1 import embedder_pb2, evaluation_service_pb2, output_fields_pb2
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import scope_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb

ScopedRequest = (
    object_pb.ImportObjectsRequest
    | object_pb.GetObjectRequest
    | object_pb.ListObjectsRequest
    | object_pb.BackfillVectorsRequest
    | object_pb.CountMissingVectorsRequest
    | object_pb.UpdateObjectRequest
    | object_pb.DeleteObjectRequest
    | object_pb.DeleteObjectsRequest
    | search_pb.SearchObjectsRequest
    | search_pb.ProjectObjectsRequest
    | evaluation_service_pb2.EvaluateCollectionRequest
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


def check_name(name: str, path: str, kind: str = "a collection") -> None:
    """Check that a collection, or another kind of thing, is named.

    Raises:
        InvalidRequest: it is not.
    """
    violations = Violations()
    violations.require(name, path, f"is required; name {kind}")
    violations.raise_if_any()


def check_id(violations: Violations, text: str, path: str) -> UUID:
    """Return the id of an object; note one that is missing, or is not a UUID, and return the nil UUID for it."""
    violations.require(text, path, "is required; give the UUID of an object")
    with noting(violations):
        if text:
            return parse_id(text, path)
    return UUID(int=0)


def embedder_to_pb(spec: EmbedderSpec) -> embedder_pb2.EmbedderRef:
    """Return what every response says about an embedder: name, model, space and dimension."""
    return embedder_pb2.EmbedderRef(name=spec.name, model=spec.model, space=spec.space, dimension=spec.dimension)


class CallerKeys:
    """Reads callers' keys, or refuses calls that have one.

    Args:
        allowed: whether this server accepts them.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed

    def of(self, context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
        """Return the key of a call, or None.

        Raises:
            InvalidRequest: this server accepts no keys, there are several, or the key is not valid. The message does
                not contain it.
        """
        found = [value for key, value in context.invocation_metadata() or () if key == CALLER_KEY]
        if not found:
            return None
        if not self._allowed:
            # If the key were ignored, this server's key would pay for a call that the caller means to pay for.
            raise _refused(
                "is not accepted by this server; leave it out, or set "
                "VECGATE_EMBEDDERS__<NAME>__ALLOW_CALLER_KEYS=true for an embedder of the server"
            )
        if len(found) > 1:
            raise _refused("occurs several times; send it once")
        key = found[0] if isinstance(found[0], str) else ""
        try:
            check_key(key)
        except ValueError as error:
            raise _refused("is empty, too long, or has invalid characters; send the key unchanged") from error
        return key


def _refused(description: str) -> InvalidRequest:
    return InvalidRequest([Violation(f'metadata["{CALLER_KEY}"]', description)])
