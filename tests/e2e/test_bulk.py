"""Bulk jobs on a real Ray and a real Weaviate: each row once, whatever is killed meanwhile."""

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.bulk import pipeline
from service.bulk.accounts import Progress
from service.bulk.job import Job, Result, run
from service.bulk.pipeline import Sizes, load_model, start_ray
from service.domain import Collection, DataType, NamedVector, Property, Space, WeightedField
from service.settings import Settings, WeaviateSettings, load_settings
from service.store.weaviate import WeaviateStore
from service.wiring import local_models
from tests.conftest import Started
from tests.e2e.serving import tiny_model
from tests.fakes.tiny_clip import DIMENSION
from tests.fakes.weaviate import variables_of

# Ray warns of its own defaults.
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*", "ignore::ResourceWarning"),
]

FILES, ROWS = 4, 40
BROKEN = frozenset({3, 77})
SIZES = Sizes(batch_rows=16)


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    start_ray()
    yield
    pipeline.ray.shutdown()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """Give an event loop that stays open: what gRPC did there must not end under it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def settings(model: dict[str, str], weaviate_settings: WeaviateSettings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in {**model, **variables_of(weaviate_settings)}.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((64, 48)).save(file, "PNG")
    return b"no picture" if number in BROKEN else file.getvalue()


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
    spec = pipeline.ray.get(pipeline.ray.remote(load_model).remote(local_models(settings)[0])).spec
    vector = NamedVector("main", Space(spec.space, DIMENSION, spec.model), (WeightedField("image"),))
    properties = (Property("image", DataType.BLOB), Property("number", DataType.INT))
    store = WeaviateStore(settings.weaviate)
    await store.start()
    await store.create_collection(Collection(name, properties, (vector,)))
    await store.close()


def bulk(folder: Path, name: str, settings: Settings, advance: Callable[[Progress], None] = lambda _: None) -> Result:
    return run(Job([str(folder / "in")], name, str(folder / "ledger"), sizes=SIZES), settings, advance)


def numbers_of(result: Result) -> tuple[int, int, int, int, int]:
    """Return rows, stored, rejected and duplicates of a result, and what Weaviate has."""
    assert result.faults == []
    assert result.reconciliation is not None
    totals, within = result.reconciliation.totals, result.reconciliation.collection
    assert within is not None
    return (
        totals.rows,
        totals.distinct,
        sum(totals.rejected.values()),
        totals.duplicates,
        within.counted,
    )


def test_each_row_is_stored_once_or_rejected_though_a_writer_is_killed_and_a_repetition_does_nothing(
    tmp_path: Path, settings: Settings, runner: asyncio.Runner, started: Started, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "WRITE_ROWS", 16)
    write_tables(tmp_path / "in")
    runner.run(create(settings, "BulkOnce"))
    killed: list[int] = []

    def advance(progress: Progress) -> None:
        if progress.rows and not killed:
            killed.append(progress.rows)
            # As the machine may when memory is short.
            next(iter(started("MapBatches(Write)"))).kill()

    first = bulk(tmp_path, "BulkOnce", settings, advance)
    again = bulk(tmp_path, "BulkOnce", settings)

    rows = FILES * ROWS + 1
    assert killed[0] < rows
    assert numbers_of(first) == (rows, rows - 3, 2, 1, rows - 3)
    assert first.progress.rejected == {"IMAGE_UNDECODABLE": 2}
    assert numbers_of(again) == numbers_of(first)
    assert (again.progress.wanted, again.progress.rows, again.done_before) == (0, 0, FILES)
    rejected = pq.read_table(tmp_path / "ledger" / "rejected").to_pylist()
    assert {(each["place"], each["reason"]) for each in rejected} == {
        ("0.parquet, row 4", "IMAGE_UNDECODABLE"),
        ("1.parquet, row 38", "IMAGE_UNDECODABLE"),
    }
