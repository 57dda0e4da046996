"""The log: structlog for our own lines and those of the libraries, on standard error."""

import logging
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import Processor

from embedders.timing import CallTimes
from service.settings import LogSettings, Settings, describe_settings

__all__ = ["configure_logging", "masked_settings", "milliseconds"]


def configure_logging(settings: LogSettings) -> None:
    """Send every log line to standard error in the form that the settings ask for.

    Our own lines take structlog's short way there, because each call writes one; libraries' few go through logging.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.format == "json":
        render: list[Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ]
        foreign: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        factory: Any = structlog.BytesLoggerFactory(sys.stderr.buffer)
    else:
        # Its own choice of traceback would show local variables, and with them what callers sent.
        plain = structlog.dev.plain_traceback
        render = foreign = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
        factory = structlog.WriteLoggerFactory(sys.stderr)
    structlog.configure(
        processors=[*shared, *render],
        logger_factory=factory,
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *foreign],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries may log contents and requests; what is wrong with them is still heard.
    root.setLevel(logging.WARNING)


def milliseconds(took_s: float, times: CallTimes) -> dict[str, float]:
    """Return a call's times as its line in the access log has them; stages that it did not pass are left out."""
    named = {
        "duration_ms": took_s,
        "queue_ms": times.queue_s,
        "preprocess_ms": times.preprocess_s,
        "backend_ms": times.backend_s,
        "store_ms": times.store_s,
    }
    return {name: round(seconds * 1000, 1) for name, seconds in named.items() if seconds or name == "duration_ms"}


def masked_settings(settings: Settings) -> dict[str, str]:
    """Return every setting by its environment variable, secrets masked."""
    values = settings.model_dump()
    masked = {}
    for name, _ in describe_settings():
        group, field = name.removeprefix("VECGATE_").lower().split("__", maxsplit=1)
        masked[name] = str(values[group][field])
    return masked
