"""What every store does with aliases; its tests derive from AliasSuite and bring the fixture `store`."""

from uuid import uuid4

import pytest

from service.domain import Alias
from service.errors import AliasNotFound, CollectionAlreadyExists, CollectionNotFound, InvalidRequest
from service.store.base import Store
from tests.service.store.store_suite import make_collection, make_object


class AliasSuite:
    """The contract of service/store/base.py on aliases, as tests."""

    @pytest.fixture
    async def aliased(self, store: Store) -> str:
        """Return the end of the names of two collections, Old... and New..., and of Current..., an alias of Old..."""
        suffix = uuid4().hex
        for name in ("Old", "New"):
            await store.create_collection(make_collection(f"{name}{suffix}"))
        await store.create_alias(Alias(f"Current{suffix}", f"Old{suffix}"))
        return suffix

    async def test_creates_lists_and_returns_aliases(self, store: Store, aliased: str) -> None:
        await store.create_alias(Alias(f"also{aliased}", f"new{aliased}"))
        expected = [Alias(f"Also{aliased}", f"New{aliased}"), Alias(f"Current{aliased}", f"Old{aliased}")]
        assert [each for each in await store.list_aliases() if each.name.endswith(aliased)] == expected
        assert await store.get_alias(f"current{aliased}") == expected[1]

    async def test_lets_an_alias_lead_to_another_collection_at_once(self, store: Store, aliased: str) -> None:
        current = f"Current{aliased}"
        await store.put_objects(f"New{aliased}", [make_object(1)])
        assert (await store.get_collection(current, fresh=False)).name == f"Old{aliased}"
        assert await store.count_objects(current) == 0

        await store.update_alias(Alias(current, f"New{aliased}"))

        assert (await store.get_collection(current, fresh=False)).name == f"New{aliased}"
        assert await store.count_objects(current) == 1
        assert await store.get_alias(current) == Alias(current, f"New{aliased}")

    async def test_deletes_an_alias_and_keeps_its_collection(self, store: Store, aliased: str) -> None:
        current = f"Current{aliased}"
        await store.get_collection(current, fresh=False)

        await store.delete_alias(current)

        with pytest.raises(CollectionNotFound):
            await store.get_collection(current, fresh=False)
        with pytest.raises(AliasNotFound):
            await store.get_alias(current)
        assert (await store.get_collection(f"Old{aliased}")).name == f"Old{aliased}"

    async def test_keeps_an_alias_whose_collection_is_deleted(self, store: Store, aliased: str) -> None:
        current, old = f"Current{aliased}", f"Old{aliased}"

        await store.delete_collection(old)

        with pytest.raises(CollectionNotFound, match="it is an alias, and its collection was deleted"):
            await store.get_collection(current)
        assert await store.get_alias(current) == Alias(current, old)
        with pytest.raises(CollectionAlreadyExists):
            await store.create_collection(make_collection(current))
        await store.create_collection(make_collection(old))
        assert (await store.get_collection(current)).name == old

    @pytest.mark.parametrize("name", ["Current", "current", "Old", "old"])
    async def test_refuses_a_name_that_a_collection_or_an_alias_has(
        self, store: Store, aliased: str, name: str
    ) -> None:
        with pytest.raises(CollectionAlreadyExists, match=f"(?i){name}{aliased}"):
            await store.create_alias(Alias(f"{name}{aliased}", f"New{aliased}"))
        assert await store.get_alias(f"Current{aliased}") == Alias(f"Current{aliased}", f"Old{aliased}")

    @pytest.mark.parametrize("target", ["Nothing", "Current", "no-name"])
    async def test_leads_to_collections_only(self, store: Store, aliased: str, target: str) -> None:
        with pytest.raises(CollectionNotFound, match=f"{target}{aliased}"):
            await store.create_alias(Alias(f"Also{aliased}", f"{target}{aliased}"))
        with pytest.raises(CollectionNotFound, match=f"{target}{aliased}"):
            await store.update_alias(Alias(f"Current{aliased}", f"{target}{aliased}"))
        assert await store.get_alias(f"Current{aliased}") == Alias(f"Current{aliased}", f"Old{aliased}")

    @pytest.mark.parametrize("name", ["Nothing", "Old", "../schema", ""])
    async def test_finds_no_alias_of_another_name(self, store: Store, aliased: str, name: str) -> None:
        name = f"{name}{aliased}" if name in ("Nothing", "Old") else name
        with pytest.raises(AliasNotFound):
            await store.get_alias(name)
        with pytest.raises(AliasNotFound):
            await store.update_alias(Alias(name, f"New{aliased}"))
        with pytest.raises(AliasNotFound):
            await store.delete_alias(name)

    async def test_deletes_no_collection_by_an_alias(self, store: Store, aliased: str) -> None:
        with pytest.raises(InvalidRequest, match="alias"):
            await store.delete_collection(f"Current{aliased}")
        assert (await store.get_collection(f"Old{aliased}")).name == f"Old{aliased}"
