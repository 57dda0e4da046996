"""Bulk jobs on a real Ray and a real Weaviate: each row once, whatever is killed meanwhile."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embedders.contract import DOCUMENT, Embedding, ImageInput
from service.bulk import pipeline
from service.bulk.accounts import Progress
from service.bulk.job import Job, Result, run
from service.bulk.loop import BackgroundLoop
from service.bulk.pipeline import Sizes, load_model, start_ray
from service.bulk.stages import Put, Write
from service.domain import (
    Collection,
    DataType,
    NamedVector,
    Property,
    ReturnFields,
    SearchSpec,
    Space,
    StoredObject,
    WeightedField,
)
from service.errors import StoreUnavailable
from service.settings import Settings, WeaviateSettings, load_settings
from service.store.embedded.server import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore
from service.wiring import build_embedders, local_models
from tests.conftest import assert_close, running_below
from tests.e2e.serving import ROOT, serving, tiny_model
from tests.fakes.tiny_clip import DIMENSION
from tests.fakes.weaviate import at_ports, variables_of

# Ray warns of its own defaults.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*", "ignore::ResourceWarning"),
]

FILES, ROWS = 8, 40
BROKEN = frozenset({3, 77})
SIZES = Sizes(batch_rows=16, writers=1)
WRITE_ROWS = 16
NAME = "BulkOnce"


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """Start Ray, and give the address by which other commands join it."""
    with pytest.MonkeyPatch.context() as environment:
        # Ray's processes would give way to all others, and so wait long on a busy machine.
        environment.setenv("RAY_worker_niceness", "0")
        start_ray()
        yield pipeline.ray.get_runtime_context().gcs_address
        pipeline.ray.shutdown()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """Give an event loop that stays open: what gRPC did there must not end under it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def weaviate_of_its_own(weaviate_binary: None, tmp_path: Path) -> Iterator[EmbeddedWeaviate]:
    """Run a Weaviate that is started again when it dies."""
    server = EmbeddedWeaviate(WeaviateSettings(embedded=True, data_dir=tmp_path / "weaviate", **at_ports(0, 0)))
    loop = BackgroundLoop()
    loop.run(server.start())
    yield server
    loop.run(server.stop())
    loop.close()


@pytest.fixture
def settings(
    weaviate_of_its_own: EmbeddedWeaviate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_address: str
) -> Settings:
    for name, value in {
        **tiny_model(tmp_path / "tiny"),
        **variables_of(weaviate_of_its_own.client_settings),
        # A command of its own finds Ray by it.
        "RAY_ADDRESS": ray_address,
    }.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((64, 48)).save(file, "PNG")
    return b"no picture" if number in BROKEN else file.getvalue()


def compressed(content: bytes) -> bytes:
    """Return a picture in another file."""
    file = io.BytesIO()
    Image.open(io.BytesIO(content)).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_table(folder: Path, file: int, numbers: list[int]) -> None:
    columns = {"number": numbers, "image": [picture(each) for each in numbers]}
    pq.write_table(pa.table(columns), folder / f"{file}.parquet")


def write_tables(folder: Path) -> None:
    """Write pictures, of which two are broken and the last file's first one is the first file's, too."""
    folder.mkdir()
    for file in range(FILES):
        numbers = list(range(file * ROWS, (file + 1) * ROWS))
        write_table(folder, file, numbers if file < FILES - 1 else [0, *numbers])


async def create(settings: Settings, name: str) -> None:
    """Create a collection for the space of the only embedder."""
    spec = load_model(local_models(settings)[0]).spec
    vector = NamedVector("main", Space(spec.space, DIMENSION, spec.model), (WeightedField("image"),))
    properties = (Property("image", DataType.BLOB), Property("number", DataType.INT))
    store = WeaviateStore(settings.weaviate)
    await store.start()
    await store.create_collection(Collection(name, properties, (vector,)))
    await store.close()


def bulk(
    folder: Path,
    name: str,
    settings: Settings,
    advance: Callable[[Progress], None] = lambda _: None,
    *,
    duplicates: str = "",
) -> Result:
    job = Job([str(folder / "in")], name, str(folder / "ledger"), sizes=SIZES, duplicates=duplicates)
    return run(job, settings, advance)


