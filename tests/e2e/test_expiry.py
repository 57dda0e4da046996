"""What Weaviate has off by default: objects that it deletes by itself, and named vectors that are removed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
import pytest_asyncio
from grpc import StatusCode
from weaviate import WeaviateAsyncClient
from weaviate.classes.config import DataType, Property

from service.settings import WeaviateSettings
from service.store.embedded import server
from service.store.embedded.server import EmbeddedWeaviate
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.weaviate import at_ports
from tests.service.conftest import failure_of
from tests.weaviate_versions import UNDER_TEST
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG_AGO, LATER = "2020-01-01T00:00:00Z", "2120-01-01T00:00:00Z"
BY_DAY = {"enabled": True, "delete_on": "day"}
BY_CREATION = {"enabled": True, "delete_on": "_creationTimeUnix", "default_ttl_seconds": 60}


@dataclass
class Side:
    """A Vecgate before a Weaviate with some of its switches on."""

    channel: grpc.aio.Channel
    direct: WeaviateAsyncClient

    async def create(self, name: str, *vectors: str, **fields: Any) -> collection_pb.Collection:
        wanted = collection_pb.Collection(
            name=name,
            properties=[
                {"name": "title", "data_type": "DATA_TYPE_TEXT"},
                {"name": "day", "data_type": "DATA_TYPE_DATE"},
            ],
            vectors=[{"name": each, "text_fields": [{"name": "title"}]} for each in vectors or ("default",)],
            **fields,
        )
        stub = CollectionServiceStub(self.channel)
        return (await stub.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))).collection

    async def update(self, name: str, removed: tuple[str, ...] = (), **fields: Any) -> collection_pb.Collection:
        request = collection_pb.UpdateCollectionRequest(
            collection=collection_pb.Collection(name=name, **fields), removed_vectors=removed
        )
        return (await CollectionServiceStub(self.channel).UpdateCollection(request)).collection

    async def put(self, name: str, **days: str) -> list[str]:
        """Import an object for each day, with its title, and return what became of them."""
        objects = []
        for title, day in days.items():
            objects.append(object_pb.DataObject(id=f"00000000-0000-0000-0000-{len(objects) + 1:012}"))
            objects[-1].properties.update({"title": title, "day": day})
        request = object_pb.ImportObjectsRequest(collection=name, objects=objects)
        return [
            each.WhichOneof("outcome")
            for each in (await ObjectServiceStub(self.channel).ImportObjects(request)).results
        ]

    async def find(self, name: str) -> set[str]:
        """Return the titles that a search by vector finds."""
        request = search_pb.SearchObjectsRequest(collection=name, near_text={"concepts": ["old"]})
        hits = (await SearchServiceStub(self.channel).SearchObjects(request)).hits
        return {each.object.properties["title"] for each in hits}

    async def rename(self, name: str, title: str) -> None:
        """Update the title of the first object."""
        changed = object_pb.DataObject(id=str(UUID(int=1)))
        changed.properties.update({"title": title})
        request = object_pb.UpdateObjectRequest(collection=name, object=changed)
        await ObjectServiceStub(self.channel).UpdateObject(request)

    async def backfill(self, name: str) -> None:
        """Fill the vectors that are missing."""
        async for _ in ObjectServiceStub(self.channel).BackfillVectors(
            object_pb.BackfillVectorsRequest(collection=name)
        ):
            pass

    async def moves(self, name: str, change: Awaitable[Any]) -> set[str]:
        """Return which times of the first object a change moves."""
        before = await self._times(name)
        # Weaviate counts milliseconds.
        async with asyncio.timeout(60):
            while datetime.now(UTC) <= max(before.values()) + timedelta(milliseconds=1):
                await asyncio.sleep(0.001)
        await change
        after = await self._times(name)
        return {each for each, time in after.items() if time != before[each]}

    async def _times(self, name: str) -> dict[str, datetime]:
        objects = self.direct.collections.use(name).query
        found = await objects.fetch_object_by_id(UUID(int=1))
        return {"creation": found.metadata.creation_time, "update": found.metadata.last_update_time}

    async def count(self, name: str) -> int:
        got = collection_pb.GetCollectionRequest(name=name)
        return (await CollectionServiceStub(self.channel).GetCollection(got)).collection.object_count


@asynccontextmanager
async def side(folder: Path) -> AsyncIterator[Side]:
    settings = WeaviateSettings(embedded=True, data_dir=folder, **at_ports(0, 0))
    weaviate = EmbeddedWeaviate(settings, supervised=False)
    await weaviate.start()
    try:
        async with beside(weaviate.client_settings, FakeEmbedder()) as (channel, direct):
            yield Side(channel, direct)
    finally:
        await weaviate.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def swept(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Side]:
    """One that deletes what has expired each second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(server.SWITCHES, "OBJECTS_TTL_DELETE_SCHEDULE", "@every 1s")
        async with side(tmp_path_factory.mktemp("swept")) as running:
            yield running


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.05)


