"""CollectionService: parse the request, call core, make the response."""

from typing import Any

import grpc

from service.core.collections.aliases import Aliases
from service.core.collections.collections import Collections
from service.core.collections.tenants import Tenants
from service.core.embedder_pool import EmbedderPool
from service.domain import Alias, Collection, NamedVector, Property
from service.errors import Violations
from service.rpc.collections.request import (
    DATA_TYPES,
    page_token,
    parse_alias,
    parse_bind_vector,
    parse_create_collection,
    parse_list,
    parse_update_collection,
)
from service.rpc.collections.tenants import (
    check_delete_tenants,
    check_tenant,
    parse_create_tenants,
    parse_list_tenants,
    parse_update_tenants,
    tenants_to_pb,
)
from service.rpc.collections.vector_index import index_to_pb
from service.rpc.shared.pages import CLIENTS_TAKE_BYTES, FRAME_BYTES, as_many_as_fit
from service.rpc.shared.requests import CallerKeys, check_name
from service.weaviate_names import INDEXING, parameters_to_pb
from vecgate.v1 import alias_pb2 as alias_pb
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import collection_service_pb2_grpc as pb_grpc
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import tenant_pb2 as tenant_pb

Context = grpc.aio.ServicerContext[Any, Any]


class CollectionServicer(pb_grpc.CollectionServiceServicer):
    """Answers CollectionService."""

    def __init__(
        self,
        collections: Collections,
        aliases: Aliases,
        tenants: Tenants,
        embedders: EmbedderPool,
        *,
        keys: CallerKeys,
    ) -> None:
        self._keys = keys
        self._collections = collections
        self._aliases = aliases
        self._tenants = tenants
        self._embedders = embedders

    async def CreateCollection(
        self,
        request: pb.CreateCollectionRequest,
        context: Context,
    ) -> pb.CreateCollectionResponse:
        """Create a collection."""
        created = await self._collections.create(*parse_create_collection(request))
        return pb.CreateCollectionResponse(collection=self._to_pb(created))

    async def GetCollection(self, request: pb.GetCollectionRequest, context: Context) -> pb.GetCollectionResponse:
        """Return a collection."""
        violations = Violations()
        violations.require(request.name, "name", "is required; name a collection")
        if request.scope.tenant:
            check_tenant(violations, request.scope.tenant, "scope.tenant")
        rule = "does not apply to a count; leave it out"
        violations.require(not request.scope.consistency, "scope.consistency", rule)
        violations.raise_if_any()
        collection, count, etag = await self._collections.get(request.name, request.scope.tenant)
        message = self._to_pb(collection)
        message.etag = etag
        if count is not None:
            message.object_count = count
        return pb.GetCollectionResponse(collection=message)

    async def ListCollections(self, request: pb.ListCollectionsRequest, context: Context) -> pb.ListCollectionsResponse:
        """List collections."""
        page = parse_list(request)
        collections, more = await self._collections.list_page(page.after, page.size)
        fitting = as_many_as_fit(map(self._to_pb, collections), CLIENTS_TAKE_BYTES, FRAME_BYTES)
        more = more or len(fitting) < len(collections)
        token = page_token(fitting[-1].name) if more else ""
        return pb.ListCollectionsResponse(collections=fitting, next_page_token=token)

    async def UpdateCollection(
        self,
        request: pb.UpdateCollectionRequest,
        context: Context,
    ) -> pb.UpdateCollectionResponse:
        """Change a collection."""
        change = parse_update_collection(request)
        updated = await self._collections.update(request.collection.name, change, request.etag)
        return pb.UpdateCollectionResponse(collection=self._to_pb(updated))

    async def BindVector(self, request: pb.BindVectorRequest, context: Context) -> pb.BindVectorResponse:
        """Bind a vector that another client made."""
        wish = parse_bind_vector(request)
        bound, proof = await self._collections.bind_vector(request.collection, wish, self._keys.of(context))
        response = pb.BindVectorResponse(collection=self._to_pb(bound))
        if proof is not None:
            response.proof.compared, response.proof.matching = proof.compared, proof.matching
            response.proof.zeros = proof.zeros
            response.proof.least_cosine, response.proof.median_cosine = proof.least, proof.median
        return response

    async def DeleteCollection(
        self,
        request: pb.DeleteCollectionRequest,
        context: Context,
    ) -> pb.DeleteCollectionResponse:
        """Delete a collection."""
        check_name(request.name, "name")
        await self._collections.delete(request.name)
        return pb.DeleteCollectionResponse()

    async def CreateAlias(self, request: alias_pb.CreateAliasRequest, context: Context) -> alias_pb.CreateAliasResponse:
        """Give a collection another name."""
        created = await self._aliases.create(parse_alias(request.alias, creating=True))
        return alias_pb.CreateAliasResponse(alias=_alias_to_pb(created))

    async def GetAlias(self, request: alias_pb.GetAliasRequest, context: Context) -> alias_pb.GetAliasResponse:
        """Return an alias."""
        check_name(request.name, "name", "an alias")
        return alias_pb.GetAliasResponse(alias=_alias_to_pb(await self._aliases.get(request.name)))

    async def ListAliases(self, request: alias_pb.ListAliasesRequest, context: Context) -> alias_pb.ListAliasesResponse:
        """List aliases."""
        page = parse_list(request)
        found, more = await self._aliases.list_page(request.collection, page.after, page.size)
        token = page_token(found[-1].name) if more else ""
        return alias_pb.ListAliasesResponse(aliases=map(_alias_to_pb, found), next_page_token=token)

    async def UpdateAlias(self, request: alias_pb.UpdateAliasRequest, context: Context) -> alias_pb.UpdateAliasResponse:
        """Switch an alias to another collection."""
        updated, previous = await self._aliases.update(parse_alias(request.alias, creating=False))
        return alias_pb.UpdateAliasResponse(alias=_alias_to_pb(updated), previous_collection=previous)

    async def DeleteAlias(self, request: alias_pb.DeleteAliasRequest, context: Context) -> alias_pb.DeleteAliasResponse:
        """Delete an alias."""
        check_name(request.name, "name", "an alias")
        await self._aliases.delete(request.name)
        return alias_pb.DeleteAliasResponse()

    async def CreateTenants(
        self, request: tenant_pb.CreateTenantsRequest, context: Context
    ) -> tenant_pb.CreateTenantsResponse:
        """Add tenants to a collection."""
        await self._tenants.create(request.collection, parse_create_tenants(request))
        return tenant_pb.CreateTenantsResponse()

    async def ListTenants(
        self, request: tenant_pb.ListTenantsRequest, context: Context
    ) -> tenant_pb.ListTenantsResponse:
        """List a collection's tenants."""
        page = parse_list_tenants(request)
        tenants, more = await self._tenants.list_page(request.collection, request.names, page.after, page.size)
        token = page_token(tenants[-1].name) if more else ""
        return tenant_pb.ListTenantsResponse(tenants=tenants_to_pb(tenants), next_page_token=token)

    async def UpdateTenants(
        self, request: tenant_pb.UpdateTenantsRequest, context: Context
    ) -> tenant_pb.UpdateTenantsResponse:
        """Change how active tenants are."""
        await self._tenants.update(request.collection, parse_update_tenants(request))
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
        message = pb.Collection(
            name=collection.name,
            description=collection.description,
            default_vector=default.name if default else "",
        )
        for each in collection.properties:
            _property_to_pb(each, message.properties.add())
        for vector in collection.vectors:
            _vector_to_pb(vector, names, message.vectors.add())
        if collection.multi_tenancy is not None:
            message.multi_tenancy.enabled = True
            message.multi_tenancy.auto_tenant_creation = collection.multi_tenancy.auto_creation
            message.multi_tenancy.auto_tenant_activation = collection.multi_tenancy.auto_activation
        if collection.reranker is not None:
            message.reranker.module = collection.reranker.module
            message.reranker.options.update(collection.reranker.options)
        for name in ("replication", "sharding", "inverted_index", "object_ttl"):
            parameters_to_pb(getattr(collection, name), getattr(message, name))
        return message


