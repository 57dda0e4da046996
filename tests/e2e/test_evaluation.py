"""Evaluations of a real Weaviate's index, whose truth numpy knows."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from service.settings import WeaviateSettings
from tests.conftest import assert_close
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import evaluation_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

COUNT, DIMENSION, LIMIT = 1250, 48, 10
LEAST_EF, LESS_EF = 12, 100
COARSE = {"hnsw": {"ef": LEAST_EF, "ef_construction": 16, "max_connections": 6}}
"""An index that finds far less than all."""


def random_rows(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype("<f4")


QUERIES = {f"query {number}": row.tolist() for number, row in enumerate(random_rows(400, seed=2))}
"""Texts, and what the model makes of them."""


class Evaluated:
    """A Vecgate over a real Weaviate, with a collection of random vectors in a coarse index."""

    def __init__(self, name: str, channel: grpc.aio.Channel) -> None:
        self.name = name
        self.collections = CollectionServiceStub(channel)
        self.objects = ObjectServiceStub(channel)
        self.search = SearchServiceStub(channel)
        self.evaluation = EvaluationServiceStub(channel)
        self.vectors = random_rows(COUNT, seed=1)

    async def fill(self) -> None:
        config = {"name": "default", "text_fields": [{"name": "title"}], "index": COARSE}
        collection = collection_pb.Collection(
            name=self.name, properties=[{"name": "title", "data_type": "DATA_TYPE_TEXT"}], vectors=[config]
        )
        await self.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))
        for start in range(0, COUNT, 250):
            messages = []
            for number in range(start, start + 250):
                message = object_pb.DataObject(id=str(UUID(int=number + 1)), properties={"title": f"thing {number}"})
                message.vectors["default"].data = self.vectors[number].tobytes()
                messages.append(message)
            request = object_pb.ImportObjectsRequest(collection=self.name, objects=messages)
            assert all(each.HasField("stored") for each in (await self.objects.ImportObjects(request)).results)

    async def evaluate(self, **fields: object) -> pb.Evaluation:
        request = pb.EvaluateCollectionRequest(collection=self.name, limit=LIMIT, **fields)
        *_, last = [each async for each in self.evaluation.EvaluateCollection(request)]
        return last.evaluation

    async def set_ef(self, ef: int) -> None:
        vector = {"name": "default", "index": {"hnsw": {"ef": ef}}}
        request = collection_pb.UpdateCollectionRequest(collection={"name": self.name, "vectors": [vector]})
        await self.collections.UpdateCollection(request)

    async def true_recall(self, queries: NDArray[np.float32], own: Sequence[int] = ()) -> float:
        """Return how much of what numpy finds nearest searches find; queries may be the vectors of objects `own`."""
        scaled = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        shares = []
        for place, query in enumerate(queries):
            itself = own[place] if own else -1
            order = np.argsort(-(scaled @ query), kind="stable")
            near = [str(UUID(int=int(each) + 1)) for each in order[: LIMIT + 1] if each != itself][:LIMIT]
            found = await self.search.SearchObjects(
                search_pb.SearchObjectsRequest(
                    collection=self.name,
                    near_vector={"vector": {"data": query.tobytes()}},
                    limit=LIMIT + bool(own),
                )
            )
            hits = [hit.object.id for hit in found.hits if hit.object.id != str(UUID(int=itself + 1))][:LIMIT]
            shares.append(len(set(hits) & set(near)) / LIMIT)
        return float(np.mean(shares))


@pytest.fixture
async def evaluated(weaviate_settings: WeaviateSettings) -> AsyncIterator[Evaluated]:
    async with beside(weaviate_settings, FakeEmbedder(dimension=DIMENSION, known=QUERIES)) as (channel, _):
        made = Evaluated(f"Evaluated{uuid4().hex}", channel)
        await made.fill()
        yield made


def index_recall(system: pb.SystemResult) -> pb.Estimate:
    return next(each.estimate for each in system.measures if each.measure == pb.EVALUATION_MEASURE_INDEX_RECALL)


def same_queries(drift: pb.Drift) -> pb.Change:
    """Return how the index recall of the queries has changed that both evaluations have."""
    return next(each for each in drift.changes if each.kind == pb.CHANGE_KIND_INDEX_RECALL and each.same_queries)


@pytest.mark.e2e
async def test_the_reported_recall_of_an_index_is_the_true_one_and_the_suggested_ef_reaches_what_is_wanted(
    evaluated: Evaluated,
) -> None:
    truth = await evaluated.true_recall(evaluated.vectors, range(COUNT))
    systems = [{"name": "present"}, {"name": "more", "ef": 100}, {"name": "all", "ef": COUNT}]

    found = await evaluated.evaluate(
        objects={"sample_size": 1000}, systems=systems, wanted_recall=0.9, allow_ef_change=True
    )

    present, more, all_ = (index_recall(each) for each in found.systems)
    assert 0.1 < present.mean < 0.9
    # The sample is four fifths of all that can be asked, and the interval allows for a sample of ever so many, so it
    # misses the truth of a new random index in less than one of 50,000 runs.
    assert present.low <= truth <= present.high
    assert present.mean < more.mean < all_.mean
    assert all_.mean > 0.97
    assert all(each.real for each in found.comparisons)
    named = {(each.kind, each.system) for each in found.findings}
    assert (pb.FINDING_KIND_LOW_INDEX_RECALL, "present") in named
    assert (pb.FINDING_KIND_LOW_INDEX_RECALL, "all") not in named
    (vector,) = (
        await evaluated.collections.GetCollection(collection_pb.GetCollectionRequest(name=evaluated.name))
    ).collection.vectors
    assert vector.index.hnsw.ef == LEAST_EF
    assert found.ef.reached
    await evaluated.set_ef(found.ef.ef)
    others = range(1, COUNT, 5)
    assert_close(await evaluated.true_recall(evaluated.vectors[others], others), 0.9, 0.04)
    assert (pb.FINDING_KIND_EF_FOR_OBJECTS, "") in named


@pytest.mark.e2e
async def test_the_ef_that_own_queries_choose_reaches_the_wanted_recall_with_others_like_them(
    evaluated: Evaluated,
) -> None:
    written = [{"id": text, "input": {"text": text}} for text in QUERIES]
    truth = await evaluated.true_recall(random_rows(400, seed=2))

    found = await evaluated.evaluate(queries={"queries": written}, wanted_recall=0.9, allow_ef_change=True)

    present = index_recall(found.systems[0])
    assert_close(present.mean, truth, 1e-6)
    assert present.low <= truth <= present.high
    assert found.ef.reached
    assert pb.FINDING_KIND_EF_FOR_OBJECTS not in [each.kind for each in found.findings]
    await evaluated.set_ef(found.ef.ef)
    assert_close(await evaluated.true_recall(random_rows(400, seed=3)), 0.9, 0.04)


@pytest.mark.e2e
async def test_an_index_that_finds_enough_is_not_warned_of_until_it_finds_a_little_less(evaluated: Evaluated) -> None:
    await evaluated.set_ef(COUNT)

    found = await evaluated.evaluate(objects={"sample_size": 200})
    for number in (0, COUNT // 2, COUNT - 1):
        gone = object_pb.DeleteObjectRequest(collection=evaluated.name, id=str(UUID(int=number + 1)))
        await evaluated.objects.DeleteObject(gone)
    again = await evaluated.evaluate(objects={"sample_size": 200}, earlier=found.report)
    await evaluated.set_ef(LESS_EF)
    less = await evaluated.evaluate(objects={"sample_size": 200}, earlier=found.report)

    assert index_recall(found.systems[0]).mean > 0.97
    assert pb.FINDING_KIND_LOW_INDEX_RECALL not in [each.kind for each in found.findings]
    unchanged, lost = (same_queries(each.drift) for each in (again, less))
    assert unchanged.same_queries == lost.same_queries >= 180
    assert not unchanged.real
    assert lost.real
    assert lost.before - lost.now > 0.01
