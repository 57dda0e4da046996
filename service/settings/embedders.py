"""The settings of the embedders: what all have in common, the local CLIP model, and the NIM."""

import ssl
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode

from embedders.nim.address import check_key, parse_base_url, resolve_proxy
from embedders.nim.profiles import PROFILES, choose_profile
from service.settings.types import MIB, CommaSeparated, Group, Seconds, SecretFile, read_secret_file, split_names

EmbedderName = Literal["clip", "nim"]
ProfileName = Literal[
    "auto", "nvclip", "nemotron-3.5", "nemotron-vl", "nemoretriever-vlm", "llama-nemotron", "text", "plain"
]


class EmbedderSettings(Group):
    """All embedders."""

    order: Annotated[list[EmbedderName], NoDecode, BeforeValidator(split_names)] = Field(
        default=["clip"],
        min_length=1,
        description="embedders to start, with commas between, the default one first: clip (local model), nim (NVIDIA "
        "NIM)",
    )
    max_queued_inputs: int = Field(
        4096,
        ge=1,
        description="inputs that may wait for an embedder, of bulk work three quarters; more are refused as OVERLOADED",
    )
    cache_bytes: int = Field(64 * MIB, ge=0, description="bytes of vectors kept in memory by content; 0 keeps none")

    @model_validator(mode="after")
    def _no_twins(self) -> Self:
        if len(set(self.order)) != len(self.order):
            raise ValueError("embedder.order: names an embedder twice; name each once")
        return self


class ClipSettings(Group):
    """The local CLIP embedder."""

    model: str = Field(
        "pictogram-clip",
        min_length=1,
        description="the bundled model, an open_clip model's name, or a folder with open_clip_config.json and weights",
    )
    checkpoint: Path | None = Field(
        None, description="weights file of an open_clip model named in clip.model, or of a folder without one"
    )
    expected_digest: str | None = Field(
        None,
        pattern=r"^(sha256:)?[0-9A-Fa-f]{64}$",
        description="SHA-256 that the weights must have; others are refused",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|(cpu|cuda|cuda:\d+)(,(cpu|cuda:\d+))*)$",
        description="where the model runs: auto (every GPU, else the CPU), cpu, cuda (every GPU), or cuda:0,cuda:2",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto", description="number format of the model; auto is fp16 on a GPU after a check that it is close to fp32"
    )
    max_batch: int = Field(32, ge=1, le=4096, description="inputs in one forward pass")
    readers: int = Field(
        0,
        ge=0,
        le=256,
        description="pictures to decode at the same time, each of which takes a core and memory, and a quarter as many "
        "large ones beside them; 0: as many as there are cores, from 4 to 16",
    )
    space: str | None = Field(
        None,
        min_length=1,
        description="another space that the model belongs to, such as nvidia/nvclip; it serves once a probe has "
        "confirmed that",
    )
    probe_file: Path | None = Field(
        None,
        description="vectors of the probe in clip.space, as `vecgate probe` writes them; without it the NIM is asked",
    )


class NimSettings(Group):
    """The NVIDIA NIM embedder."""

    base_url: CommaSeparated = Field(
        default=["http://127.0.0.1:8000"],
        min_length=1,
        description="address of the NIM, http or https, with or without a path and /v1 at its end; of several with "
        "commas between, which serve the same model, the first one that works is used (embedders nim, nim-2, ...)",
    )
    model: str = Field(
        "nvidia/nvclip", min_length=1, description="the model's name, which is also its space unless nim.space is set"
    )
    space: str | None = Field(
        None,
        min_length=1,
        description="another space that the model belongs to, such as nvidia/nvclip; it serves once the vectors of "
        "nim.probe_file have confirmed that",
    )
    probe_file: Path | None = Field(
        None, description="vectors of the probe in nim.space, as `vecgate probe` writes them; required with nim.space"
    )
    profile: ProfileName = Field(
        "auto",
        description=f"the model's family, which decides on the fields of a request: {', '.join(PROFILES)}; "
        "auto depends on the model's name, and is plain for an unknown one",
    )
    dimension: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="values in a vector of the model; without it: what the profile knows, or else what the NIM answers",
    )
    api_key: SecretStr | None = Field(None, description="API key, sent as a bearer token; a self-hosted NIM needs none")
    api_key_file: SecretFile | None = Field(None, description="file that holds the key, instead of nim.api_key")
    allow_caller_keys: bool = Field(
        False,
        description="whether calls may bring their own key for the NIM in the metadata x-nvidia-api-key; "
        "otherwise such calls are refused",
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities whose certificates are trusted, instead of the public ones"
    )
    proxy: SecretStr | None = Field(
        None,
        description="address of the proxy to use, or environment for that of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and "
        "NO_PROXY; without it no proxy is used, whatever the environment says",
    )
    proxy_file: SecretFile | None = Field(
        None, description="file that holds the proxy's address, instead of nim.proxy, for one with a password in it"
    )
    timeout_s: Seconds = Field(30, description="seconds for one request to the NIM")
    max_batch: int | None = Field(
        None,
        ge=1,
        description="inputs in one request; without it: 64, or what the profile says; nvclip takes at most 64",
    )
    max_connections: int = Field(8, ge=1, le=1000, description="requests to the NIM at the same time")
    max_request_bytes: int = Field(
        16 * MIB,
        ge=1,
        description="bytes of the inputs of one request, pictures in base64; a larger input goes alone. Lower it where "
        "a proxy in front of the NIM accepts only smaller bodies",
    )

    @model_validator(mode="after")
    def _no_space_without_proof(self) -> Self:
        if self.space is not None and self.probe_file is None:
            raise ValueError(
                "nim.space: is set without nim.probe_file; write one with vecgate probe from an embedder of that space"
            )
        return self

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, base_url: list[str]) -> list[str]:
        if len({parse_base_url(address) for address in base_url}) < len(base_url):
            raise ValueError("names an address twice; name each once")
        return base_url

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, api_key: SecretStr | None) -> SecretStr | None:
        if api_key is not None:
            check_key(api_key.get_secret_value())
        return api_key

    @field_validator("api_key_file")
    @classmethod
    def _check_api_key_file(cls, file: Path | None) -> Path | None:
        if file is not None:
            check_key(read_secret_file(file))
        return file

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, ca_file: Path | None) -> Path | None:
        if ca_file is not None:
            try:
                ssl.create_default_context(cafile=ca_file)
            except (OSError, ValueError) as error:
                raise ValueError(f"{ca_file} cannot be read or holds no certificates in PEM form") from error
        return ca_file

    @field_validator("proxy")
    @classmethod
    def _check_proxy_address(cls, proxy: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if proxy is not None:
            _check_proxy(proxy.get_secret_value(), info)
        return proxy

    @field_validator("proxy_file")
    @classmethod
    def _check_proxy_file(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is not None:
            _check_proxy(read_secret_file(file), info)
        return file

    @field_validator("max_batch")
    @classmethod
    def _check_max_batch(cls, max_batch: int | None, info: ValidationInfo) -> int | None:
        if max_batch is not None and {"model", "profile"} <= info.data.keys():
            profile = choose_profile(info.data["profile"], info.data["model"])
            if max_batch > profile.max_inputs:
                raise ValueError(f"a NIM of profile {profile.name} takes at most {profile.max_inputs} inputs a request")
        return max_batch


def _check_proxy(proxy: str, info: ValidationInfo) -> None:
    for address in info.data.get("base_url", ["http://127.0.0.1"]):
        resolve_proxy(proxy, address)
