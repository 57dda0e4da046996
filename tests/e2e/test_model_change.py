"""A collection that moves to another model while it serves: add, backfill, switch, and remove what is old."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from typer.testing import CliRunner

from service.cli import app
from tests.e2e.serving import Serving, serving, tiny_model
from tests.fakes.nim import FakeNim
from tests.weaviate_versions import needs_removal
from vecgate.client import Client, Object, SearchResult
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

TITLES = [f"thing {number}" for number in range(30)]
FIELDS = [pb.WeightedField(name="title")]


def fill(running: Serving) -> None:
    """Make a collection for the old model, and import into it."""
    title = property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)
    with running.client() as client:
        client.create_collection(
            pb.Collection(
                name="Things",
                description="things",
                properties=[title],
                vectors=[pb.VectorConfig(name="zero", text_fields=FIELDS)],
            )
        )
        assert all(
            each.stored for each in client.import_objects("Things", [Object({"title": each}) for each in TITLES])
        )


def search(client: Client) -> SearchResult:
    """Search without naming a vector; every answer is full, whatever is going on."""
    found = client.search("Things", text="thing 7", limit=10)
    assert len(found.hits) == 10
    assert found.hits[0].object.properties["title"] == "thing 7"
    return found


def run(running: Serving, *arguments: str) -> None:
    """Run a command against a server."""
    result = CliRunner().invoke(app, ["--address", running.address, *arguments])
    assert result.exit_code == 0, result.output


def move(running: Serving) -> list[str]:
    """Move the collection to the new model, and return which embedders answered a search after each step."""
    with running.client() as client:
        answered = [search(client).embedder.name]
        client.update_collection(
            pb.Collection(name="Things", vectors=[pb.VectorConfig(name="another", embedder="nim", text_fields=FIELDS)])
        )
        answered.append(search(client).embedder.name)
        run(running, "objects", "backfill", "Things")
        answered.append(search(client).embedder.name)
        run(running, "collections", "update", "Things", "--default-vector", "another")
        answered.append(search(client).embedder.name)
    return answered


def look(running: Serving) -> tuple[str, pb.Collection]:
    """Return which embedder answers a search, and the collection."""
    with running.client() as client:
        return search(client).embedder.name, client.get_collection("Things")


def drop_old(running: Serving) -> tuple[set[str], pb.Collection, set[str]]:
    """Remove the old named vector under constant searches; return who answered, what is left, and of the objects."""
    done, answered = Event(), set[str]()
    with running.client() as client:

        def search_on() -> None:
            while not done.is_set():
                answered.add(search(client).embedder.name)

        with ThreadPoolExecutor() as others:
            searching = [others.submit(search_on) for _ in range(2)]
            try:
                run(running, "collections", "update", "Things", "--remove-vector", "zero")
            finally:
                done.set()
        for each in searching:
            each.result()
        (stored,) = client.import_objects("Things", [Object({"title": "thing 99"})])
        left = client.get_collection("Things")
        return answered, left, {each.name for each in stored.vectors}


@needs_removal
async def test_a_collection_moves_to_another_model_and_no_search_on_the_way_is_without_hits(
    weaviate_binary: None, tmp_path: Path
) -> None:
    clip = tiny_model(tmp_path / "model")
    async with FakeNim() as nim:
        new = {"VECGATE_EMBEDDERS__NIM__KIND": "nim", "VECGATE_EMBEDDERS__NIM__BASE_URL": nim.base_url}
        with serving(tmp_path / "data", **clip) as running:
            await asyncio.to_thread(fill, running)
        with serving(tmp_path / "data", VECGATE_EMBEDDER__ORDER="nim,clip", **clip, **new) as running:
            answered = await asyncio.to_thread(move, running)
        with serving(tmp_path / "data", **new) as running:
            embedder, collection = await asyncio.to_thread(look, running)
            answered_last, left, names = await asyncio.to_thread(drop_old, running)

    assert answered == ["clip", "clip", "clip", "nim"]
    assert (embedder, collection.default_vector, collection.description) == ("nim", "another", "things")
    assert [(each.name, each.embedder) for each in collection.vectors] == [("another", "nim"), ("zero", "")]
    assert (answered_last, [each.name for each in left.vectors], names) == ({"nim"}, ["another"], {"another"})