async def test_objects_that_have_expired_are_deleted_and_others_stay(swept: Side) -> None:
    await swept.create("Old", object_ttl=BY_DAY)
    assert await swept.put("Old", old=LONG_AGO, new=LATER) == ["stored", "stored"]

    async def gone() -> bool:
        return await swept.count("Old") == 1

    await until(gone)
    assert await swept.find("Old") == {"new"}


async def test_a_time_to_live_that_is_set_later_counts_for_the_objects_that_are_there(swept: Side) -> None:
    await swept.create("Later")
    await swept.put("Later", old=LONG_AGO, new=LATER)
    await swept.update("Later", object_ttl=BY_CREATION)
    assert await swept.find("Later") == {"old", "new"}

    updated = await swept.update("Later", object_ttl={**BY_DAY, "default_ttl_seconds": 0})

    assert updated.object_ttl.delete_on == "day"

    async def gone() -> bool:
        return await swept.find("Later") == {"new"}

    await until(gone)
    await swept.update("Later", object_ttl={"enabled": False})
    assert await swept.put("Later", old=LONG_AGO) == ["stored"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def unswept(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Side]:
    """One that deletes what has expired long after these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(server.SWITCHES, "OBJECTS_TTL_DELETE_SCHEDULE", "@every 24h")
        async with side(tmp_path_factory.mktemp("unswept")) as running:
            yield running


async def test_until_they_are_deleted_expired_objects_are_found_like_others_and_may_get_a_later_date(
    unswept: Side,
) -> None:
    await unswept.create("Waiting", object_ttl=BY_DAY)
    for day in (LONG_AGO, LONG_AGO, LATER):
        assert await unswept.put("Waiting", old=day, new=LATER) == ["stored", "stored"]
        assert (await unswept.find("Waiting"), await unswept.count("Waiting")) == ({"old", "new"}, 2)


async def test_a_new_import_moves_the_creation_unless_the_object_is_preserved_and_a_backfill_moves_the_update(
    unswept: Side,
) -> None:
    moved: dict[str, list[set[str]]] = {}
    for name, more in (("Renewed", ()), ("Preserved", (Property(name="phone", data_type=DataType.PHONE_NUMBER),))):
        await unswept.create(name)
        for each in more:
            await unswept.direct.collections.use(name).config.add_property(each)
        await unswept.put(name, one=LATER)
        moved[name] = [await unswept.moves(name, unswept.put(name, one=LATER))]
        moved[name].append(await unswept.moves(name, unswept.rename(name, "two")))
        await unswept.update(name, vectors=[{"name": "later", "text_fields": [{"name": "title"}]}])
        moved[name].append(await unswept.moves(name, unswept.backfill(name)))
        moved[name].append(await unswept.moves(name, unswept.backfill(name)))

    assert moved == {
        "Renewed": [{"creation", "update"}, {"update"}, {"update"}, set()],
        "Preserved": [{"update"}, {"update"}, {"update"}, set()],
    }


async def test_a_time_that_is_too_short_for_weaviate_is_refused_by_name(swept: Side) -> None:
    failure = await failure_of(swept.create("Short", object_ttl={**BY_CREATION, "default_ttl_seconds": 5}))
    assert (failure.code, failure.fields) == (
        StatusCode.INVALID_ARGUMENT,
        ["collection.object_ttl.default_ttl_seconds"],
    )
    assert "60" in failure.message


async def test_a_weaviate_with_its_defaults_says_which_switch_each_change_needs(
    weaviate_binary: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches = list(server.SWITCHES)
    monkeypatch.setattr(server, "SWITCHES", {})
    async with side(tmp_path) as plain:
        await plain.create("Plain", "one", "two", default_vector="one")
        assert await plain.put("Plain", old=LONG_AGO) == ["stored"]
        failures = [
            await failure_of(plain.update("Plain", properties=[{"name": "day", "index_range_filters": True}])),
            await failure_of(plain.update("Plain", ("two",))),
            await failure_of(plain.update("Plain", object_ttl=BY_DAY)),
        ]
        assert await plain.find("Plain") == {"old"}

    if UNDER_TEST.startswith("1.38."):
        assert "take version 1.39 or newer" in failures.pop(1).message
        switches.pop(1)
    for failure, switch in zip(failures, switches, strict=True):
        assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "STORE_REJECTED")
        assert switch in failure.message
