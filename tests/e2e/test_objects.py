"""What core does with objects, against a real Weaviate."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from service.core.embed import EmbedderPool
from service.core.objects import MAX_NAMED, Objects
from service.core.searching import ReturnNames
from service.filters import Condition, Operator, Target
from service.settings import WeaviateSettings
from service.store.weaviate import WeaviateStore
from tests.contract.store_suite import make_collection, make_object
from tests.fakes.embedder import FakeEmbedder

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
    objects = Objects(store, EmbedderPool([FakeEmbedder()], check_interval_s=60))
    listed: list[UUID] = []
    while page := await objects.list_page(
        name, after=listed[-1] if listed else None, size=2000, returned=ReturnNames()
    ):
        listed += [each.id for each in page]
    filters = Condition(Target.PROPERTY, Operator.GREATER, 2, "int")

    counted = await objects.delete_fitting(name, filters, dry_run=True)
    report = await objects.delete_fitting(name, filters, dry_run=False)

    assert listed == [UUID(int=n) for n in range(1, MORE_THAN_A_TIME + 3)]
    assert (counted.matched, counted.deleted, len(counted.ids)) == (MORE_THAN_A_TIME, 0, MAX_NAMED)
    assert (report.matched, report.deleted, report.failures) == (MORE_THAN_A_TIME, MORE_THAN_A_TIME, {})
    assert len(report.ids) == MAX_NAMED
    assert await store.count_objects(name) == 2
