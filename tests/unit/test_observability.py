"""What the log shows, and what it never does."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service.observability import configure_logging
from service.settings import LogSettings

SECRET = "sesame-open-up"  # what a caller sent


@pytest.fixture
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("_restored")
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


@pytest.mark.usefixtures("_restored")
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
