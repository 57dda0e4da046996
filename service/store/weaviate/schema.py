"""Collections as Weaviate's schema has them, both ways.

The space binding lives in a named vector's vectorizer config: Weaviate keeps keys that it does not know there, returns
them and refuses to change them. A named vector that Weaviate's own multi2vec-nvidia fills is adopted: its space is its
model, its fields are the module's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from service.domain import Collection, DataType, Distance, MultiTenancy, NamedVector, Property, Space, WeightedField

__all__ = ["from_schema", "to_schema"]

Schema = dict[str, Any]

MODULE = "multi2vec-nvidia"
MODULE_MODEL = "nvidia/nvclip"
"""The module's model where the schema names none."""


def to_schema(collection: Collection) -> Schema:
    """Return what Weaviate is asked to create."""
    return {
        "class": collection.name,
        "description": collection.description,
        "properties": [_property_to_schema(each) for each in collection.properties],
        # Without these Weaviate refuses filters by null, by length and by time.
        "invertedIndexConfig": {"indexNullState": True, "indexPropertyLength": True, "indexTimestamps": True},
        "vectorConfig": {each.name: _vector_to_schema(each) for each in collection.vectors},
        "multiTenancyConfig": _tenancy_to_schema(collection.multi_tenancy),
    }


def from_schema(schema: Mapping[str, Any]) -> Collection:
    """Return a collection from Weaviate's schema, whoever made it.

    What this version does not handle stays visible without its meaning: a property's type, a vector's distance is None
    then. The nameless vector of an old collection is left out.
    """
    vectors = _mapping(schema.get("vectorConfig"))
    return Collection(
        name=str(schema["class"]),
        properties=tuple(_property_from_schema(_mapping(each)) for each in schema.get("properties") or ()),
        vectors=tuple(_vector_from_schema(name, _mapping(vectors[name])) for name in sorted(vectors)),
        description=str(schema.get("description") or ""),
        multi_tenancy=_tenancy_from_schema(_mapping(schema.get("multiTenancyConfig"))),
    )


def _tenancy_to_schema(tenancy: MultiTenancy | None) -> Schema:
    if tenancy is None:
        return {"enabled": False}
    return {
        "enabled": True,
        "autoTenantCreation": tenancy.auto_creation,
        "autoTenantActivation": tenancy.auto_activation,
    }


def _tenancy_from_schema(schema: Mapping[str, Any]) -> MultiTenancy | None:
    if not schema.get("enabled"):
        return None
    return MultiTenancy(bool(schema.get("autoTenantCreation")), bool(schema.get("autoTenantActivation")))


def _property_to_schema(property_: Property) -> Schema:
    assert property_.data_type is not None, "a collection to create has known types only"
    schema: Schema = {
        "name": _property_name(property_.name),
        "dataType": [property_.data_type.value],
        "description": property_.description,
    }
    if property_.data_type is DataType.BLOB:
        schema |= {"indexFilterable": False, "indexSearchable": False}
    return schema


def _property_from_schema(schema: Mapping[str, Any]) -> Property:
    types: Sequence[str] = schema.get("dataType") or ()
    known = {each.value: each for each in DataType}
    data_type = known.get(types[0]) if len(types) == 1 else None
    return Property(str(schema["name"]), data_type, str(schema.get("description") or ""))


def _vector_to_schema(vector: NamedVector) -> Schema:
    assert vector.space is not None, "a named vector to create is bound to a space"
    assert vector.distance is not None, "a named vector to create has a known distance"
    binding = {
        "space": vector.space.id,
        "dimension": vector.space.dimension,
        "model": vector.space.model,
        "imageFields": [_property_name(each.name) for each in vector.image_fields],
        "textFields": [_property_name(each.name) for each in vector.text_fields],
        "weights": {
            "imageFields": [each.weight for each in vector.image_fields],
            "textFields": [each.weight for each in vector.text_fields],
        },
    }
    return {
        "vectorizer": {"none": binding},
        "vectorIndexType": "hnsw",
        "vectorIndexConfig": {"distance": vector.distance.value},
    }


def _vector_from_schema(name: str, schema: Mapping[str, Any]) -> NamedVector:
    vectorizer = _mapping(schema.get("vectorizer"))
    module = next(iter(vectorizer), "none")
    config = _mapping(vectorizer.get(module))
    known = {each.value: each for each in Distance}
    return NamedVector(
        name=name,
        space=_space_from_schema(config) or (_adopted_space(config) if module == MODULE else None),
        image_fields=_fields_from_schema(config, "imageFields"),
        text_fields=_fields_from_schema(config, "textFields"),
        distance=known.get(str(_mapping(schema.get("vectorIndexConfig")).get("distance"))),
    )


def _space_from_schema(config: Mapping[str, Any]) -> Space | None:
    id_, dimension = config.get("space"), config.get("dimension")
    if not isinstance(id_, str) or not isinstance(dimension, int | float):
        return None
    return Space(id_, int(dimension), str(config.get("model") or ""))


def _adopted_space(config: Mapping[str, Any]) -> Space:
    """Return the space of a named vector that Weaviate's own module for nvclip fills: its model's."""
    model = str(config.get("model") or MODULE_MODEL)
    return Space(model, 0, model)


def _fields_from_schema(config: Mapping[str, Any], key: str) -> tuple[WeightedField, ...]:
    names = config.get(key) or ()
    weights = _mapping(config.get("weights")).get(key) or ()
    if len(weights) != len(names):
        return tuple(WeightedField(str(name)) for name in names)
    return tuple(WeightedField(str(name), float(weight)) for name, weight in zip(names, weights, strict=True))


def _property_name(name: str) -> str:
    # Weaviate does the same to the property itself; the fields of a vector have to follow.
    return name[:1].lower() + name[1:]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
