"""Searches through Vecgate beside the same ones through weaviate-client, on one real Weaviate."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from weaviate.classes.query import BM25Operator, Filter, GroupBy, HybridFusion, MetadataQuery, Sort

from service.settings import WeaviateSettings
from tests.conftest import assert_close
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder, picture
from vecgate.client import all_of, any_of, negate, where
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import filter_pb2
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

COLOURS = ("red", "green", "blue", "yellow")
THINGS = ("car", "boat", "house", "tree", "cat")


class Both:
    """Vecgate and a client of Weaviate's own, over one collection of sixty objects."""

    def __init__(
        self, name: str, search: SearchServiceStub, objects: ObjectServiceStub, direct: Any, embedder: FakeEmbedder
    ) -> None:
        self.name = name
        self.search = search
        self.objects = objects
        self.direct = direct
        self.embedder = embedder

    async def find(self, **fields: Any) -> list[pb.Hit]:
        """Search through Vecgate."""
        request = pb.SearchObjectsRequest(collection=self.name, **fields)
        return list((await self.search.SearchObjects(request)).hits)

    async def page(self, **fields: Any) -> object_pb.ListObjectsResponse:
        """List through Vecgate."""
        return await self.objects.ListObjects(object_pb.ListObjectsRequest(collection=self.name, **fields))

    def vector(self, text: str) -> list[float]:
        """Return the vector that Vecgate gives to a text."""
        return np.asarray(self.embedder.vector(text)).tolist()


@pytest.fixture(scope="module")
def suffix() -> str:
    return uuid4().hex


@pytest.fixture
async def both(weaviate_settings: WeaviateSettings, suffix: str) -> AsyncIterator[Both]:
    embedder = FakeEmbedder()
    async with beside(weaviate_settings, embedder) as (channel, direct):
        name, objects = f"Both{suffix}", ObjectServiceStub(channel)
        if not await direct.collections.exists(name):
            await _fill(name, CollectionServiceStub(channel), objects, weaviate_settings)
        yield Both(name, SearchServiceStub(channel), objects, direct.collections.use(name), embedder)


async def _fill(
    name: str, collections: CollectionServiceStub, objects: ObjectServiceStub, settings: WeaviateSettings
) -> None:
    kinds = {
        "title": "TEXT",
        "tags": "TEXT_ARRAY",
        "year": "INT",
        "price": "NUMBER",
        "sold": "BOOLEAN",
        "taken": "DATE",
    }
    await collections.CreateCollection(
        collection_pb.CreateCollectionRequest(
            collection=collection_pb.Collection(
                name=name,
                properties=[
                    property_pb.Property(name=each, data_type=f"DATA_TYPE_{kind}") for each, kind in kinds.items()
                ],
                vectors=[collection_pb.VectorConfig(name="default", text_fields=[{"name": "title"}])],
            )
        )
    )
    # A place is a type that this version does not create.
    assert settings.api_key is not None
    headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}
    async with httpx.AsyncClient(base_url=settings.http_url, headers=headers) as rest:
        place = {"name": "place", "dataType": ["geoCoordinates"]}
        assert (await rest.post(f"/v1/schema/{name}/properties", json=place)).status_code == 200
    messages = []
    for number in range(60):
        properties = Struct()
        title = f"a {COLOURS[number % 4]} {THINGS[number % 5]} number {number}"
        properties.update({"title": title, "year": 1990 + number, "price": number / 4, "sold": number % 3 == 0})
        properties.update({"taken": f"2024-01-{number % 28 + 1:02d}T00:00:00Z"})
        if number % 7:
            properties.update({"tags": [COLOURS[number % 4], THINGS[number % 5]][: number % 3]})
        messages.append(object_pb.DataObject(id=str(UUID(int=number + 1)), properties=properties))
    response = await objects.ImportObjects(object_pb.ImportObjectsRequest(collection=name, objects=messages))
    assert all(each.HasField("stored") for each in response.results)


