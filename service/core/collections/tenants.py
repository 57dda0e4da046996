"""Creates, lists, updates and deletes tenants."""

from collections.abc import Sequence

from service.access import calling_account
from service.domain import Tenant
from service.errors import InvalidRequest, TenantNotFound, Violation
from service.process.metrics import forget_evaluations
from service.store.base import Store


class Tenants:
    """Creates, lists, updates and deletes tenants.

    Every method raises CollectionNotFound if the collection does not exist, and InvalidRequest if it has no tenants.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, collection: str, tenants: Sequence[Tenant]) -> None:
        """Add tenants; an existing tenant stays unchanged."""
        await self._store.create_tenants(await self._check(collection), tenants)

    async def list_page(
        self, collection: str, names: Sequence[str], after: str, size: int
    ) -> tuple[list[Tenant], bool]:
        """Return up to `size` tenants that the caller may touch, by name after `after`, and whether more follow.

        Only tenants of the given names, if there are any.
        """
        collection = await self._check(collection)
        may_touch = calling_account.get().client.may_touch_tenant
        found = await self._store.list_tenants(collection, names)
        rest = [each for each in found if each.name > after and may_touch(each.name)]
        return rest[:size], len(rest) > size

    async def update(self, collection: str, tenants: Sequence[Tenant]) -> None:
        """Change the activity of tenants; if one does not exist, change none.

        Raises:
            TenantNotFound: a tenant does not exist.
        """
        collection = await self._check(collection)
        names = [each.name for each in tenants]
        there = {each.name for each in await self._store.list_tenants(collection, names)}
        missing = next((name for name in names if name not in there), None)
        if missing is not None:
            raise TenantNotFound(missing, f"collection {collection!r} does not have it; no tenant was changed")
        await self._store.update_tenants(collection, tenants)

    async def delete(self, collection: str, names: Sequence[str]) -> None:
        """Delete tenants and their objects; a tenant that does not exist is not an error."""
        collection = await self._check(collection)
        await self._store.delete_tenants(collection, names)
        forget_evaluations(collection, names)

    async def _check(self, collection: str) -> str:
        """Return the name of the collection itself, because Weaviate finds no tenants by an alias."""
        found = await self._store.get_collection(collection)
        if found.multi_tenancy is None:
            message = f"{collection!r} was created without tenants; create a collection with multi_tenancy.enabled"
            raise InvalidRequest([Violation("collection", message)])
        return found.name
