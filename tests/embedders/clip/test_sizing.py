"""What memory and bad inputs do to the size of a batch."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from embedders.clip.sizing import RECOVER_AFTER, BatchSizer
from embedders.errors import AnswerInvalid, EmbedderUnavailable, InputRejected

OWN = -1
Encode = Callable[[Sequence[int]], NDArray[np.float32]]


def model(*, memory: int = 1000, bad: set[int] = frozenset()) -> tuple[Encode, list[int]]:  # type: ignore[assignment]
    """Return an encoder that holds `memory` inputs and fails at the `bad` ones, and the sizes of the passes it made."""
    import torch

    passes: list[int] = []

    def encode(items: Sequence[int]) -> NDArray[np.float32]:
        passes.append(len(items))
        if len(items) > memory:
            raise torch.OutOfMemoryError("out of memory")
        if bad & set(items):
            raise RuntimeError("bad input")
        return np.array([[item, 1] for item in items], np.float32)

    return encode, passes


def spoilt(fault: str, bad: set[int]) -> tuple[Encode, list[list[int]]]:
    """Return an encoder that raises at the bad inputs, or gives nan or zeros for them, and the passes it made."""
    passes: list[list[int]] = []

    def encode(items: Sequence[int]) -> NDArray[np.float32]:
        passes.append(list(items))
        if fault == "raises" and bad & set(items):
            raise RuntimeError("bad input")
        value = np.nan if fault == "nan" else 0
        return np.array([[value, value] if item in bad else [item, 1] for item in items], np.float32)

    return encode, passes


def firsts(rows: Sequence[object]) -> list[float | None]:
    return [None if isinstance(row, InputRejected) else row[0] for row in rows]  # type: ignore[index]


def test_everything_goes_in_batches_of_the_size_and_keeps_its_order() -> None:
    encode, passes = model()

    assert firsts(BatchSizer(4).run(encode, range(10), OWN)) == list(range(10))
    assert passes == [4, 4, 2]


def test_when_memory_runs_out_the_batch_is_halved_until_it_fits_and_nothing_is_lost() -> None:
    encode, passes = model(memory=3)
    sizer = BatchSizer(16)

    assert firsts(sizer.run(encode, range(10), OWN)) == list(range(10))
    assert passes[:3] == [10, 5, 2]
    assert sizer.size == 2, "later batches begin where memory sufficed"


@pytest.mark.parametrize(
    "shortage",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_other_words_for_a_shortage_of_memory_are_understood(shortage: Exception) -> None:
    def encode(items: Sequence[int]) -> NDArray[np.float32]:
        if len(items) > 1:
            raise shortage
        return np.ones((1, 2), np.float32)

    sizer = BatchSizer(8)

    assert len(sizer.run(encode, range(8), OWN)) == 8
    assert sizer.size == 1, "later batches begin where memory sufficed; after a bad input they would not"


def test_memory_that_does_not_suffice_for_one_input_is_told() -> None:
    encode, passes = model(memory=0)

    with pytest.raises(EmbedderUnavailable, match="too little memory for one input"):
        BatchSizer(4).run(encode, range(4), OWN)
    assert passes == [4, 2, 1]


def test_the_size_recovers_after_enough_good_batches() -> None:
    sizer = BatchSizer(8)
    sizer.run(model(memory=4)[0], range(8), OWN)
    assert sizer.size == 4

    encode, _ = model()
    for _ in range(RECOVER_AFTER):
        sizer.run(encode, range(4), OWN)
    assert sizer.size == 8
    sizer.run(encode, range(100), OWN)
    assert sizer.size == 8, "and no further than it began"


@pytest.mark.parametrize("bad", [{0}, {3}, {7}, {0, 7}, {2, 3}, {0, 1, 2}, set(range(8))])
def test_inputs_at_which_the_model_fails_do_not_fail_their_neighbours(bad: set[int]) -> None:
    encode, passes = model(bad=bad)

    rows = BatchSizer(8).run(encode, range(8), OWN)

    assert firsts(rows) == [None if at in bad else at for at in range(8)]
    assert all("RuntimeError" in str(row) for row in rows if isinstance(row, InputRejected))
    assert len(passes) <= 20


def test_a_model_that_fails_at_everything_is_broken_and_found_out_soon() -> None:
    encode, passes = model(bad={*range(32), OWN})

    with pytest.raises(EmbedderUnavailable, match="the model failed: RuntimeError"):
        BatchSizer(32).run(encode, range(32), OWN)
    assert len(passes) <= 10


@pytest.mark.parametrize("fault", ["raises", "nan", "zero"])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_an_input_of_our_own_tells_bad_inputs_from_a_bad_model(fault: str, number: int) -> None:
    bad = set(range(number))
    encode, passes = spoilt(fault, bad)

    rows = BatchSizer(8).run(encode, range(number), OWN)

    assert firsts(rows) == [None] * number
    assert sum(OWN in each for each in passes) == 1
    error = EmbedderUnavailable if fault == "raises" else AnswerInvalid
    with pytest.raises(error):
        BatchSizer(8).run(spoilt(fault, {*bad, OWN})[0], range(number), OWN)


@pytest.mark.parametrize("fault", ["raises", "nan", "zero"])
def test_our_own_input_is_not_asked_for_while_the_model_is_seen_to_work(fault: str) -> None:
    encode, passes = spoilt(fault, {2})

    rows = BatchSizer(2).run(encode, range(5), OWN)

    assert firsts(rows) == [0, 1, None, 3, 4]
    assert not any(OWN in each for each in passes)
