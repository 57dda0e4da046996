import pytest
from grpc import StatusCode

from tests.service.conftest import Wire, failure_of
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import vector_index_pb2 as index_pb

IMAGE = {"name": "image", "data_type": property_pb.DATA_TYPE_BLOB}
FIRST = "collection.vectors[0]"
TITLE = {"name": "title", "data_type": property_pb.DATA_TYPE_TEXT}


INDEX = f"{FIRST}.index"


def indexed(**index: object) -> dict[str, object]:
    return {"vectors": [{"name": "a", "index": index}]}


def quantized(kind: str, **quantizer: object) -> dict[str, object]:
    return indexed(**{kind: {}}, quantizer=quantizer)


WRONG_INDEXES: list[tuple[dict[str, object], list[str]]] = [
    (indexed(hnsw={"ef_construction": 3, "max_connections": 2048}),
     [f"{INDEX}.hnsw.ef_construction", f"{INDEX}.hnsw.max_connections"]),
    (indexed(hnsw={"ef": 0}), [f"{INDEX}.hnsw.ef"]),
    (indexed(hnsw={"ef": -2}), [f"{INDEX}.hnsw.ef"]),
    (indexed(hnsw={"dynamic_ef_min": 0, "dynamic_ef_max": 0, "dynamic_ef_factor": 0}),
     [f"{INDEX}.hnsw.dynamic_ef_{each}" for each in ("min", "max", "factor")]),
    (indexed(hnsw={"flat_search_cutoff": -1, "vector_cache_max_objects": -1, "cleanup_interval_seconds": -1}),
     [f"{INDEX}.hnsw.vector_cache_max_objects", f"{INDEX}.hnsw.flat_search_cutoff",
      f"{INDEX}.hnsw.cleanup_interval_seconds"]),
    (indexed(hnsw={"filter_strategy": 9}), [f"{INDEX}.hnsw.filter_strategy"]),
    (indexed(flat={"vector_cache_max_objects": -1}), [f"{INDEX}.flat.vector_cache_max_objects"]),
    (indexed(dynamic={"threshold": 0, "hnsw": {"ef": 0}}), [f"{INDEX}.dynamic.threshold", f"{INDEX}.dynamic.hnsw.ef"]),
    (indexed(dynamic={"flat_quantizer": {"pq": {}}}), [f"{INDEX}.dynamic.flat_quantizer.pq"]),
    (indexed(hfresh={"max_posting_size_kb": 7, "replicas": 11, "search_probe": 0}),
     [f"{INDEX}.hfresh.{each}" for each in ("max_posting_size_kb", "replicas", "search_probe")]),
    (indexed(hfresh={}, distance=index_pb.DISTANCE_DOT), [f"{INDEX}.distance"]),
    (indexed(quantizer={}), [f"{INDEX}.quantizer"]),
    *[(quantized("hfresh", **{kind: {}}), [f"{INDEX}.quantizer.{kind}"]) for kind in ("bq", "pq", "sq", "none")],
    *[(quantized("flat", **{kind: {}}), [f"{INDEX}.quantizer.{kind}"]) for kind in ("pq", "sq")],
    (quantized("hnsw", rq={"bits": 2}), [f"{INDEX}.quantizer.rq.bits"]),
    (quantized("flat", rq={"bits": 4}), [f"{INDEX}.quantizer.rq.bits"]),
    (quantized("hfresh", rq={"bits": 8}), [f"{INDEX}.quantizer.rq.bits"]),
    (quantized("hnsw", rq={"cache": True, "rescore_limit": -2}),
     [f"{INDEX}.quantizer.rq.rescore_limit", f"{INDEX}.quantizer.rq.cache"]),
    (quantized("hnsw", bq={"cache": False, "rescore_limit": 1}),
     [f"{INDEX}.quantizer.bq.cache", f"{INDEX}.quantizer.bq.rescore_limit"]),
    (quantized("hnsw", pq={"segments": -1, "centroids": 257, "training_limit": 0,
                           "encoder": {"type": 9, "distribution": 9}}),
     [f"{INDEX}.quantizer.pq.{each}"
      for each in ("segments", "centroids", "training_limit", "encoder.type", "encoder.distribution")]),
    (quantized("hnsw", sq={"training_limit": 0}), [f"{INDEX}.quantizer.sq.training_limit"]),
    ({"vectors": [{"name": "a", "native": True}]}, [f"{FIRST}.base_url", f"{FIRST}.native"]),
    ({"vectors": [{"name": "a", "base_url": "http://v:1"}]}, [f"{FIRST}.base_url"]),
    *[({"vectors": [{"name": "a", "native": True, "base_url": url, "image_fields": [{"name": "image"}]}]},
       [f"{FIRST}.base_url"]) for url in ("vecgate:8070", "ftp://v", "http://v/v1", "http://v/v1/", "http://v?x=1")],
    ({"vectors": [{"name": "a", "model": "other/model"}]}, [f"{FIRST}.model"]),
]  # fmt: skip