SOON = datetime.now(UTC) + timedelta(days=1)
BY = Filter.by_property
FIELD = filter_pb2.ObjectField
FILTERS = {
    "words": (where("title").equal("red car"), BY("title").equal("red car")),
    "other words": (where("title").not_equal("red"), BY("title").not_equal("red")),
    "like": (where("title").like("b*t"), BY("title").like("b*t")),
    "number": (where("price") > 7.25, BY("price").greater_than(7.25)),
    "int": (where("year") <= 2001, BY("year").less_or_equal(2001)),
    "boolean": (where("sold").equal(True), BY("sold").equal(True)),
    "date": (
        where("taken") < datetime(2024, 1, 9, tzinfo=UTC),
        BY("taken").less_than(datetime(2024, 1, 9, tzinfo=UTC)),
    ),
    "any": (where("tags").contains_any(["cat", "red"]), BY("tags").contains_any(["cat", "red"])),
    "all": (where("tags").contains_all(["red", "car"]), BY("tags").contains_all(["red", "car"])),
    "none": (where("tags").contains_none(["cat"]), BY("tags").contains_none(["cat"])),
    "null": (where("tags").is_null(), BY("tags").is_none(True)),
    "length": (where("tags", length=True).equal(2), BY("tags", length=True).equal(2)),
    "id": (
        where(object_field=FIELD.OBJECT_FIELD_ID).contains_any([UUID(int=3), UUID(int=9)]),
        Filter.by_id().contains_any([UUID(int=3), UUID(int=9)]),
    ),
    "creation": (
        where(object_field=FIELD.OBJECT_FIELD_CREATION_TIME) < SOON,
        Filter.by_creation_time().less_than(SOON),
    ),
    "update": (where(object_field=FIELD.OBJECT_FIELD_UPDATE_TIME) > SOON, Filter.by_update_time().greater_than(SOON)),
    "tree": (
        all_of(any_of(where("year") > 2030, where("sold").equal(True)), negate(where("title").equal("cat"))),
        Filter.all_of(
            [
                Filter.any_of([BY("year").greater_than(2030), BY("sold").equal(True)]),
                Filter.not_(BY("title").equal("cat")),
            ]
        ),
    ),
}


@pytest.mark.parametrize("case", FILTERS)
async def test_a_filter_finds_and_lists_what_weaviates_own_client_does(both: Both, case: str) -> None:
    ours, theirs = FILTERS[case]
    found = await both.find(near_text={"concepts": ["a green cat"]}, filters=ours, limit=60)
    listed = await both.page(filters=ours, page_size=60)

    expected = await both.direct.query.near_vector(
        both.vector("a green cat"), filters=theirs, limit=60, return_metadata=MetadataQuery(distance=True)
    )
    expected_list = await both.direct.query.fetch_objects(filters=theirs, limit=60)

    assert [(hit.object.id, hit.distance) for hit in found] == [
        (str(each.uuid), each.metadata.distance) for each in expected.objects
    ]
    assert [each.id for each in listed.objects] == [str(each.uuid) for each in expected_list.objects]
    assert (len(found) == 0) == (case == "update")


async def test_places_are_filtered_by_their_distance(both: Both) -> None:
    zurich, berne = {"latitude": 47.37, "longitude": 8.54}, {"latitude": 46.95, "longitude": 7.45}
    near = str(UUID(int=1))
    await both.direct.data.update(UUID(int=1), {"place": zurich})
    await both.direct.data.update(UUID(int=2), {"place": berne})

    found = await both.page(filters=where("place").within_geo_range(47.4, 8.5, 20_000))

    assert [each.id for each in found.objects] == [near]


QUERIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bm25": ({"bm25": {"query": "red cat 7"}}, {"query": "red cat 7"}),
    "bm25 of a property": (
        {"bm25": {"query": "red cat", "properties": [{"name": "tags", "weight": 3}, {"name": "title"}], "operator": 2}},
        {"query": "red cat", "query_properties": ["tags^3", "title"], "operator": BM25Operator.and_()},
    ),
    "bm25 of two words": (
        {"bm25": {"query": "red cat number", "operator": 1, "minimum_match": 2}},
        {"query": "red cat number", "operator": BM25Operator.or_(minimum_match=2)},
    ),
    "bm25 with a filter": (
        {"bm25": {"query": "boat"}, "filters": where("year") > 2010, "offset": 1},
        {"query": "boat", "filters": BY("year").greater_than(2010), "offset": 1},
    ),
    "hybrid": ({"hybrid": {"bm25": {"query": "a red cat"}}}, {"query": "a red cat"}),
    "hybrid by ranks": (
        {"hybrid": {"bm25": {"query": "a red cat"}, "alpha": 0.3, "fusion_type": 1}},
        {"query": "a red cat", "alpha": 0.3, "fusion_type": HybridFusion.RANKED},
    ),
    "hybrid of words only": (
        {"hybrid": {"bm25": {"query": "a red cat", "properties": [{"name": "tags"}]}, "alpha": 0.0}},
        {"query": "a red cat", "alpha": 0.0, "query_properties": ["tags"]},
    ),
    "hybrid of near vectors": (
        {
            "hybrid": {
                "bm25": {"query": "a red cat", "operator": 2},
                "alpha": 0.6,
                "fusion_type": 2,
                "max_vector_distance": 0.6,
            }
        },
        {
            "query": "a red cat",
            "alpha": 0.6,
            "fusion_type": HybridFusion.RELATIVE_SCORE,
            "max_vector_distance": 0.6,
            "bm25_operator": BM25Operator.and_(),
        },
    ),
    "hybrid without words": ({"hybrid": {"near_text": {"concepts": ["a red cat"]}}}, {"query": None, "alpha": 1}),
}


