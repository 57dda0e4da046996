"""Which named vectors a query searches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedders.inputs import Vector
from service.core.searching.sources import Source
from service.domain import Collection, NamedVector
from service.errors import InvalidRequest, Violation
from service.searches import TargetJoin, TargetVectors

__all__ = ["TargetChoice", "named_targets", "targets_of_query"]


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """Which named vectors to search, as the caller asked.

    Attributes:
        names: none leaves the choice to the server.
        join: how the distances of several become one; None leaves it to the store.
        weights: one for each name, for joins by weights.
    """

    names: tuple[str, ...] = ()
    join: TargetJoin | None = None
    weights: tuple[float, ...] = ()

    def with_vectors(self, vectors: Mapping[str, Vector]) -> TargetVectors:
        """Return what to search with the vectors of a query, by named vector."""
        return TargetVectors(vectors, self.join, dict(zip(self.names, self.weights, strict=False)))


def named_targets(collection: Collection, names: Sequence[str]) -> list[NamedVector]:
    """Return the named vectors of these names, or without names the only one.

    Raises:
        InvalidRequest: there are no such named vectors, or several to choose from; all violations are listed.
    """
    if not names:
        if len(collection.vectors) != 1:
            raise InvalidRequest([_unknown(collection, "has several named vectors; choose among", "target_vectors")])
        return list(collection.vectors)
    found = [(index, collection.find_vector(name)) for index, name in enumerate(names)]
    unknown = [f"target_vectors[{index}]" for index, each in found if each is None]
    if unknown:
        raise InvalidRequest([_unknown(collection, "has no such named vector; it has", path) for path in unknown])
    return [each for _, each in found if each is not None]


def targets_of_query(
    collection: Collection, names: Sequence[str], source: Source, served: Sequence[str]
) -> list[NamedVector]:
    """Return the named vectors that may be searched instead of each other, in order of preference.

    Where none is named and each is of a space of its own, whichever embedder works decides.

    Args:
        collection: where to search.
        names: the named vector that the caller names, or none.
        source: what is looked for.
        served: the spaces of this server's embedders, in order of preference.

    Raises:
        InvalidRequest: there is no such named vector, or several to choose from.
    """
    if names or len(collection.vectors) == 1:
        return named_targets(collection, names)
    by_space = {each.space.id: each for each in collection.vectors if each.space is not None}
    own = source.own_spaces()
    if own:
        targets = [by_space[each] for each in own if each in by_space and len(own) == 1]
    elif len(by_space) < len(collection.vectors):
        targets = []
    else:
        targets = [by_space[each] for each in dict.fromkeys(served) if each in by_space] or list(by_space.values())
    return targets or named_targets(collection, names)


def _unknown(collection: Collection, rule: str, path: str) -> Violation:
    names = ", ".join(each.name for each in collection.vectors)
    return Violation(path, f"collection {collection.name!r} {rule}: {names}", "UNKNOWN_VECTOR")
