"""A CLIP model on this machine, by open_clip: the only user of torch and open_clip."""

from embedders.clip.config import ClipConfig
from embedders.clip.embedder import ClipEmbedder

__all__ = ["ClipConfig", "ClipEmbedder"]
