"""The settings: environment variables VECGATE_<GROUP>__<FIELD> or a file, read once at start, all faults at once."""

from service.settings.embedders import (
    KINDS,
    ClipSettings,
    EmbedderSettings,
    NimConnectionSettings,
    NimRerankSettings,
    NimSettings,
    replica_names,
)
from service.settings.loading import (
    Settings,
    describe_embedders,
    describe_settings,
    load_running_settings,
    load_settings,
    masked_settings,
    variable,
)
from service.settings.servers import (
    AuthSettings,
    FetchSettings,
    LimitSettings,
    LogSettings,
    ServerSettings,
    WebSettings,
)
from service.settings.tracing import trace_collector
from service.settings.types import InvalidSettings, read_secret
from service.settings.weaviate import WeaviateSettings

__all__ = [
    "KINDS",
    "AuthSettings",
    "ClipSettings",
    "EmbedderSettings",
    "FetchSettings",
    "InvalidSettings",
    "LimitSettings",
    "LogSettings",
    "NimConnectionSettings",
    "NimRerankSettings",
    "NimSettings",
    "ServerSettings",
    "Settings",
    "WeaviateSettings",
    "WebSettings",
    "describe_embedders",
    "describe_settings",
    "load_running_settings",
    "load_settings",
    "masked_settings",
    "read_secret",
    "replica_names",
    "trace_collector",
    "variable",
]
