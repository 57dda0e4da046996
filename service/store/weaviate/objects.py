"""The objects of a collection in Weaviate: the client's handle on them, and their way there."""

from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from weaviate import WeaviateAsyncClient
from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.data import DataObject, GeoCoordinate
from weaviate.collections import CollectionAsync

from embedders.contract import Vector
from service.domain import (
    MAX_SAFE_INT,
    ObjectValue,
    PropertyValue,
    Scope,
    StoredObject,
)

Objects = CollectionAsync[Mapping[str, Any], None]


# The client builds a dozen objects for each handle, which costs a tenth of a search.
@lru_cache(maxsize=256)
def objects_within(client: WeaviateAsyncClient, collection: str, scope: Scope) -> Objects:
    """Return the client's handle on a collection's objects, or on those of a tenant."""
    found: Objects = client.collections.use(collection)
    if scope.tenant:
        found = found.with_tenant(scope.tenant)
    if scope.consistency is not None:
        found = found.with_consistency_level(ConsistencyLevel(scope.consistency.value))
    return found


def find_fault(object_: StoredObject) -> str | None:
    """Return why an object must not be written, or None: Weaviate would store it wrongly or fail its batch."""
    for name, value in object_.properties.items():
        # Numbers travel to Weaviate as doubles.
        if isinstance(value, int) and abs(value) > MAX_SAFE_INT:
            return f"property {name!r}: integers beyond 2**53 would lose digits"
    for name, vector in object_.vectors.items():
        if vector.ndim != 1 or not vector.size:
            return f"vector {name!r}: has no values, or more than one dimension"
        if not 0 < np.vdot(vector, vector) < np.inf and (not np.isfinite(vector).all() or not vector.any()):
            return f"vector {name!r}: holds NaN or infinite values, or only zeros"
    return None


def nudge(vector: Vector) -> Vector:
    """Return a vector that differs from another by the smallest possible step."""
    nudged = vector.copy()
    largest = int(np.abs(vector).argmax())
    nudged[largest] = np.nextafter(vector[largest], np.float32(0))
    return nudged


def to_weaviate(object_: StoredObject) -> DataObject[Mapping[str, Any], None]:
    """Return an object as the client takes it: images as base64, vectors by name."""
    properties: dict[str, Any] = {
        name: _value_to_weaviate(value) for name, value in object_.properties.items() if value is not None
    }
    properties |= {name: b64encode(image).decode("ascii") for name, image in object_.images.items()}
    # As lists: the client squeezes arrays, which breaks vectors of one value.
    vectors = {name: vector.astype(np.float32, copy=False).tolist() for name, vector in object_.vectors.items()}
    return DataObject(properties=properties, uuid=object_.id, vector=vectors)


def _value_to_weaviate(value: PropertyValue) -> object:
    if isinstance(value, ObjectValue):
        return {name: _value_to_weaviate(each) for name, each in value.items()}
    if isinstance(value, list) and any(isinstance(each, ObjectValue) for each in value):
        return [_value_to_weaviate(each) for each in value]
    if isinstance(value, dict):
        return GeoCoordinate(latitude=value["latitude"], longitude=value["longitude"])
    # The client chooses an array's type by its first item.
    if isinstance(value, list) and any(isinstance(each, float) for each in value):
        return [float(each) for each in value if isinstance(each, int | float)]
    return value
