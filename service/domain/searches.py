"""Searches: what to look for, how, and in what form to return it.

The parts of a query carry the paths of their fields in the request, for the checks that need the collection or the
embedder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from uuid import UUID

from embedders.contract import ImageInput, TextImageInput, TextInput, Vector
from service.domain.collections import WeightedField
from service.domain.filters import Filter
from service.domain.objects import ReturnFields, ReturnNames, Scope, StoredObject


@dataclass(frozen=True, slots=True)
class OwnVector:
    """A vector that the caller supplies.

    Attributes:
        path: the field of its bytes.
        data: little-endian float32.
        space: the space that it comes from; empty where the caller does not say.
        by_target: instead, one for each named vector.
    """

    path: str
    data: bytes
    space: str = ""
    by_target: Mapping[str, "OwnVector"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """One of the things that become a query's vector.

    Attributes:
        path: its field.
        content: a text, an image or both together to embed, a vector, or the id of an object of the collection.
        weight: how much it counts.
    """

    path: str
    content: TextInput | ImageInput | TextImageInput | OwnVector | UUID
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Move:
    """Shift a query's vector: towards the mean of its objects' vectors and of the mean of its texts' vectors.

    Attributes:
        path: its field.
        share: the share of the way to go, not 0; less than 0 goes away.
        parts: texts and objects.
    """

    path: str
    share: float
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Near:
    """Look for objects near the mean of several things.

    Attributes:
        path: the field of the parts.
        parts: those things, at least one.
        moves: how the mean is shifted, one after the other.
        scaled: whether each vector is scaled to unit length first.
    """

    path: str
    parts: tuple[Part, ...]
    moves: tuple[Move, ...] = ()
    scaled: bool = False


@dataclass(frozen=True, slots=True)
class NearObject:
    """Look for objects near a stored object; the path is that of its id."""

    path: str
    id: UUID


@dataclass(frozen=True, slots=True)
class SortBy:
    """One thing to sort by."""

    property: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class GroupBy:
    """Group hits by the values of a property: at most so many groups, and objects in each."""

    property: str
    groups: int
    objects_per_group: int


@dataclass(frozen=True, slots=True)
class Rerank:
    """Sort hits by how well a property fits a text, as the store's reranker decides."""

    property: str
    query: str


@dataclass(frozen=True, slots=True)
class Reranking:
    """Sort the first hits by how well they fit a text, as a reranker of this server decides.

    Attributes:
        reranker: its name.
        query: the text.
        property: the property whose texts it reads; empty for none.
        image_property: the blob property whose pictures it reads; empty for none.
        first: how many hits.
        keep_order: whether they keep their order when the reranker fails.
    """

    reranker: str
    query: str
    property: str = ""
    image_property: str = ""
    first: int = 50
    keep_order: bool = False


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What narrows and shapes a search or a listing.

    Attributes:
        filters: which objects count; None for all.
        certainty: the least certainty of a hit of a search by vector.
        distance: the largest distance of such a hit.
        auto_limit: the hits of a search end after this many jumps of the distance or score; 0 for no such end.
        after: the object after which a listing begins.
        sort: what a listing is sorted by.
        group_by: how the hits of a search are grouped; None for no groups.
        rerank: how the hits of a search are sorted again; None for no reranking.
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

    @property
    def weighted(self) -> bool:
        """Whether it takes a weight for each vector."""
        return self in (TargetJoin.MANUAL_WEIGHTS, TargetJoin.RELATIVE_SCORE)


@dataclass(frozen=True, slots=True)
class TargetVectors:
    """Named vectors to search, and for each the query's vector in its space.

    Attributes:
        vectors: float32, shape (dimension,), by named vector. A hybrid search by words alone has one without values,
            because Weaviate needs the name of a named vector even then.
        join: how their distances become one; None leaves it to the store.
        weights: by named vector, for joins by weights.
    """

    vectors: Mapping[str, Vector]
    join: TargetJoin | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def words_only(self) -> bool:
        """Whether the search has no vector."""
        return not any(vector.size for vector in self.vectors.values())


@dataclass(frozen=True, slots=True)
class Keywords:
    """Words to look for.

    Attributes:
        properties: where to look, and how much each counts, a whole number; none means all texts.
        need_all: whether an object needs all words; None leaves it to the store.
        minimum_match: how many words it needs where it does not need all.
        path: the field in the request.
    """

    query: str
    properties: tuple[WeightedField, ...] = ()
    need_all: bool | None = None
    minimum_match: int = 0
    path: str = "bm25"


class Fusion(Enum):
    """How the two lists of a hybrid search are joined; the numbers are those of the API."""

    RANKED = 1
    RELATIVE_SCORE = 2


@dataclass(frozen=True, slots=True)
class Blend:
    """Words and vectors, joined.

    Attributes:
        keywords: the keyword side; None for none.
        alpha: the share of the vector side; None leaves it to the store, as for the fusion.
        max_vector_distance: the largest distance that the vector side counts.
        targets: the vector side; without vectors until the query is embedded.
    """

    keywords: Keywords | None
    alpha: float | None = None
    fusion: Fusion | None = None
    max_vector_distance: float | None = None
    targets: TargetVectors = field(default_factory=lambda: TargetVectors({}))


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Look for objects near something, joined with objects that have certain words."""

    blend: Blend
    near: Near

    @property
    def words_only(self) -> bool:
        """Whether the vector side counts for nothing."""
        return self.blend.alpha == 0 and self.blend.max_vector_distance is None


Query = Near | NearObject | Hybrid | Keywords
"""What to look for."""


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


@dataclass(frozen=True, slots=True)
class Search:
    """A search as a caller asked for it, checked by itself and not against its collection.

    Attributes:
        collection: its name, or an alias.
        limit: hits at most.
        offset: hits to skip.
        targets: the named vectors to search.
        returned: which parts of the objects to return.
        options: what narrows and shapes the search.
        reranking: how a reranker of this server sorts the hits again; None for no such.
    """

    collection: str
    query: Query
    limit: int
    offset: int = 0
    targets: TargetChoice = field(default_factory=TargetChoice)
    returned: ReturnNames = field(default_factory=ReturnNames)
    options: SearchOptions = field(default_factory=SearchOptions)
    scope: Scope = field(default_factory=Scope)
    reranking: Reranking | None = None


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """What a store is to find, and to return of it.

    Attributes:
        query: near to vectors, with certain words, or both; None lists objects in the order of their ids, with filters
            in the order of the store.
        limit: hits at most.
        offset: hits to skip.
    """

    query: TargetVectors | Keywords | Blend | None = None
    limit: int = 10
    offset: int = 0
    fields: ReturnFields = field(default_factory=ReturnFields)
    options: SearchOptions = field(default_factory=SearchOptions)
    scope: Scope = field(default_factory=Scope)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of hits; distances are None when nothing was measured, the score when nothing was reranked."""

    name: str
    object_count: int
    min_distance: float | None = None
    max_distance: float | None = None
    rerank_score: float | None = None


@dataclass(slots=True)
class Hit:
    """An object found; not frozen, for the reason of StoredObject.

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
