"""Which named vectors a query searches."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from service.domain import Collection, NamedVector, Near, OwnVector, unknown_vector
from service.errors import InvalidRequest, Violation, collecting


def named_targets(collection: Collection, names: Sequence[str]) -> list[NamedVector]:
    """Return the named vectors of these names.

    Raises:
        InvalidRequest: there are no such named vectors; all violations are listed.
    """
    found = [collection.find_vector(name) for name in names]
    with collecting() as violations:
        unknown = [f"target_vectors[{index}]" for index, each in enumerate(found) if each is None]
        violations += [unknown_vector(collection, path) for path in unknown]
    return [each for each in found if each is not None]


def default_target(collection: Collection, default: NamedVector | None) -> NamedVector:
    """Return the named vector of a search that names none.

    Raises:
        InvalidRequest: there are several to choose from, and no default one, or none at all.
    """
    if not collection.vectors:
        message = f"collection {collection.name!r} has no vectors; look for words with bm25, or list its objects"
        raise InvalidRequest([Violation("target_vectors", message, "UNKNOWN_VECTOR")])
    if default is None:
        rule = "has several named vectors and no default_vector; choose among"
        raise InvalidRequest([unknown_vector(collection, "target_vectors", rule)])
    return default


def targets_of_query(
    collection: Collection, near: Near, served: Sequence[str], default: NamedVector | None
) -> list[NamedVector]:
    """Return the named vectors that a query that names none may search, in order of preference.

    The default one comes first. While its embedders do not work, those of other spaces stand in for it that are the
    only ones of theirs.

    Args:
        collection: where to search.
        near: what is looked for.
        served: the spaces of this server's embedders, in order of preference.
        default: the collection's default vector; None where it has none.

    Raises:
        InvalidRequest: there are several to choose from, or none at all.
    """
    if len(collection.vectors) < 2:  # noqa: PLR2004
        return [default_target(collection, default)]
    counts = Counter(_space_of(each) for each in collection.vectors)
    alone = {space: each for each in collection.vectors if (space := _space_of(each)) and counts[space] == 1}
    if own := {part.content.space for part in near.parts if isinstance(part.content, OwnVector)}:
        return [default_target(collection, _target_of_own(collection, own, alone, default))]
    if default is None and len(alone) < len(collection.vectors):
        return [default_target(collection, default)]
    by_space = alone if default is None else alone | {_space_of(default): default}
    first = [] if default is None else [_space_of(default)]
    targets = [by_space[each] for each in dict.fromkeys([*first, *served]) if each in served and each in by_space]
    return targets or [by_space[each] for each in first] or list(alone.values())


def _target_of_own(
    collection: Collection, own: Iterable[str], alone: Mapping[str, NamedVector], default: NamedVector | None
) -> NamedVector | None:
    """Return what the caller's own vectors are meant for, by their spaces, empty for one that is not said."""

    def target(space: str) -> NamedVector | None:
        if default is not None and (space == _space_of(default) if space else collection.default_vector):
            return default
        return alone.get(space)

    found = {None if each is None else each.name: each for each in map(target, own)}
    return found.popitem()[1] if len(found) == 1 else None


def _space_of(vector: NamedVector) -> str:
    return vector.space.id if vector.space else ""