def declared(**fields: object) -> dict[str, object]:
    return {"properties": [{"name": "p", **fields}]}


PROPERTY = "collection.properties[0]"
DEEP: dict[str, object] = {"name": "d0", "data_type": property_pb.DATA_TYPE_TEXT}
for level in range(11):
    DEEP = {"name": f"d{level}", "data_type": property_pb.DATA_TYPE_OBJECT, "nested_properties": [DEEP]}
NESTED = f"{PROPERTY}.nested_properties"

WRONG_PROPERTIES: list[tuple[dict[str, object], list[str]]] = [
    (declared(data_type=property_pb.DATA_TYPE_INT, tokenization=property_pb.TOKENIZATION_WORD, index_searchable=True),
     [f"{PROPERTY}.tokenization", f"{PROPERTY}.index_searchable"]),
    (declared(data_type=property_pb.DATA_TYPE_TEXT, tokenization=99), [f"{PROPERTY}.tokenization"]),
    *[(declared(data_type=kind, index_range_filters=True), [f"{PROPERTY}.index_range_filters"])
      for kind in (property_pb.DATA_TYPE_TEXT, property_pb.DATA_TYPE_INT_ARRAY, property_pb.DATA_TYPE_BOOLEAN)],
    (declared(data_type=property_pb.DATA_TYPE_OBJECT), [NESTED]),
    (declared(data_type=property_pb.DATA_TYPE_TEXT, nested_properties=[{"name": "x"}]), [NESTED]),
    (declared(data_type="DATA_TYPE_OBJECT", nested_properties=[{"name": "x y"}, {"name": "b", "data_type": 13}]),
     [f"{NESTED}[0].name", f"{NESTED}[0].data_type", f"{NESTED}[1].data_type"]),
    (declared(data_type=property_pb.DATA_TYPE_OBJECT_ARRAY, nested_properties=[TITLE, TITLE]), [f"{NESTED}[1].name"]),
    ({"properties": [DEEP]}, [PROPERTY + ".nested_properties[0]" * 10 + ".nested_properties"]),
]  # fmt: skip

WRONG_SETTINGS: list[tuple[dict[str, object], list[str]]] = [
    ({"replication": {"factor": 0, "deletion_strategy": 9}},
     ["collection.replication.factor", "collection.replication.deletion_strategy"]),
    ({"sharding": {"desired_count": 0, "virtual_per_physical": 0}},
     ["collection.sharding.desired_count", "collection.sharding.virtual_per_physical"]),
    ({"sharding": {"desired_count": 1}, "multi_tenancy": {"enabled": True}}, ["collection.sharding"]),
    ({"inverted_index": {"bm25": {"b": float("nan"), "k1": -1}, "cleanup_interval_seconds": -1}},
     [f"collection.inverted_index.{each}" for each in ("bm25.b", "bm25.k1", "cleanup_interval_seconds")]),
    ({"inverted_index": {"stopwords": {"preset": 9}}}, ["collection.inverted_index.stopwords.preset"]),
]  # fmt: skip


def create(**fields: object) -> pb.CreateCollectionRequest:
    base = {"name": "Pictures", "properties": [IMAGE, TITLE], "vectors": [{"name": "default"}]}
    return pb.CreateCollectionRequest(collection=pb.Collection(**{**base, **fields}))


async def test_a_created_collection_is_bound_to_the_embedders_space(wire: Wire) -> None:
    vector = {"name": "default", "image_fields": [{"name": "image", "weight": 0.5}], "text_fields": [{"name": "title"}]}

    response = await wire.collections.CreateCollection(create(description="art", vectors=[vector]))

    (config,) = response.collection.vectors
    assert (config.space, config.dimension, config.model, config.embedder) == ("fake", 8, "fake/model", "fake")
    assert config.index.distance == index_pb.DISTANCE_COSINE
    assert (config.image_fields[0].weight, config.text_fields[0].weight) == (0.5, 1.0)
    got = (await wire.collections.GetCollection(pb.GetCollectionRequest(name="Pictures"))).collection
    assert got.object_count == 0
    got.ClearField("object_count")
    got.ClearField("etag")
    assert got == response.collection


