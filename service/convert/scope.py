"""Tenant and consistency, which all calls on objects share."""

from service.domain import Consistency, Scope
from vecgate.v1 import consistency_pb2 as pb

__all__ = ["scope_from_pb"]

LEVELS: dict[int, Consistency | None] = {
    pb.CONSISTENCY_UNSPECIFIED: None,
    pb.CONSISTENCY_ONE: Consistency.ONE,
    pb.CONSISTENCY_QUORUM: Consistency.QUORUM,
    pb.CONSISTENCY_ALL: Consistency.ALL,
}


def scope_from_pb(tenant: str, consistency: "pb.Consistency.ValueType") -> Scope:
    """Return whose objects a request is about."""
    return Scope(tenant, LEVELS[consistency])
