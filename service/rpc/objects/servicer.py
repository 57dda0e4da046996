"""ObjectService: validate, convert, call core, convert."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import grpc

from service.core.objects.backfilling import Backfiller, BackfillWishes
from service.core.objects.checks import DraftObject
from service.core.objects.importing import Importer
from service.core.objects.objects import MAX_NAMED, Objects
from service.core.objects.updating import Updater
from service.core.objects.vectorizing import VectorReport
from service.core.pacing import Pace
from service.error_table import to_status
from service.rpc.embedding import embedder_to_pb
from service.rpc.objects.checks import (
    check_backfill_vectors,
    check_delete_object,
    check_get_object,
    check_import_objects,
    page_token,
    parse_delete_objects,
    parse_listing,
    parse_page_token,
    parse_update_mask,
)
from service.rpc.objects.messages import draft_from_pb, object_to_pb, report_to_pb
from service.rpc.shared.caller_keys import CallerKeys
from service.rpc.shared.pages import CLIENTS_TAKE_BYTES, FRAME_BYTES, as_many_as_fit
from service.rpc.shared.scope import output_from_pb, scope_from_pb
from service.rpc.shared.violations import RequestLimits
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import object_service_pb2_grpc as pb_grpc

MAX_ID_CHARS = 64
Context = grpc.aio.ServicerContext[Any, Any]


class ObjectServicer(pb_grpc.ObjectServiceServicer):
    """Answers ObjectService."""

    def __init__(
        self,
        importer: Importer,
        updater: Updater,
        backfiller: Backfiller,
        objects: Objects,
        *,
        limits: RequestLimits,
        keys: CallerKeys,
        max_response_bytes: int,
    ) -> None:
        self._importer = importer
        self._objects = objects
        self._updater = updater
        self._backfiller = backfiller
        self._limits = limits
        self._keys = keys
        self._max_response_bytes = max_response_bytes

    async def ImportObjects(self, request: pb.ImportObjectsRequest, context: Context) -> pb.ImportObjectsResponse:
        """Import objects."""
        check_import_objects(request, self._limits)
        pace = Pace()
        drafts: list[DraftObject] = []
        for each in request.objects:
            drafts.append(draft_from_pb(each))
            await pace.step()
        report = await self._importer.import_objects(
            request.collection,
            drafts,
            truncate=request.truncate,
            embed_unchanged=request.embed_unchanged,
            scope=scope_from_pb(request.scope),
            api_key=self._keys.of(context),
        )
        response = pb.ImportObjectsResponse(embedders=[embedder_to_pb(each) for each in report.embedders])
        for outcome in report.outcomes:
            await pace.step()
            if outcome.error is not None:
                # What is given for an id may be of any length.
                response.results.add(id=outcome.id[:MAX_ID_CHARS], error=to_status(outcome.error, ""))
            else:
                response.results.add(id=outcome.id, stored=_stored_to_pb(outcome.vectors))
        return response

    async def GetObject(self, request: pb.GetObjectRequest, context: Context) -> pb.GetObjectResponse:
        """Return an object."""
        check_get_object(request)
        scope = scope_from_pb(request.scope)
        found = await self._objects.get(request.collection, request.id, output_from_pb(request.output), scope)
        return pb.GetObjectResponse(object=object_to_pb(found))

    async def ListObjects(self, request: pb.ListObjectsRequest, context: Context) -> pb.ListObjectsResponse:
        """List objects."""
        listing = parse_listing(request, self._limits)
        scope = scope_from_pb(request.scope)
        page = await self._objects.list_page(request.collection, listing, output_from_pb(request.output), scope)
        # Pictures are read again for the next page, so of them a page holds what it may.
        most = self._max_response_bytes
        most = most if request.output.images else min(most, CLIENTS_TAKE_BYTES)
        response = pb.ListObjectsResponse(objects=as_many_as_fit(map(object_to_pb, page.objects), most, FRAME_BYTES))
        count = len(response.objects)
        if page.more or count < len(page.objects):
            ordered = request.HasField("filters") or request.sort
            before = listing.position if isinstance(listing.position, int) else 0
            response.next_page_token = page_token(request, before + count if ordered else page.objects[count - 1].id)
        return response

    async def UpdateObject(self, request: pb.UpdateObjectRequest, context: Context) -> pb.UpdateObjectResponse:
        """Change parts of an object."""
        mask = parse_update_mask(request)
        report = await self._updater.update(
            request.collection,
            draft_from_pb(request.object),
            mask=mask,
            truncate=request.truncate,
            scope=scope_from_pb(request.scope),
            api_key=self._keys.of(context),
        )
        return pb.UpdateObjectResponse(
            stored=_stored_to_pb(report.vectors), embedders=[embedder_to_pb(each) for each in report.embedders]
        )

    async def DeleteObject(self, request: pb.DeleteObjectRequest, context: Context) -> pb.DeleteObjectResponse:
        """Delete an object."""
        check_delete_object(request)
        scope = scope_from_pb(request.scope)
        await self._objects.delete(request.collection, UUID(request.id), scope)
        return pb.DeleteObjectResponse()

    async def DeleteObjects(self, request: pb.DeleteObjectsRequest, context: Context) -> pb.DeleteObjectsResponse:
        """Delete the objects that fit a filter."""
        report = await self._objects.delete_fitting(
            request.collection,
            parse_delete_objects(request, self._limits),
            dry_run=request.dry_run,
            scope=scope_from_pb(request.scope),
        )
        failures = list(report.failures.items())
        return pb.DeleteObjectsResponse(
            matched=report.matched,
            deleted=report.deleted,
            failed=len(failures),
            ids=map(str, report.ids),
            failures=[pb.DeleteFailure(id=str(id_), error=to_status(why, "")) for id_, why in failures[:MAX_NAMED]],
        )

    # A coroutine, not a generator, so that the interceptors wrap it as any other call; the stubs know only those.
    async def BackfillVectors(  # type: ignore[override]
        self, request: pb.BackfillVectorsRequest, context: Context
    ) -> None:
        """Fill in missing vectors, and answer after every page of objects."""
        check_backfill_vectors(request)
        after = parse_page_token(request, by_id=True)
        wishes = BackfillWishes(
            tuple(request.vectors), after if isinstance(after, UUID) else None, request.verify, request.truncate
        )
        scope = scope_from_pb(request.scope)
        async for each in self._backfiller.run(request.collection, wishes, scope, self._keys.of(context)):
            failures = [pb.BackfillFailure(id=str(id_), error=to_status(why, "")) for id_, why in each.failures.items()]
            await context.write(
                pb.BackfillVectorsResponse(
                    page_token=page_token(request, each.last),
                    seen=each.seen,
                    filled=each.filled,
                    repaired=each.repaired,
                    failures=failures,
                )
            )


def _stored_to_pb(reports: Sequence[VectorReport]) -> pb.StoredObject:
    stored = pb.StoredObject()
    for each in reports:
        why = None if each.error is None else to_status(each.error, "")
        stored.vectors.append(report_to_pb(each, why))
    return stored
