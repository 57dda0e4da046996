"""The settings of who may call."""

from typing import Self

from pydantic import Field, model_validator

from service.settings.types import CommaSeparated, Group, ReadableFile, Seconds

# Only what needs no secret of the verifier's; "none" and HMAC with a public key are the classic ways in.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)


class AuthSettings(Group):
    """Who may call."""

    clients_file: ReadableFile | None = Field(
        None, description="TOML file of the clients that may call, read again when it changes; without it everybody may"
    )
    jwks_file: ReadableFile | None = Field(
        None,
        description="JWK Set of an OIDC issuer, whose tokens are then taken beside keys; read again when it changes",
    )
    jwt_issuer: str = Field("", description="the issuer (iss) that tokens must have; needed with auth.jwks_file")
    jwt_audience: str = Field("", description="the audience (aud) that tokens must name; needed with auth.jwks_file")
    jwt_algorithms: CommaSeparated = Field(
        default_factory=lambda: ["RS256", "ES256"], description="algorithms that tokens may be signed with"
    )
    check_interval_s: Seconds = Field(5, description="seconds between looks whether the files have changed")
    open_health: bool = Field(True, description="whether health may be asked for without a key, as probes do")
    open_reflection: bool = Field(False, description="whether gRPC reflection may be used without a key")
    open_metrics: bool = Field(True, description="whether /metrics may be read without a key")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        if self.jwks_file is not None:
            faults += [
                f"auth.{name}: is needed with auth.jwks_file"
                for name in ("clients_file", "jwt_issuer", "jwt_audience")
                if not getattr(self, name)
            ]
        unknown = [each for each in self.jwt_algorithms if each not in ALGORITHMS]
        if unknown or not self.jwt_algorithms:
            faults.append(f"auth.jwt_algorithms: choose from {', '.join(sorted(ALGORITHMS))}")
        if faults:
            raise ValueError("; ".join(faults))
        return self
