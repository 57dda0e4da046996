"""The settings of Weaviate."""

from pathlib import Path

from platformdirs import user_data_path
from pydantic import Field, SecretStr

from service.settings.types import Group, Host, Port, Seconds, SecretFile


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