PERSON = [
    {"name": "name", "data_type": "DATA_TYPE_TEXT", "description": "of a person"},
    {
        "name": "home",
        "data_type": "DATA_TYPE_OBJECT",
        "nested_properties": [{"name": "city", "data_type": "DATA_TYPE_TEXT"}],
    },
]


async def test_everything_that_is_said_of_a_collection_comes_back(wire: Wire) -> None:
    request = create(
        properties=[
            IMAGE,
            {"name": "title", "data_type": "DATA_TYPE_TEXT", "tokenization": "TOKENIZATION_KAGOME_JA"},
            {"name": "year", "data_type": "DATA_TYPE_INT", "index_range_filters": True, "index_filterable": False},
            {"name": "makers", "data_type": "DATA_TYPE_OBJECT_ARRAY", "nested_properties": PERSON},
        ],
        vectors=[
            {
                "name": "a",
                "model": "fake/model",
                "index": {
                    "hnsw": {
                        "ef": -1,
                        "filter_strategy": "FILTER_STRATEGY_ACORN",
                        "vector_cache_max_objects": 10**12,
                    },
                    "distance": "DISTANCE_MANHATTAN",
                    "quantizer": {
                        "pq": {"segments": 8, "encoder": {"type": "PRODUCT_ENCODER_TYPE_TILE", "distribution": 1}}
                    },
                },
            },
            {"name": "b", "index": {"flat": {}, "quantizer": {"rq": {"bits": 1, "cache": True}}}},
            {"name": "c", "index": {"hfresh": {"max_posting_size_kb": 8}, "distance": "DISTANCE_L2_SQUARED"}},
            {
                "name": "d",
                "index": {
                    "dynamic": {"threshold": 5, "hnsw": {"ef": 7}, "flat": {}, "flat_quantizer": {"bq": {}}},
                    "quantizer": {"sq": {"rescore_limit": 0}},
                },
            },
        ],
        replication={"factor": 3, "deletion_strategy": pb.DELETION_STRATEGY_TIME_BASED_RESOLUTION},
        sharding={"desired_count": 2},
        inverted_index={
            "bm25": {"b": 0.0},
            "stopwords": {"preset": "STOPWORDS_PRESET_NONE", "additions": ["der", "die"]},
            "index_timestamps": False,
        },
    )

    created = (await wire.collections.CreateCollection(request)).collection

    wanted = request.collection
    for made, asked in zip(created.vectors, wanted.vectors, strict=True):
        asked.index.distance = asked.index.distance or index_pb.DISTANCE_COSINE
        if not asked.index.HasField("quantizer"):
            made.index.ClearField("quantizer")
        assert made.index == asked.index
    assert list(created.properties) == list(wanted.properties)
    assert created.replication == wanted.replication
    assert created.sharding == wanted.sharding
    assert created.inverted_index == wanted.inverted_index


async def test_collections_are_listed_in_pages_by_name_and_deleted(wire: Wire) -> None:
    for name in ("C", "A", "B"):
        await wire.collections.CreateCollection(create(name=name))

    first = await wire.collections.ListCollections(pb.ListCollectionsRequest(page_size=2))
    second = await wire.collections.ListCollections(
        pb.ListCollectionsRequest(page_size=2, page_token=first.next_page_token)
    )
    await wire.collections.DeleteCollection(pb.DeleteCollectionRequest(name="B"))
    rest = await wire.collections.ListCollections(pb.ListCollectionsRequest())

    assert [each.name for each in first.collections] == ["A", "B"]
    assert [each.name for each in second.collections] == ["C"]
    assert second.next_page_token == ""
    assert [each.name for each in rest.collections] == ["A", "C"]


@pytest.mark.parametrize("method", ["GetCollection", "DeleteCollection"])
async def test_a_collection_that_is_not_there_is_not_found(wire: Wire, method: str) -> None:
    request = {"GetCollection": pb.GetCollectionRequest, "DeleteCollection": pb.DeleteCollectionRequest}[method]

    failure = await failure_of(getattr(wire.collections, method)(request(name="Nothing")))

    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND")
    assert failure.metadata == {"name": "Nothing"}


