"""`vecgate weaviate-config` against a server in memory."""

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from tests.fakes.server import FakeVecgate, serving
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import inverted_index_pb2 as inverted_index_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import vector_index_pb2 as index_pb

Run = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        running.add_collection(
            "Things",
            zebra=property_pb.DATA_TYPE_BLOB,
            apple=property_pb.DATA_TYPE_BLOB,
            name=property_pb.DATA_TYPE_TEXT,
            sold=property_pb.DATA_TYPE_BOOLEAN,
            tags=property_pb.DATA_TYPE_TEXT_ARRAY,
        )
        del running.collections["Things"].vectors[:]
        running.collections["Things"].vectors.add(
            name="both",
            model="fake-clip",
            space="clip:fake-clip:1",
            index=index_pb.VectorIndex(distance=index_pb.DISTANCE_DOT),
            image_fields=[{"name": "zebra", "weight": 0.7}, {"name": "apple"}],
            text_fields=[{"name": "name", "weight": 0.1}],
        )
        running.collections["Things"].vectors.add(
            name="one", model="fake-clip", image_fields=[{"name": "apple", "weight": 0.5}]
        )
        running.collections["Things"].vectors.add(name="supplied", model="fake-clip")
        yield running


@pytest.fixture
def run(fake: FakeVecgate) -> Run:
    return lambda *arguments: CliRunner().invoke(app, ["--address", fake.address, "weaviate-config", *arguments])


