"""Objects as the store takes and returns them, and their scope."""

import hashlib
from base64 import b64encode
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


def hash_image(content: bytes) -> str:
    """Return the hash that a BLOB_HASH keeps of an image: the SHA-256 of its base64, as 64 hexadecimal digits.

    Source: entities/schema/data_type_hash.go of Weaviate 1.39.
    """
    return hashlib.sha256(b64encode(content)).hexdigest()


@dataclass(slots=True)
class StoredObject:
    """An object as the store takes and returns it.

    Not frozen, as searches make one for each hit, and a frozen one takes twice as long.

    Attributes:
        images: encoded images by blob property.
        vectors: float32 vectors, shape (dimension,), by named vector.
        hashes: the hashes of images by property of type BLOB_HASH. A store returns them, and makes them itself of the
            images that it takes.
    """

    id: UUID
    properties: Mapping[str, PropertyValue] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)


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
        properties: names, without blobs. Of a BLOB_HASH, the hash is returned as a text.
        images: names of blob properties.
        vectors: names of named vectors.
        nested: the parts of properties that are objects.
        hashes: names of properties of type BLOB_HASH.
    """

    properties: Sequence[str] = ()
    images: Sequence[str] = ()
    vectors: Sequence[str] = ()
    nested: Mapping[str, tuple[Property, ...]] = field(default_factory=dict)
    hashes: Sequence[str] = ()
