"""UpdateCollection over the wire: what can be changed, and what is refused by its name before anything is."""

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from grpc import StatusCode

from service.domain import Distance
from tests.fakes.embedder import FakeEmbedder
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import vector_index_pb2 as index_pb

VECTOR = "collection.vectors[0]"


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server with two embedders of different spaces."""
    running = await start_wire(
        FakeEmbedder(name="old", model="old/model", space="old"),
        FakeEmbedder(name="new", model="new/model", space="new", dimension=4),
    )
    yield running
    await stop_wire(running)


async def create(wire: Wire, **fields: Any) -> pb.Collection:
    base: dict[str, Any] = {
        "name": "Pictures",
        "description": "old",
        "properties": [
            {"name": "image", "data_type": property_pb.DATA_TYPE_BLOB},
            {
                "name": "title",
                "data_type": property_pb.DATA_TYPE_TEXT,
                "tokenization": property_pb.TOKENIZATION_FIELD,
                "index_filterable": True,
            },
            {
                "name": "maker",
                "data_type": property_pb.DATA_TYPE_OBJECT,
                "nested_properties": [{"name": "name", "data_type": property_pb.DATA_TYPE_TEXT}],
            },
        ],
        "vectors": [
            {
                "name": "default",
                "text_fields": [{"name": "title"}],
                "index": {"hnsw": {"ef": 10, "max_connections": 16}},
            }
        ],
        "sharding": {"desired_count": 1},
        "inverted_index": {"bm25": {"b": 0.5, "k1": 1.5}, "index_timestamps": True},
    }
    request = pb.CreateCollectionRequest(collection=pb.Collection(**{**base, **fields}))
    return (await wire.collections.CreateCollection(request)).collection


def request(*mask: str, **fields: Any) -> pb.UpdateCollectionRequest:
    message = pb.UpdateCollectionRequest(collection=pb.Collection(**{"name": "Pictures", **fields}))
    message.update_mask.paths.extend(mask)
    return message


async def update(wire: Wire, *mask: str, **fields: Any) -> pb.Collection:
    updated = (await wire.collections.UpdateCollection(request(*mask, **fields))).collection
    got = (await wire.collections.GetCollection(pb.GetCollectionRequest(name="Pictures"))).collection
    got.ClearField("object_count")
    got.ClearField("etag")
    assert got == updated
    return updated


async def test_what_is_left_out_stays_as_it_is(wire: Wire) -> None:
    created = await create(wire)

    assert await update(wire) == created
    assert await update(wire, vectors=[{"name": "default"}], properties=[{"name": "title"}]) == created


async def test_what_is_there_already_may_be_sent_again(wire: Wire) -> None:
    created = await create(wire)

    created.ClearField("object_count")
    again = (await wire.collections.UpdateCollection(pb.UpdateCollectionRequest(collection=created))).collection

    assert again == created


async def test_with_an_etag_only_the_collection_that_was_read_is_changed(wire: Wire) -> None:
    await create(wire)

    async def etag() -> str:
        return (await wire.collections.GetCollection(pb.GetCollectionRequest(name="Pictures"))).collection.etag

    before = await etag()
    same = await etag()
    first = request(description="first")
    first.etag = before
    await wire.collections.UpdateCollection(first)
    second = request(description="second")
    second.etag = before
    failure = await failure_of(wire.collections.UpdateCollection(second))
    second.etag = await etag()
    await wire.collections.UpdateCollection(second)

    assert same == before != second.etag
    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "COLLECTION_CHANGED")
    assert "collection 'Pictures' has changed since its etag was read" in failure.message
    assert (await wire.store.get_collection("Pictures")).description == "second"


async def test_an_etag_is_another_one_for_every_change_and_the_same_for_other_objects(wire: Wire) -> None:
    await create(wire)
    present = await wire.store.get_collection("Pictures")
    (vector,) = present.vectors
    changed = [
        replace(present, default_vector="other"),
        replace(present, vectors=(replace(vector, space=None),)),
        replace(present, vectors=(replace(vector, index=replace(vector.index, parameters={"ef": 7})),)),
        replace(present, vectors=(replace(vector, distance=Distance.DOT),)),
        replace(present, inverted_index={"bm25": {"b": 0.1}}),
    ]

    assert replace(present, removed_vectors=("old",)).etag == present.etag
    assert len({each.etag for each in (present, *changed)}) == 1 + len(changed)


async def test_descriptions_are_changed_and_a_mask_can_empty_them(wire: Wire) -> None:
    await create(wire)

    updated = await update(wire, description="new", properties=[{"name": "title", "description": "what it shows"}])
    assert (updated.description, updated.properties[1].description) == ("new", "what it shows")
    assert updated.properties[1].tokenization == property_pb.TOKENIZATION_FIELD
    assert (await update(wire, "properties", description="other")).description == "new"
    assert (await update(wire, "description")).description == ""
    assert (await update(wire, "*", description="all")).description == "all"


NUMBERS: dict[str, Callable[[float], object]] = {
    "one": lambda number: number,
    "in a list": lambda number: [1, number],
    "in a group": lambda number: {"inner": number},
}


@pytest.mark.parametrize("place", NUMBERS)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
async def test_a_number_in_a_rerankers_options_that_is_not_finite_is_refused_by_name(
    wire: Wire, number: float, place: str
) -> None:
    await create(wire)
    reranker = {"module": "reranker-nvidia", "options": {"model": "m", "top_k": NUMBERS[place](number)}}

    updating = await failure_of(update(wire, reranker=reranker))
    creating = await failure_of(create(wire, name="Other", reranker=reranker))

    for failure in (updating, creating):
        assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, ['collection.reranker.options["top_k"]'])


async def test_a_reranker_is_exchanged_with_its_options(wire: Wire) -> None:
    created = await create(wire, reranker={"module": "reranker-nvidia", "options": {"model": "m", "baseURL": "u"}})
    assert dict(created.reranker.options) == {"model": "m", "baseURL": "u"}

    kept = await update(wire, description="other")
    exchanged = await update(wire, reranker={"module": "reranker-cohere"})
    masked = await update(wire, "description", reranker={"module": "reranker-nvidia"})

    assert kept.reranker == created.reranker
    assert (exchanged.reranker.module, dict(exchanged.reranker.options)) == ("reranker-cohere", {})
    assert masked.reranker == exchanged.reranker


async def test_how_properties_are_indexed_is_changed(wire: Wire) -> None:
    await create(wire)

    cut = await update(wire, properties=[{"name": "title", "tokenization": property_pb.TOKENIZATION_TRIGRAM}])
    assert cut.properties[1].tokenization == property_pb.TOKENIZATION_TRIGRAM
    off = await update(wire, properties=[{"name": "title", "index_filterable": False, "index_searchable": True}])
    title = off.properties[1]
    assert (title.tokenization, title.index_filterable, title.index_searchable) == (
        property_pb.TOKENIZATION_TRIGRAM,
        False,
        True,
    )


async def test_a_property_and_a_vector_of_another_embedder_are_added_and_used(wire: Wire) -> None:
    await create(wire)

    updated = await update(
        wire,
        properties=[{"name": "text", "data_type": property_pb.DATA_TYPE_TEXT}],
        vectors=[{"name": "better", "embedder": "new", "text_fields": [{"name": "text"}, {"name": "title"}]}],
    )

    assert [each.name for each in updated.properties] == ["image", "title", "maker", "text"]
    better, default = updated.vectors
    assert (better.name, better.space, better.dimension, better.embedder) == ("better", "new", 4, "new")
    assert (default.name, default.space) == ("default", "old")


async def test_parameters_are_merged_into_those_that_are_there(wire: Wire) -> None:
    await create(wire)

    updated = await update(
        wire,
        vectors=[{"name": "default", "index": {"hnsw": {"ef": 20}, "quantizer": {"rq": {"bits": 8}}}}],
        inverted_index={"bm25": {"k1": 2}},
        replication={"factor": 1, "deletion_strategy": pb.DELETION_STRATEGY_DELETE_ON_CONFLICT},
    )

    index = updated.vectors[0].index
    assert (index.hnsw.ef, index.hnsw.max_connections, index.quantizer.rq.bits) == (20, 16, 8)
    assert (updated.inverted_index.bm25.b, updated.inverted_index.bm25.k1) == (0.5, 2)
    assert updated.inverted_index.index_timestamps
    assert updated.replication.deletion_strategy == pb.DELETION_STRATEGY_DELETE_ON_CONFLICT
    rescored = await update(wire, vectors=[{"name": "default", "index": {"quantizer": {"rq": {"rescore_limit": 9}}}}])
    assert (rescored.vectors[0].index.quantizer.rq.bits, rescored.vectors[0].index.quantizer.rq.rescore_limit) == (8, 9)


async def test_the_automatisms_of_tenants_are_changed_one_by_one(wire: Wire) -> None:
    await create(wire, sharding=None, multi_tenancy={"enabled": True, "auto_tenant_creation": True})

    updated = await update(wire, multi_tenancy={"auto_tenant_activation": True})
    assert updated.multi_tenancy == pb.MultiTenancyConfig(
        enabled=True, auto_tenant_creation=True, auto_tenant_activation=True
    )
    updated = await update(wire, multi_tenancy={"enabled": True, "auto_tenant_creation": False})
    assert not updated.multi_tenancy.auto_tenant_creation
    failure = await failure_of(wire.collections.UpdateCollection(request(multi_tenancy={"enabled": False})))
    assert failure.fields == ["collection.multi_tenancy.enabled"]


IMMUTABLE: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"properties": [{"name": "title", "data_type": property_pb.DATA_TYPE_INT}]},
        ["collection.properties[0].data_type"],
    ),
    ({"properties": [{"name": "new"}]}, ["collection.properties[0].data_type"]),
    (
        {"properties": [{"name": "title", "tokenization": property_pb.TOKENIZATION_WORD, "index_filterable": False}]},
        ["collection.properties[0].tokenization"],
    ),
    (
        {"properties": [{"name": "image", "tokenization": property_pb.TOKENIZATION_WORD, "index_searchable": True}]},
        ["collection.properties[0].tokenization", "collection.properties[0].index_searchable"],
    ),
    (
        {"properties": [{"name": "title", "index_range_filters": True}]},
        ["collection.properties[0].index_range_filters"],
    ),
    (
        {
            "properties": [
                {
                    "name": "maker",
                    "nested_properties": [{"name": "name", "data_type": property_pb.DATA_TYPE_INT}, {"name": "age"}],
                }
            ]
        },
        [
            "collection.properties[0].nested_properties[0].data_type",
            "collection.properties[0].nested_properties[1].name",
        ],
    ),
    ({"vectors": [{"name": "default", "embedder": "new"}]}, [f"{VECTOR}.embedder"]),
    ({"vectors": [{"name": "default", "model": "new/model"}]}, [f"{VECTOR}.model"]),
    ({"vectors": [{"name": "default", "image_fields": [{"name": "image"}]}]}, [f"{VECTOR}.image_fields"]),
    ({"vectors": [{"name": "default", "text_fields": [{"name": "title", "weight": 2}]}]}, [f"{VECTOR}.text_fields"]),
    (
        {"vectors": [{"name": "default", "native": True, "base_url": "http://vecgate:8070"}]},
        [f"{VECTOR}.native", f"{VECTOR}.base_url"],
    ),
    ({"vectors": [{"name": "default", "index": {"distance": index_pb.DISTANCE_DOT}}]}, [f"{VECTOR}.index.distance"]),
    ({"vectors": [{"name": "default", "index": {"flat": {}}}]}, [f"{VECTOR}.index.flat"]),
    (
        {"vectors": [{"name": "default", "index": {"hnsw": {"ef": 1, "ef_construction": 9, "max_connections": 9}}}]},
        [f"{VECTOR}.index.hnsw.ef_construction", f"{VECTOR}.index.hnsw.max_connections"],
    ),
    ({"vectors": [{"name": "n", "text_fields": [{"name": "image"}]}]}, [f"{VECTOR}.text_fields[0].name"]),
    ({"vectors": [{"name": "n", "image_fields": [{"name": "no"}]}]}, [f"{VECTOR}.image_fields[0].name"]),
    ({"vectors": [{"name": "n", "native": True}]}, [f"{VECTOR}.base_url", f"{VECTOR}.native"]),
    ({"vectors": [{"name": "n", "base_url": "http://vecgate:8070"}]}, [f"{VECTOR}.base_url"]),
    ({"vectors": [{"name": "n", "embedder": "new", "model": "old/model"}]}, [f"{VECTOR}.model"]),
    ({"multi_tenancy": {"enabled": True}}, ["collection.multi_tenancy.enabled"]),
    ({"multi_tenancy": {"auto_tenant_creation": True}}, ["collection.multi_tenancy.auto_tenant_creation"]),
    ({"sharding": {"desired_count": 2}}, ["collection.sharding.desired_count"]),
    ({"inverted_index": {"index_timestamps": False}}, ["collection.inverted_index.index_timestamps"]),
    (
        {"description": "new", "sharding": {"desired_count": 2}, "vectors": [{"name": "default", "model": "no"}]},
        [f"{VECTOR}.model", "collection.sharding.desired_count"],
    ),
    (
        {
            "vectors": [{"name": "n", "model": "no"}, {"name": "o", "embedder": "nobody"}],
            "sharding": {"desired_count": 2},
            "properties": [{"name": "title", "data_type": property_pb.DATA_TYPE_INT}],
        },
        [
            f"{VECTOR}.model",
            "collection.vectors[1].embedder",
            "collection.properties[0].data_type",
            "collection.sharding.desired_count",
        ],
    ),
]


@pytest.mark.parametrize(("fields", "paths"), IMMUTABLE, ids=[each[1][0] for each in IMMUTABLE])
async def test_what_cannot_be_changed_is_named_and_nothing_is_changed(
    wire: Wire, fields: dict[str, Any], paths: list[str]
) -> None:
    created = await create(wire)

    failure = await failure_of(wire.collections.UpdateCollection(request(**fields)))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert failure.fields == paths
    assert "update_collection" not in wire.store.calls
    assert await update(wire) == created


async def test_a_quantizer_is_never_switched_off_or_exchanged(wire: Wire) -> None:
    index = {"hnsw": {}, "quantizer": {"rq": {"bits": 8}}}
    await create(wire, vectors=[{"name": "default", "index": index}, {"name": "flat", "index": {"flat": {}}}])

    for quantizer, path in (
        ({"none": {}}, "none"),
        ({"bq": {}}, "bq"),
        ({"rq": {"bits": 1}}, "rq.bits"),
    ):
        vectors = [{"name": "default", "index": {"quantizer": quantizer}}]
        failure = await failure_of(wire.collections.UpdateCollection(request(vectors=vectors)))
        assert failure.fields == [f"{VECTOR}.index.quantizer.{path}"]
    vectors = [{"name": "flat", "index": {"quantizer": {"bq": {}}}}]
    failure = await failure_of(wire.collections.UpdateCollection(request(vectors=vectors)))
    assert failure.fields == [f"{VECTOR}.index.quantizer.bq"]


@pytest.mark.parametrize(
    ("wrong", "paths"),
    [
        (pb.UpdateCollectionRequest(), ["collection.name"]),
        (request("name", "vectors.index"), ["update_mask.paths[0]", "update_mask.paths[1]"]),
        (request(properties=[{"name": "t"}, {"name": "t"}]), ["collection.properties[1].name"]),
        (request(properties=[{"name": "t", "data_type": 99}]), ["collection.properties[0].data_type"]),
        (request(vectors=[{"name": "v"}, {"name": "v"}]), ["collection.vectors[1].name"]),
        (request(vectors=[{"name": "v", "index": {"hnsw": {"ef": 0}}}]), [f"{VECTOR}.index.hnsw.ef"]),
        (request(replication={"factor": 0}), ["collection.replication.factor"]),
        (request(reranker={"module": "generative-nvidia"}), ["collection.reranker.module"]),
        (request(inverted_index={"bm25": {"b": 2}}), ["collection.inverted_index.bm25.b"]),
    ],
)
async def test_every_violation_is_listed_with_its_path(
    wire: Wire, wrong: pb.UpdateCollectionRequest, paths: list[str]
) -> None:
    failure = await failure_of(wire.collections.UpdateCollection(wrong))

    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, paths)
    assert wire.store.calls == []


async def test_a_collection_or_an_embedder_that_is_not_there_is_not_found(wire: Wire) -> None:
    assert (await failure_of(wire.collections.UpdateCollection(request()))).reason == "COLLECTION_NOT_FOUND"
    await create(wire)

    failure = await failure_of(
        wire.collections.UpdateCollection(request(vectors=[{"name": "more", "embedder": "nobody"}]))
    )

    assert failure.reason == "EMBEDDER_NOT_FOUND"
    assert "update_collection" not in wire.store.calls
