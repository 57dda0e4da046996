"""The program that measures Vecgate beside its peers, at a small size and without them."""

import json
import os
import subprocess
import sys

import pytest

from tests.bench.peers import RESULTS
from tests.pages import ROOT


@pytest.mark.timeout(600)
def test_the_comparison_with_peers_runs_and_tells_the_same_as_a_table_and_as_json() -> None:
    command = [sys.executable, "-m", "tests.bench", "peers"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"BENCH_SMALL": "1"}, check=True, capture_output=True, text=True
    )

    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    told = json.loads(RESULTS.read_text())
    assert table[0] == "| Load, callers | Vecgate | bare loop |"
    assert [row.partition(" |")[0][2:] for row in table[2:-1]] == [
        f"{each['what']}, {each['callers']}" for each in told["loads"]
    ]
    assert all(figures["rate"] > 0 for each in told["loads"] for figures in each["systems"].values())
