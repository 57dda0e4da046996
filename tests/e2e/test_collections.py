"""Collections over a process with a real Weaviate: all of their settings there and back, and changed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli import app
from tests.conftest import assert_close
from tests.e2e.serving import Serving, serving, tiny_model
from vecgate.client import Client, Object, VecgateError, where
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import inverted_index_pb2 as inverted_index_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import vector_index_pb2 as index_pb


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with a model of random weights."""
    folder = tmp_path_factory.mktemp("collections")
    with serving(folder / "data", **tiny_model(folder / "model")) as server:
        server.wait_for("serving")
        yield server


@pytest.fixture(scope="module")
def client(running: Serving) -> Iterator[Client]:
    with running.client() as connected:
        yield connected


def everything(name: str) -> pb.Collection:
    return pb.Collection(
        name=name,
        description="All that can be said",
        properties=[
            property_pb.Property(
                name="title", data_type=property_pb.DATA_TYPE_TEXT, tokenization=property_pb.TOKENIZATION_TRIGRAM
            ),
            property_pb.Property(
                name="code", data_type=property_pb.DATA_TYPE_TEXT, index_searchable=False, description="a code"
            ),
            property_pb.Property(
                name="year", data_type=property_pb.DATA_TYPE_INT, index_range_filters=True, index_filterable=False
            ),
            property_pb.Property(
                name="makers",
                data_type=property_pb.DATA_TYPE_OBJECT_ARRAY,
                nested_properties=[
                    property_pb.Property(
                        name="name", data_type=property_pb.DATA_TYPE_TEXT, tokenization=property_pb.TOKENIZATION_FIELD
                    ),
                    property_pb.Property(
                        name="home",
                        data_type=property_pb.DATA_TYPE_OBJECT,
                        nested_properties=[property_pb.Property(name="city", data_type=property_pb.DATA_TYPE_TEXT)],
                    ),
                ],
            ),
        ],
        vectors=[
            pb.VectorConfig(
                name="flat",
                text_fields=[{"name": "title"}],
                index=index_pb.VectorIndex(
                    flat=index_pb.FlatIndex(),
                    quantizer={"bq": {"rescore_limit": 5}},
                    distance=index_pb.DISTANCE_L2_SQUARED,
                ),
            ),
            pb.VectorConfig(name="fresh", index=index_pb.VectorIndex(hfresh=index_pb.HfreshIndex(search_probe=9))),
            pb.VectorConfig(
                name="graph",
                index=index_pb.VectorIndex(
                    hnsw=index_pb.HnswIndex(
                        ef=50, ef_construction=64, filter_strategy=index_pb.FILTER_STRATEGY_SWEEPING
                    ),
                    quantizer={"rq": {"bits": 8, "rescore_limit": 7}},
                    distance=index_pb.DISTANCE_DOT,
                ),
            ),
        ],
        replication=pb.ReplicationConfig(factor=1, deletion_strategy=pb.DELETION_STRATEGY_DELETE_ON_CONFLICT),
        sharding=pb.ShardingConfig(desired_count=2),
        inverted_index=inverted_index_pb.InvertedIndexConfig(
            bm25={"b": 0.5, "k1": 1.5},
            stopwords={"preset": "STOPWORDS_PRESET_NONE", "additions": ["der"]},
            index_timestamps=False,
        ),
    )


def assert_covers(found: Any, wanted: Any) -> None:
    """Assert that a message has everything that is set in another."""
    for field, value in wanted.ListFields():
        got = getattr(found, field.name)
        if hasattr(value, "ListFields"):
            assert_covers(got, value)
        elif hasattr(value, "add"):
            for one, other in zip(got, value, strict=True):
                assert_covers(one, other)
        else:
            assert got == value, field.full_name


def test_everything_that_is_said_of_a_collection_comes_back(client: Client) -> None:
    wanted = everything("Everything")

    created = client.create_collection(wanted)
    got = client.get_collection("Everything")

    assert_covers(created, wanted)
    got.ClearField("object_count")
    got.ClearField("etag")
    assert got == created
    assert got.vectors[2].index.hnsw.max_connections == 32
    assert got.sharding.actual_count == 2
    assert next(each for each in client.list_collections() if each.name == "Everything") == created


def test_a_collection_that_is_shown_can_be_made_again(running: Serving, client: Client, tmp_path: Path) -> None:
    client.create_collection(everything("Shown"))

    def run(*arguments: str, **more: str) -> str:
        result = CliRunner().invoke(app, ["--address", running.address, "collections", *arguments], **more)
        assert result.exit_code == 0, result.output
        return result.stdout

    shown = run("show", "Shown", "--json")
    (tmp_path / "shown.json").write_text(shown)
    run("create", "Again", "--from", str(tmp_path / "shown.json"))
    run("update", "Again", "--from", "-", input=shown)

    again, first = json.loads(run("show", "Again", "--json")), json.loads(shown)
    for each in (again, first):
        # Weaviate puts the properties into alphabetical order when a collection is updated.
        each["properties"].sort(key=lambda found: found["name"])
        del each["etag"]
    assert again == {**first, "name": "Again"}


