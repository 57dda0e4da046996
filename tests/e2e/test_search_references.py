"""Filters through references, which Weaviate's own clients make: one step and two, beside weaviate-client."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from weaviate.classes.config import Configure, DataType, Property, ReferenceProperty
from weaviate.classes.query import Filter

from service.settings import WeaviateSettings
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub

ANN, BEN = UUID(int=1), UUID(int=2)
BY_REF = Filter.by_ref
EQUAL, GREATER = "FILTER_OPERATOR_EQUAL", "FILTER_OPERATOR_GREATER"


def through(*references: str, operator: str, value: dict[str, Any], **target: Any) -> dict[str, Any]:
    return {"condition": {"references": references, "operator": operator, "value": value, **target}}


CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "a text": ("Book", through("by", operator=EQUAL, value={"text": "ann"}, property="name"),
               BY_REF("by").by_property("name").equal("ann")),
    "an int": ("Book", through("by", operator=GREATER, value={"integer": 40}, property="age"),
               BY_REF("by").by_property("age").greater_than(40)),
    "an id": ("Book", through("by", operator=EQUAL, value={"text": str(ANN)}, object_field="OBJECT_FIELD_ID"),
              BY_REF("by").by_id().equal(ANN)),
    "a text two steps away": ("Shelf", through("holds", "by", operator=EQUAL, value={"text": "ben"}, property="name"),
                              BY_REF("holds").by_ref("by").by_property("name").equal("ben")),
    "an int two steps away": ("Shelf", through("holds", "by", operator=GREATER, value={"integer": 1}, property="age"),
                              BY_REF("holds").by_ref("by").by_property("age").greater_than(1)),
    "an id two steps away": ("Shelf", through("holds", "by", operator=EQUAL, value={"text": str(BEN)},
                                              object_field="OBJECT_FIELD_ID"),
                             BY_REF("holds").by_ref("by").by_id().equal(BEN)),
    "how many": ("Book", {"condition": {"property": "by", "operator": EQUAL, "value": {"integer": 1}}},
                 Filter.by_ref_count("by").equal(1)),
}  # fmt: skip


@pytest.fixture
async def library(weaviate_settings: WeaviateSettings) -> AsyncIterator[tuple[str, ObjectServiceStub, Any]]:
    """Two authors, three books, one of nobody, and two shelves, one of them empty."""
    suffix = uuid4().hex
    async with beside(weaviate_settings, FakeEmbedder()) as (channel, direct):
        fields = [Property(name="name", data_type=DataType.TEXT), Property(name="age", data_type=DataType.INT)]
        vectors, made = [Configure.Vectors.self_provided(name="v")], {}
        for name, reference, target in (("Author", "", ""), ("Book", "by", "Author"), ("Shelf", "holds", "Book")):
            links = [ReferenceProperty(name=reference, target_collection=f"{target}{suffix}")] if reference else []
            made[name] = await direct.collections.create(
                f"{name}{suffix}", properties=fields, references=links, vector_config=vectors
            )
        await made["Author"].data.insert({"name": "ann", "age": 30}, uuid=ANN)
        await made["Author"].data.insert({"name": "ben", "age": 60}, uuid=BEN)
        await made["Book"].data.insert({"name": "x"}, uuid=UUID(int=11), references={"by": ANN})
        await made["Book"].data.insert({"name": "y"}, uuid=UUID(int=12), references={"by": BEN})
        await made["Book"].data.insert({"name": "z"}, uuid=UUID(int=13))
        await made["Shelf"].data.insert({"name": "s"}, uuid=UUID(int=21), references={"holds": UUID(int=12)})
        await made["Shelf"].data.insert({"name": "t"}, uuid=UUID(int=22))
        yield suffix, ObjectServiceStub(channel), direct


async def test_filters_through_references_find_what_weaviates_own_client_does(
    library: tuple[str, ObjectServiceStub, Any],
) -> None:
    suffix, objects, direct = library

    for case, (name, ours, theirs) in CASES.items():
        request = pb.ListObjectsRequest(collection=f"{name}{suffix}", filters=ours, output={"properties": ["name"]})
        found = await objects.ListObjects(request)
        expected = await direct.collections.use(f"{name}{suffix}").query.fetch_objects(filters=theirs)

        assert {each.id for each in found.objects} == {str(each.uuid) for each in expected.objects}, case
        assert found.objects, case
