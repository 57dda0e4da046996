"""The groups of settings that every Vecgate has: servers, log, embedders, Weaviate and limits."""

from pathlib import Path
from typing import Annotated, Literal, Self

from platformdirs import user_data_path
from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from service.settings.listening import ListeningSettings
from service.settings.types import MIB, Group, Host, Port, Seconds, SecretFile, split_names

EmbedderName = Literal["clip", "nim"]


class ServerSettings(ListeningSettings):
    """The gRPC server."""

    group = "server"

    host: Host = Field("127.0.0.1", description="address that the gRPC server listens on")
    port: Port = Field(50070, description="port that the gRPC server listens on; 0 takes a free one")
    # gRPC itself keeps the event loop some 1.1 ns for each byte that it receives: 35 ms for so many.
    max_request_bytes: int = Field(32 * MIB, ge=1024, description="bytes of a request message")
    max_response_bytes: int = Field(64 * MIB, ge=1024, description="bytes of a response message")
    max_header_bytes: int = Field(
        16 * 1024, ge=1024, le=MIB, description="bytes of a call's metadata; more is refused before the call begins"
    )
    max_calls: int = Field(
        1024, ge=1, le=1_000_000, description="calls at the same time; more are refused as OVERLOADED"
    )
    max_calls_bytes: int = Field(
        512 * MIB,
        ge=1024,
        description="bytes that the requests and answers of all calls may hold before more calls are refused as "
        "OVERLOADED; requests that are still on their way do not count",
    )
    request_timeout_s: Seconds = Field(60, description="seconds in which a call's request must be there")
    max_connections: int = Field(
        8192,
        ge=1,
        le=1_000_000,
        description="connections at the same time, and no more than three quarters of the files that the process may "
        "open; more are closed at once",
    )
    max_connection_idle_s: Seconds = Field(
        300,
        description="seconds without a call after which a connection is closed, also one that never had any; clients "
        "open it again",
    )
    max_connection_age_s: Seconds = Field(
        3600,
        description="seconds, give or take a tenth, after which a client is told to connect anew, so that new replicas "
        "get their share; its calls finish",
    )
    keepalive_s: Seconds = Field(
        60, description="seconds of silence after which a client is pinged; one that is gone holds nothing 20 s later"
    )
    min_ping_interval_s: Seconds = Field(
        60, description="seconds between a client's own pings; one that pings more often is disconnected"
    )
    max_call_s: Seconds = Field(
        300, description="seconds that one call may take when its caller sets no nearer deadline"
    )
    drain_delay_s: float = Field(
        0,
        ge=0,
        le=3600,
        description="seconds between NOT_SERVING and refusing calls at the end, for load balancers to notice",
    )
    drain_grace_s: Seconds = Field(30, description="seconds that calls in flight get to finish at the end")


class LogSettings(Group):
    """The log, on standard error."""

    format: Literal["console", "json"] = Field("console", description="console for people, json for machines")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is written")


class EmbedderSettings(Group):
    """All embedders."""

    order: Annotated[list[EmbedderName], NoDecode, BeforeValidator(split_names)] = Field(
        default=["clip"],
        min_length=1,
        description="embedders to start, commas between, the default one first: clip (local model), nim (NVIDIA NIM)",
    )
    max_queued_inputs: int = Field(
        4096,
        ge=1,
        description="inputs that may wait for an embedder, of bulk work three quarters; more are refused as OVERLOADED",
    )
    max_queued_bytes: int = Field(
        512 * MIB, ge=1024, description="bytes of texts and images that may wait for an embedder, as for inputs"
    )
    check_interval_s: Seconds = Field(
        10, description="seconds between checks of an embedder that had no successful call meanwhile"
    )
    check_timeout_s: Seconds = Field(30, description="seconds that such a check may take")
    max_failures: int = Field(
        5,
        ge=1,
        description="failures in a row after which an embedder is left alone; a refused key and a model that is gone "
        "do it at once",
    )
    cool_down_s: Seconds = Field(
        1, description="seconds until an embedder that is left alone is probed; doubled with each failure"
    )
    max_cool_down_s: Seconds = Field(30, description="the longest time between such probes, in seconds")
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
        description="SHA-256 of the weights; others are refused",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|(cpu|cuda|cuda:\d+)(,(cpu|cuda:\d+))*)$",
        description="where the model runs: auto (every GPU, else the CPU), cpu, cuda (every GPU), or cuda:0,cuda:2",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto", description="what the model computes in; auto is fp16 on a GPU, once it has shown to be near fp32"
    )
    max_batch: int = Field(32, ge=1, le=4096, description="inputs in one forward pass")
    jpeg_draft_factor: int = Field(
        4,
        ge=0,
        le=64,
        description="large JPEGs are decoded scaled down to no less than so many times what the model reads: 4 changes "
        "a pixel that the model sees by at most 1 of 255 levels, 2 by at most 3; 0 decodes them at full size",
    )
    readers: int = Field(
        0,
        ge=0,
        le=256,
        description="pictures to read at the same time, each of which takes a core and memory, and a quarter as many "
        "large ones beside them; 0: as many as there are cores, from 4 to 16",
    )
    space: str | None = Field(
        None,
        min_length=1,
        description="a space that the model is of, such as nvidia/nvclip, though its own is another; it serves once a "
        "probe has shown it",
    )
    probe_file: Path | None = Field(
        None,
        description="vectors of the probe in clip.space, as `vecgate probe` writes them; without it the NIM is asked",
    )
    probe_min_cosine: float = Field(
        0.98, gt=0, le=1, description="how near the model's vectors of the probe have to be to those of clip.space"
    )


