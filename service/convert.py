"""Protobuf to domain and back. Nothing is checked here: validation.py does that before, core where it knows more."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf import struct_pb2

from embedders.inputs import Embedding, EmbedOptions, ImageInput, Input, Modality, Priority, Purpose, TextInput, Vector
from embedders.spec import EmbedderSpec
from service.core.conformance import DraftObject
from service.core.importing import VectorOrigin, VectorReport
from service.core.searching import NearImage, NearText, NearVector, Query, ReturnNames
from service.domain import (
    Collection,
    DataType,
    Distance,
    Hit,
    NamedVector,
    Property,
    StoredObject,
    WeightedField,
)
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import input_pb2, vector_pb2
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb

__all__ = [
    "collection_from_pb",
    "collection_to_pb",
    "draft_from_pb",
    "embedder_details_to_pb",
    "embedder_to_pb",
    "embedding_to_pb",
    "hit_to_pb",
    "input_from_pb",
    "object_to_pb",
    "options_from_pb",
    "query_from_pb",
    "report_to_pb",
    "return_names",
]

PURPOSES = {
    embedding_pb.PURPOSE_UNSPECIFIED: Purpose.QUERY,
    embedding_pb.PURPOSE_QUERY: Purpose.QUERY,
    embedding_pb.PURPOSE_DOCUMENT: Purpose.DOCUMENT,
}
PRIORITIES = {
    embedding_pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    embedding_pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    embedding_pb.PRIORITY_BULK: Priority.BULK,
}
MODALITIES = {Modality.TEXT: embedding_pb.MODALITY_TEXT, Modality.IMAGE: embedding_pb.MODALITY_IMAGE}
DATA_TYPES = {data_type: collection_pb.DataType.Value(f"DATA_TYPE_{data_type.name}") for data_type in DataType}
DATA_TYPES_FROM_PB = {number: data_type for data_type, number in DATA_TYPES.items()}
DISTANCES = {distance: collection_pb.Distance.Value(f"DISTANCE_{distance.name}") for distance in Distance}
DISTANCES_FROM_PB = {number: distance for distance, number in DISTANCES.items()}
ORIGINS = {origin: object_pb.VectorOrigin.Value(f"VECTOR_ORIGIN_{origin.name}") for origin in VectorOrigin}


def input_from_pb(message: input_pb2.Input, *, truncate: bool) -> Input | None:
    """Return an input, or None when its content is not set."""
    match message.WhichOneof("content"):
        case "text":
            return TextInput(message.text, truncate)
        case "image":
            return ImageInput(message.image.content)
    return None


def options_from_pb(request: embedding_pb.EmbedInputsRequest) -> EmbedOptions:
    """Return how to embed the inputs of a request; unspecified means an interactive query."""
    return EmbedOptions(PURPOSES[request.purpose], PRIORITIES[request.priority])


def vector_to_pb(vector: Vector) -> vector_pb2.Vector:
    """Return a vector, float32 of shape (dimension,), as little-endian bytes."""
    return vector_pb2.Vector(data=np.ascontiguousarray(vector, "<f4").tobytes())


def embedding_to_pb(embedding: Embedding) -> embedding_pb.Embedding:
    """Return an embedding."""
    return embedding_pb.Embedding(
        vector=vector_to_pb(embedding.vector), token_count=embedding.token_count, truncated=embedding.truncated
    )


def embedder_to_pb(spec: EmbedderSpec) -> embedding_pb.EmbedderInfo:
    """Return what every answer says of an embedder: name, model, space and dimension."""
    return embedding_pb.EmbedderInfo(name=spec.name, model=spec.model, space=spec.space, dimension=spec.dimension)


def embedder_details_to_pb(spec: EmbedderSpec, fault: str | None) -> embedding_pb.EmbedderInfo:
    """Return all that ListEmbedders says of an embedder."""
    info = embedder_to_pb(spec)
    info.modalities.extend(sorted(MODALITIES[each] for each in spec.modalities))
    info.limits.max_text_bytes = spec.limits.max_text_bytes
    info.limits.max_text_tokens = spec.max_text_tokens or 0
    info.limits.max_image_bytes = spec.limits.max_image_bytes
    info.limits.max_image_pixels = spec.limits.max_image_pixels
    info.health = embedding_pb.EMBEDDER_HEALTH_UNAVAILABLE if fault else embedding_pb.EMBEDDER_HEALTH_READY
    info.health_detail = fault or ""
    info.weights_digest = spec.weights_digest or ""
    return info


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
    return Collection(message.name, properties, vectors, message.description), embedders


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
    return message


def draft_from_pb(message: object_pb.Object) -> DraftObject:
    """Return an object as sent."""
    return DraftObject(
        message.id,
        {name: _value_from_pb(value) for name, value in message.properties.fields.items()},
        {name: image.content for name, image in message.images.items()},
        {name: vector.data for name, vector in message.vectors.items()},
    )


def _value_from_pb(value: struct_pb2.Value) -> Any:
    """Return a value as JSON has it; json_format refuses NaN, which is for the check of properties to name."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return {name: _value_from_pb(each) for name, each in value.struct_value.fields.items()}
        case "list_value":
            return [_value_from_pb(each) for each in value.list_value.values]
        case None | "null_value":
            return None
        case kind:
            return getattr(value, kind)


def object_to_pb(each: StoredObject) -> object_pb.Object:
    """Return an object."""
    message = object_pb.Object(id=str(each.id))
    message.properties.update({name: value for name, value in each.properties.items() if value is not None})
    for name, content in each.images.items():
        message.images[name].content = content
    for name, vector in each.vectors.items():
        message.vectors[name].CopyFrom(vector_to_pb(vector))
    return message


def report_to_pb(report: VectorReport) -> object_pb.StoredVector:
    """Return where a named vector came from."""
    return object_pb.StoredVector(
        name=report.name, origin=ORIGINS[report.origin], embedder=report.embedder, truncated=report.truncated
    )


def query_from_pb(request: search_pb.SearchObjectsRequest) -> Query:
    """Return what a search looks for."""
    match request.WhichOneof("query"):
        case "near_text":
            return NearText(tuple(request.near_text.concepts), request.near_text.truncate)
        case "near_image":
            return NearImage(request.near_image.image.content)
        case "near_vector":
            return NearVector(request.near_vector.vector.data, request.near_vector.space)
    return None


def return_names(request: search_pb.SearchObjectsRequest | object_pb.GetObjectRequest) -> ReturnNames:
    """Return which fields a caller asked for."""
    return ReturnNames(tuple(request.return_properties), tuple(request.return_images), tuple(request.return_vectors))


def hit_to_pb(hit: Hit) -> search_pb.Hit:
    """Return a hit."""
    return search_pb.Hit(object=object_to_pb(hit.object), distance=hit.distance, certainty=hit.certainty)
