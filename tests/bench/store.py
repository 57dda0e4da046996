"""Imports beside Weaviate's own client and module.

All run against the same Weaviate and, where something is embedded, the same simulated NIM: 20 ms and 1 ms an input for
a pass of at most 64. Ratios compare what was measured in the same run, in turns.
"""

import base64
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import psutil
import weaviate
from weaviate.classes.config import Configure
from weaviate.classes.config import DataType as WeaviateType
from weaviate.classes.config import Property as WeaviateProperty
from weaviate.classes.data import DataObject

from tests.bench.web import (
    DIMENSION,
    FRESH,
    KEY,
    MOST,
    PICTURES,
    connect,
    fresh_picture,
    import_by_module,
    in_turns,
    process,
    serve_nim,
)
from tests.e2e.serving import Serving, serving
from vecgate.client import Client, Object
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1.vector_index_pb2 import FlatIndex, VectorIndex

OBJECTS = 1000
READY = 20_000
MEMORY_OBJECTS = int(os.environ.get("BENCH_OBJECTS", "50000"))
MEMORY_STEP = 5000
MODEL = "nvidia/nvclip"


class Parts(NamedTuple):
    """What a benchmark runs against."""

    nim: str
    vecgate: Serving
    client: Client
    direct: weaviate.WeaviateClient


@contextmanager
def parts() -> Iterator[Parts]:
    """Run a NIM, and Vecgate with its Weaviate in front of it."""
    with ExitStack() as ends:
        nim = str(ends.enter_context(process(serve_nim)).recv())
        vecgate = ends.enter_context(
            serving(
                Path(ends.enter_context(tempfile.TemporaryDirectory())),
                VECGATE_WEAVIATE__API_KEY=KEY,
                VECGATE_EMBEDDERS__NIM__KIND="nim",
                VECGATE_EMBEDDERS__NIM__BASE_URL=nim,
            )
        )
        client = ends.enter_context(vecgate.client())
        yield Parts(nim, vecgate, client, ends.enter_context(connect(vecgate.wait_for("serving"))))


def fresh_objects(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield titles and pictures that nothing has seen before."""
    for at in range(count):
        number = next(FRESH)
        yield f"picture {number}", fresh_picture(PICTURES[at % len(PICTURES)], number)


def unit_rows(count: int) -> np.ndarray:
    """Return random unit vectors, float32 of shape (count, DIMENSION)."""
    rows = np.random.default_rng(0).standard_normal((count, DIMENSION), np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def create(client: Client, name: str, index: VectorIndex | None = None) -> None:
    """Make an empty collection of pictures and titles, with Weaviate's default index unless told otherwise."""
    if name in {each.name for each in client.list_collections()}:
        client.delete_collection(name)
    client.create_collection(
        pb.Collection(
            name=name,
            properties=[
                property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
                property_pb.Property(name="image", data_type=property_pb.DATA_TYPE_BLOB),
            ],
            vectors=[
                pb.VectorConfig(
                    name="default", image_fields=[{"name": "image"}], text_fields=[{"name": "title"}], index=index
                )
            ],
        )
    )


def import_by_vecgate(client: Client, count: int) -> float:
    """Import objects through Vecgate; return objects a second."""
    create(client, "Imported")
    objects = (Object({"title": title}, images={"image": content}) for title, content in fresh_objects(count))
    started = time.perf_counter()
    failed = [outcome.error for outcome in client.import_objects("Imported", objects) if outcome.error]
    took = time.perf_counter() - started
    assert not failed, failed[0]
    assert client.get_collection("Imported").object_count == count
    return count / took


def write_ready(direct: weaviate.WeaviateClient, count: int) -> float:
    """Write objects with ready vectors by Weaviate's own client, 100 a call, two at a time; return objects a second."""
    direct.collections.delete("Written")
    collection = direct.collections.create(
        "Written",
        properties=[
            WeaviateProperty(name="title", data_type=WeaviateType.TEXT),
            WeaviateProperty(name="image", data_type=WeaviateType.BLOB),
        ],
        vector_config=Configure.Vectors.self_provided(name="default"),
    )
    rows = unit_rows(count)
    objects = [
        DataObject({"title": title, "image": base64.b64encode(content).decode()}, vector={"default": row.tolist()})
        for (title, content), row in zip(fresh_objects(count), rows, strict=True)
    ]
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(collection.data.insert_many, (objects[at : at + 100] for at in range(0, count, 100))))
    took = time.perf_counter() - started
    assert not any(answer.has_errors for answer in answers)
    return count / took


