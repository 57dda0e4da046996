"""Bulk jobs on Ray beside their parts, and beside `vecgate import`; the driver's memory; more and more workers.

Everything shares the cores of this machine, also Ray and Weaviate.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from embedders.clip.config import ClipConfig
from service.bulk import pipeline
from service.bulk.accounts import Progress
from service.bulk.job import Job, run
from service.bulk.loop import BackgroundLoop
from service.bulk.pipeline import LocalModel, Sizes, load_model, start_ray
from service.bulk.reading import Reading, read_fragment
from service.bulk.rows import Row, from_table
from service.bulk.stages import Decode, Embed, Target
from service.domain import Collection, DataType, NamedVector, Property, Scope, Space, WeightedField
from service.settings import Settings, WeaviateSettings, load_settings
from service.sources.fragments import fragments, schema
from service.sources.mapping import Mapping as ColumnMapping
from service.store.weaviate import WeaviateStore
from tests.bench.simulated import GPU_ROWS_S, SleepingEmbed, read_when_started, tell_started, worked_s
from tests.bench.tables import as_parquet, varied_picture
from tests.e2e.serving import ROOT, running_weaviate, serving, tiny_model
from tests.fakes.weaviate import variables_of

PICTURES = int(os.environ.get("BENCH_OBJECTS", "10000"))
PART_FILES = 8
"""Files of pictures that the parts are measured with."""
FILE_ROWS = 250
WRITE_OBJECTS, WRITES = 100, 4
TINY_ROWS, TINY_FILE_ROWS = 200_000, 10_000
FIRST_ROWS = 20_000
WORKERS = (1, 2, 4, 8, 16)
WORKER_BATCH = 50
WORKED_S = 15
"""Seconds of work for each simulated GPU."""
BEGIN, END = 0.2, 0.8
"""The shares of the rows between which a job's pace is measured: pipelines fill before, and empty after."""


@dataclass
class Pace:
    """When rows came out of the last stage.

    Attributes:
        began_s: when the job began, by time.perf_counter.
        came_s: when so many rows had come, by the same clock.
        memory: bytes of this process after some rows.
    """

    began_s: float = field(default_factory=time.perf_counter)
    came_s: dict[int, float] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)

    def advance(self, progress: Progress) -> None:
        """Note how far the job is."""
        if progress.rows > max(self.came_s, default=0):
            self.came_s[progress.rows] = time.perf_counter()
            self.memory[progress.rows] = psutil.Process().memory_info().rss

    @property
    def start_s(self) -> float:
        """Seconds to the first rows."""
        return min(self.came_s.values()) - self.began_s

    @property
    def rate(self) -> float:
        """Rows a second in the middle of the job."""
        rows = max(self.came_s)
        first = min(each for each in self.came_s if each >= BEGIN * rows)
        last = min(each for each in self.came_s if each >= END * rows)
        return (last - first) / (self.came_s[last] - self.came_s[first])

    def memory_after(self, rows: int) -> float:
        """Return the MiB of this process when so many rows, or a few more, were done."""
        return self.memory[min(each for each in self.memory if each >= rows)] / 2**20


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    with mock.patch.dict(os.environ, variables):
        yield


LOOP = BackgroundLoop()
"""Stays open: what gRPC did in its first event loop must not end under it."""


def _create(weaviate: WeaviateSettings, collection: Collection) -> None:
    store = WeaviateStore(weaviate)
    LOOP.run(store.start())
    LOOP.run(store.create_collection(collection))
    LOOP.run(store.close())


def _collection(name: str, model: LocalModel, *properties: Property) -> Collection:
    spec = model.spec
    vector = NamedVector("main", Space(spec.space, spec.dimension, spec.model), (WeightedField("image"),))
    return Collection(
        name, (Property("image", DataType.BLOB), Property("number", DataType.INT), *properties), (vector,)
    )


def _write_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for start in range(0, count, FILE_ROWS):
        numbers = range(start, min(count, start + FILE_ROWS))
        (folder / f"{start:07}.parquet").write_bytes(as_parquet([(each, varied_picture(each)) for each in numbers]))


