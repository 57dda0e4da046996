"""A model on one device."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.clip.graphs import (
    CudaRecorder,
    Pass,
    RecordedPasses,
    Recorder,
    picture_counts,
    text_counts,
    text_widths,
)
from embedders.clip.packed import PackedTower
from embedders.clip.reading import Reader, Text

PARITY_OF_PACKING = 1e-4
"""How far vectors without padding may be from open_clip's own at load, in 32 bits: rounding, far below any error."""


class Replica:
    """Encodes what a reader has read. Its weights are only read, so threads may share one.

    Two threads keep a GPU busy: one copies its batch and starts the pass while the other one waits for its vectors.

    Attributes:
        device: where the model is.
    """

    def __init__(
        self, model: Any, *, device: str, reader: Reader, precision: str = "fp32", may_pack: bool = True
    ) -> None:
        """Wrap an open_clip model that is on `device` and in `precision`, in open_clip's words.

        Texts go without padding if `may_pack` is true and the model's kind allows it.
        """
        import open_clip
        import torch

        self._model = model
        self.device = device
        self._context_length = reader.context_length
        self._mean, self._std = (
            torch.tensor(_three(model.visual.preprocess_cfg[key]), dtype=torch.float32, device=device).view(-1, 1, 1)
            for key in ("mean", "std")
        )
        self._dtype = open_clip.get_input_dtype(precision)
        self._packed = PackedTower.of(model) if may_pack and reader.unpadded else None
        self._recorded_texts: RecordedPasses | None = None
        self._recorded_pictures: RecordedPasses | None = None
        self._recorder: Recorder | None = None
        # Passes start one after the other, because recorded ones share their memory.
        self._turn = threading.Lock()
        self._copies = None if self.on_cpu else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def encode_texts(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Return unit vectors: float32, shape (texts, dimension)."""
        recorded = self._recorded_texts
        shape = recorded.least((len(texts), max(len(each.ids) for each in texts))) if recorded is not None else None
        if recorded is not None and shape is not None:
            return self._rows(lambda ids: recorded.run(ids, shape), _padded(texts, shape[1]))
        packed = self._packed
        if packed is not None:
            return self._rows(lambda _: self._unit(packed.encode([each.ids for each in texts])))
        return self._rows(lambda ids: self._unit(self._model.encode_text(ids)), _padded(texts, self._context_length))

    def encode_pictures(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return unit vectors: float32, shape (pictures, dimension).

        Args:
            pixels: uint8, shape (pictures, height, width, 3).
        """
        import torch

        recorded = self._recorded_pictures
        shape = recorded.least(pixels.shape) if recorded is not None else None
        if recorded is not None and shape is not None:
            return self._rows(lambda batch: recorded.run(batch, shape), torch.from_numpy(pixels))
        return self._rows(self._picture_pass, torch.from_numpy(pixels))

    def record(self, most: int, size: tuple[int, int], recorder: Recorder | None = None) -> None:
        """Record passes for batches of up to `most` inputs, and use them from now on; see embedders.clip.graphs.

        Texts of models whose kind does not allow to leave out padding go on as before: their towers are the code of
        others, of which nobody knows whether it can be recorded.

        Args:
            most: inputs of the largest batch.
            size: height and width of pictures.
            recorder: records on the replica's GPU; without it, one for CUDA.

        Raises:
            torch.OutOfMemoryError: there is too little memory for the recordings.
            RuntimeError: the model cannot be recorded.
        """
        import torch

        self._recorder = recorder = recorder or CudaRecorder(self.device)
        with torch.inference_mode():
            self._recorded_pictures = RecordedPasses(
                self._picture_pass,
                [(count, *size, 3) for count in picture_counts(most)],
                dtype=torch.uint8,
                device=self.device,
                record=recorder,
            )
            if (packed := self._packed) is not None:
                self._recorded_texts = RecordedPasses(
                    lambda ids: self._unit(packed.encode_padded(ids)),
                    list(itertools.product(text_counts(most), text_widths(self._context_length))),
                    dtype=torch.long,
                    device=self.device,
                    record=recorder,
                )

    def recorded_texts(self, texts: Sequence[Text]) -> Iterator[NDArray[np.float32]]:
        """Yield the first texts' vectors from each recorded pass that holds them, as many as it takes."""
        if (recorded := self._recorded_texts) is not None:
            longest = max(len(each.ids) for each in texts)
            for shape in recorded.shapes:
                if longest <= shape[1]:
                    yield self._rows(lambda ids, at=shape: recorded.run(ids, at), _padded(texts[: shape[0]], shape[1]))  # type: ignore[misc]

    def recorded_pictures(self, pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        """Yield the same for pictures."""
        import torch

        if (recorded := self._recorded_pictures) is not None:
            for shape in recorded.shapes:
                yield self._rows(
                    lambda batch, at=shape: recorded.run(batch, at),  # type: ignore[misc]
                    torch.from_numpy(pixels[: shape[0]]),
                )

    @property
    def on_cpu(self) -> bool:
        """Whether the model computes on the CPU."""
        return self.device == "cpu"

    @property
    def works(self) -> bool:
        """Whether the device still answers; after some errors of CUDA it never does again in this process."""
        import torch

        if not self.on_cpu:
            try:
                torch.cuda.synchronize(self.device)
            except RuntimeError:
                return False
        return True

    @property
    def packs(self) -> bool:
        """Whether texts go without padding."""
        return self._packed is not None

    @property
    def held_bytes(self) -> int:
        """Bytes of the model's weights, and of the recorded passes."""
        held = itertools.chain(self._model.parameters(), self._model.buffers())
        weights: int = sum(each.numel() * each.element_size() for each in held)
        return weights + (self._recorder.held_bytes if self._recorder is not None else 0)

    def compute_on(self, cores: int) -> None:
        """Let forward passes from now on use so many cores, if the model is on the CPU."""
        import torch

        if self.on_cpu and torch.get_num_threads() != cores:
            torch.set_num_threads(cores)

    def check_packing(self, texts: Sequence[Text]) -> None:
        """Go back to open_clip's own padding if some text's vector differs without it.

        For models in 32 bits, whose rounding is far below any error; what it finds holds for the same model in others.
        """
        packed, self._packed = self._packed, None
        expected = self.encode_texts(texts)
        self._packed = packed
        if np.abs(self.encode_texts(texts) - expected).max() > PARITY_OF_PACKING:
            self._packed = None

    def _picture_pass(self, pixels: Any) -> Any:
        return self._unit(self._model.encode_image(self._floats(pixels)))

    def _floats(self, pixels: Any) -> Any:
        """Return what torchvision's ToTensor and Normalize make of each picture, to the bit, in the model's precision.

        A byte for each value travels to a GPU instead of two or four.
        """
        import torch

        colours = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255)
        return colours.sub_(self._mean).div_(self._std).to(self._dtype or torch.float32)

    def _rows(self, run: Pass, batch: Any = None) -> NDArray[np.float32]:
        """Return the rows that a pass gives for a batch in this machine's memory, or for what it brings itself."""
        import torch

        with torch.inference_mode():
            if self.on_cpu:
                rows: NDArray[np.float32] = run(batch).numpy()
                return rows
            with torch.cuda.device(self.device):
                return self._rows_of_gpu(run, batch)

    def _rows_of_gpu(self, run: Pass, batch: Any) -> NDArray[np.float32]:
        """Return the rows of a pass; the copy of a batch runs beside the pass before it."""
        import torch

        main, there = torch.cuda.current_stream(), None
        if batch is not None:
            with torch.cuda.stream(self._copies):
                # Only from and to pinned memory does a copy run beside the computation.
                there = batch.pin_memory().to(self.device, non_blocking=True)
                copied = torch.cuda.current_stream().record_event()
        with self._turn:
            if there is not None:
                main.wait_event(copied)
                there.record_stream(main)
            rows = run(there)
            back = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            back.copy_(rows, non_blocking=True)
            # A thread that sleeps leaves its core to the decoders.
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(main)
        done.synchronize()
        vectors: NDArray[np.float32] = back.numpy()
        return vectors

    @staticmethod
    def _unit(encoded: Any) -> Any:
        from torch.nn import functional

        return functional.normalize(encoded.float(), dim=-1)


def _padded(texts: Sequence[Text], width: int) -> Any:
    """Return token ids padded with zeros: a tensor of shape (texts, width)."""
    import torch

    ids = torch.zeros(len(texts), width, dtype=torch.long)
    for row, each in zip(ids, texts, strict=True):
        row[: len(each.ids)] = torch.tensor(each.ids)
    return ids


def _three(value: float | Sequence[float]) -> tuple[float, ...]:
    """Return a value for each colour, of which open_clip takes one for all, too."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * 3
