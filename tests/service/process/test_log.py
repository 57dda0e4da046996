"""What the log shows, and what it never does."""

import asyncio
import errno
import gc
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from embedders.telemetry.timing import CallTimes
from service.process.log import configure_logging, log_call
from service.settings import LogSettings

SECRET = "sesame-open-up"  # what a caller sent


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_the_place_and_not_what_the_variables_held(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(LogSettings(format=form))

    def embed(text: str) -> None:
        raise ZeroDivisionError(len(text))

    try:
        embed(SECRET)
    except ZeroDivisionError:
        structlog.get_logger("service.test").exception("crashed")

    written = capsys.readouterr().err
    assert "crashed" in written
    assert "in embed" in written
    assert SECRET not in written


def test_libraries_are_heard_from_warnings_on_and_our_lines_from_the_level_that_is_set(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(LogSettings(format="json", level="info"))

    ours, theirs = structlog.get_logger("service.test"), logging.getLogger("weaviate")
    ours.debug("too fine")
    ours.info("ours", size=3)
    theirs.info("chatter")
    theirs.warning("trouble")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("ours", "info"), ("trouble", "warning")]
    assert lines[0]["size"] == 3
    assert all(line["timestamp"] for line in lines)


class Written(io.BytesIO):
    """Bytes that were written, and how often."""

    writes = 0

    def write(self, content: Any) -> int:
        self.writes += 1
        return super().write(content)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Return what our lines and those of libraries are written to, as JSON."""
    written = Written()
    terminal = io.TextIOWrapper(written, encoding="latin-1")
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logging(LogSettings(format="json"))
    yield written
    terminal.detach()


async def test_lines_of_calls_are_written_together_and_soon(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.process.log.TOGETHER_S", 0.0)
    log = structlog.get_logger("service.test")
    for number in range(3):
        log.info("call", number=number)
    before = written.writes

    async with asyncio.timeout(60):
        while not written.writes:
            await asyncio.sleep(0)

    assert (before, written.writes) == (0, 1)
    assert [line["number"] for line in written.lines()] == [0, 1, 2]


@pytest.mark.parametrize("name", ["service.test", "weaviate"])
async def test_what_is_wrong_is_written_at_once_behind_what_came_before(written: Written, name: str) -> None:
    ours = structlog.get_logger("service.test")
    ours.info("call")
    (ours if name == "service.test" else logging.getLogger(name)).warning("trouble")
    ours.info("call")

    assert [line["event"] for line in written.lines()] == ["call", "trouble"]


async def test_what_threads_log_is_written_at_once(written: Written) -> None:
    log = structlog.get_logger("service.test")
    log.info("call")
    await asyncio.to_thread(log.info, "read")

    assert [line["event"] for line in written.lines()] == ["call", "read"]


def test_json_is_utf_8_whatever_the_terminal_is(written: Written) -> None:
    structlog.get_logger("service.test").info("call", peer="é 😀")

    assert written.lines()[0]["peer"] == "é 😀"


def test_what_waits_to_be_written_is_written_at_the_end_of_the_program() -> None:
    program = """
import asyncio
import structlog
from service.process.log import configure_logging
from service.settings import LogSettings

async def main():
    configure_logging(LogSettings(format="json"))
    structlog.get_logger("service.test").info("last words")

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()] == ["last words"]


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "no space"), BrokenPipeError(), BlockingIOError()])
async def test_a_log_that_cannot_be_written_costs_its_lines_and_fails_nothing(
    written: Written, monkeypatch: pytest.MonkeyPatch, fault: OSError
) -> None:
    ours = structlog.get_logger("service.test")

    def refuse(content: Any) -> int:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(written, "write", refuse)
        ours.warning("lost")
        logging.getLogger("weaviate").warning("lost")
        ours.info("lost")
        await asyncio.to_thread(ours.info, "lost")
    ours.warning("trouble")

    assert [line["event"] for line in written.lines()] == ["trouble"]


@pytest.mark.parametrize("beyond", [0, 20])
async def test_what_is_left_of_a_line_that_was_cut_off_does_not_spoil_the_next(
    written: Written, monkeypatch: pytest.MonkeyPatch, beyond: int
) -> None:
    ours = structlog.get_logger("service.test")

    def fill(content: Any) -> int:
        if written.getvalue():
            raise OSError(errno.ENOSPC, "no space")
        return io.BytesIO.write(written, content[: bytes(content).index(b"\n") + 1 + beyond])

    with monkeypatch.context() as patch:
        patch.setattr(written, "write", fill)
        ours.info("whole")
        ours.warning("cut off")
    ours.warning("trouble")
    ours.warning("more")

    first, *cut_off, second, third = written.getvalue().splitlines()
    assert [len(line) for line in cut_off] == [beyond] * (beyond > 0)
    assert [json.loads(line)["event"] for line in (first, second, third)] == ["whole", "trouble", "more"]


def test_a_program_whose_log_nobody_reads_ends_as_it_would_have() -> None:
    program = """
import structlog
from service.process.log import configure_logging
from service.settings import LogSettings

configure_logging(LogSettings())
structlog.get_logger("service.test").warning("trouble")
"""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as broken:
        assert subprocess.run([sys.executable, "-c", program], stderr=broken, check=False).returncode == 0