@pytest.mark.parametrize("case", QUERIES)
async def test_keywords_and_hybrid_score_as_through_weaviates_own_client(both: Both, case: str) -> None:
    ours, theirs = QUERIES[case]
    hits = await both.find(**ours, limit=20)

    arguments = {**theirs, "limit": 20, "return_metadata": MetadataQuery(score=True)}
    if "hybrid" in ours:
        expected = await both.direct.query.hybrid(**arguments, vector=both.vector("a red cat"))
    else:
        expected = await both.direct.query.bm25(**arguments)

    assert [(hit.object.id, hit.score) for hit in hits] == [
        (str(each.uuid), each.metadata.score) for each in expected.objects
    ]
    assert hits


async def test_near_object_measures_as_through_weaviates_own_client(both: Both) -> None:
    hits = await both.find(near_object={"id": str(UUID(int=8))}, limit=20)

    expected = await both.direct.query.near_object(UUID(int=8), limit=20, return_metadata=MetadataQuery(distance=True))

    assert [(hit.object.id, hit.distance) for hit in hits] == [
        (str(each.uuid), each.metadata.distance) for each in expected.objects
    ]
    assert hits[0].object.id == str(UUID(int=8))


async def test_own_vectors_and_pictures_measure_and_score_as_through_weaviates_own_client(both: Both) -> None:
    vector, image = both.vector("a red cat"), picture((255, 0, 0))
    own = {"vector": {"data": np.asarray(vector, "<f4").tobytes()}}
    words: dict[str, Any] = {"bm25": {"query": "red cat"}, "alpha": 0.4}

    near = await both.find(near_vector=own, limit=20)
    by_vector = await both.find(hybrid={**words, "near_vector": own}, limit=20)
    by_image = await both.find(hybrid={**words, "near_image": {"image": {"content": image}}}, limit=20)

    query, distances = both.direct.query, MetadataQuery(distance=True)
    expected = await query.near_vector(vector, limit=20, return_metadata=distances)
    shared = {"query": "red cat", "alpha": 0.4, "limit": 20, "return_metadata": MetadataQuery(score=True)}
    scored = [await query.hybrid(vector=each, **shared) for each in (vector, both.embedder.vector(image).tolist())]
    assert [(hit.object.id, hit.distance) for hit in near] == [
        (str(each.uuid), each.metadata.distance) for each in expected.objects
    ]
    assert [[(hit.object.id, hit.score) for hit in hits] for hits in (by_vector, by_image)] == [
        [(str(each.uuid), each.metadata.score) for each in answer.objects] for answer in scored
    ]
    assert len(near) == len(by_image) == 20


async def test_several_inputs_in_one_measure_as_their_weighted_mean_does(both: Both) -> None:
    stored = (await both.direct.query.fetch_object_by_id(UUID(int=8), include_vector=True)).vector["default"]
    parts = np.asarray([both.vector("a red cat"), stored, both.vector("a boat")])
    mean = np.asarray([1.0, 2.0, 0.5]) @ (parts / np.linalg.norm(parts, axis=1, keepdims=True))
    inputs = [
        {"text": "a red cat"},
        {"near_object": {"id": str(UUID(int=8))}, "weight": 2},
        {"near_vector": {"vector": {"data": parts[2].astype("<f4").tobytes()}}, "weight": 0.5},
    ]

    hits = await both.find(near_inputs={"inputs": inputs}, limit=20)

    expected = await both.direct.query.near_vector(
        (mean / np.linalg.norm(mean)).tolist(), limit=20, return_metadata=MetadataQuery(distance=True)
    )
    assert [hit.object.id for hit in hits] == [str(each.uuid) for each in expected.objects]
    assert_close([hit.distance for hit in hits], [each.metadata.distance for each in expected.objects])


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "distance": ({"distance": 0.7}, {"distance": 0.7}),
    "certainty": ({"certainty": 0.6}, {"certainty": 0.6}),
    "auto_limit": ({"auto_limit": 1}, {"auto_limit": 1}),
}