def bench_bulk() -> None:
    """Print how fast pictures get into a collection in bulk, beside the parts alone and `vecgate import`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_pictures(folder / "in", PICTURES)
        model = load_model(ClipConfig())
        collection = _collection("Bulk", model)
        with running_weaviate(folder / "weaviate") as server:
            weaviate = server.client_settings
            own = {"VECGATE_EMBEDDERS__CLIP__KIND": "clip", **variables_of(weaviate)}
            with _environment(own):
                rates = _parts_alone(folder / "in", model, collection, weaviate)
                _create(weaviate, collection)
                started_s = time.perf_counter()
                start_ray()
                started_s, pace = time.perf_counter() - started_s, Pace()
                job = Job([str(folder / "in")], "Bulk", str(folder / "ledger"))
                with _reading_late(ToldEmbed, folder, 1):
                    result = run(job, load_settings(), pace.advance)
                pipeline.ray.shutdown()
            assert not result.faults, result.faults
        imported = _import_rate(folder)
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in result.progress.shares().items())
    alone = ", ".join(f"{part} {rate:.0f}" for part, rate in rates.items())
    together = 1 / sum(1 / rate for rate in rates.values())
    print(f"bulk of {PICTURES} pictures: Ray starts in {started_s:.0f} s, the first rows come {pace.start_s:.0f} s "
          f"later; then {pace.rate:.0f} objects/s (working time: {shares})")  # fmt: skip
    print(f"  the parts alone, each with all cores: {alone} objects/s; {pace.rate / min(rates.values()):.2f} of the "
          f"slowest (goal 0.85), {pace.rate / together:.2f} of all one after the other; {pace.rate / imported:.1f} x "
          f"vecgate import ({imported:.0f})")  # fmt: skip


class ToldEmbed(Embed):
    """The stage that embeds, and tells when its model is ready.

    Attributes:
        folder: of subclasses, where it tells that.
    """

    folder: ClassVar[Path]

    def __init__(self, settings: Settings, target: Target, *, truncate: bool) -> None:
        super().__init__(settings, target, truncate=truncate)
        tell_started(self.folder)


def _parts_alone(
    folder: Path, model: LocalModel, collection: Collection, weaviate: WeaviateSettings
) -> dict[str, float]:
    """Return objects a second of reading and decoding, of the model, and of writing ready vectors."""
    target = Target(collection, Scope(), weaviate, 60.0)
    found = fragments(sorted(map(str, folder.iterdir()))[:PART_FILES])
    reading = Reading(ColumnMapping().bind(schema(found), collection), collection, "")
    decode, embed = (
        Decode(model.spec.limits, model.scaling, ["image"], 60.0),
        Embed(load_settings(), target, truncate=False),
    )
    items = pa.table(
        {"name": [each.part for each in found], "fragment": [pipeline.pickle.dumps(each) for each in found]}
    )
    decoded, embedded = list[pa.Table](), list[Row]()

    def read_and_decode() -> None:
        decoded.extend(map(decode, read_fragment(items, reading)))

    def compute() -> None:
        table = pa.concat_tables(decoded)
        for start in range(0, table.num_rows, pipeline.EMBED_ROWS):
            embedded.extend(from_table(embed(table.slice(start, pipeline.EMBED_ROWS))))

    store = WeaviateStore(weaviate)
    LOOP.run(store.start())
    LOOP.run(store.create_collection(replace(collection, name="Written")))

    async def write() -> None:
        objects = [each.object for each in embedded if each.object is not None]
        room = asyncio.Semaphore(WRITES)

        async def put(start: int) -> None:
            async with room:
                assert not any(await store.put_objects("Written", objects[start : start + WRITE_OBJECTS]))

        await asyncio.gather(*map(put, range(0, len(objects), WRITE_OBJECTS)))

    embed(decode(next(read_fragment(items, reading))))  # processes start
    seconds = {
        "reading and decoding": _seconds(read_and_decode),
        "model": _seconds(compute),
        "writing": _seconds(lambda: LOOP.run(write())),
    }
    rows = sum(each.object is not None for each in embedded)
    LOOP.run(store.close())
    return {part: rows / took_s for part, took_s in seconds.items()}


def _seconds(work: Callable[[], None]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _import_rate(folder: Path) -> float:
    """Return objects a second of `vecgate import`, with its start and without that of the server."""
    with serving(folder / "served", VECGATE_EMBEDDERS__CLIP__KIND="clip") as server:
        words = ["import", str(folder / "in"), "--collection", "Imported", "--address", server.address]
        started_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "service", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        took_s = time.perf_counter() - started_s
        assert done.returncode == 0, done.stdout + done.stderr
        with server.client() as client:
            assert client.get_collection("Imported").object_count == PICTURES
    return PICTURES / took_s


def bench_bulk_memory() -> None:
    """Print the driver's memory after few and after many rows that have their vectors, which go to Parquet."""
    with tempfile.TemporaryDirectory() as name, running_weaviate(Path(name) / "weaviate") as server:
        folder, weaviate = Path(name), server.client_settings
        own = {**tiny_model(folder / "model"), **variables_of(weaviate)}
        model = load_model(ClipConfig(model=own["VECGATE_EMBEDDERS__CLIP__MODEL"]))
        (folder / "in").mkdir()
        rows = np.random.default_rng(0).standard_normal((TINY_ROWS, model.spec.dimension), np.float32)
        for start in range(0, TINY_ROWS, TINY_FILE_ROWS):
            some = rows[start : start + TINY_FILE_ROWS]
            vectors = pa.FixedSizeListArray.from_arrays(some.ravel(), model.spec.dimension)
            table = pa.table({"number": range(start, start + len(some)), "main": vectors})
            pq.write_table(table, folder / "in" / f"{start:07}.parquet")
        pace = Pace()
        with _environment(own):
            _create(weaviate, _collection("Bulk", model))
            start_ray()
            mapping = ColumnMapping(spaces={"main": model.spec.space})
            job = Job(
                [str(folder / "in")], "Bulk", str(folder / "ledger"), mapping, output=str(folder / "out"), stores=False
            )
            result = run(job, load_settings(), pace.advance)
            pipeline.ray.shutdown()
        assert not result.faults, result.faults
        assert result.progress.stored == TINY_ROWS
    early, late = pace.memory_after(FIRST_ROWS), pace.memory_after(TINY_ROWS)
    print(f"bulk of {TINY_ROWS} rows with vectors into Parquet: {pace.rate:.0f} rows/s; the command has "
          f"{early:.0f} MiB after {FIRST_ROWS} rows and {late:.0f} MiB after {TINY_ROWS} "
          f"({late - early:+.0f}; goal: none)")  # fmt: skip