class TakesLittle(Written):
    """Takes three bytes at a time, as a stream may that other programs write to."""

    def write(self, content: Any) -> int:
        return super().write(content[:3])


def test_a_line_that_a_stream_takes_piece_by_piece_is_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    little = TakesLittle()
    terminal = io.TextIOWrapper(little)
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logging(LogSettings(format="json"))
    structlog.get_logger("service.test").warning("trouble")
    terminal.detach()

    assert [line["event"] for line in little.lines()] == ["trouble"]


class Lost:
    """Says so when the collector of cycles finds it."""

    def __init__(self) -> None:
        self.cycle = self

    def __del__(self) -> None:
        logging.getLogger("asyncio").error("lost")


def test_what_the_collector_frees_may_log_while_lines_are_written(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = written.write
    monkeypatch.setattr(written, "write", lambda content: (gc.collect(), write(content))[1])
    gc.collect()
    # What other tests have left may have said something, too.
    written.seek(0)
    written.truncate()
    Lost()
    structlog.get_logger("service.test").warning("trouble")

    assert [line["event"] for line in written.lines()] == ["trouble", "lost"]


def test_a_library_does_not_fail_because_of_what_it_logs(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)

    logging.getLogger("weaviate").warning("%d", "no number")
    logging.getLogger("weaviate").warning("trouble")

    assert [line["event"] for line in written.lines()] == ["trouble"]


FORGED = "a cat\n2026-11-29 12:00:00 [info     ] forged\r\x1b[31m\x1b]52;c;eA==\x07\x9b2J\u202e\u2028"


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_text_from_elsewhere_stays_in_its_line_and_controls_no_terminal(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(LogSettings(format=form))

    log, library = structlog.get_logger("service.test"), logging.getLogger("weaviate")
    log.info("call", collection=FORGED, listed=[FORGED], mapped={FORGED: FORGED})
    log.warning(FORGED, error=ValueError(FORGED))
    library.warning("trouble with %s", FORGED)

    written = capsys.readouterr().err
    assert len(written.splitlines()) == 3
    assert all(each == "\n" or each.isprintable() for each in written)
    if form == "json":
        assert json.loads(written.splitlines()[0])["collection"] == FORGED


def test_no_line_of_an_exceptions_message_looks_like_one_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="console"))

    for log in (structlog.get_logger("service.test"), logging.getLogger("weaviate")):
        log.error("crashed", exc_info=ValueError(FORGED))

    written = capsys.readouterr().err
    assert all(each == "\n" or each.isprintable() for each in written)
    lines = [line for line in written.splitlines() if not line.startswith("  ")]
    assert [line.split()[-1] for line in lines] == ["crashed", "crashed"]


@pytest.mark.parametrize("now_ns", [1_796_032_800_000_000_000, 1_796_032_800_390_144_999, 1_796_032_861_000_001_000])
def test_lines_are_stamped_with_the_time_in_utc(now_ns: int, written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.process.log.time.time_ns", lambda: now_ns)

    structlog.get_logger("service.test").info("call")

    expected = datetime.fromtimestamp(now_ns // 10**9, UTC) + timedelta(microseconds=now_ns // 1000 % 10**6)
    assert written.lines()[0]["timestamp"] == f"{expected:%Y-%m-%dT%H:%M:%S.%fZ}"


CALL = {"request_bytes": 55, "response_bytes": 4444, "peer": "ipv4:127.0.0.1:50070"}


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("level", ["info", "warning"])
def test_a_calls_line_is_what_structlog_writes_of_the_same_fields(
    form: str, level: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.process.log.time.time_ns", lambda: 1_796_032_800_390_144_999)
    configure_logging(LogSettings(format=form, level=level))
    times = CallTimes(queue_s=0.00123, backend_s=0.0206)
    fields = {"method": "/a.B/C", "code": "OK", "duration_ms": 30.0, "queue_ms": 1.2, "backend_ms": 20.6}

    with structlog.contextvars.bound_contextvars(request_id="1", client=FORGED):
        log_call("/a.B/C", "OK", 0.03, times, **CALL)
        structlog.get_logger("service.test").info("call", **fields, **CALL)

    written = capsys.readouterr().err.splitlines()
    assert len(written) == (2 if level == "info" else 0)
    assert len(set(written)) <= 1


def test_calls_lines_can_be_captured_before_and_after_the_log_is_configured() -> None:
    captured = []
    for configure in (structlog.reset_defaults, lambda: configure_logging(LogSettings()), structlog.reset_defaults):
        configure()
        with structlog.testing.capture_logs() as lines:
            log_call("/a.B/C", "OK", 0.03, CallTimes(store_s=0.01, preprocess_s=0.002), **CALL)
        captured.append(lines)

    fields = {"method": "/a.B/C", "code": "OK", "duration_ms": 30.0, "preprocess_ms": 2.0, "store_ms": 10.0}
    assert captured == [[{**fields, **CALL, "event": "call", "log_level": "info"}]] * 3
