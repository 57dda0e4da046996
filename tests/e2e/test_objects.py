"""What core does with objects, against a real Weaviate."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID, uuid4

import numpy as np
import pytest

from service.core.embedder_pool import EmbedderPool
from service.core.objects.backfilling import Backfiller, BackfillWishes
from service.core.objects.checks import DraftObject
from service.core.objects.importing import Importer
from service.core.objects.objects import MAX_NAMED, WINDOW, Listing, ObjectPage, Objects
from service.core.objects.updating import MaskPath, Updater
from service.core.objects.writing import Writes
from service.domain import (
    Collection,
    Condition,
    DataType,
    NamedVector,
    Operator,
    Property,
    ReturnFields,
    SortBy,
    Space,
    StoredObject,
    Target,
    WeightedField,
)
from service.errors import InvalidRequest, StoreRejected
from service.settings import WeaviateSettings
from service.store.weaviate import WeaviateStore
from tests.fakes.embedder import FakeEmbedder
from tests.service.store.store_suite import make_collection, make_object

# Weaviate deletes at most QUERY_MAXIMUM_RESULTS at a time, 10,000 unless its operator says otherwise.
MORE_THAN_A_TIME = 10_050


@pytest.fixture
async def store(weaviate_settings: WeaviateSettings) -> AsyncIterator[WeaviateStore]:
    store = WeaviateStore(weaviate_settings)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def name(store: WeaviateStore) -> AsyncIterator[str]:
    name = f"Many{uuid4().hex}"
    await store.create_collection(make_collection(name))
    yield name
    await store.delete_collection(name)


async def test_more_objects_are_deleted_and_listed_than_weaviate_takes_at_a_time(
    store: WeaviateStore, name: str
) -> None:
    for start in range(1, MORE_THAN_A_TIME + 3, 1000):
        chunk = [make_object(n, vectors={}, int=n) for n in range(start, min(start + 1000, MORE_THAN_A_TIME + 3))]
        assert set(await store.put_objects(name, chunk)) == {None}
    objects = Objects(store, EmbedderPool([FakeEmbedder()], check_interval_s=60), Writes())
    listed: list[UUID] = []
    page = ObjectPage([], more=True)
    while page.more:
        page = await objects.list_page(Listing(name, 2000, position=listed[-1] if listed else 0))
        listed += [each.id for each in page.objects]
    filters = Condition(Target.PROPERTY, Operator.GREATER, 2, "int")

    ordered = Listing(name, 3000, filters, (SortBy("int", descending=True),), position=WINDOW - 2000)
    last = await objects.list_page(ordered)
    with pytest.raises(InvalidRequest, match=f"first {WINDOW} objects"):
        await objects.list_page(replace(ordered, position=WINDOW))
    counted = await objects.delete_fitting(name, filters, dry_run=True)
    report = await objects.delete_fitting(name, filters, dry_run=False)

    assert listed == [UUID(int=n) for n in range(1, MORE_THAN_A_TIME + 3)]
    assert last.more == (WINDOW < MORE_THAN_A_TIME)
    assert [each.id.int for each in last.objects] == list(range(MORE_THAN_A_TIME + 2, 2, -1))[WINDOW - 2000 : WINDOW]
    assert (counted.matched, counted.deleted, len(counted.ids)) == (MORE_THAN_A_TIME, 0, MAX_NAMED)
    assert (report.matched, report.deleted, report.failures) == (MORE_THAN_A_TIME, MORE_THAN_A_TIME, {})
    assert len(report.ids) == MAX_NAMED
    assert await store.count_objects(name) == 2


async def test_an_object_that_weaviate_refuses_is_named_by_a_backfill_and_stops_nothing(store: WeaviateStore) -> None:
    name, embedder = f"Refused{uuid4().hex}", FakeEmbedder()
    space = Space(embedder.spec.space, embedder.spec.dimension, embedder.spec.model)
    vectors = tuple(NamedVector(each, space, (), (WeightedField(each),)) for each in ("spoilt", "sound"))
    properties = (Property("spoilt", DataType.TEXT), Property("sound", DataType.TEXT))
    await store.create_collection(Collection(name, properties, vectors))
    # Its length is now that of the index, which answers HTTP 500 to any other.
    short = StoredObject(UUID(int=1), {}, {}, {"spoilt": np.ones(3, np.float32)})
    lacking = [StoredObject(UUID(int=2), {"spoilt": "a"}), StoredObject(UUID(int=3), {"sound": "b"})]
    assert await store.put_objects(name, [short]) == [None]
    assert await store.put_objects(name, lacking) == [None] * 2
    backfiller = Backfiller(store, EmbedderPool([embedder], check_interval_s=60), Writes(), page_size=1)

    pages = [each async for each in backfiller.run(name, BackfillWishes())]

    assert [(each.seen, each.filled) for each in pages] == [(1, 0), (1, 0), (1, 1)]
    assert [{id_: type(error) for id_, error in each.failures.items()} for each in pages] == [
        {}, {UUID(int=2): StoreRejected}, {}
    ]  # fmt: skip
    await store.delete_collection(name)


async def test_what_is_left_without_any_field_of_the_module_is_refused_and_not_stored(store: WeaviateStore) -> None:
    name, embedder = f"Native{uuid4().hex}", FakeEmbedder()
    space = Space(embedder.spec.space, embedder.spec.dimension, embedder.spec.model)
    native = NamedVector("a", space, (), (WeightedField("title"),), native=True, base_url="http://127.0.0.1:9")
    properties = (Property("title", DataType.TEXT), Property("n", DataType.INT))
    await store.create_collection(Collection(name, properties, (native,)))
    pool = EmbedderPool([embedder], check_interval_s=60)
    importer = Importer(store, pool, Writes(), max_chunk_objects=10, max_chunk_bytes=10**6)
    secret = DraftObject("objects[1]", str(UUID(int=1)), {"title": "secret"})

    bare, stored = (
        await importer.import_objects(name, [DraftObject("objects[0]", "", {"n": 1.0}), secret], truncate=False)
    ).outcomes
    title, change = MaskPath("update_mask.paths[0]", "properties", "title"), replace(secret, properties={})
    with pytest.raises(InvalidRequest):
        await Updater(store, pool, Writes()).update(name, change, mask=[title], truncate=False)

    assert isinstance(bare.error, InvalidRequest)
    assert stored.error is None
    assert await store.count_objects(name) == 1
    found = await store.get_object(name, UUID(int=1), ReturnFields(["title"]))
    assert found.properties == {"title": "secret"}
    await store.delete_collection(name)
