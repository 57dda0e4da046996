"""The settings of Weaviate."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, field_validator

from service.settings.types import ApiKey, ApiKeyFile, Group, Seconds, check_host

GRPC_PORT = 50051
DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": GRPC_PORT, "grpcs": 443}


class Address(NamedTuple):
    """Where a server listens, and whether it uses TLS."""

    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        """Return host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(url: str, *schemes: str) -> Address:
    """Return the address that a URL names.

    Raises:
        ValueError: it is not a URL of one of these schemes, or has more than host and port; the value, which may hold a
            password, is not in the message.
    """
    try:
        parts = urlsplit(url)
        host, port = check_host(parts.hostname or ""), parts.port
        usable = parts.scheme in schemes and parts.username is None and parts.path in {"", "/"}
        usable = usable and not (parts.query or parts.fragment)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"must be {' or '.join(f'{each}://HOST:PORT' for each in schemes)}, without user and path")
    return Address(host, DEFAULT_PORTS[parts.scheme] if port is None else port, parts.scheme.endswith("s"))


class WeaviateSettings(Group):
    """Weaviate, external or embedded."""

    embedded: bool = Field(
        False, description="whether to run a Weaviate server as a child process instead of using an external one"
    )
    binary: Path | None = Field(
        None, description="program of the embedded server; without it: the cache folder, then weaviate-server on PATH"
    )
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("vecgate") / "weaviate",
        description="folder of the embedded server's data",
    )
    http_url: str = Field(
        "http://127.0.0.1:8080",
        description="Weaviate's HTTP port: http://HOST:PORT or https://HOST:PORT; of an embedded server the port alone "
        "counts, and 0 takes a free one",
    )
    grpc_url: str | None = Field(
        None,
        description="Weaviate's gRPC port: grpc://HOST:PORT, or grpcs://HOST:PORT with TLS; without it: port 50051 of "
        "the host in weaviate.http_url, with TLS if that has it",
    )
    api_key: ApiKey = Field(
        None, description="Weaviate's API key, 4096 characters at most; an empty one counts as none"
    )
    api_key_file: ApiKeyFile | None = Field(None, description="file that holds the key, instead of weaviate.api_key")
    timeout_s: Seconds = Field(30, description="seconds for one call to Weaviate")

    @property
    def http(self) -> Address:
        """The address of Weaviate's HTTP port."""
        return parse_address(self.http_url, "http", "https")

    @property
    def grpc(self) -> Address:
        """The address of Weaviate's gRPC port."""
        if self.grpc_url is None:
            return self.http._replace(port=GRPC_PORT)
        return parse_address(self.grpc_url, "grpc", "grpcs")

    @field_validator("http_url")
    @classmethod
    def _check_http_url(cls, url: str) -> str:
        parse_address(url, "http", "https")
        return url

    @field_validator("grpc_url")
    @classmethod
    def _check_grpc_url(cls, url: str | None) -> str | None:
        if url is not None:
            parse_address(url, "grpc", "grpcs")
        return url
