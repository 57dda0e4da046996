"""The words of searches: what to look for, how, and in what form to return it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from uuid import UUID

from embedders.contract import Vector
from service.domain.filters import Filter
from service.domain.objects import StoredObject


@dataclass(frozen=True, slots=True)
class SortBy:
    """One thing to sort by."""

    property: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class GroupBy:
    """Return hits by the values of a property: so many groups, so many objects of each."""

    property: str
    groups: int
    objects_per_group: int


@dataclass(frozen=True, slots=True)
class Rerank:
    """Order hits by how well a property fits a text, as the store's own reranker says."""

    property: str
    query: str


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What narrows and shapes a search or a listing, beside its query and its page.

    Attributes:
        filters: which objects count; None for all.
        certainty: the least certainty of a hit of a search by vector.
        distance: the largest distance of such a hit.
        auto_limit: after how many jumps of the distance or score the hits of a search end; 0 for never.
        after: the object after which a listing begins.
        sort: what a listing is sorted by.
        group_by: how hits of a search are grouped; None for not at all.
        rerank: how hits of a search are ordered anew; None for not at all.
        times: whether hits say when their objects were created and updated.
        explain_score: whether hits say how their scores came about.
    """

    filters: Filter | None = None
    certainty: float | None = None
    distance: float | None = None
    auto_limit: int = 0
    after: UUID | None = None
    sort: tuple[SortBy, ...] = ()
    group_by: GroupBy | None = None
    rerank: Rerank | None = None
    times: bool = False
    explain_score: bool = False


class TargetJoin(Enum):
    """How the distances to several named vectors become one; the numbers are those of the API."""

    MINIMUM = 1
    SUM = 2
    AVERAGE = 3
    MANUAL_WEIGHTS = 4
    RELATIVE_SCORE = 5


@dataclass(frozen=True, slots=True)
class TargetVectors:
    """Named vectors to search, and for each the query's vector in its space.

    Attributes:
        vectors: float32, shape (dimension,), by named vector; at least one. A hybrid search by words alone has one
            without values, because Weaviate wants to know a named vector all the same.
        join: how their distances become one; None leaves it to the store.
        weights: by named vector, for joins by weights.
    """

    vectors: Mapping[str, Vector]
    join: TargetJoin | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def words_only(self) -> bool:
        """Whether there is no vector to search with."""
        return not any(vector.size for vector in self.vectors.values())


@dataclass(frozen=True, slots=True)
class Keywords:
    """Words to look for.

    Attributes:
        properties: where to look, each name with a weight after ^ if it counts more; none means all texts.
        need_all: whether an object needs all words; None leaves it to the store.
        minimum_match: how many words it needs where it does not need all.
    """

    query: str
    properties: tuple[str, ...] = ()
    need_all: bool | None = None
    minimum_match: int = 0


class Fusion(Enum):
    """How the two lists of a hybrid search are joined; the numbers are those of the API."""

    RANKED = 1
    RELATIVE_SCORE = 2


@dataclass(frozen=True, slots=True)
class Blend:
    """What a hybrid search has beside its vector.

    Attributes:
        keywords: the keyword side; None for none.
        alpha: the share of the vector side; None leaves it to the store, as for the fusion.
        max_vector_distance: the largest distance that the vector side counts.
    """

    keywords: Keywords | None
    alpha: float | None = None
    fusion: Fusion | None = None
    max_vector_distance: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """What hits have in common; distances are None when nothing was measured, the score when nothing was reranked."""

    name: str
    object_count: int
    min_distance: float | None = None
    max_distance: float | None = None
    rerank_score: float | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """An object found.

    Attributes:
        distance: None when nothing was measured, as the certainty.
        score: None when nothing was scored.
        created: when asked for, as the time of the update.
        explain_score: how the score came about, when asked for.
        rerank_score: None when nothing was reranked.
        group: when hits are grouped.
    """

    object: StoredObject
    distance: float | None = None
    certainty: float | None = None
    score: float | None = None
    created: datetime | None = None
    updated: datetime | None = None
    explain_score: str = ""
    rerank_score: float | None = None
    group: Group | None = None
