"""One server with two local models and two NIMs: a collection moves from each to the next while it is searched."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli import app
from tests.conftest import assert_close
from tests.e2e.serving import Serving, serving
from tests.fakes.nim import FakeNim, FakePair
from tests.fakes.tiny_clip import write_tiny_clip
from vecgate.client import Client, Object, SearchResult, TextImage, VecgateError, near_inputs
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb

PICTURES = {
    file.stem.replace("-", " "): file.read_bytes()
    for file in sorted((Path(__file__).parents[1] / "data" / "pictures").glob("*.png"))[::30]
}
"""Some of the demo's pictures by their names, which the bundled model knows."""
DATA_URL = "a picture data:image/png;base64,iVBORw0KGgo= in a text"
NAMES = [*PICTURES, DATA_URL]
NEMOTRON = "nvidia/Nemotron-3.5-Embed-1B-BF16"
FIELDS: dict[str, Any] = {"image_fields": [{"name": "image"}], "text_fields": [{"name": "title"}]}
SEARCHERS = 2


@dataclass
class Album:
    """The collection under constant searches.

    Attributes:
        running: the server.
        right: the embedders that may answer now.
        searches: how many searches each embedder answered.
        threads: what searches.
    """

    running: Serving
    right: set[str]
    searches: dict[str, int] = field(default_factory=dict)
    threads: list[Future[None]] = field(default_factory=list)

    def run(self, *arguments: str) -> None:
        """Run a command, as an operator would."""
        result = CliRunner().invoke(app, ["--address", self.running.address, *arguments])
        assert result.exit_code == 0, result.output

    @contextmanager
    def searched(self) -> Iterator[None]:
        """Search the whole time, by texts and images in turn; no search may fail or find nothing.

        One may find fewer objects than it asks for: Weaviate does not see an object for the moment in which it writes
        another vector of it.
        """
        done = Event()
        with ThreadPoolExecutor(SEARCHERS) as pool:
            self.threads = [pool.submit(self._search_on, done) for _ in range(SEARCHERS)]
            try:
                yield
            finally:
                done.set()
            for each in self.threads:
                each.result()

    def wait_for_searches(self, embedder: str) -> None:
        """Let some more searches be answered by an embedder."""
        goal = self.searches.get(embedder, 0) + SEARCHERS
        while self.searches.get(embedder, 0) < goal:
            for failed in wait(self.threads, 0.05, FIRST_COMPLETED).done:
                failed.result()

    def _search_on(self, done: Event) -> None:
        with self.running.client() as client:
            queries: Iterator[tuple[str, bytes]] = cycle(PICTURES.items())
            while not done.is_set():
                name, picture = next(queries)
                for query in ({"text": name}, {"image": picture}):
                    before = set(self.right)
                    found = client.search("Album", limit=5, **query)  # type: ignore[arg-type]
                    assert found.hits
                    assert found.embedder is not None
                    assert found.embedder.name in before | self.right
                    self.searches[found.embedder.name] = self.searches.get(found.embedder.name, 0) + 1

    def move(self, old: str, new: str, **vector: Any) -> None:
        """Add the named vector of a model, fill it, and let searches use it."""
        with self.running.client() as client:
            config = pb.VectorConfig(**{"name": new, "embedder": new, **FIELDS, **vector})
            client.update_collection(pb.Collection(name="Album", vectors=[config]))
        self.run("objects", "backfill", "Album")
        self.right = {old, new}
        self.run("collections", "update", "Album", "--default-vector", new)
        self.wait_for_searches(new)
        self.right = {new}


def nearest(client: Client, query: str) -> tuple[str, str]:
    """Return the title of the object nearest to a text, and the embedder that answered."""
    found = client.search("Album", text=query, limit=1)
    assert found.embedder is not None
    return str(found.hits[0].object.properties["title"]), found.embedder.name


def vectors_of(client: Client) -> dict[str, dict[str, np.ndarray]]:
    """Return the vectors of every object, by title and named vector."""
    names = [each.name for each in client.get_collection("Album").vectors]
    objects = list(client.list_objects("Album", return_vectors=names))
    return {str(each.properties["title"]): {**each.vectors} for each in objects}  # type: ignore[dict-item]


def mean(*vectors: np.ndarray) -> np.ndarray:
    total = np.sum(np.stack(vectors).astype(np.float64), axis=0)
    return total / np.linalg.norm(total)


def fill(running: Serving) -> None:
    """Make the collection for the first NIM, and import into it."""
    with running.client() as client:
        client.create_collection(
            pb.Collection(
                name="Album",
                properties=[
                    {"name": "title", "data_type": "DATA_TYPE_TEXT"},
                    {"name": "image", "data_type": "DATA_TYPE_BLOB"},
                ],
                vectors=[{"name": "nvclip", **FIELDS}],
            )
        )
        objects = [Object({"title": name}, {"image": picture}) for name, picture in PICTURES.items()]
        outcomes = list(client.import_objects("Album", [*objects, Object({"title": DATA_URL})]))
        assert [each.error for each in outcomes if each.error] == []