def _property_to_pb(property_: Property, message: property_pb.Property) -> None:
    message.name = property_.name
    message.description = property_.description
    if property_.data_type is not None:
        message.data_type = DATA_TYPES[property_.data_type]
    parameters_to_pb({name: property_.indexing.get(name) for name in INDEXING}, message)
    for each in property_.nested:
        _property_to_pb(each, message.nested_properties.add())


def _alias_to_pb(alias: Alias) -> alias_pb.Alias:
    return alias_pb.Alias(name=alias.name, collection=alias.collection)


def _vector_to_pb(vector: NamedVector, embedder_names: dict[str, str], message: pb.VectorConfig) -> None:
    message.name = vector.name
    for fields, listed in ((vector.image_fields, message.image_fields), (vector.text_fields, message.text_fields)):
        for field in fields:
            listed.add(name=field.name, weight=field.weight if vector.weighted else None)
    index_to_pb(vector.index, vector.distance, message.index)
    message.native, message.base_url = vector.native, vector.base_url
    message.combination = pb.COMBINATION_JOINT_INPUT if vector.joint else pb.COMBINATION_WEIGHTED_MEAN
    if vector.space:
        message.embedder = embedder_names.get(vector.space.id, "")
        message.model = vector.space.model
        message.space = vector.space.id
        message.dimension = vector.space.dimension
