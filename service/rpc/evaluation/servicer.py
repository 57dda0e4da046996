"""EvaluationService: parse the request, evaluate, and tell how far it is."""

import time
from typing import Any

import grpc

from service.core.evaluating.evaluator import Evaluator
from service.core.evaluating.task import Stage
from service.core.pictures import NO_PICTURES, Pictures
from service.rpc.evaluation.earlier import parse_earlier
from service.rpc.evaluation.messages import evaluation_to_pb
from service.rpc.evaluation.request import parse_evaluation
from service.rpc.shared.images import fetch_all_images, images_in
from service.rpc.shared.requests import CallerKeys
from vecgate.v1 import evaluation_service_pb2 as pb
from vecgate.v1 import evaluation_service_pb2_grpc as pb_grpc

Context = grpc.aio.ServicerContext[Any, Any]

TOLD_EVERY_S = 0.2
"""Callers hear so often how far it is, and of the end of every stage."""


class EvaluationServicer(pb_grpc.EvaluationServiceServicer):
    """Answers EvaluationService."""

    def __init__(self, evaluator: Evaluator, keys: CallerKeys, *, pictures: Pictures = NO_PICTURES) -> None:
        self._evaluator = evaluator
        self._keys = keys
        self._pictures = pictures

    # A coroutine, not a generator, so that the interceptors wrap it as any other call; the stubs know only those.
    async def EvaluateCollection(  # type: ignore[override]
        self, request: pb.EvaluateCollectionRequest, context: Context
    ) -> None:
        """Evaluate a collection."""
        # Not all of the request is walked: its answers are many, and have no images.
        inputs = ((f"queries.queries[{n}].input", each.input) for n, each in enumerate(request.queries.queries))
        await fetch_all_images(self._pictures, (found for path, each in inputs for found in images_in(each, path)))
        wishes, earlier = parse_evaluation(request), parse_earlier(request)
        told_s = 0.0

        async def tell(stage: Stage, done: int, total: int) -> None:
            nonlocal told_s
            now_s = time.monotonic()
            if done < total and now_s - told_s < TOLD_EVERY_S:
                return
            told_s = now_s
            progress = pb.EvaluationProgress(
                stage=pb.EvaluationStage.Value(f"EVALUATION_STAGE_{stage.name}"), done=done, total=total
            )
            await context.write(pb.EvaluateCollectionResponse(progress=progress))

        found = await self._evaluator.evaluate(wishes, tell, self._keys.of(context), earlier=earlier)
        await context.write(pb.EvaluateCollectionResponse(evaluation=evaluation_to_pb(found)))
