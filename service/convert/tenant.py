"""CollectionService: tenants."""

from collections.abc import Iterable

from service.domain import Tenant, TenantActivity
from vecgate.v1 import collection_service_pb2 as collection_pb

__all__ = ["tenants_from_pb", "tenants_to_pb"]

STATUSES = {
    activity: collection_pb.TenantActivityStatus.Value(f"TENANT_ACTIVITY_STATUS_{activity.name}")
    for activity in TenantActivity
}
STATUSES_FROM_PB = {number: activity for activity, number in STATUSES.items()}


def tenants_from_pb(messages: Iterable[collection_pb.Tenant]) -> list[Tenant]:
    """Return tenants; one whose activity is not said is active."""
    return [Tenant(each.name, STATUSES_FROM_PB.get(each.activity_status, TenantActivity.ACTIVE)) for each in messages]


def tenants_to_pb(tenants: Iterable[Tenant]) -> list[collection_pb.Tenant]:
    """Return tenants as messages."""
    return [collection_pb.Tenant(name=each.name, activity_status=STATUSES[each.activity]) for each in tenants]
