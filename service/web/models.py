"""Which embedder a request's `model` and `dimensions` mean."""

from collections.abc import Sequence
from typing import NamedTuple

from embedders.contract import NOT_CHECKED, WatchedEmbedder
from embedders.errors import EmbedderUnavailable
from embedders.nim.profiles import ROLE_SUFFIXES
from service.core.embedder_pool import EmbedderPool, spaces_meant


class ModelUnknown(Exception):
    """A name means no model of this server, or several of different spaces."""


class DimensionUnknown(Exception):
    """The model has no such dimension."""


class Chosen(NamedTuple):
    """What a request means.

    Attributes:
        embedders: of one space, in order of preference; the first one's model is the answer's.
        role: "query" or "passage" if the name ends with it; else None.
    """

    embedders: Sequence[WatchedEmbedder]
    role: str | None


class Models:
    """The names under which a server's embedders are asked for.

    A name that is the id of a space means the embedders of that space. The name of a model means them too, if all
    embedders of the model have one space, or one of them after the dimension has been considered. An embedder's
    name means what it means in every call; see EmbedderPool.asked_for.
    """

    def __init__(self, pool: EmbedderPool) -> None:
        self._pool = pool

    def listed(self) -> dict[str, WatchedEmbedder]:
        """Return the preferred embedder of each space, by its model's name if that means the space, else by its id.

        A NIM's model may be unknown until it has answered; then it is not listed.
        """
        listed: dict[str, WatchedEmbedder] = {}
        for each in self._pool.all:
            if each.spec.model:
                means = spaces_meant(each.spec.model, self._pool.named(each.spec.model)) == (each.spec.space,)
                listed.setdefault(each.spec.model if means else each.spec.space, each)
        return listed

    def names(self) -> list[str]:
        """Return all names that a request may have, some of them with a dimension only."""
        names = [name for each in self._pool.all for name in (each.spec.model, each.spec.space, each.spec.name)]
        usable = [name for name in dict.fromkeys(names) if name and self._is_usable(name)]
        return list(dict.fromkeys([*usable, *(name + suffix for name in usable for suffix in ROLE_SUFFIXES)]))

    def _is_usable(self, name: str) -> bool:
        for dimension in (None, *self.dimensions()):
            try:
                self.choose(name, dimension)
            except (ModelUnknown, DimensionUnknown, EmbedderUnavailable):
                continue
            return True
        return False

    def dimensions(self) -> set[int]:
        """Return the dimensions of all models, as far as they are known."""
        return {each.spec.dimension for each in self._pool.all} - {0}

    def choose(self, name: str, dimension: int | None = None) -> Chosen:
        """Return what a name and a dimension mean.

        Args:
            name: a model, space or embedder, maybe with a role behind it.
            dimension: the wanted dimension; None for that of the space of that name, or of the only one.

        Raises:
            ModelUnknown: nothing has that name, or several spaces have it.
            DimensionUnknown: no embedder of the model has that dimension.
            EmbedderUnavailable: an embedder may have the space of that name, whose model is not known yet.
        """
        role, found = None, self._named(name)
        if not found:
            suffix = next(filter(name.endswith, ROLE_SUFFIXES), "")
            if suffix:
                name, role = name.removesuffix(suffix), suffix[1:]
                found = self._named(name)
        if not found:
            known = ", ".join(self.listed()) or "none, because no embedder has answered yet"
            asked = f"{name}-{role}" if role else name
            raise ModelUnknown(f"this server has no model {asked[:200]!r}; it has: {known}")
        waiting = self._pool.may_be_of(name, found)
        if waiting is not None and dimension not in {each.spec.dimension for each in found}:
            raise EmbedderUnavailable(
                f"{name} may be the model of embedder {waiting.spec.name}, which is not known yet: "
                f"{waiting.health.fault or NOT_CHECKED}; try again, or ask for {found[0].spec.space}"
            )
        if dimension is not None:
            found = _of_dimension(found, dimension)
        spaces = spaces_meant(name, found)
        if len(spaces) > 1:
            raise ModelUnknown(
                f"the model {name!r} has several vector spaces on this server; ask for one of them by its id: "
                f"{', '.join(spaces)}; or by an embedder's name: {', '.join(each.spec.name for each in found)}"
            )
        return Chosen([each for each in found if each.spec.space in spaces], role)

    def _named(self, name: str) -> list[WatchedEmbedder]:
        own_name = any(each.spec.name == name for each in self._pool.all)
        return self._pool.named(name) or (self._pool.asked_for(name) if name and own_name else [])


def _of_dimension(embedders: Sequence[WatchedEmbedder], dimension: int) -> list[WatchedEmbedder]:
    # The dimension of a NIM may be unknown until it has answered.
    fitting = [each for each in embedders if each.spec.dimension == dimension]
    fitting = fitting or [each for each in embedders if not each.spec.dimension]
    if not fitting:
        known = ", ".join(map(str, sorted({each.spec.dimension for each in embedders})))
        raise DimensionUnknown(f"is {dimension}; {embedders[0].spec.model} has {known} on this server")
    return fitting
