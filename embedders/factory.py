"""Building embedders from their configurations."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from embedders.base import Embedder
from embedders.batching import BatchingEmbedder
from embedders.errors import ModelUnusable
from embedders.nim import NimConfig, NimEmbedder

if TYPE_CHECKING:
    from embedders.clip import ClipConfig

__all__ = ["build_embedder"]

CLIP_SLOTS = 2
"""While one batch is in the forward pass, the next one is decoded and tokenised."""


def build_embedder(config: "ClipConfig | NimConfig", *, max_queued_inputs: int) -> Embedder:
    """Build the embedder that a configuration describes, with batching across calls. It is not started yet.

    Raises:
        ModelUnusable: a local model is asked for, but torch or open_clip is not installed.
        ValueError: a NIM's address or batch size makes no sense.
    """
    if isinstance(config, NimConfig):
        inner: Embedder = NimEmbedder(config)
        return BatchingEmbedder(inner, max_queued_inputs=max_queued_inputs, slots=config.max_connections)
    missing = [package for package in ("torch", "open_clip") if find_spec(package) is None]
    if missing:
        raise ModelUnusable(
            f"a local model needs packages that are not installed ({', '.join(missing)}): pip install 'vecgate[clip]'"
        )
    from embedders.clip import ClipEmbedder  # noqa: PLC0415 -- needed for local models only

    return BatchingEmbedder(ClipEmbedder(config), max_queued_inputs=max_queued_inputs, slots=CLIP_SLOTS)
