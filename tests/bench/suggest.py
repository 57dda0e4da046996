"""The ef that an evaluation suggests for a wanted recall, beside the recall that it has with other queries.

The vectors have structure, as those of a model do: many groups of different widths, within a space of fewer dimensions.
All queries come from the same groups, and are no stored objects: some choose the ef as texts that the model makes these
vectors of, others measure it again. Exact search among all vectors is numpy's. At last stored objects choose an ef.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import grpc
import numpy as np
from numpy.typing import NDArray

from service.settings import WeaviateSettings
from tests.e2e.beside import beside
from tests.e2e.serving import running_weaviate
from tests.fakes.embedder import FakeEmbedder
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import evaluation_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

OBJECTS = int(os.environ.get("BENCH_OBJECTS", "100000"))
DIMENSION, INNER, GROUPS = 128, 48, 500
LIMIT = 10
WANTED = (0.90, 0.95, 0.99)
WITHIN = 0.01
CHOOSING, ASKED = 1000, 3000
"""Queries that choose, the most that an evaluation takes; and others, whose mean recall is known to about 0.005."""
AT_ONCE = 4
INDEX = {"hnsw": {"ef": 64, "ef_construction": 48, "max_connections": 12}}
"""A coarse index, so that the wanted recalls need different values of ef."""
NAME = "Suggested"

Rows = NDArray[np.float32]


def structured(count: int, seed: int) -> Rows:
    """Return unit vectors of groups within a space of fewer dimensions, float32 of shape (count, DIMENSION)."""
    shape, random = np.random.default_rng(1), np.random.default_rng(seed)
    centres = shape.standard_normal((GROUPS, INNER))
    widths = shape.uniform(0.3, 1.2, GROUPS)
    outwards = shape.standard_normal((INNER, DIMENSION))
    group = random.integers(GROUPS, size=count)
    inner = centres[group] + widths[group, None] * random.standard_normal((count, INNER))
    rows = inner @ outwards + 0.5 * random.standard_normal((count, DIMENSION))
    unit: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def nearest(rows: Rows, queries: Rows) -> list[set[str]]:
    """Return the ids of the nearest objects of queries, by exact search."""
    found = []
    for start in range(0, len(queries), 200):
        distances = -queries[start : start + 200] @ rows.T
        places = np.argpartition(distances, LIMIT, axis=1)[:, :LIMIT]
        found += [{id_of(int(each)) for each in row} for row in places]
    return found


def id_of(row: int) -> str:
    """Return the id of a stored vector."""
    return str(UUID(int=row + 1))


class Collection:
    """A collection of ready vectors behind a Vecgate."""

    def __init__(self, channel: grpc.aio.Channel, rows: Rows) -> None:
        self._rows = rows
        self._collections = CollectionServiceStub(channel)
        self._objects = ObjectServiceStub(channel)
        self._search = SearchServiceStub(channel)
        self._evaluation = EvaluationServiceStub(channel)

    async def fill(self) -> None:
        """Create it, and import all vectors."""
        made = {
            "name": NAME,
            "properties": [{"name": "title", "data_type": "DATA_TYPE_TEXT"}],
            "vectors": [{"name": "default", "text_fields": [{"name": "title"}], "index": INDEX}],
        }
        await self._collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=made))
        at_once = asyncio.Semaphore(AT_ONCE)

        async def store(start: int) -> None:
            part = enumerate(self._rows[start : start + 250], start)
            objects = [
                object_pb.DataObject(id=id_of(row), vectors={"default": {"data": v.tobytes()}}) for row, v in part
            ]
            async with at_once:
                answer = await self._objects.ImportObjects(
                    object_pb.ImportObjectsRequest(collection=NAME, objects=objects)
                )
            assert all(each.HasField("stored") for each in answer.results)

        await asyncio.gather(*(store(start) for start in range(0, len(self._rows), 250)))

    async def suggestion(self, wanted: float, **fields: object) -> pb.Evaluation:
        """Return an evaluation that looks for an ef."""
        request = pb.EvaluateCollectionRequest(
            collection=NAME, limit=LIMIT, wanted_recall=wanted, allow_ef_change=True, **fields
        )
        *_, last = [each async for each in self._evaluation.EvaluateCollection(request)]
        return last.evaluation

    async def set_ef(self, ef: int) -> None:
        """Give the index another ef."""
        vector = {"name": "default", "index": {"hnsw": {"ef": ef}}}
        await self._collections.UpdateCollection(
            collection_pb.UpdateCollectionRequest(collection={"name": NAME, "vectors": [vector]})
        )

    async def recalls(self, queries: Rows, near: Sequence[set[str]]) -> NDArray[np.float64]:
        """Return how much of what is nearest each query finds."""
        at_once = asyncio.Semaphore(AT_ONCE)

        async def share(query: Rows, true: set[str]) -> float:
            request = search_pb.SearchObjectsRequest(collection=NAME, limit=LIMIT)
            request.near_vector.vector.data = query.tobytes()
            async with at_once:
                found = await self._search.SearchObjects(request)
            return len({hit.object.id for hit in found.hits} & true) / LIMIT

        return np.array(await asyncio.gather(*map(share, queries, near)))


async def measure(settings: WeaviateSettings) -> None:
    """Print for each wanted recall the suggested ef, and the recall that it has with other queries."""
    rows, queries = structured(OBJECTS, seed=2), structured(ASKED, seed=3)
    near = nearest(rows, queries)
    known = {f"query {number}": row.tolist() for number, row in enumerate(structured(CHOOSING, seed=4))}
    async with beside(settings, FakeEmbedder(dimension=DIMENSION, known=known)) as (channel, _):
        collection = Collection(channel, rows)
        began = time.perf_counter()
        await collection.fill()
        print(f"{OBJECTS} vectors of {DIMENSION} values, stored in {time.perf_counter() - began:.0f} s", flush=True)
        written = {"queries": [{"id": text, "input": {"text": text}} for text in known]}
        for wanted in WANTED:
            await one(collection, wanted, (queries, near), queries=written)
        await one(collection, WANTED[0], (queries, near), objects={"sample_size": CHOOSING})


async def one(collection: Collection, wanted: float, others: tuple[Rows, Sequence[set[str]]], **chosen: object) -> None:
    """Print what is suggested for a wanted recall by some queries, and what others reach with it."""
    began = time.perf_counter()
    found = await collection.suggestion(wanted, **chosen)
    took = time.perf_counter() - began
    await collection.set_ef(found.ef.ef)
    anew = await collection.recalls(*others)
    off, said = float(anew.mean()) - wanted, found.ef.recall
    print(
        f"wanted {wanted:.2f}, chosen by {', '.join(chosen)}: ef {found.ef.ef}, said to reach {said.mean:.4f} "
        f"({said.low:.4f} to {said.high:.4f}), after {found.searches} searches in {took:.0f} s; {ASKED} other queries "
        f"reach {anew.mean():.4f} ({off:+.4f}; goal {WITHIN} at most)",
        flush=True,
    )


def bench_suggest() -> None:
    """Run a Weaviate, and measure what is suggested for its index."""
    with tempfile.TemporaryDirectory() as folder, running_weaviate(Path(folder)) as weaviate:
        asyncio.run(measure(weaviate.client_settings))
