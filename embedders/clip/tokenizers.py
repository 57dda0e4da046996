"""Tokenizers: open_clip's own, and those in files as Hugging Face's libraries write them, read from a folder alone."""

import hashlib
import json
from typing import Any

from embedders.errors import ModelUnusable

SAMPLE = "A red Bicycle, 2 cars & a caf\u00e9\u2019s  <b>\u6771\u4eac</b>!"
"""What shows how a tokenizer cleans, splits and closes a text, which its vocabulary does not tell."""


def load_tokenizer(source: str) -> Any:
    """Return the tokenizer of a model; `source` is open_clip's word for where its configuration is.

    Raises:
        ModelUnusable: a package or a file is missing, or a file is broken.
    """
    import open_clip

    text = open_clip.get_model_config(source)["text_cfg"]
    if not text.get("hf_tokenizer_name"):
        return open_clip.get_tokenizer(source)
    try:
        # A model's configuration may not decide that code of its folder is run.
        return open_clip.get_tokenizer(source, trust_remote_code=False)
    except ModuleNotFoundError as error:
        raise ModelUnusable(
            f"the model's tokenizer needs packages that are not installed ({error.name}): pip install 'vecgate[clip]'"
        ) from error
    except Exception as error:  # whatever missing or broken files lead the libraries to
        fix = (
            "put tokenizer.json, or what else its publisher has, and tokenizer_config.json into the model's folder"
            if source.startswith("local-dir:")
            else "set clip.model to a folder with them, as `vecgate weights fetch` makes it"
        )
        raise ModelUnusable(
            f"the files of the tokenizer {text['hf_tokenizer_name']} are missing or broken: {fix}; "
            "nothing is downloaded"
        ) from error


def tokens_digest(tokenizer: Any) -> str | None:
    """Return a SHA-256 in hex of a tokenizer's vocabulary and of what it makes of a text; None where it has none."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        return None
    known = [sorted(inner.get_vocab().items()), tokenizer([SAMPLE])[0].tolist()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()
