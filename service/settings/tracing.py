"""The settings of tracing."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from service.settings.types import Group, ReadableFile


class TracingSettings(Group):
    """Traces, sent to an OpenTelemetry collector over OTLP."""

    endpoint: str | None = Field(
        None,
        description="where spans go: the collector's gRPC port, http://HOST:4317 or https://HOST:4317; without it "
        "nothing is traced",
    )
    ca_file: ReadableFile | None = Field(
        None, description="PEM file of the authorities whose certificates are trusted, instead of the public ones"
    )
    sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of calls to trace of those whose callers do not say themselves whether they are traced",
    )
    service_name: str = Field("vecgate", min_length=1, description="this server's name in traces")

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        try:
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port is not None
        except ValueError:
            usable = False
        if not usable or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("is no address of a collector; write http://HOST:PORT or https://HOST:PORT")
        return endpoint

    @model_validator(mode="after")
    def _check_ca_file(self) -> Self:
        if self.ca_file is not None and not (self.endpoint or "").startswith("https:"):
            raise ValueError("ca_file is set, but no https endpoint that it could be for")
        return self
