"""Which shape a batch is run in, with a recorder that runs the pass itself; test_gpu.py records on a GPU."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedders.clip import ClipConfig
from embedders.clip.graphs import RecordedPasses, picture_counts, text_counts, text_widths
from embedders.clip.loading import load
from embedders.clip.reading import Text
from embedders.contract import TextInput
from embedders.errors import ModelUnusable
from tests.conftest import assert_close


class Eager:
    """Records nothing: runs the pass each time on its own input."""

    held_bytes = 7

    def __init__(self) -> None:
        self.passes: list[Any] = []

    def __call__(self, run: Callable[[Any], Any], still: Any) -> Callable[[], Any]:
        self.passes.append(still)
        return lambda: run(still)


@pytest.fixture
def passes() -> RecordedPasses:
    """Return passes that give the sum of each row, and the shape that they ran in."""
    import torch

    def run(batch: Any) -> Any:
        return torch.stack([batch.sum(dim=1), torch.full((len(batch),), batch.shape[1])], dim=1)

    shapes = [(count, width) for count in (1, 4) for width in (2, 5)]
    return RecordedPasses(run, shapes, dtype=torch.int64, device="cpu", record=Eager())


@pytest.mark.parametrize(
    ("shape", "least"), [((1, 1), (1, 2)), ((1, 3), (1, 5)), ((2, 2), (4, 2)), ((4, 5), (4, 5)), ((5, 1), None)]
)
def test_a_batch_runs_in_the_least_shape_that_holds_it(
    passes: RecordedPasses, shape: tuple[int, int], least: tuple[int, int] | None
) -> None:
    assert passes.least(shape) == least


def test_padding_adds_nothing_to_the_rows_and_no_rows(passes: RecordedPasses) -> None:
    import torch

    batch = torch.tensor([[1, 2], [3, 4], [5, 6]])

    rows = passes.run(batch, (4, 2)).clone()
    again = passes.run(batch[2:], (4, 2)).clone()

    np.testing.assert_array_equal(rows, [[3, 2], [7, 2], [11, 2]])
    np.testing.assert_array_equal(again, [[11, 2]])


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 32, 33, 100, 4096])
def test_sizes_reach_the_largest_batch_and_padding_never_takes_more_than_a_third(most: int) -> None:
    counts = picture_counts(most)

    assert counts == sorted(set(counts))
    assert counts[0] == 1
    assert counts[-1] == most
    assert all(2 * after <= 3 * before or after - before == 1 for before, after in pairwise(counts))
    assert text_counts(most)[-1] == most
    assert set(text_counts(most)) <= {*counts}


def test_texts_are_padded_to_few_lengths_up_to_the_context_length() -> None:
    assert text_widths(77) == [16, 32, 77]
    assert text_widths(32) == [16, 32]
    assert text_widths(8) == [8]


def test_recorded_passes_give_the_vectors_of_others_whatever_the_number_and_length_of_the_inputs(
    tiny_clip: Path,
) -> None:
    loaded = load(ClipConfig(model=str(tiny_clip), device="cpu"))
    replica, rng = loaded.replica, np.random.default_rng(1)
    words = ["dog"] * 12
    texts = [
        each
        for each in loaded.reader.texts([TextInput(" ".join(words[:number])) for number in (1, 12, 3, 7, 2, 5, 9)])
        if isinstance(each, Text)
    ]
    pixels = rng.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    counts = range(1, 8)
    expected = [(replica.encode_texts(texts[:count]), replica.encode_pictures(pixels[:count])) for count in counts]
    weights = replica.held_bytes

    replica.record(6, (32, 32), recorder := Eager())
    actual = [(replica.encode_texts(texts[:count]), replica.encode_pictures(pixels[:count])) for count in counts]
    of_each = [*replica.recorded_texts(texts[:1]), *replica.recorded_pictures(pixels)]

    for mine, others in zip(actual, expected, strict=True):
        assert_close(mine[0], others[0], 1e-5)
        assert_close(mine[1], others[1], 1e-5)
    assert len(recorder.passes) == len(of_each) == 5 + 3
    for rows in of_each[:3]:
        assert_close(rows, expected[0][0], 1e-5)
    for rows in of_each[3:]:
        assert_close(rows, expected[-1][1][: len(rows)], 1e-5)
    assert replica.held_bytes == weights + Eager.held_bytes


def test_a_cpu_has_no_cuda_graphs_and_says_so(tiny_clip: Path) -> None:
    with pytest.raises(ModelUnusable, match="graphs need a GPU"):
        load(ClipConfig(model=str(tiny_clip), device="cpu", graphs=True))
