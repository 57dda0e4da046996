"""Objects as the store takes and returns them, and their scope."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID

from embedders.contract import Vector
from service.domain.collections import Property


class ObjectValue(dict[str, Any]):
    """The value of a property of type object; a plain dict is a place."""


PropertyValue = (
    None
    | bool
    | int
    | float
    | str
    | list[bool]
    | list[int]
    | list[float]
    | list[str]
    | list[ObjectValue]
    | dict[str, float]
    | ObjectValue
)
"""A property's value. Dates and UUIDs are strings, places are dicts; blobs are images, not properties."""


class Consistency(Enum):
    """How many replicas must answer. The values are Weaviate's words."""

    ONE = "ONE"
    QUORUM = "QUORUM"
    ALL = "ALL"


@dataclass(frozen=True, slots=True)
class Scope:
    """The tenant of a call, and how many replicas must answer.

    Attributes:
        tenant: the tenant; empty where the collection has none.
        consistency: None for the store's default.
    """

    tenant: str = ""
    consistency: Consistency | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the store takes and returns it.

    Attributes:
        images: encoded images by blob property.
        vectors: float32 vectors, shape (dimension,), by named vector.
    """

    id: UUID
    properties: Mapping[str, PropertyValue] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """What to change of an object.

    Attributes:
        properties: values by name; None clears one.
        images: encoded images by blob property; None clears one.
        vectors: by named vector.
        lost_vectors: the names of those to delete.
    """

    id: UUID
    properties: Mapping[str, PropertyValue] = field(default_factory=dict)
    images: Mapping[str, bytes | None] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    lost_vectors: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ReturnNames:
    """Which parts of objects to return, by name, as a caller asked; no properties means all but blobs."""

    properties: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReturnFields:
    """Which parts of an object to return; the names exist in the collection.

    Attributes:
        properties: names, without blobs.
        images: names of blob properties.
        vectors: names of named vectors.
        nested: the parts of properties that are objects.
    """

    properties: Sequence[str] = ()
    images: Sequence[str] = ()
    vectors: Sequence[str] = ()
    nested: Mapping[str, tuple[Property, ...]] = field(default_factory=dict)
