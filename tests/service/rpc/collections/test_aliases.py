"""Aliases over the wire, through the client library and on the command line; switched while calls by them run."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from click.testing import Result
from grpc import StatusCode
from typer.testing import CliRunner

from service.cli import app
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.server import FakeVecgate, serving
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.client import AsyncClient, Client
from vecgate.v1 import alias_pb2 as alias_pb
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb

TITLE = {"name": "title", "data_type": "DATA_TYPE_TEXT"}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """The collections Old and New, of different spaces and dimensions; Current leads to Old."""
    running = await start_wire(FakeEmbedder(), FakeEmbedder(name="other", space="other", dimension=4))
    for name, embedder in (("Old", "fake"), ("New", "other")):
        vector = {"name": "default", "embedder": embedder, "text_fields": [{"name": "title"}]}
        collection = pb.Collection(name=name, properties=[TITLE], vectors=[vector])
        await running.collections.CreateCollection(pb.CreateCollectionRequest(collection=collection))
        await store(running, name, f"{name.lower()} one")
    await create(running, "Current", "Old")
    yield running
    await stop_wire(running)


async def store(wire: Wire, collection: str, *titles: str) -> list[str]:
    """Import objects with titles, and return their ids."""
    objects = [{"properties": {"title": each}} for each in titles]
    answer = await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection=collection, objects=objects))
    assert [each.WhichOneof("outcome") for each in answer.results] == ["stored"] * len(titles)
    return [each.id for each in answer.results]


async def titles(wire: Wire, collection: str) -> list[str]:
    listed = await wire.objects.ListObjects(object_pb.ListObjectsRequest(collection=collection))
    return sorted(each.properties["title"] for each in listed.objects)


async def search(wire: Wire, collection: str) -> search_pb.SearchObjectsResponse:
    near = {"concepts": ["one"]}
    return await wire.search.SearchObjects(search_pb.SearchObjectsRequest(collection=collection, near_text=near))


async def create(wire: Wire, name: str, collection: str) -> alias_pb.Alias:
    request = alias_pb.CreateAliasRequest(alias={"name": name, "collection": collection})
    return (await wire.collections.CreateAlias(request)).alias


async def switch(wire: Wire, name: str, collection: str) -> alias_pb.UpdateAliasResponse:
    request = alias_pb.UpdateAliasRequest(alias={"name": name, "collection": collection})
    return await wire.collections.UpdateAlias(request)


async def test_aliases_are_created_returned_switched_and_deleted(wire: Wire) -> None:
    created = await create(wire, "Also", "New")
    got = (await wire.collections.GetAlias(alias_pb.GetAliasRequest(name="also"))).alias
    switched = await switch(wire, "Also", "Old")
    again = await switch(wire, "Also", "Old")
    await wire.collections.DeleteAlias(alias_pb.DeleteAliasRequest(name="Also"))

    gone = await failure_of(wire.collections.GetAlias(alias_pb.GetAliasRequest(name="Also")))
    assert created == got == alias_pb.Alias(name="Also", collection="New")
    assert (switched.alias.collection, switched.previous_collection) == ("Old", "New")
    assert (again.alias.collection, again.previous_collection) == ("Old", "Old")
    assert (gone.code, gone.reason, gone.metadata) == (StatusCode.NOT_FOUND, "ALIAS_NOT_FOUND", {"name": "Also"})
    assert await titles(wire, "Old") == ["old one"]


async def test_aliases_are_listed_in_pages_and_by_collection(wire: Wire) -> None:
    for name in ("C", "B", "A"):
        await create(wire, name, "New")

    async def page(**fields: object) -> tuple[list[str], str]:
        answer = await wire.collections.ListAliases(alias_pb.ListAliasesRequest(**fields))
        return [each.name for each in answer.aliases], answer.next_page_token

    first, token = await page(page_size=3)

    assert first == ["A", "B", "C"]
    assert await page(page_size=3, page_token=token) == (["Current"], "")
    for name in ("New", "new", "A"):
        assert await page(collection=name) == (["A", "B", "C"], "")
    assert await page(collection="Nothing") == ([], "")


@pytest.mark.parametrize(
    ("alias", "reason", "fields", "words"),
    [
        ({"name": "Also"}, "INVALID_INPUT", ["alias.collection"], "is required"),
        ({"collection": "Old"}, "INVALID_INPUT", ["alias.name"], "must be a capital letter"),
        ({"name": "also", "collection": "Old"}, "INVALID_INPUT", ["alias.name"], "must be a capital letter"),
        ({"name": "A-b", "collection": "Old"}, "INVALID_INPUT", ["alias.name"], "must be a capital letter"),
        ({"name": "A" * 256, "collection": "Old"}, "INVALID_INPUT", ["alias.name"], "must be a capital letter"),
        ({"name": "Also", "collection": "Nothing"}, "COLLECTION_NOT_FOUND", [], "there is no collection 'Nothing'"),
        ({"name": "Also", "collection": "Current"}, "INVALID_INPUT", ["alias.collection"], "is an alias itself"),
        ({"name": "New", "collection": "Old"}, "COLLECTION_ALREADY_EXISTS", [], "a collection or an alias 'New'"),
        ({"name": "Current", "collection": "New"}, "COLLECTION_ALREADY_EXISTS", [], "an alias 'Current'"),
    ],
)
async def test_what_is_wrong_with_a_new_alias_is_said(
    wire: Wire, alias: dict[str, str], reason: str, fields: list[str], words: str
) -> None:
    failure = await failure_of(wire.collections.CreateAlias(alias_pb.CreateAliasRequest(alias=alias)))

    assert (failure.reason, failure.fields) == (reason, fields)
    assert words in failure.message
    assert wire.store.aliases == {"Current": "Old"}


@pytest.mark.parametrize(
    ("alias", "reason", "fields"),
    [
        ({}, "INVALID_INPUT", ["alias.name", "alias.collection"]),
        ({"name": "Nothing", "collection": "New"}, "ALIAS_NOT_FOUND", []),
        ({"name": "Old", "collection": "New"}, "ALIAS_NOT_FOUND", []),
        ({"name": "../x", "collection": "New"}, "ALIAS_NOT_FOUND", []),
        ({"name": "Current", "collection": "Nothing"}, "COLLECTION_NOT_FOUND", []),
        ({"name": "Current", "collection": "current"}, "INVALID_INPUT", ["alias.collection"]),
    ],
)
async def test_an_alias_is_switched_to_a_collection_or_stays(
    wire: Wire, alias: dict[str, str], reason: str, fields: list[str]
) -> None:
    failure = await failure_of(wire.collections.UpdateAlias(alias_pb.UpdateAliasRequest(alias=alias)))

    assert (failure.reason, failure.fields) == (reason, fields)
    assert wire.store.aliases == {"Current": "Old"}


@pytest.mark.parametrize("name", ["", "Nothing", "Old"])
async def test_nothing_but_an_alias_is_returned_or_deleted_as_one(wire: Wire, name: str) -> None:
    getting = await failure_of(wire.collections.GetAlias(alias_pb.GetAliasRequest(name=name)))
    deleting = await failure_of(wire.collections.DeleteAlias(alias_pb.DeleteAliasRequest(name=name)))

    expected = ("ALIAS_NOT_FOUND", []) if name else ("INVALID_INPUT", ["name"])
    assert [(each.reason, each.fields) for each in (getting, deleting)] == [expected] * 2
    assert await titles(wire, "Old") == ["old one"]


async def test_an_alias_whose_collection_is_deleted_leads_to_nothing_until_it_is_switched(wire: Wire) -> None:
    await wire.collections.DeleteCollection(pb.DeleteCollectionRequest(name="Old"))

    failure = await failure_of(search(wire, "Current"))
    deleting = await failure_of(wire.collections.DeleteCollection(pb.DeleteCollectionRequest(name="Current")))
    got = (await wire.collections.GetAlias(alias_pb.GetAliasRequest(name="Current"))).alias
    switched = await switch(wire, "Current", "New")

    for each in (failure, deleting):
        assert each.reason == "COLLECTION_NOT_FOUND"
        assert "it is an alias, and its collection was deleted; switch it with UpdateAlias" in each.message
    assert (got.collection, switched.previous_collection) == ("Old", "Old")
    assert await titles(wire, "Current") == ["new one"]


async def test_a_query_is_embedded_for_the_collection_that_it_searches(wire: Wire) -> None:
    before = await search(wire, "Current")
    await switch(wire, "Current", "New")
    after = await search(wire, "Current")

    assert [(each.embedder.name, each.hits[0].object.properties["title"]) for each in (before, after)] == [
        ("fake", "old one"),
        ("other", "new one"),
    ]


async def test_a_search_ends_with_the_collection_that_it_began_with(wire: Wire) -> None:
    wire.embedder.gate = asyncio.Event()
    wire.embedder.entered.clear()
    searching = asyncio.create_task(search(wire, "Current"))
    await wire.embedder.entered.wait()

    await switch(wire, "Current", "New")
    wire.embedder.gate.set()

    found = await searching
    assert (found.embedder.name, found.hits[0].object.properties["title"]) == ("fake", "old one")


async def test_an_import_goes_whole_into_the_collection_that_it_began_with(wire: Wire) -> None:
    wire.embedder.gate = asyncio.Event()
    wire.embedder.entered.clear()
    names = [f"thing {number}" for number in range(10)]  # several chunks
    importing = asyncio.create_task(store(wire, "Current", *names))
    await wire.embedder.entered.wait()

    await switch(wire, "Current", "New")
    wire.embedder.gate.set()
    await importing

    assert await titles(wire, "Old") == ["old one", *names]
    assert await titles(wire, "New") == ["new one"]


async def test_an_update_ends_with_the_object_that_it_began_with(wire: Wire) -> None:
    id_ = "00000000-0000-0000-0000-000000000001"
    for name in ("Old", "New"):
        objects = [{"id": id_, "properties": {"title": "same id"}}]
        await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection=name, objects=objects))
    wire.embedder.gate = asyncio.Event()
    wire.embedder.entered.clear()
    change = {"id": id_, "properties": {"title": "changed"}}
    updating = wire.objects.UpdateObject(object_pb.UpdateObjectRequest(collection="Current", object=change))
    await wire.embedder.entered.wait()

    await switch(wire, "Current", "New")
    wire.embedder.gate.set()
    await updating

    assert await titles(wire, "Old") == ["changed", "old one"]
    assert await titles(wire, "New") == ["new one", "same id"]


@pytest.mark.parametrize("method", ["ListObjects", "BackfillVectors"])
async def test_pages_do_not_mix_two_collections(wire: Wire, method: str) -> None:
    await store(wire, "Old", "old two")
    await store(wire, "New", "new two")

    async def page(token: str) -> str:
        if method == "ListObjects":
            request = object_pb.ListObjectsRequest(collection="Current", page_size=1, page_token=token)
            return (await wire.objects.ListObjects(request)).next_page_token
        request = object_pb.BackfillVectorsRequest(collection="Current", page_token=token)
        return (await anext(aiter(wire.objects.BackfillVectors(request)))).page_token

    token = await page("")
    await switch(wire, "Current", "New")

    failure = await failure_of(page(token))
    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["page_token"])
    assert "after an alias was switched" in failure.message


async def test_the_client_has_a_method_for_each_call(wire: Wire) -> None:
    async with AsyncClient(f"127.0.0.1:{wire.server.port}") as client:
        created = await client.create_alias("Also", "New")
        names = [each.name async for each in client.list_aliases()]
        of_new = [each.name async for each in client.list_aliases("New")]
        before = await client.update_alias("Also", "Old")
        got = await client.get_alias("Also")
        await client.delete_alias("Also")

    assert (created.name, created.collection, before, got.collection) == ("Also", "New", "New", "Old")
    assert (names, of_new, wire.store.aliases) == (["Also", "Current"], ["Also"], {"Current": "Old"})


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        running.add_collection("Old")
        running.add_collection("New")
        yield running


def run(fake: FakeVecgate, *arguments: str, **more: str) -> Result:
    return CliRunner().invoke(app, ["--address", fake.address, "aliases", *arguments], **more)


def test_the_client_follows_the_pages_of_aliases(fake: FakeVecgate) -> None:
    fake.page_size = 2
    fake.aliases = dict.fromkeys("ABCDE", "Old")
    with Client(fake.address) as client:
        assert [each.name for each in client.list_aliases()] == list("ABCDE")


def test_the_command_line_creates_shows_lists_and_updates_aliases(fake: FakeVecgate) -> None:
    none = run(fake, "list")
    created = run(fake, "create", "Current", "Old")
    updated = run(fake, "update", "Current", "New")
    shown = run(fake, "show", "Current")
    listed = run(fake, "list", "--collection", "New")
    other = run(fake, "list", "--collection", "Old")

    assert [each.exit_code for each in (none, created, updated, shown, listed, other)] == [0] * 6
    assert none.stdout == "There are no aliases.\n"
    assert created.stdout == "Current leads to Old\n"
    assert updated.stdout == "Current leads to New, and led to Old before\n"
    assert shown.stdout == "Current leads to New\n"
    assert listed.stdout.split() == ["alias", "collection", "Current", "New"]
    assert other.stdout == "Old has no aliases.\n"
    for command in (("list",), ("show", "Current")):
        as_json = run(fake, *command, "--json").stdout
        assert '"name": "Current"' in as_json
        assert '"collection": "New"' in as_json


def test_the_command_line_asks_before_it_deletes_an_alias(fake: FakeVecgate) -> None:
    run(fake, "create", "Current", "Old")

    kept = run(fake, "delete", "Current", input="n\n")
    assert fake.aliases == {"Current": "Old"}
    deleted = run(fake, "delete", "Current", "--yes")

    assert (kept.exit_code, "Delete the alias Current of Old?" in kept.output) == (1, True)
    assert (deleted.exit_code, deleted.stdout, fake.aliases) == (0, "Current is deleted\n", {})
    assert set(fake.collections) == {"Old", "New"}


def test_the_command_line_says_that_there_is_no_such_alias(fake: FakeVecgate) -> None:
    missing = run(fake, "update", "Current", "New")

    assert missing.exit_code == 1
    assert "ALIAS_NOT_FOUND" in missing.output
