"""Objects over those that are there, in a store that keeps what this version does not handle."""

from uuid import UUID

import numpy as np
import pytest

from service.core.objects.writing import overwrite
from service.domain import Collection, DataType, NamedVector, Property, ReturnFields, Space, StoredObject
from service.errors import StoreRejected, StoreUnavailable, TenantNotFound
from service.store.base import NO_TENANT
from tests.fakes.store import FakeStore

ALL = ReturnFields(["title", "by"], ["photo"], ["main", "other"])
TITLE, PHOTO = Property("title", DataType.TEXT), Property("photo", DataType.BLOB)
BY = Property("by", None, references=("Author",))
SPACE = Space("some", 2, "some/model")
VECTORS = (NamedVector("main", SPACE), NamedVector("other", SPACE))
NEW, OLD = UUID(int=1), UUID(int=2)
ONE, TWO = np.ones(2, np.float32), np.array([1, 2], np.float32)


async def store_with(*properties: Property) -> tuple[FakeStore, Collection]:
    """Return a store in which OLD is stored with everything."""
    store, collection = FakeStore(), Collection("Books", properties, VECTORS)
    await store.create_collection(collection)
    old = StoredObject(OLD, {"title": "old"}, {"photo": b"old"}, {"main": ONE, "other": ONE})
    assert await store.put_objects("Books", [old]) == [None]
    store.puts.clear()
    return store, collection


@pytest.mark.parametrize("property_", [BY, Property("box", DataType.OBJECT, nested=(Property("of", None),))])
async def test_only_objects_that_are_there_are_changed_in_parts(property_: Property) -> None:
    store, collection = await store_with(TITLE, PHOTO, property_)
    stored = await store.get_objects("Books", [NEW, OLD], ReturnFields(vectors=["main", "other"]))
    objects = [StoredObject(OLD, {}, {}, {"main": TWO}), StoredObject(NEW, {"title": "new"}, {}, {"main": ONE})]

    failures = await overwrite(store, collection, objects, stored, NO_TENANT)

    old = await store.get_object("Books", OLD, ALL)
    assert failures == [None, None]
    assert store.puts == [1]
    assert (old.properties, old.images, old.vectors.keys()) == ({}, {}, {"main"})


async def test_a_vector_of_no_known_space_stays_where_its_object_is_replaced() -> None:
    store, _ = await store_with(TITLE, PHOTO)
    collection = Collection("Books", (TITLE, PHOTO), (VECTORS[0], NamedVector("other", None)))
    stored = await store.get_objects("Books", [OLD], ReturnFields(vectors=["main", "other"]))

    failures = await overwrite(store, collection, [StoredObject(OLD, {}, {}, {"main": TWO})], stored, NO_TENANT)

    old = await store.get_object("Books", OLD, ALL)
    assert (failures, store.puts) == ([None], [])
    assert (old.properties, old.images, old.vectors.keys()) == ({}, {}, {"main", "other"})


async def test_objects_without_anything_else_are_replaced_in_one_write() -> None:
    store, collection = await store_with(TITLE, PHOTO)
    stored = await store.get_objects("Books", [OLD], ReturnFields())

    failures = await overwrite(store, collection, [StoredObject(OLD), StoredObject(NEW)], stored, NO_TENANT)

    assert failures == [None, None]
    assert store.puts == [2]


async def test_each_object_fails_alone_and_one_that_is_gone_is_stored_anew() -> None:
    store, collection = await store_with(TITLE, PHOTO, BY)
    gone, refused = UUID(int=3), UUID(int=4)
    await store.put_objects("Books", [StoredObject(refused)])
    store.rejected[refused] = "too ugly"
    stored = {each: StoredObject(each) for each in (OLD, gone, refused)}
    objects = [StoredObject(each, {"title": "t"}) for each in (refused, gone, OLD)]

    failures = await overwrite(store, collection, objects, stored, NO_TENANT)

    assert [type(each) for each in failures] == [StoreRejected, type(None), type(None)]
    assert (await store.get_object("Books", gone, ALL)).properties == {"title": "t"}


async def test_an_object_that_finds_the_store_down_may_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store, collection = await store_with(TITLE, PHOTO, BY)

    async def down(*_: object) -> None:
        raise StoreUnavailable("down")

    monkeypatch.setattr(store, "update_object", down)
    failures = await overwrite(store, collection, [StoredObject(OLD)], {OLD: StoredObject(OLD)}, NO_TENANT)

    assert [type(each) for each in failures] == [StoreUnavailable]


async def test_what_is_no_objects_own_fault_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    store, collection = await store_with(TITLE, PHOTO, BY)

    async def gone(*_: object) -> None:
        raise TenantNotFound("anna")

    monkeypatch.setattr(store, "update_object", gone)
    with pytest.raises(TenantNotFound):
        await overwrite(store, collection, [StoredObject(OLD)], {OLD: StoredObject(OLD)}, NO_TENANT)


def test_a_property_is_handled_if_all_its_parts_are() -> None:
    inner = Property("inner", DataType.OBJECT, nested=(Property("x", DataType.TEXT), Property("y", None)))
    collection = Collection("C", (TITLE, BY, Property("outer", DataType.OBJECT_ARRAY, nested=(inner,))), ())

    assert collection.unhandled == {"by", "outer"}
