"""The settings: environment variables VECGATE_<GROUP>__<FIELD>, read once at start, all faults reported at once."""

from service.settings.auth import AuthSettings
from service.settings.groups import (
    ClipSettings,
    EmbedderSettings,
    LimitSettings,
    LogSettings,
    ServerSettings,
    WeaviateSettings,
)
from service.settings.loading import Settings, describe_settings, load_settings, variable
from service.settings.nim import NimSettings
from service.settings.tracing import TracingSettings
from service.settings.types import InvalidSettings, read_secret
from service.settings.web import WebSettings

__all__ = [
    "AuthSettings",
    "ClipSettings",
    "EmbedderSettings",
    "InvalidSettings",
    "LimitSettings",
    "LogSettings",
    "NimSettings",
    "ServerSettings",
    "Settings",
    "TracingSettings",
    "WeaviateSettings",
    "WebSettings",
    "describe_settings",
    "load_settings",
    "read_secret",
    "variable",
]
