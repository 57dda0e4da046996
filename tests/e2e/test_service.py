"""The whole service as its users meet it: a process, a real Weaviate, the bundled model, real pictures."""

import contextlib
import csv
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tests.conftest import assert_close
from tests.e2e.serving import Serving, serving, tiny_model
from tests.fakes.embedder import picture
from tests.fakes.tiny_clip import DIMENSION
from vecgate.client import Client, Health, Object, VecgateError
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import property_pb2 as property_pb

DATA = Path(__file__).parents[1] / "data"
PICTURES = DATA / "pictures"


def create(client: Client, name: str = "Pictures", **vector: object) -> None:
    client.create_collection(
        collection_pb.Collection(
            name=name,
            properties=[
                property_pb.Property(name="image", data_type=property_pb.DATA_TYPE_BLOB),
                property_pb.Property(name="file", data_type=property_pb.DATA_TYPE_TEXT),
                property_pb.Property(name="name", data_type=property_pb.DATA_TYPE_TEXT),
            ],
            vectors=[collection_pb.VectorConfig(**{"name": "default", "image_fields": [{"name": "image"}], **vector})],
        )
    )


def samples() -> list[dict[str, str]]:
    with (PICTURES / "pictures.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server with the bundled model and all sample pictures."""
    with serving(tmp_path_factory.mktemp("gallery")) as running, running.client() as client:
        # As the demo does: the picture, and its name for half as much.
        create(client, text_fields=[{"name": "name", "weight": 0.5}])
        objects = [
            Object({"file": row["file"], "name": row["name"]}, images={"image": (PICTURES / row["file"]).read_bytes()})
            for row in samples()
        ]
        outcomes = list(client.import_objects("Pictures", objects))
        assert [outcome.error for outcome in outcomes if outcome.error] == []
        assert client.get_collection("Pictures").object_count == len(objects)
        yield client


def wait_for_health(client: Client, health: Health) -> None:
    end = time.monotonic() + 60
    while client.health() is not health:
        assert time.monotonic() < end
        time.sleep(0.02)


EVERYDAY = {
    "a dog": "dog",
    "pizza": "pizza",
    "car": "car",
    "guitar": "guitar",
    "birthday": "birthday",
    "rain": "rain",
    "apple": "apple",
    "bicycle": "bicycle",
    "cat": "cat",
    "airplane": "airplane",
}


@pytest.mark.parametrize(("words", "expected"), EVERYDAY.items())
def test_everyday_words_find_a_fitting_picture_among_the_first_five(gallery: Client, words: str, expected: str) -> None:
    hits = gallery.search("Pictures", text=words, limit=5).hits

    keywords = {row["file"]: f"{row['name']} {row['keywords']}".casefold() for row in samples()}
    found = [keywords[str(hit.object.properties["file"])] for hit in hits]
    assert any(re.search(rf"\b{expected}\b", each) for each in found), found


def test_most_pictures_of_other_drawing_styles_find_their_own_concepts_first(gallery: Client) -> None:
    queries = sorted((DATA / "queries").glob("*/*.png"))
    first = {
        query: gallery.search("Pictures", image=query, limit=1).hits[0].object.properties["file"] for query in queries
    }

    wrong = {query.parent.name + "/" + query.name: found for query, found in first.items() if found != query.name}
    assert len(queries) >= 20
    assert len(wrong) <= len(queries) // 6, wrong


def test_what_was_imported_comes_back_to_the_byte(gallery: Client) -> None:
    hit = gallery.search("Pictures", text="dog", limit=1, return_images=["image"], return_vectors=["default"]).hits[0]
    file = PICTURES / str(hit.object.properties["file"])
    image, name = (item.vector for item in gallery.embed([file, str(hit.object.properties["name"])]).items)

    assert hit.object.images["image"] == file.read_bytes()
    assert image is not None
    assert name is not None
    mean = image + 0.5 * name
    assert_close(np.asarray(hit.object.vectors["default"]), mean / np.linalg.norm(mean), 1e-5)


@pytest.mark.parametrize("size", [2, 500])
def test_a_kill_in_the_middle_of_an_import_loses_nothing_and_doubles_nothing(tmp_path: Path, size: int) -> None:
    objects = [Object({"file": f"{n}.png"}, images={"image": picture((n % 256, n // 256, 7))}) for n in range(size)]
    data, model = tmp_path / "data", tiny_model(tmp_path / "model")
    with serving(data, **model) as first:
        with first.client() as client:
            create(client)
            outcomes = client.import_objects("Pictures", objects, chunk_objects=50, retry_s=1)
            stored = [next(outcomes).id]
            weaviate = first.weaviate()
            first.process.kill()
            with contextlib.suppress(VecgateError):
                stored += [outcome.id for outcome in outcomes]
            with pytest.raises(VecgateError):
                client.get_collection("Pictures")

        with serving(data, **model) as second, second.client() as client:
            before = client.get_collection("Pictures").object_count
            outcomes = client.import_objects("Pictures", objects, chunk_objects=50)
            again = [outcome.id for outcome in outcomes if outcome.error is None]

            assert not weaviate.is_running() or weaviate.status() == psutil.STATUS_ZOMBIE
            assert len(stored) <= before <= size
            assert set(stored) <= set(again)
            assert len(set(again)) == len(again) == client.get_collection("Pictures").object_count == size
            listed = client.list_objects("Pictures")
            assert sorted(str(each.properties["file"]) for each in listed) == sorted(f"{n}.png" for n in range(size))


def test_weaviate_killed_while_serving_gives_unavailable_in_time_and_then_all_calls_work_again(tmp_path: Path) -> None:
    with serving(tmp_path / "data", **tiny_model(tmp_path / "model")) as running, running.client() as client:
        create(client)
        list(client.import_objects("Pictures", [Object({"file": "a.png"}, images={"image": picture()})]))
        weaviate = running.weaviate()
        weaviate.kill()

        with Client(running.address, options=[("grpc.enable_retries", 0)], timeout_s=20) as impatient:
            failures = []
            while not failures:
                try:
                    impatient.search("Pictures", image=picture())
                except VecgateError as error:
                    failures.append(error)
            wait_for_health(impatient, Health.NOT_SERVING)
        assert [(failure.code.name, failure.reason) for failure in failures] == [("UNAVAILABLE", "STORE_UNAVAILABLE")]
        assert failures[0].retry_after_s

        wait_for_health(client, Health.SERVING)
        # Weaviate 1.39 keeps the last 32 KiB of its vector log in memory: after a kill the object is there, but
        # not in the index; what is imported from now on is.
        list(client.import_objects("Pictures", [Object({"file": "b.png"}, images={"image": picture((0, 0, 9))})]))
        listed = sorted(str(each.properties["file"]) for each in client.list_objects("Pictures"))
        near = [hit.object.properties["file"] for hit in client.search("Pictures", image=picture((0, 0, 9))).hits]
        assert listed == ["a.png", "b.png"]
        assert near[0] == "b.png"
        assert running.weaviate().pid != weaviate.pid


def test_a_signal_lets_the_call_in_flight_finish_and_takes_weaviate_down_last(tmp_path: Path) -> None:
    objects = [Object({"file": f"{n}.png"}, images={"image": picture((n, 0, 0))}) for n in range(100)]
    with serving(tmp_path / "data", **tiny_model(tmp_path / "model")) as running, running.client() as client:
        create(client)
        weaviate = running.weaviate()
        outcomes = []
        importing = threading.Thread(
            target=lambda: outcomes.extend(client.import_objects("Pictures", objects, chunk_objects=100))
        )
        importing.start()
        while not any(line.get("method", "").endswith("ListEmbedders") for line in list(running.log)):
            time.sleep(0.01)
        # The next call is the import.
        while not outcomes and "vecgate_grpc_calls_in_flight 1.0" not in httpx.get(f"{running.url}/metrics").text:
            time.sleep(0.01)
        code = running.end(signal.SIGINT)
        importing.join(60)

    assert code == 0
    assert [outcome.error for outcome in outcomes] == [None] * 100
    assert not weaviate.is_running()
    assert [line["event"] for line in running.log if line["event"] in ("stopping", "stopped")] == [
        "stopping",
        "stopped",
    ]
    assert running.log[-1]["event"] == "stopped", "libraries have nothing to complain of"


def test_another_models_vectors_cannot_get_into_a_collection_not_even_after_a_restart(tmp_path: Path) -> None:
    one, other = tiny_model(tmp_path / "one"), tiny_model(tmp_path / "other", seed=1)
    data = tmp_path / "data"
    with serving(data, **one) as running, running.client() as client:
        create(client)
        list(client.import_objects("Pictures", [Object(images={"image": picture()})]))
        bound = client.get_collection("Pictures").vectors[0].space

    with serving(data, **other) as running, running.client() as client:
        space = client.embedders().embedders[0].space
        failures = []
        for call in (
            lambda: list(client.import_objects("Pictures", [Object(images={"image": picture((1, 2, 3))})])),
            lambda: client.search("Pictures", image=picture()),
            lambda: client.search("Pictures", vector=np.ones(DIMENSION), vector_space=space),
        ):
            with pytest.raises(VecgateError) as caught:
                call()
            failures.append(caught.value)
        count = client.get_collection("Pictures").object_count
        listed = next(iter(client.list_objects("Pictures", return_vectors=["default"]))).vectors["default"]
        own = client.search("Pictures", vector=listed, vector_space=bound).hits

    assert space != bound
    assert {failure.reason for failure in failures} == {"EMBEDDING_SPACE_MISMATCH"}
    assert {failure.metadata["bound_space"] for failure in failures} == {bound}
    assert {failure.metadata["given_space"] for failure in failures} == {space}
    assert count == len(own) == 1


def start_and_fail(data_dir: Path, **settings: str) -> tuple[int, Serving]:
    with serving(data_dir, **settings) as running:
        return running.process.wait(60), running


def test_a_port_that_is_taken_is_one_clear_line_and_leaves_no_weaviate(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    with serving(tmp_path / "one", **model) as running:
        port = running.address.rpartition(":")[2]
        code, failed = start_and_fail(tmp_path / "two", VECGATE_SERVER__PORT=port, **model)
        reason = failed.wait_for("cannot_start")["reason"]

    assert code == 1
    assert f"127.0.0.1:{port}" in reason
    assert "VECGATE_SERVER__PORT" in reason


def test_bad_settings_are_all_told_before_anything_starts(tmp_path: Path) -> None:
    code, failed = start_and_fail(
        tmp_path,
        VECGATE_SERVER__PORT="x",
        VECGATE_EMBEDDERS__CLIP__KIND="clip",
        VECGATE_EMBEDDERS__CLIP__DEVICE="tpu",
        VECGATE_OOPS__A="1",
    )

    text = "\n".join(line["event"] for line in failed.log)
    assert code == 2
    assert all(name in text for name in ("VECGATE_SERVER__PORT", "VECGATE_EMBEDDERS__CLIP__DEVICE", "VECGATE_OOPS__A"))
    assert "Traceback" not in text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_wrong_in_files_is_all_told_before_anything_starts(tmp_path: Path, workers: str) -> None:
    settings = {"VECGATE_SERVER__WORKERS": workers}
    for name in ("AUTH__CLIENTS_FILE", "FETCH__ORIGINS_FILE", "SERVER__TLS_CERT_FILE", "SERVER__TLS_KEY_FILE"):
        file = tmp_path / name
        file.write_text("x", encoding="utf-8")
        settings[f"VECGATE_{name}"] = str(file)
    code, failed = start_and_fail(tmp_path / "data", **settings)

    assert code == 2
    assert [each["event"] for each in failed.log] == ["settings", "cannot_start"]
    reason = failed.wait_for("cannot_start")["reason"].splitlines()
    assert [line.partition(":")[0].replace(f"{tmp_path}/", "") for line in reason] == [
        "AUTH__CLIENTS_FILE is not valid TOML",
        "FETCH__ORIGINS_FILE is not valid TOML",
        "server.tls_cert_file SERVER__TLS_CERT_FILE and server.tls_key_file SERVER__TLS_KEY_FILE cannot be used",
    ]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_machine_without_room_for_temporary_files_is_one_clear_line(tmp_path: Path, workers: str) -> None:
    # The child reads it before it looks for a folder.
    (tmp_path / "sitecustomize.py").write_text("import tempfile\ntempfile._candidate_tempdir_list = list\n")
    code, failed = start_and_fail(
        tmp_path / "data", VECGATE_SERVER__WORKERS=workers, PYTHONPATH=str(tmp_path), **tiny_model(tmp_path / "model")
    )

    assert code == 1
    assert "No usable temporary directory" in failed.wait_for("cannot_start")["reason"]
    assert "Traceback" not in "\n".join(str(line) for line in failed.log)


def test_a_model_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    clip = {"VECGATE_EMBEDDERS__CLIP__KIND": "clip", "VECGATE_EMBEDDERS__CLIP__MODEL": "ViT-B-32"}
    code, failed = start_and_fail(tmp_path / "data", **clip)

    assert code == 1
    assert "set its checkpoint" in failed.wait_for("cannot_start")["reason"]


def test_the_model_loads_while_weaviate_comes_up_and_its_fault_ends_both(tmp_path: Path) -> None:
    hanging = tmp_path / "weaviate"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o700)
    clip = {"VECGATE_EMBEDDERS__CLIP__KIND": "clip", "VECGATE_EMBEDDERS__CLIP__MODEL": "ViT-B-32"}

    code, failed = start_and_fail(tmp_path / "data", VECGATE_WEAVIATE__BINARY=str(hanging), **clip)

    assert code == 1
    assert "set its checkpoint" in failed.wait_for("cannot_start")["reason"]
