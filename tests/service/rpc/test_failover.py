"""What callers see of failover: within a space silently, between spaces by named vectors, and never across."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from grpc import StatusCode

from embedders.errors import EmbedderUnavailable, ModelGone
from embedders.factory import build_embedder
from embedders.front.breaker import BreakerRules
from embedders.front.queueing import QueueBounds
from embedders.nim.embedder import NimConfig
from embedders.telemetry.metrics import FAILOVERS
from tests.conftest import assert_close
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.nim import FakeNim, Fault
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire, unpack
from tests.service.rpc.objects.test_import import import_, obj
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.input_pb2 import Input
from vecgate.v1.vector_pb2 import Vector

RED = picture((255, 0, 0))
DOWN = EmbedderUnavailable("it is down", retry_after_s=3)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server with two embedders of one space and a third one of another."""
    running = await start_wire(
        FakeEmbedder(name="nim", space="nvidia/nvclip"),
        FakeEmbedder(name="nim-2", space="nvidia/nvclip"),
        FakeEmbedder(name="clip", space="clip:local"),
    )
    yield running
    await stop_wire(running)


async def create_two_spaces(wire: Wire, **only: str) -> None:
    """Create a collection with a named vector for each space, of both fields or `only` one."""
    both = {"image_fields": [{"name": "image"}], "text_fields": [{"name": "title"}]}

    def fields(name: str) -> dict[str, list[dict[str, str]]]:
        return {only[name]: both[only[name]]} if only else both

    await wire.collections.CreateCollection(
        collection_pb.CreateCollectionRequest(
            collection=collection_pb.Collection(
                name="Pictures",
                properties=[
                    property_pb.Property(name="image", data_type=property_pb.DATA_TYPE_BLOB),
                    property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
                ],
                vectors=[
                    collection_pb.VectorConfig(name="local", embedder="clip", **fields("local")),
                    collection_pb.VectorConfig(name="remote", embedder="nim", **fields("remote")),
                ],
            )
        )
    )


async def embed(wire: Wire, text: str, embedder: str = "") -> embedding_pb.EmbedInputsResponse:
    return await wire.embedding.EmbedInputs(
        embedding_pb.EmbedInputsRequest(inputs=[Input(text=text)], embedder=embedder)
    )


async def near_text(wire: Wire, text: str, target: str = "") -> search_pb.SearchObjectsResponse:
    request = search_pb.SearchObjectsRequest(
        collection="Pictures",
        near_text=search_pb.NearText(concepts=[text]),
        target_vectors=[target] if target else [],
        output={"properties": ["title"]},
    )
    return await wire.search.SearchObjects(request)


def fail(wire: Wire, *names: str) -> None:
    for embedder in wire.embedders:
        embedder.failure = DOWN if embedder.spec.name in names else None


async def test_without_a_name_another_embedder_of_the_same_space_stands_in_and_is_named(wire: Wire) -> None:
    fail(wire, "nim")

    response = await embed(wire, "a cat")

    assert (response.embedder.name, response.embedder.space) == ("nim-2", "nvidia/nvclip")
    vector = np.frombuffer(response.results[0].embedding.vector.data, "<f4")
    assert_close(vector, wire.embedders[0].vector("a cat"))


