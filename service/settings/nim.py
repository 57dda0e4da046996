"""The settings of the NIM embedder."""

import ssl
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from embedders.nim.address import check_key, parse_base_url, resolve_proxy
from embedders.nim.profiles import PROFILES, choose_profile
from service.settings.types import CommaSeparated, Group, Seconds, SecretFile, read_secret_file

ProfileName = Literal["auto", "nvclip", "nemotron-vl", "nemoretriever-vlm", "plain"]


LEAST_PIXELS = 224 * 224


class NimSettings(Group):
    """The NVIDIA NIM embedder."""

    base_url: CommaSeparated = Field(
        default=["http://127.0.0.1:8000"],
        min_length=1,
        description="the NIM's address, http or https, maybe with a path, with or without /v1 at its end; of several, "
        "commas between, that serve the same model, the first one that works is asked (embedders nim, nim-2, ...)",
    )
    model: str = Field(
        "nvidia/nvclip", min_length=1, description="the model's name, which is also its space unless nim.space is set"
    )
    space: str | None = Field(
        None,
        min_length=1,
        description="a space that the model is of, such as nvidia/nvclip, though its name is another; it serves once "
        "the vectors of nim.probe_file have shown it",
    )
    probe_file: Path | None = Field(
        None, description="vectors of the probe in nim.space, as `vecgate probe` writes them; needed for that"
    )
    probe_min_cosine: float = Field(
        0.98, gt=0, le=1, description="how near the NIM's vectors of the probe have to be to those of nim.space"
    )
    profile: ProfileName = Field(
        "auto",
        description=f"the model's family, which decides on the fields of a request: {', '.join(PROFILES)}; "
        "auto goes by the model's name and takes plain for one that it does not know",
    )
    dimension: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="values in a vector of the model; without it: what the profile knows, or else what the NIM answers",
    )
    api_key: SecretStr | None = Field(None, description="key sent as a bearer token; a NIM of your own needs none")
    api_key_file: SecretFile | None = Field(None, description="file that holds the key, instead of nim.api_key")
    allow_caller_keys: bool = Field(
        False,
        description="whether calls may bring their own key for the NIM in the metadata x-nvidia-api-key; "
        "where not, such calls are refused",
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities whose certificates are trusted, instead of the public ones"
    )
    proxy: SecretStr | None = Field(
        None,
        description="address of the proxy to go through, or environment for that of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY "
        "and NO_PROXY; without it none is used, whatever the environment says",
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
    retry_attempts: int = Field(
        3,
        ge=1,
        le=10,
        description="requests in all for the same inputs, when the NIM fails in passing; 1 for no retries",
    )
    retry_max_s: Seconds = Field(20, description="seconds within which retries begin and end")
    max_request_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1,
        description="bytes of the inputs of one request, pictures in base64; a larger input goes alone. Set it lower "
        "where a proxy in front of the NIM takes no such bodies",
    )
    max_converted_pixels: int = Field(
        2_000_000,
        ge=0,
        description="pixels to which a picture is scaled down that is neither JPEG nor PNG and so becomes PNG; "
        "0 for never. nvclip reads 224 x 224",
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

    @field_validator("max_converted_pixels")
    @classmethod
    def _check_max_converted_pixels(cls, pixels: int) -> int:
        if 0 < pixels < LEAST_PIXELS:
            raise ValueError(f"must be 0 or at least {LEAST_PIXELS}: the models would see less than they read")
        return pixels

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
