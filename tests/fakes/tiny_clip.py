"""Tiny CLIP models with random weights, in open_clip's folder form."""

import json
from pathlib import Path
from typing import Any

__all__ = ["CONTEXT_LENGTH", "DIMENSION", "write_tiny_clip"]

DIMENSION = 24
CONTEXT_LENGTH = 16


def write_tiny_clip(folder: Path, *, seed: int = 0, text: dict[str, Any] | None = None, **model: Any) -> Path:
    """Write a model of 24 dimensions, 16 tokens and 32 x 32 pixels; `text` and `model` change its configuration."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": DIMENSION,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
            **(text or {}),
        },
        **model,
    }
    preprocessing = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_mode": "shortest"}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing}), encoding="utf-8"
    )
    torch.manual_seed(seed)
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    return folder
