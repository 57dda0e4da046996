"""EvaluateCollection over the wire: what it measures of a store in memory, whose truth is known."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any
from uuid import UUID

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from prometheus_client import REGISTRY

from embedders.contract import Priority, Purpose
from service.core.evaluating import evaluator, queries
from service.core.evaluating.queries import query_digest
from service.domain import CaptionQueries, Collection, DataType, Property, StoredObject
from service.errors import MAX_VIOLATIONS
from service.process import metrics
from service.settings import ServerSettings
from tests.conftest import assert_close
from tests.fakes.reranker import FakeReranker
from tests.service.conftest import Failure, Wire, failure_of, over_every_wire, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import evaluation_service_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb

TITLES = [f"picture number {number}" for number in range(40)]
MANY = [{"name": str(each)} for each in range(11)]
BY_DEFAULT = {"target_vector": "default"}
HNSW = {"hnsw": {"ef": 64}}
GONE = "5a7c2f0e-8d1b-4c39-9e64-b1f0a2d37c58"
"""An id that no object has."""


def wanted(**fields: Any) -> pb.EvaluateCollectionRequest:
    return pb.EvaluateCollectionRequest(**{"collection": "Pictures", **fields})


async def events(wire: Wire, **fields: Any) -> list[pb.EvaluateCollectionResponse]:
    return [each async for each in wire.evaluation.EvaluateCollection(wanted(**fields))]


async def evaluate(wire: Wire, **fields: Any) -> pb.Evaluation:
    *_, last = await events(wire, **fields)
    return last.evaluation


async def refused(wire: Wire, **fields: Any) -> Failure:
    async def call() -> None:
        await events(wire, **fields)

    return await failure_of(call())


def measures(system: pb.SystemResult) -> dict[str, float]:
    return {
        pb.EvaluationMeasure.Name(each.measure).removeprefix("EVALUATION_MEASURE_").lower(): each.estimate.mean
        for each in system.measures
    }


def kinds(found: pb.Evaluation) -> list[tuple[str, str]]:
    return [(pb.FindingKind.Name(each.kind).removeprefix("FINDING_KIND_"), each.system) for each in found.findings]


async def crowd(wire: Wire, vectors: Sequence[str] = ("default",), count: int = 40, **vector: object) -> list[UUID]:
    """Store objects whose vectors are those of their titles, in the named vector `default` and in others."""
    await wire.create_pictures(**{"index": HNSW, **vector})
    ids = [UUID(int=number + 1) for number in range(count)]
    within = wire.store._objects.setdefault("Pictures", {})
    for id_, title in zip(ids, TITLES, strict=False):
        made = {name: wire.embedder.vector(title) for name in vectors}
        within[id_] = StoredObject(id_, {"title": title, "year": id_.int % 4}, vectors=made)
    return ids


@over_every_wire
async def test_progress_is_told_and_at_the_end_the_result(wire: Wire) -> None:
    await crowd(wire)

    told = await events(wire, objects={"sample_size": 20})

    stages = [each.progress.stage for each in told[:-1]]
    assert set(stages) == {
        pb.EVALUATION_STAGE_SAMPLING,
        pb.EVALUATION_STAGE_READING,
        pb.EVALUATION_STAGE_SEARCHING,
    }
    assert stages == sorted(stages)
    found = told[-1].evaluation
    assert (found.query_count, found.object_count, found.limit, found.searches) == (20, 40, 10, 20)
    (system,) = found.systems
    assert (system.system.name, system.system.target_vector, system.space) == ("present", "default", "fake")
    assert measures(system) == {"index_recall": 1}
    assert system.median_time.ToTimedelta() <= system.p95_time.ToTimedelta()


async def test_an_index_that_has_lost_objects_is_found_and_named(wire: Wire) -> None:
    ids = await crowd(wire)
    wire.store.lost = {(id_, "default") for id_ in ids[:10]}

    found = await evaluate(wire, objects={"sample_size": 40}, limit=39)

    # Of the 39 others, an object that is in the index misses 10, and a lost one 9.
    expected = (30 * 29 + 10 * 30) / (40 * 39)
    assert_close(measures(found.systems[0])["index_recall"], expected, 1e-9)
    assert found.systems[0].lost_objects == 10
    assert kinds(found) == [("LOW_INDEX_RECALL", "present"), ("OBJECTS_NOT_FOUND", "present")]
    assert "backfill --verify" in found.findings[1].message


async def test_captions_find_their_own_objects_and_are_embedded_in_bulk_and_as_queries(wire: Wire) -> None:
    await crowd(wire)
    wire.embedder.calls.clear()

    found = await evaluate(wire, captions={"property": "title", "sample_size": 40})

    assert measures(found.systems[0]) == {"index_recall": 1, "ndcg": 1, "reciprocal_rank": 1, "recall": 1}
    assert (found.main_measure, found.embedded_inputs) == (pb.EVALUATION_MEASURE_NDCG, 40)
    assert kinds(found) == [("CAPTION_IN_VECTOR", "")]
    options = {each[1] for each in wire.embedder.calls}
    assert {(each.purpose, each.priority) for each in options} == {(Purpose.QUERY, Priority.BULK)}


async def test_a_wrong_model_is_found_and_named(wire: Wire) -> None:
    ids = await crowd(wire)
    within, random = wire.store._objects["Pictures"], np.random.default_rng(1)
    for id_ in ids:
        within[id_].vectors = {"default": random.standard_normal(8).astype(np.float32)}

    found = await evaluate(wire, captions={"property": "title"}, limit=1)

    assert ("NO_BETTER_THAN_CHANCE", "present") in kinds(found)
    assert len(found.queries) == 5
    assert all(each.stored and each.text.startswith("picture number") for each in found.queries)


async def test_the_callers_queries_are_measured_against_their_answers_by_id_or_by_value(wire: Wire) -> None:
    ids = await crowd(wire)
    by_id = [
        {"id": str(row), "input": {"text": TITLES[row]}, "answers": [{"name": str(ids[row])}, {"name": GONE}]}
        for row in range(10)
    ]
    by_value = [{"id": "a", "input": {"text": TITLES[0]}, "answers": [{"name": "1", "gain": 3}]}]

    first = await evaluate(wire, queries={"queries": by_id}, skip_index_recall=True)
    second = await evaluate(wire, queries={"queries": by_value, "answer_property": "year"})

    assert measures(first.systems[0])["recall"] == 0.5
    assert measures(first.systems[0])["reciprocal_rank"] == 1
    assert measures(second.systems[0])["ndcg"] == 1
    assert len(first.vectors) == 0


async def test_answers_are_ids_however_they_are_written(wire: Wire) -> None:
    (id_, *_) = await crowd(wire)
    within = wire.store._objects["Pictures"]
    collection = await wire.store.get_collection("Pictures")
    properties = (*collection.properties, Property("ref", DataType.UUID))
    await wire.store.update_collection(replace(collection, properties=properties))
    within[id_].properties = {**within[id_].properties, "ref": GONE}

    async def ndcg(name: str, answer_property: str = "") -> float:
        asked = {"id": "a", "input": {"text": TITLES[0]}, "answers": [{"name": name}]}
        found = await evaluate(
            wire, queries={"queries": [asked], "answer_property": answer_property}, skip_index_recall=True
        )
        return measures(found.systems[0])["ndcg"]

    assert [await ndcg(each) for each in (str(id_).upper(), id_.hex, f"{{{id_}}}")] == [1, 1, 1]
    assert [await ndcg(each, "ref") for each in (GONE.upper(), UUID(GONE).hex)] == [1, 1]


async def test_names_that_can_be_no_ids_are_refused_once_for_each_query(wire: Wire) -> None:
    await crowd(wire)
    names = [[GONE], ["a.jpg", "b.jpg"], [GONE, "c.jpg"], *[[f"{number}.jpg"] for number in range(500)]]
    asked = [
        {"id": str(row), "input": {"text": "a"}, "answers": [{"name": name} for name in each]}
        for row, each in enumerate(names)
    ]
    wire.embedder.calls.clear()

    failure = await refused(wire, queries={"queries": asked})

    assert failure.reason == "INVALID_ID"
    assert failure.fields[:2] == ["queries.queries[1].answers", "queries.queries[2].answers"]
    assert len(failure.fields) <= MAX_VIOLATIONS
    assert not wire.embedder.calls


async def test_too_few_queries_for_an_ef_are_refused_before_all_is_read_and_searched(wire: Wire) -> None:
    await crowd(wire)
    stages = set()

    async def call() -> None:
        asked = wanted(objects={"sample_size": 19}, wanted_recall=0.9, allow_ef_change=True)
        async for event in wire.evaluation.EvaluateCollection(asked):
            stages.add(event.progress.stage)

    failure = await failure_of(call())

    assert failure.fields == ["wanted_recall"]
    assert stages == {pb.EVALUATION_STAGE_SAMPLING}


async def test_systems_are_compared_with_the_first_one_and_a_bad_alpha_is_named(wire: Wire) -> None:
    await crowd(wire)
    within = wire.store._objects["Pictures"]
    for each in within.values():
        # The words of the queries are in all objects alike.
        each.properties = {"title": "a picture with a number"}
    systems = [{"name": "vector"}, {"name": "again"}, {"name": "words", "alpha": 0}]

    written = [
        {"id": str(id_), "input": {"text": title}, "answers": [{"name": str(id_)}]}
        for id_, title in zip(within, TITLES, strict=True)
    ]
    found = await evaluate(wire, queries={"queries": written}, systems=systems, limit=3)

    compared = {(each.system, each.measure): each for each in found.comparisons}
    again = compared["again", pb.EVALUATION_MEASURE_NDCG]
    assert (again.difference.mean, again.real, again.chance) == (0, False, 1)
    words = compared["words", pb.EVALUATION_MEASURE_NDCG]
    assert words.real
    assert words.difference.high < 0
    assert ("WORSE", "words") in kinds(found)
    assert ("words", pb.EVALUATION_MEASURE_INDEX_RECALL) not in compared
    assert 0 < len(found.queries) <= 5


async def test_answers_that_the_collection_lacks_are_counted_and_if_it_has_none_nothing_is_measured(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await crowd(wire)
    names = [*map(str, ids[:9]), GONE]
    written = [
        {"id": name, "input": {"text": title}, "answers": [{"name": name}]}
        for name, title in zip(names, TITLES, strict=False)
    ]
    years = [{"id": year, "input": {"text": "a"}, "answers": [{"name": year}]} for year in ("1", "1999")]
    by_year = {"queries": years, "answer_property": "year"}

    some = await evaluate(wire, queries={"queries": written})
    none = await refused(wire, queries={"queries": written[9:]})
    values = await evaluate(wire, queries=by_year)
    far = await evaluate(wire, queries=by_year, max_objects=15, skip_index_recall=True)
    monkeypatch.setattr(evaluator, "LOOKED_THROUGH", 15)
    few = await evaluate(wire, queries=by_year, skip_index_recall=True)
    every = await evaluate(wire, queries=by_year)
    by_year["queries"] = years[1:]
    no_value = await refused(wire, queries=by_year)

    (missing,) = (each.message for each in some.findings if each.kind == pb.FINDING_KIND_ANSWERS_MISSING)
    assert missing.startswith(f"1 of 10 known answers are not in the collection, such as {GONE!r}, and 1 queries")
    assert (none.code, none.fields) == (StatusCode.INVALID_ARGUMENT, ["queries"])
    assert f"has 1 answers, none of which is in the collection, such as {GONE!r}" in none.message
    assert ("ANSWERS_MISSING", "") in kinds(values)
    # Of the objects beyond the bound nothing is known.
    for found in (far, few):
        (unseen,) = (each.message for each in found.findings if each.kind == pb.FINDING_KIND_ANSWERS_MISSING)
        assert unseen.startswith("1 of 2 known answers were not seen among the first 16 objects, such as '1999'; the")
    assert "were not seen" not in str(every.findings)
    assert "give values of 'year'" in no_value.message


async def test_systems_that_find_no_answer_and_few_queries_are_said_to_tell_nothing(wire: Wire) -> None:
    ids = await crowd(wire)
    # The words lead to other objects.
    written = [
        {"id": str(row), "input": {"text": TITLES[row]}, "answers": [{"name": str(ids[-1 - row])}]} for row in range(9)
    ]
    two: Any = [{"name": "one"}, {"name": "two"}]

    found = await evaluate(wire, queries={"queries": written}, systems=two, limit=1, suggest_alpha=True)
    enough = await evaluate(wire, captions={"property": "title"}, systems=two, skip_index_recall=True)

    told = {each.kind: each.message for each in found.findings}
    assert "no answer is among the first 1 hits" in told[pb.FINDING_KIND_NOTHING_FOUND]
    assert told[pb.FINDING_KIND_FEW_QUERIES].startswith("9 queries are too few")
    assert not found.HasField("alpha")
    assert {"NOTHING_FOUND", "FEW_QUERIES"}.isdisjoint(kind for kind, _ in kinds(enough))


async def test_an_index_in_which_there_is_nothing_has_no_recall(wire: Wire) -> None:
    ids = await crowd(wire)
    for id_ in ids:
        wire.store._objects["Pictures"][id_].vectors = {}
    written = [{"id": str(id_), "input": {"text": "a"}, "answers": [{"name": str(id_)}]} for id_ in ids]

    found = await evaluate(wire, queries={"queries": written}, wanted_recall=0.9, allow_ef_change=True)

    assert "index_recall" not in measures(found.systems[0])
    assert not found.HasField("ef")
    assert ("VECTORS_MISSING", "") in kinds(found)


async def test_weights_of_vectors_are_compared_and_the_best_ones_suggested(wire: Wire) -> None:
    ids = await crowd(wire, ("good", "noise"), name="good")
    collection = await wire.store.get_collection("Pictures")
    (vector,) = collection.vectors
    await wire.store.update_collection(replace(collection, vectors=(vector, replace(vector, name="noise"))))
    random = np.random.default_rng(1)
    for each in wire.store._objects["Pictures"].values():
        each.vectors["noise"] = random.standard_normal(8).astype(np.float32)
    systems: list[Any] = [
        {"name": "both", "target_weights": {"noise": 0.9, "good": 0.1}},
        {"name": "good", "target_vector": "good"},
        {"name": "scored", "target_weights": {"noise": 0.9, "good": 0.1}, "target_join": "TARGET_JOIN_RELATIVE_SCORE"},
    ]
    wire.embedder.calls.clear()

    found = await evaluate(
        wire, captions={"property": "title"}, systems=systems, suggest_weights=True, skip_index_recall=True
    )

    both, good, scored = found.systems
    assert measures(both)["ndcg"] < measures(good)["ndcg"] == 1
    assert measures(scored)["ndcg"] < 1
    assert ("WORSE", "both") in kinds(found)
    assert (both.system.target_vector, dict(scored.system.target_weights)) == (
        "",
        pytest.approx({"good": 0.1, "noise": 0.9}),
    )
    assert scored.system.target_join == search_pb.TARGET_JOIN_RELATIVE_SCORE
    best = dict(found.weights.weights)
    assert best["good"] > 0.5
    assert sum(best.values()) == pytest.approx(1)
    assert len(found.weights.tried) == 11
    assert found.weights.ndcg.mean > 0.95
    # Two vectors of one space, and eleven weights: each text is embedded once.
    assert sum(len(inputs) for inputs, _ in wire.embedder.calls) == found.embedded_inputs == len(ids)


async def test_a_reranker_is_one_more_system() -> None:
    wire = await start_wire(rerankers=[[FakeReranker(name="rank")]])
    await crowd(wire)
    systems = [{}, {"name": "reranked", "reranker": "rank", "rerank_property": "title"}]

    found = await evaluate(wire, captions={"property": "title"}, systems=systems, skip_index_recall=True)
    await stop_wire(wire)

    assert [each.system.name for each in found.systems] == ["present", "reranked"]
    assert measures(found.systems[1])["recall"] > 0


async def test_counts_tell_of_missing_and_doubled_vectors(wire: Wire) -> None:
    ids = await crowd(wire)
    within = wire.store._objects["Pictures"]
    within[ids[0]].vectors = {}
    within[ids[1]].vectors = dict(within[ids[2]].vectors)
    within[ids[3]].vectors = {"default": np.zeros(8, np.float32)}

    within[ids[4]].vectors = {"default": np.full(8, np.nan, np.float32)}
    within[ids[5]].vectors = {"default": np.full(8, 1e-24, np.float32)}
    within[ids[6]].vectors = {"default": np.full(8, np.inf, np.float32)}

    wire.store.lost = {(id_, "default") for id_ in ids[3:7]}

    found = await evaluate(wire, objects={})
    again = await evaluate(wire, objects={}, earlier=found.report)

    (counts,) = found.vectors
    assert (counts.objects, counts.missing, counts.zero, counts.doubled, counts.off_length) == (40, 1, 4, 2, 0)
    assert kinds(found) == [("VECTORS_MISSING", ""), ("VECTORS_ZERO", ""), ("VECTORS_DOUBLED", "")]
    assert np.isfinite(np.frombuffer(found.report.vectors[0].summary.centre, "<f4")).all()
    assert not any(each.real for each in again.drift.changes)


async def test_hubs_vectors_of_other_lengths_and_queries_that_lie_apart_are_named(wire: Wire) -> None:
    ids = await crowd(wire, index={"distance": 3})
    within, random = wire.store._objects["Pictures"], np.random.default_rng(1)
    scattered = random.standard_normal((40, 8)).astype(np.float32)
    scattered[:, 0] = 0
    scattered /= np.linalg.norm(scattered, axis=1, keepdims=True)
    for id_, vector in zip(ids, scattered, strict=True):
        within[id_].vectors = {"default": vector}
    within[ids[0]].vectors = {"default": np.full(8, 0.5, np.float32)}
    # All queries are alike, and so one object is the nearest of all.
    wire.embedder._known = {title: [1.0] + [0.01] * 7 for title in TITLES}

    near = await evaluate(wire, objects={}, limit=1)
    apart = await evaluate(wire, captions={"property": "title"}, limit=1)

    assert (near.vectors[0].off_length, near.vectors[0].hubs, apart.vectors[0].hubs) == (1, 0, 1)
    assert kinds(near) == [("NOT_UNIT_LENGTH", "")]
    assert not near.vectors[0].HasField("query_gap")
    assert 0.9 < apart.vectors[0].query_gap < 1.1
    assert {("HUBS", ""), ("GAP", "")} < set(kinds(apart))


async def ef_now(wire: Wire) -> int:
    (vector,) = (await wire.store.get_collection("Pictures")).vectors
    return int(vector.index.parameters["ef"])


async def test_ef_is_changed_while_it_is_measured_and_comes_back_also_when_the_call_fails(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crowd(wire)
    seen, search = [], wire.store.search

    async def watching(collection: str, spec: Any) -> Any:
        if spec.query is not None:
            seen.append(await ef_now(wire))
            if len(seen) == 60:
                raise ValueError("an accident")
        return await search(collection, spec)

    monkeypatch.setattr(wire.store, "search", watching)
    systems: list[Any] = [{"name": "present"}, {"ef": 200}]

    failure = await refused(wire, objects={"sample_size": 40}, systems=systems, allow_ef_change=True)

    assert failure.code is StatusCode.INTERNAL
    assert seen == [64] * 41 + [200] * 19
    assert await ef_now(wire) == 64


async def test_ef_comes_back_when_the_caller_leaves(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    await crowd(wire)
    arrived, search = asyncio.Event(), wire.store.search

    async def waiting(collection: str, spec: Any) -> Any:
        if spec.query is not None:
            arrived.set()
            await asyncio.Event().wait()
        return await search(collection, spec)

    monkeypatch.setattr(wire.store, "search", waiting)
    call = wire.evaluation.EvaluateCollection(wanted(objects={}, systems=[{"ef": 200}], allow_ef_change=True))
    reading = asyncio.ensure_future(call.read())
    while not arrived.is_set():
        reading = asyncio.ensure_future(call.read()) if reading.done() else reading
        await asyncio.sleep(0.01)
    during = await ef_now(wire)
    busy = await refused(wire, objects={})
    call.cancel()
    async with asyncio.timeout(60):
        while await ef_now(wire) != 64:
            await asyncio.sleep(0.01)

    assert during == 200
    assert (busy.code, busy.reason) == (StatusCode.UNAVAILABLE, "OVERLOADED")


async def test_a_server_that_stops_waits_until_the_ef_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await start_wire(server=ServerSettings(port=0, drain_grace_s=0.05))
    await crowd(wire)
    searching, stopping = asyncio.Event(), asyncio.Event()
    search, update, close = wire.store.search, wire.store.update_collection, wire.server._projector.close

    async def waiting(collection: str, spec: Any) -> Any:
        if spec.query is not None:
            searching.set()
            await asyncio.Event().wait()
        return await search(collection, spec)

    async def late(collection: Collection) -> None:
        if searching.is_set():
            await stopping.wait()
            for _ in range(20):
                await asyncio.sleep(0)
        await update(collection)

    def closing() -> None:
        close()
        stopping.set()

    monkeypatch.setattr(wire.store, "search", waiting)
    monkeypatch.setattr(wire.store, "update_collection", late)
    monkeypatch.setattr(wire.server._projector, "close", closing)
    calling = asyncio.create_task(events(wire, objects={}, systems=[{"ef": 200}], allow_ef_change=True))
    await searching.wait()
    await wire.server.stop()
    after = await ef_now(wire)
    with pytest.raises(grpc.aio.AioRpcError):
        await calling
    await stop_wire(wire)

    assert after == 64


async def test_the_smallest_ef_and_the_best_alpha_are_suggested(wire: Wire) -> None:
    await crowd(wire)

    found = await evaluate(
        wire,
        captions={"property": "title", "sample_size": 40},
        wanted_recall=0.95,
        allow_ef_change=True,
        suggest_alpha=True,
    )

    # The store in memory finds all whatever the ef.
    assert (found.ef.ef, found.ef.reached, found.ef.recall.mean) == (10, True, 1)
    assert len(found.alpha.tried) == 11
    assert found.alpha.ndcg.mean > 0.5
    assert await ef_now(wire) == 64


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({}, ["query_set"]),
        ({"collection": "", "objects": {}}, ["collection"]),
        ({"objects": {}, "limit": 101, "max_objects": 10_000_001}, ["limit", "max_objects"]),
        ({"objects": {}, "max_objects": 39}, ["max_objects"]),
        ({"objects": {"sample_size": 1001}}, ["objects.sample_size"]),
        ({"objects": {}, "skip_index_recall": True}, ["objects"]),
        ({"objects": {}, "wanted_recall": 0.9}, ["wanted_recall"]),
        ({"objects": {}, "wanted_recall": 1.1, "allow_ef_change": True}, ["wanted_recall"]),
        ({"objects": {"sample_size": 19}, "wanted_recall": 0.9, "allow_ef_change": True}, ["wanted_recall"]),
        ({"objects": {}, "suggest_alpha": True}, ["suggest_alpha", "suggest_alpha.alpha"]),
        ({"objects": {}, "systems": [{"ef": 20}]}, ["systems[0].ef"]),
        ({"objects": {}, "systems": [{"ef": 4097}, {"alpha": 1.5}]}, ["systems[1].alpha", "systems[0].ef"]),
        ({"objects": {}, "systems": [{"alpha": 0.5}]}, ["systems[0].alpha"]),
        ({"objects": {}, "systems": [{"target_join": 4}]}, ["systems[0].target_join"]),
        (
            {
                "objects": {},
                "systems": [{"target_weights": {"default": math.nan}, "target_join": 1, "target_vector": "d"}],
            },
            [*["systems[0].target_weights"] * 3, "systems[0].target_join"],
        ),
        (
            {
                "objects": {},
                "systems": [{"target_weights": {"default": 1, "other": 1}, "ef": 20}],
                "suggest_alpha": True,
            },
            [
                *["systems[0].target_weights"] * 2,
                *["systems[0].ef"] * 2,
                *["suggest_alpha"] * 2,
                "suggest_alpha.alpha",
            ],
        ),
        ({"captions": {"property": "title"}, "suggest_weights": True}, ["suggest_weights"]),
        ({"objects": {}, "systems": [{}, {}]}, ["systems[1].name"]),
        ({"objects": {}, "systems": [{"target_vector": "other"}]}, ["systems[0].target_vector"]),
        ({"objects": {}, "systems": [{"reranker": "rank"}]}, ["systems[0].reranker"]),
        ({"captions": {}}, ["captions.property"]),
        ({"captions": {"property": "titel"}}, ["captions.property"]),
        ({"captions": {"property": "year"}}, ["captions.property"]),
        (
            {
                "captions": {"property": "title", "sample_size": 1000},
                "limit": 100,
                "systems": MANY,
            },
            ["systems"],
        ),
        ({"queries": {}}, ["queries.queries"]),
        ({"queries": {"queries": [{}]}}, ["queries.queries[0].id", "queries.queries[0].input"]),
        (
            {
                "queries": {
                    "queries": [
                        {"id": "a", "input": {"text": "a"}, "answers": [{"gain": 1001}]},
                        {"id": "a", "input": {"text": "a"}},
                    ],
                    "answer_property": "title",
                }
            },
            [
                "queries.queries[0].answers[0].name",
                "queries.queries[0].answers[0].gain",
                "queries.queries[1].id",
                "queries.queries[1].answers",
            ],
        ),
        (
            {"queries": {"queries": [{"id": "a", "input": {"text": "a"}}], "answer_property": "place"}},
            ["queries.answer_property"],
        ),
        (
            {"queries": {"queries": [{"id": "a", "input": {"image": {"content": b"no picture"}}}]}},
            ["queries.queries[0].input.image.content"],
        ),
    ],
)
async def test_what_cannot_be_is_refused_with_the_paths_and_nothing_is_read(
    wire: Wire, fields: dict[str, Any], paths: list[str]
) -> None:
    await crowd(wire)
    before = len(wire.store.puts)

    failure = await refused(wire, **fields)

    assert failure.code is StatusCode.INVALID_ARGUMENT
    assert sorted(failure.fields) == sorted(paths)
    assert len(wire.store.puts) == before


async def test_a_collection_that_is_not_there_or_has_no_objects_is_named(wire: Wire) -> None:
    missing = await refused(wire, objects={})
    await wire.create_pictures()
    empty = await refused(wire, objects={})

    assert missing.reason == "COLLECTION_NOT_FOUND"
    assert (empty.reason, empty.fields) == ("INVALID_INPUT", ["objects.sample_size"])


async def test_long_captions_are_cut_as_the_words_of_a_search_are(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    await crowd(wire)
    monkeypatch.setattr(queries, "MAX_WORDS_BYTES", 7)

    found = await evaluate(wire, captions={"property": "title"}, limit=1)

    assert {each.text for each in found.queries} == {"picture"}


async def test_long_words_of_a_query_are_cut_in_the_result(wire: Wire) -> None:
    ids = await crowd(wire)
    written = [{"id": "long", "input": {"text": "x" * 300}, "answers": [{"name": str(ids[0])}]}]

    found = await evaluate(wire, queries={"queries": written}, limit=1)

    assert [each.text for each in found.queries] in ([], ["x" * 200])


async def reported(wire: Wire) -> pb.EvaluationReport:
    return (await evaluate(wire, objects={"sample_size": 40})).report


def differing(found: pb.Evaluation) -> set[str]:
    """Return what differs for the worse."""
    return {pb.ChangeKind.Name(each.kind).removeprefix("CHANGE_KIND_") for each in found.drift.changes if each.message}


async def test_an_unchanged_collection_has_no_drift(wire: Wire) -> None:
    await crowd(wire)
    earlier = await reported(wire)

    found = await evaluate(wire, objects={"sample_size": 40}, earlier=earlier)

    assert len(found.drift.changes) > 10
    assert not any(each.real for each in found.drift.changes)
    assert found.drift.since == earlier.end_time
    assert kinds(found) == []
    assert (earlier.collection, earlier.query_set, earlier.vectors[0].space) == ("Pictures", "objects", "fake")
    assert not found.vectors[0].HasField("summary")
    (recall,) = (each for each in found.drift.changes if each.kind == pb.CHANGE_KIND_INDEX_RECALL)
    assert (recall.same_queries, recall.chance) == (40, 1)
    assert [len(each.values) for each in (found.systems[0].measures[0], earlier.systems[0].measures[0])] == [0, 160]


async def test_captions_that_were_written_anew_are_other_queries(wire: Wire) -> None:
    ids = await crowd(wire)
    earlier = (await evaluate(wire, captions={"property": "title", "sample_size": 40})).report
    for id_ in ids[:4]:
        wire.store._objects["Pictures"][id_].properties = {"title": f"another {id_}"}
    del wire.store._objects["Pictures"][ids[4]]

    found = await evaluate(wire, captions={"property": "title", "sample_size": 40}, earlier=earlier)

    ndcg = [each.same_queries for each in found.drift.changes if each.kind == pb.CHANGE_KIND_NDCG]
    assert ndcg == [35, 0]


async def test_a_report_of_an_earlier_version_has_no_values_and_is_compared_all_the_same(wire: Wire) -> None:
    await crowd(wire)
    earlier = await reported(wire)
    earlier.ClearField("query_digests")
    for each in earlier.systems[0].measures:
        each.ClearField("values")

    found = await evaluate(wire, objects={"sample_size": 40}, earlier=earlier)

    (recall,) = (each for each in found.drift.changes if each.kind == pb.CHANGE_KIND_INDEX_RECALL)
    assert (recall.same_queries, recall.HasField("chance"), recall.real) == (0, True, False)


async def test_another_models_vectors_and_lost_objects_are_faults_of_drift(wire: Wire) -> None:
    ids = await crowd(wire)
    earlier = await reported(wire)
    within, random = wire.store._objects["Pictures"], np.random.default_rng(1)
    for id_ in ids[:10]:
        del within[id_]
    for id_ in ids[10:]:
        within[id_].vectors = {"default": random.standard_normal(8).astype(np.float32)}

    found = await evaluate(wire, objects={"sample_size": 40}, earlier=earlier)

    assert {"OBJECT_COUNT", "SAME_OBJECTS", "LENGTHS"} <= differing(found)
    faults = [each.message for each in found.findings if each.kind == pb.FINDING_KIND_DRIFT]
    assert faults == [each.message for each in found.drift.changes if each.message]
    assert all(each.fault for each in found.findings)


async def test_what_is_good_to_know_is_no_fault(wire: Wire) -> None:
    await crowd(wire)

    found = await evaluate(wire, captions={"property": "title"})

    assert [(each.kind, each.fault) for each in found.findings] == [(pb.FINDING_KIND_CAPTION_IN_VECTOR, False)]


VALUES = ["earlier.systems[0].measures[0].values"]


def measure_of(mean: float, low: float, high: float) -> pb.MeasuredEstimate:
    return pb.MeasuredEstimate(
        measure=pb.EVALUATION_MEASURE_INDEX_RECALL, estimate=pb.Estimate(mean=mean, low=low, high=high)
    )


@pytest.mark.parametrize(
    ("changed", "paths", "words"),
    [
        ({"format": 2}, ["earlier.format"], "is 2, and this version compares evaluations of format 1"),
        ({"collection": "Others"}, ["earlier.collection"], "is 'Others', and here it is 'Pictures'"),
        ({"tenant": "a"}, ["earlier.tenant"], "only evaluations of the same"),
        ({"query_set": "captions", "limit": 5}, ["earlier.query_set", "earlier.limit"], "only evaluations of the same"),
        ({"vectors": []}, ["earlier.vectors"], "has counts of none of the vectors default"),
        ({"space": "other"}, ["earlier.vectors"], "in space 'other', and its space is 'fake' now"),
        ({"centre": bytes(64)}, ["earlier.vectors"], "has 16 values in vector 'default', and it has 8 now"),
        ({"projections": b"1234"}, ["earlier.vectors[0].summary"], "is damaged"),
        ({"centre": np.full(8, np.nan, "<f4").tobytes()}, ["earlier.vectors[0].summary"], "is damaged"),
        ({"centre": np.full(8, 0.4, "<f4").tobytes()}, ["earlier.vectors[0].summary"], "is damaged"),
        ({"projections": np.full(40 * 32, 3e38, "<f4").tobytes()}, ["earlier.vectors[0].summary"], "is damaged"),
        ({"projections": np.full(40 * 32, 0.6, "<f4").tobytes()}, ["earlier.vectors[0].summary"], "is damaged"),
        ({"lengths": np.full(40, -1, "<f4").tobytes()}, ["earlier.vectors[0].summary"], "is damaged"),
        ({"measures": [measure_of(0.5, 0.4, 1.2)]}, ["earlier.systems[0]"], "has measures outside 0 to 1"),
        ({"measures": [measure_of(math.nan, 0.4, 0.6)]}, ["earlier.systems[0]"], "has measures outside 0 to 1"),
        ({"measures": [measure_of(0.5, 0.6, 0.4)]}, ["earlier.systems[0]"], "has measures outside 0 to 1"),
        ({"object_count": -1}, ["earlier.object_count"], "must be at least 0"),
        ({"missing": 41}, ["earlier.vectors[0]"], "counts more of its objects than there are"),
        ({"query_gap": float("nan")}, ["earlier.vectors[0].query_gap"], "is no distance"),
        ({"lost_objects": 41}, ["earlier.systems[0]"], "counts that cannot be"),
        ({"values": bytes(156)}, VALUES, "has 156 bytes, and 40 digests of queries go with 4 each"),
        ({"values": bytes(161)}, VALUES, "has 161 bytes"),
        ({"values": bytes(160)}, VALUES, "or with another mean"),
        ({"values": np.full(40, np.nan, "<f4").tobytes()}, VALUES, "has values outside 0 to 1"),
        ({"values": np.full(40, np.inf, "<f4").tobytes()}, VALUES, "has values outside 0 to 1"),
        ({"values": np.r_[np.ones(38), 3, -1].astype("<f4").tobytes()}, VALUES, "has values outside 0 to 1"),
        ({"query_digests": bytes(320)}, ["earlier.query_digests", *VALUES], "has the same query twice"),
        ({"query_digests": bytes(8)}, ["earlier.query_digests", *VALUES], "has 8 bytes, and 40 queries have 8 each"),
        ({"query_digests": b""}, VALUES, "0 digests of queries go with 4 each"),
    ],
)
async def test_a_report_that_cannot_be_compared_is_refused_in_clear_words(
    wire: Wire, changed: dict[str, Any], paths: list[str], words: str
) -> None:
    await crowd(wire)
    earlier = await reported(wire)
    for name, value in changed.items():
        summaries = (each.summary for each in earlier.vectors)
        places = [earlier, *earlier.vectors, earlier.systems[0], *summaries, *earlier.systems[0].measures]
        place = next(each for each in places if name in each.DESCRIPTOR.fields_by_name)
        place.ClearField(name)
        place.MergeFrom(type(place)(**{name: value}))

    failure = await refused(wire, objects={"sample_size": 40}, earlier=earlier)

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert failure.fields == paths
    assert words in failure.message


def asked(ids: Sequence[UUID], **changed: Any) -> dict[str, Any]:
    """Return queries by titles, of which a test changes something of the first."""
    written = [
        {"id": str(row), "input": {"text": TITLES[row]}, "answers": [{"name": str(id_)}]} for row, id_ in enumerate(ids)
    ]
    return {"queries": [written[0] | changed, *written[1:]]}


@pytest.mark.parametrize(
    "changed",
    [{"id": "other"}, {"input": {"text": "other"}}, {"answers": [{"name": str(UUID(int=2))}]}, {"answers": []}],
    ids=str,
)
async def test_other_queries_than_before_are_not_compared(wire: Wire, changed: dict[str, Any]) -> None:
    ids = await crowd(wire)
    same = asked(ids[:1] if changed == {"answers": []} else ids)
    earlier = (await evaluate(wire, queries=same)).report
    again = await evaluate(wire, queries=same, earlier=earlier)

    failure = await refused(
        wire, queries={"queries": [same["queries"][0] | changed, *same["queries"][1:]]}, earlier=earlier
    )

    assert not any(each.real for each in again.drift.changes)
    assert failure.fields == ["earlier.query_digest"]
    assert "is of other queries; give the same ones with the same answers" in failure.message


async def test_captions_of_another_property_are_not_compared_and_another_sample_of_them_is(wire: Wire) -> None:
    await crowd(wire)
    earlier = (await evaluate(wire, captions={"property": "title", "sample_size": 40})).report
    other = (await evaluate(wire, captions={"property": "title", "sample_size": 35}, earlier=earlier)).drift
    earlier.query_digest = query_digest(CaptionQueries("another", 40))

    failure = await refused(wire, captions={"property": "title"}, earlier=earlier)

    assert other.changes
    assert failure.fields == ["earlier.query_digest"]


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (
            {**BY_DEFAULT, "alpha": 0.5},
            {**BY_DEFAULT, "alpha": 0.7},
            "has system 'a' with alpha 0.5, here 0.7; set it as before, or give it",
        ),
        ({**BY_DEFAULT, "ef": 50}, BY_DEFAULT, "with ef 50, here None"),
        (BY_DEFAULT, {"target_weights": {"default": 0.5, "other": 0.5}}, "with vector 'default', here '', weights {}"),
        (BY_DEFAULT, {"target_vector": "other"}, "with vector 'default', here 'other'"),
    ],
    ids=str,
)
async def test_systems_that_are_set_in_another_way_are_not_compared(
    wire: Wire, before: dict[str, Any], now: dict[str, Any], words: str
) -> None:
    await crowd(wire, ["default", "other"])
    collection = await wire.store.get_collection("Pictures")
    (vector,) = collection.vectors
    await wire.store.update_collection(replace(collection, vectors=(vector, replace(vector, name="other"))))
    rest: dict[str, Any] = {"captions": {"property": "title"}, "allow_ef_change": True}
    plain = {"name": "plain", **BY_DEFAULT}
    earlier = (await evaluate(wire, systems=[plain, {"name": "a", **before}], **rest)).report

    failure = await refused(wire, systems=[plain, {"name": "a", **now}], earlier=earlier, **rest)

    assert failure.fields == ["earlier.systems"]
    assert words in failure.message


async def test_the_most_weighted_systems_are_compared_with_their_own_report(wire: Wire) -> None:
    names = ("default", "other", "third")
    await crowd(wire, names)
    collection = await wire.store.get_collection("Pictures")
    (vector,) = collection.vectors
    await wire.store.update_collection(replace(collection, vectors=tuple(replace(vector, name=name) for name in names)))
    joined = [{"name": str(each), "target_weights": dict.fromkeys(names, 1.0 + each)} for each in range(19)]
    systems = [{"name": "alone", **BY_DEFAULT}, *joined]
    rest: dict[str, Any] = {"captions": {"property": "title", "sample_size": 5}}
    earlier = (await evaluate(wire, systems=systems, **rest)).report

    again = await evaluate(wire, systems=systems, earlier=earlier, **rest)

    assert {each.subject for each in again.drift.changes} >= {str(each) for each in range(19)}


async def test_few_queries_are_said_to_tell_nothing_of_a_change(wire: Wire) -> None:
    await crowd(wire)
    earlier = await reported(wire)

    found = await evaluate(wire, objects={"sample_size": 29}, earlier=earlier)

    assert kinds(found) == [("FEW_QUERIES", "")]
    assert "29 queries are too few to tell a change of their measures from chance" in found.findings[0].message
    recall = next(each for each in found.drift.changes if each.kind == pb.CHANGE_KIND_INDEX_RECALL)
    assert not recall.HasField("chance")


async def test_drift_needs_the_comparison_with_exact_search(wire: Wire) -> None:
    await crowd(wire)
    earlier = (await evaluate(wire, captions={"property": "title"})).report

    failure = await refused(wire, captions={"property": "title"}, skip_index_recall=True, earlier=earlier)

    assert failure.fields == ["earlier"]


def shown(name: str, **labels: str) -> float | None:
    of = {"collection": "Pictures", "tenant": "", "vector": "default"}
    return REGISTRY.get_sample_value(f"vecgate_evaluation_{name}", {**of, **labels})


async def test_metrics_show_the_last_evaluation_of_a_collection(wire: Wire) -> None:
    ids = await crowd(wire)
    within = wire.store._objects["Pictures"]
    within[ids[0]].vectors = {}
    wire.store.lost = {(id_, "default") for id_ in ids[1:20]}

    await evaluate(wire, objects={"sample_size": 40})
    broken = [shown("faults", kind=each) for each in ("VECTORS_MISSING", "LOW_INDEX_RECALL", "HUBS", "GAP")]
    recall = shown("index_recall_ratio")
    within[ids[0]].vectors = dict(within[ids[1]].vectors)
    wire.store.lost = set()
    found = await evaluate(wire, objects={"sample_size": 40})

    assert broken == [1, 1, 0, None]
    assert 0 < (recall or 0) < 0.9
    assert [shown("faults", kind=each) for each in ("VECTORS_MISSING", "VECTORS_DOUBLED", "LOW_INDEX_RECALL")] == [
        0,
        1,
        0,
    ]
    assert shown("index_recall_ratio") == 1
    assert shown("time_seconds") == found.report.end_time.ToDatetime(UTC).timestamp()


async def pair(wire: Wire) -> list[UUID]:
    """Store objects with the same vectors in the named vectors `first` and `second`."""
    ids = await crowd(wire, ("first", "second"), name="first")
    collection = await wire.store.get_collection("Pictures")
    (first,) = collection.vectors
    await wire.store.update_collection(replace(collection, vectors=(first, replace(first, name="second"))))
    return ids


def of_each(name: str, **labels: str) -> list[float | None]:
    return [shown(name, vector=each, **labels) for each in ("first", "second")]


async def test_metrics_show_of_several_named_vectors_of_one_evaluation_each_with_its_own_faults(wire: Wire) -> None:
    ids = await pair(wire)
    systems = [{"target_vector": "first"}, {"target_vector": "second"}]
    earlier = (await evaluate(wire, objects={"sample_size": 40}, systems=systems)).report
    for id_ in ids[:5]:
        del wire.store._objects["Pictures"][id_].vectors["second"]
    wire.store.lost = {(id_, "second") for id_ in ids[5:]}

    found = await evaluate(wire, objects={"sample_size": 40}, systems=systems, earlier=earlier)

    for kind in ("VECTORS_MISSING", "OBJECTS_NOT_FOUND", "LOW_INDEX_RECALL"):
        assert of_each("faults", kind=kind) == [0, 1]
    assert of_each("index_recall_ratio") == [1, 0]
    losses = [each.subject for each in found.drift.changes if each.message]
    assert set(losses) == {found.systems[1].system.name}
    assert of_each("faults", kind="DRIFT") == [0, len(losses)]
    assert len(set(of_each("time_seconds"))) == 1


async def test_what_has_changed_only_in_searches_with_several_vectors_is_not_shown_in_the_metrics(wire: Wire) -> None:
    await pair(wire)
    systems = [{"target_vector": "first"}, {"name": "both", "target_weights": {"first": 1, "second": 1}}]
    asked = {"captions": {"property": "title", "sample_size": 40}, "systems": systems}
    earlier = (await evaluate(wire, **asked)).report
    wire.store.lost = {(UUID(int=number + 1), "second") for number in range(40)}
    metrics.note_evaluation("Pictures", "", "second", faults={"DRIFT": 8}, recall=0.5, time_s=7)

    found = await evaluate(wire, **asked, earlier=earlier)

    told = [each.subject for each in found.drift.changes if each.message]
    assert told
    assert set(told) == {"both"}
    assert of_each("faults", kind="DRIFT") == [0, 8]


async def test_a_named_vector_that_the_earlier_evaluation_did_not_read_keeps_its_number_of_changes(wire: Wire) -> None:
    await pair(wire)
    alone = [{"target_vector": "first"}]
    earlier = (await evaluate(wire, objects={"sample_size": 40}, systems=alone)).report
    metrics.note_evaluation("Pictures", "", "second", faults={"DRIFT": 5}, recall=0.5, time_s=7)

    await evaluate(wire, objects={"sample_size": 40}, systems=[*alone, {"target_vector": "second"}], earlier=earlier)

    assert of_each("faults", kind="DRIFT") == [0, 5]
    assert of_each("index_recall_ratio") == [1, 1]


async def test_what_is_tried_out_is_not_shown_as_a_fault_of_the_collection(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crowd(wire)
    noted: list[dict[str, int]] = []

    def note(*names: str, faults: dict[str, int], **_: object) -> None:
        noted.append(faults)

    monkeypatch.setattr(evaluator, "note_evaluation", note)

    await evaluate(wire, captions={"property": "title"}, systems=[{"alpha": 0.5}], skip_index_recall=True)
    await evaluate(wire, objects={}, systems=[{"ef": 20}], allow_ef_change=True)
    before = len(noted)
    await evaluate(wire, objects={}, systems=[{"name": "present"}, {"ef": 20}], allow_ef_change=True)

    assert before == 0
    assert [sum(each.values()) for each in noted] == [0]


async def test_what_an_evaluation_does_not_look_for_keeps_its_number_in_the_metrics(wire: Wire) -> None:
    ids = await crowd(wire)
    earlier = await reported(wire)
    for id_ in ids[:10]:
        del wire.store._objects["Pictures"][id_]
    wire.store.lost = {(id_, "default") for id_ in ids[10:12]}
    wrong = [{"id": f"{row}", "input": {"text": TITLES[row]}, "answers": [{"name": str(ids[-1])}]} for row in range(9)]

    drifted = await evaluate(wire, objects={"sample_size": 40}, earlier=earlier)
    changes = sum(each.kind == pb.FINDING_KIND_DRIFT for each in drifted.findings)
    await evaluate(wire, queries={"queries": wrong}, limit=1)

    assert shown("faults", kind="DRIFT") == changes > 0
    assert shown("faults", kind="OBJECTS_NOT_FOUND") == 1
    assert shown("faults", kind="NO_BETTER_THAN_CHANCE") is None


async def test_a_recall_that_was_not_measured_is_not_shown_as_that_of_an_earlier_time(wire: Wire) -> None:
    await crowd(wire)
    await evaluate(wire, objects={"sample_size": 40})

    metrics.note_evaluation("Pictures", "", "default", faults={}, recall=None, time_s=7)

    assert math.isnan(shown("index_recall_ratio") or 0)
    assert shown("time_seconds") == 7


async def test_metrics_show_nothing_of_a_collection_that_is_deleted(wire: Wire) -> None:
    await crowd(wire)
    metrics.note_evaluation("Kept", "", "default", faults={"HUBS": 3}, recall=0.5, time_s=7)
    await evaluate(wire, objects={"sample_size": 40})
    before = [shown("faults", kind="HUBS"), shown("index_recall_ratio")]

    await wire.collections.DeleteCollection(collection_pb.DeleteCollectionRequest(name="Pictures"))

    assert before == [0, 1]
    after = [shown("faults", kind="HUBS"), shown("index_recall_ratio"), shown("time_seconds")]
    assert all(math.isnan(each or 0) for each in after)
    assert shown("faults", kind="HUBS", collection="Kept") == 3


@pytest.mark.parametrize("here", [True, False], ids=["by this process", "by another one"])
async def test_metrics_show_nothing_of_a_named_vector_that_is_removed(wire: Wire, *, here: bool) -> None:
    await pair(wire)
    alone = [{"target_vector": "first"}]
    await evaluate(wire, objects={"sample_size": 40}, systems=[*alone, {"target_vector": "second"}])
    before = of_each("index_recall_ratio")

    if here:
        removal = collection_pb.UpdateCollectionRequest(collection={"name": "Pictures"}, removed_vectors=["second"])
        await wire.collections.UpdateCollection(removal)
    else:
        await wire.store.remove_vector("Pictures", "second")
        await evaluate(wire, objects={"sample_size": 40}, systems=alone)

    assert before == [1, 1]
    after = [of_each("faults", kind="HUBS"), of_each("index_recall_ratio"), of_each("time_seconds")]
    assert [math.isnan(second or 0) for _, second in after] == [True] * 3
    assert not any(math.isnan(first or 0) for first, _ in after)


def test_metrics_show_nothing_of_a_tenant_that_is_deleted() -> None:
    for tenant in ("a", "b"):
        metrics.note_evaluation("Pictures", tenant, "default", faults={"HUBS": 3}, recall=0.5, time_s=7)

    metrics.forget_evaluations("Pictures", ["a"])

    assert math.isnan(shown("faults", kind="HUBS", tenant="a") or 0)
    assert shown("faults", kind="HUBS", tenant="b") == 3


def test_metrics_show_no_more_collections_than_a_server_may_have_labels_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_EVALUATED", 1)
    monkeypatch.setattr(metrics, "_evaluated", {("Pictures", "", "default")})

    for name, vector in (("Pictures", "default"), ("Others", "default"), ("Pictures", "others")):
        metrics.note_evaluation(name, "", vector, faults={"HUBS": 7}, recall=None, time_s=7)

    assert shown("faults", kind="HUBS") == 7
    assert shown("faults", kind="HUBS", collection="Others") is None
    assert shown("faults", kind="HUBS", vector="others") is None
