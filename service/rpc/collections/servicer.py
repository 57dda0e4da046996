"""CollectionService: validate, convert, call core, convert."""

from typing import Any

import grpc

from service.core.collections.collections import Collections
from service.core.collections.tenants import Tenants
from service.core.embedder_pool import EmbedderPool
from service.domain import Collection
from service.rpc.collections.checks import (
    check_create_collection,
    check_list_collections,
    check_update_collection,
    decode_page_token,
    encode_page_token,
)
from service.rpc.collections.messages import change_from_pb, collection_from_pb, collection_to_pb
from service.rpc.collections.tenants import (
    check_create_tenants,
    check_delete_tenants,
    check_get_collection,
    check_list_tenants,
    check_update_tenants,
    tenants_from_pb,
    tenants_to_pb,
)
from service.rpc.shared.pages import CLIENTS_TAKE_BYTES, FRAME_BYTES, as_many_as_fit
from service.rpc.shared.scope import TENANT_NAME
from service.rpc.shared.violations import check_name
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import collection_service_pb2_grpc as pb_grpc
from vecgate.v1 import tenant_pb2 as tenant_pb

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_PAGE_SIZE = 100


class CollectionServicer(pb_grpc.CollectionServiceServicer):
    """Answers CollectionService."""

    def __init__(self, collections: Collections, tenants: Tenants, embedders: EmbedderPool) -> None:
        self._collections = collections
        self._tenants = tenants
        self._embedders = embedders

    async def CreateCollection(
        self,
        request: pb.CreateCollectionRequest,
        context: Context,
    ) -> pb.CreateCollectionResponse:
        """Create a collection."""
        check_create_collection(request)
        created = await self._collections.create(*collection_from_pb(request.collection))
        return pb.CreateCollectionResponse(collection=self._to_pb(created))

    async def GetCollection(self, request: pb.GetCollectionRequest, context: Context) -> pb.GetCollectionResponse:
        """Return a collection."""
        check_get_collection(request)
        collection, count = await self._collections.get(request.name, request.tenant)
        message = self._to_pb(collection)
        if count is not None:
            message.object_count = count
        return pb.GetCollectionResponse(collection=message)

    async def ListCollections(self, request: pb.ListCollectionsRequest, context: Context) -> pb.ListCollectionsResponse:
        """List collections."""
        check_list_collections(request)
        page = await self._collections.list_page(
            after=decode_page_token(request.page_token), size=request.page_size or DEFAULT_PAGE_SIZE
        )
        fitting = as_many_as_fit(map(self._to_pb, page.collections), CLIENTS_TAKE_BYTES, FRAME_BYTES)
        more = page.more or len(fitting) < len(page.collections)
        token = encode_page_token(fitting[-1].name) if more else ""
        return pb.ListCollectionsResponse(collections=fitting, next_page_token=token)

    async def UpdateCollection(
        self,
        request: pb.UpdateCollectionRequest,
        context: Context,
    ) -> pb.UpdateCollectionResponse:
        """Change a collection."""
        check_update_collection(request)
        change = change_from_pb(request.collection, request.update_mask.paths)
        updated = await self._collections.update(request.collection.name, change)
        return pb.UpdateCollectionResponse(collection=self._to_pb(updated))

    async def DeleteCollection(
        self,
        request: pb.DeleteCollectionRequest,
        context: Context,
    ) -> pb.DeleteCollectionResponse:
        """Delete a collection."""
        check_name(request.name, "name")
        await self._collections.delete(request.name)
        return pb.DeleteCollectionResponse()

    async def CreateTenants(
        self, request: tenant_pb.CreateTenantsRequest, context: Context
    ) -> tenant_pb.CreateTenantsResponse:
        """Add tenants to a collection."""
        check_create_tenants(request)
        await self._tenants.create(request.collection, tenants_from_pb(request.tenants))
        return tenant_pb.CreateTenantsResponse()

    async def ListTenants(
        self, request: tenant_pb.ListTenantsRequest, context: Context
    ) -> tenant_pb.ListTenantsResponse:
        """List a collection's tenants."""
        check_list_tenants(request)
        page = await self._tenants.list_page(
            request.collection,
            request.names,
            after=decode_page_token(request.page_token, TENANT_NAME),
            size=request.page_size or DEFAULT_PAGE_SIZE,
        )
        token = encode_page_token(page.tenants[-1].name) if page.more else ""
        return tenant_pb.ListTenantsResponse(tenants=tenants_to_pb(page.tenants), next_page_token=token)

    async def UpdateTenants(
        self, request: tenant_pb.UpdateTenantsRequest, context: Context
    ) -> tenant_pb.UpdateTenantsResponse:
        """Change how active tenants are."""
        check_update_tenants(request)
        await self._tenants.update(request.collection, tenants_from_pb(request.tenants))
        return tenant_pb.UpdateTenantsResponse()

    async def DeleteTenants(
        self, request: tenant_pb.DeleteTenantsRequest, context: Context
    ) -> tenant_pb.DeleteTenantsResponse:
        """Delete tenants with their objects."""
        check_delete_tenants(request)
        await self._tenants.delete(request.collection, request.names)
        return tenant_pb.DeleteTenantsResponse()

    def _to_pb(self, collection: Collection) -> pb.Collection:
        names = {each.spec.space: each.spec.name for each in reversed(self._embedders.all)}
        default = self._embedders.default_vector(collection)
        return collection_to_pb(collection, names, default.name if default else "")
