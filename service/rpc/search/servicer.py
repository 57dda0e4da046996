"""SearchService: parse the request, search, make the response."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from service.core.searching.reranking import RerankReport
from service.core.searching.searcher import Searcher
from service.domain import Hit
from service.error_table import to_status
from service.rpc.objects.messages import object_to_pb
from service.rpc.search.request import parse_search
from service.rpc.shared.bounds import RequestLimits
from service.rpc.shared.requests import CallerKeys, embedder_to_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1 import search_service_pb2_grpc as pb_grpc

HITS_AT_ONCE = 10
"""Hits that become messages before other calls have their turn."""
Context = grpc.aio.ServicerContext[Any, Any]


class SearchServicer(pb_grpc.SearchServiceServicer):
    """Answers SearchService."""

    def __init__(self, searcher: Searcher, limits: RequestLimits, keys: CallerKeys) -> None:
        self._searcher = searcher
        self._limits = limits
        self._keys = keys

    async def SearchObjects(self, request: pb.SearchObjectsRequest, context: Context) -> pb.SearchObjectsResponse:
        """Find objects."""
        result = await self._searcher.search(parse_search(request, self._limits), self._keys.of(context))
        embedders = [embedder_to_pb(each) for each in result.embedders]
        response = pb.SearchObjectsResponse(
            embedder=embedders[0] if embedders else None,
            embedders=embedders,
            groups=_groups_to_pb(result.hits),
            reranking=None if result.reranking is None else _reranking_to_pb(result.reranking),
        )
        for start in range(0, len(result.hits), HITS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            response.hits.extend(_hits_to_pb(result.hits[start : start + HITS_AT_ONCE]))
        return response


def _hits_to_pb(hits: Sequence[Hit]) -> list[pb.Hit]:
    return [
        pb.Hit(
            object=object_to_pb(each.object),
            distance=each.distance,
            certainty=each.certainty,
            score=each.score,
            creation_time=_time_to_pb(each.created) if each.created else None,
            update_time=_time_to_pb(each.updated) if each.updated else None,
            explain_score=each.explain_score,
            rerank_score=each.rerank_score,
            group=each.group.name if each.group is not None else "",
        )
        for each in hits
    ]


def _reranking_to_pb(report: RerankReport) -> pb.Reranking:
    return pb.Reranking(
        reranker=report.reranker.name,
        model=report.reranker.model,
        scored=report.scored,
        error=None if report.error is None else to_status(report.error, ""),
    )


def _time_to_pb(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


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