def embed_by_nim(nim: str, count: int) -> float:
    """Embed the inputs of objects by full requests, some at a time; return objects a second."""
    inputs = [text for title, content in fresh_objects(count) for text in (title, _data_uri(content))]
    bodies = [
        {"input": inputs[at : at + MOST], "model": MODEL, "encoding_format": "base64"}
        for at in range(0, len(inputs), MOST)
    ]
    with httpx.Client(base_url=nim, timeout=60, trust_env=False) as http, ThreadPoolExecutor(4) as pool:
        started = time.perf_counter()
        for answer in pool.map(lambda body: http.post("/v1/embeddings", json=body), bodies):
            assert answer.status_code == httpx.codes.OK, answer.text
        return count / (time.perf_counter() - started)


def _data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def bench_store_import() -> None:
    """Print how fast objects of a text and a picture are imported."""
    with parts() as with_:
        rates = in_turns(
            vecgate=lambda: import_by_vecgate(with_.client, OBJECTS),
            written=lambda: write_ready(with_.direct, OBJECTS),
            ceiling=lambda: embed_by_nim(with_.nim, OBJECTS),
            module=lambda: import_by_module(with_.direct, with_.nim, MODEL),
        )
    bound = min(rates["written"], rates["ceiling"])
    print(f"import of {OBJECTS} objects of a text and a picture: {rates['vecgate']:.0f} objects/s through Vecgate, "
          f"{rates['vecgate'] / bound:.2f} of the lower of ready vectors ({rates['written']:.0f}) and the NIM's "
          f"ceiling ({rates['ceiling']:.0f}; goal 0.9), {rates['vecgate'] / rates['module']:.1f} x the module "
          f"({rates['module']:.0f}; goal 5)")  # fmt: skip


def import_ready(client: Client, rows: np.ndarray) -> float:
    """Import titles with ready vectors through Vecgate into a flat index; return objects a second."""
    create(client, "Imported", VectorIndex(flat=FlatIndex()))
    objects = (Object({"title": f"picture {at}"}, vectors={"default": row}) for at, row in enumerate(rows))
    started = time.perf_counter()
    failed = [outcome.error for outcome in client.import_objects("Imported", objects) if outcome.error]
    took = time.perf_counter() - started
    assert not failed, failed[0]
    return len(rows) / took


def write_flat(direct: weaviate.WeaviateClient, rows: np.ndarray) -> float:
    """Write titles with ready vectors by Weaviate's own client, 100 a call; return objects a second."""
    direct.collections.delete("Written")
    collection = direct.collections.create(
        "Written",
        properties=[WeaviateProperty(name="title", data_type=WeaviateType.TEXT)],
        vector_config=Configure.Vectors.self_provided(name="default", vector_index_config=Configure.VectorIndex.flat()),
    )
    started = time.perf_counter()
    for begin in range(0, len(rows), 100):
        part = enumerate(rows[begin : begin + 100], start=begin)
        written = [DataObject({"title": f"picture {at}"}, vector={"default": row}) for at, row in part]
        assert not collection.data.insert_many(written).has_errors
    return len(rows) / (time.perf_counter() - started)


def bench_store_ready() -> None:
    """Print how fast objects with ready vectors are imported, beside Weaviate's own client."""
    rows = unit_rows(READY)
    with parts() as with_:
        vecgate = psutil.Process(with_.vecgate.process.pid)
        cpu_s: list[float] = []

        def imported() -> float:
            before = sum(vecgate.cpu_times()[:2])
            rate = import_ready(with_.client, rows)
            cpu_s.append(sum(vecgate.cpu_times()[:2]) - before)
            return rate

        import_ready(with_.client, rows)
        first = vecgate.memory_info().rss
        rates = in_turns(vecgate=imported, written=lambda: write_flat(with_.direct, rows))
        grown = vecgate.memory_info().rss - first
    print(f"import of {READY} objects with ready vectors: {rates['vecgate']:.0f} objects/s through Vecgate, whose "
          f"client has four calls in flight, {rates['vecgate'] / rates['written']:.2f} of Weaviate's own client "
          f"with one ({rates['written']:.0f}; goal 0.8), "
          f"{statistics.median(cpu_s) / READY * 1000:.2f} ms of CPU an object in Vecgate, "
          f"{grown / 2**20:+.0f} MiB after the first import (goal: none)")  # fmt: skip


def bench_memory() -> None:
    """Print the memory of Vecgate while objects of a text and a picture are imported in one go."""
    with parts() as with_:
        create(with_.client, "Imported")
        vecgate = psutil.Process(with_.vecgate.process.pid)
        objects = (
            Object({"title": title}, images={"image": content}) for title, content in fresh_objects(MEMORY_OBJECTS)
        )
        print("memory of Vecgate while importing (goal: as much after the last object as after the first thousands):")
        for done, outcome in enumerate(with_.client.import_objects("Imported", objects), start=1):
            assert outcome.error is None, outcome.error
            if done % MEMORY_STEP == 0 or done == MEMORY_OBJECTS:
                print(f"  {done} objects: {vecgate.memory_info().rss / 2**20:.0f} MiB", flush=True)
