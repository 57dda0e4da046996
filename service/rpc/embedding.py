"""EmbeddingService."""

from typing import Any

import grpc

from embedders.contract import Input, Outcome
from embedders.errors import InputRejected
from service.core.embedder_pool import EmbedderPool
from service.core.pacing import Pace
from service.error_table import to_status
from service.errors import InvalidRequest, Violation, rejection
from service.rpc.shared.caller_keys import CallerKeys
from service.rpc.shared.embedders import (
    embedder_details_to_pb,
    embedder_to_pb,
    embedding_to_pb,
    input_from_pb,
    options_from_pb,
)
from service.rpc.shared.violations import RequestLimits, Violations, check_count
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import embedding_service_pb2_grpc as pb_grpc

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


# Each call of values() makes a list.
PURPOSES = frozenset(embedding_pb.Purpose.values())
PRIORITIES = frozenset(embedding_pb.Priority.values())


def check_embed_inputs(request: embedding_pb.EmbedInputsRequest, limits: RequestLimits) -> None:
    """Check an EmbedInputsRequest, but for its inputs, which fail alone.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_count(violations, len(request.inputs), limits.max_inputs, "inputs", "inputs")
    known = request.purpose in PURPOSES
    violations.require(known, "purpose", f"{request.purpose} is no Purpose that this server knows")
    known = request.priority in PRIORITIES
    violations.require(known, "priority", f"{request.priority} is no Priority that this server knows")
    violations.raise_if_any()
