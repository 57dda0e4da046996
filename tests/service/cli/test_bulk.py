"""`vecgate bulk`: what is wrong with a command is told before anything runs, and the result in numbers."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedders.images.likeness import Threshold
from service.bulk.accounts import Progress
from service.bulk.job import Result
from service.bulk.ledger import Totals
from service.bulk.reconciling import InCollection, Reconciliation
from service.cli import app
from service.cli.bulk import show_result, told_progress
from service.sources import Mapping


def test_a_mapping_of_another_form_is_wrong_use(tmp_path: Path):
    done = CliRunner().invoke(app, ["bulk", str(tmp_path), "--collection", "Photos", "--column", "image"])

    assert done.exit_code == 2
    assert "--column image: must have the form COLUMN=PROPERTY" in done.stderr


def test_an_input_that_is_not_there_is_wrong_use_and_leaves_no_ledger(tmp_path: Path):
    ledger = tmp_path / "ledger"

    done = CliRunner().invoke(
        app, ["bulk", str(tmp_path / "none.parquet"), "--collection", "Photos", "--ledger", str(ledger)]
    )

    assert done.exit_code == 2
    assert "there is no such file" in done.stderr
    assert not ledger.exists()


def test_a_job_needs_nothing_of_what_a_server_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VECGATE_SERVER__HOST", "0.0.0.0")

    done = CliRunner().invoke(app, ["bulk", str(tmp_path / "none.parquet"), "--collection", "Photos"])

    assert "there is no such file" in done.stderr


def test_only_output_without_an_output_is_wrong_use(tmp_path: Path):
    done = CliRunner().invoke(app, ["bulk", str(tmp_path), "--collection", "Photos", "--only-output"])

    assert done.exit_code == 2
    assert "--only-output needs --output" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "0.9"], "--threshold is for --duplicates; give both"),
        (
            ["--duplicates", "skip", "--output", "out", "--only-output"],
            "--duplicates compares with what the collection stores, and --only-output stores nothing",
        ),
        (["--duplicates", "remove"], "Invalid value"),
        (["--duplicates", "skip", "--threshold", "1.5"], "Invalid value"),
    ],
)
def test_options_for_duplicates_that_do_not_fit_are_wrong_use(tmp_path: Path, options: list[str], message: str):
    done = CliRunner().invoke(app, ["bulk", str(tmp_path), "--collection", "Photos", *options])

    assert done.exit_code == 2
    assert message in done.stderr


def test_a_job_gets_what_to_do_with_duplicates(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr("service.bulk.job.Job", lambda *options: asked.append(options[-2:]) or sys.exit(0))

    for options in ([], ["--duplicates", "report"], ["--duplicates", "skip", "--threshold", "0.97"]):
        CliRunner().invoke(app, ["bulk", "t.csv", "--collection", "Things", *options])

    assert asked == [("", None), ("report", None), ("skip", 0.97)]


def test_the_column_of_keys_also_becomes_what_it_is_mapped_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Mapping] = []
    monkeypatch.setattr("service.bulk.job.Job", lambda *options: asked.append(options[3]) or sys.exit(0))
    (tmp_path / "map.toml").write_text('[columns]\nsku = "title"\n')

    for options in (["--column", "sku=title"], ["--map", str(tmp_path / "map.toml")]):
        CliRunner().invoke(app, ["bulk", "t.csv", "--collection", "Things", "--key", "sku", *options])

    assert [each.columns for each in asked] == [{"sku": "title,id"}] * 2


def test_the_result_tells_where_each_row_went(capsys: pytest.CaptureFixture[str]):
    totals = Totals(fragments=2, rows=10, rejected={"IMAGE_TOO_LARGE": 2}, distinct=7)
    within = InCollection(before=0, counted=9, sampled=7, absent=0, mended=0, unfound=0)
    progress = Progress(2, fragments=2, rows=10, stored=8, seconds={"read": 1, "decode": 1, "embed": 6, "write": 2})

    show_result(Result(3, 1, progress, Reconciliation(2, totals, within, None)))

    told = capsys.readouterr().out
    assert "10 rows in = 7 stored + 2 rejected + 1 duplicates" in told
    assert "rejected as IMAGE_TOO_LARGE: 2" in told
    assert "working time: read 10%, decode 10%, embed 60%, write 20%" in told
    assert "1 of 3 fragments were done before" in told
    assert "the collection has 9 objects" in told
    assert "2 of them were written by others" in told


def test_the_result_tells_rows_of_one_id_from_those_that_are_left_out(capsys: pytest.CaptureFixture[str]):
    totals = Totals(fragments=1, rows=10, distinct=6, skipped=3, similar=2)
    threshold = Threshold(0.97, 0.9, 0.01, 32)

    show_result(Result(1, 0, Progress(1), Reconciliation(1, totals, None, None), threshold))

    told = capsys.readouterr().out.replace("\n", " ")
    assert "10 rows in = 6 stored + 0 rejected + 1 duplicates + 3 left out" in told
    assert "5 rows equal or nearly equal an object of another id" in told
    assert "near-duplicates have a cosine of 0.9700 or more, measured with 32 pictures" in told


def test_progress_tells_rate_shares_and_what_is_rejected():
    progress = Progress(4, fragments=1, rows=500, skipped=7, rejected=Counter({"IMAGE_UNDECODABLE": 3}))

    told = told_progress(progress)

    assert told.startswith("500 rows, ")
    assert " left, read 0%" in told
    assert told.endswith("7 left out, IMAGE_UNDECODABLE 3")
