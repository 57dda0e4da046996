"""The threshold of near-duplicates: which pictures it is measured with, and by which embedder."""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedders.contract import ImageInput, InputLimits
from embedders.images import decoder_process
from embedders.images.decoder_process import Result, changed_copies
from service.bulk import likeness
from service.bulk.fetching import Web
from service.bulk.likeness import Measuring, measure, some_pictures
from service.bulk.patience import BulkStopped
from service.bulk.reading import Reading
from service.bulk.rows import Row
from service.domain import Collection, DataType, NamedVector, Property, Space, StoredObject, WeightedField
from service.errors import SpaceMismatch
from service.settings import Settings
from service.sources.errors import InvalidSource
from service.sources.fragments import Fragment, fragments, schema
from service.sources.mapping import Mapping
from service.sources.rows import Row as SourceRow
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


@pytest.mark.parametrize(("files", "rows", "count"), [(200, 1, 32), (10, 2, 20), (9, 4, 32), (2, 20, 32)])
def test_where_fragments_have_few_pictures_more_of_them_are_read(tmp_path: Path, files: int, rows: int, count: int):
    chosen = some_pictures(*reading_of(tmp_path, files, rows), VECTOR)

    assert len(chosen) == len(set(chosen)) == count


def test_what_cannot_be_read_gives_no_pictures(tmp_path: Path):
    found, reading = reading_of(tmp_path, 2, 2)
    (tmp_path / "0.parquet").unlink()

    assert some_pictures(found, reading, VECTOR) == [b"\x89PNG1-0", b"\x89PNG1-1"]


def test_why_there_are_too_few_pictures_is_told_before_anything_is_measured(tmp_path: Path):
    found, reading = reading_of(tmp_path, 2, 1)
    with pytest.raises(BulkStopped, match="two pictures or more; give --threshold"):
        some_pictures(found[:1], reading, VECTOR)
    (tmp_path / "1.parquet").unlink()

    with pytest.raises(InvalidSource, match=r"1\.parquet: there is no such file"):
        some_pictures(found, reading, VECTOR)


class Recorded(Reading):
    """Has no pictures, and notes how it reads."""

    asked: ClassVar[list[Reading]] = []

    def rows(self, fragment: str, sources: Iterable[SourceRow]) -> Iterator[Row]:
        """Fail as an origin that is down."""
        del fragment, sources
        self.asked.append(self)
        raise InvalidSource("t.parquet", "row 1: the picture cannot be fetched: the origin is down")


def test_an_origin_that_is_down_is_waited_for_a_little_and_a_few_times_and_told(tmp_path: Path):
    found, reading = reading_of(tmp_path, 20, 1)
    plan = replace(reading.plan, references={"link": ["main", "other"], "more": ["other"]})
    reading = Recorded(plan, COLLECTION, "", Web((), 2**20, 600.0))

    with pytest.raises(InvalidSource, match="the origin is down"):
        some_pictures(found, reading, VECTOR)

    assert [each.web.patience_s for each in Recorded.asked] == [10.0] * 4
    assert {name: list(each) for name, each in Recorded.asked[0].plan.references.items()} == {"link": ["main"]}


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


class Broken(Reading):
    """Has two pictures in each fragment, and cannot read what follows."""

    def rows(self, fragment: str, sources: Iterable[SourceRow]) -> Iterator[Row]:
        """Yield rows, and fail."""
        for number, _ in zip(range(2), sources, strict=False):
            yield Row(fragment, number, object=StoredObject(UUID(int=1), {}, {"image": b"%d" % number}))
        raise InvalidSource("t.parquet", "row 3 is broken")


def test_pictures_before_what_cannot_be_read_count(tmp_path: Path):
    found, reading = reading_of(tmp_path, 1, 3)

    assert some_pictures(found, Broken(reading.plan, COLLECTION, "", reading.web), VECTOR) == [b"0", b"1"]


BAD = picture((0, 0, 250))


def changed_or_crashed(content: bytes, limits: InputLimits) -> Result:
    """Do what a library may do with a picture that is made for that."""
    if content == BAD:
        os.kill(os.getpid(), signal.SIGSEGV)
    return changed_copies(content, limits)


def test_a_picture_that_ends_the_process_that_changes_it_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(likeness, "build_embedders", lambda *_: [watched(FakeEmbedder(space="fake", dimension=8))])
    monkeypatch.setattr(decoder_process, "changed_copies", changed_or_crashed)

    assert measure(measuring(BAD, *(picture((each, 0, 0)) for each in (0, 120, 250)))).pictures == 3


def test_a_single_picture_is_too_few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(likeness, "build_embedders", lambda *_: [watched(FakeEmbedder(space="fake", dimension=8))])

    with pytest.raises(BulkStopped, match="two pictures or more; give --threshold"):
        measure(measuring(picture()))


def test_an_embedder_of_another_space_cannot_measure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(likeness, "build_embedders", lambda *_: [watched(FakeEmbedder(space="other", dimension=8))])

    with pytest.raises(SpaceMismatch):
        measure(measuring(picture(), picture((0, 0, 0))))
