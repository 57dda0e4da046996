"""What can be measured is listed, and what cannot be is refused."""

from pathlib import Path

import pytest

from tests.bench.__main__ import BENCHMARKS, LONG, chosen

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_page_of_the_tests_lists_every_benchmark() -> None:
    table = README.partition("## Benchmarks")[2]

    assert {name for name in BENCHMARKS | LONG if f"`{name}`" not in table} == set()


def test_an_unknown_name_ends_with_the_names_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        chosen(["nim", "nope"])

    assert ended.value.code == 2
    assert capsys.readouterr().err == f"no such benchmark: nope; there are: {', '.join(BENCHMARKS | LONG)}\n"


def test_without_a_name_all_but_the_long_ones_run() -> None:
    assert chosen([]) == list(BENCHMARKS.values())
    assert chosen(["soak"]) == [LONG["soak"]]