def settings(tmp_path: Path, nvclip: FakeNim, nemotron: FakeNim) -> dict[str, str]:
    """Return settings of four embedders: two NIMs, a model of a file, and the bundled model."""
    write_tiny_clip(tmp_path / "tiny", text={"context_length": 77})
    return {
        "VECGATE_EMBEDDER__ORDER": "nvclip,nemotron,tiny,bundled",
        "VECGATE_EMBEDDERS__NVCLIP__KIND": "nim",
        "VECGATE_EMBEDDERS__NVCLIP__BASE_URL": nvclip.base_url,
        "VECGATE_EMBEDDERS__NEMOTRON__KIND": "nim",
        "VECGATE_EMBEDDERS__NEMOTRON__BASE_URL": nemotron.base_url,
        "VECGATE_EMBEDDERS__TINY__KIND": "clip",
        "VECGATE_EMBEDDERS__TINY__MODEL": str(tmp_path / "tiny"),
        "VECGATE_EMBEDDERS__BUNDLED__KIND": "clip",
    }


def check_kinds(running: Serving) -> None:
    """Each model is listed with what it reads, and refuses the rest by name, alone."""
    picture = next(iter(PICTURES.values()))
    text, image, both = embedding_pb.MODALITY_TEXT, embedding_pb.MODALITY_IMAGE, embedding_pb.MODALITY_TEXT_IMAGE
    with running.client() as client:
        listed = {each.name: list(each.modalities) for each in client.embedders().embedders}
        assert listed == {
            "nvclip": [text, image], "nemotron": [text, image, both], "tiny": [text, image], "bundled": [text, image]
        }  # fmt: skip
        for name in ("nvclip", "tiny", "bundled"):
            plain, pair = client.embed(["a dog", TextImage("a dog", picture)], embedder=name).items
            assert plain.vector is not None
            assert isinstance(pair.error, VecgateError)
            assert f"of embedder {name} reads texts and pictures, each as an input of its own" in str(pair.error)
        joint = pb.VectorConfig(name="joint", combination=pb.COMBINATION_JOINT_INPUT, **FIELDS)
        with pytest.raises(VecgateError, match="of embedder nvclip reads"):
            client.update_collection(pb.Collection(name="Album", vectors=[joint]))


def search_pair(client: Client, name: str) -> SearchResult:
    return client.search("Album", query=near_inputs(TextImage(name, PICTURES[name])), target_vector="nemotron", limit=1)


def drop_old(album: Album) -> None:
    """Remove the vectors of the models that are left, and see that nothing else changed."""
    with album.running.client() as client:
        kept = {name: vectors["bundled"] for name, vectors in vectors_of(client).items()}
        for old in ("nvclip", "nemotron", "tiny"):
            album.run("collections", "update", "Album", "--remove-vector", old)
            album.wait_for_searches("bundled")
        left = vectors_of(client)
        assert {name: list(vectors) for name, vectors in left.items()} == {name: ["bundled"] for name in NAMES}
        for name, vector in kept.items():
            assert_close(left[name]["bundled"], vector)


def local_vectors(client: Client, embedder: str) -> dict[str, np.ndarray]:
    """Return what a model makes of the objects' fields, each embedded on its own."""
    inputs = [each for name in NAMES for each in (name, PICTURES.get(name)) if each is not None]
    rows = iter(client.embed(inputs, embedder=embedder, purpose=embedding_pb.PURPOSE_DOCUMENT).matrix())
    return {name: mean(next(rows), next(rows)) if name in PICTURES else next(rows) for name in NAMES}


def move_through(running: Serving, expected: Callable[[], dict[str, dict[str, np.ndarray]]]) -> dict[str, int]:
    """Move the collection through all four models and drop the old vectors; return who answered how often."""
    fill(running)
    check_kinds(running)
    album = Album(running, {"nvclip"})
    name = next(iter(PICTURES))
    with album.searched(), running.client() as client:
        album.wait_for_searches("nvclip")
        assert nearest(client, name) == (name, "nvclip")
        album.move("nvclip", "nemotron", combination=pb.COMBINATION_JOINT_INPUT)
        assert nearest(client, name) == (name, "nemotron")
        assert nearest(client, DATA_URL) == (DATA_URL, "nemotron")
        assert search_pair(client, name).hits[0].object.properties["title"] == name
        album.move("nemotron", "tiny")
        album.move("tiny", "bundled")
        assert nearest(client, name) == (name, "bundled")
        truth = expected() | {each: local_vectors(client, each) for each in ("tiny", "bundled")}
        stored = vectors_of(client)
        assert stored.keys() == set(NAMES)
        for embedder, vectors in truth.items():
            for title, vector in vectors.items():
                assert_close(stored[title][embedder], vector)
        drop_old(album)
    return album.searches


async def test_a_collection_moves_through_nims_and_local_models_and_no_search_fails_or_is_answered_by_another(
    weaviate_binary: None, tmp_path: Path
) -> None:
    async with FakeNim(dimension=256) as nvclip, FakeNim(model=NEMOTRON, dimension=512) as nemotron:

        def expected() -> dict[str, dict[str, np.ndarray]]:
            means = {name: mean(nvclip.vector(name), nvclip.vector(image)) for name, image in PICTURES.items()}
            pairs = {
                name: nemotron.vector(FakePair(name, image), "passage").astype(np.float64)
                for name, image in PICTURES.items()
            }
            return {
                "nvclip": means,
                "nemotron": {**pairs, DATA_URL: nemotron.vector(DATA_URL, "passage").astype(np.float64)},
            }

        with serving(tmp_path / "data", **settings(tmp_path, nvclip, nemotron)) as running:
            answered = await asyncio.to_thread(move_through, running, expected)
            code = await asyncio.to_thread(running.end)

    assert code == 0
    assert answered.keys() == {"nvclip", "nemotron", "tiny", "bundled"}
    assert min(answered.values()) >= SEARCHERS
