"""Imports through everything that goes wrong on the way: nothing is lost, nothing is there twice."""

import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest

from tests.e2e.serving import Serving, serving, tiny_model
from tests.fakes.embedder import picture
from tests.fakes.proxy import Proxy
from vecgate.client import Client, Object, VecgateError
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub

COUNT = 300
KEY = "key-of-weaviate"
METHOD = "/vecgate.v1.ObjectService/ImportObjects"


def create(client: Client) -> None:
    client.create_collection(
        collection_pb.Collection(
            name="Pictures",
            properties=[
                property_pb.Property(name="image", data_type=property_pb.DATA_TYPE_BLOB),
                property_pb.Property(name="number", data_type=property_pb.DATA_TYPE_INT),
            ],
            vectors=[collection_pb.VectorConfig(name="default", image_fields=[{"name": "image"}])],
        )
    )


def objects() -> list[Object]:
    return [Object({"number": n}, images={"image": picture((n % 256, n // 256, 9))}) for n in range(COUNT)]


@pytest.fixture(scope="module")
def running(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("faults")
    with serving(folder / "data", VECGATE_WEAVIATE__API_KEY=KEY, **tiny_model(folder / "model")) as server:
        yield server


@pytest.fixture
def client(running: Serving) -> Iterator[Client]:
    with running.client() as connected:
        yield connected


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "running" in request.fixturenames:
        with request.getfixturevalue("running").client() as connected:
            connected.delete_collection("Pictures")


def imports_done(running: Serving) -> int:
    return sum(line["event"] == "call" and line["method"] == METHOD for line in list(running.log))


def assert_each_is_there_once(client: Client) -> None:
    listed = [each.properties["number"] for each in client.list_objects("Pictures", page_size=100)]
    assert sorted(listed) == list(range(COUNT))
    assert client.get_collection("Pictures").object_count == COUNT


def test_an_import_outlives_a_weaviate_that_is_killed_and_restarted(weaviate_binary: None, tmp_path: Path) -> None:
    with serving(tmp_path / "data", **tiny_model(tmp_path / "model")) as running, running.client() as client:
        create(client)
        outcomes = client.import_objects("Pictures", objects(), chunk_objects=25)
        ids = [next(outcomes).id for _ in range(100)]
        first = running.weaviate()
        first.kill()

        rest = list(outcomes)

        assert [each.error for each in rest if each.error] == []
        assert len({*ids, *(each.id for each in rest)}) == COUNT
        assert running.weaviate().pid != first.pid
        assert_each_is_there_once(client)
        answers = list(client.backfill_vectors("Pictures", verify=True))
        assert sum(each.seen for each in answers) == COUNT
        assert not any(each.failures for each in answers)
        assert sum(each.repaired + each.filled for each in client.backfill_vectors("Pictures", verify=True)) == 0


def test_an_answer_that_is_lost_after_the_write_loses_and_doubles_nothing(running: Serving) -> None:
    port = int(running.address.rpartition(":")[2])
    with Proxy(port) as proxy, Client(proxy.address) as client:
        create(client)
        outcomes = client.import_objects("Pictures", objects(), chunk_objects=50)
        found = [next(outcomes)]
        proxy.deaf = True
        done = imports_done(running)
        lost: list[int] = []

        def lose() -> None:
            end = time.monotonic() + 60
            # What was answered before comes into the log a moment later.
            while (imports_done(running) == done or not proxy.lost_bytes) and time.monotonic() < end:
                time.sleep(0.01)
            lost.append(imports_done(running) - done)
            proxy.cut()
            proxy.deaf = False

        losing = threading.Thread(target=lose)
        losing.start()
        found += outcomes
        losing.join()

        assert lost[0] >= 1, "an import was answered, and nobody heard it"
        assert proxy.lost_bytes > 0
        assert [each.error for each in found if each.error] == []
        assert len({each.id for each in found}) == COUNT
        assert_each_is_there_once(client)


def test_a_property_that_is_added_under_way_can_be_used_at_once(client: Client) -> None:
    create(client)
    outcomes = client.import_objects(
        "Pictures", [*objects(), Object({"later": "x"}, images={"image": picture()})], chunk_objects=25
    )
    found = [next(outcomes)]
    wanted = collection_pb.Collection(name="Pictures")
    wanted.properties.add(name="later", data_type=property_pb.DATA_TYPE_TEXT)
    client.update_collection(wanted)

    found += outcomes

    assert [each.error for each in found if each.error] == []
    assert len({each.id for each in found}) == COUNT + 1


def test_a_collection_that_is_deleted_under_way_ends_the_import_and_stays_deleted(client: Client) -> None:
    create(client)
    outcomes = client.import_objects("Pictures", objects(), chunk_objects=25)
    next(outcomes)
    client.delete_collection("Pictures")

    with pytest.raises(VecgateError) as caught:
        list(outcomes)

    assert caught.value.reason == "COLLECTION_NOT_FOUND"
    assert [each.name for each in client.list_collections()] == []
    create(client)


def wait_for_end(running: Serving, code: str, *, after: int) -> None:
    """Return when a call has ended with this code, by a line behind so many."""
    end = time.monotonic() + 60
    while not any(line["event"] == "call" and line.get("code") == code for line in list(running.log)[after:]):
        assert time.monotonic() < end
        time.sleep(0.01)


def settled_count(client: Client) -> int:
    """Return how many objects are stored as soon as none has come for a while: a write that has begun ends."""
    before, now = -1, 0
    while before != now:
        time.sleep(2)  # longer than a batch is embedded
        before, now = now, client.get_collection("Pictures").object_count
    return now


def test_an_import_that_nobody_waits_for_any_more_is_not_done_to_its_end(
    running: Serving, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(client)
    calls: list[object] = []
    send = client._object.ImportObjects.future

    def noted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return send(*arguments, **options)

    monkeypatch.setattr(client._object, "ImportObjects", SimpleNamespace(future=noted))
    # The first ones have nothing to embed, so that others are in flight when they are stored.
    stored_first = (Object({"number": n}) for n in range(COUNT))
    embedded = (
        Object({"number": n}, images={"image": picture((n % 256, n // 256, 11), size=(64, 64))})
        for n in range(8 * COUNT)
    )
    outcomes = client.import_objects("Pictures", chain(stored_first, embedded), chunk_objects=COUNT)
    next(outcomes)

    lines = len(running.log)
    outcomes.close()

    wait_for_end(running, "CANCELLED", after=lines)
    assert settled_count(client) < COUNT * len(calls), "the server goes on with calls that were cancelled"


def test_an_import_whose_time_is_up_is_not_done_to_its_end(running: Serving, client: Client) -> None:
    create(client)
    # None of them is known from before, so that there is work to be done.
    pictures = [
        object_pb.DataObject(images={"image": {"content": picture((n % 256, n // 256, 10), size=(64, 64))}})
        for n in range(1000)
    ]
    request = object_pb.ImportObjectsRequest(collection="Pictures", objects=pictures)

    lines = len(running.log)
    with grpc.insecure_channel(running.address) as channel:
        # The time is that of the work, and not of the way there.
        grpc.channel_ready_future(channel).result(60)
        with pytest.raises(grpc.RpcError) as caught:
            ObjectServiceStub(channel).ImportObjects(request, timeout=0.3)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for_end(running, "DEADLINE_EXCEEDED", after=lines)
    assert settled_count(client) < len(pictures), "the server goes on with a call that is past its time"


def make_shards(running: Serving, status: str) -> None:
    """Do to the shards what Weaviate does by itself when its disk is nearly full, and when there is room again."""
    address = running.wait_for("serving")["weaviate"]
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=f"http://{address}/v1/schema/Pictures/shards", headers=headers) as rest:
        for shard in rest.get("").json():
            rest.put(f"/{shard['name']}", json={"status": status}).raise_for_status()


def test_an_import_waits_for_a_weaviate_that_takes_no_writes_for_a_while(running: Serving, client: Client) -> None:
    create(client)
    outcomes = client.import_objects("Pictures", objects(), chunk_objects=25)
    found = [next(outcomes)]
    make_shards(running, "READONLY")
    refused = threading.Event()

    def relent() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not refused.is_set():
            if any(line["event"] == "call" and line.get("code") == "UNAVAILABLE" for line in list(running.log)):
                refused.set()
            time.sleep(0.05)
        make_shards(running, "READY")

    relenting = threading.Thread(target=relent)
    relenting.start()
    found += outcomes
    relenting.join()

    assert refused.is_set()
    assert [each.error for each in found if each.error] == []
    assert len({each.id for each in found}) == COUNT
    assert_each_is_there_once(client)


def test_an_import_that_finds_no_room_in_time_says_why_and_the_next_one_brings_all(
    running: Serving, client: Client
) -> None:
    create(client)
    make_shards(running, "READONLY")
    with pytest.raises(VecgateError, match=r"takes no writes.*read-only") as caught:
        list(client.import_objects("Pictures", objects(), retry_s=0))
    empty = client.get_collection("Pictures").object_count
    make_shards(running, "READY")

    found = list(client.import_objects("Pictures", objects()))

    assert (caught.value.reason, empty) == ("STORE_UNAVAILABLE", 0)
    assert [each.error for each in found if each.error] == []
    assert_each_is_there_once(client)
