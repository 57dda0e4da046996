"""The client itself: one method for each thing that Vecgate does."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf import field_mask_pb2, wrappers_pb2
from numpy.typing import ArrayLike

from vecgate.client.channel import MIB, ChannelOption, channel_options
from vecgate.client.errors import error_from_rpc
from vecgate.client.objects import ObjectCalls
from vecgate.client.searching import Query, set_query
from vecgate.client.values import (
    Embeddings,
    SearchResult,
    embedded_from_pb,
    input_to_pb,
    result_from_pb,
    several,
)
from vecgate.v1 import admin_service_pb2 as admin_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import filter_pb2 as filter_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.admin_service_pb2_grpc import AdminServiceStub
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

Response = TypeVar("Response")
Tenants = str | collection_pb.Tenant | Iterable[str | collection_pb.Tenant]

# What the server takes and gives in one call.
TENANTS_PER_CALL = 1000


class Health(Enum):
    """What a server says of one of its services, as in grpc.health.v1."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Client(ObjectCalls):
    """A connection to Vecgate. Use it as a context manager, or call `close`. Threads may share it.

    Where several things are taken, one alone may be given without a list around it: `embed("a cat")`.

    Calls that fail because the server cannot be reached are tried up to four times, except for `create_collection`.
    Every method raises `VecgateError` when the server refuses or fails, and `Unreachable`, a kind of it, when no server
    answers.

    Args:
        target: the server's address, such as `vecgate:50070`, or `dns:///vecgate:50070` to spread calls over replicas.
        timeout_s: seconds for one call with all its attempts.
        credentials: for TLS, such as `grpc.ssl_channel_credentials()`; without them the connection is in clear text.
        api_key: says who calls, where the server asks.
        metadata: sent with every call.
        max_message_bytes: bytes of a message either way; at most what the server takes.
        options: gRPC channel options, which win over the client's own.

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
        metadata: Sequence[tuple[str, str]] = (),
        max_message_bytes: int = 64 * MIB,
        options: Sequence[ChannelOption] = (),
    ) -> None:
        arguments = channel_options(max_message_bytes=max_message_bytes, extra=options)
        self.target = target
        self._timeout_s = timeout_s
        self._metadata = (*metadata, *((("authorization", f"Bearer {api_key}"),) if api_key else ()))
        self._max_message_bytes = max_message_bytes
        self._channel = (
            grpc.insecure_channel(target, options=arguments)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=arguments)
        )
        self._embedding = EmbeddingServiceStub(self._channel)
        self._admin = AdminServiceStub(self._channel)
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
        inputs: str | bytes | Path | Iterable[str | bytes | Path],
        *,
        embedder: str = "",
        purpose: embedding_pb.Purpose.ValueType = embedding_pb.PURPOSE_UNSPECIFIED,
        priority: embedding_pb.Priority.ValueType = embedding_pb.PRIORITY_UNSPECIFIED,
        truncate: bool = False,
    ) -> Embeddings:
        """Turn texts (str) and images (bytes, or the Path of a file) into vectors.

        Args:
            inputs: what to embed, one or several; at most the server's `max_inputs`.
            embedder: the embedder's name; empty means the server's default one.
            purpose: what the vectors are for; models of one role ignore it.
            priority: how urgent they are; bulk work waits while interactive work does.
            truncate: whether to cut texts that are longer than the model reads instead of failing them.

        Raises:
            VecgateError: the whole call failed. An input that cannot be embedded fails alone, in its item.
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
        """Return what waits, what runs and what is broken in the server, for clients with the permission admin."""
        return self._call(self._admin.GetServerStatus, admin_pb.GetServerStatusRequest())

    def create_collection(self, collection: collection_pb.Collection) -> collection_pb.Collection:
        """Create a collection and return it as created, with the space of each named vector."""
        request = collection_pb.CreateCollectionRequest(collection=collection)
        return self._call(self._collection.CreateCollection, request).collection

    def get_collection(self, name: str, tenant: str = "") -> collection_pb.Collection:
        """Return a collection with the number of its objects, or of those of one tenant where it has some."""
        request = collection_pb.GetCollectionRequest(name=name, tenant=tenant)
        return self._call(self._collection.GetCollection, request).collection

    def list_collections(self) -> Iterator[collection_pb.Collection]:
        """Yield all collections by name; further pages are fetched as they are needed."""
        request = collection_pb.ListCollectionsRequest()
        while True:
            response = self._call(self._collection.ListCollections, request)
            yield from response.collections
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def update_collection(
        self, collection: collection_pb.Collection, update_mask: str | Iterable[str] = ()
    ) -> collection_pb.Collection:
        """Change a collection, add properties and named vectors to it, and return it as it is then.

        Args:
            collection: its name, and what is to be otherwise; what is left out stays.
            update_mask: the fields to look at, such as `["description"]`; none means all that are set.
        """
        request = collection_pb.UpdateCollectionRequest(
            collection=collection, update_mask=field_mask_pb2.FieldMask(paths=several(update_mask))
        )
        return self._call(self._collection.UpdateCollection, request).collection

    def delete_collection(self, name: str) -> None:
        """Delete a collection with all its objects."""
        self._call(self._collection.DeleteCollection, collection_pb.DeleteCollectionRequest(name=name))

    def create_tenants(self, collection: str, tenants: Tenants) -> None:
        """Add tenants, named or as messages, to a collection that has some; those that are there stay as they are."""
        for some in _in_calls(tenants):
            request = collection_pb.CreateTenantsRequest(
                collection=collection,
                tenants=[collection_pb.Tenant(name=each) if isinstance(each, str) else each for each in some],
            )
            self._call(self._collection.CreateTenants, request)

    def list_tenants(self, collection: str, names: str | Iterable[str] = ()) -> Iterator[collection_pb.Tenant]:
        """Yield a collection's tenants, or those of certain names; further pages are fetched as they are needed."""
        request = collection_pb.ListTenantsRequest(
            collection=collection, names=several(names), page_size=TENANTS_PER_CALL
        )
        while True:
            response = self._call(self._collection.ListTenants, request)
            yield from response.tenants
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def update_tenants(self, collection: str, tenants: collection_pb.Tenant | Iterable[collection_pb.Tenant]) -> None:
        """Change how active tenants are."""
        for some in _in_calls(tenants):
            request = collection_pb.UpdateTenantsRequest(collection=collection, tenants=some)
            self._call(self._collection.UpdateTenants, request)

    def delete_tenants(self, collection: str, names: str | Iterable[str]) -> None:
        """Delete tenants with all their objects; those that are not there are no error."""
        for some in _in_calls(names):
            request = collection_pb.DeleteTenantsRequest(collection=collection, names=some)
            self._call(self._collection.DeleteTenants, request)

    def search(
        self,
        collection: str,
        *,
        text: str | Iterable[str] | None = None,
        image: bytes | Path | None = None,
        vector: ArrayLike | None = None,
        vector_space: str = "",
        limit: int = 10,
        offset: int = 0,
        target_vector: str | Iterable[str] = (),
        truncate: bool = False,
        query: Query | None = None,
        filters: filter_pb.Filter | None = None,
        more: search_pb.SearchObjectsRequest | None = None,
        return_properties: str | Iterable[str] = (),
        return_images: str | Iterable[str] = (),
        return_vectors: str | Iterable[str] = (),
        tenant: str = "",
    ) -> SearchResult:
        """Find the objects nearest to a text, an image or a vector, or list objects when none is given.

        Args:
            collection: the collection's name.
            text: a text, or several whose mean is searched.
            image: encoded bytes, or the Path of a file.
            vector: values of the searched space; with `vector_space` the server makes sure of that.
            vector_space: the space that the vector comes from.
            limit: hits to return.
            offset: hits to pass over.
            target_vector: the named vector to search, or several; left out it is the collection's default_vector.
            truncate: whether to cut a text that is longer than the model reads.
            query: instead, any query as a message, such as `near_inputs(...)`, NearObject, Bm25 or Hybrid.
            filters: which objects count, such as `where("year") >= 2020`; none means all.
            more: further fields of the request, such as `SearchObjectsRequest(certainty=0.7, consistency=...)`.
            return_properties: properties to return, `home.city` for a part of one; none named means all but blobs.
            return_images: blob properties to return as images.
            return_vectors: named vectors to return.
            tenant: whose objects to search, where the collection has tenants.

        Raises:
            ValueError, OSError: more than one of text, image, vector and query is given; the file cannot be read.
            VecgateError: the call failed.

        Example:
            nearest = client.search("Pictures", image=Path("dog.png"), limit=5).hits[0].object
        """
        request = search_pb.SearchObjectsRequest(
            collection=collection,
            limit=limit,
            offset=offset,
            target_vectors=several(target_vector) if target_vector else (),
            filters=filters,
            return_properties=several(return_properties),
            return_images=several(return_images),
            return_vectors=several(return_vectors),
            tenant=tenant,
        )
        set_query(request, text, image, vector, vector_space, truncate=truncate, query=query, more=more)
        return result_from_pb(self._call(self._search.SearchObjects, request))

    def health(self, service: str = "") -> Health:
        """Return what the server says of a service such as `vecgate.v1.SearchService`; empty asks for all together."""
        # HealthCheckRequest and -Response each hold one field of number 1, a string and an enum: on the wire these
        # wrappers are the same, and the client does without the health package.
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
