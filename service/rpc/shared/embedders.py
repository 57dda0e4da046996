"""EmbeddingService: inputs, options, vectors and embedders."""

import numpy as np

from embedders.contract import (
    EmbedderSpec,
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    Modality,
    Priority,
    Purpose,
    TextInput,
    Vector,
)
from vecgate.v1 import embedder_pb2, input_pb2, vector_pb2
from vecgate.v1 import embedding_service_pb2 as embedding_pb

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


def input_from_pb(message: input_pb2.Input, *, truncate: bool) -> Input | None:
    """Return an input, or None when its content is not set."""
    match message.WhichOneof("content"):
        case "text":
            return TextInput(message.text, truncate)
        case "image":
            return ImageInput(message.image.content)
    return None


def options_from_pb(request: embedding_pb.EmbedInputsRequest, api_key: str | None) -> EmbedOptions:
    """Return how to embed the inputs of a request, with its caller's key if it brought one.

    What is unspecified means an interactive query.
    """
    return EmbedOptions(PURPOSES[request.purpose], PRIORITIES[request.priority], api_key)


def vector_to_pb(vector: Vector) -> vector_pb2.Vector:
    """Return a vector, float32 of shape (dimension,), as little-endian bytes."""
    return vector_pb2.Vector(data=np.ascontiguousarray(vector, "<f4").tobytes())


def embedding_to_pb(embedding: Embedding) -> embedding_pb.Embedding:
    """Return an embedding."""
    return embedding_pb.Embedding(
        vector=vector_to_pb(embedding.vector), token_count=embedding.token_count, truncated=embedding.truncated
    )


def embedder_to_pb(spec: EmbedderSpec) -> embedder_pb2.EmbedderRef:
    """Return what every answer says of an embedder: name, model, space and dimension."""
    return embedder_pb2.EmbedderRef(name=spec.name, model=spec.model, space=spec.space, dimension=spec.dimension)


def embedder_details_to_pb(spec: EmbedderSpec, fault: str | None) -> embedding_pb.EmbedderInfo:
    """Return all that ListEmbedders says of an embedder."""
    info = embedding_pb.EmbedderInfo(name=spec.name, model=spec.model, space=spec.space, dimension=spec.dimension)
    info.modalities.extend(sorted(MODALITIES[each] for each in spec.modalities))
    info.limits.max_text_bytes = spec.limits.max_text_bytes
    info.limits.max_text_tokens = spec.max_text_tokens or 0
    info.limits.max_image_bytes = spec.limits.max_image_bytes
    info.limits.max_image_pixels = spec.limits.max_image_pixels
    info.limits.max_image_frames = spec.limits.max_image_frames
    info.health = embedding_pb.EMBEDDER_HEALTH_UNAVAILABLE if fault else embedding_pb.EMBEDDER_HEALTH_READY
    info.health_detail = fault or ""
    info.weights_digest = spec.weights_digest or ""
    return info
