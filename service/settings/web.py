"""The settings of the HTTP server."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from service.settings.transport import check_transport
from service.settings.types import MIB, Group, Port, Seconds

__all__ = ["WebSettings"]


class WebSettings(Group):
    """The HTTP server: the endpoint that answers as a NIM does."""

    enabled: bool = Field(True, description="whether to serve HTTP")
    host: str = Field("127.0.0.1", description="address that the HTTP server listens on")
    port: Port = Field(8070, description="port that the HTTP server listens on; 0 takes a free one")
    path_prefix: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="path in front of /v1 under which everything is served too, such as /embed",
    )
    tls_cert_file: Path | None = Field(
        None, description="certificate chain in PEM; with it HTTP goes over TLS; read again when it changes"
    )
    tls_key_file: Path | None = Field(None, description="private key of the certificate in PEM")
    tls_client_ca_file: Path | None = Field(
        None,
        description="authorities in PEM; with them callers have to show a certificate of one of them (mTLS)",
    )
    allow_plaintext: bool = Field(False, description="whether web.host may be an address that others reach without TLS")
    timeout_s: Seconds = Field(60, description="seconds that one request may take")
    header_timeout_s: Seconds = Field(10, description="seconds in which a request's headers must be there")
    body_timeout_s: Seconds = Field(30, description="seconds in which a request's body must be there")
    # Go's clients, Weaviate's among them, close idle connections after 90 s; whoever waits longer is never in the way.
    idle_timeout_s: Seconds = Field(120, description="seconds that a connection may stay without a request")
    max_inputs: int = Field(64, ge=1, le=4096, description="inputs of one request; nvclip takes 64")
    max_body_bytes: int = Field(64 * MIB, ge=1024, description="bytes of a request's body")
    max_header_bytes: int = Field(32 * 1024, ge=1024, description="bytes of a request's line and headers")
    max_requests: int = Field(256, ge=1, description="requests at the same time; more are refused as OVERLOADED")
    max_connections: int = Field(1024, ge=1, description="connections at the same time; more are closed at once")
    strict_images: bool = Field(
        False, description="whether texts that look like images without their prefix are refused; a NIM embeds them"
    )

    @model_validator(mode="after")
    def _safe_transport(self) -> Self:
        if self.enabled:
            check_transport("web", self)
        return self