def test_rows_that_are_no_longer_there_are_imported_again_by_a_resumed_import(
    running: Serving, client: Client, tmp_path: Path
) -> None:
    rows, journal = tmp_path / "rows.csv", tmp_path / "journal"
    rows.write_text("sku,title,shop\n" + "".join(f"{n},thing {n},{'xy'[n % 2]}\n" for n in range(240)))
    title = property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)
    vector = pb.VectorConfig(name="own", text_fields=[{"name": "title"}])
    tenants = pb.MultiTenancyConfig(enabled=True, auto_tenant_creation=True)
    client.create_collection(pb.Collection(name="Shops", properties=[title], vectors=[vector], multi_tenancy=tenants))

    def run() -> str:
        columns = ("--column", "sku=id", "--column", "shop=tenant")
        command = ["import", str(rows), "--collection", "Shops", *columns, "--resume", str(journal)]
        return CliRunner().invoke(app, ["--address", running.address, *command]).stdout

    assert run() == "Shops: 240 stored, 0 failed\n"
    client.delete_tenants("Shops", ["x"])
    assert client.delete_objects("Shops", where("title") == "thing 1", tenant="y").deleted == 1
    assert run() == "Shops: 121 stored, 0 failed, 119 stored before\n"
    assert run() == "Shops: 0 stored, 0 failed, 240 stored before\n"
    assert [client.get_collection("Shops", each).object_count for each in "xy"] == [120, 120]


def test_objects_within_objects_are_stored_and_returned(client: Client) -> None:
    client.create_collection(everything("Makers"))
    makers = [{"name": "Ann", "home": {"city": "Ulm"}}, {"name": "Ben"}]
    wrong = [{"name": 1, "nope": "x", "home": "Ulm"}]

    stored, refused = client.import_objects(
        "Makers", [Object({"title": "a car", "makers": makers}), Object({"title": "a dog", "makers": wrong})]
    )

    assert stored.error is None
    assert client.get_object("Makers", stored.id).properties == {"title": "a car", "makers": makers}
    (hit,) = client.search("Makers", text="a car", target_vector="flat").hits
    assert hit.object.properties["makers"] == makers
    assert isinstance(refused.error, VecgateError)
    assert {each.field for each in refused.error.violations} == {
        f'objects[1].properties["makers"][0]["{name}"]' for name in ("name", "nope", "home")
    }


def test_a_collection_with_objects_is_extended_and_goes_on_serving(client: Client) -> None:
    client.create_collection(
        pb.Collection(
            name="Growing",
            properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
            vectors=[pb.VectorConfig(name="first", text_fields=[{"name": "title"}])],
        )
    )
    (stored,) = client.import_objects("Growing", [Object({"title": "a red car"})])

    updated = client.update_collection(
        pb.Collection(
            name="Growing",
            description="now described",
            properties=[property_pb.Property(name="year", data_type=property_pb.DATA_TYPE_INT)],
            vectors=[
                pb.VectorConfig(name="first", index=index_pb.VectorIndex(hnsw=index_pb.HnswIndex(ef=77))),
                pb.VectorConfig(name="second", text_fields=[{"name": "title"}], index=index_pb.VectorIndex(flat={})),
            ],
        )
    )
    (again,) = client.import_objects("Growing", [Object({"title": "a red car", "year": 1999}, id=stored.id)])

    assert again.error is None
    assert updated.vectors[0].index.hnsw.ef == 77
    assert updated.vectors[1].space == updated.vectors[0].space
    for target in ("first", "second"):
        (hit,) = client.search("Growing", text="a red car", target_vector=target).hits
        assert hit.object.properties == {"title": "a red car", "year": 1999}
        assert_close(hit.distance, 0)
    assert client.update_collection(pb.Collection(name="Growing")) == updated
    with pytest.raises(VecgateError) as caught:
        client.update_collection(
            pb.Collection(
                name="Growing",
                description="never",
                vectors=[
                    pb.VectorConfig(
                        name="first", index=index_pb.VectorIndex(hnsw=index_pb.HnswIndex(max_connections=9))
                    )
                ],
            )
        )
    assert [each.field for each in caught.value.violations] == ["collection.vectors[0].index.hnsw.max_connections"]
    assert client.get_collection("Growing").description == "now described"


def test_what_weaviate_itself_refuses_is_told_in_its_words(client: Client) -> None:
    with pytest.raises(VecgateError, match="async indexing"):
        client.create_collection(
            pb.Collection(name="Dynamic", vectors=[pb.VectorConfig(name="v", index=index_pb.VectorIndex(dynamic={}))])
        )
    with pytest.raises(VecgateError, match="ENABLE_TOKENIZER_GSE"):
        client.create_collection(
            pb.Collection(
                name="Chinese",
                properties=[
                    property_pb.Property(
                        name="t", data_type=property_pb.DATA_TYPE_TEXT, tokenization=property_pb.TOKENIZATION_GSE
                    )
                ],
                vectors=[pb.VectorConfig(name="v")],
            )
        )
