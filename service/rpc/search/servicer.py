"""SearchService: parse the request, search or draw a map, make the response."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from service.core.pictures import NO_PICTURES, Pictures
from service.core.projecting.projector import Projector
from service.core.searching.reranking import RerankReport
from service.core.searching.searcher import Searcher
from service.domain import Hit
from service.error_table import to_status
from service.rpc.objects.messages import object_to_pb
from service.rpc.search.projections import parse_projection, projection_to_pb
from service.rpc.search.request import parse_search
from service.rpc.shared.bounds import RequestLimits
from service.rpc.shared.images import fetch_all_images, images_in
from service.rpc.shared.requests import CallerKeys, embedder_to_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1 import search_service_pb2_grpc as pb_grpc

WITH_IMAGES = ("near_image", "near_inputs", "hybrid")
"""Queries that may have images."""
HITS_AT_ONCE = 20
"""Hits that become messages before other calls have their turn."""
Context = grpc.aio.ServicerContext[Any, Any]


class SearchServicer(pb_grpc.SearchServiceServicer):
    """Answers SearchService."""

    def __init__(
        self,
        searcher: Searcher,
        projector: Projector,
        limits: RequestLimits,
        keys: CallerKeys,
        *,
        pictures: Pictures = NO_PICTURES,
    ) -> None:
        self._searcher = searcher
        self._projector = projector
        self._limits = limits
        self._keys = keys
        self._pictures = pictures

    async def SearchObjects(self, request: pb.SearchObjectsRequest, context: Context) -> pb.SearchObjectsResponse:
        """Find objects."""
        if request.WhichOneof("query") in WITH_IMAGES:
            await fetch_all_images(self._pictures, images_in(request))
        result = await self._searcher.search(parse_search(request, self._limits), self._keys.of(context))
        embedders = [embedder_to_pb(each) for each in result.embedders]
        response = pb.SearchObjectsResponse(
            embedder=embedders[0] if embedders else None,
            embedders=embedders,
            groups=_groups_to_pb(result.hits),
            reranking=None if result.reranking is None else _reranking_to_pb(result.reranking),
        )
        hits = response.hits
        for index, each in enumerate(result.hits, start=1):
            _fill_hit(hits.add(), each)
            if index % HITS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return response

    async def ProjectObjects(self, request: pb.ProjectObjectsRequest, context: Context) -> pb.ProjectObjectsResponse:
        """Draw a map of a collection."""
        await fetch_all_images(self._pictures, images_in(request))
        projection = parse_projection(request, self._limits)
        return await projection_to_pb(await self._projector.project(projection, self._keys.of(context)))


def _fill_hit(message: pb.Hit, hit: Hit) -> None:
    # In place and field by field: to make a message and copy it into the response takes twice as long.
    object_to_pb(hit.object, message.object)
    if hit.distance is not None:
        message.distance = hit.distance
    if hit.certainty is not None:
        message.certainty = hit.certainty
    if hit.score is not None:
        message.score = hit.score
    if hit.created is not None:
        message.creation_time.FromDatetime(hit.created)
    if hit.updated is not None:
        message.update_time.FromDatetime(hit.updated)
    if hit.explain_score:
        message.explain_score = hit.explain_score
    if hit.rerank_score is not None:
        message.rerank_score = hit.rerank_score
    if hit.group is not None:
        message.group = hit.group.name


def _reranking_to_pb(report: RerankReport) -> pb.Reranking:
    return pb.Reranking(
        reranker=report.reranker.name,
        model=report.reranker.model,
        scored=report.scored,
        error=None if report.error is None else to_status(report.error, ""),
    )


def _groups_to_pb(hits: Sequence[Hit]) -> list[pb.Group]:
    """Return the groups of hits, in their order."""
    groups = dict.fromkeys(hit.group for hit in hits if hit.group is not None)
    return [
        pb.Group(
            name=each.name,
            object_count=each.object_count,
            min_distance=each.min_distance,
            max_distance=each.max_distance,
            rerank_score=each.rerank_score,
        )
        for each in groups
    ]
