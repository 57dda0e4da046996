"""The settings of who may call."""

from pydantic import Field

from service.settings.types import Group, SecretFile

__all__ = ["AuthSettings"]


class AuthSettings(Group):
    """Who may call, over gRPC and HTTP alike."""

    keys_file: SecretFile | None = Field(
        None,
        description="TOML file of clients with the hashes of their keys and what each may do; read again when it "
        "changes; without it everybody may call",
    )
    open_health: bool = Field(True, description="whether health is told without a key")
    open_reflection: bool = Field(False, description="whether gRPC's reflection is told without a key")
    open_metrics: bool = Field(False, description="whether /metrics is told without a key")
