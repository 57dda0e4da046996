"""Collections: their properties, named vectors and tenants."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import islice
from typing import Any

from service.errors import Violation

MAX_NAMES = 20
"""Names that an error lists."""

Parameters = Mapping[str, Any]
"""By the names and with the values that Weaviate's schema has; those that are left out are the store's own."""


class DataType(Enum):
    """What a property holds. The values are Weaviate's words."""

    TEXT = "text"
    TEXT_ARRAY = "text[]"
    INT = "int"
    INT_ARRAY = "int[]"
    NUMBER = "number"
    NUMBER_ARRAY = "number[]"
    BOOLEAN = "boolean"
    BOOLEAN_ARRAY = "boolean[]"
    DATE = "date"
    DATE_ARRAY = "date[]"
    UUID = "uuid"
    UUID_ARRAY = "uuid[]"
    BLOB = "blob"
    GEO_COORDINATES = "geoCoordinates"
    OBJECT = "object"
    OBJECT_ARRAY = "object[]"


TEXTS = frozenset({DataType.TEXT, DataType.TEXT_ARRAY})


class Distance(Enum):
    """A measure between two vectors. The values are Weaviate's words."""

    COSINE = "cosine"
    DOT = "dot"
    L2_SQUARED = "l2-squared"
    MANHATTAN = "manhattan"
    HAMMING = "hamming"


@dataclass(frozen=True, slots=True)
class Space:
    """The vector space that a named vector is bound to.

    Attributes:
        id: the space's id.
        dimension: values in a vector; 0 where the schema does not say, as in collections that Weaviate's module made.
        model: the model's name when the vector was bound, for people.
    """

    id: str
    dimension: int
    model: str


@dataclass(frozen=True, slots=True)
class Property:
    """A typed field of a collection's objects.

    Attributes:
        data_type: None for a type that this version does not handle.
        indexing: tokenization, indexFilterable, indexSearchable and indexRangeFilters.
        nested: what an object holds.
        references: the collections whose objects it refers to; empty for one that holds values.
    """

    name: str
    data_type: DataType | None
    description: str = ""
    indexing: Parameters = field(default_factory=dict)
    nested: tuple["Property", ...] = ()
    references: tuple[str, ...] = ()

    @property
    def handled(self) -> bool:
        """Whether this version handles its type, and those of all its parts."""
        return self.data_type is not None and all(each.handled for each in self.nested)

    @property
    def filterable(self) -> bool:
        """Whether filters may compare it: any of its indexes will do."""
        filterable, ranges = self.indexing.get("indexFilterable", True), self.indexing.get("indexRangeFilters", False)
        return filterable or ranges or self.searchable

    @property
    def searchable(self) -> bool:
        """Whether words can be looked for in it."""
        return self.data_type in TEXTS and self.indexing.get("indexSearchable", True)


@dataclass(frozen=True, slots=True)
class WeightedField:
    """A property that takes part in a vector, with its share."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Quantizer:
    """How vectors are made smaller; the type is Weaviate's word, or none."""

    type: str
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """How vectors are found.

    Attributes:
        type: Weaviate's word; empty where nothing is said.
        quantizer: None leaves it to the store.
        flat_quantizer: of a dynamic index, that of its flat part.
    """

    type: str = ""
    parameters: Parameters = field(default_factory=dict)
    quantizer: Quantizer | None = None
    flat_quantizer: Quantizer | None = None


@dataclass(frozen=True, slots=True)
class NamedVector:
    """How a named vector is made.

    Attributes:
        space: what it is bound to; None where nothing says.
        distance: the measure of searches; None for one that this version does not handle.
        native: whether Weaviate's own module fills and searches it, too.
        base_url: where that module gets vectors; empty where it is NVIDIA's cloud.
        weighted: whether the fields have weights at all, which to that module is not the same as equal ones.
        nameless: whether Weaviate has it beside the named ones, as the one vector that has no name. Weaviate's own
            clients call it "default", and so do we; no named vector of the collection can have that name then.
    """

    name: str
    space: Space | None
    image_fields: tuple[WeightedField, ...] = ()
    text_fields: tuple[WeightedField, ...] = ()
    distance: Distance | None = Distance.COSINE
    index: VectorIndex = VectorIndex()
    native: bool = False
    base_url: str = ""
    weighted: bool = True
    nameless: bool = False


