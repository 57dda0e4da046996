"""Building embedders and rerankers from their configurations."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from embedders.contract import Embedder, WatchedEmbedder
from embedders.errors import ModelUnusable
from embedders.front.batching import BatchingEmbedder
from embedders.front.breaker import BreakerEmbedder, BreakerReranker, BreakerRules
from embedders.front.cache import CachingEmbedder, VectorCache
from embedders.front.queueing import QueueBounds
from embedders.images.decoders import Decoders
from embedders.nim.embedder import NimConfig, NimEmbedder
from embedders.nim.reranking import NimRerankConfig, NimReranker
from embedders.reranking import WatchedReranker

if TYPE_CHECKING:
    from embedders.clip import ClipConfig


MAX_GATHER_S = 0.010
"""The longest wait for the callers of a local model's last batch to call again."""


def build_embedder(
    config: "ClipConfig | NimConfig",
    *,
    bounds: QueueBounds,
    decoders: Decoders | None = None,
    rules: BreakerRules | None = None,
    cache: VectorCache | None = None,
) -> WatchedEmbedder:
    """Build the embedder that a configuration describes, with batching, a circuit breaker and a cache, not yet started.

    Args:
        config: of the backend.
        bounds: of its queue.
        decoders: read pictures and slow texts; embedders and rerankers may share them. None: it has its own.
        rules: of its circuit breaker.
        cache: for its vectors; embedders may share one. None: nothing is cached.

    Raises:
        ModelUnusable: a local model is asked for, but torch or open_clip is not installed.
        ValueError: a NIM's address or batch size is invalid.
    """
    breaker = BreakerEmbedder(_batching(config, bounds, decoders), rules or BreakerRules())
    return breaker if cache is None else CachingEmbedder(breaker, cache)


def build_reranker(
    config: NimRerankConfig, *, decoders: Decoders | None = None, rules: BreakerRules | None = None
) -> WatchedReranker:
    """Build the reranker that a configuration describes, with a circuit breaker, not yet started.

    Args:
        config: of the NIM.
        decoders: read pictures; embedders and rerankers may share them. None: it has its own.
        rules: of its circuit breaker.

    Raises:
        ValueError: a NIM's address is invalid, or its model is missing.
    """
    return BreakerReranker(NimReranker(config, decoders=decoders), rules or BreakerRules())


def check_packages() -> None:
    """Check that what local models need is installed.

    Raises:
        ModelUnusable: it is not.
    """
    missing = [package for package in ("torch", "open_clip") if find_spec(package) is None]
    if missing:
        raise ModelUnusable(
            f"a local model needs packages that are not installed ({', '.join(missing)}): pip install 'vecgate[clip]'"
        )


def _batching(config: "ClipConfig | NimConfig", bounds: QueueBounds, decoders: Decoders | None) -> Embedder:
    if isinstance(config, NimConfig):
        # Reading pictures takes long; texts should not wait for them.
        return BatchingEmbedder(NimEmbedder(config, decoders=decoders), bounds=bounds, apart=True)
    check_packages()
    from embedders.clip import ClipEmbedder  # noqa: PLC0415 -- needed for local models only

    clip = ClipEmbedder(config, decoders=decoders)
    return BatchingEmbedder(clip, bounds=bounds, apart=True, reading=clip, max_gather_s=MAX_GATHER_S)