SCHEMA = {
    "class": "Things",
    "properties": [
        {"name": "zebra", "dataType": ["blob"]},
        {"name": "apple", "dataType": ["blob"]},
        {"name": "name", "dataType": ["text"]},
        {"name": "sold", "dataType": ["boolean"]},
        {"name": "tags", "dataType": ["text[]"]},
    ],
    "vectorConfig": {
        "both": {
            "vectorizer": {
                "multi2vec-nvidia": {
                    "baseURL": "http://vecgate:8070",
                    "model": "clip:fake-clip:1",
                    "imageFields": ["apple", "zebra"],
                    "textFields": ["name"],
                    "weights": {"imageFields": [1.0, 0.7], "textFields": [0.1]},
                }
            },
            "vectorIndexType": "hnsw",
            "vectorIndexConfig": {"distance": "dot"},
        },
        "one": {
            "vectorizer": {
                "multi2vec-nvidia": {"baseURL": "http://vecgate:8070", "model": "fake-clip", "imageFields": ["apple"]}
            },
            "vectorIndexType": "hnsw",
            "vectorIndexConfig": {},
        },
        "supplied": {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw", "vectorIndexConfig": {}},
    },
}


@pytest.mark.parametrize("url", ["http://vecgate:8070", "http://vecgate:8070/", "http://vecgate:8070/v1"])
def test_the_json_has_fields_in_the_order_in_which_the_module_counts_off_weights(run: Run, url: str) -> None:
    result = run("Things", "--base-url", url, "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == SCHEMA


def test_the_json_has_all_that_is_said_of_a_collection(run: Run, fake: FakeVecgate) -> None:
    things = fake.collections["Things"]
    things.description = 'What "we" have \\ """had"""'
    things.properties[2].MergeFrom(
        property_pb.Property(description="a title", tokenization=property_pb.TOKENIZATION_FIELD)
    )
    part = property_pb.Property(name="sizes", data_type=property_pb.DATA_TYPE_OBJECT_ARRAY)
    part.nested_properties.add(name="width", data_type=property_pb.DATA_TYPE_NUMBER, index_filterable=False)
    things.properties.add(name="parts", data_type=property_pb.DATA_TYPE_OBJECT, nested_properties=[part])
    things.multi_tenancy.MergeFrom(pb.MultiTenancyConfig(enabled=True, auto_tenant_creation=True))
    things.replication.MergeFrom(
        pb.ReplicationConfig(factor=3, async_enabled=True, deletion_strategy=pb.DELETION_STRATEGY_DELETE_ON_CONFLICT)
    )
    things.sharding.MergeFrom(pb.ShardingConfig(desired_count=2, actual_count=2))
    things.inverted_index.MergeFrom(
        inverted_index_pb.InvertedIndexConfig(bm25=inverted_index_pb.Bm25Config(b=0.5), index_timestamps=True)
    )

    schema = json.loads(run("Things", "--json").stdout)

    assert schema["description"] == things.description
    assert schema["properties"][2] == {
        "name": "name", "dataType": ["text"], "description": "a title", "tokenization": "field",
    }  # fmt: skip
    width = {"name": "width", "dataType": ["number"], "indexFilterable": False}
    sizes = {"name": "sizes", "dataType": ["object[]"], "nestedProperties": [width]}
    assert schema["properties"][5] == {"name": "parts", "dataType": ["object"], "nestedProperties": [sizes]}
    assert schema["multiTenancyConfig"] == {"enabled": True, "autoTenantCreation": True}
    assert schema["replicationConfig"] == {"factor": 3, "deletionStrategy": "DeleteOnConflict"}
    assert schema["shardingConfig"] == {"desiredCount": 2}
    assert schema["invertedIndexConfig"] == {"bm25": {"b": 0.5}, "indexTimestamps": True}


INDEXES = {
    "hnsw": (
        index_pb.VectorIndex(
            hnsw={"max_connections": 8}, quantizer={"pq": {"encoder": {"type": "PRODUCT_ENCODER_TYPE_TILE"}}}
        ),
        {"maxConnections": 8, "pq": {"enabled": True, "encoder": {"type": "tile"}}},
    ),
    "flat": (
        index_pb.VectorIndex(flat={}, distance=index_pb.DISTANCE_L2_SQUARED, quantizer={"none": {}}),
        {"distance": "l2-squared", "skipDefaultQuantization": True},
    ),
    "dynamic": (
        index_pb.VectorIndex(
            dynamic={"threshold": 9, "hnsw": {"ef": 7}, "flat_quantizer": {"bq": {"cache": True}}},
            distance=index_pb.DISTANCE_DOT,
            quantizer={"rq": {"bits": 8}},
        ),
        {
            "distance": "dot",
            "threshold": 9,
            "hnsw": {"distance": "dot", "ef": 7, "rq": {"bits": 8, "enabled": True}},
            "flat": {"distance": "dot", "bq": {"cache": True, "enabled": True}},
        },
    ),
    "hfresh": (index_pb.VectorIndex(hfresh={"max_posting_size_kb": 32}), {"maxPostingSizeKB": 32}),
}


@pytest.mark.parametrize(("kind", "index", "expected"), [(kind, *each) for kind, each in INDEXES.items()])
def test_the_json_has_each_kind_of_index(
    run: Run, fake: FakeVecgate, kind: str, index: index_pb.VectorIndex, expected: dict[str, object]
) -> None:
    fake.collections["Things"].vectors[0].index.CopyFrom(index)

    made = json.loads(run("Things", "--json").stdout)["vectorConfig"]["both"]

    assert (made["vectorIndexType"], made["vectorIndexConfig"]) == (kind, expected)


def test_a_property_of_a_type_that_is_not_handled_is_told_of(run: Run, fake: FakeVecgate) -> None:
    fake.collections["Things"].properties.add(name="phone")

    result = run("Things")

    assert "left out, because this version does not support their types: phone" in result.stderr
    assert '"phone"' not in result.stdout


def test_the_snippet_gives_weaviate_s_client_the_same_schema(
    run: Run, fake: FakeVecgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.collections["Things"].description = '"""\\'
    made: list[dict[str, object]] = []
    headers: list[object] = []

    class Client:
        collections = SimpleNamespace(create_from_dict=made.append)

    monkeypatch.setattr("weaviate.connect_to_local", lambda **more: headers.append(more) or Client())
    printed = run("Things", "--base-url", "http://vecgate:8070").stdout

    exec(printed.partition("# Values")[0])

    assert made == [SCHEMA | {"description": '"""\\'}]
    assert headers == [{"headers": {"X-Nvidia-Api-Key": "ANY-KEY"}}]


def test_the_whole_has_values_for_helm_and_warns_of_what_the_module_cannot_do(run: Run, fake: FakeVecgate) -> None:
    result = run("Things")

    assert '  NVIDIA_APIKEY: "ANY-KEY"' in result.stdout
    assert '"baseURL": "http://127.0.0.1:8070"' in result.stdout
    assert "the address is a guess" in result.stderr
    assert "with weights, the module wants every object to have every field" in result.stderr
    assert "auth.clients_file" in result.stderr


def test_fields_of_one_input_are_left_without_a_module_and_named(run: Run, fake: FakeVecgate) -> None:
    fake.add_collection("Things", photo=property_pb.DATA_TYPE_BLOB, name=property_pb.DATA_TYPE_TEXT)
    (plain,) = fake.collections["Things"].vectors
    plain.text_fields.add(name="name")
    fake.collections["Things"].vectors.add(
        name="both",
        model="fake-clip",
        image_fields=[{"name": "photo"}],
        text_fields=[{"name": "name"}],
        combination=pb.COMBINATION_JOINT_INPUT,
    )

    result = run("Things", "--json")
    said = run("Things")

    vectors = json.loads(result.stdout)["vectorConfig"]
    assert {name: list(vector["vectorizer"]) for name, vector in vectors.items()} == {
        "default": ["multi2vec-nvidia"], "both": ["none"]
    }  # fmt: skip
    assert "cannot embed several fields as one input: both" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("Nothing",), 1, "COLLECTION_NOT_FOUND"),
        (("Supplied",), 1, "no named vector with image or text fields"),
        (("Foreign",), 1, "was not created by Vecgate"),
        (("Things", "--base-url", "vecgate:8070"), 2, "http://HOST:PORT"),
    ],
)
def test_what_cannot_be_configured_is_one_line(
    run: Run, fake: FakeVecgate, arguments: tuple[str, ...], code: int, text: str
) -> None:
    for name, fields in (("Supplied", []), ("Foreign", [{"name": "image"}])):
        fake.add_collection(name)
        del fake.collections[name].vectors[:]
        fake.collections[name].vectors.add(name="default", image_fields=fields)

    result = run(*arguments)

    assert result.exit_code == code
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