def bulk_until_killed(folder: str, name: str) -> None:
    """Run the same, and die as soon as a fragment is done. For a process of its own."""
    pipeline.WRITE_ROWS = WRITE_ROWS

    def advance(progress: Progress) -> None:
        if progress.fragments:
            os.kill(os.getpid(), signal.SIGKILL)

    bulk(Path(folder), name, load_settings(), advance)


def killing(folder: Path, weaviate: str) -> type[Write]:
    """Return a Write whose process is killed after its first rows, and that kills Weaviate after the next one's first.

    Args:
        folder: where it notes which of both has happened.
        weaviate: words of the command line of the Weaviate that may be killed.
    """
    parent = os.getpid()

    def is_first(what: str) -> bool:
        with suppress(FileExistsError):
            (folder / what).touch(exist_ok=False)
            return True
        return False

    # Ray sends a class of a function to its processes whole, so they need no module of tests.
    class Killing(Write):
        written = False

        def __call__(self, table: pa.Table) -> pa.Table:
            done = super().__call__(table)
            if is_first("writer"):
                # As the machine may when memory is short.
                os.kill(os.getpid(), signal.SIGKILL)
            self.written = True
            return done

        async def _put(self, objects: Sequence[StoredObject]) -> Put:
            if self.written and objects and is_first("weaviate"):
                put = Put({}, {})
                # It is started again at once; a write has to meet the time without it.
                while not any(isinstance(each, StoreUnavailable) for each in put.failures.values()):
                    for each in psutil.Process(parent).children(recursive=True):
                        with suppress(psutil.NoSuchProcess):
                            if weaviate in " ".join(each.cmdline()):
                                each.kill()
                    # It raises the error if not even the look at what is stored succeeds.
                    put = await super()._put(objects)
                return put
            return await super()._put(objects)

    return Killing


async def stored_vectors(settings: Settings, name: str) -> dict[int, list[float]]:
    """Return the vectors of all objects, by their numbers."""
    store = WeaviateStore(settings.weaviate)
    await store.start()
    spec = SearchSpec(limit=FILES * ROWS, fields=ReturnFields(properties=["number"], vectors=["main"]))
    hits = await store.search(name, spec)
    await store.close()
    return {int(hit.object.properties["number"]): hit.object.vectors["main"].tolist() for hit in hits}


async def embedded(settings: Settings, numbers: Sequence[int]) -> list[list[float]]:
    """Return the vectors of pictures, by the embedder that the service has."""
    (embedder,) = build_embedders(settings)
    await embedder.start()
    outcomes = await embedder.embed([ImageInput(picture(each)) for each in numbers], DOCUMENT)
    await embedder.close()
    return [each.vector.tolist() for each in outcomes if isinstance(each, Embedding)]


def numbers_of(result: Result) -> tuple[int, ...]:
    """Return rows, stored, rejected, duplicates and left out of a result, and what Weaviate has."""
    assert result.faults == []
    assert result.reconciliation is not None
    totals, within = result.reconciliation.totals, result.reconciliation.collection
    assert within is not None
    return (
        totals.rows,
        totals.distinct,
        sum(totals.rejected.values()),
        totals.duplicates,
        totals.skipped,
        within.counted,
    )


