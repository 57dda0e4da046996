"""The snippets of Weaviate's documentation on multi2vec-nvidia beside their counterparts in the client guide."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import weaviate
from weaviate.classes.config import Configure, DataType, Multi2VecField, Property
from weaviate.classes.init import Auth
from weaviate.classes.query import MetadataQuery

from tests.conftest import assert_close
from tests.e2e.serving import Serving, serving
from tests.fakes.embedder import picture
from tests.fakes.nim import FakeNim
from tests.pages import ROOT, blocks
from vecgate.client import Client, Object, hybrid
from vecgate.v1.collection_service_pb2 import Collection

GUIDE = ROOT / "protos/README.md"
KEY, NIM_KEY = "e2e-key", "nvapi-any"
MOVIES = [
    {"title": title, "poster": picture((number * 40, 90, 255 - number * 40))}
    for number, title in enumerate(("a holiday film", "a love story", "the long war", "a holiday at sea", "robots"))
]


def snippet(name: str) -> str:
    """Return the code of a named snippet in the client guide."""
    (block,) = (each for each in blocks(GUIDE) if each.name == name)
    return block.code


@dataclass(frozen=True)
class Sides:
    """A Vecgate with its Weaviate, Weaviate's own client of the same, and the NIM of both."""

    vecgate: Serving
    direct: weaviate.WeaviateClient
    nim: FakeNim

    def run(self, *names: str, **given: Any) -> dict[str, Any]:
        """Run snippets of the page, and return what they define."""
        known = {"Client": Client, "Object": Object, "Collection": Collection, "hybrid": hybrid}
        scope: dict[str, Any] = {**known, **given}
        with Client(self.vecgate.address) as client:
            scope.setdefault("client", client)
            for name in names:
                exec(snippet(name), scope)
        return scope


@pytest.fixture
async def sides(weaviate_binary: None, tmp_path: Path) -> AsyncIterator[Sides]:
    async with FakeNim(path="/nim", api_key=NIM_KEY, floats=True) as nim:
        settings = {
            "VECGATE_EMBEDDERS__NIM__KIND": "nim",
            "VECGATE_EMBEDDERS__NIM__BASE_URL": nim.base_url,
            "VECGATE_EMBEDDERS__NIM__MODEL": nim.model,
            "VECGATE_EMBEDDERS__NIM__API_KEY": NIM_KEY,
            "VECGATE_EMBEDDERS__NIM__ALLOW_CALLER_KEYS": "true",
            "VECGATE_WEAVIATE__API_KEY": KEY,
        }
        with serving(tmp_path / "weaviate", **settings) as running:
            line = await asyncio.to_thread(running.wait_for, "serving")
            ports = [int(line[name].rpartition(":")[2]) for name in ("weaviate", "weaviate_grpc")]
            # The key by header, as in the documentation.
            direct = await asyncio.to_thread(
                weaviate.connect_to_local,
                port=ports[0],
                grpc_port=ports[1],
                auth_credentials=Auth.api_key(KEY),
                headers={"X-Nvidia-Api-Key": NIM_KEY},
                skip_init_checks=True,
            )
            yield Sides(running, direct, nim)
            direct.close()
            await asyncio.to_thread(running.end)


def originals(sides: Sides) -> Any:
    """Run the documentation's snippets that create and fill collections, and return the basic one."""
    properties = [Property(name="title", data_type=DataType.TEXT), Property(name="poster", data_type=DataType.BLOB)]
    model = {"base_url": sides.nim.base_url, "model": sides.nim.model}
    text, image = Multi2VecField(name="title", weight=0.1), Multi2VecField(name="poster", weight=0.9)
    configs = {
        "Basic": Configure.Vectors.multi2vec_nvidia(
            name="title_vector", text_fields=["title"], image_fields=["poster"], **model
        ),
        "Custom": Configure.Vectors.multi2vec_nvidia(name="title_vector", text_fields=["title"], **model),
        "Full": Configure.Vectors.multi2vec_nvidia(
            name="title_vector", text_fields=[text], image_fields=[image], **model
        ),
    }
    for name, config in configs.items():
        sides.direct.collections.create(f"Their{name}", properties=properties, vector_config=[config])
    basic = sides.direct.collections.use("TheirBasic")
    with basic.batch.fixed_size(batch_size=200) as batch:
        for each in MOVIES:
            poster = base64.b64encode(each["poster"]).decode()
            batch.add_object({"title": each["title"], "poster": poster})
    assert basic.batch.failed_objects == []
    return basic


def titles(objects: Any) -> list[str]:
    return [each.properties["title"] for each in objects]


def compare(sides: Sides) -> None:
    ours = sides.run("create", "import", source_objects=MOVIES)
    theirs = originals(sides)
    assert ours["failed"] == []
    for name in ("Basic", "Custom", "Full"):
        assert _vector(sides, name) == _vector(sides, f"Their{name}")
    poster = picture((120, 90, 135))

    found = sides.run("search", poster_bytes=poster)
    measured = MetadataQuery(distance=True, score=True)
    by_text = theirs.query.near_text("a holiday film", limit=2, return_metadata=measured).objects
    by_both = theirs.query.hybrid("a holiday film", limit=2, return_metadata=measured).objects
    by_image = theirs.query.near_image(base64.b64encode(poster).decode(), limit=2, return_metadata=measured).objects

    for mine, their in ((found["by_text"], by_text), (found["by_image"], by_image)):
        assert [hit.object.properties["title"] for hit in mine.hits] == titles(their)
        assert_close([hit.distance for hit in mine.hits], [each.metadata.distance for each in their])
    assert [hit.object.properties["title"] for hit in found["by_both"].hits] == titles(by_both)
    assert_close([hit.score for hit in found["by_both"].hits], [each.metadata.score for each in by_both])


def _vector(sides: Sides, name: str) -> tuple[Any, ...]:
    with Client(sides.vecgate.address) as client:
        (vector,) = client.get_collection(name).vectors
    listed = (*vector.text_fields, *vector.image_fields)
    # A vector of Weaviate's module without weights has none, which comes to the same as equal ones here.
    fields = [(each.name, round(each.weight, 4) if each.HasField("weight") else 1.0) for each in listed]
    return vector.name, vector.space, vector.embedder, fields


async def test_the_guides_snippets_do_what_those_of_weaviates_documentation_do(sides: Sides) -> None:
    await asyncio.to_thread(compare, sides)


async def test_a_callers_own_key_goes_to_the_nim(sides: Sides) -> None:
    def search_with_key() -> list[str]:
        sides.run("create", "import", source_objects=MOVIES)
        scope = sides.run("key", address=sides.vecgate.address, key=NIM_KEY)
        with scope["client"] as client:
            return [hit.object.properties["title"] for hit in client.search("Basic", text="robots", limit=1).hits]

    assert len(await asyncio.to_thread(search_with_key)) == 1
    assert sides.nim.headers[-1]["authorization"] == f"Bearer {NIM_KEY}"