@pytest.mark.parametrize("case", OPTIONS)
async def test_thresholds_cut_as_through_weaviates_own_client(both: Both, case: str) -> None:
    ours, theirs = OPTIONS[case]
    hits = await both.find(near_text={"concepts": ["a red cat"]}, limit=60, **ours)

    expected = await both.direct.query.near_vector(
        both.vector("a red cat"), limit=60, return_metadata=MetadataQuery(distance=True), **theirs
    )

    assert [(hit.object.id, hit.distance) for hit in hits] == [
        (str(each.uuid), each.metadata.distance) for each in expected.objects
    ]
    assert 0 < len(hits) < 60


async def test_cursor_and_sort_list_as_through_weaviates_own_client(both: Both) -> None:
    first = await both.page(page_size=20)
    after = await both.page(page_size=15, page_token=first.next_page_token)
    ordered = await both.page(sort=[{"property": "sold"}, {"property": "year", "descending": True}], page_size=35)

    fetch = both.direct.query.fetch_objects
    expected_after = await fetch(after=UUID(int=20), limit=15)
    order = Sort.by_property("sold").by_property("year", ascending=False)
    expected_order = await fetch(sort=order, limit=35)

    assert [each.id for each in after.objects] == [str(each.uuid) for each in expected_after.objects]
    assert [each.id for each in after.objects] == [str(UUID(int=number)) for number in range(21, 36)]
    assert [each.id for each in ordered.objects] == [str(each.uuid) for each in expected_order.objects]


@pytest.mark.parametrize("prop", ["sold", "year", "title", "tags", "price", "taken"])
async def test_groups_are_those_of_weaviates_own_client(both: Both, prop: str) -> None:
    wanted = {"property": prop, "number_of_groups": 3, "objects_per_group": 4}
    request = pb.SearchObjectsRequest(
        collection=both.name, near_text={"concepts": ["a red cat"]}, group_by=wanted, limit=50
    )
    response = await both.search.SearchObjects(request)

    expected = await both.direct.query.near_vector(
        both.vector("a red cat"),
        limit=50,
        group_by=GroupBy(prop=prop, number_of_groups=3, objects_per_group=4),
        return_metadata=MetadataQuery(distance=True),
    )

    groups = expected.groups.values()
    assert [(each.name, each.object_count, each.min_distance, each.max_distance) for each in response.groups] == [
        (each.name, each.number_of_objects, each.min_distance, each.max_distance) for each in groups
    ]
    assert [(hit.object.id, hit.distance, hit.group) for hit in response.hits] == [
        (str(one.uuid), one.metadata.distance, each.name) for each in groups for one in each.objects
    ]
    assert response.hits


async def test_words_are_grouped_by_texts_as_through_weaviates_own_client(both: Both) -> None:
    wanted = {"property": "tags", "number_of_groups": 3, "objects_per_group": 2}
    request = pb.SearchObjectsRequest(collection=both.name, bm25={"query": "red cat"}, group_by=wanted, limit=50)
    response = await both.search.SearchObjects(request)

    expected = await both.direct.query.bm25(
        "red cat", limit=50, group_by=GroupBy(prop="tags", number_of_groups=3, objects_per_group=2)
    )

    assert [each.name for each in response.groups] == list(expected.groups)
    assert [hit.object.id for hit in response.hits] == [str(each.uuid) for each in expected.objects]
    assert response.hits
    assert not any(each.HasField("min_distance") for each in response.groups)


async def test_times_and_explanations_are_weaviates(both: Both) -> None:
    hits = await both.find(hybrid={"bm25": {"query": "red cat"}}, return_times=True, return_explain_score=True)

    wanted = MetadataQuery(explain_score=True, creation_time=True, last_update_time=True)
    expected = await both.direct.query.hybrid(
        "red cat", vector=both.vector("red cat"), limit=10, return_metadata=wanted
    )

    assert [
        (hit.explain_score, hit.creation_time.ToDatetime(UTC), hit.update_time.ToDatetime(UTC)) for hit in hits
    ] == [
        (each.metadata.explain_score, each.metadata.creation_time, each.metadata.last_update_time)
        for each in expected.objects
    ]
    assert all(hit.explain_score for hit in hits)


async def test_a_collection_without_a_reranker_says_so(both: Both) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"rerank: collection .* has no reranker module in Weaviate"):
        await both.find(near_text={"concepts": ["x"]}, rerank={"property": "title", "query": "x"})
