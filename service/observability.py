"""The log: structlog for our own lines and those of the libraries, on standard error."""

import logging
import sys

import structlog
from structlog.typing import Processor

from service.settings import LogSettings, Settings, describe_settings

__all__ = ["configure_logging", "masked_settings"]


def configure_logging(settings: LogSettings) -> None:
    """Send every log line to standard error in the form that the settings ask for."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.format == "json":
        render: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Its own choice of traceback would show local variables, and with them what callers sent.
        plain = structlog.dev.plain_traceback
        render = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries may log contents and requests; what is wrong with them is still heard.
    root.setLevel(logging.WARNING)
    for ours in ("embedders", "service"):
        logging.getLogger(ours).setLevel(settings.level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def masked_settings(settings: Settings) -> dict[str, str]:
    """Return every setting by its environment variable, secrets masked."""
    values = settings.model_dump()
    masked = {}
    for name, _ in describe_settings():
        group, field = name.removeprefix("VECGATE_").lower().split("__", maxsplit=1)
        masked[name] = str(values[group][field])
    return masked
