"""Converts tenants to and from those of Weaviate's client."""

from collections.abc import Mapping, Sequence
from typing import Any

from weaviate.collections.classes.tenants import (
    TenantCreate,
    TenantCreateActivityStatus,
    TenantUpdate,
    TenantUpdateActivityStatus,
)

from service.domain import Tenant, TenantActivity


def tenants_to_create(tenants: Sequence[Tenant]) -> list[TenantCreate]:
    """Return tenants as the client creates them: active or inactive ones."""
    return [
        TenantCreate(name=each.name, activity_status=TenantCreateActivityStatus(each.activity.value))
        for each in tenants
    ]


def tenants_to_update(tenants: Sequence[Tenant]) -> list[TenantUpdate]:
    """Return tenants as the client updates them: active, inactive or offloaded ones."""
    return [
        TenantUpdate(name=each.name, activity_status=TenantUpdateActivityStatus(each.activity.value))
        for each in tenants
    ]


def tenants_from_weaviate(found: Mapping[str, Any]) -> list[Tenant]:
    """Return tenants by name from what the client returns."""
    return [Tenant(name, TenantActivity(found[name].activity_status.value)) for name in sorted(found)]
