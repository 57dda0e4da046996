"""CUDA graphs: passes of the model that are recorded once for a few shapes, and then replayed with one call each.

A pass starts hundreds of small programs on the GPU. For a small model or a small batch, Python takes longer to start
them than the GPU to run them. A recorded pass starts them all at once. It always reads and writes the same memory, so a
batch is copied into the pass's own input, padded to the shape that was recorded, and the rows of the padding are left
out afterwards.

torch.compile would go further, but it needs a C compiler where the model is served, and minutes for each shape.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

Pass = Callable[[Any], Any]
"""Takes a batch on the device, gives a row for each input, and does nothing that depends on values of the batch."""

TEXT_WIDTHS = (16, 32)
"""Tokens of recorded texts, beside the model's context length; most queries have fewer than 16."""

WARM_UPS = 2
"""Passes before a recording: libraries choose their programs and take their memory in the first ones."""


def picture_counts(most: int) -> list[int]:
    """Return the sizes of batches of pictures to record: each at most half as large again as the one before.

    A pass takes as long for padding as for pictures, so they lie close together.
    """
    powers = list(itertools.takewhile(lambda each: each < most, (2**at for at in range(13))))
    return sorted({*powers, *(3 * each // 2 for each in powers if each > 1 and 3 * each // 2 < most), most})


def text_counts(most: int) -> list[int]:
    """Return the sizes of batches of texts to record. They lie further apart, because short texts take little time."""
    return [*itertools.takewhile(lambda each: each < most, (4**at for at in range(7))), most]


def text_widths(context_length: int) -> list[int]:
    """Return the numbers of tokens that texts are padded to."""
    return [*itertools.takewhile(lambda each: each < context_length, TEXT_WIDTHS), context_length]


class Recorder(Protocol):
    """Records passes.

    Attributes:
        held_bytes: memory that the recordings hold, beside their inputs.
    """

    held_bytes: int

    def __call__(self, run: Pass, still: Any) -> Callable[[], Any]:
        """Return what runs a pass on what its own input then holds, and returns its rows."""


class RecordedPasses:
    """A pass recorded for several shapes.

    Attributes:
        shapes: the shapes of whole batches, the largest first.
    """

    def __init__(
        self, run: Pass, shapes: Sequence[tuple[int, ...]], *, dtype: Any, device: str, record: Recorder
    ) -> None:
        """Record `run` for each shape; raises what `run` and `record` raise."""
        import torch

        # The largest first: the others then use its memory again.
        self.shapes = sorted(shapes, reverse=True)
        self._passes: dict[tuple[int, ...], tuple[Any, Callable[[], Any]]] = {}
        for shape in self.shapes:
            still = torch.zeros(shape, dtype=dtype, device=device)
            self._passes[shape] = still, record(run, still)

    def least(self, shape: Sequence[int]) -> tuple[int, ...] | None:
        """Return the least recorded shape that holds a batch of this shape, or None if none does."""
        holding = [each for each in self.shapes if all(has >= asked for has, asked in zip(each, shape, strict=True))]
        return min(holding, default=None)

    def run(self, batch: Any, shape: tuple[int, ...]) -> Any:
        """Return the rows of a batch, run in one of the shapes; they are valid until the next run.

        What the padding holds is what was there before: no row of a pass depends on another one.
        """
        still, replay = self._passes[shape]
        still[tuple(slice(each) for each in batch.shape)].copy_(batch, non_blocking=True)
        return replay()[: len(batch)]


class CudaRecorder:
    """Records passes on one GPU. Its recordings share their memory, so only one may run at a time."""

    def __init__(self, device: str) -> None:
        import torch

        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()
            # One stream for all: recordings share memory only within one.
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.held_bytes = 0

    def __call__(self, run: Pass, still: Any) -> Callable[[], Any]:
        """Record a pass.

        Raises:
            torch.OutOfMemoryError: the GPU has too little free memory for it. This is found before the recording,
                because torch does not clean up after one that fails.
        """
        import torch

        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    run(still)
            torch.cuda.synchronize()
            self._require(torch.cuda.max_memory_allocated() - before)
            reserved = torch.cuda.memory_reserved()
            graph = torch.cuda.CUDAGraph()
            # Another model of this process may work meanwhile: only this thread must keep from what breaks a recording.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                rows = run(still)
            self.held_bytes += max(0, torch.cuda.memory_reserved() - reserved)

        def replay() -> Any:
            graph.replay()
            return rows

        return replay

    def _require(self, needed: int) -> None:
        import torch

        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        # What earlier recordings hold is used again.
        if needed > free + self.held_bytes:
            raise torch.OutOfMemoryError(f"CUDA graphs need {needed} bytes more than there are on {self._device}")
