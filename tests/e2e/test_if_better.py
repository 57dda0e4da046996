"""A move to another model that asks whether it is better, of a real Weaviate that is searched all the time."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import grpc
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from embedders.contract import Vector
from service.cli import app
from service.settings import WeaviateSettings
from tests.e2e.beside import served
from tests.fakes.embedder import FakeEmbedder
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

COUNT = 60
TITLES = [f"thing {number}" for number in range(COUNT)]
IDS = [str(UUID(int=number + 1)) for number in range(COUNT)]
ASKERS, AFTERWARDS = 3, 40
"""Searches at the same time, and how many each begins after the last switch."""
RIGHT = 1e-4
"""A text's vector and the same one in the index are as near; those of two spaces are not."""


class Moving:
    """A collection with a named vector of each of three models, which find all, half and none of the right objects."""

    def __init__(self, address: str, channel: grpc.aio.Channel, models: Mapping[str, FakeEmbedder]) -> None:
        self.name = f"Moving{uuid4().hex}"
        self._address = address
        self._models = models
        self._collections = CollectionServiceStub(channel)
        self._objects = ObjectServiceStub(channel)
        self._search = SearchServiceStub(channel)
        same, wrong = np.arange(COUNT), np.roll(np.arange(COUNT), 7)
        half = np.where(same < COUNT // 2, same, np.concatenate([same[: COUNT // 2], np.roll(same[COUNT // 2 :], 7)]))
        self.leads_to = {"best": same, "old": half, "worst": wrong}
        """By named vector, and by the number of a title: the number of the object that has its vector."""

    async def fill(self) -> None:
        """Create the collection, and store all objects with their vectors."""
        vectors = [
            {"name": name, "embedder": name, "text_fields": [{"name": "words"}], "index": {"hnsw": {"ef": 100}}}
            for name in self._models
        ]
        properties = [{"name": name, "data_type": "DATA_TYPE_TEXT"} for name in ("title", "words")]
        collection = {"name": self.name, "properties": properties, "vectors": vectors, "default_vector": "old"}
        await self._collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))
        stored: list[dict[str, Vector]] = [{} for _ in range(COUNT)]
        for name, places in self.leads_to.items():
            for title, place in zip(TITLES, places, strict=True):
                stored[place][name] = self._models[name].vector(title)
        objects = [
            object_pb.DataObject(
                id=id_,
                properties={"title": title},
                vectors={key: {"data": each.tobytes()} for key, each in own.items()},
            )
            for id_, title, own in zip(IDS, TITLES, stored, strict=True)
        ]
        request = object_pb.ImportObjectsRequest(collection=self.name, objects=objects)
        assert all(each.HasField("stored") for each in (await self._objects.ImportObjects(request)).results)

    async def ask(self, number: int) -> str:
        """Search by a title, check that vector and index are of one space, and return which one."""
        request = search_pb.SearchObjectsRequest(collection=self.name, limit=1)
        request.near_text.concepts.append(TITLES[number])
        found = await self._search.SearchObjects(request)
        (hit,) = found.hits
        # The embedder has the name of its named vector.
        name = found.embedder.name
        assert hit.object.id == IDS[self.leads_to[name][number]]
        assert hit.distance < RIGHT
        return name

    async def move(self, vector: str, *more: str) -> Result:
        """Make another vector the default one by the command line, if it is better."""
        command = ["--address", self._address, "collections", "update", self.name, "--default-vector", vector]
        return await asyncio.to_thread(CliRunner().invoke, app, [*command, "--if-better", *more])


@pytest.fixture
async def moving(weaviate_settings: WeaviateSettings) -> AsyncIterator[Moving]:
    models = {name: FakeEmbedder(name=name, space=name, dimension=32) for name in ("old", "best", "worst")}
    async with (
        served(weaviate_settings, *models.values()) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        made = Moving(address, channel, models)
        await made.fill()
        yield made


class Searches:
    """Searches that run all the time, each of which fails the test if it fails.

    Attributes:
        moved: whether the last switch has returned.
        before: which vectors were searched by those that began before that.
        after: and by those that began afterwards.
    """

    def __init__(self, moving: Moving) -> None:
        self.moved = False
        self.before: list[str] = []
        self.after: list[str] = []
        self._moving = moving

    async def run(self, first: int) -> None:
        """Search by one title after the other, until enough searches have begun after the last switch."""
        number, left = first, AFTERWARDS
        while left:
            number = (number + 1) % COUNT
            # A search that began before the switch may end after it.
            seen = self.after if self.moved else self.before
            left -= self.moved
            seen.append(await self._moving.ask(number))


@asynccontextmanager
async def searched(moving: Moving) -> AsyncIterator[Searches]:
    """Search all the time, also for a while after the block has ended."""
    searches = Searches(moving)
    async with asyncio.TaskGroup() as group:
        for each in range(ASKERS):
            group.create_task(searches.run(each * COUNT // ASKERS))
        yield searches
        searches.moved = True


@pytest.mark.e2e
async def test_a_worse_model_is_refused_and_a_better_one_taken_while_searches_run_and_none_fails_or_mixes_spaces(
    moving: Moving, tmp_path: Path
) -> None:
    queries = tmp_path / "queries.jsonl"
    lines = [json.dumps({"text": title, "answers": id_}) for title, id_ in zip(TITLES, IDS, strict=True)]
    queries.write_text("\n".join(lines))

    async with searched(moving) as searches:
        worse = await moving.move("worst", "--caption-field", "title")
        until_refused = list(searches.before)
        better = await moving.move("best", "--queries", str(queries))

    assert worse.exit_code == 1
    assert "so it is worse; nothing is changed" in worse.output
    assert better.exit_code == 0, better.output
    assert set(until_refused) <= {"old"}
    assert set(searches.before) <= {"old", "best"}
    assert set(searches.after) == {"best"}
    assert len(searches.after) == ASKERS * AFTERWARDS
