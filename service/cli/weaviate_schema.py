"""The Weaviate schema of a Vecgate collection, with Weaviate's module multi2vec-nvidia and Vecgate as its NIM."""

from collections.abc import Iterable
from typing import Any

from service.domain import DataType, Distance
from service.weaviate_names import INDEXING, parameters_from_pb
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import vector_index_pb2 as index_pb

MODULE = "multi2vec-nvidia"
PARTS = {
    "multi_tenancy": ("multiTenancyConfig", ()),
    "replication": ("replicationConfig", ("factor", "deletionStrategy")),
    "sharding": ("shardingConfig", ("desiredCount", "virtualPerPhysical")),
    "inverted_index": ("invertedIndexConfig", ()),
}
"""Fields of a collection, their names in Weaviate, and which parameters to set; none means all."""


def weaviate_schema(collection: pb.Collection, url: str) -> dict[str, Any]:
    """Return the schema for Weaviate's REST API, with Vecgate's HTTP endpoint as the module's NIM."""
    schema: dict[str, Any] = {"class": collection.name}
    if collection.description:
        schema["description"] = collection.description
    schema["properties"] = _properties(collection.properties)
    schema["vectorConfig"] = {each.name: _vector(each, url) for each in collection.vectors}
    for field, part in collection.ListFields():
        if field.name in PARTS:
            name, only = PARTS[field.name]
            schema[name] = parameters_from_pb(part, only)
    return schema


def unknown_properties(collection: pb.Collection) -> list[str]:
    """Return the names of the properties with unsupported types, which the schema leaves out."""
    return [each.name for each in collection.properties if each.data_type == property_pb.DATA_TYPE_UNSPECIFIED]


def has_fields(vector: pb.VectorConfig) -> bool:
    """Return whether a named vector has fields that the module can embed: one by one."""
    return not is_joint(vector) and bool(vector.image_fields or vector.text_fields)


def is_joint(vector: pb.VectorConfig) -> bool:
    """Return whether the fields of a named vector are one input, which the module cannot make."""
    return vector.combination == pb.COMBINATION_JOINT_INPUT


def is_weighted(vector: pb.VectorConfig) -> bool:
    """Return whether a named vector's fields have different weights.

    Equal weights are left out: without weights, the module accepts missing fields and text arrays.
    """
    return len({_weight(each) for each in (*vector.image_fields, *vector.text_fields)}) > 1


def _properties(properties: Iterable[property_pb.Property]) -> list[dict[str, Any]]:
    return [_property(each) for each in properties if each.data_type != property_pb.DATA_TYPE_UNSPECIFIED]


def _property(property_: property_pb.Property) -> dict[str, Any]:
    data_type = DataType[property_pb.DataType.Name(property_.data_type).removeprefix("DATA_TYPE_")]
    schema: dict[str, Any] = {"name": property_.name, "dataType": [data_type.value]}
    if property_.description:
        schema["description"] = property_.description
    schema |= parameters_from_pb(property_, INDEXING)
    if property_.nested_properties:
        schema["nestedProperties"] = _properties(property_.nested_properties)
    return schema


def _vector(vector: pb.VectorConfig, url: str) -> dict[str, Any]:
    return {
        "vectorizer": {MODULE: _module(vector, url)} if has_fields(vector) else {"none": {}},
        "vectorIndexType": vector.index.WhichOneof("type") or "hnsw",
        "vectorIndexConfig": _index(vector.index),
    }


def _module(vector: pb.VectorConfig, url: str) -> dict[str, Any]:
    # The module reads properties in alphabetical order, and weights in the configured order.
    kinds = {
        kind: sorted(fields, key=lambda each: each.name)
        for kind, fields in (("imageFields", vector.image_fields), ("textFields", vector.text_fields))
        if fields
    }
    # The id of the space, because several spaces may share the name of a model.
    module: dict[str, Any] = {"baseURL": url, "model": vector.space or vector.model}
    module |= {kind: [each.name for each in fields] for kind, fields in kinds.items()}
    if is_weighted(vector):
        module["weights"] = {kind: [_weight(each) for each in fields] for kind, fields in kinds.items()}
    return module


def _weight(field: pb.WeightedField) -> float:
    # Rounded to the precision of float32: 0.9 arrives as 0.8999999761581421.
    return float(f"{field.weight:.7g}") if field.HasField("weight") else 1.0


def _index(index: index_pb.VectorIndex) -> dict[str, Any]:
    type_ = index.WhichOneof("type")
    config = parameters_from_pb(getattr(index, type_)) if type_ else {}
    parts = [(config, index.quantizer)]
    if type_ == "dynamic":
        flat, hnsw = config.setdefault("flat", {}), config.setdefault("hnsw", {})
        parts = [(hnsw, index.quantizer), (flat, index.dynamic.flat_quantizer)]
    for part, quantizer in parts:
        part.update(_quantizer(quantizer))
    if index.distance != index_pb.DISTANCE_UNSPECIFIED:
        distance = Distance[index_pb.Distance.Name(index.distance).removeprefix("DISTANCE_")].value
        for part in (config, *(part for part, _ in parts)):
            part["distance"] = distance
    return config


def _quantizer(quantizer: index_pb.Quantizer) -> dict[str, Any]:
    type_ = quantizer.WhichOneof("type")
    if type_ is None:
        return {}
    if type_ == "none":
        return {"skipDefaultQuantization": True}
    return {type_: {**parameters_from_pb(getattr(quantizer, type_)), "enabled": True}}
