"""Filling in vectors over the wire."""

import asyncio
import itertools
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode

from embedders.errors import EmbedderUnavailable
from service.domain import NamedVector, ReturnFields, SearchSpec, StoredObject, WeightedField
from service.errors import StoreRejected, StoreUnavailable
from tests.conftest import assert_close
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire, unpack
from tests.service.rpc.objects.conftest import COUNT, Make
from vecgate.v1 import object_service_pb2 as pb

RED = picture()
FIELDS = ReturnFields(properties=["title", "year"], images=["image"], vectors=["default", "late"])


@pytest.fixture
def make() -> Make:
    return lambda number: StoredObject(
        UUID(int=number), {"title": f"picture {number}", "year": number}, {"image": RED}, {}
    )


async def backfill(wire: Wire, **fields: Any) -> list[pb.BackfillVectorsResponse]:
    request = pb.BackfillVectorsRequest(collection="Pictures", **fields)
    return [each async for each in wire.objects.BackfillVectors(request)]


async def stored(wire: Wire) -> list[StoredObject]:
    hits = await wire.store.search("Pictures", SearchSpec(limit=100, fields=FIELDS))
    return [hit.object for hit in hits]


async def test_every_missing_vector_is_computed_and_nothing_else_changes(pictures: Wire) -> None:
    before = await stored(pictures)

    answers = await backfill(pictures)

    assert [each.seen for each in answers] == [3, 3, 1], "pages of three, as the server under test is set"
    assert sum(each.filled for each in answers) == COUNT
    assert not any(each.failures for each in answers)
    for old, new in zip(before, await stored(pictures), strict=True):
        assert (new.properties, new.images) == (old.properties, old.images)
        assert_close(new.vectors["late"], pictures.embedder.vector(str(old.properties["title"])))
        assert "default" in new.vectors
        if "default" in old.vectors:
            assert_close(new.vectors["default"], old.vectors["default"])
    assert len(pictures.embedder.calls) == 3, "one call for a page"
    assert [each.filled for each in await backfill(pictures)] == [0, 0, 0]
    assert len(pictures.embedder.calls) == 3


async def test_named_vectors_are_filled_alone(pictures: Wire) -> None:
    answers = await backfill(pictures, vectors=["default"])

    assert sum(each.filled for each in answers) == 4
    assert all(set(each.vectors) == {"default"} for each in await stored(pictures))


async def test_it_goes_on_after_any_answer(pictures: Wire) -> None:
    call = pictures.objects.BackfillVectors(pb.BackfillVectorsRequest(collection="Pictures"))
    first = await call.read()
    call.cancel()
    pictures.embedder.calls.clear()

    answers = await backfill(pictures, page_token=first.page_token)

    assert [each.seen for each in answers] == [3, 1]
    assert all(set(each.vectors) == {"default", "late"} for each in await stored(pictures))


async def test_an_object_that_cannot_be_embedded_is_named_and_stops_nothing(pictures: Wire) -> None:
    long = StoredObject(UUID(int=2), {"title": "a b c d e f g h i j"}, {}, {})
    await pictures.store.put_objects("Pictures", [long])

    answers = await backfill(pictures)

    (failed,) = [each for answer in answers for each in answer.failures]
    assert UUID(failed.id).int == 2
    assert unpack(failed.error).reason == "TEXT_TOO_LONG"
    assert sum(each.filled for each in answers) == COUNT - 1
    assert sum(each.filled for each in await backfill(pictures, truncate=True)) == 1


async def test_an_object_without_inputs_is_no_failure(pictures: Wire) -> None:
    await pictures.store.put_objects("Pictures", [StoredObject(UUID(int=2), {"year": 1})])

    answers = await backfill(pictures)

    assert (sum(each.seen for each in answers), sum(each.filled for each in answers)) == (COUNT, COUNT - 1)
    assert not any(each.failures for each in answers)


@pytest.mark.parametrize("verify", [False, True])
async def test_vectors_that_the_index_has_lost_are_entered_again_when_asked(pictures: Wire, *, verify: bool) -> None:
    await backfill(pictures)
    before = await stored(pictures)
    lost = {(UUID(int=3), "default"), (UUID(int=6), "late")}
    pictures.store.lost = set(lost)
    pictures.embedder.calls.clear()

    answers = await backfill(pictures, verify=verify)

    assert sum(each.repaired for each in answers) == (2 if verify else 0)
    assert pictures.store.lost == (set() if verify else lost)
    assert pictures.embedder.calls == []
    assert [each.vectors["default"].tolist() for each in await stored(pictures)] == [
        each.vectors["default"].tolist() for each in before
    ]


async def test_a_vector_that_stays_lost_is_named(pictures: Wire) -> None:
    await backfill(pictures)
    pictures.store.lost = {(UUID(int=3), "default")}
    pictures.store.unindexable = {UUID(int=3)}

    answers = await backfill(pictures, verify=True)

    (failed,) = [each for answer in answers for each in answer.failures]
    assert (UUID(failed.id).int, unpack(failed.error).reason) == (3, "STORE_REJECTED")
    assert sum(each.repaired for each in answers) == 0


