"""Writes to the store whose callers leave, which are cut off, and which overlap: what is acknowledged is found."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode

from service.core.objects import importing, writing
from service.domain import Condition, Operator, ReturnFields, Space, StoredObject, Target
from service.errors import StoreRejected, StoreUnavailable
from tests.fakes.store import FakeStore
from tests.service.conftest import Wire, failure_of, out_of_time
from tests.service.rpc.objects.test_import import import_, obj
from vecgate.v1 import object_service_pb2 as pb

ID = str(UUID(int=7))
CUT = StoreUnavailable("Weaviate became unavailable during a write")


@pytest.fixture
async def pictures(wire: Wire) -> Wire:
    await wire.create_pictures()
    return wire


class Slow:
    """A method of the store that waits, before it does its work, until it is let through."""

    def __init__(self, wire: Wire, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.through = asyncio.Event(), asyncio.Event()
        self._method = getattr(wire.store, method)
        monkeypatch.setattr(wire.store, method, self._call)

    async def _call(self, *arguments: Any) -> Any:
        self.begun.set()
        await self.through.wait()
        return await self._method(*arguments)


async def title_of(wire: Wire) -> object:
    found = await wire.store.get_objects("Pictures", [UUID(ID)], ReturnFields(["title"]))
    return found[UUID(ID)].properties["title"] if found else None


async def becomes(wire: Wire, title: object) -> None:
    async with asyncio.timeout(60):
        while await title_of(wire) != title:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("leaves", ["cancels", "runs out of time"])
@pytest.mark.parametrize(
    ("call", "method", "title"),
    [
        ("ImportObjects", "put_objects", "new"),
        ("UpdateObject", "update_object", "new"),
        ("DeleteObject", "delete_objects", None),
        ("DeleteObjects", "delete_objects", None),
    ],
)
async def test_a_write_that_has_begun_ends_though_its_caller_leaves(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch, call: str, method: str, title: object, leaves: str
) -> None:
    await import_(pictures, obj(ID, title="old"))
    slow = Slow(pictures, method, monkeypatch)
    requests = {
        "ImportObjects": pb.ImportObjectsRequest(collection="Pictures", objects=[obj(ID, title="new")]),
        "UpdateObject": pb.UpdateObjectRequest(collection="Pictures", object=obj(ID, title="new")),
        "DeleteObject": pb.DeleteObjectRequest(collection="Pictures", id=ID),
        "DeleteObjects": pb.DeleteObjectsRequest(
            collection="Pictures",
            filters={"condition": {"object_field": 1, "operator": 1, "value": {"text": ID}}},
        ),
    }
    make = partial(getattr(pictures.objects, call), requests[call])

    if leaves == "cancels":
        calling = make()
        await slow.begun.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    else:
        code = await out_of_time(lambda seconds: make(timeout=seconds), slow.begun)
        assert code is StatusCode.DEADLINE_EXCEEDED
    slow.through.set()

    await becomes(pictures, title)


async def test_the_end_of_the_server_waits_for_a_write_whose_caller_left(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(pictures, "put_objects", monkeypatch)
    calling = asyncio.create_task(import_(pictures, obj(ID, title="new")))
    await slow.begun.wait()
    calling.cancel()

    stopping = asyncio.create_task(pictures.server.stop())
    await asyncio.sleep(0.2)
    slow.through.set()
    await stopping

    assert await title_of(pictures) == "new"


async def test_ready_vectors_that_waited_for_their_turn_are_not_written_to_another_space(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "LOOK_AGAIN_S", 0.0)
    slow = Slow(pictures, "put_objects", monkeypatch)
    ready = np.ones(8, "<f4").tobytes()
    first = asyncio.create_task(import_(pictures, obj(ID, title="first", vector=ready)))
    await slow.begun.wait()
    second = asyncio.create_task(import_(pictures, obj(ID, title="second", vector=ready)))
    (turn,) = pictures.server._writes._turns.values()
    async with asyncio.timeout(60):
        # Until the second one waits for the first.
        while pictures.server._writes._turns.get(("Pictures", "", UUID(ID))) is turn:
            await asyncio.sleep(0.01)

    now = await pictures.store.get_collection("Pictures")
    moved = [replace(each, space=Space("another", "another", 8)) for each in now.vectors]
    monkeypatch.setitem(pictures.store._collections, now.name, replace(now, vectors=tuple(moved)))
    slow.through.set()

    assert (await first).results[0].HasField("stored")
    assert "bound to another space" in (await second).results[0].error.message
    assert await title_of(pictures) == "first"


async def cut_off(wire: Wire, *objects: StoredObject) -> None:
    """Store objects without entries in the index, as Weaviate does when a write is cut off."""
    await FakeStore.put_objects(wire.store, "Pictures", objects)
    wire.store.lost |= {(each.id, name) for each in objects for name in each.vectors}


async def test_an_object_whose_write_was_cut_is_looked_for_though_it_was_not_there_when_its_import_began(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pictures.store.put_objects
    begun, through = asyncio.Event(), asyncio.Event()

    async def cut(collection: str, objects: Sequence[StoredObject], *arguments: Any) -> Any:
        monkeypatch.setattr(pictures.store, "put_objects", write)
        begun.set()
        await through.wait()
        await cut_off(pictures, *objects)
        raise CUT

    monkeypatch.setattr(pictures.store, "put_objects", cut)
    first = asyncio.create_task(failure_of(import_(pictures, obj(ID, title="new"))))
    await begun.wait()
    reads = pictures.store.calls.count("get_objects")
    again = asyncio.create_task(import_(pictures, obj(ID, title="new")))
    async with asyncio.timeout(60):
        while pictures.store.calls.count("get_objects") == reads:
            await asyncio.sleep(0)
    through.set()

    assert (await first).reason == "STORE_UNAVAILABLE"
    assert (await again).results[0].WhichOneof("outcome") == "stored"
    assert pictures.store.lost == set()


async def test_an_update_of_anything_looks_for_an_object_whose_last_write_was_cut(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_(pictures, obj(ID, title="old"))
    write = pictures.store.update_object

    async def cut(*arguments: Any) -> Any:
        await write(*arguments)
        pictures.store.lost = {(UUID(ID), "default")}
        raise CUT

    monkeypatch.setattr(pictures.store, "update_object", cut)
    change = pb.UpdateObjectRequest(collection="Pictures", object=obj(ID, title="new"))
    assert (await failure_of(pictures.objects.UpdateObject(change))).reason == "STORE_UNAVAILABLE"
    monkeypatch.setattr(pictures.store, "update_object", write)

    await pictures.objects.UpdateObject(pb.UpdateObjectRequest(collection="Pictures", object=obj(ID, year=3)))

    assert pictures.store.lost == set()


@pytest.mark.parametrize("spelling", ["Pictures", "pictures", "Images"])
async def test_an_object_whose_deletion_was_cut_is_looked_for_however_its_collection_was_named(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    pictures.store.aliases["Images"] = "Pictures"
    await import_(pictures, obj(ID, title="old"))

    async def cut(*_: Any) -> Any:
        pictures.store.lost = {(UUID(ID), "default")}
        raise CUT

    monkeypatch.setattr(pictures.store, "delete_objects", cut)
    deletion = pb.DeleteObjectRequest(collection=spelling, id=ID)
    assert (await failure_of(pictures.objects.DeleteObject(deletion))).reason == "STORE_UNAVAILABLE"

    await pictures.objects.UpdateObject(pb.UpdateObjectRequest(collection="Pictures", object=obj(ID, year=3)))

    assert pictures.store.lost == set()


async def test_an_import_looks_for_all_objects_where_it_cannot_read_what_is_stored(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_(pictures, obj(ID, title="new"))
    pictures.store.lost = {(UUID(ID), "default")}
    pictures.store.fail_next_of("get_objects", StoreRejected("the answer is too large"))

    assert (await import_(pictures, obj(ID, title="new"))).results[0].WhichOneof("outcome") == "stored"

    assert pictures.store.lost == set()


async def test_an_entry_that_no_other_leads_to_is_entered_again_by_the_next_import(pictures: Wire) -> None:
    await import_(pictures, obj(ID, title="new"), obj(title="another"))
    pictures.store.unlinked = {(UUID(ID), "default")}

    await import_(pictures, obj(ID, title="new"))

    assert pictures.store.unlinked == set()


async def test_an_object_is_looked_for_again_after_its_entering_was_cut(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PAUSE_S", 0.01)
    # Not before the test has said what comes late.
    await pictures.server._settler.close()
    await import_(pictures, obj(ID, title="new"))
    pictures.store.lost = {(UUID(ID), "default")}
    pictures.store.fail_next_of("reindex_vector", CUT)

    (first,) = (await import_(pictures, obj(ID, title="new"))).results
    (again,) = (await import_(pictures, obj(ID, title="new"))).results
    # What was cut off comes late, and is cut off itself before it enters anything.
    pictures.store.lost = {(UUID(ID), "default")}
    await pictures.server._settler.start()

    assert (first.WhichOneof("outcome"), again.WhichOneof("outcome")) == ("error", "stored")
    async with asyncio.timeout(60):
        while pictures.store.lost:
            await asyncio.sleep(0.01)


@pytest.fixture
def _settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PAUSE_S", 0.01)
    monkeypatch.setattr(writing, "LATE_S", 0.0)


@pytest.mark.usefixtures("_settled_at_once")
@pytest.mark.parametrize("gone", ["nothing", "object", "collection"])
async def test_what_a_write_that_was_cut_left_is_settled_though_nobody_sends_it_again(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    await wire.create_pictures()
    await import_(wire, obj(ID, title="old"), obj(title="another"))
    write = wire.store.put_objects

    async def cut(_: str, objects: Sequence[StoredObject], *__: Any) -> Any:
        monkeypatch.setattr(wire.store, "put_objects", write)
        await cut_off(wire, *objects)
        wire.store.available = False
        raise CUT

    monkeypatch.setattr(wire.store, "put_objects", cut)
    assert (await failure_of(import_(wire, obj(ID, title="new")))).reason == "STORE_UNAVAILABLE"
    await asyncio.sleep(0.1)
    unsettled = set(wire.store.lost)
    wire.store.available = True
    if gone == "object":
        await wire.store.delete_objects("Pictures", Condition(Target.ID, Operator.EQUAL, ID))
    elif gone == "collection":
        await wire.store.delete_collection("Pictures")
    wire.store.calls.clear()

    async with asyncio.timeout(60):
        while wire.store.lost if gone == "nothing" else "get_collection" not in wire.store.calls:
            await asyncio.sleep(0.01)
    asked = wire.store.calls.count("get_collection")
    await asyncio.sleep(0.1)

    assert unsettled == {(UUID(ID), "default")}
    assert wire.store.calls.count("get_collection") == asked, "what is settled is left alone"


@pytest.mark.usefixtures("_settled_at_once")
async def test_an_object_that_cannot_be_entered_keeps_no_other_from_being_settled(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = [obj(ID, title="old"), obj(str(UUID(int=8)), title="older")]
    await import_(pictures, *objects, obj(title="another"))
    write, enter = pictures.store.put_objects, pictures.store.reindex_vector
    failures = [StoreRejected("the index takes no more"), CUT]

    async def cut(_: str, written: Sequence[StoredObject], *__: Any) -> Any:
        monkeypatch.setattr(pictures.store, "put_objects", write)
        await cut_off(pictures, *written)
        raise CUT

    async def refuse_or_enter(*arguments: Any) -> None:
        if failures:
            raise failures.pop(0)
        await enter(*arguments)

    monkeypatch.setattr(pictures.store, "put_objects", cut)
    monkeypatch.setattr(pictures.store, "reindex_vector", refuse_or_enter)
    assert (await failure_of(import_(pictures, *objects))).reason == "STORE_UNAVAILABLE"

    async with asyncio.timeout(60):
        while pictures.store.lost:
            await asyncio.sleep(0.01)
