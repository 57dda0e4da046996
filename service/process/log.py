"""The log: structlog for our own lines and those of the libraries, on standard error."""

import asyncio
import atexit
import contextlib
import io
import logging
import random
import sys
import threading
import time
from collections import deque
from typing import Any, BinaryIO, NamedTuple, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

from embedders.telemetry.timing import CallTimes
from service.process.printable import printable, printable_json
from service.settings import LogSettings

NEWLINE = ord("\n")
TOGETHER_S = 0.1
"""Seconds that a line waits for others, so that one system call writes them all."""


class _Lines:
    """Writes lines to a stream: warnings and errors at once, after all earlier lines; others in batches.

    Every call of the API logs a line, and one write per line costs as much as the rest of logging it. structlog and
    logging write one line at a time, logging's MemoryHandler does not write before it is full, and its QueueHandler
    takes three times the CPU.

    A stream that takes nothing, as on a full disk or once its reader has gone, costs the lines and nothing else:
    callers get the answers that they would have got, and lines are written again as soon as the stream takes them, the
    first of them below what is left of a line that was cut off.
    """

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        # Without a buffer in between, which would keep what could not be written, and fail again with it at the end.
        self._stream = getattr(stream, "raw", stream)
        self._encoding = encoding
        self._waiting: deque[str] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._writer = 0
        self._cut_off = False
        atexit.register(self.write)

    def info(self, line: str) -> None:
        """Write a line soon, or now if no event loop runs."""
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
        """Write all waiting lines."""
        if self._writer == threading.get_ident():
            # The garbage collector ran during a write, and what it freed logs. The loop below writes that line.
            return
        with self._lock:
            self._writer = threading.get_ident()
            try:
                self._loop = None
                while self._waiting:
                    lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
                    with contextlib.suppress(OSError):
                        self._write_all("\n".join((*lines, "")).encode(self._encoding, "backslashreplace"))
            finally:
                self._writer = 0

    def _write_all(self, content: bytes) -> None:
        left = memoryview(b"\n" + content if self._cut_off else content)
        # It takes nothing where it would have to wait, as a terminal that another program made so does.
        while left and (taken := self._stream.write(left)) is not None:
            self._cut_off = taken < len(left) and left[taken - 1] != NEWLINE
            left = left[taken:]


class _CallLines(NamedTuple):
    """What the access log's lines pass through, and where they go."""

    processors: list[Processor]
    lines: _Lines
    shown: bool


_calls: _CallLines | None = None
"""None until the log is configured."""


class _ToLines(logging.Handler):
    """Passes the lines of libraries to our own, which keeps them in order."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def createLock(self) -> None:  # noqa: N802 -- logging's name
        # The lines have a lock. With a second one, two threads could deadlock.
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        try:
            self._lines.error(self.format(record))
        except Exception:  # noqa: BLE001 -- a library must not fail because of what it logs
            self.handleError(record)
        return True


def configure_logging(settings: LogSettings, worker: int | None = None) -> None:
    """Send every log line to standard error, in the format of the settings.

    Our own lines skip the logging package, because each call writes one. The few lines of libraries go through it.

    Args:
        settings: format and level.
        worker: number of this process that each line says, if it is one of several.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _Clock(),
    ]
    if worker is not None:
        shared.append(_of_worker(worker))
    if settings.format == "json":
        render: list[Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
        foreign: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Its default traceback shows local variables, and with them what callers sent.
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write_traceback)
        render = foreign = [_on_one_line, console]
    # JSON is UTF-8 everywhere.
    lines = _Lines(sys.stderr.buffer, "utf-8" if settings.format == "json" else sys.stderr.encoding)
    processors = [*shared, *render]
    global _calls  # noqa: PLW0603  # one process has one log
    _calls = _CallLines(processors, lines, shown=settings.level in ("debug", "info"))
    structlog.configure(
        processors=processors,
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
    # Below warnings, libraries may log contents and requests.
    root.setLevel(logging.WARNING)


class _Clock:
    """Stamps lines with the time as structlog's TimeStamper(fmt="iso", utc=True) does, at a third of its cost."""

    def __init__(self) -> None:
        self._second = (0, "")

    def __call__(self, logger: Any, method: str, line: EventDict) -> EventDict:
        del logger, method
        second, micro = divmod(time.time_ns() // 1000, 1_000_000)
        known, text = self._second
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, text)
        line["timestamp"] = f"{text}.{micro:06}Z"
        return line


def _of_worker(number: int) -> Processor:
    def add(logger: Any, method: str, line: EventDict) -> EventDict:
        del logger, method
        line.setdefault("worker", number)
        return line

    return add


def _to_json(line: Any, **options: Any) -> str:
    return printable_json(orjson.dumps(line, **options).decode())


def _on_one_line(logger: Any, method: str, line: EventDict) -> EventDict:
    """Keep texts from elsewhere from ending the line, starting a new one or controlling the terminal."""
    del logger, method
    return {name: printable(value) if isinstance(value, str) else value for name, value in line.items()}


def _write_traceback(to: TextIO, what: Any) -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, what)
    # Indented, so that no line of a message looks like a log line.
    to.writelines(f"\n  {printable(line)}" for line in written.getvalue().strip("\n").split("\n"))


def new_request_id() -> str:
    """Return an id for a call that brought none."""
    # It need not be a secret, and the operating system's random numbers cost a system call.
    return f"{random.getrandbits(128):032x}"


def log_call(
    method: str,
    code: str | int,
    took_s: float,
    times: CallTimes,
    *,
    request_bytes: int,
    response_bytes: int,
    peer: str,
) -> None:
    """Write the line that the access log has of each call."""
    # Tests configure structlog for themselves.
    ours = _calls if _calls is not None and structlog.get_config()["processors"] is _calls.processors else None
    if ours is not None and not ours.shown:
        return
    line: EventDict = {"method": method, "code": code, "duration_ms": round(took_s * 1000, 1)}
    # Without the stages that the call did not pass.
    if times.queue_s:
        line["queue_ms"] = round(times.queue_s * 1000, 1)
    if times.preprocess_s:
        line["preprocess_ms"] = round(times.preprocess_s * 1000, 1)
    if times.backend_s:
        line["backend_ms"] = round(times.backend_s * 1000, 1)
    if times.store_s:
        line["store_ms"] = round(times.store_s * 1000, 1)
    line["request_bytes"] = request_bytes
    line["response_bytes"] = response_bytes
    line["peer"] = peer
    if ours is None:
        structlog.get_logger(__name__).info("call", **line)
        return
    # The way through structlog's loggers costs as much as all processors.
    line["event"] = "call"
    with contextlib.suppress(structlog.DropEvent):
        rendered: Any = line
        for processor in ours.processors:
            rendered = processor(ours.lines, "info", rendered)
        ours.lines.info(rendered)