@dataclass(frozen=True, slots=True)
class MultiTenancy:
    """That a collection's objects belong to tenants.

    Attributes:
        auto_creation: whether a write for a tenant that is not there creates it.
        auto_activation: whether a call for an inactive tenant activates it.
    """

    auto_creation: bool = False
    auto_activation: bool = False


@dataclass(frozen=True, slots=True)
class Reranker:
    """The store's own module that reorders hits, by its name, with its options."""

    module: str
    options: Parameters = field(default_factory=dict)


class TenantActivity(Enum):
    """How active a tenant is. The values are Weaviate's words."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    OFFLOADED = "OFFLOADED"
    OFFLOADING = "OFFLOADING"
    ONLOADING = "ONLOADING"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One of those among whom a collection's objects are divided."""

    name: str
    activity: TenantActivity = TenantActivity.ACTIVE


@dataclass(frozen=True)
class Collection:
    """A set of objects with the same properties and named vectors.

    Attributes:
        multi_tenancy: None where its objects belong to no tenants.
        replication: factor and deletionStrategy.
        sharding: desiredCount and virtualPerPhysical.
        inverted_index: as in Weaviate's invertedIndexConfig.
        default_vector: the named vector of searches that name none; empty leaves it to the server.
        reranker: None where hits cannot be reranked.
    """

    name: str
    properties: tuple[Property, ...]
    vectors: tuple[NamedVector, ...]
    description: str = ""
    multi_tenancy: MultiTenancy | None = None
    replication: Parameters = field(default_factory=dict)
    sharding: Parameters = field(default_factory=dict)
    inverted_index: Parameters = field(default_factory=dict)
    default_vector: str = ""
    reranker: Reranker | None = None

    def find_property(self, name: str) -> Property | None:
        """Return the property of a name, or None."""
        return self._properties.get(name)

    @property
    def unhandled(self) -> frozenset[str]:
        """The properties that this version does not handle, or not all parts of: writes leave them alone."""
        return frozenset(each.name for each in self.properties if not each.handled)

    def find_vector(self, name: str) -> NamedVector | None:
        """Return the named vector of a name, or None."""
        return self._vectors.get(name)

    @cached_property
    def blobs(self) -> tuple[str, ...]:
        """The names of the blob properties."""
        return tuple(each.name for each in self.properties if each.data_type is DataType.BLOB)

    @cached_property
    def _properties(self) -> dict[str, Property]:
        return {each.name: each for each in reversed(self.properties)}

    @cached_property
    def _vectors(self) -> dict[str, NamedVector]:
        return {each.name: each for each in reversed(self.vectors)}


def unknown_property(collection: Collection, path: str, names: Iterable[str], kind: str = "property") -> Violation:
    """Return that a collection has no such property; `names` are those that it has."""
    message = f"collection {collection.name!r} has no such {kind}; it has: {some_of(names)}"
    return Violation(path, message, "UNKNOWN_PROPERTY")


def unknown_vector(collection: Collection, path: str, rule: str = "has no such named vector; it has") -> Violation:
    """Return that a collection has no such named vector, or that another rule about them is broken, and its vectors."""
    names = some_of(each.name for each in collection.vectors)
    return Violation(path, f"collection {collection.name!r} {rule}: {names}", "UNKNOWN_VECTOR")


def some_of(names: Iterable[str]) -> str:
    """Return the first names, separated by commas."""
    first = list(islice(names, MAX_NAMES + 1))
    return ", ".join([*first[:MAX_NAMES], *(["..."] if len(first) > MAX_NAMES else [])]) or "none"
