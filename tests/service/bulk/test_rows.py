from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from service.bulk import rows
from service.bulk.rows import STAGES, Row, cuts, from_table, in_parts, to_table
from service.core.objects.duplicates import Duplicate
from service.domain import StoredObject


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([1, 1, 1, 1], [3, 1]),
        ([4, 4, 4], [2, 1]),
        ([99, 1, 1], [1, 2]),
        ([1, 99, 1], [1, 1, 1]),
        ([], [0]),
    ],
)
def test_parts_have_so_many_items_and_bytes_and_one_that_has_more_is_alone(sizes: list[int], parts: list[int]):
    found = list(cuts(sizes, 3, 10))

    assert [each.stop - each.start for each in found] == parts


def test_a_batch_of_heavy_objects_is_done_in_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "PART_BYTES", 5000)
    batch = [Row("f", n, object=StoredObject(UUID(int=n), {}, {"image": bytes(2000)})) for n in range(3)]
    # Of the last one only the reference is stored.
    batch.append(Row("f", 3, object=StoredObject(UUID(int=3)), pictures={"link": bytes(2000)}))

    parts = list(in_parts(to_table([*batch, Row("f", 4, end=True)])))

    assert [each["number"].to_pylist() for each in parts] == [[0, 1], [2, 3, 4]]


def test_rows_that_come_back_from_a_part_of_a_table_are_as_they_were():
    seconds = dict.fromkeys(STAGES, 0.5)
    stored = StoredObject(UUID(int=1), {"name": "abc"}, {"image": b"JPEG"})
    batch = [
        Row("f", 0, "row 1", id=bytes(16), object=stored, pictures={"image": b"pixels"}, outage=True, seconds=seconds),
        Row("f", 1, "row 2", reason="ROW_REFUSED", message="too long", seconds=seconds),
        Row("f", 2, object=StoredObject(UUID(int=2), {}, {}), seconds=seconds),
        Row("f", 3, end=True, seconds=seconds),
        Row("f", 4, id=bytes(16), seconds=seconds, duplicate_of=Duplicate(UUID(int=49), 0.5, True, False)),
    ]
    table = pa.concat_tables([to_table(batch[:1]), to_table(batch[1:])])

    assert from_table(table) == batch
    assert from_table(table.slice(2)) == batch[2:]
    assert from_table(table.slice(5)) == []


@pytest.mark.parametrize("skipped", [True, False])
def test_a_row_lets_go_of_its_content_only_if_it_is_left_out(skipped: bool):  # noqa: FBT001
    row = Row("f", 0, object=StoredObject(UUID(int=1)), pictures={"image": b"pixels"})

    row.duplicates(Duplicate(UUID(int=0), 1.0, True, skipped))

    assert (row.live, row.pictures) == ((False, {}) if skipped else (True, {"image": b"pixels"}))


def test_the_size_of_a_row_is_that_of_its_texts_pictures_and_vectors():
    stored = StoredObject(UUID(int=1), {"name": "abc"}, {"image": bytes(300)}, {"main": np.zeros(3, np.float32)})

    assert (Row("f", 0, object=stored).size, Row("f", 1).size) == (3 + 400 + 12, 0)
