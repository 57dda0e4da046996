"""SearchService: parse the request, search, make the response."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from service.core.pacing import Pace
from service.core.searching.searcher import Searcher
from service.domain import Hit
from service.rpc.embedding import embedder_to_pb
from service.rpc.objects.messages import object_to_pb
from service.rpc.search.request import parse_search
from service.rpc.shared.bounds import RequestLimits
from service.rpc.shared.caller_keys import CallerKeys
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1 import search_service_pb2_grpc as pb_grpc

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
            embedder=embedders[0] if embedders else None, embedders=embedders, groups=_groups_to_pb(result.hits)
        )
        pace = Pace()
        for each in result.hits:
            response.hits.append(_hit_to_pb(each))
            await pace.step()
        return response


def _hit_to_pb(hit: Hit) -> pb.Hit:
    return pb.Hit(
        object=object_to_pb(hit.object),
        distance=hit.distance,
        certainty=hit.certainty,
        score=hit.score,
        creation_time=_time_to_pb(hit.created),
        update_time=_time_to_pb(hit.updated),
        explain_score=hit.explain_score,
        rerank_score=hit.rerank_score,
        group=hit.group.name if hit.group is not None else "",
    )


def _time_to_pb(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _groups_to_pb(hits: Iterable[Hit]) -> list[pb.Group]:
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
