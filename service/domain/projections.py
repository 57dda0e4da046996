"""Maps of collections: which objects, and how their vectors become points."""

from dataclasses import dataclass, field
from enum import Enum

from service.domain.filters import Filter
from service.domain.objects import Scope
from service.domain.searches import Part


class ProjectionMethod(Enum):
    """How vectors become points; the numbers are those of the API."""

    PCA = 1
    UMAP = 2


@dataclass(frozen=True, slots=True)
class Projection:
    """A map as a caller asked for it, checked by itself and not against its collection.

    Attributes:
        collection: its name, or an alias.
        size: points at most.
        method: how to project.
        vector: the named vector; empty leaves the choice to the server.
        filters: which objects count; None for all.
        properties: the names of those to return.
        inputs: what to place among the points.
        scope: whose objects, and how many replicas must answer.
    """

    collection: str
    size: int
    method: ProjectionMethod = ProjectionMethod.PCA
    vector: str = ""
    filters: Filter | None = None
    properties: tuple[str, ...] = ()
    inputs: tuple[Part, ...] = ()
    scope: Scope = field(default_factory=Scope)
