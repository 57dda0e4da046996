"""Searches through Vecgate beside the same searches sent to Weaviate, by one client.

One client, in a process of its own, sends requests that are ready as bytes, so that what it costs is the same on both
sides. The collection is one of Weaviate's own module, so that Weaviate embeds the texts of its searches, too, by the
same simulated NIM. Two cores hold client, Vecgate, Weaviate and NIM together: on a busy machine only ratios count.
"""

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import NamedTuple

import grpc
import numpy as np
import psutil
from weaviate.proto.v1 import search_get_pb2

from service.domain import Blend, Keywords, ReturnFields, SearchSpec, TargetVectors
from service.store.weaviate.wire import search_request
from tests.bench.store import MODEL, Parts, parts, unit_rows
from tests.bench.web import FRESH, KEY, process
from vecgate.client import Object
from vecgate.v1 import search_service_pb2 as pb

SEARCHED = int(os.environ.get("BENCH_OBJECTS", "20000"))
REQUESTS = 1500
"""Requests of one measurement; when it is faster, they are sent again."""
SECONDS = 1.5
ROUNDS = 3
ALPHA = 0.75
METHOD = "/vecgate.v1.SearchService/SearchObjects"
WEAVIATE_METHOD = "/weaviate.v1.Weaviate/Search"
WEAVIATE_METADATA = (("authorization", f"Bearer {KEY}"), ("x-nvidia-api-key", "any"))
ANY_SIZE = [("grpc.max_receive_message_length", -1)]
FIELDS = ReturnFields(["title"])


class Load(NamedTuple):
    """What the client is to send."""

    address: str
    method: str
    metadata: tuple[tuple[str, str], ...]
    requests: Sequence[bytes]
    callers: int


class Seen(NamedTuple):
    """What the client saw: searches, searches a second, and the median of their seconds."""

    count: int
    rate: float
    p50_s: float


class Cell(NamedTuple):
    """A search to measure, from so many callers."""

    kind: str
    hits: int
    callers: int


CELLS = [Cell(kind, 10, callers) for kind in ("near_vector", "near_text", "hybrid") for callers in (1, 8, 16)]
CELLS += [Cell("near_vector", hits, 8) for hits in (1, 100)]


def client(pipe: Connection) -> None:
    """Run loads until told to end."""

    async def run(load: Load) -> Seen:
        took: list[float] = []
        async with grpc.aio.insecure_channel(load.address, options=ANY_SIZE) as channel:
            call, requests = channel.unary_unary(load.method), itertools.cycle(load.requests)
            await asyncio.gather(*(call(next(requests), metadata=load.metadata) for _ in range(load.callers)))
            started = time.perf_counter()
            end = started + SECONDS

            async def caller() -> None:
                while (began := time.perf_counter()) < end:
                    await call(next(requests), metadata=load.metadata)
                    took.append(time.perf_counter() - began)

            await asyncio.gather(*(caller() for _ in range(load.callers)))
            return Seen(len(took), len(took) / (time.perf_counter() - started), statistics.median(took))

    while (load := pipe.recv()) is not None:
        try:
            pipe.send(asyncio.run(run(load)))
        except grpc.aio.AioRpcError as error:
            pipe.send(str(error))


def fill(with_: Parts, rows: np.ndarray) -> None:
    """Make a collection of Weaviate's own module, and import objects with ready vectors."""
    module = {"baseURL": with_.nim, "model": MODEL, "imageFields": ["image"], "textFields": ["title"]}
    with_.direct.collections.delete("Searched")
    with_.direct.collections.create_from_dict(
        {
            "class": "Searched",
            "properties": [{"name": "title", "dataType": ["text"]}, {"name": "image", "dataType": ["blob"]}],
            "vectorConfig": {"default": {"vectorizer": {"multi2vec-nvidia": module}, "vectorIndexType": "hnsw"}},
        }
    )
    objects = (Object({"title": f"picture {at}"}, vectors={"default": row}) for at, row in enumerate(rows))
    failed = [each.error for each in with_.client.import_objects("Searched", objects, chunk_objects=500) if each.error]
    assert not failed, failed[0]


def texts() -> Iterator[str]:
    """Yield texts that nothing has embedded before, of words that objects have."""
    for number in FRESH:
        yield f"picture {number % SEARCHED} of {number}"


