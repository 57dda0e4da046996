"""The blocking client. Generated from async_client.py: do not edit."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from uuid import UUID

import grpc
from google.protobuf import field_mask_pb2, wrappers_pb2
from numpy.typing import ArrayLike

from vecgate.client.channel import MIB, ChannelOption, call_metadata, channel_options
from vecgate.client.chunks import ChunkBounds
from vecgate.client.errors import error_from_rpc
from vecgate.client.importing import Call, Retries, import_in_chunks
from vecgate.client.searching import Query, SearchOptions, search_request, set_query
from vecgate.client.values import (
    Consistency,
    Embeddings,
    Health,
    Image,
    ImportOutcome,
    Input,
    Object,
    Objects,
    Projection,
    SearchResult,
    embedded_from_pb,
    id_to_text,
    input_to_pb,
    object_from_pb,
    object_to_pb,
    projection_from_pb,
    result_from_pb,
    several,
)
from vecgate.v1 import admin_service_pb2 as admin_pb
from vecgate.v1 import alias_pb2 as alias_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import evaluation_service_pb2 as evaluation_pb
from vecgate.v1 import filter_pb2 as filter_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import output_fields_pb2 as output_pb
from vecgate.v1 import scope_pb2 as scope_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1 import sort_pb2 as sort_pb
from vecgate.v1 import tenant_pb2 as tenant_pb
from vecgate.v1.admin_service_pb2_grpc import AdminServiceStub
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

Response = TypeVar("Response")
Tenants = str | tenant_pb.Tenant | Iterable[str | tenant_pb.Tenant]

# The server's limit for one call.
TENANTS_PER_CALL = 1000
# The bytes of a request beside its objects.
REQUEST_FRAME_BYTES = 1024
CHUNK_BYTES = 8 * MIB
# Used if a server does not state its limit.
CHUNK_VALUES = 100_000
# After these, a backfill continues where it stopped.
PASSING = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE})


class Client:
    """A connection to Vecgate. Use it as a context manager, or call `close`.

    Threads may share it.

    Where a method takes several values, one alone needs no list: `embed("a cat")`.

    Calls that fail because the server cannot be reached are made up to four times, except `create_collection`.
    Every method raises `VecgateError` when the server refuses or fails, and `Unreachable`, a kind of it, when no server
    answers.

    Args:
        target: the server's address, such as `vecgate:50070`, or `dns:///vecgate:50070` to spread calls over replicas.
        timeout_s: seconds for one call with all its retries.
        credentials: for TLS, such as `grpc.ssl_channel_credentials()`; without them the connection is not encrypted.
        api_key: the caller's key, where the server requires one.
        metadata: sent with every call; a value whose name ends in "-bin" is bytes.
        max_message_bytes: the limit for requests and responses; at most the server's own.
        options: gRPC channel options, which override the client's own.

    Raises:
        ValueError: the key or the metadata cannot be sent.
        TypeError: a value of the metadata has another type.

    Example:
        with Client("127.0.0.1:50070") as client:
            print(client.embed(["a red bicycle"]).matrix().shape)
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50070",
        *,
        timeout_s: float = 120.0,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str = "",
        metadata: Sequence[tuple[str, str | bytes]] = (),
        max_message_bytes: int = 64 * MIB,
        options: Sequence[ChannelOption] = (),
    ) -> None:
        arguments = channel_options(max_message_bytes=max_message_bytes, extra=options)
        self.target = target
        self._timeout_s = timeout_s
        self._metadata = call_metadata(metadata, api_key)
        self._max_message_bytes = max_message_bytes
        self._channel = (
            grpc.insecure_channel(target, options=arguments)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=arguments)
        )
        self._embedding = EmbeddingServiceStub(self._channel)
        self._admin = AdminServiceStub(self._channel)
        self._evaluation = EvaluationServiceStub(self._channel)
        self._collection = CollectionServiceStub(self._channel)
        self._object = ObjectServiceStub(self._channel)
        self._search = SearchServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        self._channel.close()

    def embed(
        self,
        inputs: Input | Iterable[Input],
        *,
        embedder: str = "",
        purpose: embedding_pb.Purpose.ValueType = embedding_pb.PURPOSE_UNSPECIFIED,
        priority: embedding_pb.Priority.ValueType = embedding_pb.PRIORITY_UNSPECIFIED,
        truncate: bool = False,
    ) -> Embeddings:
        """Turn texts (str), images, or both as one (TextImage) into vectors.

        An image is bytes, the Path of a file, a PIL image, or a Reference.

        Args:
            inputs: one or several; at most the server's `max_inputs`.
            embedder: the embedder's name; the server's default one if left out.
            purpose: what the vectors are used for; models without such roles ignore it.
            priority: how urgent the call is; bulk calls wait for interactive ones.
            truncate: whether to cut texts that are too long for the model; otherwise they fail.

        Raises:
            VecgateError: the whole call failed. An input that cannot be embedded fails alone: its item has the error.
            OSError: a file cannot be read.

        Example:
            answer = client.embed(["a red bicycle", Path("bicycle.jpg")])
            text, image = answer.matrix()
            print(answer.embedder.space, text @ image)
        """
        request = embedding_pb.EmbedInputsRequest(
            inputs=[input_to_pb(each) for each in several(inputs)],
            embedder=embedder,
            purpose=purpose,
            priority=priority,
            truncate=truncate,
        )
        response = self._call(self._embedding.EmbedInputs, request)
        return Embeddings(response.embedder, tuple(embedded_from_pb(each) for each in response.results))

    def embedders(self) -> embedding_pb.ListEmbeddersResponse:
        """Return the server's embedders, the default one first, and its limits."""
        return self._call(self._embedding.ListEmbedders, embedding_pb.ListEmbeddersRequest())

    def server_status(self) -> admin_pb.GetServerStatusResponse:
        """Return the server's queues, running work and faults. The caller needs the permission admin."""
        return self._call(self._admin.GetServerStatus, admin_pb.GetServerStatusRequest())

    def create_collection(self, collection: collection_pb.Collection) -> collection_pb.Collection:
        """Create a collection and return it as created, with the space of each named vector."""
        request = collection_pb.CreateCollectionRequest(collection=collection)
        return self._call(self._collection.CreateCollection, request).collection

    def get_collection(self, name: str, tenant: str = "") -> collection_pb.Collection:
        """Return a collection with the number of its objects, or of one tenant's objects."""
        request = collection_pb.GetCollectionRequest(name=name, scope=scope_pb.Scope(tenant=tenant))
        return self._call(self._collection.GetCollection, request).collection

    def list_collections(self) -> Iterator[collection_pb.Collection]:
        """Yield all collections, sorted by name; pages are fetched as needed."""
        request = collection_pb.ListCollectionsRequest()
        while True:
            response = self._call(self._collection.ListCollections, request)
            yield from response.collections
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def update_collection(
        self,
        collection: collection_pb.Collection,
        update_mask: str | Iterable[str] = (),
        *,
        removed_vectors: str | Iterable[str] = (),
        etag: str = "",
    ) -> collection_pb.Collection:
        """Change a collection, add properties and named vectors to it, remove named vectors, and return the result.

        Args:
            collection: its name and the new values; fields that are not set stay unchanged.
            update_mask: the fields to change, such as `["description"]`; all that are set if left out.
            removed_vectors: the named vectors to remove, with the objects' vectors.
            etag: that of the collection as `get_collection` returned it; if it has changed since, nothing is changed.
        """
        request = collection_pb.UpdateCollectionRequest(
            collection=collection,
            update_mask=field_mask_pb2.FieldMask(paths=several(update_mask)),
            removed_vectors=several(removed_vectors),
            etag=etag,
        )
        return self._call(self._collection.UpdateCollection, request).collection

    def bind_vector(
        self,
        collection: str,
        vector: collection_pb.VectorConfig,
        *,
        without_proof: bool = False,
        replace: bool = False,
    ) -> collection_pb.BindVectorResponse:
        """Bind a vector that another client made to the embedder that made its stored vectors.

        Args:
            collection: the collection's name.
            vector: the vector's name, the embedder, and the fields with their weights.
            without_proof: whether your word counts where the stored vectors prove too little.
            replace: whether to replace the binding that an earlier call made.

        Example:
            client.bind_vector("Articles", VectorConfig(embedder="clip", text_fields=[{"name": "title"}]))
        """
        request = collection_pb.BindVectorRequest(
            collection=collection, vector=vector, without_proof=without_proof, replace=replace
        )
        return self._call(self._collection.BindVector, request)

    def delete_collection(self, name: str) -> None:
        """Delete a collection with all its objects."""
        self._call(self._collection.DeleteCollection, collection_pb.DeleteCollectionRequest(name=name))

    def create_alias(self, name: str, collection: str) -> alias_pb.Alias:
        """Give a collection another name, which every call but `delete_collection` takes instead of its own."""
        request = alias_pb.CreateAliasRequest(alias=alias_pb.Alias(name=name, collection=collection))
        return self._call(self._collection.CreateAlias, request).alias

    def get_alias(self, name: str) -> alias_pb.Alias:
        """Return an alias, with the name of the collection that it leads to."""
        return self._call(self._collection.GetAlias, alias_pb.GetAliasRequest(name=name)).alias

    def list_aliases(self, collection: str = "") -> Iterator[alias_pb.Alias]:
        """Yield all aliases, or those of a collection, sorted by name; pages are fetched as needed."""
        request = alias_pb.ListAliasesRequest(collection=collection)
        while True:
            response = self._call(self._collection.ListAliases, request)
            yield from response.aliases
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def update_alias(self, name: str, collection: str) -> str:
        """Switch an alias to another collection, and return the name of the collection that it led to before.

        Example:
            before = client.update_alias("Pictures", "PicturesV2")
        """
        request = alias_pb.UpdateAliasRequest(alias=alias_pb.Alias(name=name, collection=collection))
        return self._call(self._collection.UpdateAlias, request).previous_collection

    def delete_alias(self, name: str) -> None:
        """Delete an alias; its collection stays."""
        self._call(self._collection.DeleteAlias, alias_pb.DeleteAliasRequest(name=name))

    def create_tenants(self, collection: str, tenants: Tenants) -> None:
        """Add tenants, by name or as messages, to a collection with multi-tenancy; existing ones stay unchanged."""
        for some in _in_calls(tenants):
            request = tenant_pb.CreateTenantsRequest(
                collection=collection,
                tenants=[tenant_pb.Tenant(name=each) if isinstance(each, str) else each for each in some],
            )
            self._call(self._collection.CreateTenants, request)

    def list_tenants(self, collection: str, names: str | Iterable[str] = ()) -> Iterator[tenant_pb.Tenant]:
        """Yield a collection's tenants, all or the named ones; pages are fetched as needed."""
        request = tenant_pb.ListTenantsRequest(collection=collection, names=several(names), page_size=TENANTS_PER_CALL)
        while True:
            response = self._call(self._collection.ListTenants, request)
            yield from response.tenants
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def update_tenants(self, collection: str, tenants: tenant_pb.Tenant | Iterable[tenant_pb.Tenant]) -> None:
        """Change the activity status of tenants."""
        for some in _in_calls(tenants):
            request = tenant_pb.UpdateTenantsRequest(collection=collection, tenants=some)
            self._call(self._collection.UpdateTenants, request)

    def delete_tenants(self, collection: str, names: str | Iterable[str]) -> None:
        """Delete tenants with all their objects; missing ones are ignored."""
        for some in _in_calls(names):
            request = tenant_pb.DeleteTenantsRequest(collection=collection, names=some)
            self._call(self._collection.DeleteTenants, request)

    def search(
        self,
        collection: str,
        *,
        text: str | Iterable[str] | None = None,
        image: Image | None = None,
        vector: ArrayLike | Mapping[str, ArrayLike] | None = None,
        vector_space: str = "",
        query: Query | None = None,
        truncate: bool = False,
        **options: Unpack[SearchOptions],
    ) -> SearchResult:
        """Find the objects nearest to a text, an image or a vector, or those that fit another query.

        Args:
            collection: the collection's name.
            text: a text, or several whose mean is searched.
            image: bytes, the Path of a file, a PIL image, or a Reference.
            vector: values of the searched space, or a mapping with those of each target vector.
            vector_space: the space that the vector comes from; the server compares it with the searched one.
            query: instead of these three, another query: `near_text(...)` with moves, `near_inputs(...)`,
                `near_object(...)`, `bm25(...)` or `hybrid(...)`.
            truncate: whether to cut a text that is too long for the model.
            options: any of SearchOptions: `limit=5`, `filters=where("year") >= 2020`, `tenant="anna"` and so on.

        Raises:
            ValueError: none or more than one of text, image, vector and query is given.
            OSError: the file cannot be read.
            VecgateError: the call failed.

        Example:
            nearest = client.search("Pictures", image=Path("dog.png"), limit=5).hits[0].object
        """
        request = search_request(collection, **options)
        set_query(request, text, image, vector, vector_space, truncate=truncate, query=query)
        return result_from_pb(self._call(self._search.SearchObjects, request))

    def project_objects(
        self,
        collection: str,
        inputs: Input | Iterable[Input] = (),
        *,
        sample_size: int = 0,
        method: search_pb.ProjectionMethod.ValueType = search_pb.PROJECTION_METHOD_UNSPECIFIED,
        target_vector: str = "",
        filters: filter_pb.Filter | None = None,
        return_properties: str | Iterable[str] = (),
        truncate: bool = False,
        tenant: str = "",
        consistency: Consistency = scope_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Projection:
        """Return a map of a collection: a sample of its objects as points in two dimensions.

        Args:
            collection: the collection's name.
            inputs: texts (str), images (bytes, the Path of a file, a PIL image, or a Reference) and texts with an image
                as one input (TextImage) to place among the points.
            sample_size: points at most; 2,000 if left out.
            method: PROJECTION_METHOD_PCA, or PROJECTION_METHOD_UMAP where the server has it; PCA if left out.
            target_vector: the named vector to project; as in a search if left out.
            filters: which objects count; all if left out.
            return_properties: properties to return; none if left out.
            truncate: whether to cut a text that is too long for the model.
            tenant: the tenant, if the collection has tenants.
            consistency: how many replicas must answer.

        Raises:
            OSError: a file cannot be read.
            VecgateError: the call failed.

        Example:
            projection = client.project_objects("Pictures", ["a happy dog"], return_properties="year")
            nearest = [projection.ids[each] for each in projection.inputs[0].nearest]
        """
        request = search_pb.ProjectObjectsRequest(
            collection=collection,
            target_vector=target_vector,
            sample_size=sample_size,
            method=method,
            filters=filters,
            properties=several(return_properties),
            inputs=[input_to_pb(each) for each in several(inputs)],
            truncate=truncate,
            scope=scope_pb.Scope(tenant=tenant, consistency=consistency),
        )
        return projection_from_pb(self._call(self._search.ProjectObjects, request))

    def import_objects(
        self,
        collection: str,
        objects: Objects,
        *,
        truncate: bool = False,
        embed_unchanged: bool = False,
        duplicates: object_pb.DuplicateCheck | None = None,
        chunk_objects: int = 64,
        in_flight: int = 4,
        retry_s: float = 60.0,
        tenant: str = "",
        consistency: Consistency = scope_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Generator[ImportOutcome, None, None]:
        """Embed and store objects, and yield one outcome for each, in order.

        Nothing is sent before the first outcome is requested. Objects are read as needed, so a generator that reads
        files keeps memory small. Closing the generator cancels the calls in flight. An object that cannot be stored, or
        is too large to be sent, fails alone. A given id may occur once (DUPLICATE_ID; for that, ids are kept in memory,
        about 100 bytes each). Objects with the same content and without ids are one object, with the same outcome.

        Args:
            collection: the collection's name.
            objects: what to import.
            truncate: whether to cut texts that are too long for the model; otherwise their objects fail.
            embed_unchanged: whether to embed again what is already stored with a vector of the same texts and images.
            duplicates: such as `DuplicateCheck(action=DUPLICATE_ACTION_SKIP)`: whether objects that duplicate others
                are stored; outcomes name the others. Calls are then made one by one, so that the first one is kept.
            chunk_objects: objects in one call, within the server's limits; where it refuses one, each is sent alone.
            in_flight: calls at the same time.
            retry_s: seconds for which calls and objects that fail for a transient reason are retried; 0 for none.
            tenant: the tenant, if the collection has tenants.
            consistency: how many replicas must answer, such as `CONSISTENCY_ALL`; Weaviate's default if left out.

        Raises:
            VecgateError: a whole call failed. It is safe to import again from the first object without an outcome.

        Example:
            objects = (Object({"path": str(file)}, images={"image": file}) for file in Path("pictures").glob("*.png"))
            failed = [outcome for outcome in client.import_objects("Pictures", objects) if outcome.error]
        """
        bounds = self._chunk_bounds(chunk_objects)

        def send(messages: list[object_pb.DataObject]) -> Call:
            request = object_pb.ImportObjectsRequest(
                collection=collection,
                objects=messages,
                truncate=truncate,
                embed_unchanged=embed_unchanged,
                duplicates=duplicates,
                scope=scope_pb.Scope(tenant=tenant, consistency=consistency),
            )
            return self._object.ImportObjects.future(request, timeout=self._timeout_s, metadata=self._metadata)

        calls, retries = in_flight if duplicates is None else 1, Retries(retry_s)
        outcomes = import_in_chunks(send, several(objects), bounds, in_flight=calls, retries=retries)
        with closing(outcomes):
            yield from outcomes

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
        consistency: Consistency = scope_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Object:
        """Return an object: all its properties or the named ones, and the images and vectors that are named."""
        request = object_pb.GetObjectRequest(
            collection=collection,
            id=id_to_text(id_),
            scope=scope_pb.Scope(tenant=tenant, consistency=consistency),
            output=output_pb.OutputFields(
                properties=several(return_properties), images=several(return_images), vectors=several(return_vectors)
            ),
        )
        return object_from_pb(self._call(self._object.GetObject, request).object)

    def list_objects(
        self,
        collection: str,
        *,
        filters: filter_pb.Filter | None = None,
        sort: str | Iterable[str] = (),
        page_size: int = 0,
        return_properties: str | Iterable[str] = (),
        return_images: str | Iterable[str] = (),
        return_vectors: str | Iterable[str] = (),
        tenant: str = "",
        consistency: Consistency = scope_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Iterator[Object]:
        """Yield objects; further pages are fetched as they are needed.

        Without filters and sort these are all objects, by id. With them they are the first 10,000 at most, because
        Weaviate reads no further.

        Args:
            collection: the collection's name.
            filters: which objects; all if left out.
            sort: properties to sort by, the most important first; one after "-" begins with the greatest.
            page_size: objects in one call; the server's own number if left out.
            return_properties: properties to return, `home.city` for a part of one; none named means all but blobs.
            return_images: blob properties to return as images.
            return_vectors: named vectors to return.
            tenant: the tenant, if the collection has tenants.
            consistency: how many replicas must answer.

        Example:
            ids = [each.id for each in client.list_objects("Pictures")]
            newest_first = client.list_objects("Pictures", filters=where("year") >= 2020, sort="-year")
        """
        request = object_pb.ListObjectsRequest(
            collection=collection,
            filters=filters,
            sort=[sort_pb.Sort(property=each.removeprefix("-"), descending=each[:1] == "-") for each in several(sort)],
            page_size=page_size,
            scope=scope_pb.Scope(tenant=tenant, consistency=consistency),
            output=output_pb.OutputFields(
                properties=several(return_properties), images=several(return_images), vectors=several(return_vectors)
            ),
        )
        while True:
            response = self._call(self._object.ListObjects, request)
            for each in response.objects:
                yield object_from_pb(each)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def update_object(
        self,
        collection: str,
        change: Object,
        *,
        update_mask: str | Iterable[str] = (),
        truncate: bool = False,
        tenant: str = "",
        consistency: Consistency = scope_pb.CONSISTENCY_UNSPECIFIED,
    ) -> tuple[object_pb.StoredVector, ...]:
        """Change parts of the object that has the id of an Object; the rest stays as it is.

        Vectors are computed again only where a text or an image that is in them changes.

        Args:
            collection: the collection's name.
            change: the object's id and new values.
            update_mask: what changes, such as `properties.title`, `images.photo`, `vectors.default`; what it names and
                the Object does not set is cleared. All that the Object sets if left out.
            truncate: whether to cut texts that are too long for the model.
            tenant: the tenant, if the collection has tenants.
            consistency: how many replicas must answer.

        Returns:
            Where each named vector of the object comes from now.

        Example:
            client.update_object("Pictures", Object({"title": "a dog"}, id=outcome.id))
            client.update_object("Pictures", Object(id=outcome.id), update_mask="properties.year")
        """
        request = object_pb.UpdateObjectRequest(
            collection=collection,
            object=object_to_pb(change),
            truncate=truncate,
            update_mask=field_mask_pb2.FieldMask(paths=several(update_mask)),
            scope=scope_pb.Scope(tenant=tenant, consistency=consistency),
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
        consistency: Consistency = scope_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Iterator[object_pb.BackfillVectorsResponse]:
        """Compute the vectors that objects lack, and yield the result of each page of objects.

        A call that stops early, because its time is over or a server stops, continues where it stopped.

        Args:
            collection: the collection's name.
            vectors: the named vectors to fill; all if left out.
            verify: whether to repair objects that Weaviate's index has lost, too.
            truncate: whether to cut texts that are too long for the model.
            page_token: the token of a result, to continue after it.
            tenant: the tenant, if the collection has tenants.
            consistency: how many replicas must answer.

        Raises:
            VecgateError: the call failed; continue from the last `page_token`.

        Example:
            filled = sum([each.filled for each in client.backfill_vectors("Pictures")])
        """
        request = object_pb.BackfillVectorsRequest(
            collection=collection,
            vectors=several(vectors),
            verify=verify,
            truncate=truncate,
            page_token=page_token,
            scope=scope_pb.Scope(tenant=tenant, consistency=consistency),
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

    def count_missing_vectors(
        self,
        collection: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        tenant: str = "",
        consistency: Consistency = scope_pb.CONSISTENCY_UNSPECIFIED,
    ) -> Iterator[object_pb.CountMissingVectorsResponse]:
        """Count the objects that lack named vectors: read a collection part by part, and yield the counts of each part.

        Args:
            collection: the collection's name.
            page_size: the most objects of a part, up to 10,000; 0 leaves it to the server.
            page_token: the `next_page_token` of a part, to begin after it.
            tenant: the tenant, if the collection has tenants.
            consistency: how many replicas must answer.

        Example:
            missing = sum([each.missing["default"] for each in client.count_missing_vectors("Pictures")])
        """
        request = object_pb.CountMissingVectorsRequest(
            collection=collection,
            page_size=page_size,
            page_token=page_token,
            scope=scope_pb.Scope(tenant=tenant, consistency=consistency),
        )
        while True:
            response = self._call(self._object.CountMissingVectors, request)
            yield response
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def delete_object(
        self,
        collection: str,
        id_: str | UUID,
        *,
        tenant: str = "",
        consistency: Consistency = scope_pb.CONSISTENCY_UNSPECIFIED,
    ) -> None:
        """Delete an object."""
        request = object_pb.DeleteObjectRequest(
            collection=collection, id=id_to_text(id_), scope=scope_pb.Scope(tenant=tenant, consistency=consistency)
        )
        self._call(self._object.DeleteObject, request)

    def delete_objects(
        self,
        collection: str,
        filters: filter_pb.Filter,
        *,
        dry_run: bool = False,
        tenant: str = "",
        consistency: Consistency = scope_pb.CONSISTENCY_UNSPECIFIED,
    ) -> object_pb.DeleteObjectsResponse:
        """Delete all objects that match a filter, or with `dry_run` count them.

        Example:
            old = client.delete_objects("Pictures", where("year") < 2000, dry_run=True).matched
        """
        request = object_pb.DeleteObjectsRequest(
            collection=collection,
            filters=filters,
            dry_run=dry_run,
            scope=scope_pb.Scope(tenant=tenant, consistency=consistency),
        )
        return self._call(self._object.DeleteObjects, request)

    def evaluate_collection(
        self, request: evaluation_pb.EvaluateCollectionRequest
    ) -> Iterator[evaluation_pb.EvaluateCollectionResponse]:
        """Measure how well a collection is searched; yield how far that is, and at the end the result.

        An evaluation that has begun is not repeated when it fails.

        Example:
            from vecgate.v1 import evaluation_service_pb2 as pb

            wanted = pb.EvaluateCollectionRequest(collection="Pictures", objects=pb.ObjectQueries(sample_size=100))
            for event in client.evaluate_collection(wanted):
                if event.HasField("evaluation"):
                    print(event.evaluation.systems[0].measures[0].estimate.mean)
        """
        try:
            answers = self._evaluation.EvaluateCollection(request, timeout=self._timeout_s, metadata=self._metadata)
            yield from answers
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error

    def health(self, service: str = "") -> Health:
        """Return the health of a service such as `vecgate.v1.SearchService`, or of the whole server."""
        # HealthCheckRequest and HealthCheckResponse have one field of number 1, a string and an enum. These wrappers
        # are the same on the wire, so the client does not need the health package.
        check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=wrappers_pb2.StringValue.SerializeToString,
            response_deserializer=wrappers_pb2.Int32Value.FromString,
        )
        return Health(self._call(check, wrappers_pb2.StringValue(value=service)).value)

    def _call(self, method: Callable[..., Response], request: object) -> Response:
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error


def _in_calls(items: Any) -> Iterator[list[Any]]:
    rest = iter(several(items))
    while some := list(islice(rest, TENANTS_PER_CALL)):
        yield some
