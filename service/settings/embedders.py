"""The settings of the embedders: what all have in common, and a group for each kind of embedder."""

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode

from embedders.nim.address import HOSTED, parse_base_url, resolve_proxy
from embedders.nim.profiles import AUTO, PROFILES, check_profile, choose_profile
from service.settings.types import (
    MIB,
    ApiKey,
    ApiKeyFile,
    CommaSeparated,
    Group,
    Matching,
    Name,
    ReadableFile,
    Seconds,
    SecretFile,
    read_secret_file,
    split_names,
)

MAX_NAME_LENGTH = 63
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def check_name(name: str) -> str:
    """Return an embedder's name.

    Raises:
        ValueError: it has other characters than a name may have, or too many.
    """
    if len(name) > MAX_NAME_LENGTH or not NAME.fullmatch(name):
        raise ValueError(
            f"an embedder's name has lower-case letters, digits and single dashes between them, at most "
            f"{MAX_NAME_LENGTH}; in a variable a dash is written as _"
        )
    return name


EmbedderName = Annotated[str, AfterValidator(check_name)]


class EmbedderSettings(Group):
    """All embedders."""

    order: Annotated[list[EmbedderName], NoDecode, BeforeValidator(split_names)] | None = Field(
        None,
        min_length=1,
        description="names of all embedders, with commas between, in order of preference, the default one first; "
        "required when there are several",
    )
    max_queued_inputs: int = Field(
        4096,
        ge=1,
        description="inputs that may wait for an embedder, of bulk work three quarters; more are refused as OVERLOADED",
    )
    cache_bytes: int = Field(64 * MIB, ge=0, description="bytes of vectors kept in memory by content; 0 keeps none")

    @field_validator("order")
    @classmethod
    def _no_twins(cls, order: list[str] | None) -> list[str] | None:
        if order is not None and len(set(order)) != len(order):
            raise ValueError("names an embedder twice; name each once")
        return order


class SpaceSettings(Group):
    """The space that an embedder is declared to have."""

    space: Name | None = Field(
        None,
        description="space that the model belongs to, where that is another's, such as nvidia/nvclip; it serves once a "
        "probe has confirmed that",
    )
    probe_file: ReadableFile | None = Field(
        None,
        description="vectors of the probe in that space, as `vecgate probe` writes them; without it an embedder of "
        "this server that has the space by itself is asked",
    )


Digest = Annotated[
    str, Matching(r"^(sha256:)?[0-9A-Fa-f]{64}$", "must be 64 hexadecimal digits, sha256: before or not")
]
Device = Annotated[
    str,
    Matching(
        r"^(auto|(cpu|cuda|cuda:\d+)(,(cpu|cuda:\d+))*)$",
        "must be auto, cpu, cuda, or devices such as cuda:0 with commas between",
    ),
]


class ClipSettings(SpaceSettings):
    """A local CLIP model."""

    kind: Literal["clip"] = Field("clip", description="clip, for a local CLIP model; required")
    model: Name = Field(
        "pictogram-clip",
        description="the bundled model, an open_clip model's name, or a folder with open_clip_config.json and weights",
    )
    checkpoint: Path | None = Field(
        None, description="weights file of an open_clip model that `model` names, or of a folder without one"
    )
    expected_digest: Digest | None = Field(None, description="SHA-256 that the weights must have; others are refused")
    device: Device = Field(
        "auto",
        description="where the model runs: auto (every GPU, else the CPU), cpu, cuda (every GPU), or cuda:0,cuda:2",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto", description="number format of the model; auto is fp16 on a GPU after a check that it is close to fp32"
    )
    graphs: bool = Field(
        False,
        description="whether a GPU runs the model by CUDA graphs, which are recorded at the start for batches of some "
        "sizes: faster for small models and single inputs, at the cost of memory and of seconds at the start",
    )
    max_batch: int = Field(32, ge=1, le=4096, description="inputs in one forward pass")
    readers: int = Field(
        0,
        ge=0,
        le=256,
        description="processes that decode pictures, each of which takes a core and memory; a quarter of them is for "
        "large ones; all embedders share them, the greatest number counts; 0: a server's share of the cores, 2 to 16",
    )