async def test_no_embedder_of_another_space_ever_stands_in(wire: Wire) -> None:
    fail(wire, "nim", "nim-2")

    failure = await failure_of(embed(wire, "a cat"))

    assert (failure.code, failure.reason, failure.retry_s) == (StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE", 3)
    assert not any(call for call, _ in wire.embedders[2].calls[1:])


async def test_an_embedder_that_is_named_is_never_switched(wire: Wire) -> None:
    fail(wire, "nim")
    failure = await failure_of(embed(wire, "a cat", "nim"))
    assert failure.reason == "EMBEDDER_UNAVAILABLE"
    assert (await embed(wire, "a cat", "nim-2")).embedder.name == "nim-2"


async def test_a_model_that_is_gone_is_no_reason_to_fail_while_another_serves_it(wire: Wire) -> None:
    wire.embedders[0].failure = ModelGone("410")
    assert (await embed(wire, "a cat")).embedder.name == "nim-2"


async def test_an_import_fills_the_vectors_it_can_and_says_why_others_are_missing(wire: Wire) -> None:
    await create_two_spaces(wire)
    fail(wire, "nim", "nim-2")

    response = await import_(wire, obj(image=RED, title="a red square"), obj())

    first, second = (result.stored.vectors for result in response.results)
    assert [(each.name, each.origin, each.embedder) for each in first] == [
        ("local", object_pb.VECTOR_ORIGIN_COMPUTED, "clip"),
        ("remote", object_pb.VECTOR_ORIGIN_MISSING, ""),
    ]
    assert unpack(first[1].error).reason == "EMBEDDER_UNAVAILABLE"
    assert not first[0].HasField("error")
    assert [(each.origin, each.HasField("error")) for each in second] == [(object_pb.VECTOR_ORIGIN_MISSING, False)] * 2
    assert [each.name for each in response.embedders] == ["clip"]
    stored = await wire.objects.GetObject(
        object_pb.GetObjectRequest(
            collection="Pictures", id=response.results[0].id, output={"vectors": ["local", "remote"]}
        )
    )
    assert list(stored.object.vectors) == ["local"]


async def test_an_object_that_would_get_no_vector_at_all_fails_alone_and_may_be_sent_again(wire: Wire) -> None:
    await create_two_spaces(wire, local="image_fields", remote="text_fields")
    fail(wire, "nim", "nim-2")

    response = await import_(wire, obj(title="words only"), obj(image=RED), obj(image=RED, title="both"))

    assert [result.WhichOneof("outcome") for result in response.results] == ["error", "stored", "stored"]
    failure = unpack(response.results[0].error)
    assert (failure.code, failure.reason, failure.retry_s) == (StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE", 3)


async def test_an_import_fails_whole_when_no_embedder_of_any_space_works(wire: Wire) -> None:
    await create_two_spaces(wire)
    fail(wire, "nim", "nim-2", "clip")

    failure = await failure_of(import_(wire, obj(image=RED, title="a")))

    assert (failure.reason, failure.retry_s) == ("EMBEDDER_UNAVAILABLE", 3)


async def test_a_search_that_names_no_vector_uses_the_one_whose_embedder_works(wire: Wire) -> None:
    await create_two_spaces(wire)
    await import_(wire, obj(title="a cat"), obj(title="a dog"))

    for failing, used, switch in (
        ((), "nim", ()),
        (("nim",), "nim-2", ("nim", "nim-2")),
        (("nim", "nim-2"), "clip", ("nim", "clip")),
    ):
        fail(wire, *failing)
        before = FAILOVERS.labels(*switch)._value.get() if switch else 0
        response = await near_text(wire, "a cat")
        assert not switch or FAILOVERS.labels(*switch)._value.get() == before + 1
        assert response.embedder.name == used
        assert response.hits[0].object.properties["title"] == "a cat"
        assert response.hits[0].distance < 1e-5, "the query and the vectors searched are of one space"

    fail(wire, "nim", "nim-2", "clip")
    assert (await failure_of(near_text(wire, "a cat"))).reason == "EMBEDDER_UNAVAILABLE"


async def test_a_search_that_names_its_vector_keeps_to_its_space(wire: Wire) -> None:
    await create_two_spaces(wire)
    await import_(wire, obj(title="a cat"))
    fail(wire, "nim", "nim-2")

    assert (await failure_of(near_text(wire, "a cat", "remote"))).reason == "EMBEDDER_UNAVAILABLE"
    assert (await near_text(wire, "a cat", "local")).embedder.name == "clip"


async def test_a_vector_that_names_its_space_searches_the_named_vector_of_that_space(wire: Wire) -> None:
    await create_two_spaces(wire)
    await import_(wire, obj(title="a cat"))
    vector = Vector(data=wire.embedders[2].vector("a cat").astype("<f4").tobytes())

    async def near(space: str) -> search_pb.SearchObjectsResponse:
        near_vector = search_pb.NearVector(vector=vector, space=space)
        return await wire.search.SearchObjects(
            search_pb.SearchObjectsRequest(collection="Pictures", near_vector=near_vector)
        )

    assert (await near("clip:local")).hits[0].distance < 1e-5
    assert (await failure_of(near(""))).reasons == ["UNKNOWN_VECTOR"]
    assert (await failure_of(near("elsewhere"))).reason == "EMBEDDING_SPACE_MISMATCH"


@asynccontextmanager
async def two_nims() -> AsyncIterator[tuple[Wire, FakeNim]]:
    """Run a server in front of two NIMs, and give the first one along with it."""
    bounds, rules = QueueBounds(max_inputs=100, max_bytes=10_000), BreakerRules(max_failures=1)
    async with FakeNim() as first, FakeNim() as second:
        both = [
            build_embedder(
                NimConfig(name=name, base_url=each.base_url, model=each.model),
                bounds=bounds,
                rules=rules,
            )
            for name, each in (("nim", first), ("nim-2", second))
        ]
        wire = await start_wire(*both)  # type: ignore[arg-type]
        try:
            yield wire, first
        finally:
            await stop_wire(wire)


async def embed_in_time(wire: Wire, text: str) -> str:
    """Embed with a deadline, and return who did it."""
    request = embedding_pb.EmbedInputsRequest(inputs=[Input(text=text)])
    return (await wire.embedding.EmbedInputs(request, timeout=6)).embedder.name


async def test_a_nim_that_hangs_costs_callers_a_part_of_their_time_and_then_none() -> None:
    async with two_nims() as (wire, first):
        first.fault = Fault(gate=asyncio.Event())
        first.requests.clear()

        served = [await embed_in_time(wire, f"text {number}") for number in range(3)]

        asked = [text for request in first.requests for text in request["input"]]
        assert served == ["nim-2"] * 3
        assert [text for text in asked if text.startswith("text")] == ["text 0"]
        assert wire.pool.fault(wire.pool.default) is not None


async def test_a_nim_that_asks_for_a_longer_wait_than_callers_have_leaves_them_to_the_next_one() -> None:
    async with two_nims() as (wire, first):
        first.fault = Fault(status=429, headers={"Retry-After": "10"})

        served = await embed_in_time(wire, "a text")

        assert served == "nim-2"


async def retire_the_nim(wire: Wire) -> Wire:
    """Return a server over the same store that has only the embedder of the space `clip:local`."""
    successor = await start_wire(FakeEmbedder(name="clip", space="clip:local"))
    successor.store._collections = wire.store._collections
    successor.store._objects = wire.store._objects
    return successor


async def test_imports_and_updates_go_on_when_the_model_of_an_old_named_vector_is_retired(wire: Wire) -> None:
    await create_two_spaces(wire)
    (old,) = (await import_(wire, obj(title="a cat"))).results
    successor = await retire_the_nim(wire)
    try:
        (new,) = (await import_(successor, obj(title="a dog"))).results
        request = object_pb.UpdateObjectRequest(collection="Pictures", object=obj(old.id, title="a tiger"))
        updated = await successor.objects.UpdateObject(request)
        stored = await successor.objects.GetObject(
            object_pb.GetObjectRequest(collection="Pictures", id=old.id, output={"vectors": ["local", "remote"]})
        )

        for vectors in (new.stored.vectors, updated.stored.vectors):
            assert [(each.name, each.origin) for each in vectors] == [
                ("local", object_pb.VECTOR_ORIGIN_COMPUTED),
                ("remote", object_pb.VECTOR_ORIGIN_MISSING),
            ]
            assert unpack(vectors[1].error).reason == "EMBEDDING_SPACE_MISMATCH"
        assert list(stored.object.vectors) == ["local"], "the vector of the old words would go on finding the object"
    finally:
        await stop_wire(successor)


async def test_embedding_unchanged_objects_anew_keeps_the_vectors_that_nobody_can_make(wire: Wire) -> None:
    await create_two_spaces(wire)
    await import_(wire, obj(title="a cat"))
    successor = await retire_the_nim(wire)
    try:
        request = object_pb.ImportObjectsRequest(
            collection="Pictures", objects=[obj(title="a cat")], embed_unchanged=True
        )
        (again,) = (await successor.objects.ImportObjects(request)).results
        stored = await successor.objects.GetObject(
            object_pb.GetObjectRequest(collection="Pictures", id=again.id, output={"vectors": ["local", "remote"]})
        )
    finally:
        await stop_wire(successor)

    assert [(each.name, each.origin) for each in again.stored.vectors] == [
        ("local", object_pb.VECTOR_ORIGIN_COMPUTED),
        ("remote", object_pb.VECTOR_ORIGIN_KEPT),
    ]
    assert set(stored.object.vectors) == {"local", "remote"}


async def test_a_change_beside_a_vector_that_nobody_can_make_is_stored(wire: Wire) -> None:
    await create_two_spaces(wire, local="image_fields", remote="text_fields")
    successor = await retire_the_nim(wire)
    try:
        (result,) = (await import_(successor, obj(title="a cat", image=RED))).results
        blue = obj(result.id, image=picture((0, 0, 255)))
        await successor.objects.UpdateObject(object_pb.UpdateObjectRequest(collection="Pictures", object=blue))

        title = obj(result.id, title="a dog")
        failure = await failure_of(
            successor.objects.UpdateObject(object_pb.UpdateObjectRequest(collection="Pictures", object=title))
        )
        only = await failure_of(import_(successor, obj(title="words only")))

        assert (failure.reason, only.reason) == ("EMBEDDING_SPACE_MISMATCH", "EMBEDDING_SPACE_MISMATCH")
    finally:
        await stop_wire(successor)


async def test_a_backfill_fills_what_this_server_can_unless_a_vector_is_named(wire: Wire) -> None:
    await create_two_spaces(wire)
    successor = await retire_the_nim(wire)
    try:
        await import_(successor, obj(title="a cat"))
        successor.embedder.calls.clear()

        answers = [
            each
            async for each in successor.objects.BackfillVectors(object_pb.BackfillVectorsRequest(collection="Pictures"))
        ]
        named = object_pb.BackfillVectorsRequest(collection="Pictures", vectors=["remote"])
        failure = await failure_of(successor.objects.BackfillVectors(named).read())

        assert [(each.seen, each.filled, len(each.failures)) for each in answers] == [(1, 0, 0)]
        assert failure.reason == "EMBEDDING_SPACE_MISMATCH"
    finally:
        await stop_wire(successor)


async def test_objects_with_their_own_vectors_are_stored_while_no_embedder_works(wire: Wire) -> None:
    await create_two_spaces(wire)
    fail(wire, "nim", "nim-2", "clip")
    own = obj(title="with its own vectors")
    for name in ("local", "remote"):
        own.vectors[name].data = np.ones(8, "<f4").tobytes()

    response = await import_(wire, own, obj(title="to be embedded"))

    assert [result.WhichOneof("outcome") for result in response.results] == ["stored", "error"]
    failure = unpack(response.results[1].error)
    assert (failure.reason, failure.retry_s) == ("EMBEDDER_UNAVAILABLE", 3)