def ours(cell: Cell, queries: Sequence[np.ndarray]) -> list[bytes]:
    """Return requests for Vecgate."""
    words, made = texts(), []
    for query in queries:
        request = pb.SearchObjectsRequest(collection="Searched", limit=cell.hits)
        request.output.properties.extend(FIELDS.properties)
        match cell.kind:
            case "near_vector":
                request.near_vector.vector.data = query.tobytes()
            case "near_text":
                request.near_text.concepts.append(next(words))
            case "hybrid":
                request.hybrid.bm25.query, request.hybrid.alpha = next(words), ALPHA
        made.append(request.SerializeToString())
    return made


def theirs(cell: Cell, queries: Sequence[np.ndarray]) -> list[bytes]:
    """Return the same requests for Weaviate, whose module embeds the texts."""
    words, made = texts(), []
    for query in queries:
        near = TargetVectors({"default": query})
        text = next(words)
        found = Blend(Keywords(text), ALPHA, targets=near) if cell.kind == "hybrid" else near
        request: search_get_pb2.SearchRequest = search_request(
            "Searched", SearchSpec(found, cell.hits, fields=FIELDS), nameless=False
        )
        if cell.kind == "hybrid":
            request.hybrid_search.ClearField("vector_bytes")
        if cell.kind == "near_text":
            request.ClearField("near_vector")
            request.near_text.query.append(text)
            request.near_text.targets.target_vectors.append("default")
        made.append(request.SerializeToString())
    return made


def goal_of(cell: Cell) -> float | None:
    """Return the least ratio of searches a second that is wanted."""
    if cell.kind == "near_text":
        return 1.0
    return 0.75 if cell.kind == "near_vector" and cell.hits == CELLS[0].hits and cell.callers > 1 else None


def line_of(cell: Cell, direct: Sequence[Seen], through: Sequence[Seen], cpu_ms: float) -> str:
    """Return what was measured of a cell, by medians."""
    rate, p50 = (
        [statistics.median(getattr(each, name) for each in seen) for seen in (direct, through)]
        for name in ("rate", "p50_s")
    )
    goals = {"ratio": goal_of(cell), "p50": None, "cpu": None}
    if cell.kind == "near_vector" and cell.hits == CELLS[0].hits:
        goals |= {"p50": 1.0 if cell.callers == 1 else None, "cpu": 1.1}
    shown = {name: "" if goal is None else f" (goal {goal:g})" for name, goal in goals.items()}
    return (
        f"  {cell.kind}, hits {cell.hits}, callers {cell.callers}: {rate[0]:.0f}/s and p50 {p50[0] * 1000:.1f} ms; "
        f"through Vecgate {rate[1] / rate[0]:.2f} of that{shown['ratio']}, {(p50[1] - p50[0]) * 1000:+.1f} ms"
        f"{shown['p50']}, {cpu_ms:.2f} ms of its CPU a search{shown['cpu']}"
    )


def bench_store_search() -> None:
    """Print what searches cost through Vecgate, beside the same searches of Weaviate."""
    with ExitStack() as ends:
        with_ = ends.enter_context(parts())
        pipe = ends.enter_context(process(client))
        fill(with_, unit_rows(SEARCHED))
        vecgate = psutil.Process(with_.vecgate.process.pid)
        weaviate = str(with_.vecgate.wait_for("serving")["weaviate_grpc"])
        queries = list(unit_rows(REQUESTS)[::-1])

        def measured(load: Load) -> Seen:
            pipe.send(load)
            seen: Seen | str = pipe.recv()
            assert isinstance(seen, Seen), seen
            return seen

        print(
            f"searches among {SEARCHED} vectors of {queries[0].size} values, medians of {ROUNDS} rounds in turns, by "
            "one client:"
        )
        for cell in CELLS:
            direct, through, cpu_s, count = [], [], 0.0, 0
            for _ in range(ROUNDS):
                requests = theirs(cell, queries)
                direct.append(measured(Load(weaviate, WEAVIATE_METHOD, WEAVIATE_METADATA, requests, cell.callers)))
                before = vecgate.cpu_times()
                through.append(measured(Load(with_.vecgate.address, METHOD, (), ours(cell, queries), cell.callers)))
                after = vecgate.cpu_times()
                cpu_s += after.user + after.system - before.user - before.system
                count += through[-1].count + cell.callers
            print(line_of(cell, direct, through, cpu_s / count * 1000), flush=True)