class NimConnectionSettings(Group):
    """What the kinds that call a NIM have in common."""

    base_url: CommaSeparated = Field(
        default=["http://127.0.0.1:8000"],
        min_length=1,
        description="address of the NIM, http or https, with or without a path and /v1 at its end; of several with "
        "commas between, which serve the same model, the first one that works is used (embedders NAME, NAME-2, ...)",
    )
    model: Name | None = Field(
        None, description="the model's name; without it: the one that the NIM serves, asked of the NIM"
    )
    api_key: ApiKey = Field(
        None,
        description="API key, sent as a bearer token, 4096 characters at most; a self-hosted NIM needs none, and an "
        "empty one counts as none",
    )
    api_key_file: ApiKeyFile | None = Field(None, description="file that holds the key, instead of API_KEY")
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities whose certificates are trusted, instead of the public ones"
    )
    proxy: SecretStr | None = Field(
        None,
        description="address of the proxy to use, or environment for that of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and "
        "NO_PROXY; without it no proxy is used, whatever the environment says",
    )
    proxy_file: SecretFile | None = Field(
        None, description="file that holds the proxy's address, instead of PROXY, for one with a password in it"
    )
    timeout_s: Seconds = Field(120, description="seconds for one request to the NIM")
    max_connections: int = Field(8, ge=1, le=1000, description="requests to the NIM at the same time")
    max_request_bytes: int = Field(
        16 * MIB,
        ge=1,
        description="bytes of the inputs of one request, pictures in base64; a larger input goes alone. Lower it where "
        "a proxy in front of the NIM accepts only smaller bodies",
    )

    allow_caller_keys: bool = Field(
        False,
        description="whether calls may bring their own key for this NIM in the metadata x-nvidia-api-key; "
        "without it the key is not sent to it, and a call is refused if none of the NIMs that it asks takes the key",
    )

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, base_url: list[str]) -> list[str]:
        if len({parse_base_url(address) for address in base_url}) < len(base_url):
            raise ValueError("names an address twice; name each once")
        return base_url

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


def _check_profile(name: str) -> str:
    choose_profile(name, "")
    return name


ProfileName = Annotated[str, AfterValidator(_check_profile), Field(json_schema_extra={"enum": [AUTO, *PROFILES]})]


class NimSettings(SpaceSettings, NimConnectionSettings):
    """An embedding NIM."""

    kind: Literal["nim"] = Field("nim", description="nim, for an embedding NIM; required")
    profile: ProfileName = Field(
        AUTO,
        description=f"the model's family, which decides on the fields of a request: {', '.join(PROFILES)}; "
        "auto depends on the model's name, and is plain for an unknown one",
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="values that the NIM is asked to shorten vectors to, where the model can (Matryoshka); the space "
        "is then MODEL@DIMENSIONS",
    )
    max_batch: int | None = Field(
        None,
        ge=1,
        description="inputs in one request; without it: what the profile says, 16 to 64; nvclip takes at most 64",
    )

    @field_validator("max_batch", "dimensions")
    @classmethod
    def _check_for_profile(cls, value: int | None, info: ValidationInfo) -> int | None:
        # Without a name, the profile is known only once the NIM has said which model it serves.
        model, profile = info.data.get("model"), info.data.get("profile", AUTO)
        if value is not None and (model is not None or profile != AUTO):
            only = info.field_name
            # The model's name itself is checked with all settings, so that the fault has its name; see _misnamed.
            check_profile(
                choose_profile(profile, model or ""),
                "",
                max_batch=value if only == "max_batch" else None,
                dimensions=value if only == "dimensions" else None,
            )
        return value