async def test_a_second_collection_of_a_name_is_refused(wire: Wire) -> None:
    await wire.collections.CreateCollection(create())

    failure = await failure_of(wire.collections.CreateCollection(create()))

    assert (failure.code, failure.reason) == (StatusCode.ALREADY_EXISTS, "COLLECTION_ALREADY_EXISTS")


async def test_an_unknown_embedder_is_refused_and_nothing_is_created(wire: Wire) -> None:
    vectors = [{"name": "default", "embedder": "other"}]

    failure = await failure_of(wire.collections.CreateCollection(create(vectors=vectors)))

    assert failure.reason == "EMBEDDER_NOT_FOUND"
    assert await wire.store.list_collections() == []


async def test_all_that_is_wrong_with_the_embedders_is_named_in_one(wire: Wire) -> None:
    vectors = [{"name": "a", "embedder": "x"}, {"name": "b", "model": "m"}, {"name": "c", "embedder": "y"}]

    failure = await failure_of(wire.collections.CreateCollection(create(vectors=vectors, default_vector="d")))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert failure.fields == [
        "collection.vectors[0].embedder",
        "collection.vectors[1].model",
        "collection.vectors[2].embedder",
        "collection.default_vector",
    ]


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"name": "pictures"}, ["collection.name"]),
        ({"name": "P" * 256}, ["collection.name"]),
        ({"vectors": []}, ["collection.vectors"]),
        ({"properties": [{"name": "id", "data_type": property_pb.DATA_TYPE_TEXT}]}, ["collection.properties[0].name"]),
        ({"properties": [{"name": "Title", "data_type": "DATA_TYPE_TEXT"}]}, ["collection.properties[0].name"]),
        ({"properties": [{"name": "title"}]}, ["collection.properties[0].data_type"]),
        ({"properties": [{"name": "title", "data_type": 99}]}, ["collection.properties[0].data_type"]),
        ({"properties": [TITLE, TITLE]}, ["collection.properties[1].name"]),
        ({"vectors": [{"name": "a"}, {"name": "a"}]}, ["collection.vectors[1].name"]),
        ({"vectors": [{"name": "no dots."}]}, ["collection.vectors[0].name"]),
        ({"vectors": [{"name": "a", "index": {"distance": 99}}]}, [f"{FIRST}.index.distance"]),
        ({"vectors": [{"name": "a", "image_fields": [{"name": "year"}]}]}, [f"{FIRST}.image_fields[0].name"]),
        ({"vectors": [{"name": "a", "text_fields": [{"name": "image"}]}]}, [f"{FIRST}.text_fields[0].name"]),
        ({"vectors": [{"name": "a", "text_fields": [{"name": "other"}]}]}, [f"{FIRST}.text_fields[0].name"]),
        (
            {"vectors": [{"name": "a", "text_fields": [{"name": "title", "weight": float("nan")}]}]},
            ["collection.vectors[0].text_fields[0].weight"],
        ),
        (
            {"vectors": [{"name": "a", "text_fields": [{"name": "title", "weight": 0}, {"name": "title"}]}]},
            ["collection.vectors[0].text_fields[0].weight", "collection.vectors[0].text_fields[1].name"],
        ),
        ({"name": "", "vectors": []}, ["collection.name", "collection.vectors"]),
        *WRONG_INDEXES,
        *WRONG_PROPERTIES,
        *WRONG_SETTINGS,
    ],
)  # fmt: skip
async def test_every_violation_of_a_schema_is_listed_with_its_path(
    wire: Wire, fields: dict[str, object], paths: list[str]
) -> None:
    failure = await failure_of(wire.collections.CreateCollection(create(**fields)))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert failure.fields == paths


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (pb.ListCollectionsRequest(page_size=-1), "page_size"),
        (pb.ListCollectionsRequest(page_size=1001), "page_size"),
        (pb.ListCollectionsRequest(page_token="!"), "page_token"),
        (pb.ListCollectionsRequest(page_token="bm90IGEgbmFtZQ=="), "page_token"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(wire: Wire, request_: pb.ListCollectionsRequest, path: str) -> None:
    failure = await failure_of(wire.collections.ListCollections(request_))

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", [path])
