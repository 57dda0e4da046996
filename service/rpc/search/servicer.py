"""SearchService: validate, convert, call core, convert."""

from typing import Any

import grpc

from service.core.pacing import Pace
from service.core.searching import Searcher
from service.rpc.search.checks import check_search_objects, limit_of
from service.rpc.search.request import (
    groups_to_pb,
    hit_to_pb,
    options_from_pb,
    query_from_pb,
    return_names,
    target_choice,
)
from service.rpc.shared.caller_keys import CallerKeys
from service.rpc.shared.embedders import embedder_to_pb
from service.rpc.shared.scope import scope_from_pb
from service.rpc.shared.violations import RequestLimits
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
        """Search or list objects."""
        filters = check_search_objects(request, self._limits)
        result = await self._searcher.search(
            request.collection,
            query_from_pb(request),
            targets=target_choice(request),
            limit=limit_of(request, self._limits),
            offset=request.offset,
            returned=return_names(request),
            options=options_from_pb(request, filters),
            scope=scope_from_pb(request.tenant, request.consistency),
            api_key=self._keys.of(context),
        )
        response = pb.SearchObjectsResponse(
            embedder=embedder_to_pb(result.embedders[0]) if result.embedders else None,
            embedders=[embedder_to_pb(each) for each in result.embedders],
            groups=groups_to_pb(result.hits),
        )
        pace = Pace()
        for each in result.hits:
            response.hits.append(hit_to_pb(each))
            await pace.step()
        return response
