"""CollectionService: collections, properties and named vectors."""

from collections.abc import Iterable

from service.domain import Collection, DataType, Distance, MultiTenancy, NamedVector, Property, WeightedField
from vecgate.v1 import collection_service_pb2 as collection_pb

__all__ = ["collection_from_pb", "collection_to_pb"]

DATA_TYPES = {data_type: collection_pb.DataType.Value(f"DATA_TYPE_{data_type.name}") for data_type in DataType}
DATA_TYPES_FROM_PB = {number: data_type for data_type, number in DATA_TYPES.items()}
DISTANCES = {distance: collection_pb.Distance.Value(f"DISTANCE_{distance.name}") for distance in Distance}
DISTANCES_FROM_PB = {number: distance for distance, number in DISTANCES.items()}


def collection_from_pb(message: collection_pb.Collection) -> tuple[Collection, dict[str, str]]:
    """Return a collection whose named vectors have no spaces yet, and the embedder named for each of them."""
    properties = tuple(
        Property(each.name, DATA_TYPES_FROM_PB[each.data_type], each.description) for each in message.properties
    )
    vectors = tuple(
        NamedVector(
            each.name,
            space=None,
            image_fields=_fields_from_pb(each.image_fields),
            text_fields=_fields_from_pb(each.text_fields),
            distance=DISTANCES_FROM_PB.get(each.distance, Distance.COSINE),
        )
        for each in message.vectors
    )
    embedders = {each.name: each.embedder for each in message.vectors}
    tenancy = message.multi_tenancy
    multi_tenancy = MultiTenancy(tenancy.auto_tenant_creation, tenancy.auto_tenant_activation)
    return (
        Collection(message.name, properties, vectors, message.description, multi_tenancy if tenancy.enabled else None),
        embedders,
    )


def _fields_from_pb(fields: Iterable[collection_pb.WeightedField]) -> tuple[WeightedField, ...]:
    return tuple(WeightedField(each.name, each.weight if each.HasField("weight") else 1.0) for each in fields)


def collection_to_pb(collection: Collection, embedder_names: dict[str, str]) -> collection_pb.Collection:
    """Return a collection.

    Args:
        collection: the collection.
        embedder_names: this server's embedder of each space.
    """
    message = collection_pb.Collection(name=collection.name, description=collection.description)
    for each in collection.properties:
        data_type = DATA_TYPES[each.data_type] if each.data_type else collection_pb.DATA_TYPE_UNSPECIFIED
        message.properties.add(name=each.name, data_type=data_type, description=each.description)
    for vector in collection.vectors:
        config = message.vectors.add(name=vector.name)
        config.distance = DISTANCES[vector.distance] if vector.distance else collection_pb.DISTANCE_UNSPECIFIED
        for field in vector.image_fields:
            config.image_fields.add(name=field.name, weight=field.weight)
        for field in vector.text_fields:
            config.text_fields.add(name=field.name, weight=field.weight)
        if vector.space:
            config.embedder = embedder_names.get(vector.space.id, "")
            config.model = vector.space.model
            config.space = vector.space.id
            config.dimension = vector.space.dimension
    if collection.multi_tenancy is not None:
        message.multi_tenancy.enabled = True
        message.multi_tenancy.auto_tenant_creation = collection.multi_tenancy.auto_creation
        message.multi_tenancy.auto_tenant_activation = collection.multi_tenancy.auto_activation
    return message
