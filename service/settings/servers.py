"""The settings of the process itself: its gRPC and HTTP servers, who may call, bounds on requests, and the log."""

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from service.settings.types import MIB, CommaSeparated, Group, Host, Matching, Port, ReadableFile, Seconds, split_names

MAX_INT32 = 2**31 - 1
"""gRPC counts the bytes of a message in 32 bits."""

_ORIGIN = re.compile(r"https?://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")

WithoutKey = Literal["health", "metrics", "reflection"]
# Only those that need no secret on this side; "none" and HMAC with a public key are the classic ways in.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine and nothing else."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _check_origins(origins: list[str]) -> list[str]:
    """Refuse what is no exact origin: browsers compare letter by letter."""
    for each in origins:
        if not _ORIGIN.fullmatch(each):
            raise ValueError(f"{each!r} is no origin; write it as https://name or https://name:port, in lower case")
    return origins


class ServerSettings(Group):
    """The gRPC server, and what it shares with the HTTP server: the certificate, and the time of a shutdown."""

    host: Host = Field("127.0.0.1", description="address that the gRPC server listens on")
    port: Port = Field(50070, description="port that the gRPC server listens on; 0 takes a free one")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="processes that answer calls at both addresses; they share an embedded Weaviate, local models and "
        "quotas; other limits count for each",
    )
    tls_cert_file: ReadableFile | None = Field(
        None,
        description="certificate chain in PEM for gRPC and HTTP, read again when it changes; both then take TLS only",
    )
    tls_key_file: ReadableFile | None = Field(None, description="private key of the certificate in PEM")
    tls_client_ca_file: ReadableFile | None = Field(
        None, description="authorities in PEM, one of which must have signed the certificate of every gRPC client"
    )
    allow_plaintext: bool = Field(
        False,
        description="whether to serve other machines without TLS, over gRPC and HTTP, as where a mesh or a proxy "
        "encrypts",
    )
    # gRPC itself keeps the event loop some 1.1 ns for each byte that it receives: 35 ms for so many.
    max_request_bytes: int = Field(32 * MIB, ge=1024, le=MAX_INT32, description="largest request message, in bytes")
    max_calls: int = Field(
        1024, ge=1, le=1_000_000, description="calls at the same time; more are refused as OVERLOADED"
    )
    max_connection_age_s: Seconds = Field(
        3600,
        description="seconds, give or take a tenth, after which a client is told to reconnect, so that new replicas "
        "get their share; its calls finish",
    )
    max_call_s: Seconds = Field(300, description="seconds that a call may take if its caller sets no earlier deadline")
    drain_delay_s: float = Field(
        0,
        ge=0,
        le=3600,
        description="seconds at shutdown between NOT_SERVING and refusing calls, for load balancers to notice",
    )
    drain_grace_s: Seconds = Field(30, description="seconds at shutdown in which calls in flight may finish")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            missing = "tls_cert_file" if self.tls_cert_file is None else "tls_key_file"
            raise ValueError(f"server.{missing}: is not set, and its counterpart is; set both or neither")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("server.tls_client_ca_file: needs server.tls_cert_file")
        self.check_encryption("server", self.host)
        return self

    def check_encryption(self, group: str, host: str) -> None:
        """Check that what listens on a host is encrypted, or reached from this machine only.

        Args:
            group: of the settings that name the host.
            host: where the server listens.

        Raises:
            ValueError: it is neither, and allow_plaintext is not set.
        """
        if self.tls_cert_file is None and not (self.allow_plaintext or is_loopback(host)):
            raise ValueError(
                f"{group}.host: is {host}, so other machines would be served without TLS; set server.tls_cert_file and "
                "server.tls_key_file, or server.allow_plaintext"
            )


