"""EmbeddingService, and how other services' responses hold vectors."""

import asyncio
from typing import Any

import grpc
import numpy as np

from embedders.contract import (
    EmbedderSpec,
    Embedding,
    EmbedOptions,
    ImageInput,
    Input,
    InputLimits,
    Modality,
    Outcome,
    Priority,
    Purpose,
    TextImageInput,
    TextInput,
    Vector,
)
from embedders.errors import InputRejected
from service.core.embedder_pool import EmbedderPool
from service.core.pictures import NO_PICTURES, Pictures
from service.core.reranker_pool import RerankerGroup, RerankerPool
from service.error_table import to_status
from service.errors import InvalidRequest, Violation, Violations, pair_rejection, rejection
from service.rpc.shared.bounds import RequestLimits
from service.rpc.shared.images import fetch_images
from service.rpc.shared.requests import CallerKeys, embedder_to_pb
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import embedding_service_pb2_grpc as pb_grpc
from vecgate.v1 import input_pb2, vector_pb2

Context = grpc.aio.ServicerContext[Any, Any]

INPUTS_AT_ONCE = 100
"""Inputs, or results, to convert before other calls get the event loop: a few milliseconds."""

PURPOSES = {
    pb.PURPOSE_UNSPECIFIED: Purpose.QUERY,
    pb.PURPOSE_QUERY: Purpose.QUERY,
    pb.PURPOSE_DOCUMENT: Purpose.DOCUMENT,
}
PRIORITIES = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BULK: Priority.BULK,
}
MODALITIES = {
    Modality.TEXT: pb.MODALITY_TEXT,
    Modality.IMAGE: pb.MODALITY_IMAGE,
    Modality.TEXT_IMAGE: pb.MODALITY_TEXT_IMAGE,
}


class EmbeddingServicer(pb_grpc.EmbeddingServiceServicer):
    """Answers EmbeddingService."""

    def __init__(
        self,
        embedders: EmbedderPool,
        rerankers: RerankerPool,
        limits: RequestLimits,
        server_limits: pb.ServerLimits,
        keys: CallerKeys,
        *,
        pictures: Pictures = NO_PICTURES,
    ) -> None:
        self._embedders = embedders
        self._rerankers = rerankers
        self._limits = limits
        self._server_limits = server_limits
        self._keys = keys
        self._pictures = pictures

    async def EmbedInputs(self, request: pb.EmbedInputsRequest, context: Context) -> pb.EmbedInputsResponse:
        """Embed inputs; an input that cannot be embedded fails alone."""
        options = self._options(request, context)
        named = [
            (index, each) for index, each in enumerate(map(_image, request.inputs)) if each is not None and each.uri
        ]
        refused = await fetch_images(self._pictures, ((_image_path(request, index), each) for index, each in named))
        unread = {index: refused[path] for index, _ in named if (path := _image_path(request, index)) in refused}
        inputs: list[Input | None] = []
        for index, message in enumerate(request.inputs):
            inputs.append(None if index in unread else input_from_pb(message, truncate=request.truncate))
            if index and index % INPUTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        present = [each for each in inputs if each is not None]
        embedders = self._embedders.asked_for(request.embedder)
        embedder, outcomes = embedders[0], list[Outcome]()
        if present:
            embedder, outcomes = await self._embedders.embed_with_first(embedders, present, options)
        response = pb.EmbedInputsResponse(embedder=embedder_to_pb(embedder.spec))
        rest = iter(outcomes)
        for index, each in enumerate(inputs):
            if index and index % INPUTS_AT_ONCE == 0:
                await asyncio.sleep(0)
            outcome = None if each is None else next(rest)
            if isinstance(outcome, Embedding):
                _fill(response.results.add().embedding, outcome)
            else:
                why = unread[index] if index in unread else _refusal(outcome, each, index)
                response.results.add(error=to_status(why, ""))
        return response

    def _options(self, request: pb.EmbedInputsRequest, context: Context) -> EmbedOptions:
        """Return how to embed the inputs of a request.

        Raises:
            InvalidRequest: with all violations, but for those of single inputs.
        """
        purpose, priority = PURPOSES.get(request.purpose), PRIORITIES.get(request.priority)
        count = len(request.inputs)
        if purpose is None or priority is None or not 0 < count <= self._limits.max_inputs:
            violations = Violations()
            violations.require_count(count, self._limits.max_inputs, "inputs", "inputs")
            violations.require(purpose, "purpose", f"{request.purpose} is not a Purpose that this server knows")
            violations.require(priority, "priority", f"{request.priority} is not a Priority that this server knows")
            violations.raise_if_any()
        assert purpose is not None
        assert priority is not None
        return EmbedOptions(purpose, priority, self._keys.of(context))

    async def ListEmbedders(self, request: pb.ListEmbeddersRequest, context: Context) -> pb.ListEmbeddersResponse:
        """List embedders and rerankers."""
        pool = self._embedders
        infos = [_details_to_pb(each.spec, pool.fault(each), pool.why_apart(each)) for each in pool.all]
        rerankers = map(_reranker_to_pb, self._rerankers.groups)
        return pb.ListEmbeddersResponse(embedders=infos, rerankers=rerankers, limits=self._server_limits)


