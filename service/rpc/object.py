"""ObjectService: validate, convert, call core, convert."""

from typing import Any

import grpc

from service.convert.embedding import embedder_to_pb
from service.convert.object import draft_from_pb, object_to_pb, report_to_pb
from service.convert.scope import scope_from_pb
from service.convert.search import return_names
from service.core.conformance import parse_id
from service.core.importing import Importer
from service.core.searching import Searcher
from service.rpc.caller_keys import CallerKeys
from service.status import to_status
from service.validation.object import check_get_object, check_import_objects
from service.validation.violations import RequestLimits
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import object_service_pb2_grpc as pb_grpc

__all__ = ["ObjectServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class ObjectServicer(pb_grpc.ObjectServiceServicer):
    """Answers ObjectService."""

    def __init__(self, importer: Importer, searcher: Searcher, limits: RequestLimits, keys: CallerKeys) -> None:
        self._importer = importer
        self._searcher = searcher
        self._limits = limits
        self._keys = keys

    async def ImportObjects(self, request: pb.ImportObjectsRequest, context: Context) -> pb.ImportObjectsResponse:
        """Import objects."""
        check_import_objects(request, self._limits)
        drafts = [draft_from_pb(each) for each in request.objects]
        report = await self._importer.import_objects(
            request.collection,
            drafts,
            truncate=request.truncate,
            scope=scope_from_pb(request.tenant, request.consistency),
            api_key=self._keys.of(context),
        )
        response = pb.ImportObjectsResponse(embedders=[embedder_to_pb(each) for each in report.embedders])
        for outcome in report.outcomes:
            if outcome.error is not None:
                response.results.add(id=outcome.id, error=to_status(outcome.error, ""))
            else:
                stored = pb.StoredObject()
                for each in outcome.vectors:
                    why = None if each.error is None else to_status(each.error, "")
                    stored.vectors.append(report_to_pb(each, why))
                response.results.add(id=outcome.id, stored=stored)
        return response

    async def GetObject(self, request: pb.GetObjectRequest, context: Context) -> pb.GetObjectResponse:
        """Return an object."""
        check_get_object(request)
        id_ = parse_id(request.id, "id")
        found = await self._searcher.get_object(
            request.collection, id_, return_names(request), scope_from_pb(request.tenant, request.consistency)
        )
        return pb.GetObjectResponse(object=object_to_pb(found))
