"""Maps of what a real Weaviate holds."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import numpy as np
import pytest

from service.core.projecting import sample
from service.settings import WeaviateSettings
from tests.conftest import assert_close
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder
from vecgate.client import all_of, where
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import filter_pb2 as filter_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1 import tenant_pb2 as tenant_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

COUNT = 600


class Mapped:
    """A Vecgate over a real Weaviate, with a collection whose objects have counted ids, and bring their own vectors."""

    def __init__(self, name: str, search: SearchServiceStub, objects: ObjectServiceStub, *, tenants: bool) -> None:
        self.name = name
        self.search = search
        self.objects = objects
        self.tenants = tenants

    async def fill(self, numbers: range, tenant: str = "") -> None:
        random = np.random.default_rng(numbers.start)
        messages = []
        for number in numbers:
            vector = (random.standard_normal(8) * 0.8 ** np.arange(8)).astype("<f4")
            message = object_pb.DataObject(
                id=str(UUID(int=number + 1)), properties={"title": f"a thing {number}", "year": number}
            )
            message.vectors["default"].data = vector.tobytes()
            messages.append(message)
        for start in range(0, len(messages), 200):
            response = await self.objects.ImportObjects(
                object_pb.ImportObjectsRequest(
                    collection=self.name, objects=messages[start : start + 200], scope={"tenant": tenant}
                )
            )
            assert all(each.HasField("stored") for each in response.results)

    async def draw(self, **fields: object) -> pb.ProjectObjectsResponse:
        return await self.search.ProjectObjects(pb.ProjectObjectsRequest(collection=self.name, **fields))


@pytest.fixture(params=[False, True], ids=["plain", "tenants"])
async def mapped(weaviate_settings: WeaviateSettings, request: pytest.FixtureRequest) -> AsyncIterator[Mapped]:
    async with beside(weaviate_settings, FakeEmbedder()) as (channel, _):
        name, collections = f"Mapped{uuid4().hex}", CollectionServiceStub(channel)
        await collections.CreateCollection(
            collection_pb.CreateCollectionRequest(
                collection=collection_pb.Collection(
                    name=name,
                    properties=[
                        {"name": "title", "data_type": "DATA_TYPE_TEXT"},
                        {"name": "year", "data_type": "DATA_TYPE_INT"},
                    ],
                    vectors=[{"name": "default", "text_fields": [{"name": "title"}]}],
                    multi_tenancy={"enabled": request.param},
                )
            )
        )
        made = Mapped(name, SearchServiceStub(channel), ObjectServiceStub(channel), tenants=request.param)
        if made.tenants:
            await collections.CreateTenants(
                tenant_pb.CreateTenantsRequest(collection=name, tenants=[{"name": "anna"}, {"name": "ben"}])
            )
            await made.fill(range(COUNT), "anna")
            await made.fill(range(40), "ben")
        else:
            await made.fill(range(COUNT))
        yield made


def years(response: pb.ProjectObjectsResponse) -> list[int]:
    return [int(each.number_value) for each in response.properties[0].values.values]


async def test_a_sample_is_from_all_over_the_ids_and_of_a_filter_from_what_matches(mapped: Mapped) -> None:
    scope = {"tenant": "anna" if mapped.tenants else ""}
    late = all_of(where("year") >= 300, where("year") < 500)

    some = await mapped.draw(sample_size=120, properties=["year"], scope=scope)
    filtered = await mapped.draw(sample_size=50, properties=["year"], filters=late, scope=scope)

    assert (len(some.ids), some.total_count, some.missing_count) == (120, COUNT, 0)
    assert min(np.histogram(years(some), bins=6, range=(0, COUNT))[0]) >= 14
    assert (len(filtered.ids), filtered.total_count) == (50, 200)
    assert min(np.histogram(years(filtered), bins=4, range=(300, 500))[0]) >= 6
    assert sum(np.histogram(years(filtered), bins=1, range=(300, 499))[0]) == 50


@pytest.mark.parametrize(
    "filters",
    [all_of(where("year") >= 300, where("year") < 500), where("year") < 300],
    ids=["a range of two conditions", "one condition"],
)
async def test_what_matches_is_the_same_in_pages_as_at_once(
    mapped: Mapped, monkeypatch: pytest.MonkeyPatch, filters: filter_pb.Filter
) -> None:
    scope = {"tenant": "anna" if mapped.tenants else ""}
    at_once = await mapped.draw(sample_size=500, filters=filters, scope=scope)
    monkeypatch.setattr(sample, "WINDOW_PAGE", 30)
    in_pages = await mapped.draw(sample_size=499, filters=filters, scope=scope)

    assert len(at_once.ids) == at_once.total_count > 100
    assert in_pages.ids == at_once.ids


async def test_a_map_has_all_objects_and_an_input_is_where_the_object_with_its_vector_is(mapped: Mapped) -> None:
    scope = {"tenant": "ben" if mapped.tenants else ""}
    made = object_pb.DataObject(properties={"title": "a red car", "year": 9999})
    await mapped.objects.ImportObjects(
        object_pb.ImportObjectsRequest(collection=mapped.name, objects=[made], scope=scope)
    )

    drawn = await mapped.draw(inputs=[{"text": "a red car"}], properties=["year"], scope=scope)

    assert len(drawn.ids) == (41 if mapped.tenants else COUNT + 1)
    (placed,) = drawn.inputs
    at = years(drawn).index(9999)
    assert placed.nearest[0] == at
    points = np.frombuffer(drawn.coordinates, "<f4").reshape(-1, 2)
    assert_close([placed.x, placed.y], points[at], 1e-4)
    found = await mapped.search.SearchObjects(
        pb.SearchObjectsRequest(collection=mapped.name, near_text={"concepts": ["a red car"]}, limit=10, scope=scope)
    )
    assert [drawn.ids[each] for each in placed.nearest] == [hit.object.id for hit in found.hits]
