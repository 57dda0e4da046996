"""Where the references of filters lead."""

from collections.abc import Iterator, Sequence

from service.domain import Collection
from service.errors import CollectionNotFound
from service.filters import AllOf, AnyOf, Condition, Filter, Not
from service.store.base import Store

__all__ = ["linked_collections"]


async def linked_collections(store: Store, collection: Collection, filters: Filter | None) -> dict[str, Collection]:
    """Return the collections that the references of a filter lead to, by name.

    What several collections may stand behind, or none of ours, is left out: the store alone can check it.

    Raises:
        StoreUnavailable: the store failed.
    """
    found: dict[str, Collection] = {}
    for references in _chains(filters):
        current = collection
        for name in references:
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


def _chains(filters: Filter | None) -> Iterator[Sequence[str]]:
    match filters:
        case AllOf(parts) | AnyOf(parts):
            for each in parts:
                yield from _chains(each)
        case Not(inner):
            yield from _chains(inner)
        case Condition():
            yield filters.references
