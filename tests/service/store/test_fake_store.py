from uuid import UUID

import pytest

from service.errors import StoreRejected, StoreUnavailable
from tests.fakes.store import FakeStore
from tests.service.store.alias_suite import AliasSuite
from tests.service.store.change_suite import ChangeSuite
from tests.service.store.filter_suite import FilterSuite
from tests.service.store.hash_suite import HashSuite
from tests.service.store.schema_suite import SchemaSuite
from tests.service.store.store_suite import StoreSuite, make_collection, make_object
from tests.service.store.tenant_suite import TenantSuite


class TestFakeStore(StoreSuite, FilterSuite, TenantSuite, SchemaSuite, ChangeSuite, AliasSuite, HashSuite):
    @pytest.fixture
    def store(self) -> FakeStore:
        return FakeStore()

    async def test_fails_while_it_is_not_available(self, store: FakeStore) -> None:
        store.available = False
        with pytest.raises(StoreUnavailable):
            await store.list_collections()
        store.available = True
        assert await store.list_collections() == []

    async def test_fails_as_often_as_told(self, store: FakeStore) -> None:
        store.fail_next(StoreUnavailable("first"), StoreRejected("second"))
        with pytest.raises(StoreUnavailable, match="first"):
            await store.list_collections()
        with pytest.raises(StoreRejected, match="second"):
            await store.list_collections()
        assert await store.list_collections() == []
        assert store.calls == ["list_collections"] * 3

    async def test_rejects_the_ids_it_is_told_to(self, store: FakeStore) -> None:
        await store.create_collection(make_collection("Pictures"))
        store.rejected[UUID(int=2)] = "because"
        outcomes = await store.put_objects("Pictures", [make_object(1), make_object(2)])
        assert outcomes[0] is None
        assert str(outcomes[1]) == "because"
        assert store.puts == [2]
