"""The embedders and rerankers that the settings ask for."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from embedders.clip.config import ClipConfig
from embedders.contract import InputLimits, WatchedEmbedder
from embedders.errors import EmbedderError, EmbedderUnavailable, ModelUnusable
from embedders.factory import build_embedder, build_reranker, check_packages
from embedders.front.breaker import BreakerRules
from embedders.front.cache import VectorCache
from embedders.front.proof import ProbeVectors, ProvenEmbedder, probe_vectors, read_probe
from embedders.front.queueing import MAX_QUEUED_BYTES, QueueBounds
from embedders.images.decoders import LEAST_PROCESSES, MOST_PROCESSES, Decoders
from embedders.nim.embedder import NimConfig
from embedders.nim.reranking import NimRerankConfig
from embedders.reranking import WatchedReranker
from service.access import Authenticator
from service.fetching import Fetcher, Origin, load_origins
from service.process.tls import certificates_of
from service.settings import (
    ClipSettings,
    InvalidSettings,
    LimitSettings,
    NimRerankSettings,
    NimSettings,
    Settings,
    read_secret,
    replica_names,
)

NONE_SERVED: Mapping[str, Path] = MappingProxyType({})
PROBE_MIN_COSINE = 0.98
"""How close a model's vectors of the probe must be to those of the space that it is declared to belong to: two runtimes
and precisions of one checkpoint stay above it, another checkpoint stays far below."""


def build_decoders(settings: Settings) -> Decoders:
    """Build the pool of processes that read pictures and slow texts for all embedders of a server; none is started yet.

    It has as many as the local embedder that asks for most; by default a server's share of the cores.
    """
    asked = [group.readers for group in settings.ordered.values() if isinstance(group, ClipSettings)]
    share = max(LEAST_PROCESSES, (os.cpu_count() or 1) // settings.server.workers)
    return Decoders(max(asked, default=0) or min(share, MOST_PROCESSES))


def build_embedders(
    settings: Settings, decoders: Decoders | None = None, *, models: Mapping[str, Path] = NONE_SERVED
) -> list[WatchedEmbedder]:
    """Build the embedders of `embedder.order`, the default one first; none is started yet.

    They share the decoders, which the caller closes after them; without, each has its own.

    Raises:
        InvalidSettings: a key file cannot be read, or an address or a key is invalid.
        ModelUnusable: the packages of a local model are not installed, or a probe file is unusable.
    """
    embedder = settings.embedder
    cache = VectorCache(embedder.cache_bytes) if embedder.cache_bytes else None
    bounds = QueueBounds(max_inputs=embedder.max_queued_inputs, max_bytes=MAX_QUEUED_BYTES)
    rules = BreakerRules()
    built: list[WatchedEmbedder] = []
    for name, group in settings.ordered.items():
        try:
            for config in embedder_configs(name, group, _input_limits(settings.limits), models.get(name)):
                one = build_embedder(config, bounds=bounds, decoders=decoders, rules=rules, cache=cache)
                built.append(_proven(one, group, built, timeout_s=rules.check_timeout_s))
        except ValueError as error:
            raise InvalidSettings(f"{name}: {error}") from error
    return built


def local_models(settings: Settings) -> list[ClipConfig]:
    """Return the configurations of the local models, which processes for several servers may run.

    Raises:
        ModelUnusable: the packages of a local model are not installed.
    """
    limits = _input_limits(settings.limits)
    groups = {name: group for name, group in settings.ordered.items() if isinstance(group, ClipSettings)}
    if groups:
        check_packages()
    return [_clip_config(name, group, limits, None) for name, group in groups.items()]


def replicas(settings: Settings) -> dict[str, list[str]]:
    """Return the names of the embedders at the addresses of each NIM that has several, by the NIM's own name."""
    return {
        name: replica_names(name, len(group.base_url))
        for name, group in settings.ordered.items()
        if isinstance(group, NimSettings) and len(group.base_url) > 1
    }


def build_rerankers(settings: Settings, decoders: Decoders | None = None) -> list[list[WatchedReranker]]:
    """Build the rerankers, for each those at its addresses; none is started yet. Decoders as in `build_embedders`.

    Raises:
        InvalidSettings: a key file cannot be read, or an address or a key is invalid.
    """
    limits, rules = _input_limits(settings.limits), BreakerRules()
    built: list[list[WatchedReranker]] = []
    for name, group in settings.rerankers.items():
        try:
            configs = [NimRerankConfig(**each) for each in _calls(name, group, limits)]
            built.append([build_reranker(each, decoders=decoders, rules=rules) for each in configs])
        except ValueError as error:
            raise InvalidSettings(f"{name}: {error}") from error
    return built


def build_fetcher(settings: Settings) -> Fetcher:
    """Build what fetches images from the origins that the operator lists; it is not open yet.

    Raises:
        InvalidSettings: the list cannot be read, or breaks rules.
    """
    return Fetcher(listed_origins(settings))


