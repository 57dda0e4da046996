"""Searches whose first hits a reranker of this server sorts again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from embedders.contract import InputLimits, Modality
from embedders.errors import (
    AnswerInvalid,
    CallerKeyRejected,
    CredentialRejected,
    EmbedderError,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
)
from embedders.reranking import Passage
from service.core import reranker_pool
from service.core.searching import reranking
from tests.fakes.clients import key_of, let_in
from tests.fakes.collector import attributes_of
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.reranker import FakeReranker
from tests.service.conftest import Failure, Wire, failure_of, out_of_time, start_wire, stop_wire, unpack
from tests.service.process.test_tracing import traced
from vecgate.v1 import admin_service_pb2 as admin_pb
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.admin_service_pb2_grpc import AdminServiceStub
from vecgate.v1.input_pb2 import Image
from vecgate.v1.vector_pb2 import Vector

RED, GREEN, BLUE = picture((255, 0, 0)), picture((0, 255, 0)), picture((0, 0, 255))
TITLES = ("abc", "xyz", "abx", "xya", "axc")
"""In the order of the search by vector; by the letters of QUERY it is 1, 3, 2, 4, 0, and 2 and 4 are equal."""
QUERY = "xyz"
BY_TITLE = {"reranker": "fake-rerank", "property": "title", "query": QUERY}


@pytest.fixture
def reranker() -> FakeReranker:
    return FakeReranker(pictures={RED: 1, GREEN: 2, BLUE: 3}, limits=InputLimits(max_text_bytes=1000))


@pytest.fixture
async def wire(reranker: FakeReranker) -> AsyncIterator[Wire]:
    running = await start_wire(FakeEmbedder(), rerankers=[[reranker]])
    yield running
    await stop_wire(running)


def vector(place: int) -> Vector:
    """Return a vector that is the farther from that of place 0 the larger its place is."""
    angle = place / 100
    return Vector(data=np.array([np.cos(angle), np.sin(angle), *[0] * 6], "<f4").tobytes())


async def fill(wire: Wire, *objects: dict[str, Any]) -> None:
    """Store objects with ids 1, 2, 3 ..., the nearest one first."""
    await wire.create_pictures()
    messages = []
    for place, fields in enumerate(objects):
        image = {name: Image(content=fields.pop(name)) for name in ("image",) if name in fields}
        properties = Struct()
        properties.update(fields)
        messages.append(
            object_pb.DataObject(
                id=str(UUID(int=place + 1)), properties=properties, images=image, vectors={"default": vector(place)}
            )
        )
    response = await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=messages))
    assert all(each.HasField("stored") for each in response.results)


async def fill_titles(wire: Wire) -> None:
    await fill(wire, *({"title": title} for title in TITLES))


def search(rerank: dict[str, Any], **fields: Any) -> pb.SearchObjectsRequest:
    query = (
        fields
        if any(name.startswith(("near", "bm25", "hybrid")) for name in fields)
        else {
            "near_vector": {"vector": vector(0)},
            **fields,
        }
    )
    return pb.SearchObjectsRequest(collection="Pictures", rerank=rerank, **query)


def places(response: pb.SearchObjectsResponse) -> list[int]:
    return [UUID(hit.object.id).int - 1 for hit in response.hits]


def scores(response: pb.SearchObjectsResponse) -> list[float | None]:
    return [hit.rerank_score if hit.HasField("rerank_score") else None for hit in response.hits]


async def test_hits_are_sorted_by_the_reranker_and_the_response_says_so(wire: Wire, reranker: FakeReranker) -> None:
    await fill_titles(wire)

    response = await wire.search.SearchObjects(search(BY_TITLE))

    assert places(response) == [1, 3, 2, 4, 0]
    assert scores(response) == [3, 2, 1, 1, 0]
    assert response.reranking == pb.Reranking(reranker="fake-rerank", model="fake/reranker", scored=5)
    ((query, passages, options),) = reranker.calls
    assert (query, passages, options.truncate) == (QUERY, [Passage(title) for title in TITLES], True)


async def test_a_search_that_names_no_reranker_asks_none(wire: Wire, reranker: FakeReranker) -> None:
    await fill_titles(wire)

    response = await wire.search.SearchObjects(
        pb.SearchObjectsRequest(collection="Pictures", near_vector={"vector": vector(0)})
    )

    assert places(response) == [0, 1, 2, 3, 4]
    assert not response.HasField("reranking")
    assert reranker.calls == []


async def test_offset_and_limit_are_applied_to_the_new_order(wire: Wire, reranker: FakeReranker) -> None:
    await fill_titles(wire)

    response = await wire.search.SearchObjects(search(BY_TITLE, limit=2, offset=1))

    assert places(response) == [3, 2]
    assert (len(reranker.calls[0][1]), response.reranking.scored) == (5, 5)


async def test_hits_beyond_those_that_are_reranked_come_behind_them_in_their_order(
    wire: Wire, reranker: FakeReranker
) -> None:
    await fill_titles(wire)

    response = await wire.search.SearchObjects(search({**BY_TITLE, "limit": 3}, limit=4))

    assert places(response) == [1, 2, 0, 3]
    assert scores(response) == [3, 1, 0, None]
    assert [each.text for each in reranker.calls[0][1]] == list(TITLES[:3])


async def test_pages_are_parts_of_one_list_of_which_the_first_fifty_are_reranked(
    wire: Wire, reranker: FakeReranker
) -> None:
    # The farther an object is, the better the reranker likes it.
    letters = "".join(map(chr, range(0x400, 0x400 + 80)))
    await wire.create_pictures()
    for start in range(0, 80, 20):
        messages = [
            object_pb.DataObject(
                id=str(UUID(int=place + 1)),
                properties=Struct(fields={"title": {"string_value": letters[: place + 1]}}),
                vectors={"default": vector(place)},
            )
            for place in range(start, start + 20)
        ]
        await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=messages))
    by_letters = {**BY_TITLE, "query": letters}

    pages = [
        await wire.search.SearchObjects(search(by_letters, limit=20, offset=offset)) for offset in range(0, 80, 20)
    ]
    whole = await wire.search.SearchObjects(search(by_letters, limit=80))

    assert [place for page in pages for place in places(page)] == places(whole)
    assert places(whole) == [*range(49, -1, -1), *range(50, 80)]
    assert {len(passages) for _, passages, _ in reranker.calls} == {50}


async def test_objects_without_the_property_come_last_and_are_not_sent(wire: Wire, reranker: FakeReranker) -> None:
    await fill(wire, {"year": 1}, {"title": "abc"}, {"title": " "}, {"title": "xyz"}, {"year": 2})

    response = await wire.search.SearchObjects(search(BY_TITLE))

    assert places(response) == [3, 1, 0, 2, 4]
    assert scores(response) == [3, 0, None, None, None]
    assert [each.text for each in reranker.calls[0][1]] == ["abc", " ", "xyz"]
    assert response.reranking.scored == 2


async def test_a_search_without_hits_or_without_anything_to_read_asks_no_reranker(
    wire: Wire, reranker: FakeReranker
) -> None:
    await fill(wire, {"year": 1}, {"year": 2})

    nothing = await wire.search.SearchObjects(search(BY_TITLE, bm25={"query": "absent"}))
    bare = await wire.search.SearchObjects(search(BY_TITLE))

    assert (places(nothing), places(bare)) == ([], [0, 1])
    assert (nothing.reranking.reranker, bare.reranking.scored) == ("fake-rerank", 0)
    assert reranker.calls == []


async def test_the_items_of_a_text_array_are_read_as_lines(wire: Wire, reranker: FakeReranker) -> None:
    await fill(wire, {"tags": ["ab", "c"]}, {"tags": ["x", "y"]})

    response = await wire.search.SearchObjects(search({**BY_TITLE, "property": "tags"}))

    assert places(response) == [1, 0]
    assert [each.text for each in reranker.calls[0][1]] == ["ab\nc", "x\ny"]


async def test_a_long_text_of_an_object_is_left_to_the_reranker_to_cut(wire: Wire, reranker: FakeReranker) -> None:
    await fill(wire, {"title": "ä" * 5000}, {"title": "xyz"})

    response = await wire.search.SearchObjects(search(BY_TITLE))

    assert places(response) == [1, 0]
    assert reranker.calls[0][1][0].text == "ä" * 5000


async def test_what_only_the_reranker_read_is_not_returned(wire: Wire) -> None:
    await fill(wire, {"title": "abc", "year": 1, "image": RED}, {"title": "xyz", "year": 2, "image": GREEN})
    both = {**BY_TITLE, "image_property": "image"}

    response = await wire.search.SearchObjects(search(both, output={"properties": ["year"]}))

    assert places(response) == [1, 0]
    for hit in response.hits:
        assert [*hit.object.properties] == ["year"]
        assert not hit.object.images
        assert not hit.object.vectors


async def test_what_the_caller_asked_for_is_returned_of_the_hits_that_are_left(wire: Wire) -> None:
    await fill(wire, {"title": "abc", "image": RED}, {"title": "xyz", "image": GREEN}, {"title": "xy", "image": BLUE})
    output = {"properties": ["title"], "images": ["image"], "vectors": ["default"]}

    response = await wire.search.SearchObjects(search(BY_TITLE, limit=2, output=output))

    assert places(response) == [1, 2]
    assert [hit.object.images["image"].content for hit in response.hits] == [GREEN, BLUE]
    assert [hit.object.vectors["default"] for hit in response.hits] == [vector(1), vector(2)]
    assert [hit.object.properties["title"] for hit in response.hits] == ["xyz", "xy"]


async def test_pictures_are_read_alone_or_beside_the_texts(wire: Wire, reranker: FakeReranker) -> None:
    await fill(wire, {"title": "xyz", "image": RED}, {"title": "abc", "image": BLUE}, {"image": GREEN}, {"title": "x"})

    alone = await wire.search.SearchObjects(
        search({"reranker": "fake-rerank", "query": QUERY, "image_property": "image"})
    )
    both = await wire.search.SearchObjects(search({**BY_TITLE, "image_property": "image"}))

    assert (places(alone), scores(alone)) == ([1, 2, 0, 3], [30, 20, 10, None])
    assert (places(both), scores(both)) == ([1, 2, 0, 3], [30, 20, 13, 1])
    assert reranker.calls[0][1] == [Passage("", RED), Passage("", BLUE), Passage("", GREEN)]
    assert reranker.calls[1][1] == [Passage("xyz", RED), Passage("abc", BLUE), Passage("", GREEN), Passage("x")]


async def test_pictures_are_read_up_to_a_bound_in_bytes(
    wire: Wire, reranker: FakeReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranking, "MAX_PICTURES_BYTES", len(RED) + len(GREEN))
    monkeypatch.setattr(reranking, "PICTURES_AT_ONCE", 1)
    await fill(wire, {"image": RED}, {"image": GREEN}, {"image": BLUE}, {"image": BLUE}, {"title": "xyz"})
    wire.store.calls.clear()

    response = await wire.search.SearchObjects(search({**BY_TITLE, "image_property": "image"}))

    assert (places(response), scores(response)) == ([1, 0, 2, 3, 4], [20, 10, None, None, None])
    assert wire.store.calls.count("get_objects") == 3


async def test_a_hit_that_the_reranker_cannot_read_comes_behind_the_others(wire: Wire) -> None:
    await fill(wire, {"title": "xyz", "image": RED}, {"title": "xy", "image": GREEN})
    broken = wire.store._objects["Pictures"][UUID(int=1)].images
    broken["image"] = b"no picture"  # type: ignore[index]  # as another program may store it

    response = await wire.search.SearchObjects(search({**BY_TITLE, "image_property": "image"}))

    assert (places(response), scores(response)) == ([1, 0], [22, None])
    assert response.reranking.scored == 1


@pytest.mark.parametrize(
    "query",
    [
        {"near_text": {"concepts": ["a"]}},
        {"near_image": {"image": {"content": RED}}},
        {"near_object": {"id": str(UUID(int=1))}},
        {"near_inputs": {"inputs": [{"text": "a"}]}},
        {"bm25": {"query": "abc xyz abx xya axc"}},
        {"hybrid": {"bm25": {"query": "abc xyz abx xya axc"}}},
    ],
    ids=lambda query: next(iter(query)),
)
async def test_hits_of_every_query_are_reranked(wire: Wire, query: dict[str, Any]) -> None:
    await fill_titles(wire)

    response = await wire.search.SearchObjects(search(BY_TITLE, **query))

    assert scores(response) == [3, 2, 1, 1, 0]
    assert places(response)[:2] == [1, 3]


FAULTS = [
    (EmbedderUnavailable("down", retry_after_s=3), StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE"),
    (EmbedderRateLimited("slow down"), StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED"),
    (CredentialRejected("no"), StatusCode.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED"),
    (ModelGone("gone"), StatusCode.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED"),
    (AnswerInvalid("what?"), StatusCode.INTERNAL, "EMBEDDER_ANSWER_INVALID"),
]


@pytest.mark.parametrize(("fault", "code", "reason"), FAULTS, ids=[type(fault).__name__ for fault, *_ in FAULTS])
async def test_a_reranker_that_fails_fails_the_search_or_leaves_the_first_order_if_that_is_allowed(
    wire: Wire, reranker: FakeReranker, fault: EmbedderError, code: StatusCode, reason: str
) -> None:
    await fill_titles(wire)
    reranker.failure = fault

    failure = await failure_of(wire.search.SearchObjects(search(BY_TITLE)))
    kept = await wire.search.SearchObjects(search({**BY_TITLE, "keep_order_on_failure": True}, limit=2, offset=1))

    assert (failure.code, failure.reason) == (code, reason)
    assert failure.message == f"reranker 'fake-rerank': {fault}"
    assert (places(kept), scores(kept)) == ([1, 2], [None, None])
    said: Failure = unpack(kept.reranking.error)
    assert (said.code, said.reason, said.message) == (code, reason, failure.message)
    assert (kept.reranking.reranker, kept.reranking.scored) == ("fake-rerank", 0)
    assert [*kept.hits[0].object.properties] == ["title"]


async def test_a_reranker_that_works_leaves_no_error_though_the_first_order_might_stand(wire: Wire) -> None:
    await fill_titles(wire)

    response = await wire.search.SearchObjects(search({**BY_TITLE, "keep_order_on_failure": True}))

    assert places(response) == [1, 3, 2, 4, 0]
    assert not response.reranking.HasField("error")


async def test_a_query_that_the_reranker_refuses_fails_the_search_in_any_case(
    wire: Wire, reranker: FakeReranker
) -> None:
    await fill_titles(wire)
    reranker.failure = InputRejected("the NIM rejects the query")

    failure = await failure_of(wire.search.SearchObjects(search({**BY_TITLE, "keep_order_on_failure": True})))

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["rerank.query"])


async def test_a_hanging_reranker_leaves_time_for_the_first_order_if_that_may_stand(
    wire: Wire, reranker: FakeReranker
) -> None:
    await fill_titles(wire)
    reranker.gate = asyncio.Event()

    kept = await wire.search.SearchObjects(search({**BY_TITLE, "keep_order_on_failure": True}), timeout=3)
    reranker.entered.clear()
    code = await out_of_time(
        lambda seconds: wire.search.SearchObjects(search(BY_TITLE), timeout=seconds), reranker.entered
    )
    async with asyncio.timeout(60):
        # Its breaker hears of both, of the second one when the server has given it up, too.
        while len(reranker.silences) < 2:
            await asyncio.sleep(0.01)

    assert places(kept) == [0, 1, 2, 3, 4]
    assert unpack(kept.reranking.error).reason == "EMBEDDER_UNAVAILABLE"
    assert "its share of the time" in kept.reranking.error.message
    assert code is StatusCode.DEADLINE_EXCEEDED


async def test_the_next_address_of_a_reranker_stands_in_for_one_that_fails() -> None:
    first, second = FakeReranker(name="rank"), FakeReranker(name="rank-2")
    wire = await start_wire(FakeEmbedder(), rerankers=[[first, second]])
    await fill_titles(wire)
    first.failure = EmbedderUnavailable("down")

    response = await wire.search.SearchObjects(search({**BY_TITLE, "reranker": "rank"}))
    listed = await wire.embedding.ListEmbedders(embedding_pb.ListEmbeddersRequest())
    second.failure = EmbedderUnavailable("down, too")
    failure = await failure_of(wire.search.SearchObjects(search({**BY_TITLE, "reranker": "rank"})))
    broken = await wire.embedding.ListEmbedders(embedding_pb.ListEmbeddersRequest())
    await stop_wire(wire)

    assert (places(response), response.reranking.reranker) == ([1, 3, 2, 4, 0], "rank-2")
    assert failure.message == "reranker 'rank': down"
    assert [each.health for each in listed.rerankers] == [embedding_pb.EMBEDDER_HEALTH_READY]
    assert [each.health_detail for each in broken.rerankers] == ["down"]


@pytest.mark.parametrize(
    ("changes", "fields", "reason", "paths"),
    [
        ({"query": " "}, {}, "INVALID_INPUT", ["rerank.query"]),
        ({"query": "é" * 501}, {}, "TEXT_TOO_LONG", ["rerank.query"]),
        ({"query": "x" * 70_000}, {}, "TEXT_TOO_LONG", ["rerank.query"]),
        ({"property": ""}, {}, "INVALID_INPUT", ["rerank"]),
        ({"property": "nope"}, {}, "UNKNOWN_PROPERTY", ["rerank.property"]),
        ({"property": "year"}, {}, "INVALID_PROPERTY", ["rerank.property"]),
        ({"property": "image"}, {}, "INVALID_PROPERTY", ["rerank.property"]),
        ({"image_property": "nope"}, {}, "UNKNOWN_PROPERTY", ["rerank.image_property"]),
        ({"image_property": "title"}, {}, "INVALID_PROPERTY", ["rerank.image_property"]),
        ({"limit": -1}, {}, "INVALID_INPUT", ["rerank.limit"]),
        ({"limit": 101}, {}, "INVALID_INPUT", ["rerank.limit"]),
        (
            {},
            {"group_by": {"property": "title", "number_of_groups": 2, "objects_per_group": 2}},
            "INVALID_INPUT",
            ["rerank.reranker"],
        ),
        ({"reranker": "", "image_property": "image"}, {}, "INVALID_INPUT", ["rerank.image_property"]),
        ({"reranker": "", "limit": 5}, {}, "INVALID_INPUT", ["rerank.limit"]),
        ({"reranker": "", "keep_order_on_failure": True}, {}, "INVALID_INPUT", ["rerank.keep_order_on_failure"]),
        ({"reranker": "", "property": ""}, {}, "INVALID_INPUT", ["rerank.property"]),
        ({"property": "nope", "image_property": "year"}, {"near_text": {"concepts": [" "]}}, "", [
            "rerank.property", "rerank.image_property", "near_text.concepts[0]",
        ]),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_named_and_nothing_is_embedded_or_reranked(
    wire: Wire,
    reranker: FakeReranker,
    changes: dict[str, Any],
    fields: dict[str, Any],
    reason: str,
    paths: list[str],
) -> None:
    await fill_titles(wire)
    wire.embedder.calls.clear()

    failure = await failure_of(wire.search.SearchObjects(search({**BY_TITLE, **changes}, **fields)))

    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, paths)
    assert failure.reasons == [reason] if reason else len(failure.reasons) == len(paths)
    assert (reranker.calls, wire.embedder.calls) == ([], [])


async def test_a_property_that_keeps_only_hashes_has_no_pictures_to_read_and_is_returned_as_ever(
    wire: Wire, reranker: FakeReranker
) -> None:
    collection = collection_pb.Collection(
        name="Pictures",
        properties=[
            {"name": "title", "data_type": "DATA_TYPE_TEXT"},
            {"name": "scan", "data_type": "DATA_TYPE_BLOB_HASH"},
        ],
        vectors=[{"name": "default"}],
    )
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))
    stored = object_pb.DataObject(images={"scan": Image(content=RED)}, vectors={"default": vector(0)})
    await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=[stored]))

    failure = await failure_of(wire.search.SearchObjects(search({**BY_TITLE, "image_property": "scan"})))
    output = {"properties": ["scan"]}
    plain = await wire.search.SearchObjects(
        pb.SearchObjectsRequest(collection="Pictures", near_vector={"vector": vector(0)}, output=output)
    )
    reranked = await wire.search.SearchObjects(search(BY_TITLE, output=output))

    assert (failure.reasons, failure.fields) == (["INVALID_PROPERTY"], ["rerank.image_property"])
    assert "keeps only the hashes of images" in failure.message
    assert [*plain.hits[0].object.properties] == ["scan"]
    assert reranked.hits[0].object == plain.hits[0].object
    assert reranker.calls == []


async def test_a_server_has_the_rerankers_of_its_settings_only(wire: Wire) -> None:
    await fill_titles(wire)
    bare = await start_wire(FakeEmbedder())
    await fill_titles(bare)

    failure = await failure_of(wire.search.SearchObjects(search({**BY_TITLE, "reranker": "nope"})))
    none = await failure_of(bare.search.SearchObjects(search(BY_TITLE)))
    await stop_wire(bare)

    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "RERANKER_NOT_FOUND")
    assert failure.message == "there is no reranker 'nope'; this server has: fake-rerank"
    assert failure.metadata == {"name": "nope"}
    assert none.message == "there is no reranker 'fake-rerank'; this server has none"


async def test_a_model_that_reads_texts_only_gets_no_pictures() -> None:
    wire = await start_wire(FakeEmbedder(), rerankers=[[FakeReranker(modalities=frozenset({Modality.TEXT}))]])
    await fill_titles(wire)

    failure = await failure_of(wire.search.SearchObjects(search({**BY_TITLE, "image_property": "image"})))
    await stop_wire(wire)

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["rerank.image_property"])


async def test_a_model_that_turns_out_to_read_texts_only_refuses_the_pictures_by_name() -> None:
    class Learning(FakeReranker):
        async def rerank(self, query: str, passages: Any, options: Any) -> Any:
            if any(each.content for each in passages):
                self.spec = FakeReranker(modalities=frozenset({Modality.TEXT})).spec
                raise InputRejected("it reads texts only")
            return await super().rerank(query, passages, options)

    wire = await start_wire(FakeEmbedder(), rerankers=[[Learning()]])
    await fill(wire, {"title": "a", "image": RED})

    failure = await failure_of(wire.search.SearchObjects(search({**BY_TITLE, "image_property": "image"})))
    await stop_wire(wire)

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["rerank.image_property"])


async def test_more_searches_than_may_wait_are_refused_and_the_others_end_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reranker_pool, "MAX_WAITING_CALLS", 1)
    slow = FakeReranker(slots=1)
    wire = await start_wire(FakeEmbedder(), rerankers=[[slow]])
    await fill_titles(wire)
    slow.gate = asyncio.Event()
    slow.entered.clear()
    group = wire.rerankers.get("fake-rerank")

    running = asyncio.ensure_future(wire.search.SearchObjects(search(BY_TITLE)))
    async with asyncio.timeout(60):
        await slow.entered.wait()
    waiting = asyncio.ensure_future(wire.search.SearchObjects(search(BY_TITLE)))
    async with asyncio.timeout(60):
        while not group.waiting:
            await asyncio.sleep(0)
    failure = await failure_of(wire.search.SearchObjects(search(BY_TITLE)))
    kept = await wire.search.SearchObjects(search({**BY_TITLE, "keep_order_on_failure": True}))
    status = await AdminServiceStub(wire.channel).GetServerStatus(admin_pb.GetServerStatusRequest())
    slow.gate.set()
    ended = await asyncio.gather(running, waiting)
    left = (group.waiting, group.running)
    await stop_wire(wire)

    assert (failure.code, failure.reason) == (StatusCode.UNAVAILABLE, "OVERLOADED")
    assert unpack(kept.reranking.error).reason == "OVERLOADED"
    (shown,) = status.rerankers
    assert (shown.name, shown.waiting_calls, shown.running_calls, shown.fault) == ("fake-rerank", 1, 1, "")
    assert [places(each) for each in ended] == [[1, 3, 2, 4, 0]] * 2
    assert left == (0, 0)


async def test_a_listing_shows_the_rerankers_with_what_they_read_and_their_health(
    wire: Wire, reranker: FakeReranker
) -> None:
    reranker.failure = EmbedderUnavailable("the NIM does not answer")
    await wire.rerankers._check(reranker)

    listed = await wire.embedding.ListEmbedders(embedding_pb.ListEmbeddersRequest())

    (shown,) = listed.rerankers
    assert (shown.name, shown.model) == ("fake-rerank", "fake/reranker")
    assert list(shown.modalities) == [1, 2, 3]
    assert shown.limits.max_text_bytes == 1000
    assert shown.health == embedding_pb.EMBEDDER_HEALTH_UNAVAILABLE
    assert shown.health_detail == "the NIM does not answer"


async def test_hits_that_are_reranked_use_up_a_quota_as_inputs_do(tmp_path: Path) -> None:
    quota = 'permissions = ["search"]\n[clients.poor.quota]\ninputs_per_second = 0.1'
    auth = let_in(tmp_path / "clients.toml", boss='permissions = ["admin", "write"]', poor=quota)
    wire = await start_wire(FakeEmbedder(), rerankers=[[FakeReranker()]], auth=auth)
    boss, poor = ((("authorization", f"Bearer {key_of(name)}"),) for name in ("boss", "poor"))
    await wire.collections.CreateCollection(
        collection_pb.CreateCollectionRequest(
            collection={
                "name": "Pictures",
                "properties": [{"name": "title", "data_type": "DATA_TYPE_TEXT"}],
                "vectors": [{"name": "default"}],
            }
        ),
        metadata=boss,
    )
    await wire.objects.ImportObjects(
        object_pb.ImportObjectsRequest(
            collection="Pictures",
            objects=[
                {"properties": {"title": title}, "vectors": {"default": vector(place)}}
                for place, title in enumerate(TITLES)
            ],
        ),
        metadata=boss,
    )

    first = await wire.search.SearchObjects(search(BY_TITLE), metadata=poor)
    failure = await failure_of(wire.search.SearchObjects(search(BY_TITLE), metadata=poor))
    await stop_wire(wire)

    assert first.reranking.scored == 5
    assert (failure.reason, failure.quota) == ("QUOTA_EXCEEDED", [("client:poor", "inputs_per_second")])
    # Five hits at 0.1 a second, and half a second's worth was left.
    assert failure.retry_s is not None
    assert 40 < failure.retry_s <= 50


KEY = (("x-nvidia-api-key", "nvapi-mine"),)


def local(name: str) -> FakeEmbedder:
    """Return an embedder of a local model, which needs no key."""
    embedder = FakeEmbedder(name=name, caller_keys=False)
    embedder._spec = replace(embedder._spec, weights_digest="00")
    return embedder


async def test_a_caller_s_key_goes_to_rerankers_that_take_such_keys_only() -> None:
    closed, open_ = FakeReranker(name="closed"), FakeReranker(name="open", caller_keys=True)
    wire = await start_wire(FakeEmbedder(), rerankers=[[closed], [open_]], allow_caller_keys=True)
    await fill_titles(wire)

    for name in ("closed", "open"):
        await wire.search.SearchObjects(
            search({**BY_TITLE, "reranker": name}, near_text={"concepts": ["a"]}), metadata=KEY
        )
    open_.failure = CallerKeyRejected("not yours")
    failure = await failure_of(
        wire.search.SearchObjects(search({**BY_TITLE, "reranker": "open", "keep_order_on_failure": True}), metadata=KEY)
    )
    await stop_wire(wire)

    assert [each.calls[0][2].api_key for each in (closed, open_)] == [None, "nvapi-mine"]
    assert (failure.code, failure.reason) == (StatusCode.UNAUTHENTICATED, "UPSTREAM_KEY_REJECTED")


QUERIES: list[dict[str, Any]] = [
    {"near_text": {"concepts": ["a"]}},
    {"near_inputs": {"inputs": [{"text": "a"}]}},
    {"hybrid": {"bm25": {"query": "a"}}},
    {"near_vector": {"vector": vector(0)}},
    {"near_object": {"id": str(UUID(int=1))}},
    {"bm25": {"query": "a"}},
    {"hybrid": {"bm25": {"query": "a"}, "alpha": 0}},
]
EMBEDDED = QUERIES[:3]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: next(iter(query)))
@pytest.mark.parametrize("embedder", ["takes", "refuses", "local"])
@pytest.mark.parametrize("takes", [True, False], ids=["reranker takes", "reranker refuses"])
async def test_a_search_with_a_key_needs_one_nim_that_takes_it_and_the_key_goes_to_no_other(
    embedder: str, query: dict[str, Any], *, takes: bool
) -> None:
    fake = local("fake") if embedder == "local" else FakeEmbedder(caller_keys=embedder == "takes")
    reranker = FakeReranker(caller_keys=takes)
    wire = await start_wire(fake, rerankers=[[reranker]], allow_caller_keys=True)
    await fill_titles(wire)
    fake.calls.clear()
    used = takes or (embedder == "takes" and query in EMBEDDED)

    searching = wire.search.SearchObjects(search(BY_TITLE, **query), metadata=KEY)
    failure = None if used else await failure_of(searching)
    if used:
        await searching
    await stop_wire(wire)

    sent = {options.api_key for _, options in fake.calls}
    assert {options.api_key for *_, options in reranker.calls} <= ({"nvapi-mine"} if takes else {None})
    assert sent <= ({"nvapi-mine"} if embedder == "takes" else {None})
    if failure is not None:
        assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
        assert (
            "is not taken by reranker fake-rerank" in failure.message
            or "is not taken by embedder fake" in failure.message
        )
        assert "nvapi-mine" not in failure.message
        assert (sent, reranker.calls) == (set(), [])
    elif query in EMBEDDED:
        assert sent


async def test_an_object_that_is_deleted_while_hits_are_reranked_is_no_hit(wire: Wire, reranker: FakeReranker) -> None:
    await fill(wire, {"title": "abc", "image": RED}, {"title": "xyz", "image": GREEN})
    reranker.gate = asyncio.Event()
    reranker.entered.clear()

    searching = asyncio.ensure_future(wire.search.SearchObjects(search(BY_TITLE, output={"images": ["image"]})))
    async with asyncio.timeout(60):
        await reranker.entered.wait()
    del wire.store._objects["Pictures"][UUID(int=2)]
    reranker.gate.set()

    assert places(await searching) == [0]


async def test_the_work_of_a_reranker_is_a_span_without_what_it_read(wire: Wire) -> None:
    await fill_titles(wire)
    async with traced() as found:
        await wire.search.SearchObjects(search(BY_TITLE))

    (span,) = found.named("rerank fake/reranker")
    told = attributes_of(span)
    assert told["vecgate.passages"] == 5
    assert (told["gen_ai.provider.name"], told["gen_ai.request.model"]) == ("fake-rerank", "fake/reranker")
    assert QUERY not in str(told)
