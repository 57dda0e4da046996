"""CollectionService: collections, properties and named vectors."""

from collections.abc import Iterable, Sequence

from google.protobuf import json_format

from service.core.collections.changes import CollectionChange, VectorDraft
from service.domain import Collection, DataType, MultiTenancy, NamedVector, Property, Reranker, WeightedField
from service.rpc.collections.parameters import parameters_from_pb, parameters_to_pb
from service.rpc.collections.vector_index import DISTANCES_FROM_PB, index_from_pb, index_to_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import property_pb2 as property_pb

DATA_TYPES = {data_type: property_pb.DataType.Value(f"DATA_TYPE_{data_type.name}") for data_type in DataType}
DATA_TYPES_FROM_PB = {number: data_type for data_type, number in DATA_TYPES.items()}
INDEXING = ("tokenization", "indexFilterable", "indexSearchable", "indexRangeFilters")
OUTPUT_ONLY = ("asyncEnabled", "actualCount")
FIELDS = (
    "description",
    "properties",
    "vectors",
    "multi_tenancy",
    "replication",
    "sharding",
    "inverted_index",
    "default_vector",
    "reranker",
)


def collection_from_pb(message: collection_pb.Collection) -> tuple[Collection, list[VectorDraft]]:
    """Return a collection to create, without its named vectors, and these, which have no spaces yet."""
    tenancy = message.multi_tenancy
    multi_tenancy = MultiTenancy(tenancy.auto_tenant_creation, tenancy.auto_tenant_activation)
    collection = Collection(
        message.name,
        tuple(_property_from_pb(each) for each in message.properties),
        (),
        message.description,
        multi_tenancy if tenancy.enabled else None,
        replication=_settings(message, "replication"),
        sharding=_settings(message, "sharding"),
        inverted_index=_settings(message, "inverted_index"),
        default_vector=message.default_vector,
        reranker=_reranker_from_pb(message),
    )
    return collection, [_vector_from_pb(each) for each in message.vectors]


def change_from_pb(message: collection_pb.Collection, mask: Sequence[str]) -> CollectionChange:
    """Return what is to be changed; an empty mask means all fields that are set."""
    wanted = FIELDS if not mask or "*" in mask else mask

    def parameters(name: str) -> dict[str, object]:
        return _settings(message, name) if name in wanted else {}

    def text(name: str) -> str | None:
        value: str = getattr(message, name)
        return value if name in wanted and (value or mask) else None

    return CollectionChange(
        description=text("description"),
        properties=tuple(map(_property_from_pb, message.properties)) if "properties" in wanted else (),
        vectors=tuple(map(_vector_from_pb, message.vectors)) if "vectors" in wanted else (),
        multi_tenancy=parameters("multi_tenancy"),
        replication=parameters("replication"),
        sharding=parameters("sharding"),
        inverted_index=parameters("inverted_index"),
        default_vector=text("default_vector"),
        reranker=_reranker_from_pb(message) if "reranker" in wanted else None,
    )


def _settings(message: collection_pb.Collection, name: str) -> dict[str, object]:
    parameters = parameters_from_pb(getattr(message, name))
    return {each: value for each, value in parameters.items() if each not in OUTPUT_ONLY}


def _reranker_from_pb(message: collection_pb.Collection) -> Reranker | None:
    if not message.HasField("reranker"):
        return None
    return Reranker(message.reranker.module, json_format.MessageToDict(message.reranker.options))


def _property_from_pb(message: property_pb.Property) -> Property:
    return Property(
        message.name,
        DATA_TYPES_FROM_PB.get(message.data_type),
        message.description,
        parameters_from_pb(message, only=INDEXING),
        tuple(map(_property_from_pb, message.nested_properties)),
    )


def _vector_from_pb(message: collection_pb.VectorConfig) -> VectorDraft:
    fields = (*message.image_fields, *message.text_fields)
    vector = NamedVector(
        message.name,
        space=None,
        image_fields=_fields_from_pb(message.image_fields),
        text_fields=_fields_from_pb(message.text_fields),
        distance=DISTANCES_FROM_PB.get(message.index.distance),
        index=index_from_pb(message.index),
        native=message.native,
        base_url=message.base_url,
        # To Weaviate's module none are not the same as equal ones.
        weighted=not message.native or any(each.HasField("weight") for each in fields),
    )
    return VectorDraft(vector, message.embedder, message.model)


def _fields_from_pb(fields: Iterable[collection_pb.WeightedField]) -> tuple[WeightedField, ...]:
    return tuple(WeightedField(each.name, each.weight if each.HasField("weight") else 1.0) for each in fields)


def collection_to_pb(
    collection: Collection, embedder_names: dict[str, str], default_vector: str
) -> collection_pb.Collection:
    """Return a collection.

    Args:
        collection: the collection.
        embedder_names: this server's embedder of each space.
        default_vector: the named vector of searches that name none; empty for none.
    """
    message = collection_pb.Collection(
        name=collection.name, description=collection.description, default_vector=default_vector
    )
    for each in collection.properties:
        _property_to_pb(each, message.properties.add())
    for vector in collection.vectors:
        _vector_to_pb(vector, embedder_names, message.vectors.add())
    if collection.multi_tenancy is not None:
        message.multi_tenancy.enabled = True
        message.multi_tenancy.auto_tenant_creation = collection.multi_tenancy.auto_creation
        message.multi_tenancy.auto_tenant_activation = collection.multi_tenancy.auto_activation
    if collection.reranker is not None:
        message.reranker.module = collection.reranker.module
        message.reranker.options.update(collection.reranker.options)
    for name in ("replication", "sharding", "inverted_index"):
        parameters_to_pb(getattr(collection, name), getattr(message, name))
    return message


def _property_to_pb(property_: Property, message: property_pb.Property) -> None:
    message.name = property_.name
    message.description = property_.description
    if property_.data_type is not None:
        message.data_type = DATA_TYPES[property_.data_type]
    parameters_to_pb({name: property_.indexing.get(name) for name in INDEXING}, message)
    for each in property_.nested:
        _property_to_pb(each, message.nested_properties.add())


def _vector_to_pb(vector: NamedVector, embedder_names: dict[str, str], message: collection_pb.VectorConfig) -> None:
    message.name = vector.name
    for fields, listed in ((vector.image_fields, message.image_fields), (vector.text_fields, message.text_fields)):
        for field in fields:
            listed.add(name=field.name, weight=field.weight if vector.weighted else None)
    index_to_pb(vector.index, vector.distance, message.index)
    message.native, message.base_url = vector.native, vector.base_url
    if vector.space:
        message.embedder = embedder_names.get(vector.space.id, "")
        message.model = vector.space.model
        message.space = vector.space.id
        message.dimension = vector.space.dimension
