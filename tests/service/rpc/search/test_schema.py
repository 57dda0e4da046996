"""Searches that the collection's schema does not allow: its indexes, its types, and what its references lead to."""

from typing import Any

import pytest
from grpc import StatusCode

from service.domain import Collection, DataType, NamedVector, Property, Space
from tests.service.conftest import Wire, failure_of
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as pb

VECTORS = (NamedVector("default", Space("fake", 8, "fake/model")),)
OFF = {"indexFilterable": False, "indexSearchable": False}
WITHOUT = {"indexNullState": False, "indexPropertyLength": False, "indexTimestamps": False}
AUTHORS = Collection("Author", (Property("name", DataType.TEXT), Property("age", DataType.INT)), VECTORS)
BOOKS = Collection(
    "Book",
    (
        Property("title", DataType.TEXT),
        Property("isbn", DataType.UUID),
        Property("tags", DataType.TEXT_ARRAY),
        Property("pages", DataType.INT),
        Property("sizes", DataType.INT_ARRAY),
        Property("sold", DataType.BOOLEAN),
        Property("taken", DataType.DATE),
        Property("place", DataType.GEO_COORDINATES),
        Property("maker", DataType.OBJECT, nested=(Property("name", DataType.TEXT),)),
        Property("hidden", DataType.TEXT, indexing=OFF),
        Property("ranged", DataType.INT, indexing={"indexFilterable": False, "indexRangeFilters": True}),
        Property("worded", DataType.TEXT, indexing={"indexFilterable": False, "indexSearchable": True}),
        Property("by", None, references=("Author",)),
        Property("of", None, references=("Author", "Book")),
        Property("lost", None, references=("Nowhere",)),
    ),
    VECTORS,
)
BARE = Collection("Bare", (Property("title", DataType.TEXT, indexing=OFF | {"indexFilterable": True}),), VECTORS,
                  inverted_index=WITHOUT)  # fmt: skip
NEAR = {"near_text": {"concepts": ["x"]}}
GROUPS = {"number_of_groups": 1, "objects_per_group": 1}
INT, TEXT = {"integer": 1}, {"text": "x"}


def where(target: dict[str, Any], operator: str, value: dict[str, Any], *references: str) -> dict[str, Any]:
    """Return the field `filters` with one condition."""
    operator = f"FILTER_OPERATOR_{operator}"
    return {"filters": {"condition": {**target, "operator": operator, "value": value, "references": references}}}


def value_of(name: str) -> dict[str, str]:
    return {"property": name}


def length_of(name: str) -> dict[str, str]:
    return {"property_length": name}


async def ask(library: Wire, name: str, fields: dict[str, Any]) -> object:
    """Search a collection near a text, or by the query or in the order that the fields ask for."""
    if "sort" in fields:
        return await library.objects.ListObjects(object_pb.ListObjectsRequest(collection=name, **fields))
    query = {} if fields.keys() & {"bm25", "hybrid"} else NEAR
    return await library.search.SearchObjects(pb.SearchObjectsRequest(collection=name, **{**query, **fields}))


@pytest.fixture
async def library(wire: Wire) -> Wire:
    for each in (AUTHORS, BOOKS, BARE):
        await wire.store.create_collection(each)
    return wire


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("Book", {"sort": [{"property": "isbn"}]}, "sort[0].property"),
    ("Book", {"sort": [{"property": "maker"}]}, "sort[0].property"),
    ("Book", {"group_by": {"property": "maker", **GROUPS}, **NEAR}, "group_by.property"),
    *(
        ("Book", where(length_of(name), "EQUAL", INT), "filters.condition.property_length")
        for name in ("pages", "sold", "taken", "place", "maker", "isbn", "by")
    ),
    ("Book", where(length_of("title"), "GREATER", {"integer": -1}), "filters.condition.value"),
    ("Book", where(value_of("maker"), "IS_NULL", {"boolean": True}), "filters.condition.property"),
    ("Book", where(value_of("hidden"), "EQUAL", TEXT), "filters.condition.property"),
    ("Book", where(value_of("hidden"), "IS_NULL", {"boolean": True}), "filters.condition.property"),
    ("Book", {"bm25": {"query": "x", "properties": [{"name": "hidden"}]}}, "bm25.properties[0].name"),
    ("Bare", {"bm25": {"query": "x"}}, "bm25"),
    ("Bare", {"hybrid": {"bm25": {"query": "x"}}}, "hybrid.bm25"),
    ("Bare", where(value_of("title"), "IS_NULL", {"boolean": True}), "filters.condition.operator"),
    ("Bare", where(length_of("title"), "EQUAL", INT), "filters.condition.property_length"),
    (
        "Bare",
        where({"object_field": "OBJECT_FIELD_CREATION_TIME"}, "LESS", {"text": "2026-01-01T00:00:00Z"}),
        "filters.condition.object_field",
    ),
    ("Book", where(value_of("by"), "EQUAL", TEXT), "filters.condition.value"),
    ("Book", where(value_of("age"), "EQUAL", TEXT, "by"), "filters.condition.value"),
    ("Book", where(value_of("nope"), "EQUAL", TEXT, "by"), "filters.condition.property"),
    ("Book", where(value_of("name"), "EQUAL", TEXT, "by", "nope"), "filters.condition.references[1]"),
    ("Book", where(value_of("name"), "EQUAL", TEXT, "by", "age"), "filters.condition.references[1]"),
]


@pytest.mark.parametrize(("name", "fields", "path"), REFUSED)
async def test_what_the_schema_does_not_allow_is_refused_with_its_path(
    library: Wire, name: str, fields: dict[str, Any], path: str
) -> None:
    failure = await failure_of(ask(library, name, fields))

    assert failure.code is StatusCode.INVALID_ARGUMENT
    assert failure.fields == [path]
    assert "search" not in library.store.calls


@pytest.mark.parametrize(
    "fields",
    [
        where(value_of("ranged"), "LESS", INT),
        where(value_of("worded"), "LIKE", TEXT),
        where(length_of("tags"), "GREATER", INT),
        where(length_of("sizes"), "EQUAL", {"integer": 0}),
        {"sort": [{"property": "place"}]},
        {"bm25": {"query": "x", "properties": [{"name": "worded"}, {"name": "title", "weight": 2}]}},
        {"hybrid": {"bm25": {"query": "x"}, "alpha": 1}},
    ],
)
async def test_any_index_that_is_there_will_do(library: Wire, fields: dict[str, Any]) -> None:
    await ask(library, "Book", fields)


@pytest.mark.parametrize("reference", ["of", "lost"])
async def test_what_leads_to_no_single_collection_is_left_to_weaviate(library: Wire, reference: str) -> None:
    fields = where(value_of("whatever"), "EQUAL", TEXT, reference)
    await library.objects.ImportObjects(
        object_pb.ImportObjectsRequest(collection="Book", objects=[object_pb.DataObject()])
    )

    failure = await failure_of(ask(library, "Book", fields))

    assert failure.reason == "STORE_REJECTED"


async def test_deletions_by_filter_are_checked_behind_references_too(library: Wire) -> None:
    fields = where(value_of("age"), "EQUAL", TEXT, "by")

    failure = await failure_of(
        library.objects.DeleteObjects(object_pb.DeleteObjectsRequest(collection="Book", **fields))
    )

    assert failure.fields == ["filters.condition.value"]
