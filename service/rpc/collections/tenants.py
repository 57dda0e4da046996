"""Requests about tenants, and tenants in responses."""

from collections.abc import Collection, Iterable, Sequence

from service.domain import Tenant, TenantActivity
from service.errors import Violations
from service.rpc.collections.request import Page, parse_page
from service.rpc.shared.requests import TENANT_NAME
from vecgate.v1 import tenant_pb2 as pb

MAX_TENANTS = 1000
STATUSES = {
    activity: pb.TenantActivityStatus.Value(f"TENANT_ACTIVITY_STATUS_{activity.name}") for activity in TenantActivity
}
ACTIVITIES = {number: activity for activity, number in STATUSES.items()}
AT_CREATION = frozenset((TenantActivity.ACTIVE, TenantActivity.INACTIVE))
SETTABLE = AT_CREATION | {TenantActivity.OFFLOADED}


def parse_create_tenants(request: pb.CreateTenantsRequest) -> list[Tenant]:
    """Return the tenants to create; one without a status is active.

    Raises:
        InvalidRequest: with all violations.
    """
    default = TenantActivity.ACTIVE
    return _parse_tenants(request, default, AT_CREATION, "give ACTIVE or INACTIVE, or leave it out")


def parse_update_tenants(request: pb.UpdateTenantsRequest) -> list[Tenant]:
    """Return the tenants to update.

    Raises:
        InvalidRequest: with all violations.
    """
    return _parse_tenants(request, None, SETTABLE, "give ACTIVE, INACTIVE or OFFLOADED")


def _parse_tenants(
    request: pb.CreateTenantsRequest | pb.UpdateTenantsRequest,
    default: TenantActivity | None,
    allowed: Collection[TenantActivity],
    fix: str,
) -> list[Tenant]:
    violations = _checked(request.collection)
    _check_count(violations, request.tenants, "tenants")
    tenants = []
    for index, each in enumerate(request.tenants):
        check_tenant(violations, each.name, f"tenants[{index}].name")
        activity = ACTIVITIES.get(each.activity_status) if each.activity_status else default
        fits = activity in allowed
        violations.require(fits, f"tenants[{index}].activity_status", f"is {each.activity_status}; {fix}")
        tenants.append(Tenant(each.name, activity or TenantActivity.ACTIVE))
    violations.require_unique((each.name for each in request.tenants), "tenants")
    violations.raise_if_any()
    return tenants


def parse_list_tenants(request: pb.ListTenantsRequest) -> Page:
    """Return which page of tenants to list.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = _checked(request.collection)
    fits = len(request.names) <= MAX_TENANTS
    violations.require(fits, "names", f"has {len(request.names)} names; give at most {MAX_TENANTS}")
    for index, name in enumerate(request.names):
        check_tenant(violations, name, f"names[{index}]")
    page = parse_page(violations, request, TENANT_NAME)
    violations.raise_if_any()
    return page


def check_delete_tenants(request: pb.DeleteTenantsRequest) -> None:
    """Check a request.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = _checked(request.collection)
    _check_count(violations, request.names, "names")
    seen: set[str] = set()
    for index, name in enumerate(request.names):
        check_tenant(violations, name, f"names[{index}]")
        violations.require(name not in seen, f"names[{index}]", f"{name!r} occurs twice; give each name once")
        seen.add(name)
    violations.raise_if_any()


def check_tenant(violations: Violations, name: str, path: str) -> None:
    """Note a name that Weaviate does not allow for a tenant."""
    message = "must be 1 to 64 letters, digits, underscores or hyphens, e.g. anna-2"
    violations.require(TENANT_NAME.fullmatch(name), path, message)


def tenants_to_pb(tenants: Iterable[Tenant]) -> list[pb.Tenant]:
    """Return tenants as messages."""
    return [pb.Tenant(name=each.name, activity_status=STATUSES[each.activity]) for each in tenants]


def _checked(collection: str) -> Violations:
    violations = Violations()
    violations.require(collection, "collection", "is required; name a collection")
    return violations


def _check_count(violations: Violations, items: Sequence[object], path: str) -> None:
    good = 1 <= len(items) <= MAX_TENANTS
    violations.require(good, path, f"has {len(items)} tenants; give 1 to {MAX_TENANTS}, and split the call for more")
