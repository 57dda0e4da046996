"""A scripted Vecgate server in memory, for tests of the client and the command line.

It also answers what the real server never would: names with control characters, statuses with every detail.
"""

import hashlib
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from google.protobuf import struct_pb2
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from tests.fakes.statuses import failure
from vecgate.v1 import alias_pb2 as alias_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import collection_service_pb2_grpc as collection_grpc
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import embedding_service_pb2_grpc as embedding_grpc
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import object_service_pb2_grpc as object_grpc
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1 import search_service_pb2_grpc as search_grpc
from vecgate.v1 import tenant_pb2 as tenant_pb
from vecgate.v1 import vector_pb2 as vector_pb
from vecgate.v1.embedder_pb2 import EmbedderRef

DIMENSION = 4
MIB = 1024 * 1024
SPACE = "fake/space"
NO_VALUE = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
EMBEDDER = EmbedderRef(name="fake", model="fake-clip", space=SPACE, dimension=DIMENSION)


class FakeVecgate:
    """What the fake server holds, and how it is told to behave.

    Attributes:
        requests: those that came, by method.
        metadata: of the last call, by method.
        failing: statuses that the next calls of a method fail with; those of `GetCollection of TENANT` apart.
        refuse: returns why an object of an import is refused, or None.
        unembeddable: texts that fail alone.
        unfetched: URIs of images that are not allowed.
        duplicates: what objects of an import that looks for duplicates duplicate, by id.
        collections: by name.
        tenants: by collection and name.
        objects: by collection and id, in the order of their first import.
        healthy: by service.
        page_size: collections in a page.
        rerankers: what it lists of them.
        reranking: what searches that name a reranker answer.
        proof: of a vector that is bound; None for one that was bound before.
    """

    def __init__(self, *, max_objects: int = 1000, max_request_bytes: int = 64 * MIB) -> None:
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.metadata: dict[str, dict[str, str | bytes]] = {}
        self.failing: dict[str, list[status_pb2.Status]] = defaultdict(list)
        self.refuse: Callable[[object_pb.DataObject], status_pb2.Status | None] = lambda _: None
        self.reranking = search_pb.Reranking(reranker="rank", model="fake-reranker", scored=3)
        self.unembeddable: set[str] = set()
        self.unfetched: set[str] = set()
        self.duplicates: dict[str, object_pb.Duplicate] = {}
        self.collections: dict[str, collection_pb.Collection] = {}
        self.aliases: dict[str, str] = {}
        self.tenants: dict[str, dict[str, tenant_pb.Tenant]] = defaultdict(dict)
        self.objects: dict[str, dict[str, object_pb.DataObject]] = defaultdict(dict)
        self.healthy: dict[str, bool] = defaultdict(lambda: True)
        self.page_size = 100
        self.proof: collection_pb.BindingProof | None = None
        self.limits = embedding_pb.ServerLimits(
            max_request_bytes=max_request_bytes,
            max_response_bytes=64 * MIB,
            max_inputs=1024,
            max_objects=max_objects,
            max_hits=1000,
        )
        self.embedder = embedding_pb.EmbedderInfo(name="fake", model="fake-clip", space=SPACE, dimension=DIMENSION)
        self.embedder.modalities.extend((embedding_pb.MODALITY_TEXT, embedding_pb.MODALITY_IMAGE))
        self.embedder.health = embedding_pb.EMBEDDER_HEALTH_READY
        self.embedder.limits.max_text_bytes = 32 * 1024
        self.embedder.limits.max_image_bytes = 20 * MIB
        self.embedder.limits.max_image_pixels = 52_000_000
        self.rerankers: list[embedding_pb.RerankerInfo] = []
        self.port = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def add_collection(self, name: str, /, **properties: property_pb.DataType.ValueType) -> None:
        """Create a collection with one named vector."""
        self.collections[name] = collection_pb.Collection(
            name=name,
            properties=[property_pb.Property(name=each, data_type=kind) for each, kind in properties.items()],
            vectors=[collection_pb.VectorConfig(name="default", space=SPACE, dimension=DIMENSION, model="fake-clip")],
        )

    def came(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        """Remember a request, and fail it if it is to fail."""
        self.requests[method].append(request)
        self.metadata[method] = dict(context.invocation_metadata())
        if self.failing[method]:
            context.abort_with_status(rpc_status.to_status(self.failing[method].pop(0)))

    def collection(self, name: str, context: grpc.ServicerContext) -> collection_pb.Collection:
        """Return a collection, or fail the call."""
        if name not in self.collections:
            missing = failure(grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND", f"there is no collection {name!r}")
            context.abort_with_status(rpc_status.to_status(missing))
        return self.collections[name]

    def alias(self, name: str, context: grpc.ServicerContext) -> alias_pb.Alias:
        """Return an alias, or fail the call."""
        if name not in self.aliases:
            missing = failure(grpc.StatusCode.NOT_FOUND, "ALIAS_NOT_FOUND", f"there is no alias {name!r}")
            context.abort_with_status(rpc_status.to_status(missing))
        return alias_pb.Alias(name=name, collection=self.aliases[name])


def vector_of(content: bytes) -> vector_pb.Vector:
    """Return the unit vector that the fake gives these bytes."""
    values = np.frombuffer(hashlib.sha256(content).digest()[:DIMENSION], dtype=np.uint8).astype(np.float32) + 1
    return vector_pb.Vector(data=(values / np.linalg.norm(values)).astype("<f4").tobytes())


class _Embedding(embedding_grpc.EmbeddingServiceServicer):
    def __init__(self, fake: FakeVecgate) -> None:
        self.fake = fake

    def EmbedInputs(self, request: Any, context: Any) -> embedding_pb.EmbedInputsResponse:  # noqa: N802
        self.fake.came("EmbedInputs", request, context)
        response = embedding_pb.EmbedInputsResponse(embedder=EMBEDDER)
        for each in request.inputs:
            if each.text in self.fake.unembeddable and each.WhichOneof("content") == "text":
                error = failure(grpc.StatusCode.INVALID_ARGUMENT, "TEXT_TOO_LONG", "the text is too long")
                response.results.add(error=error)
            elif each.WhichOneof("content") == "text":
                made = embedding_pb.Embedding(
                    vector=vector_of(each.text.encode()), token_count=len(each.text.split()) + 2
                )
                response.results.add(embedding=made)
            elif each.image.uri in self.fake.unfetched:
                error = failure(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_URI_NOT_ALLOWED", "it is not listed")
                response.results.add(error=error)
            else:
                content = each.image.content or each.text_image.SerializeToString()
                response.results.add(embedding=embedding_pb.Embedding(vector=vector_of(content)))
        return response

    def ListEmbedders(self, request: Any, context: Any) -> embedding_pb.ListEmbeddersResponse:  # noqa: N802
        self.fake.came("ListEmbedders", request, context)
        return embedding_pb.ListEmbeddersResponse(
            embedders=[self.fake.embedder], rerankers=self.fake.rerankers, limits=self.fake.limits
        )


class _Collections(collection_grpc.CollectionServiceServicer):
    def __init__(self, fake: FakeVecgate) -> None:
        self.fake = fake

    def CreateCollection(self, request: Any, context: Any) -> collection_pb.CreateCollectionResponse:  # noqa: N802
        self.fake.came("CreateCollection", request, context)
        made = collection_pb.Collection()
        made.CopyFrom(request.collection)
        for vector in made.vectors:
            vector.space, vector.dimension, vector.model = SPACE, DIMENSION, "fake-clip"
        self.fake.collections[made.name] = made
        return collection_pb.CreateCollectionResponse(collection=made)

    def GetCollection(self, request: Any, context: Any) -> collection_pb.GetCollectionResponse:  # noqa: N802
        self.fake.came("GetCollection", request, context)
        if request.scope.tenant:
            self.fake.came(f"GetCollection of {request.scope.tenant}", request, context)
        found = collection_pb.Collection()
        found.CopyFrom(self.fake.collection(request.name, context))
        if not found.multi_tenancy.enabled:
            found.object_count = len(self.fake.objects[request.name])
        return collection_pb.GetCollectionResponse(collection=found)

    def ListCollections(self, request: Any, context: Any) -> collection_pb.ListCollectionsResponse:  # noqa: N802
        self.fake.came("ListCollections", request, context)
        names = sorted(self.fake.collections)
        start = int(request.page_token or 0)
        end = start + self.fake.page_size
        return collection_pb.ListCollectionsResponse(
            collections=[self.fake.collections[name] for name in names[start:end]],
            next_page_token=str(end) if end < len(names) else "",
        )

    def UpdateCollection(self, request: Any, context: Any) -> collection_pb.UpdateCollectionResponse:  # noqa: N802
        self.fake.came("UpdateCollection", request, context)
        found = self.fake.collection(request.collection.name, context)
        return collection_pb.UpdateCollectionResponse(collection=found)

    def BindVector(self, request: Any, context: Any) -> collection_pb.BindVectorResponse:  # noqa: N802
        self.fake.came("BindVector", request, context)
        found = self.fake.collection(request.collection, context)
        return collection_pb.BindVectorResponse(collection=found, proof=self.fake.proof)

    def DeleteCollection(self, request: Any, context: Any) -> collection_pb.DeleteCollectionResponse:  # noqa: N802
        self.fake.came("DeleteCollection", request, context)
        self.fake.collection(request.name, context)
        del self.fake.collections[request.name]
        return collection_pb.DeleteCollectionResponse()

    def CreateAlias(self, request: Any, context: Any) -> alias_pb.CreateAliasResponse:  # noqa: N802
        self.fake.came("CreateAlias", request, context)
        self.fake.collection(request.alias.collection, context)
        self.fake.aliases[request.alias.name] = request.alias.collection
        return alias_pb.CreateAliasResponse(alias=request.alias)

    def GetAlias(self, request: Any, context: Any) -> alias_pb.GetAliasResponse:  # noqa: N802
        self.fake.came("GetAlias", request, context)
        return alias_pb.GetAliasResponse(alias=self.fake.alias(request.name, context))

    def ListAliases(self, request: Any, context: Any) -> alias_pb.ListAliasesResponse:  # noqa: N802
        self.fake.came("ListAliases", request, context)
        there = sorted(self.fake.aliases.items())
        found = [alias_pb.Alias(name=name, collection=to) for name, to in there if request.collection in ("", to)]
        start = int(request.page_token or 0)
        end = start + self.fake.page_size
        return alias_pb.ListAliasesResponse(
            aliases=found[start:end], next_page_token=str(end) if end < len(found) else ""
        )

    def UpdateAlias(self, request: Any, context: Any) -> alias_pb.UpdateAliasResponse:  # noqa: N802
        self.fake.came("UpdateAlias", request, context)
        before = self.fake.alias(request.alias.name, context)
        self.fake.collection(request.alias.collection, context)
        self.fake.aliases[request.alias.name] = request.alias.collection
        return alias_pb.UpdateAliasResponse(alias=request.alias, previous_collection=before.collection)

    def DeleteAlias(self, request: Any, context: Any) -> alias_pb.DeleteAliasResponse:  # noqa: N802
        self.fake.came("DeleteAlias", request, context)
        del self.fake.aliases[self.fake.alias(request.name, context).name]
        return alias_pb.DeleteAliasResponse()

    def CreateTenants(self, request: Any, context: Any) -> tenant_pb.CreateTenantsResponse:  # noqa: N802
        self.fake.came("CreateTenants", request, context)
        self.fake.tenants[request.collection] |= {each.name: each for each in request.tenants}
        return tenant_pb.CreateTenantsResponse()

    def ListTenants(self, request: Any, context: Any) -> tenant_pb.ListTenantsResponse:  # noqa: N802
        self.fake.came("ListTenants", request, context)
        there = self.fake.tenants[request.collection]
        names = [name for name in sorted(there) if name in request.names or not request.names]
        start = int(request.page_token or 0)
        end = start + self.fake.page_size
        return tenant_pb.ListTenantsResponse(
            tenants=[there[name] for name in names[start:end]], next_page_token=str(end) if end < len(names) else ""
        )

    def UpdateTenants(self, request: Any, context: Any) -> tenant_pb.UpdateTenantsResponse:  # noqa: N802
        self.fake.came("UpdateTenants", request, context)
        self.fake.tenants[request.collection] |= {each.name: each for each in request.tenants}
        return tenant_pb.UpdateTenantsResponse()

    def DeleteTenants(self, request: Any, context: Any) -> tenant_pb.DeleteTenantsResponse:  # noqa: N802
        self.fake.came("DeleteTenants", request, context)
        for name in request.names:
            self.fake.tenants[request.collection].pop(name, None)
        return tenant_pb.DeleteTenantsResponse()


class _Objects(object_grpc.ObjectServiceServicer):
    def __init__(self, fake: FakeVecgate) -> None:
        self.fake = fake

    def ImportObjects(self, request: Any, context: Any) -> object_pb.ImportObjectsResponse:  # noqa: N802
        self.fake.came("ImportObjects", request, context)
        self.fake.collection(request.collection, context)
        response = object_pb.ImportObjectsResponse(embedders=[EMBEDDER])
        for each in request.objects:
            error = self.fake.refuse(each)
            if error is not None:
                response.results.add(id=each.id, error=error)
                continue
            of = self.fake.duplicates.get(each.id) if request.duplicates.action else None
            if of is not None and request.duplicates.action == object_pb.DUPLICATE_ACTION_SKIP:
                response.results.add(id=each.id, skipped=of)
                continue
            self.fake.objects[request.collection][each.id] = each
            vector = object_pb.StoredVector(name="default", origin=object_pb.VECTOR_ORIGIN_COMPUTED, embedder="fake")
            response.results.add(id=each.id, stored=object_pb.StoredObject(vectors=[vector], duplicate_of=of))
        return response

    def GetObject(self, request: Any, context: Any) -> object_pb.GetObjectResponse:  # noqa: N802
        self.fake.came("GetObject", request, context)
        self.fake.collection(request.collection, context)
        found = self.fake.objects[request.collection].get(request.id)
        if found is None:
            missing = failure(grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND", f"there is no object {request.id!r}")
            context.abort_with_status(rpc_status.to_status(missing))
        return object_pb.GetObjectResponse(object=shown(found, request))

    def ListObjects(self, request: Any, context: Any) -> object_pb.ListObjectsResponse:  # noqa: N802
        self.fake.came("ListObjects", request, context)
        self.fake.collection(request.collection, context)
        objects = self.fake.objects[request.collection]
        # Of filters it knows those by id.
        wanted = request.filters.condition.value.texts.values or objects
        ids = [id_ for id_ in sorted(objects) if id_ > request.page_token and id_ in wanted]
        page = ids[: min(request.page_size or self.fake.page_size, self.fake.page_size)]
        return object_pb.ListObjectsResponse(
            objects=[shown(objects[id_], request) for id_ in page],
            next_page_token=page[-1] if len(page) < len(ids) else "",
        )

    def UpdateObject(self, request: Any, context: Any) -> object_pb.UpdateObjectResponse:  # noqa: N802
        self.fake.came("UpdateObject", request, context)
        self.fake.collection(request.collection, context)
        vector = object_pb.StoredVector(name="default", origin=object_pb.VECTOR_ORIGIN_COMPUTED, embedder="fake")
        return object_pb.UpdateObjectResponse(stored=object_pb.StoredObject(vectors=[vector]))

    def BackfillVectors(self, request: Any, context: Any) -> Iterator[object_pb.BackfillVectorsResponse]:  # noqa: N802
        self.fake.came("BackfillVectors", request, context)
        self.fake.collection(request.collection, context)
        ids = [id_ for id_ in sorted(self.fake.objects[request.collection]) if id_ > request.page_token]
        for number, start in enumerate(range(0, len(ids), 2), start=1):
            if self.fake.failing[f"BackfillVectors page {number}"]:
                status = self.fake.failing[f"BackfillVectors page {number}"].pop()
                context.abort_with_status(rpc_status.to_status(status))
            page = ids[start : start + 2]
            # The last object fails.
            failed = [
                object_pb.BackfillFailure(id=id_, error=failure(grpc.StatusCode.INTERNAL))
                for id_ in page
                if id_ == ids[-1]
            ]
            yield object_pb.BackfillVectorsResponse(
                page_token=page[-1], seen=len(page), filled=len(page) - len(failed), failures=failed
            )

    def CountMissingVectors(self, request: Any, context: Any) -> object_pb.CountMissingVectorsResponse:  # noqa: N802
        self.fake.came("CountMissingVectors", request, context)
        found = self.fake.collection(request.collection, context)
        ids = [id_ for id_ in sorted(self.fake.objects[request.collection]) if id_ > request.page_token]
        # Of each part the first object lacks its vectors.
        return object_pb.CountMissingVectorsResponse(
            seen=len(ids[:2]),
            missing={each.name: len(ids[:1]) for each in found.vectors},
            next_page_token=ids[1] if len(ids) > 2 else "",
        )

    def DeleteObject(self, request: Any, context: Any) -> object_pb.DeleteObjectResponse:  # noqa: N802
        self.fake.came("DeleteObject", request, context)
        self.fake.collection(request.collection, context)
        if self.fake.objects[request.collection].pop(request.id, None) is None:
            missing = failure(grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND", f"there is no object {request.id!r}")
            context.abort_with_status(rpc_status.to_status(missing))
        return object_pb.DeleteObjectResponse()

    def DeleteObjects(self, request: Any, context: Any) -> object_pb.DeleteObjectsResponse:  # noqa: N802
        self.fake.came("DeleteObjects", request, context)
        self.fake.collection(request.collection, context)
        objects = self.fake.objects[request.collection]
        # Whatever the filter says: those of an odd place fit it, and the last one of them cannot be deleted.
        fitting = list(objects)[1::2]
        if request.dry_run:
            return object_pb.DeleteObjectsResponse(matched=len(fitting), ids=fitting)
        for id_ in fitting[:-1]:
            del objects[id_]
        failed = [
            object_pb.DeleteFailure(id=id_, error=failure(grpc.StatusCode.FAILED_PRECONDITION, "STORE_REJECTED"))
            for id_ in fitting[-1:]
        ]
        return object_pb.DeleteObjectsResponse(
            matched=len(fitting), deleted=len(fitting[:-1]), failed=len(failed), ids=fitting[:-1], failures=failed
        )


class _Search(search_grpc.SearchServiceServicer):
    def __init__(self, fake: FakeVecgate) -> None:
        self.fake = fake

    def SearchObjects(self, request: Any, context: Any) -> search_pb.SearchObjectsResponse:  # noqa: N802
        self.fake.came("SearchObjects", request, context)
        self.fake.collection(request.collection, context)
        found = list(self.fake.objects[request.collection].values())[request.offset :][: request.limit or 10]
        response = search_pb.SearchObjectsResponse()
        if request.WhichOneof("query") in {"near_text", "near_image"}:
            response.embedder.CopyFrom(EMBEDDER)
        for rank, each in enumerate(found, start=1):
            response.hits.add(object=shown(each, request), distance=rank / 10, certainty=1 - rank / 20)
        if request.rerank.reranker:
            response.reranking.MergeFrom(self.fake.reranking)
            for rank, hit in enumerate(response.hits):
                if not self.fake.reranking.HasField("error"):
                    hit.rerank_score = -rank
        return response

    def ProjectObjects(self, request: Any, context: Any) -> search_pb.ProjectObjectsResponse:  # noqa: N802
        self.fake.came("ProjectObjects", request, context)
        self.fake.collection(request.collection, context)
        found = list(self.fake.objects[request.collection].values())[: request.sample_size or 2000]
        response = search_pb.ProjectObjectsResponse(
            target_vector=request.target_vector or "default",
            space=EMBEDDER.space,
            ids=[each.id for each in found],
            coordinates=struct.pack(f"<{2 * len(found)}f", *range(2 * len(found))),
            explained_variance=[0.5, 0.25],
            method=search_pb.PROJECTION_METHOD_PCA,
            total_count=len(self.fake.objects[request.collection]),
            missing_count=1,
        )
        for name in request.properties:
            values = response.properties.add(name=name).values.values
            values.extend(each.properties.fields.get(name, NO_VALUE) for each in found)
        if request.inputs:
            response.embedder.CopyFrom(EMBEDDER)
        for number in range(len(request.inputs)):
            response.inputs.add(x=number + 0.5, y=-0.5, nearest=[number])
        return response


class _Health(health_pb2_grpc.HealthServicer):
    def __init__(self, fake: FakeVecgate) -> None:
        self.fake = fake

    def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
        self.fake.came("Check", request, context)
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if self.fake.healthy[request.service] else states.NOT_SERVING
        return health_pb2.HealthCheckResponse(status=state)


def shown(found: object_pb.DataObject, request: Any) -> object_pb.DataObject:
    """Return the parts of an object that a request asks for."""
    output = request.output
    names = [name for name in output.properties or found.properties if name in found.properties]
    answer = object_pb.DataObject(id=found.id, images={name: found.images[name] for name in output.images})
    for name in names:
        answer.properties[name] = found.properties[name]
    for name in output.vectors:
        answer.vectors[name].CopyFrom(found.vectors.get(name) or vector_of(found.id.encode()))
    return answer


@contextmanager
def serving(fake: FakeVecgate) -> Iterator[FakeVecgate]:
    """Serve a fake on a free port."""
    options = [("grpc.max_receive_message_length", fake.limits.max_request_bytes), ("grpc.so_reuseport", 0)]
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=options)
        embedding_grpc.add_EmbeddingServiceServicer_to_server(_Embedding(fake), server)
        collection_grpc.add_CollectionServiceServicer_to_server(_Collections(fake), server)
        object_grpc.add_ObjectServiceServicer_to_server(_Objects(fake), server)
        search_grpc.add_SearchServiceServicer_to_server(_Search(fake), server)
        health_pb2_grpc.add_HealthServicer_to_server(_Health(fake), server)
        fake.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield fake
        finally:
            server.stop(None).wait()
