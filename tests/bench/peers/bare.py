"""open_clip by itself."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image


class BareLoop:
    """open_clip by itself, with texts cut to the longest one of their batch."""

    def __init__(self, folder: Path) -> None:
        import open_clip

        self._model, _, self._transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        self._model.eval()
        self._tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    def texts(self, texts: Sequence[str]) -> Any:
        """Embed texts as one batch."""
        import torch

        ids = self._tokenizer(texts)
        model, length = self._model, int((ids != 0).sum(dim=1).max())
        with torch.inference_mode():
            hidden = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
            hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
            ends = ids.argmax(dim=1)
            rows = model.ln_final(hidden)[torch.arange(len(ids)), ends] @ model.text_projection
            return torch.nn.functional.normalize(rows, dim=-1).numpy()

    def pictures(self, files: Sequence[bytes]) -> Any:
        """Embed image files as one batch."""
        import torch

        pixels = torch.stack([self._transform(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
        with torch.inference_mode():
            return self._model.encode_image(pixels, normalize=True).numpy()
