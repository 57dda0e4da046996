"""Weaviate's own multi2vec-nvidia module with Vecgate's HTTP endpoint as its NIM, in a real Weaviate."""

import base64
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import numpy as np
import pytest
import weaviate
from PIL import Image
from typer.testing import CliRunner
from weaviate.classes.config import Configure, DataType, Multi2VecField, Property
from weaviate.classes.init import Auth
from weaviate.classes.query import MetadataQuery
from weaviate.collections import Collection
from weaviate.exceptions import WeaviateInsertManyAllFailedError, WeaviateQueryError

from service.cli import app
from tests.conftest import assert_close
from tests.e2e.serving import Serving, serving, tiny_model
from vecgate.client import Client, Object
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import vector_index_pb2 as index_pb

PICTURES = Path(__file__).parents[1] / "data/pictures"
QUERIES = Path(__file__).parents[1] / "data/queries"
KEY = "e2e-key"
MODEL = "pictogram-clip"
COUNT = 60


def as_jpeg(content: bytes) -> bytes:
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    white.convert("RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def samples() -> list[tuple[str, bytes]]:
    """Return names and picture files, every other one a JPEG."""
    with (PICTURES / "pictures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::10][:COUNT]
    contents = [(row["name"], (PICTURES / row["file"]).read_bytes()) for row in rows]
    return [(name, as_jpeg(content) if at % 2 else content) for at, (name, content) in enumerate(contents)]


@pytest.fixture(scope="module")
def running(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("web"), VECGATE_WEAVIATE__API_KEY=KEY) as server:
        server.wait_for("serving")
        yield server


@pytest.fixture(scope="module")
def client(running: Serving) -> Iterator[weaviate.WeaviateClient]:
    """Weaviate's own client, connected to the Weaviate itself."""
    line = running.wait_for("serving")
    ports = [int(line[name].rpartition(":")[2]) for name in ("weaviate", "weaviate_grpc")]
    with weaviate.connect_to_local(
        port=ports[0],
        grpc_port=ports[1],
        auth_credentials=Auth.api_key(KEY),
        headers={"X-Nvidia-Api-Key": "any"},
        skip_init_checks=True,
    ) as connected:
        yield connected


@pytest.fixture(scope="module")
def embed(running: Serving) -> Iterator[Any]:
    """Vecgate's own vectors of texts and picture files, past Weaviate."""
    with running.client() as vecgate:
        yield lambda *inputs: vecgate.embed(list(inputs)).matrix()


@pytest.fixture(scope="module")
def gallery(running: Serving, client: weaviate.WeaviateClient) -> Collection[Any, Any]:
    """A collection as Weaviate's documentation makes and fills it."""
    collection = client.collections.create(
        "Gallery",
        properties=[Property(name="title", data_type=DataType.TEXT), Property(name="picture", data_type=DataType.BLOB)],
        vector_config=[
            Configure.Vectors.multi2vec_nvidia(
                name="both", base_url=running.url, model=MODEL, image_fields=["picture"], text_fields=["title"]
            ),
            Configure.Vectors.multi2vec_nvidia(
                name="seen", base_url=running.url, model=MODEL, image_fields=["picture"]
            ),
        ],
    )
    with collection.batch.fixed_size(20, concurrent_requests=2) as batch:
        for number, (name, content) in enumerate(samples()):
            batch.add_object({"title": name, "picture": in_base64(content)}, uuid=UUID(int=number + 1))
    assert collection.batch.failed_objects == []
    return collection


def nearest(query: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of the nearest rows and their cosine distances, counted out one by one."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distances = 1 - unit @ (query / np.linalg.norm(query))
    order = np.argsort(distances, kind="stable")
    return order, distances[order]


def assert_hits(found: Any, query: np.ndarray, rows: np.ndarray) -> None:
    """Assert that hits are what brute force finds, in its order but for equal distances."""
    order, distances = nearest(query, rows)
    hits = {each.uuid: each.metadata.distance for each in found.objects}
    assert_close(list(hits.values()), distances[: len(hits)], 1e-4)
    by_id = dict(zip([UUID(int=int(at) + 1) for at in order], distances, strict=True))
    assert_close(list(hits.values()), [by_id[uuid] for uuid in hits], 1e-4)


@pytest.fixture(scope="module")
def own(gallery: Collection[Any, Any], embed: Any) -> dict[str, np.ndarray]:
    """The vectors that each object should have, by named vector, from Vecgate's own embeddings."""
    names, contents = zip(*samples(), strict=True)
    texts, pictures = embed(*names), embed(*contents)
    return {"both": (texts + pictures) / 2, "seen": pictures}


def test_every_object_has_the_vectors_that_vecgate_gives_for_its_text_and_picture(
    gallery: Collection[Any, Any], own: dict[str, np.ndarray]
) -> None:
    stored = {each.uuid: each.vector for each in gallery.iterator(include_vector=True)}

    assert len(stored) == COUNT
    for name, rows in own.items():
        assert_close(np.array([stored[UUID(int=at + 1)][name] for at in range(COUNT)]), rows, 1e-5)


@pytest.mark.parametrize("target", ["both", "seen"])
@pytest.mark.parametrize("text", ["a dog", "something to eat", "a vehicle on the road"])
def test_near_text_finds_what_brute_force_over_vecgate_s_vectors_finds(
    gallery: Collection[Any, Any], own: dict[str, np.ndarray], embed: Any, text: str, target: str
) -> None:
    found = gallery.query.near_text(text, target_vector=target, limit=10, return_metadata=MetadataQuery(distance=True))

    assert len(found.objects) == 10
    assert_hits(found, embed(text)[0], own[target])


@pytest.mark.parametrize("jpeg", [False, True])
def test_near_image_finds_what_brute_force_finds_for_png_and_jpeg(
    gallery: Collection[Any, Any], own: dict[str, np.ndarray], embed: Any, *, jpeg: bool
) -> None:
    content = (QUERIES / "twemoji/rocket.png").read_bytes()
    content = as_jpeg(content) if jpeg else content

    found = gallery.query.near_image(
        in_base64(content), target_vector="seen", limit=10, return_metadata=MetadataQuery(distance=True)
    )

    assert_hits(found, embed(content)[0], own["seen"])


def test_hybrid_joins_the_module_s_vector_with_keywords(
    gallery: Collection[Any, Any], own: dict[str, np.ndarray], embed: Any
) -> None:
    name = samples()[7][0]
    order, _ = nearest(embed(name)[0], own["seen"])

    by_vector = gallery.query.hybrid(name, alpha=1, target_vector="seen", limit=5).objects
    by_word = gallery.query.hybrid(name, alpha=0, target_vector="seen", limit=1).objects
    joined = gallery.query.hybrid(name, alpha=0.5, target_vector="seen", limit=COUNT).objects

    assert [each.uuid.int - 1 for each in by_vector] == order[:5].tolist()
    assert by_word[0].properties["title"] == name
    assert joined[0].properties["title"] == name
    assert len(joined) > 5


@pytest.mark.parametrize("target", ["both", "seen"])
def test_vecgate_s_own_search_of_the_collection_finds_the_same(
    running: Serving, gallery: Collection[Any, Any], target: str
) -> None:
    rocket = QUERIES / "twemoji/rocket.png"
    by_text = gallery.query.near_text(
        "a dog", target_vector=target, limit=10, return_metadata=MetadataQuery(distance=True)
    )
    by_image = gallery.query.near_image(
        in_base64(rocket.read_bytes()), target_vector=target, limit=10, return_metadata=MetadataQuery(distance=True)
    )
    with running.client() as vecgate:
        adopted = vecgate.get_collection("Gallery")
        (vector,) = [each for each in adopted.vectors if each.name == target]
        texts = vecgate.search("Gallery", text="a dog", target_vector=target, limit=10).hits
        images = vecgate.search("Gallery", image=rocket, target_vector=target, limit=10).hits

    assert (vector.embedder, vector.model, vector.dimension) == ("clip", MODEL, 1024)
    assert [each.name for each in vector.image_fields] == ["picture"]
    for theirs, ours in ((by_text, texts), (by_image, images)):
        assert_close([hit.distance for hit in ours], [each.metadata.distance for each in theirs.objects], 1e-5)
        assert {UUID(hit.object.id) for hit in ours} == {each.uuid for each in theirs.objects}


def test_what_vecgate_imports_into_a_collection_of_the_module_the_module_finds(
    running: Serving, client: weaviate.WeaviateClient, embed: Any
) -> None:
    theirs = client.collections.create(
        "Adopted",
        properties=[Property(name="title", data_type=DataType.TEXT), Property(name="picture", data_type=DataType.BLOB)],
        vector_config=Configure.Vectors.multi2vec_nvidia(
            name="default",
            base_url=running.url,
            model=MODEL,
            image_fields=[Multi2VecField(name="picture", weight=0.9)],
            text_fields=[Multi2VecField(name="title", weight=0.1)],
        ),
    )
    objects = [Object({"title": name}, images={"picture": content}) for name, content in samples()[:20]]
    with running.client() as vecgate:
        outcomes = list(vecgate.import_objects("Adopted", objects))
    assert [each.error for each in outcomes if each.error] == []
    assert {vector.embedder for each in outcomes for vector in each.vectors} == {"clip"}

    name, content = samples()[3]
    text, picture = embed(name)[0], embed(content)[0]
    stored = theirs.query.fetch_object_by_id(outcomes[3].id, include_vector=True)
    # The module divides by the number of vectors and does not scale; objects of both stand in one index.
    assert_close(np.array(stored.vector["default"]), (0.9 * picture + 0.1 * text) / 2, 1e-6)
    by_module = theirs.query.near_image(in_base64(content), limit=1).objects
    assert str(by_module[0].uuid) == outcomes[3].id


def test_what_is_wrong_with_an_object_can_be_read_in_weaviate(gallery: Collection[Any, Any]) -> None:
    answer = gallery.data.insert_many(
        [
            {"title": "broken", "picture": in_base64(b"no picture at all")},
            {"title": "fine", "picture": in_base64(samples()[0][1])},
        ]
    )

    assert list(answer.errors) == [0]
    assert "input[0]: the bytes are not a picture in JPEG, PNG" in answer.errors[0].message
    assert "400" in answer.errors[0].message
    gallery.data.delete_by_id(answer.uuids[1])
    with pytest.raises(WeaviateQueryError, match=r"422.*a request takes at most 2048: split the request"):
        gallery.query.near_text(["a dog"] * 2049, target_vector="seen")


def test_of_a_model_that_vecgate_does_not_serve_weaviate_shows_those_that_it_does(
    running: Serving, client: weaviate.WeaviateClient
) -> None:
    stock = client.collections.create(
        "Stock",
        properties=[Property(name="title", data_type=DataType.TEXT)],
        vector_config=Configure.Vectors.multi2vec_nvidia(base_url=running.url, text_fields=["title"]),
    )

    with pytest.raises(WeaviateInsertManyAllFailedError, match=f"422.*no model 'nvidia/nvclip'; it has: {MODEL}"):
        stock.data.insert_many([{"title": "a dog"}])
    with pytest.raises(WeaviateQueryError, match=f"422.*no model 'nvidia/nvclip'; it has: {MODEL}"):
        stock.query.near_text("a dog")

    assert list(stock.iterator()) == []


def make_as_printed(name: str, running: Serving, client: weaviate.WeaviateClient) -> None:
    """Make a collection anew by what `vecgate weaviate-config` prints of it."""
    printed = CliRunner().invoke(
        app, ["--address", running.address, "weaviate-config", name, "--base-url", running.url]
    )
    client.collections.delete(name)
    with patch("weaviate.connect_to_local", return_value=client):
        exec(printed.stdout.partition("# Values")[0])


def test_what_weaviate_config_prints_makes_a_collection_that_works(
    running: Serving, client: weaviate.WeaviateClient, embed: Any
) -> None:
    with Client(running.address) as vecgate:
        vecgate.create_collection(
            pb.Collection(
                name="Printed",
                properties=[
                    property_pb.Property(name="picture", data_type=property_pb.DATA_TYPE_BLOB),
                    property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
                    property_pb.Property(name="caption", data_type=property_pb.DATA_TYPE_TEXT),
                ],
                vectors=[
                    pb.VectorConfig(
                        name="default",
                        image_fields=[{"name": "picture", "weight": 0.6}],
                        text_fields=[{"name": "title", "weight": 0.3}, {"name": "caption", "weight": 0.1}],
                    )
                ],
            )
        )
    make_as_printed("Printed", running, client)

    made = client.collections.use("Printed")
    name, content = samples()[3]
    uuid = made.data.insert({"picture": in_base64(content), "title": name, "caption": "a drawing"})

    title, picture, caption = embed(name, content, "a drawing")
    expected = 0.6 * picture + 0.3 * title + 0.1 * caption
    stored = np.array(made.query.fetch_object_by_id(uuid, include_vector=True).vector["default"])
    assert_close(stored / np.linalg.norm(stored), expected / np.linalg.norm(expected), 1e-5)
    assert made.query.near_text(name, limit=1).objects[0].uuid == uuid


def test_what_weaviate_config_prints_makes_the_same_collection_but_for_what_fills_it(
    running: Serving, client: weaviate.WeaviateClient
) -> None:
    maker = property_pb.Property(name="maker", data_type=property_pb.DATA_TYPE_OBJECT)
    maker.nested_properties.add(
        name="name", data_type=property_pb.DATA_TYPE_TEXT, tokenization=property_pb.TOKENIZATION_FIELD
    )
    town = maker.nested_properties.add(name="towns", data_type=property_pb.DATA_TYPE_OBJECT_ARRAY)
    town.nested_properties.add(name="founded", data_type=property_pb.DATA_TYPE_INT)
    collection = pb.Collection(
        name="Whole",
        description="all that there is",
        properties=[
            property_pb.Property(name="picture", data_type=property_pb.DATA_TYPE_BLOB),
            property_pb.Property(
                name="title", data_type=property_pb.DATA_TYPE_TEXT, tokenization=property_pb.TOKENIZATION_LOWERCASE
            ),
            property_pb.Property(name="price", data_type=property_pb.DATA_TYPE_NUMBER, index_range_filters=True),
            property_pb.Property(name="place", data_type=property_pb.DATA_TYPE_GEO_COORDINATES),
            maker,
        ],
        vectors=[
            pb.VectorConfig(name="small", text_fields=[{"name": "title"}], index={"flat": {}, "quantizer": {"bq": {}}}),
            pb.VectorConfig(name="large", image_fields=[{"name": "picture"}], index={"hnsw": {"max_connections": 8}}),
            pb.VectorConfig(name="supplied", index={"distance": index_pb.DISTANCE_DOT}),
        ],
        multi_tenancy={"enabled": True, "auto_tenant_creation": True},
        inverted_index={"bm25": {"b": 0.5}, "stopwords": {"preset": "STOPWORDS_PRESET_NONE", "additions": ["the"]}},
    )
    with Client(running.address) as vecgate:
        before = vecgate.create_collection(collection)
        make_as_printed("Whole", running, client)
        after = vecgate.get_collection("Whole")
    made = client.collections.use("Whole").with_tenant("a")
    uuid = made.data.insert({"title": "a dog", "maker": {"name": "Ann", "towns": [{"founded": 1200}]}})

    filled = [each.name for each in after.vectors if each.native]
    assert not any(
        field.HasField("weight") for each in after.vectors for field in (*each.text_fields, *each.image_fields)
    )
    for each in (*before.vectors, *after.vectors):
        for field in ("native", "base_url", "space", "dimension", "embedder", "model"):
            each.ClearField(field)
        # To Weaviate's module equal weights are not the same as none, which is what is printed.
        for weighted in (*each.text_fields, *each.image_fields):
            weighted.weight = 1
    for each in (after, before):
        each.ClearField("object_count")
        each.ClearField("etag")
    assert after == before
    assert filled == ["large", "small"]
    found = made.query.near_text("a dog", target_vector="small", limit=1).objects[0]
    assert (found.uuid, found.properties["maker"]) == (uuid, {"name": "Ann", "towns": [{"founded": 1200}]})


def test_a_taken_port_is_one_clear_line_before_weaviate_starts_and_http_can_be_turned_off(
    running: Serving, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "model")
    taken = {"WEB": running.url.rpartition(":")[2], "SERVER": running.address.rpartition(":")[2]}
    for group, port in taken.items():
        with serving(tmp_path / group, **{f"VECGATE_{group}__PORT": port}, **model) as other:
            code = other.process.wait(60)
            reason = other.wait_for("cannot_start")["reason"]

        assert code == 1
        assert f"VECGATE_{group}__PORT" in reason
        assert not (tmp_path / group).exists(), "Weaviate was started for nothing"
    off = {"VECGATE_WEB__ENABLED": "false", "VECGATE_WEB__PORT": taken["WEB"], **model}
    with serving(tmp_path / "data", **off) as other:
        without = other.wait_for("serving")["http"]

    assert without is None


def test_the_module_asks_at_the_doubled_slash_and_leaves_access_lines_without_content(
    running: Serving, gallery: Collection[Any, Any]
) -> None:
    gallery.query.near_text("a very particular query", target_vector="seen", limit=1)

    calls = [line for line in list(running.log) if line.get("method") == "POST /v1/embeddings"]
    assert len(calls) > 2 * COUNT
    assert not any("particular" in str(line) for line in running.log)
