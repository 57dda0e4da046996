import asyncio
from datetime import UTC
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode
from structlog.testing import capture_logs

from embedders.contract import QUERY, TextInput
from embedders.errors import EmbedderUnavailable
from service.core.searching import unseen
from service.domain import Collection, Hit, NamedVector, SearchSpec, Space, StoredObject
from tests.conftest import assert_close
from tests.fakes.embedder import picture
from tests.fakes.shaping import SOME_TIME
from tests.fakes.store import FakeStore
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as pb
from vecgate.v1.input_pb2 import Image
from vecgate.v1.vector_pb2 import Vector

RED = picture((255, 0, 0))


async def fill(wire: Wire, *titles: str) -> None:
    """Store one object for each title, and the red picture."""
    await wire.create_pictures()
    objects = [object_pb.DataObject(images={"image": Image(content=RED)})]
    for title in titles:
        properties = Struct()
        properties.update({"title": title})
        objects.append(object_pb.DataObject(properties=properties))
    await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=objects))


def search(**fields: object) -> pb.SearchObjectsRequest:
    return pb.SearchObjectsRequest(collection="Pictures", **fields)


def condition(name: str, operator: str, **value: object) -> dict[str, Any]:
    """Return the field `filters` with one condition."""
    return {"filters": {"condition": {"property": name, "operator": f"FILTER_OPERATOR_{operator}", "value": value}}}


CATS: dict[str, Any] = {"near_text": {"concepts": ["a cat"]}}