class WebSettings(Group):
    """The HTTP server: the endpoint that answers as a NIM does. Its certificate is that of the gRPC server."""

    enabled: bool = Field(True, description="whether to serve HTTP")
    explorer: bool = Field(
        True,
        description="whether to serve the explorer, a page for browsers, at /; its files need no key, its calls do",
    )
    host: Host = Field("127.0.0.1", description="address that the HTTP server listens on")
    port: Port = Field(8070, description="port that the HTTP server listens on; 0 takes a free one")
    tls_client_ca_file: ReadableFile | None = Field(
        None,
        description="authorities in PEM, one of which must have signed the certificate of every HTTP client; probes of "
        "Kubernetes and Weaviate's module have none",
    )
    path_prefix: Annotated[
        str,
        Matching(r"^(/[A-Za-z0-9._~-]+)*$", "must be a path such as /embed: of A-Z, a-z, 0-9 and ._~- after each /"),
    ] = Field("", description="path in front of /v1 under which everything is served too, such as /embed")
    max_inputs: int = Field(
        2048, ge=1, le=16384, description="inputs of one HTTP request; an embedder gets them in batches of its own size"
    )
    max_body_bytes: int = Field(64 * MIB, ge=1024, description="largest body of an HTTP request, in bytes")
    cors_origins: Annotated[CommaSeparated, AfterValidator(_check_origins)] = Field(
        default_factory=list,
        description="origins whose pages may use this port from a browser, with commas between, such as "
        "https://pictures.example.com; empty: only pages of this port itself",
    )
    strict_images: bool = Field(
        False, description="whether texts that look like images without their prefix are refused; a NIM embeds them"
    )


class AuthSettings(Group):
    """Who may call."""

    clients_file: ReadableFile | None = Field(
        None, description="TOML file of the clients that may call, read again when it changes; without it anyone may"
    )
    jwks_file: ReadableFile | None = Field(
        None,
        description="JWK Set of an OIDC issuer, whose tokens are accepted beside keys; read again when it changes",
    )
    jwt_issuer: str = Field("", description="the issuer (iss) that tokens must have; required with auth.jwks_file")
    jwt_audience: str = Field("", description="the audience (aud) that tokens must name; required with auth.jwks_file")
    jwt_algorithms: CommaSeparated = Field(
        default_factory=lambda: ["RS256", "ES256"], description="algorithms that tokens may be signed with"
    )
    without_key: Annotated[list[WithoutKey], NoDecode, BeforeValidator(split_names)] = Field(
        default=["health", "metrics"],
        description="what anyone may use without a key, with commas between: health (probes need it), metrics, "
        "reflection; empty: nothing",
    )

    @property
    def open_health(self) -> bool:
        """Whether health may be asked for without a key."""
        return "health" in self.without_key

    @property
    def open_metrics(self) -> bool:
        """Whether /metrics may be read without a key."""
        return "metrics" in self.without_key

    @property
    def open_reflection(self) -> bool:
        """Whether gRPC reflection may be used without a key."""
        return "reflection" in self.without_key

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        if self.jwks_file is not None:
            faults += [
                f"auth.{name}: is required with auth.jwks_file"
                for name in ("clients_file", "jwt_issuer", "jwt_audience")
                if not getattr(self, name)
            ]
        if not self.jwt_algorithms or not set(self.jwt_algorithms) <= ALGORITHMS:
            faults.append(f"auth.jwt_algorithms: choose from {', '.join(sorted(ALGORITHMS))}")
        if faults:
            raise ValueError("\n".join(faults))
        return self


class FetchSettings(Group):
    """Images that callers name by URI instead of sending them."""

    origins_file: ReadableFile | None = Field(
        None,
        description="TOML file of the origins that images may be fetched from, with the credentials for each; without "
        "it none are fetched",
    )


class LimitSettings(Group):
    """Bounds on what callers send."""

    max_inputs: int = Field(
        500,
        ge=1,
        le=1_000_000,
        description="inputs of an EmbedInputs call; 500 vectors of 2048 values are less than the 4 MiB that gRPC's "
        "clients take by default",
    )
    max_objects: int = Field(1000, ge=1, le=1_000_000, description="objects of an ImportObjects call")
    max_hits: int = Field(1000, ge=1, le=10_000, description="limit and offset together of a SearchObjects call")
    max_text_bytes: int = Field(32 * 1024, ge=1, description="UTF-8 bytes of a text")
    max_image_bytes: int = Field(20 * MIB, ge=1, description="bytes of an encoded image")
    max_image_pixels: int = Field(
        52_000_000,
        ge=1,
        description="width x height of an image, read from its header; decoding takes up to 9 bytes a pixel, WebP 17",
    )


class LogSettings(Group):
    """The log, on standard error."""

    format: Literal["console", "json"] = Field("console", description="console for people, json for machines")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is written")
