"""The threshold of near-duplicates: which pictures it is measured with, and by which embedder."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedders.contract import ImageInput
from service.bulk import likeness
from service.bulk.fetching import Web
from service.bulk.likeness import Measuring, measure, some_pictures
from service.bulk.patience import BulkStopped
from service.bulk.reading import Reading
from service.domain import Collection, DataType, NamedVector, Property, Space, WeightedField
from service.errors import SpaceMismatch
from service.settings import Settings
from service.sources.fragments import Fragment, fragments, schema
from service.sources.mapping import Mapping
from tests.fakes.embedder import FakeEmbedder, picture, watched

VECTOR = NamedVector("main", Space("fake", 8, "fake/model"), (WeightedField("image"),))
COLLECTION = Collection("Photos", (Property("image", DataType.BLOB), Property("icon", DataType.BLOB)), (VECTOR,))


def reading_of(folder: Path, files: int, rows: int) -> tuple[list[Fragment], Reading]:
    """Write pictures that tell their file and row, and return how they are read."""
    for file in range(files):
        images = [b"\x89PNG%d-%d" % (file, row) for row in range(rows)]
        pq.write_table(pa.table({"image": images, "icon": images}), folder / f"{file}.parquet")
    found = list(fragments([str(folder)]))
    return found, Reading(Mapping().bind(schema(found), COLLECTION), COLLECTION, "", Web((), 2**20, 0.0))


def test_pictures_of_the_named_vector_come_from_the_first_rows_of_files_all_over_the_input(tmp_path: Path):
    chosen = some_pictures(*reading_of(tmp_path, 8, 40), VECTOR)

    assert chosen == [b"\x89PNG%d-%d" % (file, row) for file in (0, 2, 4, 6) for row in range(8)]


def test_a_single_file_gives_all_pictures(tmp_path: Path):
    assert len(some_pictures(*reading_of(tmp_path, 1, 40), VECTOR)) == 32


def test_what_cannot_be_read_gives_no_pictures(tmp_path: Path):
    found, reading = reading_of(tmp_path, 2, 2)
    (tmp_path / "0.parquet").unlink()

    assert some_pictures(found, reading, VECTOR) == [b"\x89PNG1-0", b"\x89PNG1-1"]


def pictures_in(embedder: FakeEmbedder) -> int:
    return sum(isinstance(each, ImageInput) for inputs, _ in embedder.calls for each in inputs)


def measuring(*pictures: bytes) -> Measuring:
    return Measuring(Settings(), "Photos", VECTOR, pictures, 60.0)


def test_the_threshold_is_measured_with_the_embedder_of_the_space(monkeypatch: pytest.MonkeyPatch):
    other = FakeEmbedder(name="other", space="other", dimension=8)
    own = FakeEmbedder(name="own", space="fake", dimension=8)
    monkeypatch.setattr(likeness, "build_embedders", lambda *_: [watched(other), watched(own)])
    colours = [picture((each, 255 - each, 0), size=(40, 40)) for each in (0, 120, 250)]

    found = measure(measuring(b"no picture", *colours))

    assert found.pictures == 3
    assert np.isfinite(found.min_cosine)
    assert [pictures_in(each) for each in (own, other)] == [12, 0]


def test_a_single_picture_is_too_few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(likeness, "build_embedders", lambda *_: [watched(FakeEmbedder(space="fake", dimension=8))])

    with pytest.raises(BulkStopped, match="two pictures or more; give --threshold"):
        measure(measuring(picture()))


def test_an_embedder_of_another_space_cannot_measure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(likeness, "build_embedders", lambda *_: [watched(FakeEmbedder(space="other", dimension=8))])

    with pytest.raises(SpaceMismatch):
        measure(measuring(picture(), picture((0, 0, 0))))
