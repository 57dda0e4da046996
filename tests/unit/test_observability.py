"""What the log shows, and what it never does."""

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
    levels = {name: logging.getLogger(name).level for name in ("embedders", "service")}
    yield
    root.handlers, root.level = handlers, level
    for name, value in levels.items():
        logging.getLogger(name).setLevel(value)
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
