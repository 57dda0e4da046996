"""Searches that cannot be, and the fields that are named for it."""

from uuid import UUID

import pytest
from grpc import StatusCode

from tests.service.conftest import Wire, failure_of
from tests.service.rpc.search.test_search import CATS, condition, fill, search
from vecgate.v1.input_pb2 import Image
from vecgate.v1.vector_pb2 import Vector

VALUE = "filters.condition.value"


@pytest.mark.parametrize(
    ("fields", "reason", "paths"),
    [
        ({"limit": -1}, "INVALID_INPUT", ["limit"]),
        ({"offset": -1}, "INVALID_INPUT", ["offset"]),
        ({"limit": 60, "offset": 60}, "INVALID_INPUT", ["limit"]),
        ({"offset": 91}, "INVALID_INPUT", ["limit"]),
        ({"near_text": {}}, "INVALID_INPUT", ["near_text.concepts"]),
        ({"near_text": {"concepts": ["a"] * 51}}, "BATCH_TOO_LARGE", ["near_text.concepts"]),
        ({"near_text": {"concepts": ["a", " "]}}, "INVALID_INPUT", ["near_text.concepts[1]"]),
        ({"near_text": {"concepts": ["a b c d e f g h"]}}, "TEXT_TOO_LONG", ["near_text.concepts[0]"]),
        (
            {"near_text": {"concepts": ["a"], "move_to": {"force": 1.1}, "move_away": {"force": -1, "objects": ["x"]}}},
            "INVALID_INPUT",
            [
                "near_text.move_to.force",
                "near_text.move_to",
                "near_text.move_away.force",
                "near_text.move_away.objects[0]",
            ],
        ),
        (
            {"near_text": {"concepts": ["a"], "move_away": {"force": float("nan"), "concepts": ["b"] * 51}}},
            "INVALID_INPUT",
            ["near_text.move_away.force", "near_text.move_away.concepts"],
        ),
        (
            {"near_text": {"concepts": ["a"], "move_to": {"force": 1, "concepts": ["b", " "]}}},
            "INVALID_INPUT",
            ["near_text.move_to.concepts[1]"],
        ),
        ({"near_inputs": {}}, "INVALID_INPUT", ["near_inputs.inputs"]),
        ({"near_inputs": {"inputs": [{"text": "a"}] * 51}}, "BATCH_TOO_LARGE", ["near_inputs.inputs"]),
        (
            {
                "near_inputs": {
                    "inputs": [
                        {"weight": 0},
                        {"text": "a", "weight": float("inf")},
                        {"near_vector": {}},
                        {"near_object": {"id": "x"}},
                    ]
                }
            },
            "INVALID_INPUT",
            [
                "near_inputs.inputs[0]",
                "near_inputs.inputs[0].weight",
                "near_inputs.inputs[1].weight",
                "near_inputs.inputs[2].near_vector.vector",
                "near_inputs.inputs[3].near_object.id",
            ],
        ),
        (
            {"near_inputs": {"inputs": [{"text": " "}, {"image": Image(content=b"words")}]}},
            "INVALID_INPUT",
            ["near_inputs.inputs[0].text", "near_inputs.inputs[1].image.content"],
        ),
        (
            {"near_inputs": {"inputs": [{"near_vector": {"vector": Vector(data=b"1234")}}]}},
            "INVALID_VECTOR",
            ["near_inputs.inputs[0].near_vector.vector.data"],
        ),
        (
            {"hybrid": {"near_inputs": {"inputs": [{"text": "a"}, {"near_object": {"id": "x"}}]}}},
            "INVALID_ID",
            ["hybrid.near_inputs.inputs[1].near_object.id"],
        ),
        ({"near_image": {}}, "INVALID_INPUT", ["near_image.image"]),
        ({"near_image": {"image": Image()}}, "IMAGE_EMPTY", ["near_image.image.content"]),
        ({"near_image": {"image": Image(content=b"words")}}, "IMAGE_UNDECODABLE", ["near_image.image.content"]),
        ({"near_vector": {}}, "INVALID_INPUT", ["near_vector.vector"]),
        ({"near_vector": {"vector": Vector(data=b"1234")}}, "INVALID_VECTOR", ["near_vector.vector.data"]),
        ({"near_vector": {"vector": Vector(data=bytes(32))}}, "INVALID_VECTOR", ["near_vector.vector.data"]),
        ({"target_vectors": ["a"], "bm25": {"query": "x"}}, "INVALID_INPUT", ["target_vectors"]),
        (
            {"target_vectors": ["a", "a", ""], "target_join": 9, "target_weights": [1], **CATS},
            "INVALID_INPUT",
            ["target_vectors[1]", "target_vectors[2]", "target_join", "target_weights"],
        ),
        (
            {"target_vectors": ["a", "b"], "target_join": 4, "target_weights": [float("nan")], **CATS},
            "INVALID_INPUT",
            ["target_weights", "target_weights[0]"],
        ),
        ({"target_vectors": ["default"], "target_join": 1, **CATS}, "INVALID_INPUT", ["target_join"]),
        (
            {"target_vectors": ["a", "default", "b"], **CATS},
            "UNKNOWN_VECTOR",
            ["target_vectors[0]", "target_vectors[2]"],
        ),
        (
            {"near_vector": {"vector": Vector(data=b"1234"), "target_vectors": {"default": Vector(data=b"1234")}}},
            "INVALID_INPUT",
            ["near_vector.vector", "near_vector.target_vectors"],
        ),
        (
            {
                "near_vector": {"target_vectors": {"default": Vector(data=b"1234")}},
                "target_vectors": ["default"],
            },
            "INVALID_VECTOR",
            ['near_vector.target_vectors["default"].data'],
        ),
        (
            {"near_inputs": {"inputs": [{"near_vector": {"target_vectors": {"default": Vector(data=b"1234")}}}]}},
            "INVALID_INPUT",
            ["near_inputs.inputs[0].near_vector.target_vectors", "near_inputs.inputs[0].near_vector.vector"],
        ),
        ({"target_vectors": ["other"], "near_text": {"concepts": ["a"]}}, "UNKNOWN_VECTOR", ["target_vectors[0]"]),
        ({"output": {"properties": ["x"]}}, "UNKNOWN_PROPERTY", ["output.properties[0]"]),
        ({"output": {"images": ["title"]}}, "UNKNOWN_PROPERTY", ["output.images[0]"]),
        ({"output": {"vectors": ["x"]}}, "UNKNOWN_VECTOR", ["output.vectors[0]"]),
        ({"auto_limit": -1, "bm25": {"query": "x"}}, "INVALID_INPUT", ["auto_limit"]),
        ({"certainty": 0.5, "distance": 0.5, **CATS}, "INVALID_INPUT", ["certainty"]),
        ({"certainty": 1.5, **CATS}, "INVALID_INPUT", ["certainty"]),
        ({"certainty": 0.5, "bm25": {"query": "x"}}, "INVALID_INPUT", ["certainty"]),
        ({"distance": float("nan"), **CATS}, "INVALID_INPUT", ["distance"]),
        ({"distance": 1.0, "bm25": {"query": "x"}}, "INVALID_INPUT", ["distance"]),
        (
            {"group_by": {}, "rerank": {}, "return_explain_score": True, "return_times": True},
            "INVALID_INPUT",
            [
                "return_explain_score",
                "group_by.property",
                "group_by.number_of_groups",
                "group_by.objects_per_group",
                "return_times",
                "return_explain_score",
                "rerank.property",
                "rerank.query",
            ],
        ),
        (
            {"group_by": {"property": "title", "number_of_groups": 11, "objects_per_group": 10}, **CATS},
            "INVALID_INPUT",
            ["group_by"],
        ),
        (
            {
                "group_by": {"property": "image", "number_of_groups": 1, "objects_per_group": 1},
                "rerank": {"property": "year", "query": "x"},
                **CATS,
            },
            "INVALID_PROPERTY",
            ["group_by.property", "rerank.property"],
        ),
        (
            {
                "group_by": {"property": "year", "number_of_groups": 1, "objects_per_group": 1},
                "rerank": {"property": "nope", "query": "x"},
                "bm25": {"query": "x"},
            },
            "INVALID_INPUT",
            ["group_by.property", "rerank.property"],
        ),
        ({"rerank": {"property": "title", "query": "x"}, **CATS}, "INVALID_INPUT", ["rerank"]),
        ({"near_object": {}}, "INVALID_INPUT", ["near_object.id"]),
        ({"near_object": {"id": "x"}}, "INVALID_ID", ["near_object.id"]),
        ({"bm25": {}}, "INVALID_INPUT", ["bm25.query"]),
        (
            {"bm25": {"query": "x", "operator": 9, "minimum_match": -1}},
            "INVALID_INPUT",
            ["bm25.operator", "bm25.minimum_match", "bm25.minimum_match"],
        ),
        ({"bm25": {"query": "x", "operator": 2, "minimum_match": 1}}, "INVALID_INPUT", ["bm25.minimum_match"]),
        (
            {"bm25": {"query": "x", "properties": [{"name": "nope", "weight": 2}]}},
            "UNKNOWN_PROPERTY",
            ["bm25.properties[0].name"],
        ),
        (
            {"bm25": {"query": "x", "properties": [{"name": "title"}, {"name": "year"}]}},
            "INVALID_PROPERTY",
            ["bm25.properties[1].name"],
        ),
        (
            {"bm25": {"query": "x", "properties": [{"name": "title", "weight": -1}, {}]}},
            "INVALID_INPUT",
            ["bm25.properties[0].weight", "bm25.properties[1].name"],
        ),
        (
            {"bm25": {"query": "x", "properties": [{"name": "title"}, {"name": "title", "weight": 2}]}},
            "INVALID_INPUT",
            ["bm25.properties[1].name"],
        ),
        ({"hybrid": {}}, "INVALID_INPUT", ["hybrid"]),
        ({"hybrid": {"bm25": {"query": "x"}, "alpha": 1.5}}, "INVALID_INPUT", ["hybrid.alpha"]),
        ({"hybrid": {"bm25": {"query": "x"}, "alpha": float("nan")}}, "INVALID_INPUT", ["hybrid.alpha"]),
        ({"hybrid": {"bm25": {}, "fusion_type": 7}}, "INVALID_INPUT", ["hybrid.bm25.query", "hybrid.fusion_type"]),
        (
            {"hybrid": {"near_text": {}, "max_vector_distance": float("nan"), "alpha": 0.5}},
            "INVALID_INPUT",
            ["hybrid.alpha", "hybrid.near_text.concepts", "hybrid.max_vector_distance"],
        ),
        ({"hybrid": {"near_image": {}}}, "INVALID_INPUT", ["hybrid.near_image.image"]),
        ({"hybrid": {"bm25": {"query": "a b c d e f g h"}}}, "TEXT_TOO_LONG", ["hybrid.bm25.query"]),
        (
            {"hybrid": {"near_vector": {"vector": Vector(data=b"1234")}}},
            "INVALID_VECTOR",
            ["hybrid.near_vector.vector.data"],
        ),
        (
            {"hybrid": {"bm25": {"query": "x", "properties": [{"name": "year"}]}}},
            "INVALID_PROPERTY",
            ["hybrid.bm25.properties[0].name"],
        ),
        ({"target_vectors": ["x"], "near_object": {"id": str(UUID(int=1))}}, "UNKNOWN_VECTOR", ["target_vectors[0]"]),
        ({"filters": {}}, "INVALID_INPUT", ["filters"]),
        ({"filters": {"all_of": {}}}, "INVALID_INPUT", ["filters.all_of.filters"]),
        ({"filters": {"any_of": {"filters": [{}]}}}, "INVALID_INPUT", ["filters.any_of.filters[0]"]),
        ({"filters": {"negation": {}}}, "INVALID_INPUT", ["filters.negation"]),
        (
            {"filters": {"condition": {}}},
            "INVALID_INPUT",
            ["filters.condition", "filters.condition.operator", "filters.condition.value"],
        ),
        (
            {"filters": {"condition": {"object_field": 9, "operator": 99, "value": {"text": "x"}}}},
            "INVALID_INPUT",
            ["filters.condition.object_field", "filters.condition.operator"],
        ),
        (condition("year", "CONTAINS_ANY", integers={}), "INVALID_INPUT", [f"{VALUE}.integers.values"]),
        (condition("year", "EQUAL", geo_range={"distance_m": 1}), "INVALID_INPUT", [VALUE]),
        (condition("year", "WITHIN_GEO_RANGE", integer=1), "INVALID_INPUT", [VALUE]),
        (
            condition("year", "WITHIN_GEO_RANGE", geo_range={"latitude": 91, "longitude": float("nan")}),
            "INVALID_INPUT",
            [f"{VALUE}.geo_range.{name}" for name in ("latitude", "longitude", "distance_m")],
        ),
        (
            condition("year", "WITHIN_GEO_RANGE", geo_range={"latitude": -91, "longitude": 181, "distance_m": 1}),
            "INVALID_INPUT",
            [f"{VALUE}.geo_range.{name}" for name in ("latitude", "longitude")],
        ),
        (
            {"filters": {"negation": {"negation": {"negation": {"negation": {"negation": {}}}}}}},
            "INVALID_INPUT",
            ["filters.negation.negation.negation.negation"],
        ),
        (condition("year", "CONTAINS_ANY", integers={"values": range(20)}), "INVALID_INPUT", ["filters"]),
        (condition("nope", "EQUAL", integer=1), "UNKNOWN_PROPERTY", ["filters.condition.property"]),
        (condition("image", "EQUAL", text="x"), "INVALID_PROPERTY", ["filters.condition.property"]),
        (condition("year", "EQUAL", text="x"), "INVALID_PROPERTY", [VALUE]),
        (condition("year", "EQUAL", number=1), "INVALID_PROPERTY", [VALUE]),
        (condition("year", "EQUAL", integer=2**53 + 1), "INVALID_PROPERTY", [VALUE]),
        (condition("year", "CONTAINS_ANY", integer=1), "INVALID_PROPERTY", [VALUE]),
        (condition("year", "CONTAINS_ANY", texts={"values": ["x"]}), "INVALID_PROPERTY", [VALUE]),
        (condition("year", "LIKE", text="x"), "INVALID_PROPERTY", ["filters.condition.operator"]),
        (condition("taken", "LESS", text="2024"), "INVALID_PROPERTY", [VALUE]),
        (condition("taken", "LESS", text="2024-01-01T00:00:00+99:99"), "INVALID_PROPERTY", [VALUE]),
        (condition("title", "IS_NULL", text="x"), "INVALID_PROPERTY", [VALUE]),
        (
            {"filters": {"condition": {"object_field": 1, "operator": 1, "value": {"text": "x"}}}},
            "INVALID_PROPERTY",
            [VALUE],
        ),
        (
            {
                "filters": {
                    "condition": {"references": ["year"], "property": "x", "operator": 1, "value": {"text": "x"}}
                }
            },
            "INVALID_PROPERTY",
            ["filters.condition.references[0]"],
        ),
        (
            {
                "filters": {
                    "all_of": {
                        "filters": [
                            condition("nope", "EQUAL", integer=1)["filters"],
                            {"negation": condition("gone", "EQUAL", integer=1)["filters"]},
                        ]
                    }
                }
            },
            "UNKNOWN_PROPERTY",
            [
                "filters.all_of.filters[0].condition.property",
                "filters.all_of.filters[1].negation.condition.property",
            ],
        ),
        ({"limit": -1, "near_text": {}}, "INVALID_INPUT", ["limit", "near_text.concepts"]),
        (
            {"output": {"properties": ["x"]}, **condition("z", "EQUAL", integer=1)},
            "UNKNOWN_PROPERTY",
            ["output.properties[0]", "filters.condition.property"],
        ),
        (
            {
                "output": {"vectors": ["x"]},
                "target_vectors": ["y"],
                "near_text": {"concepts": [" "], "move_to": {"force": 1, "concepts": [" "]}},
                **condition("z", "EQUAL", integer=1),
            },
            "INVALID_INPUT",
            [
                "output.vectors[0]",
                "filters.condition.property",
                "target_vectors[0]",
                "near_text.concepts[0]",
                "near_text.move_to.concepts[0]",
            ],
        ),
        (
            {"bm25": {"query": "x", "properties": [{"name": "y"}]}, **condition("z", "EQUAL", integer=1)},
            "UNKNOWN_PROPERTY",
            ["filters.condition.property", "bm25.properties[0].name"],
        ),
        (
            {"hybrid": {"bm25": {"query": "x", "properties": [{"name": "y"}]}}, "target_vectors": ["z"]},
            "INVALID_INPUT",
            ["hybrid.bm25.properties[0].name", "target_vectors[0]"],
        ),
        (
            {
                "near_inputs": {
                    "inputs": [
                        {"near_vector": {"vector": Vector(data=b"1234")}},
                        {"text": " "},
                        {"near_vector": {"vector": Vector(data=bytes(32))}},
                    ]
                }
            },
            "INVALID_INPUT",
            [
                "near_inputs.inputs[0].near_vector.vector.data",
                "near_inputs.inputs[2].near_vector.vector.data",
                "near_inputs.inputs[1].text",
            ],
        ),
        (
            {"near_vector": {"vector": Vector(data=b"1234")}, "rerank": {"property": "year", "query": "x"}},
            "INVALID_INPUT",
            ["rerank.property", "near_vector.vector.data"],
        ),
        ({"certainty": 0.5, "target_vectors": ["a", "b"], **CATS}, "INVALID_INPUT", ["certainty"]),
    ],
)
async def test_a_search_that_cannot_be_is_refused_with_the_paths(
    wire: Wire, fields: dict[str, object], reason: str, paths: list[str]
) -> None:
    await fill(wire, "a cat")
    request = search(**fields)
    if request.WhichOneof("query") is None:
        request.MergeFrom(search(**CATS))

    failure = await failure_of(wire.search.SearchObjects(request))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, reason)
    assert failure.fields == paths


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({}, ["query"]),
        ({"limit": -1}, ["limit", "query"]),
        ({"certainty": 0.5, "target_vectors": ["a", "b"]}, ["certainty", "certainty", "target_vectors", "query"]),
        (condition("year", "EQUAL", integer=1), ["query"]),
        ({"auto_limit": 1}, ["query"]),
        ({"group_by": {"property": "title", "number_of_groups": 1, "objects_per_group": 1}}, ["query"]),
        ({"rerank": {"property": "title", "query": "x"}}, ["query"]),
        ({"target_vectors": ["a", "b"]}, ["target_vectors", "query"]),
        (
            {"auto_limit": 1, "group_by": {}, "rerank": {}, "return_explain_score": True, "return_times": True},
            [
                "return_explain_score",
                "group_by.property",
                "group_by.number_of_groups",
                "group_by.objects_per_group",
                "return_times",
                "return_explain_score",
                "rerank.property",
                "rerank.query",
                "query",
            ],
        ),
    ],
)
async def test_a_search_without_a_query_is_sent_to_list_objects(
    wire: Wire, fields: dict[str, object], paths: list[str]
) -> None:
    await fill(wire, "a cat")

    failure = await failure_of(wire.search.SearchObjects(search(**fields)))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert failure.fields == paths
    assert "ListObjects" in failure.message


async def test_every_item_of_a_list_that_does_not_fit_is_named(wire: Wire) -> None:
    await wire.create_pictures()

    failure = await failure_of(
        wire.search.SearchObjects(search(**CATS, **condition("taken", "CONTAINS_ANY", texts={"values": ["x", "y"]})))
    )

    assert failure.fields == [VALUE]
    assert "item 0 must be an RFC 3339 date" in failure.message
    assert "item 1 must be an RFC 3339 date" in failure.message
