"""Tenants of a request."""

from collections.abc import Collection, Iterable, Sequence

from service.domain import Tenant, TenantActivity
from service.rpc.collections.checks import check_page
from service.rpc.shared.scope import TENANT_NAME
from service.rpc.shared.violations import Violations
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import tenant_pb2 as tenant_pb

MAX_TENANTS = 1000

SETTABLE = (
    tenant_pb.TENANT_ACTIVITY_STATUS_ACTIVE,
    tenant_pb.TENANT_ACTIVITY_STATUS_INACTIVE,
    tenant_pb.TENANT_ACTIVITY_STATUS_OFFLOADED,
)


def check_get_collection(request: collection_pb.GetCollectionRequest) -> None:
    """Check a GetCollectionRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    violations.require(request.name, "name", "is required; name a collection")
    if request.tenant:
        _check_name(violations, request.tenant, "tenant")
    violations.raise_if_any()


def check_create_tenants(request: tenant_pb.CreateTenantsRequest) -> None:
    """Check a CreateTenantsRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    _check_collection(violations, request.collection)
    statuses = (tenant_pb.TENANT_ACTIVITY_STATUS_UNSPECIFIED, *SETTABLE[:2])
    _check_tenants(violations, request.tenants, statuses, "give ACTIVE or INACTIVE, or leave it out")
    violations.raise_if_any()


def check_update_tenants(request: tenant_pb.UpdateTenantsRequest) -> None:
    """Check an UpdateTenantsRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    _check_collection(violations, request.collection)
    _check_tenants(violations, request.tenants, SETTABLE, "give ACTIVE, INACTIVE or OFFLOADED")
    violations.raise_if_any()


def check_list_tenants(request: tenant_pb.ListTenantsRequest) -> None:
    """Check a ListTenantsRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    _check_collection(violations, request.collection)
    most = len(request.names) <= MAX_TENANTS
    violations.require(most, "names", f"has {len(request.names)} names; give at most {MAX_TENANTS}")
    for index, name in enumerate(request.names):
        _check_name(violations, name, f"names[{index}]")
    check_page(violations, request.page_size, request.page_token, TENANT_NAME)
    violations.raise_if_any()


def check_delete_tenants(request: tenant_pb.DeleteTenantsRequest) -> None:
    """Check a DeleteTenantsRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    _check_collection(violations, request.collection)
    _check_count(violations, request.names, "names")
    seen: set[str] = set()
    for index, name in enumerate(request.names):
        _check_name(violations, name, f"names[{index}]")
        violations.require(name not in seen, f"names[{index}]", f"{name!r} stands here twice; give each once")
        seen.add(name)
    violations.raise_if_any()


def _check_collection(violations: Violations, name: str) -> None:
    violations.require(name, "collection", "is required; name a collection")


def _check_count(violations: Violations, items: Collection[object], path: str) -> None:
    good = 1 <= len(items) <= MAX_TENANTS
    violations.require(good, path, f"has {len(items)} tenants; give 1 to {MAX_TENANTS}, and more in further calls")


def _check_tenants(
    violations: Violations,
    tenants: Sequence[tenant_pb.Tenant],
    statuses: Collection["tenant_pb.TenantActivityStatus.ValueType"],
    fix: str,
) -> None:
    _check_count(violations, tenants, "tenants")
    for index, each in enumerate(tenants):
        _check_name(violations, each.name, f"tenants[{index}].name")
        known = each.activity_status in statuses
        violations.require(known, f"tenants[{index}].activity_status", f"is {each.activity_status}; {fix}")
    violations.require_unique((each.name for each in tenants), "tenants")


def _check_name(violations: Violations, name: str, path: str) -> None:
    message = "must be 1 to 64 letters, digits, underscores or hyphens, such as anna-2"
    violations.require(TENANT_NAME.fullmatch(name), path, message)


STATUSES = {
    activity: tenant_pb.TenantActivityStatus.Value(f"TENANT_ACTIVITY_STATUS_{activity.name}")
    for activity in TenantActivity
}
STATUSES_FROM_PB = {number: activity for activity, number in STATUSES.items()}


def tenants_from_pb(messages: Iterable[tenant_pb.Tenant]) -> list[Tenant]:
    """Return tenants; one whose activity is not said is active."""
    return [Tenant(each.name, STATUSES_FROM_PB.get(each.activity_status, TenantActivity.ACTIVE)) for each in messages]


def tenants_to_pb(tenants: Iterable[Tenant]) -> list[tenant_pb.Tenant]:
    """Return tenants as messages."""
    return [tenant_pb.Tenant(name=each.name, activity_status=STATUSES[each.activity]) for each in tenants]