def listed_origins(settings: Settings) -> tuple[Origin, ...]:
    """Return the origins that images may be fetched from.

    Raises:
        InvalidSettings: the list cannot be read, or breaks rules.
    """
    file = settings.fetch.origins_file
    return () if file is None else load_origins(file)


def read_files(settings: Settings) -> tuple[tuple[Origin, ...], list[str]]:
    """Read the files that settings name.

    Returns:
        The origins that images may be fetched from, none if their list is unusable; and what is wrong with the contents
        of all files, a line each.
    """
    server, web = settings.server, settings.web
    origins: tuple[Origin, ...] = ()
    faults: list[str] = []
    with _noted(faults):
        Authenticator(settings.auth)
    with _noted(faults):
        origins = listed_origins(settings)
    authorities = {"server": server.tls_client_ca_file} | ({"web": web.tls_client_ca_file} if web.enabled else {})
    for group, file in authorities.items():
        with _noted(faults):
            certificates_of(server, file, group=group)
    for probe in dict.fromkeys(each.probe_file for each in settings.ordered.values()):
        if probe is not None:
            with _noted(faults):
                read_probe(probe)
    # Both servers have one certificate, whose faults are told once.
    return origins, list(dict.fromkeys(faults))


@contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Add to faults what is wrong with a file that is read in the block, instead of raising it."""
    try:
        yield
    except (InvalidSettings, ModelUnusable) as error:
        faults += str(error).splitlines()


def embedder_configs(
    name: str, group: ClipSettings | NimSettings, limits: InputLimits, served_by: Path | None = None
) -> Sequence[ClipConfig | NimConfig]:
    """Return the configurations of a named embedder: of a NIM, one for each address."""
    return (
        [_clip_config(name, group, limits, served_by)]
        if isinstance(group, ClipSettings)
        else _nim_configs(name, group, limits)
    )


def _proven(
    embedder: WatchedEmbedder, group: ClipSettings | NimSettings, built: Sequence[WatchedEmbedder], *, timeout_s: float
) -> WatchedEmbedder:
    """Let an embedder prove that it belongs to the space that the settings declare; `built` may still grow."""
    space = group.space
    if space is None:
        return embedder
    stored = None if group.probe_file is None else read_probe(group.probe_file)

    def references() -> list[WatchedEmbedder]:
        """Return the other embedders that have the space by themselves."""
        owns = (each.own if isinstance(each, ProvenEmbedder) else each for each in built)
        return [own for own in owns if own is not embedder and own.spec.space == space]

    async def reference() -> ProbeVectors:
        if stored is not None:
            return stored
        fault: EmbedderError = EmbedderUnavailable(
            f"no other embedder of this server is known to have the space {space}, and there is no probe file"
        )
        for other in references():
            try:
                return await probe_vectors(other)
            except EmbedderError as error:
                fault = error
        raise fault

    return ProvenEmbedder(
        embedder,
        space=space,
        reference=reference,
        min_cosine=PROBE_MIN_COSINE,
        outages=lambda: 0 if stored is not None else sum(other.health.outages for other in references()),
        timeout_s=timeout_s,
        at_start=stored is not None and isinstance(group, ClipSettings),
    )


def _clip_config(name: str, clip: ClipSettings, limits: InputLimits, served_by: Path | None) -> ClipConfig:
    return ClipConfig(
        name=name,
        model=clip.model,
        checkpoint=clip.checkpoint,
        expected_digest=clip.expected_digest,
        device=clip.device,
        precision=clip.precision,
        graphs=clip.graphs,
        max_batch=clip.max_batch,
        limits=limits,
        served_by=served_by,
    )


def _nim_configs(name: str, nim: NimSettings, limits: InputLimits) -> list[NimConfig]:
    """Return a configuration for each address."""
    return [
        NimConfig(**each, profile=nim.profile, dimensions=nim.dimensions, max_batch=nim.max_batch)
        for each in _calls(name, nim, limits)
    ]


def _calls(name: str, nim: NimSettings | NimRerankSettings, limits: InputLimits) -> Iterator[dict[str, Any]]:
    """Yield for each address how to reach and call it."""
    for each, address in zip(replica_names(name, len(nim.base_url)), nim.base_url, strict=True):
        yield {
            "name": each,
            "base_url": address,
            "model": nim.model,
            "api_key": read_secret(nim.api_key, nim.api_key_file),
            "caller_keys": nim.allow_caller_keys,
            "ca_file": nim.ca_file,
            "proxy": read_secret(nim.proxy, nim.proxy_file),
            "timeout_s": nim.timeout_s,
            "max_connections": nim.max_connections,
            "max_request_bytes": nim.max_request_bytes,
            "limits": limits,
            "learn_at_start": False,
        }


def _input_limits(limits: LimitSettings) -> InputLimits:
    return InputLimits(
        max_text_bytes=limits.max_text_bytes,
        max_image_bytes=limits.max_image_bytes,
        max_image_pixels=limits.max_image_pixels,
    )
