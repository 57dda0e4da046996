"""The model: open_clip's own CLIP with a small ModifiedResNet and a small causal text tower."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from augment import MEAN, STD
from torch import Tensor, nn

SEED = 20260101
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 1024,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def write_config(folder: Path) -> None:
    """Write open_clip_config.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")


def new_model(folder: Path) -> nn.Module:
    """Return a model with seeded random weights, made by open_clip from the configuration in a folder."""
    write_config(folder)
    torch.manual_seed(SEED)
    return open_clip.create_model(f"local-dir:{folder}", load_weights=False)  # type: ignore[no-any-return]


def encode_texts(model: nn.Module, tokens: Tensor) -> Tensor:
    """Return texts' vectors, float32 of shape (n, 1024), unit length, as open_clip computes them, but in less time.

    The tower is causal and reads its answer at the end token, so padding changes nothing and is cut off.

    Args:
        model: the model.
        tokens: int64, shape (n, 32).
    """
    length = int((tokens != 0).sum(1).max())
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)
    x = x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection
    return nn.functional.normalize(x, dim=1)


def encode_by_length(model: nn.Module, tokens: Tensor, parts: int = 4) -> Tensor:
    """Return what encode_texts returns, in less time: texts of like length go through the tower together."""
    order = (tokens != 0).sum(1).argsort()
    vectors = torch.cat([encode_texts(model, tokens[rows]) for rows in order.chunk(parts)])
    return torch.zeros_like(vectors).index_copy(0, order, vectors)
