import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

import httpx
import psutil
import pytest

from service.domain import (
    Alias,
    Consistency,
    DataType,
    Distance,
    ReturnFields,
    Scope,
    SearchSpec,
    StoredObject,
    WeightedField,
)
from service.errors import (
    CollectionAlreadyExists,
    CollectionNotFound,
    InvalidRequest,
    ObjectNotFound,
    StoreRejected,
    StoreUnavailable,
    TenantNotFound,
)
from service.process.ports import free_ports
from service.settings import WeaviateSettings
from service.store.embedded.server import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore, collections, connection
from tests.e2e.schemas import schemas_of_others
from tests.fakes.weaviate import at_ports
from tests.service.store.alias_suite import AliasSuite
from tests.service.store.change_suite import ChangeSuite
from tests.service.store.filter_suite import FilterSuite
from tests.service.store.hash_suite import HashSuite
from tests.service.store.people import bare
from tests.service.store.schema_suite import SchemaSuite
from tests.service.store.store_suite import StoreSuite, at, make_collection, make_object, make_vector
from tests.service.store.tenant_suite import TenantSuite

NOTHING = ReturnFields()


class TestWeaviateStore(StoreSuite, FilterSuite, TenantSuite, SchemaSuite, ChangeSuite, AliasSuite, HashSuite):
    @pytest.fixture
    async def store(self, weaviate_settings: WeaviateSettings) -> AsyncIterator[WeaviateStore]:
        store = WeaviateStore(weaviate_settings)
        await store.start()
        yield store
        await store.close()

    async def test_the_space_binding_is_in_the_schema(self, pictures: str, weaviate_settings: WeaviateSettings) -> None:
        async with _rest(weaviate_settings) as rest:
            schema = (await rest.get(f"/v1/schema/{pictures}")).json()
        assert schema["vectorConfig"]["main"]["vectorizer"]["none"] == {
            "space": "space-1",
            "dimension": 3,
            "model": "model-1",
            "imageFields": ["blob"],
            "textFields": ["text", "text_array"],
            "weights": {"imageFields": [0.75], "textFields": [0.25, 2.0]},
        }
        blob = next(each for each in schema["properties"] if each["name"] == "blob")
        assert (blob["indexFilterable"], blob["indexSearchable"]) == (False, False)

    async def test_a_collection_is_not_there_also_where_aliases_may_not_be_read(
        self, store: WeaviateStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "get_alias", mock.AsyncMock(side_effect=StoreRejected("no permission")))
        with pytest.raises(CollectionNotFound, match=r"'Missing'$"):
            await store.get_collection("Missing")

    async def test_reads_collections_of_other_programs(
        self, store: WeaviateStore, weaviate_settings: WeaviateSettings
    ) -> None:
        suffix = uuid4().hex
        schemas = schemas_of_others(suffix)
        async with _rest(weaviate_settings) as rest:
            for schema in schemas:
                answer = await rest.post("/v1/schema", json=schema)
                assert answer.status_code == 200, answer.text
        legacy = await store.get_collection(f"Legacy{suffix}")
        (nameless,) = legacy.vectors
        assert (nameless.name, nameless.nameless, nameless.space) == ("default", True, None)
        assert (nameless.distance, nameless.index.type) == (Distance.COSINE, "hnsw")
        assert legacy.properties[0].data_type is DataType.TEXT
        named = await store.get_collection(f"Named{suffix}")
        assert [each.data_type for each in named.properties] == [
            DataType.TEXT,
            DataType.BLOB,
            DataType.GEO_COORDINATES,
            None,
            DataType.BLOB_HASH,
            None,
            DataType.OBJECT,
        ]
        assert [each.name for each in named.properties[-1].nested] == ["inner"]
        assert {each.name: each.index.type for each in named.vectors} == {
            "own": "flat",
            "far": "hnsw",
            "nvidia": "hfresh",
        }
        assert {each.name: each.space and each.space.id for each in named.vectors} == {
            "far": None,
            "nvidia": "nvidia/nvclip",
            "own": None,
        }
        distances = {each.name: each.distance for each in named.vectors}
        assert distances == {"own": Distance.COSINE, "far": Distance.MANHATTAN, "nvidia": Distance.COSINE}
        nvidia = named.find_vector("nvidia")
        assert nvidia is not None
        assert nvidia.image_fields == (WeightedField("photo", 0.9),)
        assert nvidia.text_fields == (WeightedField("title", 0.1),)
        assert named in await store.list_collections()
        await store.update_collection(replace(named, description="adopted"))
        assert (await store.get_collection(named.name)).description == "adopted"

    async def test_calls_at_the_same_time_share_one_reading_of_a_schema(
        self, monkeypatch: pytest.MonkeyPatch, store: WeaviateStore, pictures: str
    ) -> None:
        read = mock.AsyncMock(wraps=collections.read_json)
        monkeypatch.setattr(collections, "read_json", read)
        given_up = asyncio.create_task(store.get_collection(pictures, fresh=False))
        others = [asyncio.create_task(store.get_collection(pictures, fresh=False)) for _ in range(8)]
        await asyncio.sleep(0)

        given_up.cancel()
        found = await asyncio.gather(*others)

        assert read.await_count == 1
        assert bare(found[0]) == make_collection(pictures)
        assert all(each is found[0] for each in found)

    async def test_a_schema_that_is_being_read_is_not_taken_for_one_after_a_change(
        self, store: WeaviateStore, pictures: str
    ) -> None:
        before = asyncio.create_task(store.get_collection(pictures, fresh=False))
        await asyncio.sleep(0)

        await store.update_collection(replace(make_collection(pictures), description="changed"))

        await before
        assert (await store.get_collection(pictures, fresh=False)).description == "changed"

    @pytest.mark.parametrize("alias", [False, True])
    async def test_what_is_created_is_found_while_an_earlier_reading_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, store: WeaviateStore, pictures: str, *, alias: bool
    ) -> None:
        name = f"{pictures}Later"
        read, done = asyncio.Event(), asyncio.Event()
        read_json = collections.read_json

        async def read_slowly(*arguments: Any) -> Any:
            try:
                return await read_json(*arguments)
            finally:
                if not read.is_set():
                    read.set()
                    await done.wait()

        monkeypatch.setattr(collections, "read_json", read_slowly)
        before = asyncio.create_task(store.get_collection(name, fresh=False))
        await read.wait()
        try:
            if alias:
                await store.create_alias(Alias(name, pictures))
            else:
                await store.create_collection(make_collection(name))
            found = await asyncio.wait_for(store.get_collection(name, fresh=False), 60)
        finally:
            done.set()
            with contextlib.suppress(CollectionNotFound):
                await before
            await (store.delete_alias(name) if alias else store.delete_collection(name))

        assert found.name == (pictures if alias else name)

    async def test_a_schema_is_read_again_when_it_is_too_old_or_must_be_fresh(
        self, monkeypatch: pytest.MonkeyPatch, weaviate_settings: WeaviateSettings, pictures: str
    ) -> None:
        monkeypatch.setattr(collections, "SCHEMA_MAX_AGE_S", 60.0)
        patient = WeaviateStore(weaviate_settings)
        monkeypatch.setattr(collections, "SCHEMA_MAX_AGE_S", 0.0)
        exact = WeaviateStore(weaviate_settings)
        try:
            for store in (patient, exact):
                await store.start()
                assert bare(await store.get_collection(pictures, fresh=False)) == make_collection(pictures)
            async with _rest(weaviate_settings) as rest:
                answer = await rest.delete(f"/v1/schema/{pictures}")
                assert answer.status_code == 200, answer.text
            assert bare(await patient.get_collection(pictures, fresh=False)) == make_collection(pictures)
            with pytest.raises(CollectionNotFound):
                await exact.get_collection(pictures, fresh=False)
            for fresh in (True, False):
                with pytest.raises(CollectionNotFound):
                    await patient.get_collection(pictures, fresh=fresh)
        finally:
            await patient.close()
            await exact.close()

    async def test_a_weaviate_that_fails_updates_after_a_removal_is_not_asked_for_one(
        self, monkeypatch: pytest.MonkeyPatch, store: WeaviateStore, pictures: str
    ) -> None:
        monkeypatch.setattr(collections, "REMOVES_SOUNDLY", (1, 1000))
        with pytest.raises(StoreRejected, match=r"'main' stays: after Weaviate 1\.\d+"):
            await store.remove_vector(pictures, "main")
        assert [each.name for each in (await store.get_collection(pictures)).vectors] == ["main", "other"]

    async def test_keeps_the_objects_of_tenants_apart(
        self, store: WeaviateStore, weaviate_settings: WeaviateSettings
    ) -> None:
        name = f"Tenants{uuid4().hex}"
        main = {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw"}
        schema = {"multiTenancyConfig": {"enabled": True}, "vectorConfig": {"main": main}}
        async with _rest(weaviate_settings) as rest:
            answer = await rest.post("/v1/schema", json={"class": name} | schema)
            assert answer.status_code == 200, answer.text
            answer = await rest.post(f"/v1/schema/{name}/tenants", json=[{"name": "anna"}, {"name": "ben"}])
            assert answer.status_code == 200, answer.text
        anna, ben = Scope("anna", Consistency.ALL), Scope("ben", Consistency.ONE)
        object_ = StoredObject(UUID(int=1), vectors={"main": make_vector(1, 2, 3)})
        assert await store.put_objects(name, [object_], anna) == [None]
        assert [await store.count_objects(name, scope) for scope in (anna, ben)] == [1, 0]
        assert (await store.get_object(name, object_.id, NOTHING, anna)).id == object_.id
        with pytest.raises(ObjectNotFound):
            await store.get_object(name, object_.id, NOTHING, ben)
        calls: dict[str, Callable[[Scope], Coroutine[Any, Any, list[Any]]]] = {
            "search": lambda scope: store.search(name, SearchSpec(at("main", 1, 2, 3), scope=scope)),
            "list": lambda scope: store.search(name, SearchSpec(scope=scope)),
            "put": lambda scope: store.put_objects(name, [object_], scope),
        }
        for what, call in calls.items():
            assert (len(await call(anna)), what) == (1, what)
            with pytest.raises(TenantNotFound, match="carla"):
                await call(Scope("carla"))
            with pytest.raises(InvalidRequest, match="has tenants; name one"):
                await call(Scope())
        assert await calls["search"](ben) == await calls["list"](ben) == []

    async def test_says_that_a_collection_has_no_tenants(self, store: WeaviateStore, pictures: str) -> None:
        with pytest.raises(InvalidRequest, match="has no tenants; leave this out"):
            await store.put_objects(pictures, [make_object(1)], Scope("anna"))
        with pytest.raises(InvalidRequest, match="has no tenants; leave this out"):
            await store.search(pictures, SearchSpec(scope=Scope("anna")))

    async def test_a_weaviate_that_takes_no_writes_is_unavailable_for_them(
        self, store: WeaviateStore, pictures: str, weaviate_settings: WeaviateSettings
    ) -> None:
        async with _rest(weaviate_settings) as rest:
            (shard,) = (await rest.get(f"/v1/schema/{pictures}/shards")).json()
            answer = await rest.put(f"/v1/schema/{pictures}/shards/{shard['name']}", json={"status": "READONLY"})
            assert answer.status_code == 200, answer.text
        with pytest.raises(StoreUnavailable, match="read-only"):
            await store.put_objects(pictures, [make_object(1), make_object(2)])
        assert await store.count_objects(pictures) == 0

    async def test_a_name_that_differs_in_case_only_is_taken(self, store: WeaviateStore, pictures: str) -> None:
        with pytest.raises(CollectionAlreadyExists, match=pictures):
            await store.create_collection(make_collection(pictures.upper()))

    async def test_the_client_logs_nothing_of_refused_objects(
        self, store: WeaviateStore, pictures: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        await store.put_objects(pictures, [make_object(1, text="sesame"), make_object(2, text="sesame", nope=1)])
        assert caplog.records == []
        assert "sesame" not in "".join(capfd.readouterr())

    async def test_a_wrong_key_is_named_as_the_reason(self, weaviate_settings: WeaviateSettings) -> None:
        settings = weaviate_settings.model_copy(update={"api_key": None})
        store = WeaviateStore(settings)
        await store.start()
        assert not store.available
        with pytest.raises(StoreUnavailable, match="key"):
            await store.list_collections()
        await store.close()


@pytest.fixture
async def server(tmp_path: Path, weaviate_binary: None) -> AsyncIterator[EmbeddedWeaviate]:
    """Run a Weaviate of the test's own that nothing restarts, on ports that it keeps."""
    http_port, grpc_port = free_ports(1, 1)
    settings = WeaviateSettings(embedded=True, data_dir=tmp_path, **at_ports(http_port, grpc_port), timeout_s=60)
    server = EmbeddedWeaviate(settings, supervised=False)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def own_store(server: EmbeddedWeaviate) -> AsyncIterator[WeaviateStore]:
    store = WeaviateStore(server.client_settings)
    await store.start()
    await store.create_collection(make_collection("Pictures"))
    await store.put_objects("Pictures", [make_object(1)])
    yield store
    await store.close()


SOON_S = 30
"""Seconds that nothing takes, however busy the machine is, but the limit of a call."""

CALLS: dict[str, Callable[[WeaviateStore], Coroutine[Any, Any, object]]] = {
    "search": lambda store: store.search("Pictures", SearchSpec(at("main", 1, 2, 3))),
    "put": lambda store: store.put_objects("Pictures", [make_object(2)]),
    "count": lambda store: store.count_objects("Pictures"),
    "get_object": lambda store: store.get_object("Pictures", UUID(int=1), NOTHING),
    "get_collection": lambda store: store.get_collection("Pictures"),
    "list": lambda store: store.list_collections(),
}


@pytest.fixture
def checks(own_store: WeaviateStore, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Count how often the store looks whether Weaviate is there: what nothing else on the machine changes."""
    counted: list[None] = []
    check = own_store._connection._check

    async def count() -> None:
        counted.append(None)
        await check()

    monkeypatch.setattr(own_store._connection, "_check", count)
    return counted


async def test_calls_fail_at_once_when_weaviate_dies_and_work_again_when_it_is_back(
    server: EmbeddedWeaviate, own_store: WeaviateStore, checks: list[None]
) -> None:
    pid = await _freeze(server)
    calls = [asyncio.create_task(call(own_store)) for call in CALLS.values()]
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    checks.clear()
    async with asyncio.timeout(SOON_S):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in outcomes] == [StoreUnavailable] * len(CALLS)
    await _wait_until(lambda: not own_store.available)
    assert len(checks) * connection.CHECK_INTERVAL_S <= 1
    for call in CALLS.values():
        with pytest.raises(StoreUnavailable):
            # As far as it goes without waiting for anything.
            call(own_store).send(None)
    await server.stop()
    await server.start()
    await _wait_until(lambda: own_store.available)
    async with asyncio.timeout(SOON_S):
        for call in CALLS.values():
            await call(own_store)


async def test_calls_started_while_weaviate_is_dead_but_not_missed_yet_fail_soon(
    server: EmbeddedWeaviate, own_store: WeaviateStore, checks: list[None]
) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    checks.clear()
    async with asyncio.timeout(SOON_S):
        outcomes = await asyncio.gather(*(call(own_store) for call in CALLS.values()), return_exceptions=True)
    assert len(checks) * connection.CHECK_INTERVAL_S <= 1
    assert [type(each) for each in outcomes] == [StoreUnavailable] * len(CALLS)


async def test_a_refused_change_of_the_space_binding_does_not_outlive_a_restart(
    server: EmbeddedWeaviate, own_store: WeaviateStore
) -> None:
    async with _rest(server.client_settings) as rest:
        schema = (await rest.get("/v1/schema/Pictures")).json()
        schema["vectorConfig"]["main"]["vectorizer"]["none"]["space"] = "another"
        answer = await rest.put("/v1/schema/Pictures", json=schema)
    assert answer.status_code == 422
    assert "immutable" in answer.text
    # Weaviate 1.39 shows the refused change nevertheless, until it is started again.
    await server.stop()
    await _wait_until(lambda: not own_store.available)
    await server.start()
    await _wait_until(lambda: own_store.available)
    assert bare(await own_store.get_collection("Pictures")) == make_collection("Pictures")


@pytest.mark.usefixtures("own_store")
async def test_a_call_to_a_hanging_weaviate_ends_by_the_nearest_limit(
    monkeypatch: pytest.MonkeyPatch, server: EmbeddedWeaviate
) -> None:
    store = WeaviateStore(server.client_settings.model_copy(update={"timeout_s": 0.5}))
    await store.start()
    # On a busy machine the first look may have taken longer than that.
    await _wait_until(lambda: store.available)
    # Nothing notices that Weaviate hangs: neither a look that has begun nor the next ones.
    look = mock.AsyncMock()
    monkeypatch.setattr(store._connection, "_check", look)
    await _wait_until(lambda: look.await_count > 0)
    pid = await _freeze(server)
    try:
        for call in CALLS.values():
            with pytest.raises(StoreUnavailable, match=r"within 0\.5 s"):
                async with asyncio.timeout(SOON_S):
                    await call(store)
            # The caller's time is up before the store's is, which would raise the other error.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await call(store)
            task = asyncio.create_task(call(store))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        os.kill(pid, signal.SIGCONT)
        await store.close()


async def test_a_hanging_weaviate_is_noticed_and_a_waking_one_too(
    server: EmbeddedWeaviate, own_store: WeaviateStore
) -> None:
    pid = await _freeze(server)
    await _wait_until(lambda: not own_store.available)
    os.kill(pid, signal.SIGCONT)
    await _wait_until(lambda: own_store.available)
    assert await own_store.count_objects("Pictures") == 1


async def test_a_store_can_start_before_weaviate(tmp_path: Path, weaviate_binary: None) -> None:
    http_port, grpc_port = free_ports(1, 1)
    settings = WeaviateSettings(embedded=True, data_dir=tmp_path, **at_ports(http_port, grpc_port))
    server = EmbeddedWeaviate(settings)
    store = WeaviateStore(server.client_settings)
    await store.start()
    assert not store.available
    with pytest.raises(StoreUnavailable, match=str(http_port)):
        await store.list_collections()
    await server.start()
    try:
        await _wait_until(lambda: store.available)
        assert await store.list_collections() == []
    finally:
        await store.close()
        await server.stop()
    with pytest.raises(StoreUnavailable):
        await store.list_collections()


async def test_closing_ends_calls_in_flight(server: EmbeddedWeaviate, own_store: WeaviateStore) -> None:
    pid = await _freeze(server)
    call = asyncio.create_task(own_store.count_objects("Pictures"))
    await asyncio.sleep(0.05)
    await own_store.close()
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(StoreUnavailable):
        await call


def _rest(settings: WeaviateSettings) -> httpx.AsyncClient:
    assert settings.api_key is not None
    return httpx.AsyncClient(
        base_url=settings.http_url,
        headers={"Authorization": f"Bearer {settings.api_key.get_secret_value()}"},
    )


async def _freeze(server: EmbeddedWeaviate) -> int:
    assert server.pid is not None
    process = psutil.Process(server.pid)
    process.suspend()
    # Its threads stop one after the other.
    await _wait_until(
        lambda: all(psutil.Process(each.id).status() == psutil.STATUS_STOPPED for each in process.threads())
    )
    return process.pid


async def _wait_until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)
