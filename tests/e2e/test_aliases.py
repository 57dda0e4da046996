"""Aliases of a real Weaviate: every call by one is about the collection that it leads to, also while it is switched."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

import grpc
import pytest
from grpc import StatusCode
from weaviate import WeaviateAsyncClient
from weaviate.exceptions import WeaviateUnsupportedFeatureError
from weaviate.util import _ServerVersion

from service.settings import WeaviateSettings
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder
from tests.service.conftest import failure_of
from vecgate.client import where
from vecgate.v1 import alias_pb2 as alias_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1 import tenant_pb2 as tenant_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

Aliased = tuple[str, CollectionServiceStub, ObjectServiceStub, SearchServiceStub, WeaviateAsyncClient]


@pytest.fixture
async def aliased(weaviate_settings: WeaviateSettings) -> AsyncIterator[Aliased]:
    """Real..., a collection with tenants, and its alias Alias..."""
    suffix = uuid4().hex
    async with beside(weaviate_settings, FakeEmbedder()) as (channel, direct):
        collections = CollectionServiceStub(channel)
        wanted = collection_pb.Collection(
            name=f"Real{suffix}",
            properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
            vectors=[collection_pb.VectorConfig(name="v", text_fields=[{"name": "title"}])],
            multi_tenancy={"enabled": True},
        )
        await collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))
        await direct.alias.create(alias_name=f"Alias{suffix}", target_collection=f"Real{suffix}")
        yield suffix, collections, ObjectServiceStub(channel), SearchServiceStub(channel), direct


@pytest.mark.parametrize("spelling", ["Alias", "alias"])
async def test_every_call_by_an_alias_is_about_its_collection(aliased: Aliased, spelling: str) -> None:
    suffix, collections, objects, searches, _ = aliased
    name, scope = f"{spelling}{suffix}", {"tenant": "anna"}
    id_ = str(UUID(int=1))

    await collections.CreateTenants(
        tenant_pb.CreateTenantsRequest(collection=name, tenants=[{"name": "anna"}, {"name": "ben"}])
    )
    tenants = await collections.ListTenants(tenant_pb.ListTenantsRequest(collection=name))
    await collections.UpdateTenants(
        tenant_pb.UpdateTenantsRequest(
            collection=name, tenants=[{"name": "ben", "activity_status": "TENANT_ACTIVITY_STATUS_INACTIVE"}]
        )
    )
    await collections.DeleteTenants(tenant_pb.DeleteTenantsRequest(collection=name, names=["ben"]))
    change = collection_pb.Collection(
        name=name, description="new", properties=[{"name": "year", "data_type": "DATA_TYPE_INT"}]
    )
    updated = await collections.UpdateCollection(collection_pb.UpdateCollectionRequest(collection=change))
    rows: list[Any] = [{"id": id_, "properties": {"title": "a cat", "year": 1}}, {"properties": {"title": "a dog"}}]
    stored = await objects.ImportObjects(pb.ImportObjectsRequest(collection=name, objects=rows, scope=scope))
    await objects.UpdateObject(
        pb.UpdateObjectRequest(collection=name, object={"id": id_, "properties": {"title": "two cats"}}, scope=scope)
    )
    got = await objects.GetObject(pb.GetObjectRequest(collection=name, id=id_, scope=scope))
    listed = await objects.ListObjects(pb.ListObjectsRequest(collection=name, scope=scope))
    filled = [each async for each in objects.BackfillVectors(pb.BackfillVectorsRequest(collection=name, scope=scope))]
    found = await searches.SearchObjects(
        search_pb.SearchObjectsRequest(collection=name, near_text={"concepts": ["two cats"]}, scope=scope)
    )
    shown = await collections.GetCollection(collection_pb.GetCollectionRequest(name=name, scope=scope))
    deleted = await objects.DeleteObjects(
        pb.DeleteObjectsRequest(collection=name, filters=where("year") >= 1, scope=scope)
    )
    await objects.DeleteObject(pb.DeleteObjectRequest(collection=name, id=listed.objects[-1].id, scope=scope))
    left = await collections.GetCollection(collection_pb.GetCollectionRequest(name=f"Real{suffix}", scope=scope))

    assert [each.name for each in tenants.tenants] == ["anna", "ben"]
    assert [each.WhichOneof("outcome") for each in stored.results] == ["stored"] * 2
    assert (updated.collection.description, shown.collection.name) == ("new", f"Real{suffix}")
    assert (got.object.properties["title"], len(listed.objects), sum(each.seen for each in filled)) == (
        "two cats",
        2,
        2,
    )
    assert (found.hits[0].object.id, shown.collection.object_count) == (id_, 2)
    assert (deleted.deleted, left.collection.object_count, left.collection.description) == (1, 0, "new")


async def test_an_alias_is_not_deleted_and_no_collection_takes_its_name(aliased: Aliased) -> None:
    suffix, collections, _, _, direct = aliased
    name = f"Alias{suffix}"

    deleting = await failure_of(collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name=name)))
    wanted = collection_pb.Collection(name=name, vectors=[collection_pb.VectorConfig(name="v")])
    creating = await failure_of(collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted)))

    assert (deleting.code, deleting.fields) == (StatusCode.INVALID_ARGUMENT, ["name"])
    assert (creating.code, creating.reason) == (StatusCode.ALREADY_EXISTS, "COLLECTION_ALREADY_EXISTS")
    assert await direct.collections.exists(f"Real{suffix}")
    assert await direct.alias.exists(alias_name=name)


async def test_what_is_changed_by_one_name_is_seen_by_the_other(aliased: Aliased) -> None:
    suffix, collections, _, searches, direct = aliased
    await direct.collections.use(f"Real{suffix}").tenants.create(["anna"])
    names = (f"Alias{suffix}", f"Real{suffix}")
    for seen, changed in (names, names[::-1]):
        search = search_pb.SearchObjectsRequest(
            collection=seen, scope={"tenant": "anna"}, bm25=search_pb.Bm25(query="a cat")
        )
        await searches.SearchObjects(search)
        new = {"name": f"p{seen[0].lower()}", "data_type": "DATA_TYPE_INT"}
        change = collection_pb.Collection(name=changed, properties=[new])
        await collections.UpdateCollection(collection_pb.UpdateCollectionRequest(collection=change))

        search.output.properties.append(new["name"])
        assert await searches.SearchObjects(search) == search_pb.SearchObjectsResponse()


@pytest.fixture
async def versions(weaviate_settings: WeaviateSettings) -> AsyncIterator[tuple[str, list[grpc.aio.Channel]]]:
    """Old... and New..., of two spaces, with an object each; Current... leads to Old; two servers."""
    suffix = uuid4().hex
    embedders = (FakeEmbedder(), FakeEmbedder(name="other", space="other", dimension=4))
    async with (
        beside(weaviate_settings, *embedders) as (first, _),
        beside(weaviate_settings, *embedders) as (second, _),
    ):
        collections, objects = CollectionServiceStub(first), ObjectServiceStub(first)
        for name, embedder in (("Old", "fake"), ("New", "other")):
            wanted = collection_pb.Collection(
                name=f"{name}{suffix}",
                properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
                vectors=[{"name": "v", "embedder": embedder, "text_fields": [{"name": "title"}]}],
            )
            await collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))
            rows = [{"properties": {"title": name}}]
            stored = await objects.ImportObjects(pb.ImportObjectsRequest(collection=f"{name}{suffix}", objects=rows))
            assert stored.results[0].HasField("stored")
        alias = {"name": f"Current{suffix}", "collection": f"Old{suffix}"}
        await collections.CreateAlias(alias_pb.CreateAliasRequest(alias=alias))
        yield suffix, [first, second]


async def search(channel: grpc.aio.Channel, suffix: str) -> tuple[str, str]:
    """Search by the alias, and return the title of the hit and the embedder of the query."""
    request = search_pb.SearchObjectsRequest(collection=f"Current{suffix}", near_text={"concepts": ["Old"]})
    found = await SearchServiceStub(channel).SearchObjects(request)
    return found.hits[0].object.properties["title"], found.embedder.name


async def switch(channel: grpc.aio.Channel, suffix: str) -> None:
    alias = {"name": f"Current{suffix}", "collection": f"New{suffix}"}
    await CollectionServiceStub(channel).UpdateAlias(alias_pb.UpdateAliasRequest(alias=alias))


async def test_no_search_fails_or_mixes_spaces_while_an_alias_is_switched(
    versions: tuple[str, list[grpc.aio.Channel]],
) -> None:
    suffix, channels = versions
    answers: dict[int, list[tuple[str, str]]] = {0: [], 1: []}

    async def keep_searching(server: int) -> None:
        while ("New", "other") not in answers[server]:
            answers[server].append(await search(channels[server], suffix))

    searching = [asyncio.create_task(keep_searching(server)) for server in answers]
    while not all(answers.values()):
        await asyncio.sleep(0)
    await switch(channels[0], suffix)
    at_once = await search(channels[0], suffix)
    async with asyncio.timeout(60):
        await asyncio.gather(*searching)

    assert at_once == ("New", "other")
    for found in answers.values():
        assert (found[0], set(found)) == (("Old", "fake"), {("Old", "fake"), ("New", "other")})
        assert found == sorted(found, reverse=True)  # never back


async def test_another_server_finds_the_new_collection_when_the_old_one_is_deleted_at_once(
    versions: tuple[str, list[grpc.aio.Channel]],
) -> None:
    suffix, (first, second) = versions
    listed = await ObjectServiceStub(second).ListObjects(pb.ListObjectsRequest(collection=f"New{suffix}"))
    get = pb.GetObjectRequest(collection=f"Current{suffix}", id=listed.objects[0].id)
    before = await search(second, suffix)

    await switch(first, suffix)
    await CollectionServiceStub(first).DeleteCollection(collection_pb.DeleteCollectionRequest(name=f"Old{suffix}"))

    # Both begin with what the server knew before.
    after, got = await asyncio.gather(search(second, suffix), ObjectServiceStub(second).GetObject(get))
    assert (before, after) == (("Old", "fake"), ("New", "other"))
    assert got.object.properties["title"] == "New"


async def test_an_alias_to_nothing_says_so_and_can_be_switched(versions: tuple[str, list[grpc.aio.Channel]]) -> None:
    suffix, (first, _) = versions
    collections = CollectionServiceStub(first)
    await collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name=f"Old{suffix}"))

    failure = await failure_of(search(first, suffix))
    current = collection_pb.DeleteCollectionRequest(name=f"Current{suffix}")
    deleting = await failure_of(collections.DeleteCollection(current))
    listed = await collections.ListAliases(alias_pb.ListAliasesRequest(collection=f"Old{suffix}"))
    await switch(first, suffix)
    found = await search(first, suffix)
    await collections.DeleteAlias(alias_pb.DeleteAliasRequest(name=f"Current{suffix}"))
    gone = await failure_of(search(first, suffix))

    for each in (failure, deleting):
        assert (each.reason, "its collection was deleted" in each.message) == ("COLLECTION_NOT_FOUND", True)
    assert [each.name for each in listed.aliases] == [f"Current{suffix}"]
    assert found == ("New", "other")
    assert (gone.reason, "alias" in gone.message) == ("COLLECTION_NOT_FOUND", False)


async def test_a_weaviate_without_aliases_has_none(weaviate_settings: WeaviateSettings) -> None:
    async with beside(weaviate_settings, FakeEmbedder()) as (channel, _):
        collections = CollectionServiceStub(channel)
        name = f"Real{uuid4().hex}"
        wanted = collection_pb.Collection(name=name, vectors=[{"name": "v"}])
        await collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))
        with mock.patch.object(_ServerVersion, "check_is_at_least_1_32_0", _check_as_1_31):
            listed = await collections.ListAliases(alias_pb.ListAliasesRequest())
            missing = await failure_of(collections.GetAlias(alias_pb.GetAliasRequest(name="Current")))
            nothing = await failure_of(collections.GetCollection(collection_pb.GetCollectionRequest(name="Current")))
            alias = {"name": f"Current{name}", "collection": name}
            creating = await failure_of(collections.CreateAlias(alias_pb.CreateAliasRequest(alias=alias)))

    assert (list(listed.aliases), missing.reason, nothing.reason) == ([], "ALIAS_NOT_FOUND", "COLLECTION_NOT_FOUND")
    assert creating.reason == "STORE_REJECTED"
    assert "1.32.0" in creating.message


def _check_as_1_31(_: _ServerVersion, feature: str) -> None:
    raise WeaviateUnsupportedFeatureError(feature, "1.31.0", "1.32.0")
