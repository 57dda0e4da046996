"""Creates, lists, switches and deletes aliases."""

from service.access import calling_account, check_collection
from service.domain import Alias, collection_name, is_alias
from service.errors import AliasNotFound, InvalidRequest, Violation
from service.store.base import Store


class Aliases:
    """Creates, lists, switches and deletes aliases.

    Every method raises PermissionDenied if the client may not use a collection that the alias leads to.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, alias: Alias) -> Alias:
        """Give a collection another name, and return the alias as created.

        Raises:
            CollectionAlreadyExists: there is a collection or an alias of that name.
            CollectionNotFound: there is no collection to lead to.
            InvalidRequest: the alias would lead to an alias.
        """
        await self._check_target(alias.collection)
        await self._store.create_alias(alias)
        return await self._store.get_alias(alias.name)

    async def get(self, name: str) -> Alias:
        """Return an alias.

        Raises:
            AliasNotFound: no alias has that name.
        """
        client = calling_account.get().client
        try:
            alias = await self._store.get_alias(name)
        except AliasNotFound:
            # As for an alias that leads to a collection which the client may not use.
            check_collection(client, name)
            raise
        check_collection(client, name, alias.collection)
        return alias

    async def list_page(self, collection: str, after: str, size: int) -> tuple[list[Alias], bool]:
        """Return up to `size` aliases by name after `after`, and whether more follow.

        Only those of a collection, which may be named by one of them, if one is given; and only those that lead to a
        collection which the caller may touch.
        """
        client = calling_account.get().client
        found = await self._store.list_aliases()
        if collection:
            targets = {each.name: each.collection for each in found}
            wanted = collection_name(collection)
            wanted = targets.get(wanted, wanted)
            check_collection(client, collection, wanted)
            found = [each for each in found if each.collection == wanted]
        rest = [each for each in found if each.name > after and client.may_touch(each.collection)]
        return rest[:size], len(rest) > size

    async def update(self, alias: Alias) -> tuple[Alias, str]:
        """Let an alias lead to another collection; return the alias, and the collection that it led to before.

        Raises:
            AliasNotFound: no alias has that name.
            CollectionNotFound: there is no collection to lead to.
            InvalidRequest: the alias would lead to an alias.
        """
        before = await self.get(alias.name)
        await self._check_target(alias.collection)
        await self._store.update_alias(alias)
        return await self._store.get_alias(alias.name), before.collection

    async def delete(self, name: str) -> None:
        """Delete an alias, and nothing of its collection.

        Raises:
            AliasNotFound: no alias has that name.
        """
        await self.get(name)
        await self._store.delete_alias(name)

    async def _check_target(self, name: str) -> None:
        """Check that an alias may lead to a collection."""
        check_collection(calling_account.get().client, name)
        found = await self._store.get_collection(name)
        if is_alias(name, found):
            message = "is an alias itself; name the collection that it leads to, as GetCollection gives it"
            raise InvalidRequest([Violation("alias.collection", message)])
