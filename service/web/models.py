"""Which embedder a request's `model` and `dimensions` mean."""

from collections.abc import Sequence
from typing import NamedTuple

from embedders.contract import WatchedEmbedder
from service.core.embedder_pool import EmbedderPool

ROLES = ("query", "passage")
"""What may stand behind a model's name, after a dash, instead of `input_type`; NIMs of version 1 read it so."""


class ModelUnknown(Exception):
    """There is no model of that name."""


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

    A model's name means the preferred embedder of the model, and others of its space. The id of a space means the
    embedders of that space, and an embedder's own name means that embedder alone.
    """

    def __init__(self, pool: EmbedderPool) -> None:
        self._pool = pool

    def listed(self) -> dict[str, WatchedEmbedder]:
        """Return the preferred embedder of each model, and by the ids of their spaces those of its other spaces.

        A NIM's model may be unknown until it has answered; then it is not listed.
        """
        listed: dict[str, WatchedEmbedder] = {}
        for each in self._pool.all:
            if not each.spec.model:
                continue  # a NIM that has not told yet what it serves
            first = listed.setdefault(each.spec.model, each)
            if first.spec.space != each.spec.space:
                listed.setdefault(each.spec.space, each)
        return listed

    def names(self) -> list[str]:
        """Return all names that a request may have."""
        of_all = [each.spec for each in self._pool.all]
        names = [name for spec in of_all for name in (spec.model, spec.space, spec.name) if name]
        return list(dict.fromkeys([*names, *(f"{name}-{role}" for name in names for role in ROLES)]))

    def dimensions(self) -> set[int]:
        """Return the dimensions of all models, as far as they are known."""
        return {each.spec.dimension for each in self._pool.all} - {0}

    def choose(self, name: str, dimension: int | None = None) -> Chosen:
        """Return what a name and a dimension mean.

        Args:
            name: a model, space or embedder, maybe with a role behind it.
            dimension: the wanted dimension; None for that of the preferred embedder.

        Raises:
            ModelUnknown: nothing has that name.
            DimensionUnknown: no embedder of the model has that dimension.
        """
        role = None
        found = self._named(name)
        if not found:
            base, _, role = name.rpartition("-")
            found = self._named(base) if role in ROLES else []
        if not found:
            known = ", ".join(self.listed()) or "none, because no embedder has answered yet"
            raise ModelUnknown(f"this server has no model {name[:200]!r}; it has: {known}")
        if dimension is not None:
            found = _of_dimension(found, dimension)
        first = found[0].spec
        return Chosen([each for each in found if each.spec.space == first.space], role)

    def _named(self, name: str) -> list[WatchedEmbedder]:
        if not name:
            return []
        of_model = [each for each in self._pool.all if each.spec.model == name]
        if of_model:
            # Others of the space may serve the same weights under another name.
            spaces = {each.spec.space for each in of_model}
            return of_model + [each for each in self._pool.all if each.spec.space in spaces and each not in of_model]
        return self._pool.of_space(name) or [each for each in self._pool.all if each.spec.name == name]


def _of_dimension(embedders: Sequence[WatchedEmbedder], dimension: int) -> list[WatchedEmbedder]:
    # The dimension of a NIM may be unknown until it has answered.
    fitting = [each for each in embedders if each.spec.dimension == dimension]
    fitting = fitting or [each for each in embedders if not each.spec.dimension]
    if not fitting:
        known = ", ".join(map(str, sorted({each.spec.dimension for each in embedders})))
        raise DimensionUnknown(f"is {dimension}; {embedders[0].spec.model} has {known} on this server")
    return fitting
