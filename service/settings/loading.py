"""All settings together, read from the environment."""

import os
from collections.abc import Iterator
from typing import Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings.auth import AuthSettings
from service.settings.groups import (
    ClipSettings,
    EmbedderSettings,
    LimitSettings,
    LogSettings,
    ServerSettings,
    WeaviateSettings,
)
from service.settings.nim import NimSettings
from service.settings.tracing import TracingSettings
from service.settings.types import InvalidSettings
from service.settings.web import WebSettings

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
    tracing: TracingSettings = TracingSettings()

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
    """Read the settings from the environment.

    Raises:
        InvalidSettings: some break rules, or a variable names no setting.
    """
    faults = [
        f"{name}: there is no such setting; see `vecgate serve --help`"
        for name in sorted(os.environ)
        # Kubernetes sets VECGATE_PORT and the like for a Service named vecgate, so only names with a group are ours.
        if name.upper().startswith(PREFIX) and "__" in name and name.upper() not in set(_variables())
    ]
    try:
        settings = Settings()
    except ValidationError as error:
        faults += [
            f"{variable(*map(str, each['loc'][:2]))}: {_words(each['msg'])}" if each["loc"] else _words(each["msg"])
            for each in error.errors(include_input=False, include_url=False)
            if each["type"] != "extra_forbidden"
        ]
        settings = None
    if settings is None or faults:
        raise InvalidSettings("\n".join(faults))
    return settings


def _words(message: str) -> str:
    return message.removeprefix("Value error, ")


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


def _variables() -> Iterator[str]:
    return (name for name, _ in describe_settings())
