"""`vecgate weaviate-config` against a server in memory."""

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import Result
from typer.testing import CliRunner
from weaviate.collections.classes.config import _CollectionConfigCreate

from service.cli import app
from tests.fakes.server import FakeVecgate, serving
from vecgate.v1 import collection_service_pb2 as pb

Run = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        running.add_collection(
            "Things",
            zebra=pb.DATA_TYPE_BLOB,
            apple=pb.DATA_TYPE_BLOB,
            name=pb.DATA_TYPE_TEXT,
            sold=pb.DATA_TYPE_BOOLEAN,
            tags=pb.DATA_TYPE_TEXT_ARRAY,
        )
        del running.collections["Things"].vectors[:]
        running.collections["Things"].vectors.add(
            name="both",
            model="fake-clip",
            index=pb.VectorIndex(distance=pb.DISTANCE_DOT),
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


BOTH = {
    "vectorizer": {
        "multi2vec-nvidia": {
            "baseURL": "http://vecgate:8070",
            "model": "fake-clip",
            "imageFields": ["apple", "zebra"],
            "textFields": ["name"],
            "weights": {"imageFields": [1.0, 0.7], "textFields": [0.1]},
        }
    },
    "vectorIndexType": "hnsw",
    "vectorIndexConfig": {"distance": "dot"},
}
ONE = {
    "vectorizer": {
        "multi2vec-nvidia": {"baseURL": "http://vecgate:8070", "model": "fake-clip", "imageFields": ["apple"]}
    },
    "vectorIndexType": "hnsw",
}


@pytest.mark.parametrize("url", ["http://vecgate:8070", "http://vecgate:8070/", "http://vecgate:8070/v1"])
def test_the_json_has_fields_in_the_order_in_which_the_module_counts_off_weights(run: Run, url: str) -> None:
    result = run("Things", "--base-url", url, "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"both": BOTH, "one": ONE}


def test_the_snippet_gives_weaviate_s_client_the_same_configuration(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []

    class Collections:
        def create(self, name: str, **config: object) -> None:
            made.append(_CollectionConfigCreate(name=name, **config)._to_dict())

    class Client:
        collections = Collections()

    headers: list[object] = []
    monkeypatch.setattr("weaviate.connect_to_local", lambda **more: headers.append(more) or Client())
    printed = run("Things", "--base-url", "http://vecgate:8070").stdout

    exec(printed.partition("# The same")[0])

    (config,) = made
    assert {each["name"]: each["dataType"] for each in config["properties"]} == {
        "zebra": ["blob"], "apple": ["blob"], "name": ["text"], "sold": ["boolean"], "tags": ["text[]"],
    }  # fmt: skip
    vectors = config["vectorConfig"]
    for name, expected in (("both", BOTH), ("one", ONE)):
        module = expected["vectorizer"]["multi2vec-nvidia"] | {"baseURL": "http://vecgate:8070/"}
        given = vectors[name]["vectorizer"]["multi2vec-nvidia"]
        assert {key: value for key, value in given.items() if key in module} == module
    assert vectors["both"]["vectorIndexConfig"]["distance"] == "dot"
    assert headers == [{"headers": {"X-Nvidia-Api-Key": "ANY-KEY"}}]


def test_the_whole_has_values_for_helm_and_warns_of_what_the_module_cannot_do(run: Run, fake: FakeVecgate) -> None:
    result = run("Things")

    assert '  NVIDIA_APIKEY: "ANY-KEY"' in result.stdout
    assert '"baseURL": "http://127.0.0.1:8070"' in result.stdout
    assert "the address is a guess" in result.stderr
    assert "with weights, the module wants every object to have every field" in result.stderr
    assert "auth.clients_file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("Nothing",), 1, "COLLECTION_NOT_FOUND"),
        (("Supplied",), 1, "no named vector with image or text fields"),
        (("Foreign",), 1, "was not made by Vecgate"),
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
