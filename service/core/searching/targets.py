"""Which named vectors a query searches."""

from collections.abc import Sequence

from service.core.searching.sources import Source
from service.domain import Collection, NamedVector
from service.errors import InvalidRequest, Violation

__all__ = ["target_of_object", "targets_of_query"]


def target_of_object(collection: Collection, name: str) -> NamedVector:
    """Return the named vector to search with an object of the collection: the named one, or the only one.

    Raises:
        InvalidRequest: there is no such named vector, or several to choose from.
    """
    found = collection.find_vector(name or next((each.name for each in collection.vectors), ""))
    if found is None or (not name and len(collection.vectors) > 1):
        raise InvalidRequest([_unknown(collection, name)])
    return found


def targets_of_query(collection: Collection, name: str, source: Source, served: Sequence[str]) -> list[NamedVector]:
    """Return the named vectors that may be searched, in order of preference.

    Where none is named and each is of a space of its own, whichever embedder works decides.

    Args:
        collection: where to search.
        name: the named vector that the caller names; empty for none.
        source: what is looked for.
        served: the spaces of this server's embedders, in order of preference.

    Raises:
        InvalidRequest: there is no such named vector, or several to choose from.
    """
    if name or len(collection.vectors) == 1:
        return [target_of_object(collection, name)]
    by_space = {each.space.id: each for each in collection.vectors if each.space is not None}
    own = source.own_spaces()
    if own:
        targets = [by_space[each] for each in own if each in by_space and len(own) == 1]
    elif len(by_space) < len(collection.vectors):
        targets = []
    else:
        targets = [by_space[each] for each in dict.fromkeys(served) if each in by_space] or list(by_space.values())
    if not targets:
        raise InvalidRequest([_unknown(collection, name)])
    return targets


def _unknown(collection: Collection, name: str) -> Violation:
    names = ", ".join(each.name for each in collection.vectors)
    if name:
        message = f"collection {collection.name!r} has no such named vector; it has: {names}"
        return Violation("target_vectors[0]", message, "UNKNOWN_VECTOR")
    message = f"collection {collection.name!r} has several named vectors; choose one of: {names}"
    return Violation("target_vectors", message, "UNKNOWN_VECTOR")
