"""The settings: environment variables VECGATE_<GROUP>__<FIELD>, read once at start, all faults reported at once."""

from service.settings.embedders import ClipSettings, EmbedderSettings, NimSettings
from service.settings.loading import Settings, describe_settings, load_settings, variable
from service.settings.servers import AuthSettings, LimitSettings, LogSettings, ServerSettings, WebSettings
from service.settings.tracing import trace_collector
from service.settings.types import InvalidSettings, read_secret
from service.settings.weaviate import WeaviateSettings

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
    "WeaviateSettings",
    "WebSettings",
    "describe_settings",
    "load_settings",
    "read_secret",
    "trace_collector",
    "variable",
]
