"""The embedders that the settings ask for."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from embedders.base import Embedder
from embedders.breaker import BreakerRules
from embedders.cache import VectorCache
from embedders.clip.config import ClipConfig
from embedders.errors import EmbedderUnavailable
from embedders.factory import build_embedder
from embedders.nim import NimConfig
from embedders.probe import ProbeVectors, ProvenEmbedder, probe_vectors, read_probe
from embedders.queueing import QueueBounds
from embedders.spec import InputLimits
from service.settings import ClipSettings, InvalidSettings, LimitSettings, Settings, read_secret

__all__ = ["build_embedders"]


def build_embedders(settings: Settings) -> list[Embedder]:
    """Build the embedders of `embedder.order`, the default one first; none is started yet.

    Raises:
        InvalidSettings: a key file cannot be read, or an address or a key makes no sense.
        ModelUnusable: a local model is asked for, but its packages are not installed, or a probe file is no good.
    """
    embedder = settings.embedder
    cache = VectorCache(embedder.cache_bytes) if embedder.cache_bytes else None
    bounds = QueueBounds(max_inputs=embedder.max_queued_inputs, max_bytes=embedder.max_queued_bytes)
    rules = BreakerRules(
        max_failures=embedder.max_failures,
        cool_down_s=embedder.cool_down_s,
        max_cool_down_s=embedder.max_cool_down_s,
        check_timeout_s=embedder.check_timeout_s,
    )
    built: list[Embedder] = []
    for name in embedder.order:
        try:
            for config in [_clip_config(settings)] if name == "clip" else _nim_configs(settings):
                proof = _proof(settings.clip, built) if isinstance(config, ClipConfig) else _no_proof
                built.append(build_embedder(config, bounds=bounds, rules=rules, cache=cache, wrap=proof))
        except ValueError as error:
            raise InvalidSettings(f"{name}: {error}") from error
    return built


def _no_proof(embedder: Embedder) -> Embedder:
    return embedder


def _proof(clip: ClipSettings, others: Sequence[Embedder]) -> Callable[[Embedder], Embedder]:
    """Return what makes a local model show that it is of the space that it is declared to be of."""
    space = clip.space
    if space is None:
        return _no_proof
    stored = None if clip.probe_file is None else read_probe(clip.probe_file)

    async def reference() -> ProbeVectors:
        if stored is not None:
            return stored
        fault = EmbedderUnavailable(
            f"no other embedder of this server is of the space {space}, and clip.probe_file is unset"
        )
        for other in others:
            if other.spec.name != "clip" and other.spec.space == space:
                try:
                    return await probe_vectors(other)
                except EmbedderUnavailable as error:
                    fault = error
        raise fault

    return lambda embedder: ProvenEmbedder(embedder, space=space, reference=reference, min_cosine=clip.probe_min_cosine)


def _clip_config(settings: Settings) -> ClipConfig:
    return ClipConfig(
        model=settings.clip.model,
        checkpoint=settings.clip.checkpoint,
        expected_digest=settings.clip.expected_digest,
        device=settings.clip.device,
        precision=settings.clip.precision,
        max_batch=settings.clip.max_batch,
        jpeg_draft_factor=settings.clip.jpeg_draft_factor,
        readers=settings.clip.readers,
        limits=_input_limits(settings.limits),
    )


def _nim_configs(settings: Settings) -> list[NimConfig]:
    """Return a configuration for each address: nim, nim-2, nim-3 and so on."""
    nim = settings.nim
    first = NimConfig(
        base_url=nim.base_url[0],
        model=nim.model,
        profile=nim.profile,
        dimension=nim.dimension,
        api_key=read_secret(nim.api_key, nim.api_key_file),
        ca_file=nim.ca_file,
        proxy=read_secret(nim.proxy, nim.proxy_file),
        timeout_s=nim.timeout_s,
        max_batch=nim.max_batch,
        max_connections=nim.max_connections,
        retry_attempts=nim.retry_attempts,
        retry_max_s=nim.retry_max_s,
        limits=_input_limits(settings.limits),
    )
    others = [
        replace(first, name=f"nim-{number}", base_url=address) for number, address in enumerate(nim.base_url[1:], 2)
    ]
    return [first, *others]


def _input_limits(limits: LimitSettings) -> InputLimits:
    return InputLimits(
        max_text_bytes=limits.max_text_bytes,
        max_image_bytes=limits.max_image_bytes,
        max_image_pixels=limits.max_image_pixels,
        max_image_frames=limits.max_image_frames,
    )