def test_each_row_is_stored_once_or_rejected_though_command_writer_and_weaviate_are_killed(
    tmp_path: Path,
    settings: Settings,
    weaviate_of_its_own: EmbeddedWeaviate,
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
):
    write_tables(tmp_path / "in")
    runner.run(create(settings, NAME))
    words = f"from {__name__} import bulk_until_killed; bulk_until_killed({str(tmp_path)!r}, {NAME!r})"
    with (tmp_path / "stderr").open("w") as errors:
        killed = subprocess.run([sys.executable, "-c", words], cwd=ROOT, stderr=errors, check=False)
    assert killed.returncode == -signal.SIGKILL, (tmp_path / "stderr").read_text()
    while running_below("MapBatches("):
        # Ray ends the processes of a command that is gone.
        time.sleep(0.1)
    done_before = len(list((tmp_path / "ledger" / "fragments").iterdir()))
    (tmp_path / "killed").mkdir()
    monkeypatch.setattr(pipeline, "WRITE_ROWS", WRITE_ROWS)
    with monkeypatch.context() as first_alone:
        weaviate = f"--port {weaviate_of_its_own.http_port} --read-timeout"
        first_alone.setattr(pipeline, "Write", killing(tmp_path / "killed", weaviate))
        first = bulk(tmp_path, NAME, settings)
    again = bulk(tmp_path, NAME, settings)

    rows, stored = FILES * ROWS + 1, FILES * ROWS - len(BROKEN)
    assert {each.name for each in (tmp_path / "killed").iterdir()} == {"writer", "weaviate"}
    assert first.progress.outages
    assert 0 < done_before < FILES
    assert first.done_before == done_before
    assert numbers_of(first) == (rows, stored, 2, 1, 0, stored)
    # After a kill, each object is looked for.
    assert first.reconciliation is not None
    assert first.reconciliation.collection is not None
    assert first.reconciliation.collection.sampled >= stored
    assert numbers_of(again) == numbers_of(first)
    assert (again.progress.wanted, again.progress.rows, again.done_before) == (0, 0, FILES)
    vectors = runner.run(stored_vectors(settings, NAME))
    # Of each fragment, so that batches with rows of several fragments are among them.
    some = [number for number in vectors if number % ROWS < 3]
    assert_close([vectors[each] for each in some], runner.run(embedded(settings, some)), tolerance=1e-4)
    rejected = pq.read_table(tmp_path / "ledger" / "rejected").to_pylist()
    assert {(each["place"], each["reason"]) for each in rejected} == {
        ("0.parquet, row 4", "IMAGE_UNDECODABLE"),
        ("1.parquet, row 38", "IMAGE_UNDECODABLE"),
    }
    assert set(vectors) == set(range(FILES * ROWS)) - BROKEN


def test_pictures_that_equal_or_nearly_equal_others_are_left_out_from_a_threshold_that_is_measured_with_the_model(
    tmp_path: Path, settings: Settings, runner: asyncio.Runner
):
    """The model has no training, so it may hold some more pictures for alike."""
    (tmp_path / "in").mkdir()
    originals = [picture(each) for each in range(100, 100 + ROWS)]
    images = [*originals, *map(compressed, originals[:8]), *originals[8:12]]
    pq.write_table(pa.table({"number": list(range(len(images))), "image": images}), tmp_path / "in" / "0.parquet")
    runner.run(create(settings, "BulkAlike"))

    result = bulk(tmp_path, "BulkAlike", settings, duplicates="skip")

    assert result.threshold is not None
    assert result.threshold.pictures == 32
    listed = pq.read_table(tmp_path / "ledger" / "duplicates").to_pylist()
    rows, stored, rejected, same, skipped, counted = numbers_of(result)
    assert (rows, rejected, same, counted, stored) == (len(images), 0, 0, stored, rows - skipped)
    # Of a picture and its copy one at least is left out.
    assert skipped == len(listed) >= 12
    assert any(each["same_content"] for each in listed)
    assert min(each["cosine"] for each in listed) >= result.threshold.min_cosine - 1e-6
    assert not {each["id"] for each in listed} & {each["duplicate_of"] for each in listed}


def test_a_running_vecgate_embeds_for_a_job_as_a_nim_whose_model_is_named_by_its_space(
    tmp_path: Path,
    settings: Settings,
    weaviate_of_its_own: EmbeddedWeaviate,
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "in").mkdir()
    write_table(tmp_path / "in", 0, list(range(ROWS)))
    runner.run(create(settings, "BulkServed"))
    space = load_model(local_models(settings)[0]).spec.space
    model = {name: value for name, value in os.environ.items() if name.startswith("VECGATE_EMBEDDERS__CLIP__")}
    with serving(tmp_path / "served", **model, **variables_of(weaviate_of_its_own.client_settings)) as server:
        for name in model:
            monkeypatch.delenv(name)
        monkeypatch.setenv("VECGATE_EMBEDDERS__SERVED__KIND", "nim")
        monkeypatch.setenv("VECGATE_EMBEDDERS__SERVED__BASE_URL", server.url)
        monkeypatch.setenv("VECGATE_EMBEDDERS__SERVED__MODEL", space)
        result = bulk(tmp_path, "BulkServed", load_settings())

    assert numbers_of(result) == (ROWS, ROWS - 1, 1, 0, 0, ROWS - 1)
    vectors = runner.run(stored_vectors(settings, "BulkServed"))
    assert_close(list(vectors.values()), runner.run(embedded(settings, list(vectors))), tolerance=1e-4)
