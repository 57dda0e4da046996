"""ObjectService."""

from typing import Any
from uuid import UUID

import grpc

from service.core.objects.backfilling import Backfiller, BackfillWishes
from service.core.objects.importing import Importer
from service.core.objects.missing import MissingVectors
from service.core.objects.objects import MAX_NAMED, Objects
from service.core.objects.updating import Updater
from service.core.pacing import Pace
from service.error_table import to_status
from service.errors import collecting
from service.rpc.objects.messages import (
    object_to_pb,
    outcome_to_pb,
    parse_deletion,
    parse_duplicates,
    parse_listing,
    parse_object,
    parse_update_mask,
    stored_to_pb,
)
from service.rpc.shared.bounds import RequestLimits
from service.rpc.shared.pages import CLIENTS_TAKE_BYTES, FRAME_BYTES, as_many_as_fit, page_token, parse_page_token
from service.rpc.shared.requests import CallerKeys, check_id, embedder_to_pb, output_from_pb, parse_scope
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import object_service_pb2_grpc as pb_grpc

MOST_READ = 10_000
"""Objects that one CountMissingVectors reads."""
Context = grpc.aio.ServicerContext[Any, Any]


class ObjectServicer(pb_grpc.ObjectServiceServicer):
    """Answers ObjectService."""

    def __init__(
        self,
        importer: Importer,
        updater: Updater,
        backfiller: Backfiller,
        objects: Objects,
        missing: MissingVectors,
        *,
        limits: RequestLimits,
        keys: CallerKeys,
        max_response_bytes: int,
    ) -> None:
        self._importer = importer
        self._objects = objects
        self._updater = updater
        self._backfiller = backfiller
        self._missing = missing
        self._limits = limits
        self._keys = keys
        self._max_response_bytes = max_response_bytes

    async def ImportObjects(self, request: pb.ImportObjectsRequest, context: Context) -> pb.ImportObjectsResponse:
        """Import objects."""
        with collecting() as violations:
            scope = parse_scope(violations, request)
            violations.require_count(len(request.objects), self._limits.max_objects, "objects", "objects")
            duplicates = parse_duplicates(violations, request)
        report = await self._importer.import_objects(
            request.collection,
            (parse_object(each, f"objects[{index}]") for index, each in enumerate(request.objects)),
            truncate=request.truncate,
            embed_unchanged=request.embed_unchanged,
            duplicates=duplicates,
            scope=scope,
            api_key=self._keys.of(context),
        )
        response = pb.ImportObjectsResponse(embedders=map(embedder_to_pb, report.embedders))
        pace = Pace()
        for outcome in report.outcomes:
            await pace.step()
            response.results.append(outcome_to_pb(outcome))
        return response

    async def GetObject(self, request: pb.GetObjectRequest, context: Context) -> pb.GetObjectResponse:
        """Return an object."""
        with collecting() as violations:
            scope = parse_scope(violations, request)
            violations.require(request.id, "id", "is required; give the object's UUID")
        found = await self._objects.get(request.collection, request.id, output_from_pb(request.output), scope)
        return pb.GetObjectResponse(object=object_to_pb(found))

    async def ListObjects(self, request: pb.ListObjectsRequest, context: Context) -> pb.ListObjectsResponse:
        """List objects."""
        # Page tokens are for the collection that an alias leads to, so that pages do not mix two.
        request.collection = await self._objects.real_name(request.collection)
        listing = parse_listing(request, self._limits)
        page = await self._objects.list_page(listing)
        # Every client takes a page without images. One with images is as large as an answer may be, because the next
        # page reads again those that did not fit.
        most = self._max_response_bytes
        most = most if request.output.images else min(most, CLIENTS_TAKE_BYTES)
        response = pb.ListObjectsResponse(objects=as_many_as_fit(map(object_to_pb, page.objects), most, FRAME_BYTES))
        count = len(response.objects)
        if page.more or count < len(page.objects):
            before = listing.position if isinstance(listing.position, int) else 0
            behind = before + count if listing.windowed else page.objects[count - 1].id
            response.next_page_token = page_token(request, behind)
        return response

    async def UpdateObject(self, request: pb.UpdateObjectRequest, context: Context) -> pb.UpdateObjectResponse:
        """Change parts of an object."""
        with collecting() as violations:
            scope = parse_scope(violations, request)
            violations.require(request.object.id, "object.id", "is required; give the object's UUID")
            mask = parse_update_mask(violations, request.update_mask.paths)
        report = await self._updater.update(
            request.collection,
            parse_object(request.object, "object"),
            mask=mask,
            truncate=request.truncate,
            scope=scope,
            api_key=self._keys.of(context),
        )
        embedders = map(embedder_to_pb, report.embedders)
        return pb.UpdateObjectResponse(stored=stored_to_pb(report.vectors), embedders=embedders)

    async def DeleteObject(self, request: pb.DeleteObjectRequest, context: Context) -> pb.DeleteObjectResponse:
        """Delete an object."""
        with collecting() as violations:
            scope = parse_scope(violations, request)
            id_ = check_id(violations, request.id, "id")
        await self._objects.delete(request.collection, id_, scope)
        return pb.DeleteObjectResponse()

    async def DeleteObjects(self, request: pb.DeleteObjectsRequest, context: Context) -> pb.DeleteObjectsResponse:
        """Delete the objects that fit a filter."""
        filters, scope = parse_deletion(request, self._limits)
        report = await self._objects.delete_fitting(request.collection, filters, dry_run=request.dry_run, scope=scope)
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
        request.collection = await self._objects.real_name(request.collection)
        with collecting() as violations:
            scope = parse_scope(violations, request)
            after = parse_page_token(violations, request, by_id=True)
        begin = after if isinstance(after, UUID) else None
        wishes = BackfillWishes(tuple(request.vectors), begin, request.verify, request.truncate)
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

    async def CountMissingVectors(
        self, request: pb.CountMissingVectorsRequest, context: Context
    ) -> pb.CountMissingVectorsResponse:
        """Count the objects of a part of a collection that lack named vectors."""
        request.collection = await self._objects.real_name(request.collection)
        with collecting() as violations:
            scope = parse_scope(violations, request)
            fits = 0 <= request.page_size <= MOST_READ
            violations.require(fits, "page_size", f"is {request.page_size}; give 0 (for {MOST_READ}) to {MOST_READ}")
            after = parse_page_token(violations, request, by_id=True)
        begin = after if isinstance(after, UUID) else None
        most = request.page_size or MOST_READ
        count = await self._missing.count(request.collection, most=most, after=begin, scope=scope)
        token = "" if count.last is None else page_token(request, count.last)
        return pb.CountMissingVectorsResponse(seen=count.seen, missing=count.missing, next_page_token=token)
