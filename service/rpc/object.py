"""ObjectService: validate, convert, call core, convert."""

from typing import Any

import grpc

from service import convert, validation
from service.core.conformance import parse_id
from service.core.importing import Importer
from service.core.searching import Searcher
from service.status import to_status
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import object_service_pb2_grpc as pb_grpc

__all__ = ["ObjectServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class ObjectServicer(pb_grpc.ObjectServiceServicer):
    """Answers ObjectService."""

    def __init__(self, importer: Importer, searcher: Searcher, limits: validation.RequestLimits) -> None:
        self._importer = importer
        self._searcher = searcher
        self._limits = limits

    async def ImportObjects(self, request: pb.ImportObjectsRequest, context: Context) -> pb.ImportObjectsResponse:
        """Import objects."""
        validation.check_import_objects(request, self._limits)
        drafts = [convert.draft_from_pb(each) for each in request.objects]
        report = await self._importer.import_objects(request.collection, drafts, truncate=request.truncate)
        response = pb.ImportObjectsResponse(embedders=[convert.embedder_to_pb(each) for each in report.embedders])
        for outcome in report.outcomes:
            if outcome.error is not None:
                response.results.add(id=outcome.id, error=to_status(outcome.error, ""))
            else:
                stored = pb.StoredObject(vectors=[convert.report_to_pb(each) for each in outcome.vectors])
                response.results.add(id=outcome.id, stored=stored)
        return response

    async def GetObject(self, request: pb.GetObjectRequest, context: Context) -> pb.GetObjectResponse:
        """Return an object."""
        validation.check_get_object(request)
        id_ = parse_id(request.id, "id")
        found = await self._searcher.get_object(request.collection, id_, convert.return_names(request))
        return pb.GetObjectResponse(object=convert.object_to_pb(found))
