"""The client's methods that are about objects."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeAlias, TypeVar
from uuid import UUID

import grpc

from vecgate.client.channel import MIB
from vecgate.client.errors import error_from_rpc
from vecgate.client.importing import Call, ChunkBounds, Patience, import_in_chunks
from vecgate.client.values import ImportOutcome, Object, id_to_text, object_from_pb, object_to_pb, several
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import filter_pb2 as filter_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import scope_pb2 as consistency_pb
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub

Response = TypeVar("Response")
Consistency: TypeAlias = "consistency_pb.Consistency.ValueType"

# Of a request: the collection's name and the frame around the objects.
REQUEST_FRAME_BYTES = 1024
CHUNK_BYTES = 8 * MIB
# Of a server that does not say how many it takes.
CHUNK_VALUES = 100_000
# What another call, begun where this one ended, need not meet.
PASSING = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE})


class ObjectCalls(ABC):
    """What a client does with objects."""

    _object: ObjectServiceStub
    _timeout_s: float
    _metadata: tuple[tuple[str, str], ...]
    _max_message_bytes: int

    @abstractmethod
    def _call(self, method: Callable[..., Response], request: object) -> Response: ...

    @abstractmethod
    def embedders(self) -> embedding_pb.ListEmbeddersResponse:
        """Return the server's embedders, the default one first, and its limits."""

    def import_objects(
        self,
        collection: str,
        objects: Object | Iterable[Object],
        *,
        truncate: bool = False,
        embed_unchanged: bool = False,
        chunk_objects: int = 64,
        in_flight: int = 2,
        retry_s: float = 60.0,
        tenant: str = "",
        consistency: Consistency = consistency_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Generator[ImportOutcome, None, None]:
        """Embed and store objects, and yield one outcome for each, in order.

        Nothing is sent before the first outcome is asked for. Objects are read as they are needed, so a generator that
        reads files keeps the memory small. `close` on the answer gives up the calls in flight. An object that cannot be
        stored, or is too large to be sent, fails alone.

        An id that is given counts once in an import: a second object of it fails with DUPLICATE_ID, wherever it stands.
        (Ids are kept for that, some 100 bytes each.) Objects without ids and with the same content are one object, and
        get the same outcome.

        Args:
            collection: the collection's name.
            objects: what to import.
            truncate: whether to cut texts that are longer than the model reads instead of failing their objects.
            embed_unchanged: whether to embed anew what is stored already with a vector of the same texts and images.
            chunk_objects: objects in one call; the server's `max_objects` and the bytes bound it too.
            in_flight: calls at the same time.
            retry_s: seconds for which a call, or an object of it, is sent again that fails for a passing reason: the
                server says when to come back, or does not answer. 0 for not at all.
            tenant: whose objects they are, where the collection has tenants.
            consistency: how many replicas must take them, such as `CONSISTENCY_ALL`; Weaviate's own if left out.

        Raises:
            VecgateError: a whole call failed. Import again from the first object without an outcome: that is safe,
                because an object replaces the one of its id.

        Example:
            files = sorted(Path("pictures").glob("*.png"))
            objects = (Object({"path": str(file)}, images={"image": file.read_bytes()}) for file in files)
            failed = [outcome for outcome in client.import_objects("Pictures", objects) if outcome.error]
        """
        bounds = self._chunk_bounds(chunk_objects)

        def send(messages: list[object_pb.DataObject]) -> Call:
            request = object_pb.ImportObjectsRequest(
                collection=collection,
                objects=messages,
                truncate=truncate,
                embed_unchanged=embed_unchanged,
                tenant=tenant,
                consistency=consistency,
            )
            return self._object.ImportObjects.future(request, timeout=self._timeout_s, metadata=self._metadata)

        yield from import_in_chunks(send, several(objects), bounds, in_flight=in_flight, patience=Patience(retry_s))

    def _chunk_bounds(self, most: int) -> ChunkBounds:
        limits = self.embedders().limits
        largest = min(limits.max_request_bytes or self._max_message_bytes, self._max_message_bytes)
        return ChunkBounds(
            max_objects=max(1, min(most, limits.max_objects or most)),
            target_bytes=min(CHUNK_BYTES, largest // 4),
            max_bytes=largest - REQUEST_FRAME_BYTES,
            max_values=limits.max_values or CHUNK_VALUES,
        )

    def get_object(
        self,
        collection: str,
        id_: str | UUID,
        *,
        return_properties: str | Iterable[str] = (),
        return_images: str | Iterable[str] = (),
        return_vectors: str | Iterable[str] = (),
        tenant: str = "",
        consistency: Consistency = consistency_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Object:
        """Return an object: all its properties or the named ones, and the images and vectors that are named."""
        request = object_pb.GetObjectRequest(
            collection=collection,
            id=id_to_text(id_),
            return_properties=several(return_properties),
            return_images=several(return_images),
            return_vectors=several(return_vectors),
            tenant=tenant,
            consistency=consistency,
        )
        return object_from_pb(self._call(self._object.GetObject, request).object)

    def list_objects(
        self,
        collection: str,
        *,
        page_size: int = 0,
        return_properties: str | Iterable[str] = (),
        return_images: str | Iterable[str] = (),
        return_vectors: str | Iterable[str] = (),
        tenant: str = "",
        consistency: Consistency = consistency_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Iterator[Object]:
        """Yield all objects by id; further pages are fetched as they are needed.

        Args:
            collection: the collection's name.
            page_size: objects in one call; the server's own number if left out.
            return_properties: properties to return, `home.city` for a part of one; none named means all but blobs.
            return_images: blob properties to return as images.
            return_vectors: named vectors to return.
            tenant: whose objects they are, where the collection has tenants.
            consistency: how many replicas must answer.

        Example:
            ids = [each.id for each in client.list_objects("Pictures")]
        """
        request = object_pb.ListObjectsRequest(
            collection=collection,
            page_size=page_size,
            return_properties=several(return_properties),
            return_images=several(return_images),
            return_vectors=several(return_vectors),
            tenant=tenant,
            consistency=consistency,
        )
        while True:
            response = self._call(self._object.ListObjects, request)
            yield from map(object_from_pb, response.objects)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def update_object(
        self,
        collection: str,
        change: Object,
        *,
        truncate: bool = False,
        tenant: str = "",
        consistency: Consistency = consistency_pb.CONSISTENCY_UNSPECIFIED,
    ) -> tuple[object_pb.StoredVector, ...]:
        """Change what an Object names of the one of its id; the rest stays as it is.

        A None among its properties takes a value away, an image of no bytes a picture. Vectors are computed anew only
        where a text or an image that is in them changes.

        Returns:
            Where each named vector of the object comes from now.

        Example:
            client.update_object("Pictures", Object({"title": "a dog", "year": None}, id=outcome.id))
        """
        request = object_pb.UpdateObjectRequest(
            collection=collection,
            object=object_to_pb(change),
            truncate=truncate,
            tenant=tenant,
            consistency=consistency,
        )
        return tuple(self._call(self._object.UpdateObject, request).stored.vectors)

    def backfill_vectors(
        self,
        collection: str,
        vectors: str | Iterable[str] = (),
        *,
        verify: bool = False,
        truncate: bool = False,
        page_token: str = "",
        tenant: str = "",
        consistency: Consistency = consistency_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Iterator[object_pb.BackfillVectorsResponse]:
        """Compute the named vectors that objects lack, and yield what became of each page of objects.

        A call that ends early after some progress, because its time is over or a server stops, is begun again where it
        ended.

        Args:
            collection: the collection's name.
            vectors: the named vectors to fill; all if left out.
            verify: whether to enter vectors again that Weaviate's index has lost, too.
            truncate: whether to cut texts that are longer than the model reads.
            page_token: of an answer, to go on after it.
            tenant: whose objects they are, where the collection has tenants.
            consistency: how many replicas must answer.

        Raises:
            VecgateError: the call failed; go on from the last `page_token`.

        Example:
            filled = sum(each.filled for each in client.backfill_vectors("Pictures"))
        """
        request = object_pb.BackfillVectorsRequest(
            collection=collection,
            vectors=several(vectors),
            verify=verify,
            truncate=truncate,
            page_token=page_token,
            tenant=tenant,
            consistency=consistency,
        )
        while True:
            begun_at = request.page_token
            try:
                answers = self._object.BackfillVectors(request, timeout=self._timeout_s, metadata=self._metadata)
                for answer in answers:
                    request.page_token = answer.page_token
                    yield answer
            except grpc.RpcError as error:
                failure = error_from_rpc(error)
                if failure.code not in PASSING or request.page_token == begun_at:
                    raise failure from error
            else:
                return

    def delete_object(
        self,
        collection: str,
        id_: str | UUID,
        *,
        tenant: str = "",
        consistency: Consistency = consistency_pb.CONSISTENCY_UNSPECIFIED,
    ) -> None:
        """Delete an object."""
        request = object_pb.DeleteObjectRequest(
            collection=collection, id=id_to_text(id_), tenant=tenant, consistency=consistency
        )
        self._call(self._object.DeleteObject, request)

    def delete_objects(
        self,
        collection: str,
        filters: filter_pb.Filter,
        *,
        dry_run: bool = False,
        tenant: str = "",
        consistency: Consistency = consistency_pb.CONSISTENCY_UNSPECIFIED,
    ) -> object_pb.DeleteObjectsResponse:
        """Delete the objects that fit a filter, however many there are, or with `dry_run` count them.

        Example:
            old = client.delete_objects("Pictures", where("year") < 2000, dry_run=True).matched
        """
        request = object_pb.DeleteObjectsRequest(
            collection=collection, filters=filters, dry_run=dry_run, tenant=tenant, consistency=consistency
        )
        return self._call(self._object.DeleteObjects, request)
