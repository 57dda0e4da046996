"""Collections: their properties, named vectors and tenants."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

from service.errors import Violation

Made = TypeVar("Made")

MAX_NAMES = 20
"""Names that an error lists."""

ETAG_CHARS = 32
"""Of an etag: 128 bits."""

Parameters = Mapping[str, Any]
"""By the names and with the values of Weaviate's schema; missing ones have the store's defaults."""


class DataType(Enum):
    """The type of a property's values, by Weaviate's name."""

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
    BLOB_HASH = "blobHash"
    GEO_COORDINATES = "geoCoordinates"
    OBJECT = "object"
    OBJECT_ARRAY = "object[]"

    # Each member is there once. The hash of its name, which Enum takes, costs as much as checking a value.
    __hash__ = object.__hash__


TEXTS = frozenset({DataType.TEXT, DataType.TEXT_ARRAY})
OBJECTS = frozenset({DataType.OBJECT, DataType.OBJECT_ARRAY})
BLOBS = frozenset({DataType.BLOB, DataType.BLOB_HASH})
"""Types whose values are images; of a BLOB_HASH the store keeps only the hash."""
RANGES = frozenset({DataType.INT, DataType.NUMBER, DataType.DATE})
"""Types of which filters may have an index of ranges."""
MAX_SAFE_INT = 2**53
"""The largest whole number, either way, that a double holds exactly."""


class Distance(Enum):
    """A measure between two vectors, by Weaviate's name."""

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
        dimension: values in a vector; 0 if the schema does not have it, as in collections for Weaviate's module.
        model: the model's name when the vector was bound, for display.
    """

    id: str
    dimension: int
    model: str


@dataclass(frozen=True, slots=True)
class Property:
    """A typed field of a collection's objects.

    Attributes:
        data_type: None for a type that this version does not support.
        indexing: tokenization, indexFilterable, indexSearchable and indexRangeFilters.
        nested: the properties of an object.
        references: the collections that it refers to; empty for a property with values.
    """

    name: str
    data_type: DataType | None
    description: str = ""
    indexing: Parameters = field(default_factory=dict)
    nested: tuple["Property", ...] = ()
    references: tuple[str, ...] = ()

    @property
    def handled(self) -> bool:
        """Whether this version supports its type, and the types of all nested properties."""
        return self.data_type is not None and all(each.handled for each in self.nested)

    @property
    def filterable(self) -> bool:
        """Whether filters can use it, by any of its indexes."""
        filterable, ranges = self.indexing.get("indexFilterable", True), self.indexing.get("indexRangeFilters", False)
        return filterable or ranges or self.searchable

    @property
    def searchable(self) -> bool:
        """Whether keyword search can use it."""
        return self.data_type in TEXTS and self.indexing.get("indexSearchable", True)


@dataclass(frozen=True, slots=True)
class WeightedField:
    """A property that contributes to a vector, with its weight."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Quantizer:
    """How vectors are compressed; the type is Weaviate's name, or "none"."""

    type: str
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """The index of a named vector.

    Attributes:
        type: Weaviate's name; empty for the default.
        quantizer: None for the store's default.
        flat_quantizer: the quantizer of the flat part of a dynamic index.
    """

    type: str = ""
    parameters: Parameters = field(default_factory=dict)
    quantizer: Quantizer | None = None
    flat_quantizer: Quantizer | None = None


@dataclass(frozen=True, slots=True)
class NamedVector:
    """A named vector.

    Attributes:
        space: the space that it is bound to; None if unknown.
        distance: None for a distance that this version does not support.
        native: whether Weaviate's own module fills and searches it, too.
        base_url: where that module gets vectors; empty for NVIDIA's cloud.
        weighted: whether the fields have weights; to that module, no weights and equal weights are different.
        joint: whether an object's fields are embedded together as one input, instead of one by one.
        nameless: whether it is the one vector without a name that Weaviate has beside the named ones. It is called
            "default", as in Weaviate's own clients; then no named vector of the collection has that name.
        module: another module of Weaviate that makes the vectors; empty for none.
        multi: whether an object has several vectors there, as ColBERT makes them; this version only keeps these.
        binding: the number of the binding that was made after its creation; 0 for none.
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
    joint: bool = False
    nameless: bool = False
    module: str = ""
    multi: bool = False
    binding: int = 0

    @property
    def space_id(self) -> str:
        """The id of the space that it is bound to; empty if unknown."""
        return self.space.id if self.space else ""

    @property
    def field_names(self) -> list[str]:
        """The names of its fields, texts first."""
        return list(self.field_weights)

    @property
    def field_weights(self) -> dict[str, float]:
        """The weights of its fields by their names, texts first."""
        return {each.name: each.weight for each in (*self.text_fields, *self.image_fields)}


@dataclass(frozen=True, slots=True)
class MultiTenancy:
    """How a collection with tenants treats them.

    Attributes:
        auto_creation: whether a write for a tenant that does not exist creates it.
        auto_activation: whether a call for an inactive tenant activates it.
    """

    auto_creation: bool = False
    auto_activation: bool = False


@dataclass(frozen=True, slots=True)
class Reranker:
    """The store's module that reranks hits, by its name, with its options."""

    module: str
    options: Parameters = field(default_factory=dict)


