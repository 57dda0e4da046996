"""The settings of the HTTP server."""

from typing import Self

from pydantic import Field, model_validator

from service.settings.listening import ListeningSettings
from service.settings.types import MIB, Host, Port, Seconds


class WebSettings(ListeningSettings):
    """The HTTP server: the endpoint that answers as a NIM does."""

    group = "web"

    enabled: bool = Field(True, description="whether to serve HTTP")
    host: Host = Field("127.0.0.1", description="address that the HTTP server listens on")
    port: Port = Field(8070, description="port that the HTTP server listens on; 0 takes a free one")
    path_prefix: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="path in front of /v1 under which everything is served too, such as /embed",
    )
    timeout_s: Seconds = Field(60, description="seconds that one request may take")
    header_timeout_s: Seconds = Field(10, description="seconds in which a request's headers must be there")
    body_timeout_s: Seconds = Field(30, description="seconds in which a request's body must be there")
    # Go's clients, Weaviate's among them, close idle connections after 90 s; whoever waits longer is never in the way.
    idle_timeout_s: Seconds = Field(120, description="seconds that a connection may stay without a request")
    max_inputs: int = Field(64, ge=1, le=4096, description="inputs of one request; nvclip takes 64")
    max_body_bytes: int = Field(64 * MIB, ge=1024, description="bytes of a request's body")
    max_bodies_bytes: int = Field(
        256 * MIB,
        ge=1024,
        description="bytes of the bodies of all requests at the same time; more are refused as OVERLOADED",
    )
    max_header_bytes: int = Field(32 * 1024, ge=1024, description="bytes of a request's line and headers")
    max_requests: int = Field(256, ge=1, description="requests at the same time; more are refused as OVERLOADED")
    max_connections: int = Field(1024, ge=1, description="connections at the same time; more are closed at once")
    strict_images: bool = Field(
        False, description="whether texts that look like images without their prefix are refused; a NIM embeds them"
    )

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError("web.max_bodies_bytes is less than web.max_body_bytes: no body of that size could be read")
        return self

    def _listens(self) -> bool:
        return self.enabled
