"""EmbeddingService: validate, convert, call core, convert."""

from typing import Any

import grpc

from embedders.base import Outcome
from embedders.errors import InputRejected
from embedders.inputs import Input
from service.convert.embedding import (
    embedder_details_to_pb,
    embedder_to_pb,
    embedding_to_pb,
    input_from_pb,
    options_from_pb,
)
from service.core.embed import EmbedderPool
from service.core.pacing import Pace
from service.errors import InvalidRequest, Violation, rejection
from service.rpc.caller_keys import CallerKeys
from service.status import to_status
from service.validation.embedding import check_embed_inputs
from service.validation.violations import RequestLimits
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import embedding_service_pb2_grpc as pb_grpc

__all__ = ["EmbeddingServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class EmbeddingServicer(pb_grpc.EmbeddingServiceServicer):
    """Answers EmbeddingService."""

    def __init__(
        self, embedders: EmbedderPool, limits: RequestLimits, server_limits: pb.ServerLimits, keys: CallerKeys
    ) -> None:
        self._embedders = embedders
        self._limits = limits
        self._server_limits = server_limits
        self._keys = keys

    async def EmbedInputs(self, request: pb.EmbedInputsRequest, context: Context) -> pb.EmbedInputsResponse:
        """Embed inputs."""
        check_embed_inputs(request, self._limits)
        options = options_from_pb(request, self._keys.of(context))
        embedders = self._embedders.asked_for(request.embedder)
        pace = Pace()
        inputs: list[Input | None] = []
        for each in request.inputs:
            inputs.append(input_from_pb(each, truncate=request.truncate))
            await pace.step()
        present: list[Input] = [each for each in inputs if each is not None]
        embedder, outcomes = embedders[0], iter(list[Outcome]())
        if present:
            embedder, embedded = await self._embedders.embed_with_first(embedders, present, options)
            outcomes = iter(embedded)
        response = pb.EmbedInputsResponse(embedder=embedder_to_pb(embedder.spec))
        for index, wanted in enumerate(inputs):
            await pace.step()
            if wanted is None:
                missing = Violation(f"inputs[{index}]", "has no content; set text or image")
                response.results.add(error=to_status(InvalidRequest([missing]), ""))
                continue
            outcome = next(outcomes)
            if isinstance(outcome, InputRejected):
                path = f"inputs[{index}].{'text' if request.inputs[index].HasField('text') else 'image.content'}"
                response.results.add(error=to_status(rejection(outcome, path), ""))
            else:
                response.results.add(embedding=embedding_to_pb(outcome))
        return response

    async def ListEmbedders(self, request: pb.ListEmbeddersRequest, context: Context) -> pb.ListEmbeddersResponse:
        """List embedders."""
        infos = [embedder_details_to_pb(each.spec, self._embedders.fault(each)) for each in self._embedders.all]
        return pb.ListEmbeddersResponse(embedders=infos, limits=self._server_limits)
