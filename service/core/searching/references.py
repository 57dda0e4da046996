"""Where aliases and the references of filters lead."""

from service.domain import Collection, Filter, conditions, is_alias
from service.errors import CollectionNotFound
from service.store.base import Store


async def linked_collections(store: Store, collection: Collection, filters: Filter | None) -> dict[str, Collection]:
    """Return the collections that the references of a filter lead to, by name.

    References that can lead to several collections, or to an unknown one, are left out: only the store can check them.

    Raises:
        StoreUnavailable: the store failed.
    """
    found: dict[str, Collection] = {}
    for condition in conditions(filters):
        current = collection
        for name in condition.references:
            targets = property_.references if (property_ := current.find_property(name)) else ()
            if len(targets) != 1:
                break
            if targets[0] not in found:
                try:
                    found[targets[0]] = await store.get_collection(targets[0], fresh=False)
                except CollectionNotFound:
                    break
            current = found[targets[0]]
    return found


async def real_name(store: Store, name: str) -> str:
    """Return the name of the collection of a name or an alias; the name itself where there is no such collection.

    Raises:
        StoreUnavailable: the store failed.
    """
    try:
        found = await store.get_collection(name, fresh=False)
        if is_alias(name, found):
            # Another server may have switched the alias, and deleted the collection that it led to.
            found = await store.get_collection(name)
    except CollectionNotFound:
        return name
    return found.name
