"""The objects of a collection in Weaviate: the client's handle on them, and their way there and back."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np
from weaviate import WeaviateAsyncClient
from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.data import DataObject, GeoCoordinate
from weaviate.classes.query import QueryNested
from weaviate.collections import CollectionAsync
from weaviate.collections.queries import base_executor

from embedders.contract import Vector
from service.domain import (
    MAX_SAFE_INT,
    DataType,
    ObjectValue,
    Property,
    PropertyValue,
    ReturnFields,
    Scope,
    StoredObject,
)

Objects = CollectionAsync[Mapping[str, Any], None]

# The client would make datetimes of dates, which have microseconds; Weaviate keeps nanoseconds.
vars(base_executor)["_datetime_from_weaviate_str"] = str

_Executor = base_executor._BaseExecutor  # noqa: SLF001
_EXTRACT = "_BaseExecutor__extract_vector_for_object"
_extract_vectors: Callable[[Any, Any], dict[str, Any]] = vars(_Executor)[_EXTRACT]


def _extract_all_vectors(executor: Any, said: Any) -> dict[str, Any]:
    """Return all vectors of an object. The client omits the named ones if the object also has one without a name."""
    found = _extract_vectors(executor, said)
    if said.vector_bytes and said.vectors:
        found |= _extract_vectors(executor, type(said)(vectors=said.vectors))
    return found


setattr(_Executor, _EXTRACT, _extract_all_vectors)


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
        if not np.isfinite(vector).all() or not vector.any():
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


def from_weaviate(
    id_: UUID, properties: Mapping[str, Any], vectors: Mapping[str, Any], fields: ReturnFields
) -> StoredObject:
    """Return an object of the client's with the fields that were asked for; what it lacks is left out."""
    values = ((name, _value_from_weaviate(properties.get(name))) for name in fields.properties)
    return StoredObject(
        id=UUID(int=id_.int),
        properties={name: value for name, value in values if value is not None},
        images={name: b64decode(properties[name]) for name in fields.images if properties.get(name)},
        vectors={name: _vector_from_weaviate(vectors[name]) for name in fields.vectors if len(vectors.get(name, ()))},
    )


def names_to_weaviate(fields: ReturnFields) -> list[str | QueryNested]:
    """Return the properties and images that were asked for as the client asks for them; objects by their parts."""
    names: list[str | QueryNested] = [
        _nested_to_weaviate(name, fields.nested[name]) if name in fields.nested else name for name in fields.properties
    ]
    return [*names, *fields.images]


def _nested_to_weaviate(name: str, parts: Sequence[Property]) -> QueryNested:
    # Weaviate returns of an object only what is named.
    handled = [each for each in parts if each.data_type not in (None, DataType.BLOB)]
    inner: list[Any] = [_nested_to_weaviate(each.name, each.nested) if each.nested else each.name for each in handled]
    return QueryNested(name=name, properties=inner)


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


def _value_from_weaviate(value: object) -> PropertyValue:
    if isinstance(value, list):
        items: Any = [_value_from_weaviate(each) for each in value]
        return None if None in items else items
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        parts = ((name, _value_from_weaviate(each)) for name, each in value.items())
        return ObjectValue({name: part for name, part in parts if part is not None})
    if isinstance(value, GeoCoordinate):
        return {"latitude": _shortest(value.latitude), "longitude": _shortest(value.longitude)}
    return value if isinstance(value, bool | int | float | str) else None


def _shortest(value: float) -> float:
    # Weaviate keeps 32 bits of a coordinate; as a double, 52.52 would come back as 52.52000045776367.
    return float(str(np.float32(value)))


def _vector_from_weaviate(vector: object) -> Vector:
    return np.asarray(vector, dtype=np.float32)
