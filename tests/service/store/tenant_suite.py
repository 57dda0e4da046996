"""What every store does with tenants; its tests derive from TenantSuite and bring the fixture `store`."""

from uuid import uuid4

import pytest

from service.domain import Collection, MultiTenancy, NamedVector, Space, Tenant, TenantActivity
from service.errors import StoreRejected
from service.store.base import Store
from tests.service.store.store_suite import make_collection

ACTIVE, INACTIVE = TenantActivity.ACTIVE, TenantActivity.INACTIVE


class TenantSuite:
    """The contract of service/store/base.py on tenants, as tests."""

    @pytest.fixture
    async def shared(self, store: Store) -> str:
        """Return the name of a new collection with the tenants anna and ben, who rests."""
        name = f"Shared{uuid4().hex}"
        vectors = (NamedVector("main", Space("space-1", 3, "model-1")),)
        await store.create_collection(Collection(name, (), vectors, multi_tenancy=MultiTenancy()))
        await store.create_tenants(name, [Tenant("ben", INACTIVE), Tenant("anna")])
        return name

    @pytest.mark.parametrize(
        "tenancy", [None, MultiTenancy(), MultiTenancy(auto_creation=True), MultiTenancy(auto_activation=True)]
    )
    async def test_keeps_whether_a_collection_has_tenants(self, store: Store, tenancy: MultiTenancy | None) -> None:
        name = f"T{uuid4().hex}"
        vectors = (NamedVector("main", Space("space-1", 3, "model-1")),)
        await store.create_collection(Collection(name, (), vectors, multi_tenancy=tenancy))
        assert (await store.get_collection(name)).multi_tenancy == tenancy

    async def test_lists_tenants_by_name(self, store: Store, shared: str) -> None:
        assert await store.list_tenants(shared) == [Tenant("anna", ACTIVE), Tenant("ben", INACTIVE)]
        assert await store.list_tenants(shared, ["nobody", "ben"]) == [Tenant("ben", INACTIVE)]

    async def test_leaves_a_tenant_that_is_there_as_it_is(self, store: Store, shared: str) -> None:
        await store.create_tenants(shared, [Tenant("ben", ACTIVE), Tenant("carla")])
        assert await store.list_tenants(shared) == [
            Tenant("anna", ACTIVE),
            Tenant("ben", INACTIVE),
            Tenant("carla", ACTIVE),
        ]

    async def test_changes_how_active_tenants_are(self, store: Store, shared: str) -> None:
        await store.update_tenants(shared, [Tenant("anna", INACTIVE), Tenant("ben", ACTIVE)])
        assert await store.list_tenants(shared) == [Tenant("anna", INACTIVE), Tenant("ben", ACTIVE)]

    async def test_offloads_nothing_without_the_module_for_it(self, store: Store, shared: str) -> None:
        with pytest.raises(StoreRejected, match="offload-s3"):
            await store.update_tenants(shared, [Tenant("anna", TenantActivity.OFFLOADED)])
        assert await store.list_tenants(shared, ["anna"]) == [Tenant("anna", ACTIVE)]

    async def test_deletes_tenants_whether_or_not_they_are_there(self, store: Store, shared: str) -> None:
        await store.delete_tenants(shared, ["nobody", "anna"])
        assert await store.list_tenants(shared) == [Tenant("ben", INACTIVE)]

    async def test_takes_a_thousand_tenants_at_once(self, store: Store, shared: str) -> None:
        names = [f"t{number:04}" for number in range(1000)]
        await store.create_tenants(shared, [Tenant(name, INACTIVE) for name in names])
        await store.update_tenants(shared, [Tenant(name, INACTIVE) for name in names])
        assert len(await store.list_tenants(shared)) == 1002
        await store.delete_tenants(shared, names)
        assert [each.name for each in await store.list_tenants(shared)] == ["anna", "ben"]

    async def test_refuses_tenants_where_a_collection_has_none(self, store: Store) -> None:
        name = f"Plain{uuid4().hex}"
        await store.create_collection(make_collection(name))
        with pytest.raises(StoreRejected, match="multi-tenancy is not enabled"):
            await store.create_tenants(name, [Tenant("anna")])