@contextmanager
def _reading_late(kind: type, folder: Path, embedders: int) -> Iterator[None]:
    """Let jobs embed with a class that tells when it is ready, and read nothing before all are."""
    started = folder / "started"
    started.mkdir(parents=True)
    read = partial(read_when_started, folder=started, embedders=embedders)
    # A class of this moment goes to Ray's processes with what it knows.
    embed = type(kind.__name__, (kind,), {"folder": started})
    with mock.patch.object(pipeline, "read_fragment", read), mock.patch.object(pipeline, "Embed", embed):
        yield


def bench_bulk_workers() -> None:
    """Print the rows a second of more and more simulated GPUs, with pictures that are decoded and with none."""
    model = load_model(ClipConfig())
    model = replace(model, spec=replace(model.spec, dimension=3))
    with tempfile.TemporaryDirectory() as name, running_weaviate(Path(name) / "weaviate") as server:
        folder, weaviate = Path(name), server.client_settings
        own = {"VECGATE_EMBEDDERS__CLIP__KIND": "clip", **variables_of(weaviate)}
        with (
            _environment(own),
            mock.patch.object(pipeline.Pipeline, "_look_at_model", return_value=model),
        ):
            _create(weaviate, _collection("Bulk", model))
            # Processors that sleep cost nothing: Ray may start more than there are.
            pipeline.ray.init(address="local", num_cpus=64, include_dashboard=False, log_to_driver=False)
            for kind, make in (("with pictures", varied_picture), ("without pictures", lambda _: None)):
                print(f"simulated GPUs of {GPU_ROWS_S:.0f} rows/s each, {kind}, into Parquet:", flush=True)
                for workers in WORKERS:
                    _measure_workers(folder / f"{kind}{workers}", workers, make)
            pipeline.ray.shutdown()


def _measure_workers(folder: Path, workers: int, make: Callable[[int], bytes | None]) -> None:
    count = int(workers * GPU_ROWS_S * WORKED_S)
    (folder / "in").mkdir(parents=True)
    for start in range(0, count, FILE_ROWS):
        rows = [(each, make(each)) for each in range(start, min(count, start + FILE_ROWS))]
        _write_rows(folder / "in" / f"{start:07}.parquet", rows)
    cpu_s = sum(psutil.Process().cpu_times()[:2])
    sizes = Sizes(decoders=2, embedders=workers, writers=2, batch_rows=WORKER_BATCH)
    job = Job(
        [str(folder / "in")], "Bulk", str(folder / "ledger"), sizes=sizes, output=str(folder / "out"), stores=False
    )
    with _reading_late(SleepingEmbed, folder, workers):
        result = run(job, load_settings(), lambda _: None)
    assert not result.faults, result.faults
    assert result.progress.stored == count
    cpu_s = sum(psutil.Process().cpu_times()[:2]) - cpu_s
    rate = count / worked_s(folder / "started")
    spent = ", ".join(f"{stage} {took / count * 1000:.1f}" for stage, took in result.progress.seconds.items())
    print(f"  {workers}: {rate:.0f} rows/s, {rate / workers / GPU_ROWS_S:.2f} of what they can do; ms a row: {spent}; "
          f"CPU of the command {cpu_s / count * 1000:.1f}", flush=True)  # fmt: skip


def _write_rows(file: Path, rows: Sequence[tuple[int, bytes | None]]) -> None:
    numbers, pictures = zip(*rows, strict=True)
    pq.write_table(pa.table({"number": numbers, "image": pa.array(pictures, pa.binary())}), file)