def vector_to_pb(vector: Vector) -> vector_pb2.Vector:
    """Return a vector, float32 of shape (dimension,), as little-endian bytes."""
    return vector_pb2.Vector(data=_vector_bytes(vector))


def _vector_bytes(vector: Vector) -> bytes:
    return np.ascontiguousarray(vector, "<f4").tobytes()


def input_from_pb(message: input_pb2.Input, *, truncate: bool) -> Input | None:
    """Return an input, or None if its content is not set."""
    match message.WhichOneof("content"):
        case "text":
            return TextInput(message.text, truncate)
        case "image":
            return ImageInput(message.image.content)
        case "text_image":
            return TextImageInput(message.text_image.text, message.text_image.image.content, truncate)
    return None


def _image(message: input_pb2.Input) -> input_pb2.Image | None:
    """Return the image of an input, if it has one."""
    match message.WhichOneof("content"):
        case "image":
            return message.image
        case "text_image":
            return message.text_image.image
    return None


def _image_path(request: pb.EmbedInputsRequest, index: int) -> str:
    pair = ".text_image" if request.inputs[index].HasField("text_image") else ""
    return f"inputs[{index}]{pair}.image"


def _refusal(outcome: InputRejected | None, input_: Input | None, index: int) -> InvalidRequest:
    if outcome is None:
        return InvalidRequest([Violation(f"inputs[{index}]", "has no content; set text, image or text_image")])
    field = f"inputs[{index}]"
    match input_:
        case TextImageInput():
            return pair_rejection(outcome, f"{field}.text_image")
        case ImageInput():
            return rejection(outcome, f"{field}.image.content")
    return rejection(outcome, f"{field}.text")


def _fill(message: pb.Embedding, embedding: Embedding) -> None:
    message.vector.data = _vector_bytes(embedding.vector)
    if embedding.token_count is not None:
        message.token_count = embedding.token_count
    if embedding.truncated:
        message.truncated = True


def _details_to_pb(spec: EmbedderSpec, fault: str | None, apart: str | None) -> pb.EmbedderInfo:
    return pb.EmbedderInfo(
        name=spec.name,
        model=spec.model,
        space=spec.space,
        dimension=spec.dimension,
        modalities=sorted(MODALITIES[each] for each in spec.modalities),
        limits=_limits_to_pb(spec.limits, spec.max_text_tokens),
        health=_health_to_pb(fault),
        health_detail=fault or apart or "",
        weights_digest=spec.weights_digest or "",
    )


def _reranker_to_pb(group: RerankerGroup) -> pb.RerankerInfo:
    spec = group.spec
    return pb.RerankerInfo(
        name=spec.name,
        model=spec.model,
        modalities=sorted(MODALITIES[each] for each in spec.modalities),
        limits=_limits_to_pb(spec.limits),
        health=_health_to_pb(group.fault),
        health_detail=group.fault or "",
    )


def _limits_to_pb(limits: InputLimits, max_text_tokens: int | None = None) -> pb.EmbedderLimits:
    return pb.EmbedderLimits(
        max_text_bytes=limits.max_text_bytes,
        max_text_tokens=max_text_tokens or 0,
        max_image_bytes=limits.max_image_bytes,
        max_image_pixels=limits.max_image_pixels,
        max_image_frames=limits.max_image_frames,
    )


def _health_to_pb(fault: str | None) -> "pb.EmbedderHealth.ValueType":
    return pb.EMBEDDER_HEALTH_UNAVAILABLE if fault else pb.EMBEDDER_HEALTH_READY
