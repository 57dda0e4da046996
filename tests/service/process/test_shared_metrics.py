"""The metrics of several processes, each of which shows all."""

import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from service.process.shared_metrics import forget_metrics

ROOT = Path(__file__).parents[3]

WORKER = """
import asyncio, os, signal, sys
from pathlib import Path
from service.process.shared_metrics import share_metrics
share_metrics(Path(sys.argv[2]), int(sys.argv[1]))
from prometheus_client import generate_latest
from embedders.telemetry.metrics import QUEUED_INPUTS
from service.process import metrics
metrics.FAILURES.labels("INTERNAL", "server").inc()
metrics.IN_FLIGHT.inc(5)
faults = {"HUBS": int(sys.argv[1]) % 2, "DRIFT": 0}
recall = 0.9 + int(sys.argv[1]) / 100
metrics.note_evaluation("Pictures", "", "default", faults=faults, recall=recall, time_s=int(sys.argv[1]))
metrics.STORE_UP.set(int(sys.argv[1]) % 2)
QUEUED_INPUTS.labels("clip").set_function(lambda: 7)
sys.stdout.write(generate_latest(asyncio.run(metrics.exposed())).decode())
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
"""A process that counts, shows the metrics of all, and is killed."""


EVALUATED = ("faults", "index_recall_ratio", "time_seconds")


def page_of(number: int, folder: Path) -> dict[str, float]:
    """Return what a worker shows: values by the names of samples."""
    command = [sys.executable, "-c", WORKER, str(number), str(folder)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(ended.stdout)
        for sample in family.samples
        if sample.labels.keys() <= {"reason", "blame", "embedder", "collection", "tenant", "vector"}
        or sample.labels.get("kind") == "HUBS"
    }


def test_a_page_adds_up_all_workers_and_forgets_only_what_a_dead_one_had_in_hand(tmp_path: Path) -> None:
    counted = ("vecgate_failures_total", "vecgate_grpc_calls_in_flight", "vecgate_embedder_queued_inputs")

    first = page_of(1, tmp_path)
    both = page_of(2, tmp_path)
    forget_metrics(tmp_path, 1)
    forget_metrics(tmp_path, 2)
    again = page_of(1, tmp_path)

    assert [first[name] for name in counted] == [1, 5, 7]
    assert [both[name] for name in counted] == [2, 10, 14]
    assert (first["vecgate_store_up"], both["vecgate_store_up"]) == (1, 0)
    assert [again[name] for name in counted] == [3, 5, 7]
    assert again["vecgate_store_up"] == 1
    evaluated = [[each[f"vecgate_evaluation_{name}"] for name in EVALUATED] for each in (first, both, again)]
    assert evaluated == [[1, 0.91, 1], [0, 0.92, 2], [1, 0.91, 1]]
    assert sorted(each.name for each in tmp_path.iterdir() if "counter" in each.name) == [
        "counter_1.db",
        "counter_2.db",
    ]
