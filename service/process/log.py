"""The log: structlog for our own lines and those of the libraries, on standard error."""

import asyncio
import atexit
import io
import logging
import secrets
import sys
import threading
from collections import deque
from typing import Any, BinaryIO, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

from embedders.telemetry.timing import CallTimes
from service.process.printable import printable, printable_json
from service.settings import LogSettings, Settings, describe_settings

TOGETHER_S = 0.1
"""For so long lines wait for others, to be written with one call of the system's."""


class _Lines:
    """Writes lines to a stream: warnings and what is worse at once, with all that came before them, others together.

    Every call of the API leaves a line, and a write of its own for each costs as much as all the rest of its logging.
    structlog and logging write one at a time; logging's MemoryHandler does not write before it is full.
    """

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding
        self._waiting: deque[str] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._writer = 0
        atexit.register(self.write)

    def info(self, line: str) -> None:
        """Write a line soon, or now where no event loop runs."""
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.write()
            return
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(TOGETHER_S, self.write)

    def error(self, line: str) -> None:
        """Write a line now."""
        self._waiting.append(line)
        self.write()

    debug = info
    warning = critical = error

    def write(self) -> None:
        """Write all lines that wait."""
        if self._writer == threading.get_ident():
            # The collector of cycles has come in between, and what it freed has something to say: it is written below.
            return
        with self._lock:
            self._writer = threading.get_ident()
            try:
                self._loop = None
                while self._waiting:
                    lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
                    self._stream.write("\n".join((*lines, "")).encode(self._encoding, "backslashreplace"))
                    self._stream.flush()
            finally:
                self._writer = 0


class _ToLines(logging.Handler):
    """Gives what libraries log to our own lines, and so in order."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def createLock(self) -> None:  # noqa: N802 -- logging's name
        # With a second lock, two threads could wait for each other: the lines have one.
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        try:
            self._lines.error(self.format(record))
        except Exception:  # noqa: BLE001 -- a library is not to fail because of what it logs
            self.handleError(record)
        return True


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
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
        foreign: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Its own choice of traceback would show local variables, and with them what callers sent.
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write_traceback)
        render = foreign = [_on_one_line, console]
    # JSON is UTF-8 wherever it is read.
    lines = _Lines(sys.stderr.buffer, "utf-8" if settings.format == "json" else sys.stderr.encoding)
    structlog.configure(
        processors=[*shared, *render],
        logger_factory=lambda *_: lines,
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        cache_logger_on_first_use=True,
    )
    handler = _ToLines(lines)
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


def _to_json(line: Any, **options: Any) -> str:
    return printable_json(orjson.dumps(line, **options).decode())


def _on_one_line(logger: Any, method: str, line: EventDict) -> EventDict:
    """Keep texts from elsewhere from ending the line, beginning one of their own or controlling the terminal."""
    del logger, method
    return {name: printable(value) if isinstance(value, str) else value for name, value in line.items()}


def _write_traceback(to: TextIO, what: Any) -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, what)
    # Indented, so that no line of a message looks like one of the log.
    to.writelines(f"\n  {printable(line)}" for line in written.getvalue().strip("\n").split("\n"))


def new_request_id() -> str:
    """Return a name for a call that brought none."""
    return secrets.token_hex(16)


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