class TenantActivity(Enum):
    """The activity status of a tenant, by Weaviate's name."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    OFFLOADED = "OFFLOADED"
    OFFLOADING = "OFFLOADING"
    ONLOADING = "ONLOADING"


@dataclass(frozen=True, slots=True)
class Tenant:
    """The owner of a part of a collection's objects."""

    name: str
    activity: TenantActivity = TenantActivity.ACTIVE


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name of a collection.

    Attributes:
        name: the alias's own name.
        collection: the name of the collection that it leads to, which may not exist any more.
    """

    name: str
    collection: str


@dataclass(frozen=True)
class Collection:
    """A set of objects with the same properties and named vectors.

    Attributes:
        multi_tenancy: None for a collection without tenants.
        replication: factor and deletionStrategy.
        sharding: desiredCount and virtualPerPhysical.
        inverted_index: as in Weaviate's invertedIndexConfig.
        object_ttl: enabled, deleteOn, and defaultTtl in seconds; empty if objects live for ever.
        default_vector: the named vector for searches that name none; empty lets the server choose.
        reranker: None if hits cannot be reranked.
        removed_vectors: the names of removed vectors whose data the store is still deleting.
    """

    name: str
    properties: tuple[Property, ...]
    vectors: tuple[NamedVector, ...]
    description: str = ""
    multi_tenancy: MultiTenancy | None = None
    replication: Parameters = field(default_factory=dict)
    sharding: Parameters = field(default_factory=dict)
    inverted_index: Parameters = field(default_factory=dict)
    object_ttl: Parameters = field(default_factory=dict)
    default_vector: str = ""
    reranker: Reranker | None = None
    removed_vectors: tuple[str, ...] = ()

    def once(self, work: "Callable[[Collection], Made]") -> Made:
        """Return what a function makes of this collection, which is made once: the same collection never changes.

        Args:
            work: a function of a module, which is kept as long as the collection.
        """
        if work not in self._made:
            self._made[work] = work(self)
        made: Made = self._made[work]
        return made

    def find_property(self, name: str) -> Property | None:
        """Return the property of a name, or None."""
        return self._properties.get(name)

    @cached_property
    def unhandled(self) -> frozenset[str]:
        """The properties that this version does not support, or only in part; writes do not change them."""
        return frozenset(each.name for each in self.properties if not each.handled)

    @cached_property
    def preserving(self) -> bool:
        """Whether its objects may have something that writes must not touch."""
        return bool(self.unhandled) or any(each.space is None for each in self.vectors)

    @property
    def creates_tenants(self) -> bool:
        """Whether a write for a tenant that does not exist creates it."""
        return self.multi_tenancy is not None and self.multi_tenancy.auto_creation

    @cached_property
    def bound_part(self) -> "Collection":
        """The collection with only those named vectors that are bound to a space; writes do not change the others."""
        return replace(self, vectors=tuple(each for each in self.vectors if each.space is not None))

    def find_vector(self, name: str) -> NamedVector | None:
        """Return the named vector of a name, or None."""
        return self._vectors.get(name)

    @cached_property
    def etag(self) -> str:
        """A word for what the store has of it: another one if it has changed, but for data being deleted."""
        whole = asdict(replace(self, removed_vectors=()))
        text = json.dumps(whole, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:ETAG_CHARS]

    @cached_property
    def blobs(self) -> tuple[str, ...]:
        """The names of the properties that take images."""
        return tuple(each.name for each in self.properties if each.data_type in BLOBS)

    @cached_property
    def hashes(self) -> frozenset[str]:
        """The names of the properties that take images, and of which the store keeps only the hashes."""
        return frozenset(each.name for each in self.properties if each.data_type is DataType.BLOB_HASH)

    @cached_property
    def _made(self) -> dict[Any, Any]:
        return {}

    @cached_property
    def _properties(self) -> dict[str, Property]:
        return {each.name: each for each in reversed(self.properties)}

    @cached_property
    def _vectors(self) -> dict[str, NamedVector]:
        return {each.name: each for each in reversed(self.vectors)}


def collection_name(name: str) -> str:
    """Return the name of a collection or an alias in Weaviate's spelling, with a capital letter first."""
    return name[:1].upper() + name[1:]


def is_alias(name: str, collection: Collection) -> bool:
    """Return whether the name by which a collection was found is an alias of it."""
    # Weaviate has no two names that differ in the case of letters only.
    return collection.name.lower() != name.lower()


def unknown_property(collection: Collection, path: str, names: Iterable[str], kind: str = "property") -> Violation:
    """Return that a collection has no such property; `names` are those that it has."""
    return unknown_name(collection, path, kind, names, "UNKNOWN_PROPERTY")


def unknown_vector(collection: Collection, path: str, rule: str = "has no such named vector; it has") -> Violation:
    """Return that a collection has no such named vector, or that another rule about them is broken, and its vectors."""
    names = some_of(each.name for each in collection.vectors)
    return Violation(path, f"collection {collection.name!r} {rule}: {names}", "UNKNOWN_VECTOR")


def unknown_name(collection: Collection, path: str, kind: str, names: Iterable[str] | None, reason: str) -> Violation:
    """Return that a collection has nothing of a kind by this name.

    Args:
        collection: the collection.
        path: of the name in the request.
        kind: what is named, such as "named vector".
        names: those that the collection has; None if another violation lists them.
        reason: the name of an ErrorReason without its prefix.
    """
    listed = "" if names is None else f"; it has: {some_of(names)}"
    return Violation(path, f"collection {collection.name!r} has no such {kind}{listed}", reason)


def some_of(names: Iterable[str]) -> str:
    """Return the first names, separated by commas."""
    first = list(islice(names, MAX_NAMES + 1))
    return ", ".join([*first[:MAX_NAMES], *(["..."] if len(first) > MAX_NAMES else [])]) or "none"
