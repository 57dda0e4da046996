"""Counting over the wire the objects that lack named vectors."""

from itertools import count
from typing import Any
from uuid import UUID

import pytest

from service.core.objects.missing import MissingVectors
from tests.service.conftest import Wire, failure_of
from tests.service.rpc.objects.conftest import COUNT
from vecgate.client import AsyncClient
from vecgate.v1 import object_service_pb2 as pb


async def ask(wire: Wire, **fields: Any) -> pb.CountMissingVectorsResponse:
    return await wire.objects.CountMissingVectors(pb.CountMissingVectorsRequest(collection="Pictures", **fields))


async def test_objects_without_a_vector_are_counted_for_each_vector(pictures: Wire) -> None:
    answer = await ask(pictures)

    assert (answer.seen, dict(answer.missing)) == (COUNT, {"default": 4, "late": 7})
    assert answer.next_page_token == ""


async def test_a_vector_that_no_object_lacks_is_named_with_zero(pictures: Wire) -> None:
    pictures.store._objects["Pictures"].clear()

    assert dict((await ask(pictures)).missing) == {"default": 0, "late": 0}


@pytest.mark.parametrize(("size", "parts"), [(2, [2, 2, 2, 1]), (5, [5, 2]), (7, [7, 0])])
async def test_parts_add_up_to_the_whole(pictures: Wire, size: int, parts: list[int]) -> None:
    async with AsyncClient(f"127.0.0.1:{pictures.server.port}") as client:
        answers = [each async for each in client.count_missing_vectors("Pictures", page_size=size)]

    assert [each.seen for each in answers] == parts
    assert sum(each.missing["default"] for each in answers) == 4


async def test_a_part_ends_when_its_time_is_over_and_has_a_page_at_least(pictures: Wire) -> None:
    now_s = count()
    missing = MissingVectors(pictures.store, page_size=3, now_s=lambda: float(next(now_s)))

    part = await missing.count("Pictures", most=1000)
    rest = await missing.count("Pictures", most=1000, after=part.last)

    assert (part.seen, part.last) == (3, UUID(int=2))
    assert rest.seen == 3


@pytest.mark.parametrize("size", [-1, 10_001])
async def test_a_size_out_of_bounds_is_refused(pictures: Wire, size: int) -> None:
    failure = await failure_of(ask(pictures, page_size=size))

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["page_size"])
    assert "10000" in failure.message


async def test_a_token_of_another_call_is_refused(pictures: Wire) -> None:
    listing = pb.ListObjectsRequest(collection="Pictures", page_size=2)
    token = (await pictures.objects.ListObjects(listing)).next_page_token

    failure = await failure_of(ask(pictures, page_token=token))

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["page_token"])


async def test_an_unknown_collection_is_told(wire: Wire) -> None:
    assert (await failure_of(ask(wire))).reason == "COLLECTION_NOT_FOUND"
