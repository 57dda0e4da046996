"""Weights of an object's fields over the wire: what others would give, on collections whose truth is known."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode

from embedders.contract import Modality, Priority, Purpose
from service.core.evaluating import evaluator, fields
from service.core.evaluating.fields import FieldSample, FieldSampler
from service.core.evaluating.task import Stage, Task
from service.core.pictures import Pictures
from service.domain import Scope
from service.errors import ImageUnreachable
from tests.conftest import assert_close
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Wire, over_every_wire, start_wire, stop_wire
from tests.service.rpc.evaluation.test_evaluation import evaluate, kinds, measures, refused, wanted
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import evaluation_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb

COUNT, DIMENSION = 60, 12
PICTURES = [picture((4 * number, 100, 50)) for number in range(COUNT)]
TITLES = [f"title {number}" for number in range(COUNT)]
TAGS = [[f"tag {number}", f"other tag {number}"] for number in range(COUNT)]
ASKED = [f"query {number}" for number in range(COUNT)]
IDS = [str(UUID(int=number + 1)) for number in range(COUNT)]
QUERIES: Any = {
    "queries": [
        {"id": text, "input": {"text": text}, "answers": [{"name": id_}]} for text, id_ in zip(ASKED, IDS, strict=True)
    ]
}
LOW, HIGH = {"image": 0.1, "title": 0.9}, {"image": 0.9, "title": 0.1}
NATIVE = {"native": True, "base_url": "http://vecgate:8070"}
FIELDS: Any = {
    "image_fields": [{"name": "image", "weight": 0.6}],
    "text_fields": [{"name": "title", "weight": 0.3}, {"name": "tags", "weight": 0.1}],
}


def known(*, titles_tell: bool) -> dict[str | bytes, Any]:
    """Return vectors with which either titles or pictures have all the meaning, and the others none."""
    random = np.random.default_rng(1)
    meanings, noise = random.standard_normal((2, COUNT, DIMENSION))
    near = meanings + 0.5 * random.standard_normal((COUNT, DIMENSION))
    titles, pictures = (meanings, noise) if titles_tell else (noise, meanings)
    return {
        **dict(zip(TITLES, titles, strict=True)),
        **dict(zip(PICTURES, pictures, strict=True)),
        **dict(zip(ASKED, near, strict=True)),
    }


async def import_all(wire: Wire, change: Callable[[int, object_pb.DataObject], None] | None = None) -> None:
    objects = []
    for number in range(COUNT):
        each = object_pb.DataObject(id=IDS[number], properties={"title": TITLES[number], "year": number})
        each.properties["tags"] = TAGS[number]
        each.images["image"].content = PICTURES[number]
        if change is not None:
            change(number, each)
        objects.append(each)
    await send(wire, objects)


async def send(wire: Wire, objects: Sequence[object_pb.DataObject]) -> None:
    for start in range(0, len(objects), 20):
        request = object_pb.ImportObjectsRequest(collection="Pictures", objects=objects[start : start + 20])
        assert all(each.HasField("stored") for each in (await wire.objects.ImportObjects(request)).results)


async def told(*, titles_tell: bool) -> Wire:
    wire = await start_wire(FakeEmbedder(dimension=DIMENSION, known=known(titles_tell=titles_tell)))
    await wire.create_pictures()
    await import_all(wire)
    return wire


@pytest.fixture
async def titled(transport: str) -> AsyncIterator[Wire]:
    """A server with objects whose titles have all the meaning."""
    wire = await told(titles_tell=True)
    yield wire
    await stop_wire(wire)


async def test_the_suggested_weights_go_to_the_field_that_has_the_meaning() -> None:
    for titles_tell in (True, False):
        wire = await told(titles_tell=titles_tell)
        telling, other = ("title", "image") if titles_tell else ("image", "title")

        found = await evaluate(
            wire,
            queries=QUERIES,
            systems=[{"name": "present"}, {"name": "low", "field_weights": LOW}, {"field_weights": HIGH}],
            suggest_field_weights=True,
            limit=3,
        )
        await stop_wire(wire)

        weights = dict(found.weights.weights)
        assert weights[telling] >= 0.8
        assert_close(weights[telling] + weights[other], 1, 1e-9)
        assert found.weights.real
        assert found.weights.gain.low > 0
        assert len(found.weights.tried) == 11
        present, low, high = (measures(each)["ndcg"] for each in found.systems)
        best, worst = (low, high) if titles_tell else (high, low)
        assert worst < present < best
        assert found.systems[2].system.name == "image 0.9 title 0.1"
        assert_close(dict(found.systems[1].system.field_weights)["image"], 0.1, 1e-6)
        assert all(each.real for each in found.comparisons if each.measure == pb.EVALUATION_MEASURE_NDCG)
        assert ("WORSE", "image 0.9 title 0.1" if titles_tell else "low") in kinds(found)
        # Queries that win and lose most are shown as with other systems.
        assert len(found.queries) >= 5
        (finding,) = (each for each in found.findings if each.kind == pb.FINDING_KIND_FIELD_SAMPLE)
        assert "among 60 of 60 objects" in finding.message
        assert "title 1, image 1" in finding.message
        assert "vecgate objects backfill" in finding.message
        assert "without the fields of the weight 0" in finding.message
        assert not finding.fault


async def test_present_weights_between_the_tried_ones_are_tried_too(titled: Wire) -> None:
    asked: dict[str, Any] = {"queries": QUERIES, "limit": 3}
    around = [{"field_weights": {"image": image / 20, "title": 1 - image / 20}} for image in range(1, 20, 2)]
    tried = (await evaluate(titled, **asked, systems=around)).systems
    best = dict(max(tried, key=lambda each: measures(each)["ndcg"]).system.field_weights)

    found = await evaluate(titled, **asked, systems=[{"field_weights": best}], suggest_field_weights=True)

    assert len(found.weights.tried) == 12
    present = found.weights.tried[-1]
    assert_close(present.weights["image"], best["image"], 1e-6)
    assert present.ndcg == measures(found.systems[0])["ndcg"]
    assert max(each.ndcg for each in found.weights.tried) >= present.ndcg
    assert not found.weights.real


async def test_equal_weights_are_called_equal(titled: Wire) -> None:
    systems = [
        {"name": "present"},
        {"name": "again", "field_weights": {"image": 1, "title": 1}},
        {"name": "half", "field_weights": {"image": 0.5, "title": 0.5}},
    ]

    found = await evaluate(titled, queries=QUERIES, systems=systems)

    assert {(each.difference.mean, each.chance, each.real) for each in found.comparisons} == {(0, 1, False)}
    assert len({str(each.measures) for each in found.systems}) == 1


@over_every_wire
async def test_each_field_is_embedded_once_in_bulk_and_only_the_sample_is_searched(
    titled: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []
    search = titled.store.search

    async def noting(collection: str, spec: Any) -> Any:
        searched.append(spec.query)
        return await search(collection, spec)

    monkeypatch.setattr(titled.store, "search", noting)
    titled.embedder.calls.clear()
    queries = {"queries": QUERIES["queries"][:5]}

    found = await evaluate(
        titled, queries=queries, systems=[{}, {"name": "low", "field_weights": LOW}], field_sample_size=20
    )

    documents = [each for each, options in titled.embedder.calls if options.purpose is Purpose.DOCUMENT]
    assert sum(map(len, documents)) == 40
    assert {options.priority for _, options in titled.embedder.calls} == {Priority.BULK}
    assert (found.embedded_inputs, found.sample_object_count, found.object_count) == (45, 20, 60)
    assert found.searches == 10
    assert set(searched) == {None}
    assert not any(each.mean_time.ToTimedelta() for each in found.systems)
    assert not found.vectors


@pytest.mark.parametrize(
    "vector",
    [
        FIELDS,
        {"image_fields": [{"name": "image"}], "text_fields": [{"name": "title"}]},
        {"image_fields": [{"name": "image"}], "text_fields": [{"name": "title"}, {"name": "tags"}], **NATIVE},
        {
            "image_fields": [{"name": "image", "weight": 0.7}],
            "text_fields": [{"name": "title", "weight": 0.3}],
            **NATIVE,
        },
    ],
    ids=["weighted", "equal", "native", "native and weighted"],
)
async def test_the_present_weights_make_the_stored_vectors(wire: Wire, vector: Mapping[str, Any]) -> None:
    await wire.create_pictures(**vector)

    def without_some(number: int, each: object_pb.DataObject) -> None:
        if number % 3 == 0:
            del each.images["image"]
        if number % 3 == 1:
            del each.properties.fields["title"]

    await import_all(wire, without_some)
    collection = wire.pool.resolve(await wire.store.get_collection("Pictures"))
    (target,) = collection.vectors

    sample = await sampled(wire)

    places, rows = sample.combined({})
    assert places == list(range(COUNT))
    stored = wire.store._objects["Pictures"]
    expected = np.stack([stored[each].vectors["default"] for each in sample.ids])
    assert_close(rows, expected, 1e-6)
    weights = {each.name: 10 * each.weight for each in (*target.text_fields, *target.image_fields)}
    scaled = sample.combined(weights)[1]
    lengths = np.linalg.norm(rows, axis=1), np.linalg.norm(scaled, axis=1)
    if target.weighted:
        assert_close((rows * scaled).sum(axis=1) / lengths[0] / lengths[1], np.ones(COUNT), 1e-5)


async def sampled(wire: Wire) -> FieldSample:
    async def nothing(stage: Stage, done: int, total: int) -> None:
        pass

    collection = wire.pool.resolve(await wire.store.get_collection("Pictures"))
    sampler = FieldSampler(wire.store, wire.pool, Pictures(), Task(collection, Scope(), nothing))
    return await sampler.read(collection.vectors[0], [], COUNT, COUNT, "")


async def test_answers_by_value_are_in_the_sample(titled: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = {
        "queries": [{"id": ASKED[n], "input": {"text": ASKED[n]}, "answers": [{"name": str(n)}]} for n in (3, 50, 59)],
        "answer_property": "year",
    }

    asked: dict[str, Any] = {"systems": [{"field_weights": {"image": 0, "title": 1}}], "limit": 1}
    # As in a collection of more objects than are looked through for other evaluations without exact search.
    monkeypatch.setattr(evaluator, "LOOKED_THROUGH", 10)

    found = await evaluate(titled, queries=queries, field_sample_size=3, **asked)
    few = await evaluate(titled, queries=queries, max_objects=15, **asked)

    assert measures(found.systems[0])["recall"] == 1
    assert found.sample_object_count == 3
    (unseen,) = (each for each in few.findings if each.kind == pb.FINDING_KIND_ANSWERS_MISSING)
    assert "set max_objects to more" in unseen.message


async def test_a_named_vector_that_no_object_has_yet_gives_a_whole_sample(titled: Wire) -> None:
    collection = await titled.store.get_collection("Pictures")
    both = replace(collection.vectors[0], name="both")
    await titled.store.update_collection(replace(collection, vectors=(*collection.vectors, both)))
    queries = {"queries": QUERIES["queries"][:5]}

    found = await evaluate(
        titled, queries=queries, systems=[{"target_vector": "both"}, {"target_vector": "both", "field_weights": LOW}]
    )

    assert found.sample_object_count == COUNT


async def test_captions_of_another_property_find_their_own_objects(titled: Wire) -> None:
    await titled.collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name="Pictures"))
    properties = [
        {"name": "image", "data_type": "DATA_TYPE_BLOB"},
        *({"name": name, "data_type": "DATA_TYPE_TEXT"} for name in ("title", "words")),
    ]
    vector = {"name": "default", "image_fields": [{"name": "image"}], "text_fields": [{"name": "title"}]}
    made = collection_pb.Collection(name="Pictures", properties=properties, vectors=[vector])
    await titled.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=made))
    objects = []
    for number in range(COUNT):
        each = object_pb.DataObject(id=IDS[number], properties={"title": TITLES[number], "words": ASKED[number]})
        each.images["image"].content = PICTURES[number]
        objects.append(each)
    await send(titled, objects)

    found = await evaluate(
        titled, captions={"property": "words", "sample_size": 30}, systems=[{}, {"field_weights": LOW}], limit=3
    )

    present, low = (measures(each)["ndcg"] for each in found.systems)
    assert present < low
    assert found.query_count == 30


async def test_what_a_weight_of_0_leaves_without_a_vector_is_said_and_not_found(wire: Wire) -> None:
    await wire.create_pictures()

    def without_some(number: int, each: object_pb.DataObject) -> None:
        if number % 2:
            del each.properties.fields["title"]

    await import_all(wire, without_some)
    weights = {"image": 0, "title": 1}

    found = await evaluate(wire, queries=QUERIES, systems=[{}, {"name": "titles", "field_weights": weights}], limit=60)

    whole, titles = (measures(each)["recall"] for each in found.systems)
    assert (whole, titles) == (1, 0.5)
    (left_out,) = (each for each in found.findings if each.kind == pb.FINDING_KIND_OBJECTS_LEFT_OUT)
    assert left_out.system == "titles"
    assert "30 of 60 objects no vector" in left_out.message


class OnePicture:
    """Where one picture is."""

    async def fetch(self, uri: str, *, max_bytes: int, count: Callable[[int], None] | None = None) -> bytes:
        if not uri.endswith("/0.png") or len(PICTURES[0]) > max_bytes:
            raise ImageUnreachable("the origin does not answer")
        if count is not None:
            count(len(PICTURES[0]))
        return PICTURES[0]


async def test_pictures_by_uri_are_fetched_again_and_what_is_gone_is_left_out() -> None:
    wire = await start_wire(FakeEmbedder(dimension=DIMENSION), pictures=Pictures(OnePicture()))
    properties = [{"name": each, "data_type": "DATA_TYPE_TEXT"} for each in ("photo", "title")]
    vector = {"name": "default", "image_fields": [{"name": "photo"}], "text_fields": [{"name": "title"}]}
    made = collection_pb.Collection(name="Pictures", properties=properties, vectors=[vector])
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=made))
    row = np.ones(DIMENSION, "<f4").tobytes()
    objects = []
    for number in range(3):
        uri = f"https://pictures.example/{number}.png"
        each = object_pb.DataObject(id=IDS[number], properties={"title": TITLES[number], "photo": uri})
        each.vectors["default"].data = row
        objects.append(each)
    objects[2].properties.fields.clear()
    await send(wire, objects)
    queries = {"queries": QUERIES["queries"][:1]}
    systems = [{}, {"name": "other", "field_weights": {"photo": 0.9, "title": 0.1}}]

    found = await evaluate(wire, queries=queries, systems=systems)
    none = await refused(wire, queries={"queries": QUERIES["queries"][1:2]}, systems=systems, field_sample_size=1)
    await stop_wire(wire)

    assert measures(found.systems[0])["recall"] == 1
    (left_out,) = (each for each in found.findings if each.kind == pb.FINDING_KIND_OBJECTS_LEFT_OUT)
    assert left_out.message.startswith("of 3 objects, 1 cannot be embedded again, for example because ")
    assert "the origin does not answer" in left_out.message
    assert "1 have nothing in these fields" in left_out.message
    assert none.fields == ["field_sample_size"]
    assert "the origin does not answer" in none.message


BOTH: Any = [{"field_weights": LOW}]


@pytest.mark.parametrize(
    ("vector", "asked", "paths"),
    [
        ({}, {"objects": {}}, ["objects"]),
        ({}, {"captions": {"property": "title"}}, ["captions.property"]),
        ({}, {"wanted_recall": 0.9, "allow_ef_change": True}, ["wanted_recall"]),
        ({}, {"suggest_alpha": True, "suggest_weights": True}, ["suggest_alpha", "suggest_weights"]),
        ({}, {"earlier": {"format": 1}}, ["earlier"]),
        ({}, {"field_sample_size": 5001}, ["field_sample_size"]),
        ({}, {"field_sample_size": 59}, ["field_sample_size"]),
        ({}, {"systems": [{"field_weights": LOW, "alpha": 0.5}]}, ["systems[0]"]),
        ({}, {"systems": [{"field_weights": LOW, "ef": 50}]}, ["systems[0]"]),
        ({}, {"systems": [{}, {"field_weights": {"image": 1}}]}, ["systems[1].field_weights"]),
        ({}, {"systems": [{"field_weights": {"image": -1, "title": 1}}]}, ["systems[0].field_weights"]),
        ({}, {"systems": [{"field_weights": {"image": float("inf"), "title": 1}}]}, ["systems[0].field_weights"]),
        ({}, {"systems": [{"field_weights": {"image": 0, "title": 0}}]}, ["systems[0].field_weights"]),
        ({}, {"systems": [{"field_weights": {"image": 1e-7, "title": 1e-7}}]}, ["systems[0].field_weights"]),
        ({}, {"systems": [{"field_weights": {"image": 1_000_001, "title": 1}}]}, ["systems[0].field_weights"]),
        ({**NATIVE, "text_fields": [{"name": "tags"}]}, {}, ["systems[0].target_vector"]),
        ({"text_fields": []}, {}, ["systems[0].target_vector"]),
        ({"text_fields": [], "image_fields": []}, {}, ["systems[0].target_vector"]),
        ({"combination": collection_pb.COMBINATION_JOINT_INPUT}, {}, ["systems[0].target_vector"]),
    ],
)
async def test_weights_that_cannot_be_tried_are_refused_before_anything_is_embedded(
    vector: dict[str, Any], asked: dict[str, Any], paths: list[str]
) -> None:
    wire = await start_wire(FakeEmbedder(modalities=frozenset(Modality)))
    await wire.create_pictures(**vector)
    await import_all(wire)
    wire.embedder.calls.clear()

    failure = await refused(
        wire, **({"systems": BOTH} | ({} if {"objects", "captions"} & asked.keys() else {"queries": QUERIES}) | asked)
    )
    await stop_wire(wire)

    assert failure.code is StatusCode.INVALID_ARGUMENT
    assert sorted(failure.fields) == sorted(paths)
    documents = [each for each, options in wire.embedder.calls if options.purpose is Purpose.DOCUMENT]
    assert not documents


async def test_hashes_and_more_fields_than_are_tried_are_refused(wire: Wire) -> None:
    names = ("a", "b", "c")
    properties = [{"name": each, "data_type": "DATA_TYPE_TEXT"} for each in names]
    properties += [
        {"name": "image", "data_type": "DATA_TYPE_BLOB"},
        {"name": "seen", "data_type": "DATA_TYPE_BLOB_HASH"},
    ]
    texts = [{"name": each} for each in names]
    vectors = [
        {"name": "four", "text_fields": texts, "image_fields": [{"name": "image"}]},
        {"name": "hash", "text_fields": texts[:1], "image_fields": [{"name": "seen"}]},
    ]
    made = collection_pb.Collection(name="Pictures", properties=properties, vectors=vectors)
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=made))
    four = [{"target_vector": "four"}]

    many = await refused(wire, queries=QUERIES, systems=four, suggest_field_weights=True)
    hash_ = await refused(
        wire, queries=QUERIES, systems=[{"target_vector": "hash", "field_weights": {"a": 1, "seen": 1}}]
    )
    two = await refused(
        wire, queries=QUERIES, systems=[*four, {"target_vector": "hash", "field_weights": {"a": 1, "seen": 1}}]
    )

    assert many.fields == ["suggest_field_weights"]
    assert "only hashes are stored" in hash_.message
    assert set(two.fields) == {"systems[1].target_vector", "systems[1].field_weights"}


@pytest.mark.parametrize(("bound", "most"), [("MAX_FIELD_INPUTS", 120), ("MAX_FIELD_VALUES", 120 * DIMENSION)])
async def test_texts_and_images_of_a_sample_are_bounded(
    titled: Wire, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    asked: dict[str, Any] = {"queries": QUERIES, "systems": BOTH}
    monkeypatch.setattr(fields, bound, most)
    await evaluate(titled, **asked)
    monkeypatch.setattr(fields, bound, most - 1)
    monkeypatch.setattr(fields, "READ_AT_ONCE", 20)
    titled.embedder.calls.clear()

    failure = await refused(titled, **asked)

    assert failure.fields == ["field_sample_size"]
    assert "take fewer objects" in failure.message
    # What is too much is refused before it is embedded.
    documents = [each for each, options in titled.embedder.calls if options.purpose is Purpose.DOCUMENT]
    assert sum(map(len, documents)) == 80


async def test_refusals_of_names_and_of_a_sample_that_is_too_small_say_first_what_to_do(titled: Wire) -> None:
    names = {f"a field with a long name {number}": 1 for number in range(30)}

    unknown = await refused(titled, queries=QUERIES, systems=[{"field_weights": {"image": 1, **names}}])
    small = await refused(titled, queries=QUERIES, systems=BOTH, field_sample_size=59)

    assert "give a weight to each field of 'default' and to no other; missing: title; other: a field" in unknown.message
    assert "give at least 60, or fewer queries" in small.message


async def test_a_caller_who_leaves_ends_the_embedding_of_fields(titled: Wire) -> None:
    embed = titled.embedder.embed
    arrived = asyncio.Event()

    async def waiting(inputs: Any, options: Any) -> Any:
        if options.purpose is Purpose.DOCUMENT:
            arrived.set()
            await asyncio.Event().wait()
        return await embed(inputs, options)

    titled.embedder.embed = waiting  # type: ignore[method-assign]  # one call that hangs
    call = titled.evaluation.EvaluateCollection(wanted(queries=QUERIES, systems=BOTH))
    reading = asyncio.ensure_future(call.read())
    async with asyncio.timeout(60):
        while not arrived.is_set():
            reading = asyncio.ensure_future(call.read()) if reading.done() else reading
            await asyncio.sleep(0.01)
    call.cancel()
    titled.embedder.embed = embed  # type: ignore[method-assign]

    async with asyncio.timeout(60):
        while titled.server._evaluator._turn.locked():
            await asyncio.sleep(0.01)
    found = await evaluate(titled, queries=QUERIES, systems=BOTH)

    assert found.sample_object_count == COUNT
