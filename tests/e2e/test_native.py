"""Collections that Vecgate makes for Weaviate's own module: any client of Weaviate finds what one imports."""

import base64
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import weaviate
from weaviate.classes.init import Auth
from weaviate.classes.query import MetadataQuery
from weaviate.collections import Collection

from tests.conftest import assert_close
from tests.e2e.serving import Serving, serving
from vecgate.client import Client, Object, VecgateError
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

PICTURES = Path(__file__).parents[1] / "data/pictures"
ROCKET = Path(__file__).parents[1] / "data/queries/twemoji/rocket.png"
KEY = "e2e-key"
COUNT = 40
DISTANCE = MetadataQuery(distance=True)


def samples() -> list[tuple[str, bytes]]:
    with (PICTURES / "pictures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::10][:COUNT]
    return [(row["name"], (PICTURES / row["file"]).read_bytes()) for row in rows]


@pytest.fixture(scope="module")
def running(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("native"), VECGATE_WEAVIATE__API_KEY=KEY) as server:
        server.wait_for("serving")
        yield server


@pytest.fixture(scope="module")
def client(running: Serving) -> Iterator[Client]:
    with running.client() as connected:
        yield connected


@pytest.fixture(scope="module")
def stock(running: Serving) -> Iterator[weaviate.WeaviateClient]:
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
def gallery(running: Serving, client: Client, stock: weaviate.WeaviateClient) -> Collection[Any, Any]:
    """A collection made and filled by Vecgate, in the hands of Weaviate's own client."""
    client.create_collection(
        pb.Collection(
            name="Native",
            properties=[
                property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
                property_pb.Property(name="picture", data_type=property_pb.DATA_TYPE_BLOB),
                property_pb.Property(name="alt", data_type=property_pb.DATA_TYPE_TEXT),
            ],
            vectors=[
                pb.VectorConfig(
                    name="both",
                    native=True,
                    base_url=running.url,
                    image_fields=[{"name": "picture", "weight": 0.75}],
                    # Not in the order of the alphabet, which the module counts its weights off by.
                    text_fields=[{"name": "title", "weight": 0.125}, {"name": "alt", "weight": 0.5}],
                ),
                pb.VectorConfig(name="seen", native=True, base_url=running.url, image_fields=[{"name": "picture"}]),
            ],
        )
    )
    objects = [
        Object({"title": name, "alt": f"a picture of {name}"}, {"picture": content}, id=str(UUID(int=number)))
        for number, (name, content) in enumerate(samples(), 1)
    ]
    assert [each.error for each in client.import_objects("Native", objects) if each.error] == []
    return stock.collections.use("Native")


def test_any_client_finds_by_near_text_what_vecgate_imported(client: Client, gallery: Collection[Any, Any]) -> None:
    for text in ("a dog", "something to eat", samples()[3][0]):
        found = gallery.query.near_text(text, target_vector="both", limit=10, return_metadata=DISTANCE).objects
        own = client.search("Native", text=text, target_vector="both", limit=10).hits

        assert [str(each.uuid) for each in found] == [hit.object.id for hit in own]
        assert_close([each.metadata.distance for each in found], [hit.distance for hit in own], 1e-4)


def test_any_client_finds_by_near_image_and_hybrid_what_vecgate_imported(
    client: Client, gallery: Collection[Any, Any]
) -> None:
    image = base64.b64encode(ROCKET.read_bytes()).decode()
    found = gallery.query.near_image(image, target_vector="seen", limit=10, return_metadata=DISTANCE).objects
    own = client.search("Native", image=ROCKET, target_vector="seen", limit=10).hits
    joined = gallery.query.hybrid(samples()[7][0], target_vector="both", limit=3).objects

    assert [str(each.uuid) for each in found] == [hit.object.id for hit in own]
    assert_close([each.metadata.distance for each in found], [hit.distance for hit in own], 1e-4)
    assert joined[0].properties["title"] == samples()[7][0]


def test_the_module_makes_of_an_object_what_vecgate_makes_of_it(client: Client, gallery: Collection[Any, Any]) -> None:
    name, content = samples()[5]
    properties = {"title": name, "alt": f"a picture of {name}", "picture": base64.b64encode(content).decode()}
    gallery.data.insert(properties, uuid=UUID(int=1000))

    vectors = [client.get_object("Native", str(UUID(int=each)), return_vectors=["both"]) for each in (6, 1000)]

    one, other = (each.vectors["both"] for each in vectors)
    # Both divide by the number of inputs, and neither scales.
    assert_close(other, one)
    gallery.data.delete_by_id(UUID(int=1000))


def test_without_weights_the_module_makes_the_same_of_lists_and_of_objects_that_lack_fields(
    running: Serving, client: Client, stock: weaviate.WeaviateClient
) -> None:
    texts = [pb.WeightedField(name="title"), pb.WeightedField(name="tags")]
    wanted = pb.Collection(
        name="Unweighted",
        properties=[
            property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
            property_pb.Property(name="tags", data_type=property_pb.DATA_TYPE_TEXT_ARRAY),
            property_pb.Property(name="picture", data_type=property_pb.DATA_TYPE_BLOB),
        ],
        vectors=[
            pb.VectorConfig(
                name="v", native=True, base_url=running.url, text_fields=texts, image_fields=[{"name": "picture"}]
            )
        ],
    )
    created = client.create_collection(wanted)
    picture = samples()[3][1]
    objects: list[dict[str, Any]] = [
        {"title": "a dog", "tags": ["x", "y", "z"], "picture": picture},
        {"title": "a dog"},
        {"tags": ["x", "a dog"]},
        {"picture": picture, "tags": ["one"]},
        {"picture": picture},
    ]

    own = [
        Object({name: value for name, value in each.items() if name != "picture"},
               {"picture": each["picture"]} if "picture" in each else {}, id=str(UUID(int=number)))
        for number, each in enumerate(objects, 1)
    ]  # fmt: skip
    assert [each.error for each in client.import_objects("Unweighted", own)] == [None] * len(own)
    theirs = stock.collections.use("Unweighted")
    for number, each in enumerate(objects, 101):
        sent = each | ({"picture": base64.b64encode(picture).decode()} if "picture" in each else {})
        theirs.data.insert(sent, uuid=UUID(int=number))

    assert not any(each.HasField("weight") for each in created.vectors[0].text_fields)
    assert "weights" not in theirs.config.get().vector_config["v"].vectorizer.model
    for number in range(1, len(objects) + 1):
        pair = [
            client.get_object("Unweighted", str(UUID(int=each)), return_vectors=["v"]).vectors["v"]
            for each in (number, number + 100)
        ]
        assert_close(pair[0], pair[1])


def test_lists_with_weights_are_refused_because_the_module_fails_on_them(running: Serving, client: Client) -> None:
    wanted = pb.Collection(
        name="Refused",
        properties=[
            property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
            property_pb.Property(name="tags", data_type=property_pb.DATA_TYPE_TEXT_ARRAY),
        ],
        vectors=[
            pb.VectorConfig(
                name="v",
                native=True,
                base_url=running.url,
                text_fields=[{"name": "title"}, {"name": "tags", "weight": 2}],
            )
        ],
    )

    with pytest.raises(VecgateError) as caught:
        client.create_collection(wanted)

    assert [each.field for each in caught.value.violations] == ["collection.vectors[0].text_fields[1].name"]
    assert "text array" in str(caught.value)


def test_the_collection_says_what_it_is_and_keeps_its_space(running: Serving, client: Client) -> None:
    both, seen = client.get_collection("Native").vectors

    assert (both.native, both.base_url) == (seen.native, seen.base_url) == (True, running.url)
    assert both.space == seen.space == client.embedders().embedders[0].space
    assert both.dimension == client.embedders().embedders[0].dimension
    assert [(each.name, each.weight) for each in both.text_fields] == [("alt", 0.5), ("title", 0.125)]
