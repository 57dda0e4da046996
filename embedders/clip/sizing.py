"""Batch halving: smaller batches when the GPU's memory runs out, or when an input makes the model fail."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from embedders.contract import Vector
from embedders.errors import AnswerInvalid, EmbedderUnavailable, InputRejected

T = TypeVar("T")

RECOVER_AFTER = 64
"""Batches that must succeed at a reduced size before it is doubled again."""


class BatchSizer:
    """Runs batches through a model: halves them when memory runs out, and finds inputs at which the model fails.

    When a whole batch fails, a canary decides whether the inputs or the model are at fault.

    Attributes:
        size: inputs at once, at present.
    """

    def __init__(self, most: int) -> None:
        """Begin with batches of `most` inputs."""
        self.size = most
        self._most = most
        self._good = 0

    def run(self, encode: Callable[[Sequence[T]], Any], items: Sequence[T], own: T) -> list[Vector | InputRejected]:
        """Return a vector or an error for each item.

        Args:
            encode: takes items, gives their vectors: float32, shape (items, dimension).
            items: what to encode.
            own: our own valid item, a canary.

        Raises:
            EmbedderUnavailable: there is too little memory for one item, or the model fails at the canary.
            AnswerInvalid: the model returns no usable vector for the canary.
        """
        rows: list[Vector | InputRejected] = []
        size, works = self.size, False
        while len(rows) < len(items):
            batch = items[len(rows) : len(rows) + size]
            encoded, fault = _attempt(encode, batch)
            if encoded is not None:
                rows += [row if _usable(row) else _rejected("gives no finite vector for") for row in encoded]
                works |= not all(isinstance(row, InputRejected) for row in rows)
                self._note_success()
                size = self.size
            elif fault == _OUT_OF_MEMORY:
                _free_memory()
                if len(batch) == 1:
                    raise EmbedderUnavailable("the device has too little memory for one input; free some of it")
                self._note_shortage(len(batch))
                size = self.size
            elif len(batch) > 1:
                size = len(batch) // 2
            else:
                if not works:
                    _require_working(encode, own)
                    works = True
                rows.append(_rejected(f"fails ({fault}) at"))
        if items and not works:
            _require_working(encode, own)
        return rows

    def _note_shortage(self, size: int) -> None:
        self.size = size // 2
        self._good = 0

    def _note_success(self) -> None:
        if self.size < self._most:
            self._good += 1
            if self._good == RECOVER_AFTER:
                self.size = min(2 * self.size, self._most)
                self._good = 0


_OUT_OF_MEMORY = "out of memory"
_SHORTAGES = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Messages of torch's plain RuntimeErrors for a shortage: on a CPU, and in CUDA and its libraries."""


def _usable(row: Any) -> bool:
    return bool(np.isfinite(row).all() and row.any())


def _rejected(why: str) -> InputRejected:
    return InputRejected(f"the model {why} the input; send another one")


def _require_working(encode: Callable[[Sequence[T]], Any], own: T) -> None:
    """Check that the model works with a canary.

    Raises:
        EmbedderUnavailable: it fails.
        AnswerInvalid: it returns no usable vector.
    """
    encoded, fault = _attempt(encode, [own])
    if encoded is None:
        raise EmbedderUnavailable(f"the model failed: {fault}")
    if not _usable(encoded[0]):
        raise AnswerInvalid("the model gives no finite vectors")


def _attempt(encode: Callable[[Sequence[T]], Any], batch: Sequence[T]) -> tuple[Any, str]:
    """Return a batch's vectors, or None and the fault.

    The exception ends here, because its traceback keeps the tensors of the failed pass alive.
    """
    try:
        return encode(batch), ""
    except EmbedderUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 -- the model may raise any error
        return None, _OUT_OF_MEMORY if _is_shortage(error) else type(error).__name__


def _is_shortage(error: Exception) -> bool:
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in str(error) for words in _SHORTAGES)


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
