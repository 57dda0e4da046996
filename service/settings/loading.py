"""All settings together, read from the environment."""

import os
import re
from collections.abc import Iterator
from typing import Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from service.settings.embedders import ClipSettings, EmbedderSettings, NimSettings
from service.settings.removed import REMOVED
from service.settings.servers import AuthSettings, LimitSettings, LogSettings, ServerSettings, WebSettings
from service.settings.tracing import tracing_faults
from service.settings.types import InvalidSettings
from service.settings.weaviate import WeaviateSettings

PREFIX = "VECGATE_"


class Settings(BaseSettings):
    """Every setting. Build it with load_settings, which words faults for people."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    clip: ClipSettings = ClipSettings()
    nim: NimSettings = NimSettings()
    weaviate: WeaviateSettings = Field(default_factory=WeaviateSettings)
    limits: LimitSettings = LimitSettings()
    web: WebSettings = WebSettings()
    auth: AuthSettings = AuthSettings()

    @model_validator(mode="after")
    def _web_is_safe(self) -> Self:
        if self.web.tls_client_ca_file is not None and self.server.tls_cert_file is None:
            raise ValueError("web.tls_client_ca_file: needs server.tls_cert_file")
        if self.web.enabled:
            self.server.check_encryption("web", self.web.host)
        return self

    @model_validator(mode="after")
    def _largest_call_fits_into_the_queue(self) -> Self:
        if self.limits.max_inputs > self.embedder.max_queued_inputs:
            raise ValueError(
                f"{variable('limits', 'max_inputs')} is {self.limits.max_inputs}, but only "
                f"{variable('embedder', 'max_queued_inputs')} = {self.embedder.max_queued_inputs} may wait: "
                "lower the one or raise the other"
            )
        return self


def load_settings() -> Settings:
    """Read the settings from the environment, and check the variables of OpenTelemetry that it may hold.

    Raises:
        InvalidSettings: some break rules, or a variable names no setting.
    """
    known = {name for name, _ in describe_settings()}
    # Kubernetes sets VECGATE_PORT and the like for a Service named vecgate, so only names with a group are ours.
    unknown = {
        name: name.upper()
        for name in os.environ
        if name.upper().startswith(PREFIX)
        and name.upper() not in known
        and ("__" in name or name.upper().removeprefix(PREFIX) in REMOVED)
    }
    faults = {upper: f"{name}: {_advice(upper)}" for name, upper in sorted(unknown.items())}
    try:
        settings = Settings()
    except SettingsError as error:
        # It names the field alone, and what it was caused by has the value.
        (group,) = re.findall(r'field "(\w+)"', str(error))
        raise InvalidSettings("\n".join([*faults.values(), f"{variable(group)}: must be JSON"])) from None
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            name = variable(*map(str, each["loc"][:2])) if each["loc"] else ""
            if each["type"] == "extra_forbidden":
                # A group may also be given as JSON in one variable, such as VECGATE_SERVER.
                faults.setdefault(name, f"{name}: {_advice(name)}")
            else:
                words = each["msg"].removeprefix("Value error, ")
                faults[f"{name} {words}"] = f"{name}: {words}" if name else words
        settings = None
    lines = [*faults.values(), *tracing_faults(os.environ)]
    if settings is None or lines:
        raise InvalidSettings("\n".join(lines))
    return settings


def _advice(name: str) -> str:
    """Return what to do about a variable that names no setting."""
    gone = REMOVED.get(name.removeprefix(PREFIX))
    return "there is no such setting; see `vecgate serve --help`" if gone is None else f"this setting is gone: {gone}"


def variable(*path: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + "__".join(path).upper()


def describe_settings() -> Iterator[tuple[str, FieldInfo]]:
    """Yield each setting's environment variable and its field, in the order of Settings."""
    for group, group_field in Settings.model_fields.items():
        model = group_field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for name, field in model.model_fields.items():
            yield variable(group, name), field
