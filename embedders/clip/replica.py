"""A model on one device."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.clip.packed import PackedTower
from embedders.clip.reading import Reader, Text

PARITY_OF_PACKING = 1e-4
"""How far vectors without padding may be from open_clip's own at load, in 32 bits: rounding, far below any error."""


class Replica:
    """Encodes what a reader has read. Its weights are only read, so threads may share one.

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

        self._model = model
        self.device = device
        self._context_length = reader.context_length
        preprocessing = model.visual.preprocess_cfg
        self._mean, self._std = (_three(preprocessing[key]) for key in ("mean", "std"))
        self._dtype = open_clip.get_input_dtype(precision)
        self._packed = PackedTower.of(model) if may_pack and reader.unpadded else None

    def encode_texts(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Return unit vectors: float32, shape (texts, dimension)."""
        import torch

        with torch.inference_mode():
            if self._packed is not None:
                return self._unit(self._packed.encode([each.ids for each in texts]))
            ids = torch.zeros(len(texts), self._context_length, dtype=torch.long)
            for row, each in zip(ids, texts, strict=True):
                row[: len(each.ids)] = torch.tensor(each.ids)
            return self._unit(self._model.encode_text(ids.to(self.device)))

    def encode_pictures(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return unit vectors: float32, shape (pictures, dimension).

        Args:
            pixels: uint8, shape (pictures, height, width, 3).
        """
        import torch

        with torch.inference_mode():
            read = torch.from_numpy(pixels)
            if not self.on_cpu:
                # Only from pinned memory does a copy run beside the computation.
                read = read.pin_memory()
            return self._unit(self._model.encode_image(self._floats(read.to(self.device, non_blocking=True))))

    @property
    def on_cpu(self) -> bool:
        """Whether the model computes on the CPU."""
        return self.device == "cpu"

    @property
    def packs(self) -> bool:
        """Whether texts go without padding."""
        return self._packed is not None

    @property
    def weights_bytes(self) -> int:
        """Bytes of the model's weights."""
        held = itertools.chain(self._model.parameters(), self._model.buffers())
        return sum(each.numel() * each.element_size() for each in held)

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

    def _floats(self, pixels: Any) -> Any:
        """Return what torchvision's ToTensor and Normalize make of each picture, to the bit, in the model's precision.

        A byte for each value travels to a GPU instead of two or four.
        """
        import torch

        colours = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255)
        mean, std = (
            torch.tensor(each, dtype=torch.float32, device=colours.device).view(-1, 1, 1)
            for each in (self._mean, self._std)
        )
        return colours.sub_(mean).div_(std).to(self.device, self._dtype)

    @staticmethod
    def _unit(encoded: Any) -> NDArray[np.float32]:
        from torch.nn import functional

        rows: NDArray[np.float32] = functional.normalize(encoded.float(), dim=-1).cpu().numpy()
        return rows


def _three(value: float | Sequence[float]) -> tuple[float, ...]:
    """Return a value for each colour, of which open_clip takes one for all, too."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * 3
