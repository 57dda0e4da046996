"""How long objects live: what a collection says of it, and what it cannot."""

from dataclasses import replace
from typing import Any

import pytest
from grpc import StatusCode

from service.domain import Collection
from tests.service.conftest import Wire, failure_of
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

PROPERTIES = [
    {"name": "title", "data_type": property_pb.DATA_TYPE_TEXT},
    {"name": "day", "data_type": property_pb.DATA_TYPE_DATE},
    {"name": "hidden", "data_type": property_pb.DATA_TYPE_DATE, "index_filterable": False},
]
BY_DAY = {"enabled": True, "delete_on": "day"}
BY_UPDATE = {"enabled": True, "delete_on": "_lastUpdateTimeUnix", "default_ttl_seconds": 60}


async def create(wire: Wire, **fields: Any) -> pb.Collection:
    vectors = [{"name": "default", "text_fields": [{"name": "title"}]}]
    wanted = pb.Collection(name="Pictures", properties=PROPERTIES, vectors=vectors, **fields)
    return (await wire.collections.CreateCollection(pb.CreateCollectionRequest(collection=wanted))).collection


async def update(wire: Wire, *mask: str, **fields: Any) -> pb.Collection:
    wanted = pb.Collection(name="Pictures", **fields)
    request = pb.UpdateCollectionRequest(collection=wanted, update_mask={"paths": mask})
    return (await wire.collections.UpdateCollection(request)).collection


async def test_a_time_to_live_is_set_changed_in_part_and_switched_off(wire: Wire) -> None:
    seen = [await create(wire, object_ttl=BY_UPDATE)]
    seen += [await update(wire, object_ttl={"default_ttl_seconds": 90})]
    seen += [await update(wire, object_ttl={"delete_on": "day", "default_ttl_seconds": -1})]
    seen += [await update(wire, "object_ttl", object_ttl={"enabled": False}, description="not in the mask")]
    seen += [await update(wire, "description", object_ttl={"enabled": True}, description="in the mask")]

    ttls = [each.object_ttl for each in seen]
    assert [each.enabled for each in ttls] == [True, True, True, False, False]
    assert [each.default_ttl_seconds for each in ttls] == [60, 90, -1, -1, -1]
    assert [each.delete_on for each in ttls] == ["_lastUpdateTimeUnix"] * 2 + ["day"] * 3
    assert seen[-1].description == "in the mask"


async def test_objects_live_for_ever_if_nothing_is_said(wire: Wire) -> None:
    assert not (await create(wire)).HasField("object_ttl")


WITHOUT_TIMES = {"index_timestamps": False}


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"object_ttl": {"enabled": True}}, "delete_on", "is required; name one, or _creationTimeUnix"),
        ({"object_ttl": {**BY_DAY, "delete_on": "nope"}}, "delete_on", "'nope' is not a property of type date"),
        ({"object_ttl": {**BY_DAY, "delete_on": "title"}}, "delete_on", "'title' is not a property of type date"),
        ({"object_ttl": {**BY_DAY, "delete_on": "hidden"}}, "delete_on", "'hidden' needs index_filterable"),
        ({"object_ttl": {**BY_UPDATE, "default_ttl_seconds": 0}}, "default_ttl_seconds", "over 0"),
        ({"object_ttl": {**BY_UPDATE, "default_ttl_seconds": 2**40}}, "default_ttl_seconds", "3155760000"),
        ({"object_ttl": BY_UPDATE, "inverted_index": WITHOUT_TIMES}, "delete_on", "needs inverted_index.index_timest"),
    ],
    ids=["no property", "unknown", "no date", "not filterable", "no time", "too long", "no times indexed"],
)  # fmt: skip
@pytest.mark.parametrize("call", ["create", "update"])
async def test_a_time_to_live_that_cannot_work_is_refused_by_name(
    wire: Wire, call: str, fields: dict[str, Any], field: str, words: str
) -> None:
    if call == "update":
        await create(wire, **{name: value for name, value in fields.items() if name != "object_ttl"})
        fields = {"object_ttl": fields["object_ttl"]}

    failure = await failure_of(create(wire, **fields) if call == "create" else update(wire, **fields))

    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, [f"collection.object_ttl.{field}"])
    assert words in failure.message


@pytest.mark.parametrize("before", [None, {**BY_DAY, "enabled": False}], ids=["never", "off"])
@pytest.mark.parametrize("field", [{"delete_on": "title"}, {"delete_on": "day"}, {"default_ttl_seconds": 90}])
async def test_a_part_of_a_time_to_live_is_refused_while_objects_do_not_expire(
    wire: Wire, before: dict[str, Any] | None, field: dict[str, Any]
) -> None:
    """It would be answered as done, and no object would ever be deleted."""
    if before is None:
        created = await failure_of(create(wire, object_ttl=field))
        assert created.fields == ["collection.object_ttl.enabled"]
    await create(wire, object_ttl=before)

    failure = await failure_of(update(wire, object_ttl=field))

    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, ["collection.object_ttl.enabled"])
    assert "set it to true" in failure.message


async def test_the_property_that_objects_expire_by_keeps_an_index(wire: Wire) -> None:
    await create(wire, object_ttl=BY_DAY)
    bare = {"name": "day", "index_filterable": False}

    failure = await failure_of(update(wire, properties=[bare]))
    ranged = await update(wire, properties=[{**bare, "index_range_filters": True}])

    assert failure.fields == ["collection.object_ttl.delete_on"]
    assert not ranged.properties[1].index_filterable


async def test_a_weaviate_that_ignores_a_time_to_live_is_noticed(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    make = wire.store.create_collection

    async def forget(collection: Collection) -> None:
        await make(replace(collection, object_ttl={}))

    monkeypatch.setattr(wire.store, "create_collection", forget)

    failure = await failure_of(create(wire, object_ttl=BY_DAY))

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "STORE_REJECTED")
    assert "its objects will not expire" in failure.message