class WeaviateSettings(Group):
    """Weaviate, external or embedded."""

    embedded: bool = Field(
        False, description="whether to run a Weaviate server as a child process instead of using one elsewhere"
    )
    binary: Path | None = Field(
        None, description="the embedded server's program; without it: the cache folder, then weaviate-server on PATH"
    )
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("vecgate") / "weaviate",
        description="folder of the embedded server's data",
    )
    http_host: Host = Field("127.0.0.1", description="host of Weaviate's HTTP port; always 127.0.0.1 when embedded")
    http_port: Port = Field(8080, description="Weaviate's HTTP port; 0 takes a free one when embedded")
    http_secure: bool = Field(False, description="whether HTTP goes over TLS")
    grpc_host: Host | None = Field(
        None, description="host of Weaviate's gRPC port, if another one than weaviate.http_host"
    )
    grpc_port: Port = Field(50051, description="Weaviate's gRPC port; 0 takes a free one when embedded")
    grpc_secure: bool = Field(False, description="whether gRPC goes over TLS")
    api_key: SecretStr | None = Field(None, description="Weaviate's API key")
    api_key_file: SecretFile | None = Field(None, description="file that holds the key, instead of weaviate.api_key")
    timeout_s: Seconds = Field(30, description="seconds for one call to Weaviate")
    check_interval_s: Seconds = Field(0.5, description="seconds between checks that Weaviate answers")
    schema_max_age_s: float = Field(
        1.0,
        ge=0,
        le=60,
        description="seconds for which searches go by a collection's schema as it was read; 0 reads it for each",
    )
    max_batch_objects: int = Field(100, ge=1, le=10_000, description="objects in one write to Weaviate")
    max_batch_bytes: int = Field(
        16 * MIB, ge=1024, description="bytes of objects in one write to Weaviate, unless a single one has more"
    )


class LimitSettings(Group):
    """Bounds on what callers send."""

    max_inputs: int = Field(
        500,
        ge=1,
        le=1_000_000,
        description="inputs of an EmbedInputs call; so many vectors of 2048 values are less than the 4 MiB that gRPC's "
        "clients take by default",
    )
    max_objects: int = Field(1000, ge=1, le=1_000_000, description="objects of an ImportObjects call")
    max_hits: int = Field(1000, ge=1, le=10_000, description="limit and offset together of a SearchObjects call")
    max_filter_depth: int = Field(16, ge=1, le=40, description="how deep a filter may be nested")
    max_filter_nodes: int = Field(
        1000, ge=1, le=100_000, description="conditions, joins and listed values of a filter, together"
    )
    max_text_bytes: int = Field(32 * 1024, ge=1, description="UTF-8 bytes of a text")
    max_image_bytes: int = Field(20 * MIB, ge=1, description="bytes of an encoded image")
    max_image_pixels: int = Field(
        52_000_000,
        ge=1,
        description="width x height of an image, read from its header; decoding takes up to 9 bytes a pixel, WebP 17",
    )
    max_image_frames: int = Field(
        1000, ge=1, le=100_000, description="frames or pages of an image, of which the first one is embedded"
    )