class NimRerankSettings(NimConnectionSettings):
    """A reranking NIM."""

    kind: Literal["nim-rerank"] = Field("nim-rerank", description="nim-rerank, for a reranking NIM; required")

    @model_validator(mode="after")
    def _name_hosted_model(self) -> Self:
        if self.model is None and any(parse_base_url(each).endswith(HOSTED) for each in self.base_url):
            raise ValueError(f"model is not set, and base_url ends with {HOSTED}, where no list of models is; set it")
        return self


KINDS: dict[str, type[ClipSettings | NimSettings | NimRerankSettings]] = {
    "clip": ClipSettings,
    "nim": NimSettings,
    "nim-rerank": NimRerankSettings,
}
"""The groups of settings by kind."""

NamedSettings = Annotated[ClipSettings | NimSettings | NimRerankSettings, Field(discriminator="kind")]


def _check_proxy(proxy: str, info: ValidationInfo) -> None:
    for address in info.data.get("base_url", ["http://127.0.0.1"]):
        resolve_proxy(proxy, address)


def check_embedders(order: Sequence[str] | None, embedders: Mapping[str, NamedSettings]) -> Iterator[str]:
    """Yield what is wrong with embedders that are each right by themselves, a line each.

    Args:
        order: their names in order of preference, if that is set.
        embedders: embedders and rerankers by name.
    """
    named = [name for name, group in embedders.items() if not isinstance(group, NimRerankSettings)]
    rerankers = [name for name in embedders if name not in named]
    where = "embedder.order"
    if not named:
        yield (
            f"embedders: there are rerankers alone ({', '.join(rerankers)}), and nothing embeds; add an "
            "embedder, such as clip of kind clip, the bundled model"
        )
    elif order is None and len(named) > 1:
        names = ",".join(named)
        yield f"{where}: is not set, and there are several embedders; list all, the default one first: {names}"
    for name in order or ():
        if name in rerankers:
            yield f"{where}: {name} is a reranker; list embedders only"
        elif name not in embedders:
            yield f"{where}: there is no embedder {name}; there are: {', '.join(named)}"
    if order is not None and (missing := [name for name in named if name not in order]):
        yield f"{where}: lacks {', '.join(missing)}; add each embedder, or remove its settings"
    yield from _clashes(embedders)
    yield from _misnamed(embedders)
    yield from _unprovable(embedders)


def replica_names(name: str, count: int) -> list[str]:
    """Return the names of the embedders at the addresses of one group: NAME, NAME-2, NAME-3 and so on."""
    return [name, *(f"{name}-{number}" for number in range(2, count + 1))]


def _clashes(embedders: Mapping[str, NamedSettings]) -> Iterator[str]:
    for name, group in embedders.items():
        if isinstance(group, NimConnectionSettings):
            for number, replica in enumerate(replica_names(name, len(group.base_url))[1:], 2):
                if replica in embedders:
                    yield f"embedders.{replica}: is the name of address {number} of {name}, too; rename one of the two"


def _misnamed(embedders: Mapping[str, NamedSettings]) -> Iterator[str]:
    for name, group in embedders.items():
        if isinstance(group, NimSettings) and group.model is not None:
            try:
                check_profile(choose_profile(group.profile, group.model), group.model, max_batch=None, dimensions=None)
            except ValueError as error:
                yield f"embedders.{name}.model: {error}"


def _unprovable(embedders: Mapping[str, NamedSettings]) -> Iterator[str]:
    groups = {name: group for name, group in embedders.items() if isinstance(group, ClipSettings | NimSettings)}
    for name, group in groups.items():
        space = group.space
        if (
            space is None
            or group.probe_file is not None
            or (isinstance(group, NimSettings) and _may_have(group, space))
        ):
            continue
        if not any(_may_have(other, space) for other_name, other in groups.items() if other_name != name):
            yield (
                f"embedders.{name}.space: no other embedder here has the space {space} by itself; set probe_file to "
                "vectors that vecgate probe has written with an embedder of that space"
            )


def _may_have(group: ClipSettings | NimSettings, space: str) -> bool:
    """Return whether a model may have a space by itself, as far as the settings tell."""
    return isinstance(group, ClipSettings) or group.model in {None, space, space.partition("@")[0]}
