"""What the progress bar of an import says."""

import pytest

from service.cli.importing import pace


@pytest.mark.parametrize(
    ("done", "total", "elapsed_s", "words"),
    [(0, 100, 5, ""), (10, 100, 0, ""), (50, 200, 10, "5.0/s, 0:00:30 left"), (200, 200, 40, "5.0/s, 0:00:00 left")],
)
def test_rate_and_remaining_time_are_those_since_the_start(done: int, total: int, elapsed_s: float, words: str) -> None:
    assert pace(done, total, elapsed_s) == words