async def test_what_stops_the_whole_call_ends_it_with_its_reason(pictures: Wire) -> None:
    pictures.embedder.failure = EmbedderUnavailable("it is down")
    failure = await failure_of(backfill(pictures))
    assert (failure.code, failure.reason) == (StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE")
    pictures.embedder.failure = None
    pictures.store.fail_next(StoreUnavailable("Weaviate does not answer"))
    failure = await failure_of(backfill(pictures))
    assert (failure.code, failure.reason) == (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert failure.request_id


@pytest.mark.parametrize(
    ("fields", "reason", "paths"),
    [
        ({"vectors": ["default", "nope"]}, "UNKNOWN_VECTOR", ["vectors[1]"]),
        ({"page_token": "nope"}, "INVALID_INPUT", ["page_token"]),
        ({"collection": ""}, "INVALID_INPUT", ["collection"]),
    ],
)
async def test_a_request_that_cannot_be_is_refused(
    pictures: Wire, fields: dict[str, Any], reason: str, paths: list[str]
) -> None:
    request = pb.BackfillVectorsRequest(**{"collection": "Pictures", **fields})
    failure = await failure_of(pictures.objects.BackfillVectors(request).read())
    assert (failure.code, failure.reason, failure.fields) == (StatusCode.INVALID_ARGUMENT, reason, paths)


async def test_pictures_that_are_too_large_to_be_read_at_once_are_read_apart(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = pictures.store.get_objects

    async def some(collection: str, ids: list[UUID], *arguments: Any) -> dict[UUID, StoredObject]:
        if len(ids) > 1:
            raise StoreRejected("the answer is too large")
        return await read(collection, ids, *arguments)

    monkeypatch.setattr(pictures.store, "get_objects", some)

    assert sum(each.filled for each in await backfill(pictures)) == COUNT


async def test_what_an_import_could_not_embed_is_filled_when_the_other_embedder_is_back() -> None:
    one, two = FakeEmbedder(name="one", space="one"), FakeEmbedder(name="two", space="two", dimension=8)
    wire = await start_wire(one, two)
    try:
        await wire.create_pictures()
        collection = await wire.store.get_collection("Pictures")
        (default,) = collection.vectors
        assert default.space is not None
        other = NamedVector("other", replace(default.space, id="two"), (), (WeightedField("title"),))
        wire.store._collections["Pictures"] = replace(collection, vectors=(default, other))
        two.failure = EmbedderUnavailable("it is down")
        request = pb.ImportObjectsRequest(collection="Pictures", objects=[{"id": str(UUID(int=1))}])
        request.objects[0].properties.update({"title": "a dog"})
        (result,) = (await wire.objects.ImportObjects(request)).results
        assert [each.origin for each in result.stored.vectors] == [
            pb.VECTOR_ORIGIN_COMPUTED, pb.VECTOR_ORIGIN_MISSING
        ]  # fmt: skip
        assert (await failure_of(backfill(wire))).reason == "EMBEDDER_UNAVAILABLE"
        two.failure = None

        (answer,) = await backfill(wire)

        assert (answer.filled, len(answer.failures)) == (1, 0)
        found = await wire.store.get_object("Pictures", UUID(int=1), ReturnFields(vectors=["other"]))
        assert_close(found.vectors["other"], two.vector("a dog"))
    finally:
        await stop_wire(wire)


async def test_an_object_that_is_replaced_while_its_page_is_embedded_gets_the_vector_of_what_it_is(
    pictures: Wire,
) -> None:
    gate = pictures.embedder.gate = asyncio.Event()
    pictures.embedder.entered.clear()
    filling = asyncio.create_task(backfill(pictures, vectors=["late"]))
    await pictures.embedder.entered.wait()
    own = np.ones(8, np.float32)
    replaced = StoredObject(UUID(int=0), {"title": "new words"})
    supplied = StoredObject(UUID(int=1), {"title": "picture 1"}, vectors={"late": own})
    await pictures.store.put_objects("Pictures", [replaced, supplied])
    gate.set()

    answers = await filling

    first, second, third = (await stored(pictures))[:3]
    assert_close(first.vectors["late"], pictures.embedder.vector("new words"))
    assert_close(second.vectors["late"], own)
    assert_close(third.vectors["late"], pictures.embedder.vector("picture 2"))
    assert (sum(each.filled for each in answers), any(each.failures for each in answers)) == (COUNT - 1, False)


async def test_an_object_that_changes_again_and_again_is_named_to_be_filled_later(
    pictures: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = pictures.store.get_objects, itertools.count()

    async def restless(*arguments: Any) -> dict[UUID, StoredObject]:
        found = await read(*arguments)
        await pictures.store.put_objects("Pictures", [StoredObject(UUID(int=0), {"title": f"text {next(reads)}"})])
        return found

    monkeypatch.setattr(pictures.store, "get_objects", restless)

    answers = await backfill(pictures, vectors=["late"])

    (failed,) = [each for answer in answers for each in answer.failures]
    assert (UUID(failed.id).int, unpack(failed.error).retry_s) == (0, 1)
    assert sum(each.filled for each in answers) == COUNT - 1
