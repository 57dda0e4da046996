"""Tiny CLIP models with random weights, in open_clip's folder form."""

import json
import string
from pathlib import Path
from typing import Any

DIMENSION = 24
CONTEXT_LENGTH = 16


def write_tiny_clip(
    folder: Path,
    *,
    seed: int = 0,
    text: dict[str, Any] | None = None,
    preprocessing: dict[str, Any] | None = None,
    **model: Any,
) -> Path:
    """Write a model of 24 dimensions, 16 tokens and 32 x 32 pixels; the other arguments change its configuration."""
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
    preprocess = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "resize_mode": "shortest",
        **(preprocessing or {}),
    }
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}), encoding="utf-8"
    )
    torch.manual_seed(seed)
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def write_wordpiece_tokenizer(folder: Path, words: str = "red car two") -> None:
    """Write a tokenizer of BERT's form, as NV-CLIP and CLIPA have it: letters and some words."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{each}" for each in letters)]
    (folder / "vocab.txt").write_text("\n".join([*pieces, *words.split()]), encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_unigram_tokenizer(folder: Path, words: str = "red car two") -> None:
    """Write a tokenizer of T5's form, as SigLIP has it: letters and some words, padded with the end token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["<pad>", "</s>", "<unk>"]
    pieces = {"\u2581": -2.0} | dict.fromkeys(string.ascii_lowercase, -3.0)
    pieces |= dict.fromkeys((f"\u2581{each}" for each in words.split()), -1.0)
    tokenizer = Tokenizer(models.Unigram([*((each, 0.0) for each in special), *pieces.items()], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "T5TokenizerFast",
        "pad_token": "</s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "extra_ids": 0,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
