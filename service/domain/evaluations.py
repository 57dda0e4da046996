"""Evaluations of a collection: with which queries, and which ways to search are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from embedders.contract import Input
from service.domain.objects import Scope
from service.domain.searches import TargetJoin


@dataclass(frozen=True, slots=True)
class System:
    """One way to search a collection.

    Attributes:
        name: what the results call it.
        vector: the named vector; empty leaves the choice to the server.
        alpha: the share of the vector in a hybrid search; None for a search by the vector alone.
        ef: the ef that the HNSW index has while this is measured; None for the one that it has.
        reranker: the reranker of this server that sorts the first hits; empty for none.
        rerank_property: the property whose texts it reads; empty for none.
        rerank_image_property: the blob property whose pictures it reads; empty for none.
        path: the field in the request.
        weights: instead of `vector`, the weights of named vectors that are searched together; empty for one vector.
        join: how their distances become one.
        field_weights: weights of the fields that an object's vector is made of, which are tried among a sample; empty
            for the present ones.
    """

    name: str
    vector: str = ""
    alpha: float | None = None
    ef: int | None = None
    reranker: str = ""
    rerank_property: str = ""
    rerank_image_property: str = ""
    path: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    join: TargetJoin | None = None
    field_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObjectQueries:
    """Search by the own vectors of so many stored objects."""

    size: int


@dataclass(frozen=True, slots=True)
class CaptionQueries:
    """Search by the texts in a property of so many stored objects; each text's answer is its own object."""

    property: str
    size: int


@dataclass(frozen=True, slots=True)
class WrittenQuery:
    """A query that the caller brings.

    Attributes:
        id: what the results call it.
        path: the field of its content.
        content: a text, an image or both together.
        answers: how good each answer is, 1 or more, by the id of an object or by the value of a property.
    """

    id: str
    path: str
    content: Input
    answers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WrittenQueries:
    """Search by the caller's queries.

    Attributes:
        queries: at least one; all of them have answers, or none.
        answer_property: the property whose values name the answers; empty for the ids of objects.
    """

    queries: tuple[WrittenQuery, ...]
    answer_property: str = ""


@dataclass(frozen=True, slots=True)
class EvaluationWishes:
    """An evaluation as a caller asked for it, checked by itself and not against its collection.

    Attributes:
        collection: its name, or an alias.
        queries: what to search by.
        systems: the ways to search; the others are compared with the first one.
        limit: hits that count.
        skip_index_recall: whether not to compare the index with exact search, which reads all vectors.
        max_objects: how many objects it may read for that at most.
        change_ef: whether the ef of an index may be changed while it is measured.
        wanted_recall: the index recall for which to look for the smallest ef; None for no such search.
        suggest_alpha: whether to look for the best alpha.
        suggest_weights: whether to look for the best weights of the vectors of the first system.
        suggest_field_weights: whether to look for the best weights of an object's fields.
        field_sample: among how many objects weights of fields are tried.
        scope: whose objects, and how many replicas must answer.
    """

    collection: str
    queries: ObjectQueries | CaptionQueries | WrittenQueries
    systems: tuple[System, ...]
    limit: int = 10
    skip_index_recall: bool = False
    max_objects: int = 1_000_000
    change_ef: bool = False
    wanted_recall: float | None = None
    suggest_alpha: bool = False
    suggest_weights: bool = False
    suggest_field_weights: bool = False
    field_sample: int = 1000
    scope: Scope = field(default_factory=Scope)

    @property
    def tries_fields(self) -> bool:
        """Whether weights of fields are tried; then all systems search the same sample of objects."""
        return self.suggest_field_weights or any(each.field_weights for each in self.systems)

    @property
    def index_recall(self) -> bool:
        """Whether the index is compared with exact search; not where weights of fields are tried among a sample."""
        return not (self.skip_index_recall or self.tries_fields)