async def test_thresholds_bound_how_far_hits_are(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")

    near = await wire.search.SearchObjects(search(distance=0.001, **CATS))
    certain = await wire.search.SearchObjects(search(certainty=0.999, auto_limit=3, **CATS))

    for response in (near, certain):
        assert [hit.object.properties["title"] for hit in response.hits] == ["a cat"]
    assert wire.store.options[-1].auto_limit == 3


async def test_a_certainty_needs_cosine_distance(wire: Wire) -> None:
    await wire.create_pictures(index={"distance": 2})

    failure = await failure_of(wire.search.SearchObjects(search(certainty=0.5, **CATS)))

    assert (failure.reason, failure.fields) == ("INVALID_INPUT", ["certainty"])


async def test_an_object_finds_itself_first_and_embeds_nothing(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    ids = {hit.object.properties["title"]: hit.object.id for hit in await titled(wire)}
    wire.embedder.calls.clear()

    response = await wire.search.SearchObjects(search(near_object={"id": ids["a dog"]}))

    assert response.hits[0].object.id == ids["a dog"]
    assert_close(response.hits[0].distance, 0)
    assert not response.HasField("embedder")
    assert wire.embedder.calls == []


async def test_an_object_that_is_not_there_or_has_no_such_vector_finds_nothing(wire: Wire) -> None:
    await wire.create_pictures()
    properties = Struct()
    properties.update({"year": 1})
    bare = object_pb.DataObject(id=str(UUID(int=5)), properties=properties)
    await wire.objects.ImportObjects(object_pb.ImportObjectsRequest(collection="Pictures", objects=[bare]))

    missing = await failure_of(wire.search.SearchObjects(search(near_object={"id": str(UUID(int=9))})))
    bare_failure = await failure_of(wire.search.SearchObjects(search(near_object={"id": str(UUID(int=5))})))

    assert (missing.code, missing.reason) == (StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND")
    assert (bare_failure.reason, bare_failure.fields) == ("UNKNOWN_VECTOR", ["near_object.id"])


async def test_words_are_found_without_embedding_anything(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog", "a cat and a dog")
    wire.embedder.calls.clear()

    one = await wire.search.SearchObjects(search(bm25={"query": "cat", "properties": [{"name": "title", "weight": 2}]}))
    both = await wire.search.SearchObjects(search(bm25={"query": "cat dog", "operator": 2}))

    assert {hit.object.properties["title"] for hit in one.hits} == {"a cat", "a cat and a dog"}
    assert [hit.object.properties["title"] for hit in both.hits] == ["a cat and a dog"]
    assert both.hits[0].score > 0
    assert not both.hits[0].HasField("distance")
    assert wire.embedder.calls == []


async def test_a_hybrid_search_embeds_its_words_or_takes_another_vector_side(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    wire.embedder.calls.clear()
    words = {"query": "dog"}

    by_words = await wire.search.SearchObjects(search(hybrid={"bm25": words, "alpha": 0.01}))
    assert wire.embedder.calls == [([TextInput("dog")], QUERY)]
    by_vector = await wire.search.SearchObjects(
        search(hybrid={"bm25": words, "alpha": 1.0, "near_image": {"image": Image(content=RED)}})
    )
    vector = Vector(data=wire.embedder.vector("a cat").tobytes())
    alone = await wire.search.SearchObjects(search(hybrid={"near_vector": {"vector": vector}}))

    assert by_words.hits[0].object.properties["title"] == "a dog"
    assert by_words.embedder.name == "fake"
    assert "title" not in by_vector.hits[0].object.properties
    assert alone.hits[0].object.properties["title"] == "a cat"
    assert alone.hits[0].HasField("score")


@pytest.mark.parametrize(
    "side", [{}, {"near_text": {"concepts": ["a cat"]}}, {"near_image": {"image": Image(content=RED)}}], ids=str
)
@pytest.mark.parametrize("targets", [{}, {"target_vectors": ["default"]}], ids=str)
async def test_a_hybrid_search_by_words_alone_embeds_nothing_and_needs_no_embedder(
    wire: Wire, side: dict[str, Any], targets: dict[str, Any]
) -> None:
    await fill(wire, "a cat", "a dog")
    wire.embedder.calls.clear()
    wire.embedder.failure = EmbedderUnavailable("down")

    answer = await wire.search.SearchObjects(search(hybrid={"bm25": {"query": "dog"}, "alpha": 0.0, **side}, **targets))

    assert [hit.object.properties["title"] for hit in answer.hits] == ["a dog"]
    assert not answer.HasField("embedder")
    assert wire.embedder.calls == []


async def test_the_largest_distance_of_a_hybrid_search_needs_a_vector_whatever_its_share(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    wire.embedder.calls.clear()

    await wire.search.SearchObjects(search(hybrid={"bm25": {"query": "dog"}, "alpha": 0.0, "max_vector_distance": 2.0}))

    assert wire.embedder.calls == [([TextInput("dog")], QUERY)]


async def titled(wire: Wire) -> list[pb.Hit]:
    """Return the objects that have a title."""
    response = await wire.search.SearchObjects(search(near_image={"image": Image(content=RED)}))
    return [hit for hit in response.hits if "title" in hit.object.properties]


async def test_a_filter_narrows_a_search_and_a_listing(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog", "a bird")
    filters = condition("title", "CONTAINS_ANY", texts={"values": ["cat", "bird"]})

    found = await wire.search.SearchObjects(search(near_text={"concepts": ["a dog"]}, **filters))
    listed = await wire.objects.ListObjects(object_pb.ListObjectsRequest(collection="Pictures", **filters))

    for objects in ([hit.object for hit in found.hits], listed.objects):
        assert {each.properties["title"] for each in objects} == {"a cat", "a bird"}


async def test_a_text_finds_its_own_object_first_with_distance_and_certainty(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog", "a bird")

    response = await wire.search.SearchObjects(search(near_text={"concepts": ["a dog"]}, limit=2))

    assert len(response.hits) == 2
    assert response.hits[0].object.properties["title"] == "a dog"
    assert_close([response.hits[0].distance, response.hits[0].certainty], [0, 1])
    assert response.hits[0].distance <= response.hits[1].distance
    assert (response.embedder.name, response.embedder.space, response.embedder.dimension) == ("fake", "fake", 8)
    assert not response.hits[0].object.images
    assert not response.hits[0].object.vectors


async def test_a_query_is_embedded_as_a_query(wire: Wire) -> None:
    await fill(wire, "a cat")
    wire.embedder.calls.clear()

    await wire.search.SearchObjects(search(near_text={"concepts": ["x"], "truncate": True}))

    assert wire.embedder.calls == [([TextInput("x", truncate=True)], QUERY)]


async def test_a_picture_finds_itself_and_comes_back_when_asked_for(wire: Wire) -> None:
    await fill(wire, "a cat")

    response = await wire.search.SearchObjects(
        search(near_image={"image": Image(content=RED)}, output={"images": ["image"], "vectors": ["default"]}, limit=1)
    )

    assert response.hits[0].object.images["image"].content == RED
    assert_close(np.frombuffer(response.hits[0].object.vectors["default"].data, "<f4"), wire.embedder.vector(RED))


async def test_a_vector_finds_the_object_of_that_vector_and_names_no_embedder(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    data = wire.embedder.vector("a dog").tobytes()

    response = await wire.search.SearchObjects(search(near_vector={"vector": Vector(data=data), "space": "fake"}))

    assert response.hits[0].object.properties["title"] == "a dog"
    assert not response.HasField("embedder")


async def test_several_texts_search_the_mean_of_their_vectors(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")
    mean = wire.embedder.vector("a cat") + wire.embedder.vector("a dog")
    mean /= np.linalg.norm(mean)

    response = await wire.search.SearchObjects(search(near_text={"concepts": ["a cat", "a dog"]}))

    by_title = {hit.object.properties["title"]: hit for hit in response.hits if "title" in hit.object.properties}
    assert_close(by_title["a cat"].distance, 1 - mean @ wire.embedder.vector("a cat"))


async def test_limit_and_offset_are_a_page_of_the_hits(wire: Wire) -> None:
    await fill(wire, *"abcdefghijklm")

    everything = await wire.search.SearchObjects(search(limit=50, **CATS))
    page = await wire.search.SearchObjects(search(limit=3, offset=2, output={"properties": ["title"]}, **CATS))
    default = await wire.search.SearchObjects(search(**CATS))

    ids = [hit.object.id for hit in everything.hits]
    assert len(ids) == len(set(ids)) == 14
    assert [hit.object.id for hit in page.hits] == ids[2:5]
    assert [hit.object.id for hit in default.hits] == ids[:10]


async def test_a_vector_that_says_it_is_of_another_space_is_refused(wire: Wire) -> None:
    await fill(wire, "a cat")
    vector = Vector(data=wire.embedder.vector("a cat").tobytes())

    failure = await failure_of(wire.search.SearchObjects(search(near_vector={"vector": vector, "space": "other"})))

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "EMBEDDING_SPACE_MISMATCH")
    assert (failure.metadata["bound_space"], failure.metadata["given_space"]) == ("fake", "other")


@pytest.mark.parametrize(
    ("spaces", "reason"),
    [(("fake", "fake"), "EMBEDDING_SPACE_MISMATCH"), (("fake", "third"), "EMBEDDING_SPACE_MISMATCH"),
     (("fake", "other"), ""), (("other", "other"), "UNKNOWN_VECTOR")],
)  # fmt: skip
async def test_a_vector_of_a_space_that_no_named_vector_has_is_refused_by_the_default_one(
    wire: Wire, spaces: tuple[str, str], reason: str
) -> None:
    vectors = [NamedVector(f"of{at}", Space(space, 8, "fake/model")) for at, space in enumerate(("fake", *spaces))]
    await wire.store.create_collection(Collection("Several", (), tuple(vectors), default_vector="of0"))
    vector = {"vector": {"data": wire.embedder.vector("a cat").tobytes()}, "space": "other"}
    request = pb.SearchObjectsRequest(collection="Several", near_vector=vector)

    if reason:
        assert (await failure_of(wire.search.SearchObjects(request))).reason == reason
    else:
        assert not (await wire.search.SearchObjects(request)).hits


async def test_a_collection_of_several_named_vectors_needs_a_target(wire: Wire) -> None:
    vectors = (NamedVector("one", None), NamedVector("two", None))
    await wire.store.create_collection(Collection("Pictures", (), vectors))

    failure = await failure_of(wire.search.SearchObjects(search(near_text={"concepts": ["a"]})))

    assert (failure.reason, failure.fields) == ("UNKNOWN_VECTOR", ["target_vectors"])
    assert "one, two" in failure.message


async def test_a_collection_made_elsewhere_cannot_be_searched_by_words(wire: Wire) -> None:
    await wire.store.create_collection(Collection("Pictures", (), (NamedVector("one", None),)))

    failure = await failure_of(wire.search.SearchObjects(search(near_text={"concepts": ["a"]})))

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "COLLECTION_NOT_BOUND")


async def test_a_collection_that_is_not_there_is_not_found(wire: Wire) -> None:
    failure = await failure_of(wire.search.SearchObjects(search(near_text={"concepts": ["a"]})))

    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND")


async def test_hits_come_in_groups_of_a_property(wire: Wire) -> None:
    await fill(wire, "a dog", "a bird")
    objects = [
        StoredObject(UUID(int=n), {"title": "a cat"}, {}, {"default": wire.embedder.vector("a cat")}) for n in range(3)
    ]
    await wire.store.put_objects("Pictures", objects)
    by_title = {"property": "title", "number_of_groups": 2, "objects_per_group": 2}

    response = await wire.search.SearchObjects(search(group_by=by_title, output={"properties": ["year"]}, **CATS))

    cats, others = response.groups
    assert (cats.name, cats.object_count) == ("a cat", 2)
    assert_close([cats.min_distance, cats.max_distance], [0, 0])
    assert not cats.HasField("rerank_score")
    assert others.min_distance > 0
    assert [hit.group for hit in response.hits] == ["a cat", "a cat", others.name]


async def test_hits_say_when_they_came_and_how_they_were_scored(wire: Wire) -> None:
    await fill(wire, "a cat", "a dog")

    dated = await wire.search.SearchObjects(search(return_times=True, **CATS))
    scored = await wire.search.SearchObjects(search(bm25={"query": "cat"}, return_explain_score=True))
    plain = await wire.search.SearchObjects(search(**CATS))

    assert all(hit.creation_time.ToDatetime(UTC) == SOME_TIME for hit in dated.hits)
    assert all(hit.update_time.ToDatetime(UTC) == SOME_TIME for hit in dated.hits)
    assert [hit.explain_score for hit in scored.hits] == ["in memory"]
    assert not any(hit.HasField("creation_time") or hit.explain_score for hit in plain.hits)


async def test_the_log_says_that_an_index_has_lost_what_a_search_should_find(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen, "PAUSE_S", 0)
    await fill(wire, "a cat", "a dog")
    wire.store.lost = {(id_, "default") for id_ in wire.store._objects["Pictures"]}

    with capture_logs() as lines:
        response = await wire.search.SearchObjects(search(**CATS))
        await asyncio.gather(*looks())

    assert list(response.hits) == []
    (line,) = (each for each in lines if each["event"] == "search_finds_no_object")
    assert (line["collection"], line["vector"]) == ("Pictures", "default")
    assert "backfill COLLECTION --verify" in line["reason"]


def looks() -> list[asyncio.Task[Any]]:
    return [each for each in asyncio.all_tasks() if each.get_name() == "look-for-unseen"]


async def test_no_search_waits_for_a_store_that_hangs_while_it_is_looked_into_and_a_stop_ends_that() -> None:
    store = HangingStore()
    wire = await start_wire(store=store)
    await wire.create_pictures()

    response = await wire.search.SearchObjects(search(**CATS))
    await store.hanging.wait()
    under_way = looks()
    await stop_wire(wire)

    assert list(response.hits) == []
    assert [each.cancelled() for each in under_way] == [True]


class HangingStore(FakeStore):
    """Answers searches by vector, and no listing.

    Attributes:
        hanging: set once it is asked for one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hanging = asyncio.Event()

    async def search(self, collection: str, spec: SearchSpec) -> list[Hit]:
        if spec.query is None:
            self.hanging.set()
            await asyncio.Event().wait()
        return await super().search(collection, spec)
