"""ProjectObjects over the wire: maps of what a store in memory holds."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from grpc import StatusCode
from numpy.typing import NDArray

from embedders.contract import QUERY, TextInput
from service.core.projecting import neighbours, projector
from service.domain import StoredObject, TenantActivity
from service.rpc.search.projections import MAX_SAMPLE
from tests.conftest import Started, assert_close
from tests.fakes.embedder import picture
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from tests.service.rpc.search.test_search import condition, fill
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as pb

RED = picture((255, 0, 0))


def wanted(**fields: Any) -> pb.ProjectObjectsRequest:
    return pb.ProjectObjectsRequest(**{"collection": "Pictures", **fields})


def points_of(response: pb.ProjectObjectsResponse) -> NDArray[np.float32]:
    return np.frombuffer(response.coordinates, "<f4").reshape(len(response.ids), 2)


async def crowd(wire: Wire, count: int = 60, tenant: str = "") -> list[UUID]:
    """Store objects with vectors of their own, and return their ids in ascending order."""
    random = np.random.default_rng(count)
    ids = sorted(uuid5(UUID(int=count), str(number)) for number in range(count))
    name = f"Pictures/{tenant}" if tenant else "Pictures"
    within = wire.store._objects.setdefault(name, {})
    for number, id_ in enumerate(ids):
        vector = random.standard_normal(8).astype(np.float32) * 0.7 ** np.arange(8, dtype=np.float32)
        properties = {"title": f"number {number}", "year": 2000 + number}
        within[id_] = StoredObject(id_, properties, vectors={"default": vector})
    return ids


async def test_a_map_has_a_point_for_each_object_where_numpys_decomposition_puts_it(wire: Wire) -> None:
    await wire.create_pictures()
    ids = await crowd(wire)

    response = await wire.search.ProjectObjects(wanted(properties=["year", "title", "taken"]))

    assert response.ids == [str(each) for each in ids]
    vectors = np.stack([wire.store._objects["Pictures"][each].vectors["default"] for each in ids]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = vectors - vectors.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    expected, points = centred @ axes[:2].T, points_of(response)
    assert_close(points * np.sign((points * expected).sum(axis=0)), expected, 1e-4)
    assert_close(response.explained_variance, np.square(lengths[:2]) / np.square(lengths).sum(), 1e-4)
    columns = {each.name: MessageToDict(each.values) for each in response.properties}
    assert list(columns) == ["year", "title", "taken"]
    assert columns["year"] == [2000 + number for number in range(60)]
    assert columns["taken"] == [None] * 60
    assert (response.target_vector, response.space, response.method) == ("default", "fake", pb.PROJECTION_METHOD_PCA)
    assert (response.total_count, response.missing_count, response.HasField("embedder")) == (60, 0, False)


async def test_an_input_lands_on_the_object_that_was_made_of_it_and_is_nearest_to_it(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog", "a bird")
    wire.embedder.calls.clear()

    response = await wire.search.ProjectObjects(
        wanted(inputs=[{"text": "a dog"}, {"image": {"content": RED}}], properties=["title"])
    )

    titles = [each.string_value for each in response.properties[0].values.values]
    dog, red = response.inputs
    for placed, title in ((dog, "a dog"), (red, "")):
        index = titles.index(title)
        assert placed.nearest[0] == index
        assert sorted(placed.nearest) == [0, 1, 2, 3]
        assert_close([placed.x, placed.y], points_of(response)[index], 1e-5)
    assert (response.embedder.name, response.embedder.space) == ("fake", "fake")
    assert len(wire.embedder.calls) == 1
    assert wire.embedder.calls[0][1] == QUERY


@pytest.mark.parametrize("distance", [1, 2, 3, 4])
async def test_nearest_objects_are_those_of_a_search_whatever_the_distance(wire: Wire, distance: int) -> None:
    await wire.create_pictures(index={"distance": distance})
    await crowd(wire, 30)

    response = await wire.search.ProjectObjects(wanted(inputs=[{"text": "a cat"}]))
    found = await wire.search.SearchObjects(
        pb.SearchObjectsRequest(collection="Pictures", near_text={"concepts": ["a cat"]}, limit=10)
    )

    nearest = [response.ids[each] for each in response.inputs[0].nearest]
    by_search = [hit.object.id for hit in found.hits]
    # By Manhattan distance others can be nearer than by the Euclidean one.
    assert nearest == by_search or (distance == 4 and len(set(nearest) & set(by_search)) >= 5)


async def test_a_filter_and_the_size_bound_which_objects_are_drawn(wire: Wire) -> None:
    await wire.create_pictures()
    ids = await crowd(wire)
    early = condition("year", "LESS", integer=2010)

    filtered = await wire.search.ProjectObjects(wanted(**early))
    few = await wire.search.ProjectObjects(wanted(sample_size=20))

    assert filtered.ids == [str(each) for each in ids[:10]]
    assert filtered.total_count == 10
    assert (len(few.ids), few.total_count) == (20, 60)
    assert set(few.ids) < {str(each) for each in ids}


async def test_a_map_is_of_one_tenant(wire: Wire) -> None:
    await wire.create_pictures()
    wire.store.tenants["Pictures"] = dict.fromkeys(("anna", "ben"), TenantActivity.ACTIVE)
    anna, ben = await crowd(wire, 5, "anna"), await crowd(wire, 7, "ben")

    maps = [await wire.search.ProjectObjects(wanted(scope={"tenant": name})) for name in ("anna", "ben", "anna")]
    none = await failure_of(wire.search.ProjectObjects(wanted()))
    unknown = await failure_of(wire.search.ProjectObjects(wanted(scope={"tenant": "carl"})))

    assert [list(each.ids) for each in maps] == [[str(id_) for id_ in ids] for ids in (anna, ben, anna)]
    assert (none.reason, none.fields) == ("INVALID_INPUT", ["scope.tenant"])
    assert unknown.reason == "TENANT_NOT_FOUND"


async def test_an_empty_collection_has_an_empty_map_and_a_place_for_an_input(wire: Wire) -> None:
    await wire.create_pictures()

    response = await wire.search.ProjectObjects(wanted(inputs=[{"text": "a cat"}], properties=["title"]))

    assert (list(response.ids), response.coordinates, response.total_count) == ([], b"", 0)
    assert response.inputs == [pb.PlacedInput()]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"collection": ""}, [("collection", "INVALID_INPUT")]),
        ({"sample_size": MAX_SAMPLE + 1}, [("sample_size", "INVALID_INPUT")]),
        ({"sample_size": -1, "method": 9}, [("sample_size", "INVALID_INPUT"), ("method", "INVALID_INPUT")]),
        ({"target_vector": "other"}, [("target_vector", "UNKNOWN_VECTOR")]),
        (
            {"properties": ["titel", "image", "place", "year", "year"]},
            [
                ("properties[0]", "UNKNOWN_PROPERTY"),
                ("properties[1]", "INVALID_PROPERTY"),
                ("properties[2]", "INVALID_PROPERTY"),
                ("properties[4]", "INVALID_INPUT"),
            ],
        ),
        ({"properties": ["year"] * 21}, [("properties", "INVALID_INPUT")]),
        ({"inputs": [{"text": "a"}] * 21}, [("inputs", "BATCH_TOO_LARGE")]),
        ({"inputs": [{}]}, [("inputs[0]", "INVALID_INPUT")]),
        ({"inputs": [{"text": " "}, {"text": "a"}]}, [("inputs[0].text", "INVALID_INPUT")]),
        ({"inputs": [{"image": {"content": b"GIF"}}]}, [("inputs[0].image.content", "IMAGE_UNDECODABLE")]),
        (
            {"target_vector": "other", "inputs": [{"text": "a b c d e f g h i j"}, {"text": ""}]},
            [("target_vector", "UNKNOWN_VECTOR"), ("inputs[1].text", "INVALID_INPUT")],
        ),
    ],
)
async def test_what_does_not_fit_is_named_and_nothing_is_drawn(
    wire: Wire, fields: dict[str, Any], expected: Sequence[tuple[str, str]]
) -> None:
    await fill(wire, "a cat")
    wire.store.calls.clear()

    failure = await failure_of(wire.search.ProjectObjects(wanted(**fields)))

    assert failure.code is StatusCode.INVALID_ARGUMENT
    assert list(zip(failure.fields, failure.reasons, strict=True)) == expected
    assert "count_objects" not in wire.store.calls


async def test_a_wrong_filter_is_named(wire: Wire) -> None:
    await fill(wire, "a cat")

    failure = await failure_of(wire.search.ProjectObjects(wanted(**condition("titel", "EQUAL", text="a"))))

    assert failure.reason == "UNKNOWN_PROPERTY"


async def test_inputs_need_an_embedder_of_the_collections_space_and_objects_alone_do_not(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    there = wire.store._collections["Pictures"]
    other = there.vectors[0].space
    assert other is not None
    bound = [type(other)("another", 8, "another/model"), None]

    failures = []
    for space in bound:
        vector = type(there.vectors[0])(**{**_fields(there.vectors[0]), "space": space})
        wire.store._collections["Pictures"] = type(there)(**{**_fields(there), "vectors": (vector,)})
        assert len((await wire.search.ProjectObjects(wanted())).ids) == 3
        failures.append(await failure_of(wire.search.ProjectObjects(wanted(inputs=[{"text": "a"}]))))

    assert [each.code for each in failures] == [StatusCode.FAILED_PRECONDITION] * 2
    assert [each.reason for each in failures] == ["EMBEDDING_SPACE_MISMATCH", "COLLECTION_NOT_BOUND"]


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


async def test_a_map_is_kept_until_something_has_changed(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")

    async def reads() -> int:
        wire.store.calls.clear()
        last.append(await wire.search.ProjectObjects(wanted(properties=["title"])))
        return wire.store.calls.count("search")

    last: list[pb.ProjectObjectsResponse] = []
    assert await reads() > 0
    assert await reads() == 0
    assert last[0] == last[1]

    await wire.objects.ImportObjects(
        object_pb.ImportObjectsRequest(collection="Pictures", objects=[{"properties": {"title": "a bird"}}])
    )
    assert await reads() > 0
    assert len(last[-1].ids) == 4
    change = object_pb.DataObject(id=last[-1].ids[0], properties={"title": "a fish"})
    await wire.objects.UpdateObject(object_pb.UpdateObjectRequest(collection="Pictures", object=change))
    assert await reads() > 0
    assert last[-1].properties[0].values.values[0].string_value == "a fish"
    assert await reads() == 0
    # An object that another program deletes is seen by the number of objects.
    del wire.store._objects["Pictures"][UUID(last[-1].ids[0])]
    assert await reads() > 0
    assert len(last[-1].ids) == 3


async def test_a_map_that_nobody_changed_is_made_again_after_five_minutes() -> None:
    clock = {"s": 0.0}
    wire = await start_wire()
    made = wire.server._projector
    made._made = projector.TTLCache(
        projector.MAX_CACHED_BYTES, projector.CACHED_S, lambda: clock["s"], projector._size_of
    )
    await fill(wire, "a cat")

    counts = []
    for clock["s"] in (0.0, 299.0, 301.0):
        wire.store.calls.clear()
        await wire.search.ProjectObjects(wanted())
        counts.append(wire.store.calls.count("search"))
    await stop_wire(wire)

    assert (counts[0] > 0, counts[1], counts[2] > 0) == (True, 0, True)


async def test_maps_are_kept_up_to_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    # A vector has 8 values of 4 bytes.
    monkeypatch.setattr(projector, "MAX_CACHED_BYTES", 2 * 40 * 32)
    wire = await start_wire()
    await wire.create_pictures()
    await crowd(wire, 100)

    async def reads(size: int) -> bool:
        wire.store.calls.clear()
        await wire.search.ProjectObjects(wanted(sample_size=size))
        return "search" in wire.store.calls

    assert [await reads(size) for size in (39, 40, 39, 40)] == [True, True, False, False]
    assert [await reads(size) for size in (41, 39)] == [True, True]
    # One that is larger than all the room is made each time.
    assert [await reads(size) for size in (100, 100)] == [True, True]
    await stop_wire(wire)


class Slow:
    """Makes maps wait until they may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = asyncio.Event()
        self.running = 0
        self.most = 0
        read = projector.read_sample

        async def slow(*arguments: Any) -> Any:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self.go.wait()
                return await read(*arguments)
            finally:
                self.running -= 1

        monkeypatch.setattr(projector, "read_sample", slow)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_maps_are_made_one_after_the_other_and_more_callers_than_may_wait_are_refused(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(wire, "a cat")
    slow = Slow(monkeypatch)
    waiting = wire.server._projector._waiting
    calls = [
        asyncio.ensure_future(wire.search.ProjectObjects(wanted(sample_size=size + 1)))
        for size in range(projector.MAX_WAITING_MAPS + 1)
    ]
    await until(lambda: slow.running and sum(waiting.values()) == projector.MAX_WAITING_MAPS)

    failure = await failure_of(wire.search.ProjectObjects(wanted(sample_size=500)))
    slow.go.set()
    responses = await asyncio.gather(*calls)

    assert (failure.code, failure.reason) == (StatusCode.UNAVAILABLE, "OVERLOADED")
    assert failure.retry_s is not None
    assert [len(each.ids) for each in responses] == [1, *[2] * projector.MAX_WAITING_MAPS]
    assert slow.most == 1


async def test_a_caller_that_leaves_gives_its_turn_to_the_next_one(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(wire, "a cat")
    slow = Slow(monkeypatch)
    waiting = wire.server._projector._waiting
    first = wire.search.ProjectObjects(wanted())
    await until(lambda: slow.running)
    second = asyncio.ensure_future(wire.search.ProjectObjects(wanted(sample_size=3)))
    await until(lambda: sum(waiting.values()) == 1)

    first.cancel()
    await until(lambda: not sum(waiting.values()))
    slow.go.set()

    assert len((await second).ids) == 2


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let UMAP's process hang."""
    monkeypatch.setattr(neighbours, "MODULE", "tests.fakes.stuck_map")
    monkeypatch.setattr(projector, "check_umap", lambda: None)


async def test_umaps_process_ends_with_its_caller(wire: Wire, stuck: None, started: Started) -> None:
    await fill(wire, "a cat", "a dog", "a bird")

    call = wire.search.ProjectObjects(wanted(method=2))
    await until(started)
    call.cancel()
    await until(lambda: not started())
    response = await wire.search.ProjectObjects(wanted())

    assert len(response.ids) == 4


async def test_a_map_by_umap_that_takes_too_long_is_given_up(
    wire: Wire, stuck: None, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(wire, "a cat", "a dog", "a bird")
    monkeypatch.setattr(neighbours, "UMAP_TIMEOUT_S", 0.3)

    failure = await failure_of(wire.search.ProjectObjects(wanted(method=2)))

    assert (failure.code, failure.reason) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert not started()


async def test_a_process_of_umap_that_fails_is_an_error_of_the_server(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(wire, "a cat", "a dog", "a bird")
    monkeypatch.setattr(neighbours, "MODULE", "tests.fakes.no_such_module")
    monkeypatch.setattr(projector, "check_umap", lambda: None)

    failure = await failure_of(wire.search.ProjectObjects(wanted(method=2)))

    assert (failure.code, failure.reason) == (StatusCode.INTERNAL, "INTERNAL")


async def test_without_its_package_umap_is_refused_with_the_name_of_the_extra(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(wire, "a cat")
    monkeypatch.setattr(neighbours, "find_spec", lambda _: None)

    failure = await failure_of(wire.search.ProjectObjects(wanted(method=2)))

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "PACKAGE_MISSING")
    assert "vecgate[map]" in failure.message


async def test_the_same_text_is_embedded_with_the_callers_wish_to_cut_it(wire: Wire) -> None:
    await fill(wire, "a cat")
    wire.embedder.calls.clear()
    long = "one two three four five six seven eight nine"

    refused = await failure_of(wire.search.ProjectObjects(wanted(inputs=[{"text": long}])))
    await wire.search.ProjectObjects(wanted(inputs=[{"text": long}], truncate=True))

    assert (refused.reason, refused.fields) == ("TEXT_TOO_LONG", ["inputs[0].text"])
    assert wire.embedder.calls[-1] == ([TextInput(long, True)], QUERY)
